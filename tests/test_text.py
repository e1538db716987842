"""The bytes that language models learn."""

import jax
import numpy as np
import pytest

from experiments import text


def test_the_standard_library_reads_the_same_twice_up_to_the_limit():
    first, again = (text.load(num_bytes=300_000) for _ in range(2))
    assert first.digest == again.digest
    assert sum(len(part) for part in first[:3]) == 300_000
    assert min(len(part) for part in first[1:3]) >= 0.05 * 300_000
    assert text.load(num_bytes=299_999).digest != first.digest


def test_no_file_is_in_two_parts(tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.txt").write_bytes(bytes([i]) * 50)
    (tmp_path / "other.bin").write_bytes(b"x" * 99)
    found = text.load(tmp_path, held_out=0.2)
    sets = [set(part.tolist()) for part in found[:3]]
    assert set.union(*sets) == set(range(20))
    assert sum(len(s) for s in sets) == 20
    assert [len(part) for part in found[:3]] == [600, 200, 200]


def test_of_a_single_file_the_end_is_held_out(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(bytes(range(100)))
    found = text.load(path, held_out=0.1)
    together = np.concatenate([found.train, found.tune, found.test])
    np.testing.assert_array_equal(together, np.arange(100))
    assert [len(part) for part in found[:3]] == [80, 10, 10]


def test_windows_are_pieces_of_the_text_and_a_function_of_the_key():
    letters = np.arange(200, dtype=np.uint8)
    found = text.windows(jax.random.key(0), letters, 50, 7)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(np.diff(np.asarray(found).astype(int), axis=1), 1)
    np.testing.assert_array_equal(found, text.windows(jax.random.key(0), letters, 50, 7))
    assert len(np.unique(np.asarray(found)[:, 0])) > 20


def test_spread_windows_reach_from_the_first_byte_to_the_last():
    letters = np.arange(100, dtype=np.uint8)
    found = text.spread_windows(letters, 5, 10)
    assert found[0, 0] == 0
    assert found[-1, -1] == 99
    np.testing.assert_array_equal(np.diff(found.astype(int), axis=1), 1)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no text file"):
        text.load(tmp_path / "none")
    with pytest.raises(ValueError, match="held_out"):
        text.load(held_out=0.6)
    with pytest.raises(ValueError, match="a text of 3 bytes has no window of 4"):
        text.spread_windows(np.zeros(3, np.uint8), 1, 4)
    (tmp_path / "a.txt").write_text("few")
    (tmp_path / "b.txt").write_text("files")
    with pytest.raises(ValueError, match="2 files do not fill three parts"):
        text.load(tmp_path)
