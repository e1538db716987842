import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import train_denoiser as recipe
from experiments import denoisers, heads, lungs, train_denoiser

SHAPE = (1, 16, 16, 2)


@pytest.fixture(scope="module")
def net():
    """A network whose last layers do something, and its parameters."""
    model = denoisers.UNet((8, 16), 1, 16)
    params = model.init(jax.random.key(0), jnp.zeros(SHAPE), jnp.zeros(1))["params"]
    leaves, tree = jax.tree.flatten(params)
    noise = [0.1 * jax.random.normal(jax.random.key(i), x.shape) for i, x in enumerate(leaves)]
    return model, jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


def test_both_ways_to_convolve_are_the_same_function(net):
    model, params = net
    x, noise = jax.random.normal(jax.random.key(1), SHAPE), jnp.full(1, 0.3)
    products = denoisers.UNet((8, 16), 1, 16, products=True)
    one, other = (jax.jit(m.apply)({"params": params}, x, noise) for m in (model, products))
    assert jnp.linalg.norm(one) > 0.1
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_group_norm_is_flax_s():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 6, 4, 24)) * jnp.arange(24)
    keys = jax.random.split(jax.random.key(1))
    params = {n: jax.random.normal(k, 24) for n, k in zip(("scale", "bias"), keys, strict=True)}

    def loss(norm, params, x):
        y = norm.apply({"params": params}, x)
        return jnp.sum(jnp.sin(y)), y

    ours, theirs = (
        jax.value_and_grad(functools.partial(loss, norm), (0, 1), has_aux=True)(params, x)
        for norm in (denoisers.GroupNorm(), nn.GroupNorm(8))
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), ours, theirs)
    with pytest.raises(ValueError, match="multiple of 8, got 12"):
        denoisers.GroupNorm().init(jax.random.key(0), x[..., :12])


def test_halves_and_doubles_undo_each_other():
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
    np.testing.assert_array_equal(denoisers._split(denoisers._merge(x)), x)
    np.testing.assert_allclose(denoisers._halve(denoisers._double(x)), x, rtol=1e-6)
    assert denoisers._merge(x)[1, 2, 1].ravel().tolist() == x[1, 4:6, 2:4].ravel().tolist()


@pytest.mark.parametrize("sigma", [1e-3, 0.25, 30.0])
def test_the_preconditioning_of_a_silent_network_is_the_best_linear_denoiser(sigma):
    x = jax.random.normal(jax.random.key(0), SHAPE)
    denoise = denoisers.precondition(lambda x, noise: jnp.zeros_like(x), 0.25)
    expected = 0.25**2 / (0.25**2 + sigma**2) * x
    np.testing.assert_allclose(denoise(x, jnp.full(1, sigma)), expected, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.01, 0.25, 10.0])
def test_what_the_network_sees_and_must_say_has_variance_one(sigma):
    key, noise_key = jax.random.split(jax.random.key(0))
    clean = 0.25 * jax.random.normal(key, (4, 32, 32, 2))
    noisy = clean + sigma * jax.random.normal(noise_key, clean.shape)
    level, seen = jnp.full(4, sigma), []
    zero = denoisers.precondition(lambda x, _: seen.append(x) or 0 * x, 0.25)(noisy, level)
    one = denoisers.precondition(lambda x, _: jnp.ones_like(x), 0.25)(noisy, level)
    target = (clean - zero) / (one - zero)
    assert jnp.std(seen[0]) == pytest.approx(1, abs=0.03)
    assert jnp.std(target) == pytest.approx(1, abs=0.03)


def test_saved_weights_come_back_as_a_denoiser_of_complex_images(tmp_path):
    about = {"channels": [8, 16], "num_blocks": 1, "sigma_data": 0.25}
    model = denoisers.UNet((8, 16), 1)
    params = model.init(jax.random.key(0), jnp.zeros(SHAPE), jnp.zeros(1))["params"]
    denoisers.save(tmp_path / "net.npz", params, about)
    denoise, found = denoisers.load(tmp_path / "net.npz")
    assert found == about
    x = jax.lax.complex(*jax.random.normal(jax.random.key(1), (2, 16, 16)))
    y = jax.jit(denoise)(x, jnp.float32(0.25))
    assert y.shape == x.shape
    np.testing.assert_allclose(y, x / 2, atol=1e-3)  # its last layer starts at zero


@pytest.mark.parametrize("name", ["denoiser64", "denoiser64_wide"])
def test_the_committed_prior_takes_noise_off_a_slice_it_has_not_seen(name):
    denoise, about = denoisers.load(f"experiments/assets/{name}.npz")
    assert about["size"] == 64
    assert not {heads.TUNE, heads.TEST, *heads.MORE_TESTS} & set(about["heads"])
    clean = heads.committed("test")[4] * denoisers.smooth_phase(jax.random.key(0), 64)
    noise = 0.2 * jax.lax.complex(*jax.random.normal(jax.random.key(1), (2, 64, 64)))
    error = jax.jit(denoise)(clean + noise, jnp.float32(0.2)) - clean
    assert jnp.linalg.norm(error) < 0.5 * jnp.linalg.norm(noise)


def test_a_network_of_one_channel_is_a_denoiser_of_real_images(tmp_path):
    about = {"channels": [8, 16], "num_blocks": 1, "sigma_data": 0.25}
    params = denoisers.UNet((8, 16), 1).init(
        jax.random.key(0), jnp.zeros((1, 16, 16, 1)), jnp.zeros(1)
    )["params"]
    denoisers.save(tmp_path / "net.npz", params, about)
    x = jax.random.normal(jax.random.key(1), (16, 16))
    y = jax.jit(denoisers.load(tmp_path / "net.npz")[0])(x, jnp.float32(0.25))
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y, x / 2, atol=1e-3)


def test_the_committed_prior_of_lungs_takes_noise_off_a_patient_it_has_not_seen():
    denoise, about = denoisers.load("experiments/assets/denoiser_ct64.npz")
    assert (about["size"], about["patient"]) == (64, lungs.TRAIN_PATIENT)
    clean = lungs.shrunk(lungs.committed("test")[30:31], 64)[0]
    noise = 0.2 * jax.random.normal(jax.random.key(1), (64, 64))
    error = jax.jit(denoise)(clean + noise, jnp.float32(0.2)) - clean
    assert jnp.linalg.norm(error) < 0.5 * jnp.linalg.norm(noise)


def test_a_smooth_phase_has_modulus_one_and_no_jumps():
    phase = denoisers.smooth_phase(jax.random.key(0), 64)
    np.testing.assert_allclose(jnp.abs(phase), 1, rtol=1e-5)
    assert jnp.abs(jnp.diff(phase, axis=0)).max() < 0.6
    assert jnp.abs(phase - phase[0, 0]).max() > 0.1


def test_kernels_of_convolutions_move_along_orthogonal_matrices_the_rest_as_nadam_says():
    config = recipe.get_config("smoke")
    config.warmup = 0
    model = denoisers.UNet((8, 16), 1)
    params = model.init(jax.random.key(0), jnp.zeros(SHAPE), jnp.zeros(1))["params"]
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    gradient = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)
    methods = (train_denoiser.muon(config), optax.nadam(config.learning_rate, b2=0.99))
    updates, other = (m.update(gradient, m.init(params), params)[0] for m in methods)
    num_kernels = 0
    for update, expected in zip(jax.tree.leaves(updates), jax.tree.leaves(other), strict=True):
        if update.ndim < 4:
            np.testing.assert_allclose(update, expected, rtol=1e-2)
            continue
        num_kernels += 1
        values = np.linalg.svd(update.reshape(-1, update.shape[-1]), compute_uv=False)
        assert values.max() < 1.3 * config.muon_rate
        assert values.min() > 0.6 * config.muon_rate
    assert num_kernels == 8
