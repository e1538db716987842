import jax
import jax.numpy as jnp
import numpy as np

from experiments import bottlenecks, denoisers

MODEL = denoisers.UNet((8, 16), 1)
ABOUT = {"channels": (8, 16), "num_blocks": 1, "sigma_data": 0.5}


def small_denoiser():
    image = jnp.zeros((1, 8, 8, 1))
    params = jax.jit(MODEL.init)(jax.random.key(0), image, jnp.zeros(1))["params"]
    # Residual blocks and the output start at zero: with noise everything matters.
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(x.dtype), params)

    def network(x, noise):
        return MODEL.apply({"params": params}, x, noise)

    return denoisers.image_denoiser(denoisers.precondition(network, 0.5))


def test_an_edit_of_nothing_changes_nothing_and_any_other_what_the_image_is():
    denoise, block = small_denoiser(), bottlenecks.name(ABOUT)
    x, sigma = jax.random.normal(jax.random.key(2), (8, 8)), jnp.float32(0.7)
    h = jax.jit(lambda x: bottlenecks.features(denoise, block, x, sigma))(x)
    assert h.shape == (1, 2, 2, 16)  # the coarsest resolution
    f, clean = jax.jit(bottlenecks.moved(denoise, block)), jax.jit(denoise)(x, sigma)
    np.testing.assert_allclose(f(x, sigma, jnp.zeros_like(h)), clean, atol=1e-6)
    assert jnp.linalg.norm(f(x, sigma, jnp.ones_like(h)) - clean) > 1e-3
    # Blocks that come later see it, those before do not.
    for other, differs in (("Block_0", False), ("Block_2", True)):
        plain, edited = (
            jax.jit(bottlenecks.features, static_argnums=(0, 1))(g, other, x, sigma)
            for g in (denoise, lambda x, s: bottlenecks.moved(denoise, block)(x, s, h))
        )
        assert bool(jnp.any(plain != edited)) == differs
