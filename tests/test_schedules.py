"""Noise levels, clocks and parametrisations of diffusion against closed forms, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import diffusion
from tests.measurements import covariance, gaussian_denoiser, levels

N = 4
pytestmark = pytest.mark.usefixtures("x64")


def test_karras_levels_are_evenly_spaced_in_their_seventh_root_and_end_at_zero():
    sigmas = diffusion.karras_sigmas(9, sigma_min=0.01, sigma_max=80.0)
    assert sigmas.shape == (10,)
    assert sigmas[-1] == 0
    np.testing.assert_allclose(sigmas[jnp.array([0, -2])], [80, 0.01], rtol=1e-12)
    np.testing.assert_allclose(np.diff(np.diff(sigmas[:-1] ** (1 / 7))), 0, atol=1e-12)
    assert diffusion.karras_sigmas(1, sigma_min=0.01, sigma_max=80.0).tolist() == [80, 0]


def test_exploding_levels_have_one_ratio():
    sigmas = diffusion.ve_sigmas(7, sigma_min=0.02, sigma_max=50.0)
    assert sigmas.shape == (8,)
    assert sigmas[-1] == 0
    np.testing.assert_allclose(sigmas[1:-1] / sigmas[:-2], (0.02 / 50) ** (1 / 6), rtol=1e-12)


def test_preserving_levels_are_those_of_the_product_of_one_minus_beta():
    alpha = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    times = 20 * np.arange(50)[::-1]
    expected = np.sqrt((1 - alpha[times]) / alpha[times])
    np.testing.assert_allclose(diffusion.vp_sigmas(50), [*expected, 0], rtol=1e-9)
    assert diffusion.vp_sigmas(50, dtype=jnp.float32).dtype == jnp.float32
    assert diffusion.vp_sigmas(3).shape == (4,)


def test_cosine_levels_follow_the_cosine_where_beta_is_not_clipped():
    t = np.arange(1001) / 1000
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    times = 100 * np.arange(10)[::-1]
    alpha = (f[1:] / f[0])[times]
    np.testing.assert_allclose(
        diffusion.cosine_sigmas(10), [*np.sqrt((1 - alpha) / alpha), 0], rtol=1e-9
    )
    every = diffusion.cosine_sigmas(1000)
    assert jnp.all(jnp.isfinite(every))
    assert jnp.all(jnp.diff(every) < 0)


@pytest.mark.parametrize("clock", [diffusion.vp_linear(), diffusion.vp_cosine()])
def test_a_clock_can_be_read_both_ways_and_preserves_the_variance(clock):
    t = jnp.asarray([0.0, 3.0, 500.5, 998.0])
    sigma = clock.sigma(t)
    np.testing.assert_allclose(clock.inverse(sigma), t, atol=1e-9)
    np.testing.assert_allclose(clock.scale(t) ** 2 * (1 + sigma**2), 1, rtol=1e-12)
    assert clock.inverse(float(sigma[2])) == clock.inverse(sigma[2])
    np.testing.assert_allclose(clock.sigma(3.0), sigma[1], rtol=1e-12)


def test_skipped_levels_are_whole_times_of_their_clock():
    t = diffusion.vp_linear().inverse(diffusion.vp_sigmas(50)[:-1])
    np.testing.assert_allclose(t, 20 * np.arange(50)[::-1], atol=1e-8)


def parametrised(kind, clock, denoise):
    """The network of that kind whose denoiser is the given one, in its own scaled variable."""

    def apply_fn(x_t, t):
        s, sigma = clock.scale(t), clock.sigma(t)
        x = x_t / s
        x0 = denoise(x, sigma)
        noise = (x - x0) / sigma
        score = (s * x0 - x_t) / (s * sigma) ** 2
        return {"epsilon": noise, "score": score, "v": s * noise - s * sigma * x0}[kind]

    return getattr(diffusion, f"from_{kind}")(apply_fn, clock)


@pytest.mark.parametrize("kind", ["epsilon", "score", "v"])
@pytest.mark.parametrize("clock", [diffusion.vp_linear(), diffusion.vp_cosine(), diffusion.ve()])
def test_every_parametrisation_is_the_same_denoiser(kind, clock):
    denoise = gaussian_denoiser(covariance(N))
    x = jax.random.normal(jax.random.key(0), (N,))
    both = jax.jit(lambda sigma: (parametrised(kind, clock, denoise)(x, sigma), denoise(x, sigma)))
    for sigma in (0.03, 1.0, 30.0):
        found, expected = both(jnp.asarray(sigma))
        np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_preserving_and_exploding_networks_give_the_same_samples():
    denoise, key = gaussian_denoiser(covariance(N)), jax.random.key(1)

    def draw(clock):
        network = parametrised("epsilon", clock, denoise)
        return jax.jit(lambda key: diffusion.sample(key, network, levels(6), (N,)).x)(key)

    np.testing.assert_allclose(draw(diffusion.vp_linear()), draw(diffusion.ve()), rtol=1e-8)
