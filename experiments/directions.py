"""Networks that propose directions to conjugate gradients: shapes, data and loss of DCDM.

Reference: Kaneda, Akar, Chen, Kala, Hyde & Teran (2023), "A Deep Conjugate Direction Method for
Iteratively Solving Linear Systems", sections 4 and 5.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization
from ml_collections import ConfigDict

from experiments import harness, obstacles
from subspace_jax import krylov
from subspace_jax.linalg import operators


class PaperNet(nn.Module):
    """Residual convolutions on a grid, its coarser versions between them; linear at both ends.

    The paper's has one coarser level: ``PaperNet()`` has 97,457 weights on solids and 32,657 on
    planes. A domain shows only in the zeros of the residual.
    """

    levels: int = 1
    """How often the grid is halved."""
    width: int = 16

    @nn.compact
    def __call__(self, r: jax.Array, mask: jax.Array) -> jax.Array:
        """Directions (batch, *grid) of residuals of unit norm; 2^levels divides the grid."""
        del mask
        convolution = partial(nn.Conv, self.width, (3,) * (r.ndim - 1))

        def residual_pairs(x, count):
            for _ in range(count):
                x = x + nn.relu(convolution()(nn.relu(convolution()(x))))
            return x

        def level(x, depth):
            if depth == 0:
                return residual_pairs(x, 3)
            x = residual_pairs(x, 2)
            return residual_pairs(x + finer(level(coarser(x), depth - 1)), 2)

        return nn.Dense(1)(level(convolution()(r[..., None]), self.levels))[..., 0]


class GatedNet(nn.Module):
    """The same levels, linear in the residual as A^{-1} is, every channel gated by the domain.

    A second, nonlinear network sees the mask alone and says cell by cell how much of each channel
    goes on. The direction of 2 r is twice that of r, and a sum's is the sum.
    """

    levels: int = 3
    width: int = 16

    @nn.compact
    def __call__(self, r: jax.Array, mask: jax.Array) -> jax.Array:
        """Directions (batch, *grid) of residuals, on domains (batch, *grid)."""
        linear = partial(nn.Conv, self.width, (3,) * (r.ndim - 1), use_bias=False)
        nothing = partial(linear, kernel_init=nn.initializers.zeros)  # at the start
        curved = partial(nn.Conv, self.width, (3,) * (r.ndim - 1))
        gate = partial(nn.Dense, self.width, kernel_init=nn.initializers.zeros)

        def gated_pairs(x, domain, count):
            for _ in range(count):
                x = x + nothing()((1 + gate()(domain)) * linear()(x))
            return x

        def level(x, domain, depth):
            domain = nn.relu(curved()(domain))
            domain = domain + nn.relu(curved()(domain))
            if depth == 0:
                return gated_pairs(x, domain, 3)
            x = gated_pairs(x, domain, 2)
            y = level(coarser(x), coarser(domain), depth - 1)
            return gated_pairs(x + 2 * finer(y), domain, 2)  # coarse errors are the larger ones

        x = level(linear()(r[..., None]), mask[..., None].astype(r.dtype), self.levels)
        return nn.Dense(1, use_bias=False)(x)[..., 0]


NETWORKS = {"gated": GatedNet, "paper": PaperNet}


def coarser(x: jax.Array) -> jax.Array:
    """Means of 2 x 2 (x 2) cells of (batch, *grid, channels)."""
    window = (2,) * (x.ndim - 2)
    return nn.avg_pool(x, window, window)


def finer(x: jax.Array) -> jax.Array:
    """Each cell twice along every axis of the grid."""
    for axis in range(1, x.ndim - 1):
        x = jnp.repeat(x, 2, axis=axis)
    return x


def network(config: ConfigDict) -> nn.Module:
    """The config's network; ValueError if a grid cannot be halved as often as it wants."""
    for size in (config.size, *config.test_sizes):
        if size % 2**config.levels:
            raise ValueError(f"2^levels = {2**config.levels} must divide size, got {size}")
    return harness.pick("network", config.network, NETWORKS)(config.levels, config.width)


def initial(config: ConfigDict) -> Any:
    """The weights before training."""
    grid = jnp.zeros((1, *(config.size,) * config.rank))
    return network(config).init(jax.random.key(config.seed), grid, grid)


def poisson(mask: np.ndarray, dtype: Any) -> operators.Stencil:
    """Minus the Laplacian on a domain, zero on its boundary and on the obstacles'."""
    return operators.diffusion(jnp.ones(mask.shape, dtype), mask=jnp.asarray(mask))


def direction(net: nn.Module, params: Any, A: operators.Stencil) -> Callable:
    """The network as ``flexible_cg`` calls it: a function on one grid, in the caller's dtype."""

    def propose(r):
        d = net.apply(params, r[None].astype(jnp.float32), A.mask[None])[0]
        return (d * A.mask).astype(r.dtype)

    return propose


def loss(net: nn.Module, params: Any, A: operators.Stencil, r: jax.Array) -> jax.Array:
    """The mean of ||r - a A f(r)||^2 with the best a, over a batch: (10) of the paper.

    Args:
        net: the network.
        params: its weights.
        A: a batch of operators, every array with one more leading axis.
        r: (batch, *grid), of unit norm.
    """

    def one(A, r, f):
        q = A(f)
        a = jnp.vdot(r, f) / jnp.vdot(f, q)
        return jnp.sum((r - a * q) ** 2)

    return jnp.mean(jax.vmap(one)(A, r, net.apply(params, r, A.mask) * A.mask))


def train(config: ConfigDict, workdir: Path) -> tuple[Any, dict[str, float]]:
    """The weights after ``num_steps`` of Adam on mixtures of Ritz vectors, and the seconds."""
    net, masks = network(config), training_masks(config)
    stack = [poisson(mask, jnp.float32) for mask in masks]
    operator = jax.tree.map(lambda *leaves: jnp.stack(leaves), *stack)
    rate = optax.warmup_cosine_decay_schedule(
        0, config.learning_rate, config.num_steps // 50, config.num_steps
    )  # without clipping and a slow start some runs never leave the loss of 1
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    params = initial(config)

    def step(state, batch, key, operator):
        del key
        params, moments = state
        A = jax.tree.map(lambda leaf: leaf[batch["domain"]], operator)
        value, gradient = jax.value_and_grad(partial(loss, net))(params, A, batch["r"])
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), {"loss": value}

    state = (params, optimizer.init(params))
    batches = mixtures(config, ritz_vectors(config, operator, masks))
    (params, _), seconds = harness.train(
        workdir, config, state, step, batches, constants=(operator,)
    )
    return params, seconds


def training_masks(config: ConfigDict) -> np.ndarray:
    """(num_domains, *grid): those of every training image, one after another."""
    shape = (config.size,) * config.rank
    return np.concatenate(
        [
            obstacles.domains(image, 1 if image == "box" else config.num_masks, shape, config.seed)
            for image in config.images
        ]
    )


def ritz_vectors(config: ConfigDict, operator: Any, masks: np.ndarray) -> np.ndarray:
    """(num_domains, num_ritz, *grid), by ascending Ritz value of each domain's operator."""

    @jax.jit
    def of(A, v):
        basis = krylov.lanczos(A, A(v), config.num_ritz)
        _, Y = jnp.linalg.eigh(basis.H)
        return jnp.moveaxis(basis.Q @ Y, -1, 0)

    starts = np.random.default_rng(config.seed).standard_normal(masks.shape) * masks
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], operator) for i in range(len(masks))]
    return np.stack([np.asarray(of(A, jnp.float32(v))) for A, v in zip(each, starts, strict=True)])


def mixtures(config: ConfigDict, vectors: np.ndarray) -> Callable[[int], dict[str, np.ndarray]]:
    """Step -> a batch of unit residuals: normal mixtures, nine times as much of the lower half.

    Reference: section 5.2 of the paper, which draws 20,000 once; here every batch is new.
    """
    num_domains, num_ritz = vectors.shape[:2]
    low = np.arange(num_ritz) < num_ritz // 2 + config.theta
    weights = np.where(low, 9, 1).astype(np.float32)

    def batch(step):
        rng = np.random.default_rng((config.seed, step))
        domain = rng.integers(num_domains, size=config.batch_size)
        c = weights * rng.standard_normal((config.batch_size, num_ritz), np.float32)
        r = np.stack([np.tensordot(c, vectors[i], 1) for c, i in zip(c, domain, strict=True)])
        norms = np.sqrt(np.sum(r**2, axis=tuple(range(1, r.ndim)), keepdims=True))
        return {"r": r / norms, "domain": domain.astype(np.int32)}

    return batch


def save(path: Path, params: Any) -> None:
    """Write the weights as a MessagePack file, the whole of it or nothing."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(serialization.to_bytes(params))
    part.replace(path)


def load(path: Path, config: ConfigDict) -> Any:
    """The weights of such a file.

    Raises:
        ValueError: they are of a network of another shape.
    """
    shapes = jax.eval_shape(lambda: initial(config))
    params = serialization.msgpack_restore(path.read_bytes())
    theirs = jax.tree.map(jnp.shape, params)
    ours = jax.tree.map(lambda leaf: leaf.shape, shapes)
    if theirs != ours:
        raise ValueError(f"{path} holds a network of another shape than the config's")
    return params
