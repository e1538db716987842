"""Coil sensitivities: simulated ones."""

from typing import Any

import jax.numpy as jnp

from subspace_jax.typing import Array, Inexact

__all__ = ["birdcage"]


def birdcage(
    num_coils: int, shape: tuple[int, int], *, radius: float = 1.5, dtype: Any = None
) -> Inexact[Array, "c h w"]:
    """Complex maps of coils on a circle about the image, their sum of squares one everywhere.

    The field of a wire at the complex position p is the inverse distance with the angle's phase,
    1 / conj(z - p), and each coil is driven with its own position's phase.

    Args:
        num_coils: C, at equal angles.
        shape: (H, W).
        radius: of the circle, in half widths of the image; above sqrt(2), so it lies outside.
        dtype: complex; None: the default.

    Raises:
        ValueError: no coil, a shape that is not (H, W), a circle that meets the image.

    Reference: Hayes, Edelstein, Schenck, Mueller & Eash (1985), on the birdcage coil.
    """
    if num_coils < 1 or len(shape) != 2:
        raise ValueError(f"expected at least 1 coil and (H, W), got {num_coils} and {shape}")
    if not radius > 2**0.5:
        raise ValueError(f"radius must be above sqrt(2) half widths, got {radius}")
    dtype = jnp.zeros((), complex).dtype if dtype is None else jnp.dtype(dtype)
    y, x = ((jnp.arange(n) - n // 2) / (n / 2) for n in shape)
    z = (x + 1j * y[:, None]).astype(dtype)
    phase = jnp.exp(2j * jnp.pi * jnp.arange(num_coils) / num_coils).astype(dtype)[:, None, None]
    field = phase.conj() / (z - radius * phase).conj()
    return field / jnp.sqrt(jnp.sum(jnp.abs(field) ** 2, axis=0))
