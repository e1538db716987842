"""A small U-Net that takes noise off images, preconditioned for every level of noise.

One set of weights, two ways to convolve: ``lax.conv`` is fast outside of loops, a product with
shifted copies inside ``lax.scan`` on a CPU, where XLA's convolutions and above all their
derivatives are many times slower.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import lax


class UNet(nn.Module):
    """Residual blocks at halved resolutions; works on 2 x 2 pixels at a time from the start."""

    channels: tuple[int, ...] = (32, 64, 96)
    num_blocks: int = 2
    num_features: int = 64
    products: bool = False
    """Convolve by products with shifted copies."""

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array) -> jax.Array:
        """Images (batch, height, width, 1 or 2) like ``x``, told the noise level (batch,)."""
        waves = noise[:, None] * 2.0 ** jnp.arange(-2, 6)
        waves = jnp.concatenate([jnp.sin(waves), jnp.cos(waves)], -1)
        features = nn.silu(nn.Dense(self.num_features)(waves))
        block = functools.partial(Block, products=self.products)
        h = Conv(self.channels[0], self.products)(_merge(x))
        across = []
        for level, width in enumerate(self.channels):
            h = _halve(h) if level else h
            for _ in range(self.num_blocks):
                h = block(width)(h, features)
            across.append(h)
        for width, skip in zip(self.channels[-2::-1], across[-2::-1], strict=True):
            h = jnp.concatenate([_double(h), skip], -1)
            for _ in range(self.num_blocks):
                h = block(width)(h, features)
        h = nn.silu(GroupNorm()(h))
        return _split(Conv(4 * x.shape[-1], self.products, zero=True)(h))


class Block(nn.Module):
    """Two convolutions whose normalised inputs the noise level scales and shifts; a residual."""

    width: int
    products: bool

    @nn.compact
    def __call__(self, x: jax.Array, features: jax.Array) -> jax.Array:
        """(batch, height, width, channels), ``features`` (batch, num_features)."""
        h = Conv(self.width, self.products)(nn.silu(GroupNorm()(x)))
        scale, shift = jnp.split(nn.Dense(2 * self.width)(features)[:, None, None], 2, -1)
        h = GroupNorm()(h) * (1 + scale) + shift
        h = Conv(self.width, self.products, zero=True)(nn.silu(h))
        return h + (x if x.shape[-1] == self.width else nn.Dense(self.width)(x))


class Conv(nn.Module):
    """A 3 x 3 convolution, zeros outside of the image."""

    width: int
    products: bool
    zero: bool = False
    """Start at zero, so that a residual block starts as the identity."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels)."""
        start = nn.initializers.zeros if self.zero else nn.initializers.he_normal()
        kernel = self.param("kernel", start, (3, 3, x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        if not self.products:
            numbers = ("NHWC", "HWIO", "NHWC")
            y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            return y + bias
        # Copies along one axis, sums along the other: the derivative is of the same kind.
        copies = jnp.concatenate([_shifted(x, 2, 1), x, _shifted(x, 2, -1)], -1)
        kernels = kernel.transpose(1, 2, 0, 3).reshape(copies.shape[-1], -1)
        above, middle, below = jnp.split(copies @ kernels, 3, -1)
        return _shifted(above, 1, 1) + middle + _shifted(below, 1, -1) + bias


class GroupNorm(nn.Module):
    """Eight groups of channels, each normalised with its pixels; then a scale and a bias each.

    What ``flax.linen.GroupNorm`` computes. On a CPU at a third of its time, derivatives too: sums
    over pixels alone are vectorised, and the groups are a product, which no loop recomputes.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels).

        Raises:
            ValueError: channels that do not make eight groups.
        """
        width = x.shape[-1]
        if width % 8:
            raise ValueError(f"channels must be a multiple of 8, got {width}")
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        group = jnp.arange(width) * 8 // width
        share = (group == group[:, None]) * (8 / width)
        mean, square = (jnp.mean(each, (1, 2)) @ share for each in (x, x**2))
        scale = scale * lax.rsqrt(jnp.maximum(square - mean**2, 0) + 1e-6)
        return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]


def precondition(
    net: Callable[[jax.Array, jax.Array], jax.Array], sigma_data: float
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(x (batch, ...), sigma (batch,)) -> the expected clean images.

    The network's input and target have variance one at every level of noise.

    Reference: Karras et al. (2022), arXiv 2206.00364, table 1.
    """

    def denoise(x: jax.Array, sigma: jax.Array) -> jax.Array:
        s = sigma.reshape(-1, *[1] * (x.ndim - 1))
        total = jnp.sqrt(s**2 + sigma_data**2)
        out = net(x / total, jnp.log(sigma) / 4)
        return (sigma_data / total) ** 2 * x + s * sigma_data / total * out

    return denoise


def draw_levels(config: Any, key: jax.Array, num: int) -> jax.Array:
    """Levels of noise (num,) to train at: log-normal, ``config.log_sigma`` mean and deviation."""
    mean, deviation = config.log_sigma
    log_sigma = mean + deviation * jax.random.normal(key, (num,))
    return jnp.exp(jnp.clip(log_sigma, jnp.log(0.002), jnp.log(20.0)))


def weighted_error(
    denoised: jax.Array, clean: jax.Array, sigma: jax.Array, sigma_data: float
) -> jax.Array:
    """The mean squared error of the network's own output, as the preconditioned loss has it.

    Reference: Karras et al. (2022), arXiv 2206.00364, table 1, the loss weighting.
    """
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return jnp.mean(weight * jnp.mean((denoised - clean) ** 2, tuple(range(1, clean.ndim))))


def load(path: Path | str) -> tuple[Callable[[jax.Array, jax.Array], jax.Array], dict[str, Any]]:
    """``denoise(x, sigma) -> x_0`` for one image (h, w), and what `save` was told.

    Raises:
        FileNotFoundError: no such file.
    """
    with np.load(path) as stored:
        arrays = dict(stored)
    about = json.loads(str(arrays.pop("about")))
    flat = {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}
    params = traverse_util.unflatten_dict(flat, sep="/")
    model = UNet(tuple(about["channels"]), about["num_blocks"], products=_slow_in_loops())
    network = precondition(functools.partial(model.apply, {"params": params}), about["sigma_data"])
    return image_denoiser(network), about


def image_denoiser(network: Callable) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A network on batches of real channels, as a function of one image: two if it is complex."""

    def denoise(x: jax.Array, sigma: jax.Array) -> jax.Array:
        channels = to_channels(x)[None]
        y = network(channels, jnp.reshape(sigma, (1,)).astype(channels.dtype))[0]
        return lax.complex(y[..., 0], y[..., 1]) if jnp.iscomplexobj(x) else y[..., 0]

    return denoise


def of_real(denoise: Callable) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A denoiser of complex images, as one of real images: their phase is zero."""
    return lambda x, sigma: denoise(lax.complex(x, jnp.zeros_like(x)), sigma).real


def to_channels(x: jax.Array) -> jax.Array:
    """Real and imaginary parts, or the real image alone, along a new last axis."""
    return jnp.stack([x.real, x.imag], -1) if jnp.iscomplexobj(x) else x[..., None]


def save(path: Path, params: Any, about: dict[str, Any]) -> None:
    """Weights as float16, and how they were made."""
    flat = traverse_util.flatten_dict(params, sep="/")
    arrays = {name: np.asarray(x, np.float16) for name, x in flat.items()}
    np.savez_compressed(path, about=json.dumps(about), **arrays)


def smooth_phase(key: jax.Array, size: int) -> jax.Array:
    """A random smooth phase factor (size, size): a few long waves, up to about a turn."""
    constant_key, key = jax.random.split(key)
    u = jnp.linspace(0, jnp.pi, size)
    waves = jnp.stack([jnp.cos(k * u) for k in range(4)])
    fall = 1.5 / (1.0 + jnp.arange(4)[:, None] + jnp.arange(4))
    phase = waves.T @ (fall * jax.random.normal(key, (4, 4))) @ waves
    return jnp.exp(1j * (phase + jax.random.uniform(constant_key, maxval=2 * jnp.pi)))


def _slow_in_loops() -> bool:
    return jax.default_backend() == "cpu"


def _shifted(x: jax.Array, axis: int, by: int) -> jax.Array:
    """Moved along an axis, zeros come in."""
    edges = [(by * (a == axis), -by * (a == axis), 0) for a in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _merge(x: jax.Array) -> jax.Array:
    """2 x 2 pixels to one of four times the channels."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def _split(x: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, 2 * h, 2 * w, c // 4)


def _halve(x: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def _double(x: jax.Array) -> jax.Array:
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
