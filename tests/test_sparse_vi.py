"""Variational inference over few weights, against closed forms and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import optim
from subspace_jax.optim._sparse_vi import _importance

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
SHAPES = {"b": np.zeros(3), "w": np.zeros((4, 5))}


def linear(p, x, y):
    """Half the mean squared error of a linear model: its posterior is normal."""
    return jnp.mean((x @ p["w"][:, 0] - y) ** 2) / 2 + jnp.sum(p["b"] ** 2) / 2


def run(method, state, num_steps, *batch):
    def step(state, key):
        return method.update(key, state, *batch)

    keys = jax.random.split(jax.random.key(1), num_steps)
    return jax.jit(lambda state: jax.lax.scan(step, state, keys))(state)


def data(num=30):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((num, 4)) * [1, 2, 0.5, 1]
    return jnp.asarray(x), jnp.asarray(x @ [1.0, -2.0, 0.5, 0.0] + rng.standard_normal(num))


def test_with_all_weights_it_finds_the_mean_field_posterior_of_a_linear_model():
    x, y = data()
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 4000))
    method = optim.sparse_vi(
        linear, SHAPES, optimizer, num_active=23, num_examples=30, prior_scale=2.0, num_samples=4
    )
    state, _ = run(method, method.init(KEY, SHAPES), 4000, x, y)
    precision = x.T @ x + jnp.eye(4) / 4
    mean = jnp.linalg.solve(precision, x.T @ y)
    found = method.center(state.posterior)["w"][:, 0]
    np.testing.assert_allclose(found, mean, atol=0.02)
    scale = jnp.zeros(23).at[state.posterior.indices].set(jnp.exp(state.posterior.log_scale))
    # mean field: the deviations are those of the diagonal of the precision
    np.testing.assert_allclose(scale[3::5], jnp.diag(precision) ** -0.5, rtol=0.05)
    np.testing.assert_allclose(scale[4:8], 2.0, rtol=0.05)  # no data: the prior


def test_the_divergence_is_the_integral_over_samples():
    method = optim.sparse_vi(
        lambda p: 0.0 * p["b"][0], SHAPES, optax.sgd(0.0), num_active=6, num_examples=1,
        prior_scale=0.7, initial_scale=0.3,
    )  # fmt: skip
    filled = jax.tree.map(lambda leaf: leaf + 0.4, SHAPES)
    state = method.init(KEY, filled)
    info = method.update(KEY, state)[1]
    draws = 0.4 + 0.3 * jax.random.normal(KEY, (200_000, 6))

    def log_density(x, mean, scale):
        return jnp.sum(-(((x - mean) / scale) ** 2) / 2 - jnp.log(scale), axis=1)

    ratio = log_density(draws, 0.4, 0.3) - log_density(draws, 0.0, 0.7)
    np.testing.assert_allclose(info.divergence, ratio.mean(), rtol=0.01)


@pytest.mark.parametrize(
    "criterion", ["mean", "snr", "mean_abs", "exp_mean_abs", "snr_exp_mean_abs"]
)
def test_a_swap_takes_the_least_important_out_and_the_steepest_in(criterion):
    steep = jax.random.normal(jax.random.key(2), (23,))
    params = {"b": jnp.zeros(3), "w": jnp.zeros((4, 5))}
    method = optim.sparse_vi(
        lambda p: jnp.concatenate([p["b"], p["w"].ravel()]) @ steep,
        params, optax.sgd(0.0, momentum=0.9), num_active=10, num_examples=1,
        swap_every=1, swap_fraction=0.3, criterion=criterion,
    )  # fmt: skip
    state = method.init(KEY, params)
    mean, log_scale = jax.random.normal(KEY, (2, 10)) * jnp.array([[1.0], [0.5]])
    posterior = state.posterior._replace(mean=mean, log_scale=log_scale)
    after, info = method.update(KEY, state._replace(posterior=posterior))
    draws = mean + jnp.exp(log_scale) * jax.random.normal(KEY, (100_000, 10))
    importance = {
        "mean": jnp.abs(mean),
        "snr": jnp.abs(mean) / jnp.exp(log_scale),
        "mean_abs": jnp.mean(jnp.abs(draws), axis=0),
        "exp_mean_abs": jnp.mean(jnp.exp(jnp.abs(draws)), axis=0),
        "snr_exp_mean_abs": jnp.mean(jnp.exp(jnp.abs(draws)), axis=0)
        / jnp.std(jnp.exp(jnp.abs(draws)), axis=0),
    }[criterion]
    gone = set(np.asarray(posterior.indices)[np.argsort(importance)[:3]])
    outside = sorted(
        set(range(23)) - set(np.asarray(posterior.indices)), key=lambda i: -abs(steep[i])
    )
    expected = (set(np.asarray(posterior.indices)) - gone) | set(outside[:3])
    assert set(np.asarray(after.posterior.indices)) == expected
    assert info.num_swapped == 3
    new = np.isin(after.posterior.indices, outside[:3])
    np.testing.assert_array_equal(after.posterior.mean[new], 0.0)
    np.testing.assert_allclose(jnp.exp(after.posterior.log_scale[new]), 0.01)
    np.testing.assert_array_equal(after.posterior.mean[~new], mean[~new])
    trace = after.optimizer[0].trace[0]
    np.testing.assert_array_equal(trace[new], 0.0)
    assert np.all(trace[~new] != 0)


def test_the_exponential_criteria_are_the_integrals_that_they_say():
    mean, scale = np.array([-0.7, 0.0, 0.02, 1.5]), np.array([0.3, 0.5, 0.01, 1.2])
    x = np.linspace(-9, 9, 20_001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
    first, second = (
        np.exp(k * np.abs(mean[:, None] + scale[:, None] * x)) @ density for k in (1, 2)
    )
    with jax.enable_x64(True):
        posterior = optim.SparseGaussian(jnp.arange(4), jnp.asarray(mean), jnp.log(scale))
        found = [_importance(posterior, name) for name in ("exp_mean_abs", "snr_exp_mean_abs")]
    np.testing.assert_allclose(np.exp(found[0]), first, rtol=1e-6)
    square = np.exp(found[1])  # of the mean, over the mean of the square
    np.testing.assert_allclose(square / (1 - square), first**2 / (second - first**2), rtol=1e-3)


def test_the_signal_to_noise_ratio_of_the_size_orders_weights_as_that_of_the_weight_does():
    """So the paper's two criteria are one."""
    ratio = jnp.linspace(0.01, 6, 400)
    x = jnp.linspace(-8, 8, 20_001)
    density = jnp.exp(-(x**2) / 2) / jnp.sqrt(2 * jnp.pi) * (x[1] - x[0])
    size = jnp.abs(ratio[:, None] + x)
    first, second = size @ density, size**2 @ density
    assert np.all(np.diff(first / jnp.sqrt(second - first**2)) > 0)


def test_it_finds_the_weights_that_matter():
    x, y = data(60)
    optimizer = optax.adam(0.02)
    method = optim.sparse_vi(
        linear, SHAPES, optimizer, num_active=5, num_examples=60, swap_every=50, swap_fraction=0.4
    )
    state, _ = run(method, method.init(KEY, SHAPES), 2000, x, y)
    assert {3, 8, 13} <= set(np.asarray(state.posterior.indices))  # w[:3, 0]


def test_a_draw_has_the_posterior_s_moments_on_its_support_and_zeros_elsewhere():
    method = optim.sparse_vi(
        linear, SHAPES, optax.sgd(0.1), num_active=7, num_examples=1, initial_scale=0.5
    )
    posterior = method.init(KEY, jax.tree.map(lambda x: x + 1.0, SHAPES)).posterior
    draws = jax.vmap(method.draw, (0, None))(jax.random.split(KEY, 20_000), posterior)
    flat = jnp.concatenate([draws["b"], draws["w"].reshape(-1, 20)], axis=1)
    on = np.isin(np.arange(23), posterior.indices)
    assert on.sum() == 7
    np.testing.assert_array_equal(flat[:, ~on], 0)
    np.testing.assert_allclose(flat[:, on].mean(0), 1, atol=0.02)
    np.testing.assert_allclose(flat[:, on].std(0), 0.5, rtol=0.03)


def test_seeds_are_a_batch():
    x, y = data()
    method = optim.sparse_vi(
        linear, SHAPES, optax.adam(0.1), num_active=5, num_examples=30, swap_every=2
    )
    keys = jax.random.split(KEY, 3)

    def train(key):
        return run(method, method.init(key, SHAPES), 6, x, y)[0]

    together = jax.vmap(train)(keys)
    for i, key in enumerate(keys):
        alone = train(key)
        np.testing.assert_array_equal(together.posterior.indices[i], alone.posterior.indices)
        np.testing.assert_allclose(together.posterior.mean[i], alone.posterior.mean, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_active": 24}, r"num_active must lie in 1\.\.23, got 24"),
        ({"num_examples": 0}, "num_examples must be at least 1, got 0"),
        ({"prior_scale": 0.0}, "scales must be positive, got 0.0"),
        ({"swap_fraction": 1.5}, r"swap_fraction must lie in \[0, 1\], got 1.5"),
        ({"criterion": "size"}, "criterion must be one of"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_makes_no_sense_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        optim.sparse_vi(
            linear, SHAPES, optax.sgd(0.1), **{"num_active": 5, "num_examples": 9, **options}
        )
    method = optim.sparse_vi(linear, SHAPES, optax.sgd(0.1), num_active=5, num_examples=9)
    with pytest.raises(ValueError, match="init's params"):
        method.init(KEY, {"b": jnp.zeros(3)})
