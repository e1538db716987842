"""The Fourier neural operator, a network between functions on a grid, and its training.

Reference: Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya, Stuart & Anandkumar (2021), "Fourier
neural operator for parametric partial differential equations".
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import harness


class Data(NamedTuple):
    """Coefficients and solutions: what to learn, from several sources, and what to test on."""

    w: np.ndarray
    """(N, s + 2, s + 2), positive, with a ring of ghost cells."""
    u: np.ndarray
    """(sources, N, s, s)."""
    w_test: np.ndarray
    u_test: np.ndarray


class Model(NamedTuple):
    """Operators of every source (axis 0) and seed (axis 1), and the units they work in."""

    params: Any
    mean: np.ndarray
    """Of log w, like the next."""
    scale: np.ndarray
    unit: np.ndarray
    """(sources,) of the solutions."""


class SpectralConvolution(nn.Module):
    """Mixes the channels of each low frequency by a matrix of its own; drops the high ones."""

    modes: int
    """Frequencies an axis: 0 .. modes - 1 along the last, both signs along the first."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, s, t, channels) of (batch, s, t, channels)."""
        rows, columns, channels = x.shape[1:]
        if 2 * self.modes > min(rows, columns):
            raise ValueError(f"{self.modes} modes need {2 * self.modes} cells, got {x.shape[1:3]}")
        shape = (2, 2 * self.modes, self.modes, channels, channels)
        real, imag = self.param("kernel", nn.initializers.normal(1 / channels), shape, jnp.float32)
        spectrum = jnp.fft.rfft2(x, axes=(1, 2))[:, :, : self.modes]
        low = jnp.concatenate([spectrum[:, : self.modes], spectrum[:, -self.modes :]], axis=1)
        low = jnp.einsum("bijc,ijcd->bijd", low, jax.lax.complex(real, imag))
        gap = jnp.zeros((len(x), rows - 2 * self.modes, self.modes, channels), low.dtype)
        parts = [low[:, : self.modes], gap, low[:, self.modes :]]
        spectrum = jnp.concatenate(parts, axis=1)
        return jnp.fft.irfft2(spectrum, (rows, columns), axes=(1, 2))


class FourierOperator(nn.Module):
    """Layers of a spectral convolution plus a pointwise map, between a lift and a projection.

    It sees the positions beside the values.
    """

    width: int = 16
    modes: int = 8
    num_layers: int = 4
    padding: int = 0
    """Cells of zeros behind each axis: the transform is periodic, the functions need not be."""

    @nn.compact
    def __call__(self, a: jax.Array) -> jax.Array:
        """Functions (batch, s, t) of functions (batch, s, t)."""
        axes = [jnp.linspace(0, 1, n, dtype=a.dtype) for n in a.shape[1:]]
        positions = [jnp.broadcast_to(p, a.shape) for p in jnp.meshgrid(*axes, indexing="ij")]
        x = nn.Dense(self.width)(jnp.stack([a, *positions], axis=-1))
        x = jnp.pad(x, ((0, 0), (0, self.padding), (0, self.padding), (0, 0)))
        for layer in range(self.num_layers):
            x = SpectralConvolution(self.modes)(x) + nn.Dense(self.width)(x)
            x = nn.gelu(x) if layer + 1 < self.num_layers else x
        x = x[:, : a.shape[1], : a.shape[2]]
        return nn.Dense(1)(nn.gelu(nn.Dense(2 * self.width)(x)))[..., 0]


def network(config: ConfigDict) -> FourierOperator:
    return FourierOperator(config.width, config.modes, config.num_layers, config.padding)


def standardize(w: np.ndarray, mean: Any, scale: Any) -> jax.Array:
    """What the network sees: log w of the inner cells, in units of its spread."""
    return jnp.asarray((np.log(w[:, 1:-1, 1:-1]) - mean) / scale, jnp.float32)


def relative_error(u: Any, exact: Any) -> jax.Array:
    """(...) of (..., s, s): the relative error in L2."""
    difference, norm = (jnp.sqrt(jnp.sum(v**2, axis=(-2, -1))) for v in (u - exact, exact))
    return difference / norm


def train(config: ConfigDict, workdir: Path, data: Data) -> tuple[Model, dict[str, float]]:
    """The operators after ``num_steps`` of Adam, and the seconds.

    A seed's operators start from the same weights and see the same batches, whatever the source.
    """
    net, logs = network(config), np.log(data.w[:, 1:-1, 1:-1])
    mean, scale, unit = logs.mean(), logs.std(), data.u.std(axis=(1, 2, 3))
    a = standardize(data.w, mean, scale)
    u = jnp.asarray(data.u / unit[:, None, None, None], jnp.float32)
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.num_steps))

    def loss(params, u, index, a):
        return jnp.mean(relative_error(net.apply(params, a[index]), u[index]))

    def step(state, index, key, a, u):
        del key
        params, moments = state
        of_seeds = jax.vmap(jax.value_and_grad(loss), (0, None, 1, None))
        errors, gradients = jax.vmap(of_seeds, (0, 0, None, None))(params, u, index, a)
        updates, moments = optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), {"error": errors}

    params = initial(config, a, num_sources=len(u))
    state, constants = (params, optimizer.init(params)), (a, u)
    batches = epochs(config, len(a))
    (params, _), seconds = harness.train(workdir, config, state, step, batches, constants=constants)
    return Model(params, mean, scale, unit), seconds


def initial(config: ConfigDict, a: jax.Array, *, num_sources: int) -> Any:
    """Weights (num_sources, num_seeds, ...), the same for all sources."""
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    params = jax.vmap(network(config).init, (0, None))(keys, a[:1])
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * num_sources), params)


def epochs(config: ConfigDict, num: int) -> Callable[[int], np.ndarray]:
    """Step -> (batch_size, num_seeds) examples; each seed has an order of its own every epoch."""
    size, per_epoch = config.batch_size, num // config.batch_size
    examples = np.tile(np.arange(num, dtype=np.int32)[:, None], config.num_seeds)

    def batch(step):
        epoch, part = divmod(step, per_epoch)
        rng = np.random.default_rng((config.seed, epoch))
        return rng.permuted(examples, axis=0)[part * size : (part + 1) * size]

    return batch


def predict(config: ConfigDict, model: Model, w: np.ndarray) -> np.ndarray:
    """(sources, num_seeds, N, s, s) solutions."""
    apply = jax.jit(jax.vmap(jax.vmap(network(config).apply, (0, None)), (0, None)))
    a, size = standardize(w, model.mean, model.scale), config.batch_size
    parts = [np.asarray(apply(model.params, a[i : i + size])) for i in range(0, len(a), size)]
    return np.concatenate(parts, axis=2) * model.unit[:, None, None, None, None]
