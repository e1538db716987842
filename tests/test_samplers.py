"""Schedules, denoisers, steps and the loop against closed forms and dense recursions in float64."""

from functools import cache
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from subspace_jax import diffusion
from tests.measurements import covariance, gaussian_denoiser, levels

pytestmark = pytest.mark.usefixtures("x64")

N = 4
STEPS = {
    "ddim": diffusion.ddim(0.6),
    "churned": diffusion.ddim(0.6, noise="churned"),
    "ancestral": diffusion.ancestral(),
    "euler": diffusion.euler(),
    "heun": diffusion.heun(),
    "dpmpp_2m": diffusion.dpmpp_2m(),
}


@cache
def drawn(name):
    """The sampler of N(0, C) by that step, compiled once for all tests."""
    denoise = gaussian_denoiser(covariance(N))
    return jax.jit(lambda key: diffusion.sample(key, denoise, levels(6), (N,), step=STEPS[name]).x)


def preserving_ddim(C, sigmas, start, noises, eta):
    """DDIM as published, in the scaled variable x_t = sqrt(alpha) x_0 + sqrt(1 - alpha) n."""
    alphas = 1 / (1 + sigmas**2)
    x = np.sqrt(alphas[0]) * start
    for alpha, after, z in zip(alphas[:-1], alphas[1:], noises, strict=True):
        sigma = np.sqrt((1 - alpha) / alpha)
        x0 = C @ np.linalg.solve(C + sigma**2 * np.eye(N), x / np.sqrt(alpha))
        epsilon = (x - np.sqrt(alpha) * x0) / np.sqrt(1 - alpha)
        beta = np.sqrt((1 - after) / (1 - alpha)) * np.sqrt(1 - alpha / after)
        x = np.sqrt(after) * x0 + np.sqrt(1 - after - eta**2 * beta**2) * epsilon + eta * beta * z
    return x


def draws(key, sigmas, dtype=jnp.float64):
    """The random numbers that `sample` uses."""
    first, rest = jax.random.split(key)
    noises = [
        diffusion.standard_normal(jax.random.fold_in(rest, i), (N,), dtype)
        for i in range(len(sigmas) - 1)
    ]
    start = sigmas[0] * diffusion.standard_normal(first, (N,), dtype)
    return np.asarray(start), np.asarray(noises)


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
def test_the_step_is_ddim_as_published_in_the_scaled_variable(eta):
    C, key, sigmas = covariance(N), jax.random.key(2), levels(6)
    found = jax.jit(
        lambda key: (
            diffusion.sample(key, gaussian_denoiser(C), sigmas, (N,), step=diffusion.ddim(eta)).x
        )
    )(key)
    expected = preserving_ddim(C, np.asarray(sigmas), *draws(key, sigmas), eta)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def affine(C, sigma):
    """The matrix of the denoiser of N(0, C)."""
    return C @ np.linalg.inv(C + sigma**2 * np.eye(N))


def dense_steps(name, C, sigmas):
    """For each step matrices (on x, on the memory, on new noise) and the new memory's on x."""
    last, eye, zero = 0.0, np.eye(N), np.zeros((N, N))
    for sigma, after in pairwise(sigmas):
        D, ratio = affine(C, sigma), after / sigma
        old = zero
        if name in ("ddim", "churned", "ancestral", "euler"):
            eta = {"ddim": 0.6, "churned": 0.6, "ancestral": 1.0, "euler": 0.0}[name]
            share = eta * after * (1 if name == "churned" else np.sqrt(1 - ratio**2))
            on_x, on_z = D + np.sqrt(after**2 - share**2) / sigma * (eye - D), share
        elif name == "heun":
            on_x, on_z = eye + (after - sigma) / sigma * (eye - D), 0.0
            if after > 0:
                slope = (eye - D) / sigma
                there = (eye - affine(C, after)) / after @ on_x
                on_x = eye + (after - sigma) * (slope + there) / 2
        else:
            w = np.log(sigma / after) / np.log(last / sigma) / 2 if last and after else 0.0
            on_x = ratio * eye + (1 - ratio) * (1 + w) * D
            old, on_z = -(1 - ratio) * w * eye, 0.0
        last = sigma
        yield on_x, old, on_z, D


def dense_map(name, C, sigmas):
    """The sampler of a Gaussian prior as a matrix on all its noise: start, then every step's."""
    num = len(sigmas)
    x = np.concatenate([sigmas[0] * np.eye(N), np.zeros((N, N * (num - 1)))], axis=1)
    memory = np.zeros_like(x)
    for i, (on_x, old, on_z, D) in enumerate(dense_steps(name, C, sigmas)):
        new = np.zeros_like(x)
        new[:, N * (i + 1) : N * (i + 2)] = on_z * np.eye(N)
        x, memory = on_x @ x + old @ memory + new, D @ x
    return x


@pytest.mark.parametrize("name", STEPS)
def test_every_linear_sampler_is_its_dense_recursion(name):
    C, key, sigmas = covariance(N), jax.random.key(3), levels(6)
    found = drawn(name)(key)
    start, noises = draws(key, sigmas)
    noise = np.concatenate([start / np.asarray(sigmas[0]), noises.ravel()])
    expected = dense_map(name, C, np.asarray(sigmas)) @ noise
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", STEPS)
def test_the_covariance_of_every_linear_sampler_is_that_of_a_closed_recursion(name):
    """The mean is zero: the sampler is linear in its noise, as the test above says."""
    C, sigmas = covariance(N), np.asarray(levels(6))
    S, memory, cross = sigmas[0] ** 2 * np.eye(N), np.zeros((N, N)), np.zeros((N, N))
    for on_x, old, on_z, D in dense_steps(name, C, sigmas):
        from_memory = on_x @ cross @ old.T  # cross is Cov[x, memory]
        cross_new = (on_x @ S + old @ cross.T) @ D.T
        S, memory, cross = (
            on_x @ S @ on_x.T + old @ memory @ old.T + from_memory + from_memory.T
            + on_z**2 * np.eye(N),
            D @ S @ D.T,
            cross_new,
        )  # fmt: skip
    noise_to_x = dense_map(name, C, sigmas)
    np.testing.assert_allclose(noise_to_x @ noise_to_x.T, S, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_the_error_of_a_flow_falls_with_its_order(name, order):
    """On a Gaussian the probability flow scales every principal axis by a known factor."""
    C = np.diag([1.0, 0.5, 0.2, 2.0])

    def error(n):
        sigmas = np.geomspace(20.0, 0.1, n + 1)  # ends before zero: the flow is smooth there
        start = dense_map(name, C, sigmas)[:, :N] / sigmas[0]
        exact = np.sqrt((np.diagonal(C) + sigmas[-1] ** 2) / (np.diagonal(C) + sigmas[0] ** 2))
        return np.abs(np.diagonal(start) - exact).max()

    assert 0.7 * 2**order < error(40) / error(80) < 1.4 * 2**order


def test_ancestral_samples_approach_the_prior_as_steps_shrink():
    C = covariance(N)
    errors = []
    for n in (10, 40, 160):
        noise_to_x = dense_map("ancestral", C, np.asarray(levels(n)))
        errors.append(np.abs(noise_to_x @ noise_to_x.T - C).max())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_noise_has_variance_one_in_every_real_component():
    z = diffusion.standard_normal(jax.random.key(0), (50_000,), jnp.complex128)
    np.testing.assert_allclose([z.real.var(), z.imag.var()], 1, atol=0.03)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.complex64, jnp.complex128])
@pytest.mark.parametrize("name", STEPS)
def test_the_sample_has_the_dtype_that_was_asked_for(name, dtype):
    result = jax.eval_shape(
        lambda key: diffusion.sample(
            key,
            lambda x, sigma: x / (1 + sigma**2),
            levels(6),
            (3, 2),
            step=STEPS[name],
            dtype=dtype,
        ),
        jax.random.key(0),
    )
    assert result.x.dtype == dtype
    assert result.x.shape == (3, 2)


def test_each_part_of_a_complex_sample_has_the_variance_of_a_real_one():
    def draw(key):
        def denoise(x, sigma):
            return x / (1 + sigma**2)

        return diffusion.sample(key, denoise, levels(6), (40_000,), dtype=jnp.complex128).x

    x, sigmas = jax.jit(draw)(jax.random.key(0)), np.asarray(levels(6))
    variance = sigmas[0] ** 2
    for sigma, after in pairwise(sigmas):
        D, kept = 1 / (1 + sigma**2), (after / sigma) ** 2
        variance = (D + kept * (1 - D)) ** 2 * variance + after**2 * (1 - kept)
    np.testing.assert_allclose([x.real.var(), x.imag.var()], variance, rtol=0.04)


@pytest.mark.parametrize("name", STEPS)
def test_many_keys_at_once_are_one_after_another(name):
    keys = jax.random.split(jax.random.key(4), 3)
    apart = jnp.stack([drawn(name)(key) for key in keys])
    np.testing.assert_allclose(jax.jit(jax.vmap(drawn(name)))(keys), apart, rtol=1e-9)
    assert len(np.unique(apart[:, 0])) == 3


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.complex128])
@pytest.mark.parametrize("num", [2, 3, 5])
def test_balanced_noise_adds_up_to_zero_and_each_is_standard_normal(num, dtype):
    keys = jax.random.split(jax.random.key(0), num)
    normal = diffusion.balanced_normal("samples")
    draw = jax.vmap(lambda key: normal(key, (100_000,), dtype), axis_name="samples")
    z = np.asarray(draw(keys))
    np.testing.assert_allclose(z.sum(0), 0, atol=1e-12)
    for part in (z.real, z.imag) if np.iscomplexobj(z) else (z,):
        expected = (num * np.eye(num) - 1) / (num - 1)
        np.testing.assert_allclose(np.cov(part), expected, atol=0.03)
        assert np.mean(part[0] ** 4) == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("name", STEPS)
def test_the_mean_of_samples_is_free_of_noise_where_the_sampler_is_linear(name, num):
    denoise = gaussian_denoiser(covariance(N))
    op = diffusion.operators.linear(lambda x: x[:2] + x[1:3], (N,), dtype=jnp.float64)
    y = jnp.array([1.0, -2.0])
    setup = {
        "data_consistency": diffusion.posterior_proximal(op, y, 0.3, 1.0, 4),
        "step": STEPS[name],
    }
    setup["start"] = jnp.arange(float(N))
    silent = diffusion.sample(
        jax.random.key(0), denoise, levels(6), (N,), **setup, normal=diffusion.no_noise
    ).x
    result = diffusion.sample_mean(jax.random.key(1), denoise, levels(6), (N,), num, **setup)
    assert result.samples.shape == (num, N)
    assert np.abs(result.samples - silent).max() > 0.01
    np.testing.assert_allclose(result.x, silent, atol=1e-10)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.complex128])
@pytest.mark.parametrize("name", STEPS)
def test_a_linear_sampler_adds_the_path_of_the_start_to_that_of_the_noise(name, dtype):
    def draw(**options):
        denoise = gaussian_denoiser(covariance(N))
        given = {"step": STEPS[name], "dtype": dtype} | options
        return diffusion.sample(jax.random.key(2), denoise, levels(5), (N,), **given).x

    start = jax.random.normal(jax.random.key(3), (N,), dtype)
    quiet = draw(normal=diffusion.no_noise, start=start)
    assert jnp.linalg.norm(quiet) > 1e-3
    np.testing.assert_allclose(draw(start=start), draw() + quiet, rtol=1e-9)


def test_another_key_does_not_compile_again():
    chex.clear_trace_counter()

    def draw(key):
        return diffusion.sample(key, gaussian_denoiser(covariance(N)), levels(6), (N,)).x

    draw = jax.jit(chex.assert_max_traces(draw, n=1))
    assert jnp.any(draw(jax.random.key(0)) != draw(jax.random.key(1)))


def test_estimates_are_kept_as_often_as_asked():
    def draw(key):
        denoise = gaussian_denoiser(covariance(N))
        return [
            diffusion.sample(key, denoise, levels(7), (N,), save_every=save_every)
            for save_every in (1, 3, 0)
        ]

    every, third, never = jax.jit(draw)(jax.random.key(6))
    np.testing.assert_allclose(third.estimates, every.estimates[jnp.array([2, 5])], rtol=1e-12)
    assert every.estimates.shape == (7, N)
    np.testing.assert_allclose(every.estimates[-1], every.x, rtol=1e-12)
    assert never.estimates is None
    beyond = diffusion.sample(
        jax.random.key(6), gaussian_denoiser(covariance(N)), levels(7), (N,), save_every=8
    )
    assert beyond.estimates.shape == (0, N)
    np.testing.assert_allclose(beyond.x, every.x, rtol=1e-9)
    np.testing.assert_allclose(never.x, every.x, rtol=1e-12)


@pytest.mark.parametrize("name", ["ancestral", "heun", "dpmpp_2m"])
def test_the_sample_has_derivatives_in_the_levels_and_the_prior(name):
    @jax.jit
    def total(sigmas, scale):
        def denoise(x, sigma):
            return scale * x / (scale + sigma**2)

        return jnp.sum(
            diffusion.sample(jax.random.key(0), denoise, sigmas, (N,), step=STEPS[name]).x
        )

    check_grads(total, (levels(4)[:-1], jnp.asarray(0.7)), order=1, modes=["rev"], rtol=1e-4)
    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(total))(levels(4), 0.7)))


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named():
    key, denoise = jax.random.key(0), gaussian_denoiser(covariance(N))
    with pytest.raises(ValueError, match=r"descend.*1.*2"):
        diffusion.sample(key, denoise, jnp.array([1.0, 2.0, 0.0]), (N,))
    with pytest.raises(ValueError, match="descend"):
        diffusion.sample(key, denoise, jnp.array([1.0, 0.0, -1.0]), (N,))
    with pytest.raises(ValueError, match=r"two levels, got float.* of shape \(1,\)"):
        diffusion.sample(key, denoise, jnp.ones(1), (N,))
    with pytest.raises(ValueError, match=r"two levels, got int.* of shape \(3,\)"):
        diffusion.sample(key, denoise, [3, 2, 0], (N,))
    with pytest.raises(ValueError, match="save_every must be >= 0, got -1"):
        diffusion.sample(key, denoise, levels(6), (N,), save_every=-1)
    with pytest.raises(ValueError, match=r"start has shape \(2,\), the sample \(\d,\)"):
        diffusion.sample(key, denoise, levels(6), (N,), start=jnp.ones(2))
    with pytest.raises(ValueError, match="start is complex128, the sample float64"):
        diffusion.sample(key, denoise, levels(6), (N,), start=jnp.ones(N, complex))
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        diffusion.sample_mean(key, denoise, levels(6), (N,), 1)
    normal = diffusion.balanced_normal("samples")
    alone = jax.vmap(lambda key: normal(key, (N,), float), axis_name="samples")
    with pytest.raises(ValueError, match="an axis of at least 2, got 1"):
        alone(key[None])
    with pytest.raises(ValueError, match=r"\(4,\), got \(2,\)"):
        diffusion.sample(key, lambda x, sigma: x[:2], levels(6), (N,))
    with pytest.raises(ValueError, match="eta must be >= 0, got"):
        diffusion.ddim(-0.1)
    with pytest.raises(ValueError, match="1 - eta"):
        diffusion.ddim(1.5)
    with pytest.raises(ValueError, match="'other'"):
        diffusion.ddim(noise="other")
    with pytest.raises(ValueError, match="'other'"):
        diffusion.ddim(direction="other")
    with pytest.raises(ValueError, match="1 to 1000, got 1001"):
        diffusion.vp_sigmas(1001)
    with pytest.raises(ValueError, match="sigma_min must be > 0, got 0"):
        diffusion.karras_sigmas(5, sigma_min=0.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="sigma_max"):
        diffusion.ve_sigmas(5, sigma_min=2.0, sigma_max=1.0)


@pytest.mark.usefixtures("unchecked")
def test_levels_may_be_a_list_or_of_numpy():
    key, denoise = jax.random.key(0), gaussian_denoiser(covariance(N))
    expected = diffusion.sample(key, denoise, levels(6), (N,)).x
    for known in (np.asarray(levels(6)), [float(sigma) for sigma in levels(6)]):
        np.testing.assert_array_equal(diffusion.sample(key, denoise, known, (N,)).x, expected)


def test_levels_that_are_traced_are_not_checked():
    draw = jax.jit(
        lambda sigmas: (
            diffusion.sample(jax.random.key(0), gaussian_denoiser(covariance(N)), sigmas, (N,)).x
        )
    )
    assert jnp.all(jnp.isfinite(draw(levels(6))))
