"""Batches from folders: the rows of memory, in an order that a step alone decides."""

import numpy as np
import pytest

from experiments import streams

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3, 2)).astype(np.float32)
Y = np.arange(23)


@pytest.fixture
def folder(tmp_path):
    for name, array in (("x", X), ("y", Y)):
        (tmp_path / name).mkdir()
        for i, part in enumerate(np.split(array, [4, 5, 17])):
            np.save(tmp_path / name / f"{i:03}.npy", part)
    return tmp_path


def test_fields_go_together_and_are_those_of_memory(folder):
    batch = streams.stream(folder, 5, 0)
    for step in (0, 3, 100):
        found = batch(step)
        np.testing.assert_array_equal(np.asarray(found["x"]), X[np.asarray(found["y"])])
        assert (found["x"].shape, found["x"].dtype) == ((5, 3, 2), np.float32)


def test_an_epoch_has_every_row_at_most_once_and_the_next_another_order(folder):
    batch = streams.stream(folder, 5, 0)
    epochs = [
        np.concatenate([np.asarray(batch(step)["y"]) for step in range(first, first + 4)])
        for first in (0, 4)
    ]
    for rows in epochs:
        assert len(set(rows.tolist())) == 20
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_step_alone_decides_the_rows(folder):
    orders = [[2, 0, 7], [7, 2, 0]]
    first, second = (
        {step: np.asarray(streams.stream(folder, 4, 1)(step)["y"]).tolist() for step in order}
        for order in orders
    )
    assert first == second
    assert np.asarray(streams.stream(folder, 4, 2)(0)["y"]).tolist() != first[0]


def test_only_what_is_asked_for_is_read(folder):
    asked = []

    class Spy(streams.Field):
        def __getitem__(self, rows):
            asked.append(rows.tolist())
            return super().__getitem__(rows)

    rows = np.array([22, 0, 9, 4])
    some = streams.Rows(Spy(folder / "x"), rows)
    np.testing.assert_array_equal(some[1:3, :, 1], X[rows[1:3], :, 1])
    assert asked == [[0, 9]]


def test_what_does_not_fit_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="in 1 to 23, got 24"):
        streams.stream(folder, 24, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no subfolders"):
        streams.stream(tmp_path / "empty", 1, 0)
    np.save(folder / "y" / "009.npy", np.arange(2))
    with pytest.raises(ValueError, match=r"'x': 23, 'y': 25"):
        streams.stream(folder, 2, 0)
    np.save(folder / "x" / "009.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match="other kinds"):
        streams.stream(folder, 2, 0)


def test_training_asks_for_the_rows_of_its_own_devices(on_devices, folder):
    on_devices(4, PROGRAM.format(folder=str(folder)))


PROGRAM = """
import jax, numpy as np
from types import SimpleNamespace
from experiments import harness, meshes, streams
asked = []
class Spy(streams.Field):
    def __getitem__(self, rows):
        asked.append(len(rows))
        return super().__getitem__(rows)
streams.Field = Spy
config = SimpleNamespace(mesh_model=1, steps_per_call=2)
batch = streams.stream({folder!r}, 8, 0)
found = harness.stacked(meshes.of(config), config, batch, 5)
assert asked == [2] * 16, asked  # two fields, two steps, four devices
asked.clear()
expected = [np.asarray(batch(step)["x"]) for step in (5, 6)]
np.testing.assert_array_equal(found["x"], expected)
assert found["x"].sharding.spec == jax.sharding.PartitionSpec(None, "data")
"""
