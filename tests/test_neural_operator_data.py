"""Data generation that survives kills and failures; the Fourier operator that learns from it."""

import os
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import spsolve

from configs import neural_operator_data as configs
from experiments import families, fourier, generation, neural_operator_data
from subspace_jax import krylov

pytestmark = pytest.mark.usefixtures("x64")

SIZE, NUM = 8, 7


def recycled(A, b, recycle=None):
    return krylov.recycled_cg(A, b, recycle=recycle, num_recycled=3, num_directions=6, rtol=1e-9)


def sequence(solver=recycled, **changes):
    w = families.few_parameters(NUM, SIZE + 2)
    order = np.random.default_rng(0).permutation(NUM)
    b = families.right_hand_side(SIZE)
    operator = partial(partial, families.conservative)
    whole = generation.Sequence(solver, operator, w, b, order, num_chains=2, portion=3)
    return whole._replace(**changes)


def exact(w):
    return spsolve(families.conservative_matrix(w).tocsc(), families.right_hand_side(SIZE))


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}


@pytest.mark.parametrize("portion", [1, 3, 7, 50])
@pytest.mark.parametrize("solver", [recycled, generation.independently(krylov.cg)])
def test_every_system_is_solved_once_and_stands_where_it_was_given(tmp_path, solver, portion):
    whole = sequence(solver, portion=portion)
    solved = generation.generate(tmp_path, whole, {})
    np.testing.assert_array_equal(solved.index, whole.order)
    for index, x in zip(solved.index, solved.x, strict=True):
        np.testing.assert_allclose(x, exact(whole.params[index]), rtol=1e-3)
    assert len(files(tmp_path)) == -(-NUM // portion)
    assert solved.steps.min() > 0


@pytest.mark.slow
def test_a_run_that_is_stopped_keeps_its_portions_and_solves_only_what_is_left(tmp_path):
    signals = [signal.SIGTERM]  # one: a second would end the process

    def stop_once():
        if signals:
            os.kill(os.getpid(), signals.pop())

    def stopped(A, b, recycle=None):
        jax.debug.callback(stop_once)
        return recycled(A, b, recycle)

    with pytest.raises(SystemExit) as stop:
        generation.generate(tmp_path / "stopped", sequence(stopped, num_chains=1), {})
    assert stop.value.code == 0
    kept = files(tmp_path / "stopped")
    assert list(kept) == ["000000.npz"]
    solved = generation.generate(tmp_path / "stopped", sequence(num_chains=1), {})
    after = files(tmp_path / "stopped")
    assert len(after) == 3
    assert after["000000.npz"] == kept["000000.npz"]
    whole = generation.generate(tmp_path / "whole", sequence(num_chains=1), {})
    for ours, theirs in zip(solved[:4], whole[:4], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_broken_portion_is_moved_aside_and_solved_again(tmp_path, capsys):
    whole = generation.generate(tmp_path, sequence(), {})
    before = files(tmp_path)
    path = tmp_path / "000003.npz"
    path.write_bytes(path.read_bytes()[:1000])
    again = generation.generate(tmp_path, sequence(), {})
    assert "000003.npz cannot be read" in capsys.readouterr().err
    assert (tmp_path / "unreadable-000003.npz").exists()
    np.testing.assert_array_equal(again.x, whole.x)
    assert files(tmp_path)["000000.npz"] == before["000000.npz"]


@pytest.mark.slow
def test_a_system_that_fails_is_said_and_never_written_until_it_can_be_solved(tmp_path, capsys):
    good, broken = sequence(), sequence()
    broken.params[4] = np.nan
    solved = generation.generate(tmp_path, broken, {})
    assert "system 4 is not solved: NONFINITE" in capsys.readouterr().err
    np.testing.assert_array_equal(np.sort(solved.index), [0, 1, 2, 3, 5, 6])
    assert np.isfinite(solved.x).all()
    solved = generation.generate(tmp_path, good, {})
    assert "system 4 failed in the sequence and is solved by itself" in capsys.readouterr().err
    np.testing.assert_array_equal(solved.index, good.order)
    row = solved.x[list(solved.index).index(4)]
    np.testing.assert_allclose(row, exact(good.params[4]), rtol=1e-6)


@pytest.mark.slow
def test_a_system_that_fails_only_with_a_space_is_rescued(tmp_path, capsys):
    def moody(A, b, recycle=None):
        (x, info), space = recycled(A, b, recycle)
        if recycle is not None:  # as it is in every sequence
            bad = jnp.int32(krylov.Status.STAGNATION)
            info = info._replace(status=jnp.where(jnp.any(recycle.U != 0), bad, info.status))
            x = x + info.status
        return krylov.Solution(x, info), space

    whole = sequence(moody, num_chains=1)
    solved = generation.generate(tmp_path, whole, {})
    text = capsys.readouterr().err
    assert text.count("is solved by itself") == NUM - 3  # the first of each portion has no space
    np.testing.assert_array_equal(solved.index, whole.order)
    for index, x in zip(solved.index, solved.x, strict=True):
        np.testing.assert_allclose(x, exact(whole.params[index]), rtol=1e-6)


def test_a_folder_of_other_systems_is_refused(tmp_path):
    generation.generate(tmp_path, sequence(), {"rtol": 1e-9})
    with pytest.raises(ValueError, match=r"rtol = 1e-09 there, 0.1 here"):
        generation.generate(tmp_path, sequence(), {"rtol": 0.1})
    with pytest.raises(ValueError, match="checksum of the order"):
        generation.generate(tmp_path, sequence(order=np.arange(NUM)), {"rtol": 1e-9})


def waves(n, k, m):
    x = np.arange(n) / n
    return np.cos(2 * np.pi * (k * x[:, None] + m * x) + 1)[None, :, :, None]


def spectral(modes=4):
    layer = fourier.SpectralConvolution(modes)
    params = layer.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    return partial(layer.apply, params)


@pytest.mark.parametrize("wave", [(0, 0), (3, 2), (-4, 1), (-2, 3)])
def test_a_spectral_convolution_is_the_same_map_on_a_finer_grid(wave):
    coarse, fine = (spectral()(waves(n, *wave)) for n in (16, 32))
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, atol=1e-6)
    assert np.abs(coarse).max() > 1e-3


@pytest.mark.parametrize("wave", [(4, 1), (0, 4), (-5, 2)])
def test_a_spectral_convolution_drops_high_frequencies(wave):
    np.testing.assert_allclose(spectral()(waves(16, *wave)), 0, atol=1e-6)


def test_a_spectral_convolution_commutes_with_translations():
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 1))
    moved = spectral()(np.roll(x, (3, 5), (1, 2)))
    np.testing.assert_allclose(moved, np.roll(spectral()(x), (3, 5), (1, 2)), atol=1e-6)


def test_more_frequencies_than_the_grid_has_are_refused():
    with pytest.raises(ValueError, match="9 modes need 18 cells"):
        spectral(9)


@pytest.mark.parametrize("padding", [0, 3])
def test_the_operator_maps_functions_to_functions_on_the_same_grid(padding):
    net = fourier.FourierOperator(width=4, modes=2, num_layers=2, padding=padding)
    a = jax.random.normal(jax.random.key(1), (2, 10, 12), jnp.float32)
    params = net.init(jax.random.key(0), a)
    assert net.apply(params, a).shape == a.shape
    assert net.apply(params, a).dtype == jnp.float32


def test_an_epoch_shows_every_example_once_and_each_seed_its_own_order():
    config = configs.get_config("smoke")
    config.batch_size, config.num_seeds = 4, 2
    batch = fourier.epochs(config, 12)
    epoch = np.concatenate([batch(step) for step in range(3, 6)])
    for column in epoch.T:
        np.testing.assert_array_equal(np.sort(column), np.arange(12))
    assert (epoch[:, 0] != epoch[:, 1]).any()
    np.testing.assert_array_equal(batch(4), epoch[4:8])
    assert (batch(4) != batch(1)).any()


def small():
    config = configs.get_config("smoke")
    config.num_steps = config.log_every = config.checkpoint_every = 20
    config.num_train, config.num_test, config.baselines = 16, 4, ()
    return config


@pytest.mark.slow
def test_a_seed_learns_the_same_from_the_same_data(tmp_path):
    config = small()
    config.num_steps = 200
    w = families.few_parameters(16, 18)
    u = np.array([exact_field(field) for field in w])
    data = fourier.Data(w, np.array([u, u]), w, u)
    with jax.enable_x64(False):
        model, _ = fourier.train(config, tmp_path, data)
        predictions = fourier.predict(config, model, w)
    np.testing.assert_array_equal(predictions[0], predictions[1])
    assert np.abs(predictions[0, 0] - predictions[0, 1]).max() > 0  # two seeds
    assert fourier.relative_error(predictions, u).mean() < 0.5


def exact_field(w):
    size = len(w) - 2
    b = families.right_hand_side(size)
    return spsolve(families.conservative_matrix(w).tocsc(), b).reshape(size, size)


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_solves_and_trains_nothing(tmp_path):
    with jax.enable_x64(False):
        first = neural_operator_data.run(small(), tmp_path)
        second = neural_operator_data.run(small(), tmp_path)
    assert first == second
    assert first["largest_difference"] < 1e-3
    assert first["costs"]["recycled"]["steps"] < first["costs"]["independent"]["steps"]


MISTAKES = {
    "num_chains": (0, "num_chains must be at least 1, got 0"),
    "batch_size": (100, "batch_size must lie in 1..24, got 100"),
    "matrix": ("symmetric", "matrix must be one of conservative, released"),
    "recycling": ("gcr", "solver must be one of recycled_cg"),
}


@pytest.mark.parametrize("knob", MISTAKES)
def test_a_config_that_makes_no_sense_is_refused_before_any_work(tmp_path, knob):
    config = configs.get_config("smoke")
    config[knob], message = MISTAKES[knob]
    with pytest.raises(ValueError, match=message):
        neural_operator_data.run(config, tmp_path)
    assert not list(tmp_path.iterdir())
