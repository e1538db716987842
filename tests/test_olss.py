import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import diffusion
from subspace_jax.diffusion import low_rank_gaussians, olss, operators
from subspace_jax.linalg import orthonormalize

SIGMAS = diffusion.karras_sigmas(24, sigma_min=0.02, sigma_max=10.0)
U = jnp.stack([orthonormalize(jax.random.normal(jax.random.key(i), (8, 2))) for i in (1, 2)])
WEIGHTS = jnp.array([0.5, 0.5])


def denoise(x, sigma):
    return low_rank_gaussians.denoise(U, WEIGHTS, x, sigma)


def posterior(complex_data=False):
    A = jax.random.normal(jax.random.key(5), (4, 8))
    dtype = jnp.complex64 if complex_data else jnp.float32
    op = operators.linear(lambda x: A @ x, (8,), dtype=dtype)
    return diffusion.cg_proximal(op, (A @ U[0, :, 0]).astype(dtype), 2.0)


def trajectories(num=12, seed=0, **options) -> olss.Trajectory:
    keys = jax.random.split(jax.random.key(seed), num)
    return jax.vmap(lambda k: olss.record(k, denoise, SIGMAS, (8,), **options))(keys)


def replayed(schedule, num=12, seed=0, **options):
    keys = jax.random.split(jax.random.key(seed), num)
    step = olss.replay(schedule)
    return jax.vmap(
        lambda k: diffusion.sample(k, denoise, schedule.sigmas, (8,), step=step, **options).x
    )(keys)


@pytest.mark.parametrize("with_data", [False, True])
def test_a_recorded_trajectory_ends_in_the_eulers_sample(with_data):
    options = {"data_consistency": posterior()} if with_data else {}
    found = olss.record(jax.random.key(3), denoise, SIGMAS, (8,), **options)
    expected = diffusion.sample(
        jax.random.key(3), denoise, SIGMAS, (8,), step=diffusion.euler(), **options
    )
    np.testing.assert_allclose(found.points[-1], expected.x, atol=1e-3)
    x0 = found.points[:-1] - SIGMAS[:-1, None] * found.noise
    np.testing.assert_allclose(x0[4], denoise(found.points[4], SIGMAS[4]), atol=1e-4)
    assert (found.corrected is None) == (not with_data)


@pytest.mark.parametrize("with_data", [False, True])
def test_weights_are_those_of_least_squares_on_the_samples(with_data):
    found = trajectories(data_consistency=posterior() if with_data else None)
    indices = (0, 7, 15, 24)
    schedule = olss.fit(olss.factorize(found, SIGMAS), indices)
    for k in range(3):
        visited = list(indices[: k + 1])
        columns = [found.points[:, 0].ravel(), *(found.noise[:, i].ravel() for i in visited)]
        if found.corrected is not None:
            columns += [found.corrected[:, i].ravel() for i in visited]
        A = np.stack(columns, axis=1).astype(np.float64)
        b = np.asarray(found.points[:, indices[k + 1]].ravel(), np.float64)
        weights = [schedule.start[k], *schedule.noise[k, : k + 1]]
        weights += list(schedule.corrected[k, : k + 1]) if with_data else []
        best = np.linalg.norm(A @ np.linalg.lstsq(A, b)[0] - b)
        assert np.linalg.norm(A @ np.asarray(weights, np.float64) - b) <= best * 1.001 + 1e-4
        rms = best / np.sqrt(b.size) / np.hypot(1, float(SIGMAS[indices[k + 1]]))
        np.testing.assert_allclose(schedule.errors[k], rms, rtol=1e-3, atol=1e-7)


def test_all_steps_of_the_teacher_are_the_teacher():
    found = trajectories()
    schedule = olss.fit(olss.factorize(found, SIGMAS), range(25))
    np.testing.assert_allclose(replayed(schedule), found.points[:, -1], atol=2e-3)
    assert jnp.max(schedule.errors) < 1e-5


@pytest.mark.parametrize("num_steps", [1, 3, 6])
def test_a_searched_path_is_no_worse_than_uniform_ones(num_steps):
    factor = olss.factorize(trajectories(), SIGMAS)
    found = olss.search(factor, num_steps)
    assert 1 <= len(found.start) <= num_steps
    assert np.all(np.diff(found.indices) > 0)
    uniform = olss.fit(factor, np.linspace(0, 24, num_steps + 1))
    assert jnp.max(found.errors) <= 1.3 * jnp.max(uniform.errors) + 1e-6


def test_in_five_steps_it_is_nearer_to_the_teacher_than_ddim_on_new_samples():
    schedule = olss.search(olss.factorize(trajectories(40), SIGMAS), 5)
    teacher = trajectories(20, seed=9).points[:, -1]
    few = diffusion.karras_sigmas(5, sigma_min=0.02, sigma_max=10.0)
    keys = jax.random.split(jax.random.key(9), 20)
    ddim = jax.vmap(lambda k: diffusion.sample(k, denoise, few, (8,), step=diffusion.euler()).x)(
        keys
    )
    ours = replayed(schedule, 20, seed=9)
    assert jnp.linalg.norm(ours - teacher) < 0.7 * jnp.linalg.norm(ddim - teacher)


@pytest.mark.parametrize("with_data", [False, True])
def test_weights_for_ones_own_predictions_bring_the_student_nearer(with_data):
    dc = posterior() if with_data else None

    def predict(x, sigma):
        x0 = denoise(x, sigma)
        if dc is None:
            return (x - x0) / sigma, None
        return (x - x0) / sigma, dc.update(x0, None, sigma, dc.init(x))[0]

    found = trajectories(40, data_consistency=dc)
    open_loop = olss.fit(olss.factorize(found, SIGMAS), (0, 4, 9, 14, 19, 24))
    closed = olss.refit(lambda x, sigma: jax.vmap(predict, (0, None))(x, sigma), open_loop, found)
    teacher = trajectories(20, 9, data_consistency=dc).points[:, -1]
    apart = [
        jnp.linalg.norm(replayed(schedule, 20, 9, data_consistency=dc) - teacher)
        for schedule in (open_loop, closed)
    ]
    assert apart[1] < apart[0]
    mine = replayed(closed, 40, data_consistency=dc) - found.points[:, -1]
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(mine**2)), closed.errors[-1], rtol=0.02)


def test_posteriors_of_complex_data_have_fast_schedules_too():
    def complex_denoise(x, sigma):
        return denoise(x.real, sigma) + 1j * denoise(x.imag, sigma)

    options = {"data_consistency": posterior(complex_data=True), "dtype": jnp.complex64}
    keys = jax.random.split(jax.random.key(0), 10)
    found = jax.vmap(lambda k: olss.record(k, complex_denoise, SIGMAS, (8,), **options))(keys)
    factor = olss.factorize(found, SIGMAS)
    assert factor.num_entries == 10 * 16
    schedule = olss.search(factor, 6)
    sampled = jax.vmap(
        lambda k: (
            diffusion.sample(
                k, complex_denoise, schedule.sigmas, (8,), step=olss.replay(schedule), **options
            ).x
        )
    )(keys)
    error = jnp.linalg.norm(sampled - found.points[:, -1]) / jnp.linalg.norm(found.points[:, -1])
    assert error < 0.1


def test_bad_input_is_named():
    factor = olss.factorize(trajectories(2), SIGMAS)
    with pytest.raises(ValueError, match=r"0 to 24, got \(0, 5\)"):
        olss.fit(factor, (0, 5))
    with pytest.raises(ValueError, match=r"1\.\.24, got 25"):
        olss.search(factor, 25)
    with pytest.raises(ValueError, match="10 levels for 25 points"):
        olss.factorize(trajectories(2), SIGMAS[:10])
