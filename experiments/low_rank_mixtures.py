"""Mixtures of low-rank Gaussians: samples, and denoisers trained on them.

Points lie near K orthogonal subspaces of one dimension. Denoisers learn from them by the diffusion
loss: the one that is exact for such a mixture, its bases the only parameters, and two networks that
know nothing of subspaces, a dense one and a U-Net to which a point is a square image.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments import denoisers, harness
from subspace_jax import linalg, optim
from subspace_jax.clustering import k_subspaces
from subspace_jax.diffusion import jacobian, low_rank_gaussians
from subspace_jax.manifolds import grassmann

METHODS = ("diffusion", "K-subspaces", "diffusion, random starts", "diffusion and K-subspaces")
"""Three against the truth, and the first two against each other."""


class Samples(NamedTuple):
    """Points in rows; those beyond the number asked for are zero and not present."""

    U: jax.Array
    """(K, n, d), the truth."""
    X: jax.Array
    """(K num_max, n)."""
    present: jax.Array
    """(K num_max,), ones and zeros."""


def draw(config: ConfigDict, key: jax.Array, dim: int, num: Any, num_max: int) -> Samples:
    """``num`` points, at most ``num_max``, near each of K random orthogonal subspaces."""
    basis_key, normal_key, noise_key = jax.random.split(key, 3)
    n, K = config.ambient_dim, config.num_clusters
    frame = linalg.orthonormalize(jax.random.normal(basis_key, (n, K * dim)))
    U = frame.reshape(n, K, dim).swapaxes(0, 1)
    # A point's own key: more points are those there were and others.
    keys = jax.vmap(partial(jax.random.fold_in, normal_key))(jnp.arange(num_max))
    z = jax.vmap(lambda key: jax.random.normal(key, (K, dim)))(keys)
    X = jnp.einsum("knd,mkd->kmn", U, z, precision="highest")
    X = X + config.noise * jax.random.normal(noise_key, X.shape)
    present = jnp.tile(jnp.arange(num_max) < num, K).astype(X.dtype)
    return Samples(U, present[:, None] * X.reshape(-1, n), present)


def recover(config: ConfigDict, dim: int, num_max: int) -> Callable:
    """(key, num) -> {method: (chordal distance, largest sine)} on one draw of ``num`` points."""
    cluster = partial(k_subspaces.fit, num_clusters=config.num_clusters, dim=dim)

    def one(key, num):
        data_key, cluster_key, start_key, train_key = jax.random.split(key, 4)
        samples = draw(config, data_key, dim, num, num_max)
        # Zero points change nothing here: they keep no energy and are chosen by no start.
        clusters = cluster(cluster_key, samples.X, num_restarts=config.num_restarts)
        keys = jax.random.split(start_key, config.num_restarts)
        starts = jax.vmap(lambda key: cluster(key, samples.X, num_restarts=1, maxiter=0).Q)(keys)
        random = linalg.orthonormalize(jax.random.normal(start_key, starts.shape))
        both = jnp.stack([starts, random])
        found = jax.vmap(partial(train, config, train_key, samples))(both)
        pairs = ((samples.U, found[0]), (samples.U, clusters.Q), (samples.U, found[1]))
        pairs += ((clusters.Q, found[0]),)
        return {name: distances(*pair) for name, pair in zip(METHODS, pairs, strict=True)}

    return one


def train(config: ConfigDict, key: jax.Array, samples: Samples, starts: jax.Array) -> jax.Array:
    """The bases (K, n, d) of least loss, of ``starts`` (R, K, n, d) trained by Adam.

    Each step has new noise, the same for all starts; the loss is the mean of the last tenth.
    """
    rate = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    optimizer = optim.riemannian_adam(rate, manifold=grassmann)

    def total(U, key):
        losses = jax.vmap(lambda U: denoising_loss(config, key, U, samples))(U)
        return jnp.sum(losses), losses

    def step(carry, key):
        U, state = carry
        (_, losses), g = jax.value_and_grad(total, has_aux=True)(U, key)
        updates, state = optimizer.update(g, state, U)
        return (optax.apply_updates(U, updates), state), losses

    keys = jax.random.split(key, config.num_steps)
    (U, _), losses = jax.lax.scan(step, (starts, optimizer.init(starts)), keys)
    last = jnp.mean(losses[-max(1, config.num_steps // 10) :], axis=0)
    return jnp.asarray(U)[jnp.argmin(last)]


def denoising_loss(config: ConfigDict, key: jax.Array, U: jax.Array, samples: Samples) -> jax.Array:
    """The mean squared error of the mixture's denoiser, one noise and one level a point."""
    sigma_key, key = jax.random.split(key)
    sigma = log_uniform(sigma_key, config.sigma_range, len(samples.X))
    x = samples.X + sigma[:, None] * jax.random.normal(key, samples.X.shape)
    weights = jnp.ones(len(U)) / len(U)
    x0 = jax.vmap(low_rank_gaussians.denoise, (None, None, 0, 0))(U, weights, x, sigma)
    errors = jnp.sum((x0 - samples.X) ** 2, axis=1)
    return jnp.sum(samples.present * errors) / jnp.sum(samples.present)


def log_uniform(key: jax.Array, bounds: tuple[float, float], num: int) -> jax.Array:
    low, high = bounds
    return low * (high / low) ** jax.random.uniform(key, (num,))


def distances(U: jax.Array, V: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far K subspaces are from K others, in the order that fits best.

    The root mean square of the sines of all principal angles (1 means orthogonal), and the largest.
    """
    K, _, d = U.shape
    pairs = (jnp.repeat(U, K, 0), jnp.tile(V, (K, 1, 1)))
    chordal = linalg.chordal_distance(*pairs).reshape(K, K) ** 2
    sines = linalg.projection_distance(*pairs).reshape(K, K)
    orders = jnp.asarray(list(itertools.permutations(range(K))))
    rows = jnp.arange(K)
    best = orders[jnp.argmin(jnp.sum(chordal[rows, orders], axis=1))]
    return jnp.sqrt(jnp.mean(chordal[rows, best]) / d), jnp.max(sines[rows, best])


class Network(nn.Module):
    """A dense network on points (batch, 1, 1, n), told the noise level (batch,)."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array) -> jax.Array:
        """The image of ``x``, of its shape."""
        level = jnp.broadcast_to(noise[:, None, None, None], (*x.shape[:-1], 1))
        h = nn.silu(nn.Dense(self.width)(jnp.concatenate([x, level], -1)))
        h = h + nn.silu(nn.Dense(self.width)(jnp.concatenate([h, level], -1)))
        return nn.Dense(x.shape[-1])(h)


def dense(config: ConfigDict) -> tuple[nn.Module, tuple[int, ...]]:
    return Network(config.network.width), (1, 1, config.ambient_dim)


def unet(config: ConfigDict) -> tuple[nn.Module, tuple[int, ...]]:
    """That of the image priors; by products, as it is trained in a scan."""
    side = round(config.ambient_dim**0.5)
    return denoisers.UNet(tuple(config.network.channels), 1, products=True), (side, side, 1)


NETWORKS = {"dense": dense, "U-Net": unet}
"""The module, and the shape in which it takes a point."""


def learn(config: ConfigDict, name: str, num: int) -> Callable:
    """Of keys: losses on training and on new points, and distances, of networks on ``num`` points.

    The distance is the mean of `subspace_distance` at new points.
    """
    net, dim = config.network, config.network.dim
    model, shape = harness.pick("network", name, NETWORKS)(config)
    num_steps = net.num_steps[name]
    optimizer = optax.adam(optax.cosine_decay_schedule(net.learning_rate, num_steps))
    sigma_data = (dim / config.ambient_dim) ** 0.5

    def denoiser(params):
        apply = partial(model.apply, {"params": params})
        batched = denoisers.precondition(apply, sigma_data)
        return lambda x, sigma: batched(x.reshape(-1, *shape), sigma).reshape(x.shape)

    def loss(params, key, X):
        sigma_key, key = jax.random.split(key)
        sigma = log_uniform(sigma_key, net.sigma_range, len(X))
        error = denoiser(params)(X + sigma[:, None] * jax.random.normal(key, X.shape), sigma) - X
        weight = 1 / sigma**2 + 1 / sigma_data**2
        return jnp.mean(weight[:, None] * error**2)

    def step(X, carry, key):
        params, state = carry
        rows = jax.random.randint(jax.random.fold_in(key, 1), (net.batch_size,), 0, len(X))
        value, g = jax.value_and_grad(loss)(params, key, X[rows])
        updates, state = optimizer.update(g, state)
        return (optax.apply_updates(params, updates), state), value

    def one(key):
        data_key, init_key, train_key, test_key = jax.random.split(key, 4)
        samples = draw(config, data_key, dim, num + net.num_test, num + net.num_test)
        points = samples.X.reshape(config.num_clusters, -1, config.ambient_dim)
        X, new = points[:, :num].reshape(-1, config.ambient_dim), points[:, num:]
        params = model.init(init_key, jnp.ones((1, *shape)), jnp.ones(1))["params"]
        keys = jax.random.split(train_key, num_steps)
        (params, _), values = jax.lax.scan(partial(step, X), (params, optimizer.init(params)), keys)
        flat = new.reshape(-1, config.ambient_dim)
        tests = jax.vmap(lambda key: loss(params, key, flat))(jax.random.split(test_key, 8))
        away = partial(subspace_distance, config, denoiser(params))
        keys = jax.random.split(test_key, new.shape[:2])
        far = jax.vmap(jax.vmap(away, (None, 0, 0)))(samples.U, new, keys)
        last = jnp.mean(values[-max(1, num_steps // 10) :])
        return last, jnp.mean(tests), jnp.mean(far)

    return harness.each(one)


def subspace_distance(
    config: ConfigDict, denoise: Callable, U: jax.Array, x: jax.Array, key: jax.Array
) -> jax.Array:
    """Of the Jacobian's leading right singular vectors at a noisy point to the basis ``U``."""
    noise_key, key = jax.random.split(key)
    sigma = jnp.full(1, config.network.sigma)
    x = x + config.network.sigma * jax.random.normal(noise_key, x.shape)
    found = jacobian.singular_triplets(
        key, lambda x: denoise(x[None], sigma)[0], x, rank=U.shape[1], num_power_iterations=3
    )
    return linalg.chordal_distance(U, found.V) / U.shape[1] ** 0.5
