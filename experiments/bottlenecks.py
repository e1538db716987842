"""The innermost features of a U-Net (h-space), seen and moved from outside of it."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

Denoiser = Callable[[jax.Array, jax.Array], jax.Array]


def name(about: dict[str, Any]) -> str:
    """Of the last block at the coarsest resolution, by what `denoisers.load` tells."""
    return f"Block_{len(about['channels']) * about['num_blocks'] - 1}"


def features(denoise: Denoiser, block: str, x: jax.Array, sigma: jax.Array) -> jax.Array:
    """What this block gives for a noisy image, (1, height, width, channels)."""
    seen = []

    def look(next_fun, args, kwargs, context):
        y = next_fun(*args, **kwargs)
        if context.module.name == block:
            seen.append(y)
        return y

    with nn.intercept_methods(look):
        denoise(x, sigma)
    return seen[0]


def moved(denoise: Denoiser, block: str) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """``f(x, sigma, edit)``: the denoised image where ``edit`` is added to what the block gives."""

    def f(x, sigma, edit):
        def add(next_fun, args, kwargs, context):
            y = next_fun(*args, **kwargs)
            return y + edit if context.module.name == block else y

        with nn.intercept_methods(add):
            return denoise(x, sigma)

    return f
