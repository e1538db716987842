"""Coil sensitivities: simulated ones, and those that calibration data determine.

A window of k-space of all coils lies in a subspace, which a fully sampled centre shows. That every
window shall lie in it is an eigenproblem for each pixel alone: its coil sensitivities are the
eigenvector of eigenvalue one.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Inexact

__all__ = ["birdcage", "espirit"]


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


def espirit(
    calibration: Inexact[Array, "c h w"],
    shape: tuple[int, int] | None = None,
    *,
    calibration_width: int = 24,
    kernel_width: int = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
    num_steps: int = 100,
) -> Inexact[Array, "c h2 w2"]:
    """Coil maps from fully sampled k-space about zero frequency, up to a phase of each pixel.

    Their sum of squares is one where the object is, zero elsewhere; the phase is such that the
    first coil is real. The projector onto the windows' subspace enters by its autocorrelation,
    so memory goes with C^2 H W, not with the number of kernels. Not differentiable where singular
    values or eigenvalues are equal.

    Args:
        calibration: centred k-space, complex, of which the middle is used; without ``shape`` its
            own is that of the maps.
        shape: (H, W) of the maps, if ``calibration`` is the middle alone.
        calibration_width: of the middle, in both axes; less where k-space is smaller.
        kernel_width: of the windows.
        threshold: singular values above this part of the greatest span the subspace.
        crop: least eigenvalue of a pixel that has a map.
        num_steps: of the power iteration at each pixel.

    Raises:
        ValueError: real k-space, one that is smaller than a window.

    Reference: Uecker, Lai, Murphy, Virtue, Elad, Pauly, Vasanawala & Lustig (2014), "ESPIRiT: an
    eigenvalue approach to autocalibrating parallel MRI".
    """
    if calibration.ndim != 3 or not jnp.iscomplexobj(calibration):
        got = f"{calibration.dtype} {calibration.shape}"
        raise ValueError(f"calibration must be complex, of shape (C, h, w), got {got}")
    middle = tuple(min(n, calibration_width) for n in calibration.shape[1:])
    if not 1 <= kernel_width <= min(middle):
        raise ValueError(f"kernel_width must lie in 1..{min(middle)}, got {kernel_width}")
    starts = [n // 2 - m // 2 for n, m in zip(calibration.shape[1:], middle, strict=True)]
    center = lax.dynamic_slice(calibration, (0, *starts), (len(calibration), *middle))
    P = _projector(center, kernel_width, threshold)
    height, width = calibration.shape[1:] if shape is None else shape
    maps, value = _leading(_pointwise(P, (height, width), kernel_width), num_steps)
    size = jnp.abs(maps[:1])
    nonzero = size > 0
    phase = jnp.where(nonzero, maps[:1].conj() / jnp.where(nonzero, size, 1), 1)
    return jnp.where(value > crop, maps * phase, 0)


def _projector(center: Array, width: int, threshold: float) -> Array:
    """Onto the subspace of all windows: (C, width, width, C, width, width)."""
    num_coils, *lengths = center.shape
    rows, columns = (jnp.arange(n - width + 1)[:, None] + jnp.arange(width) for n in lengths)
    windows = center[:, rows[:, None, :, None], columns[None, :, None, :]]
    windows = jnp.moveaxis(windows, 0, 2).reshape(-1, num_coils * width**2)
    _, s, Vh = jnp.linalg.svd(windows, full_matrices=False)
    # Masked, not cut: how many there are is data.
    basis = Vh.T * (s > threshold * s[0]).astype(Vh.dtype)
    return matmul(basis, basis.conj().T).reshape(2 * (num_coils, width, width))


def _pointwise(P: Array, shape: tuple[int, int], width: int) -> Array:
    """The mean over windows of their projections, a matrix (H, W, C, C) for each pixel.

    In k-space it is the convolution with the sums of P over equal differences of positions.
    """
    C = len(P)
    lags = jnp.zeros((C, C, 2 * width - 1, 2 * width - 1), P.dtype)
    for i in range(width):  # of the positions that P maps from, one after the other
        for j in range(width):
            block = jnp.moveaxis(P[:, :, :, :, i, j], 3, 1)
            rows, columns = (slice(width - 1 - k, 2 * width - 1 - k) for k in (i, j))
            lags = lags.at[:, :, rows, columns].add(block)
    down, across = (_waves(n, width, P.dtype) for n in shape)
    highest = lax.Precision.HIGHEST
    return jnp.einsum("cdij,hi,wj->hwcd", lags, down, across, precision=highest) / width**2


def _waves(n: int, width: int, dtype: Any) -> Array:
    """The waves of n pixels, from the middle, that lags of k-space stand for."""
    pixels, lags = jnp.arange(n) - n // 2, jnp.arange(2 * width - 1) - (width - 1)
    return jnp.exp(2j * jnp.pi * pixels[:, None] * lags / n).astype(dtype)


def _leading(G: Array, num_steps: int) -> tuple[Array, Array]:
    """The leading eigenvectors (C, H, W) and eigenvalues by power iteration."""

    def step(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        v = jnp.sum(G * carry[0][..., None, :], axis=-1)  # too small for a batch of products
        value = jnp.linalg.norm(v, axis=-1)
        return v / jnp.where(value > 0, value, 1)[..., None], value

    # No map is orthogonal to all columns: the longest one is where to start.
    longest = jnp.argmax(jnp.linalg.norm(G, axis=-2), axis=-1)
    start = jnp.take_along_axis(G, longest[..., None, None], axis=-1)[..., 0]
    v, value = lax.fori_loop(0, num_steps, step, (start, jnp.zeros_like(start[..., 0].real)))
    return jnp.moveaxis(v, -1, 0), value
