"""Computed tomography with parallel beams: two projections with their exact adjoints.

Pixels and detectors are one unit wide and centred on the axis of rotation; x grows with the columns
and y against the rows. A line of the angle theta meets the detector at x cos(theta) + y sin(theta),
so the sinogram (angles, detectors) at angle zero holds the sums of the columns. To simulate data
take another projection, or a finer grid, than the one that reconstructs.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from subspace_jax.diffusion.operators._operator import LinearOperator, checked
from subspace_jax.diffusion.operators._toeplitz import accumulate, by_parts, convolve, spectrum
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float


def parallel_beam(
    angles: Float[Array, " a"], shape: tuple[int, int], num_detectors: int
) -> LinearOperator:
    """The pixel-driven projection: each pixel falls on the two nearest detectors, linearly.

    Its Gram operator is the Toeplitz one that averages over where pixels fall between detectors:
    not exact, but alike on smooth images, positive semidefinite, and independent of the number of
    angles in cost. If the detector is shorter than the image's diagonal it is adjoint after apply.

    Args:
        angles: radians.
        shape: (H, W).
        num_detectors: D.

    Raises:
        ValueError: angles that are not a vector, a shape that is not (H, W), no detector; from its
            functions, arrays of another shape.

    Reference: Peters (1981), "Algorithms for fast back- and re-projection in computed tomography".
    """
    angles = jnp.asarray(angles)
    missing = _check(angles, shape, num_detectors)
    margin = missing + 1  # so that every pixel falls inside, with the second detector too

    def place(cosine: Array, sine: Array) -> tuple[Array, Array]:
        x, y = _coordinates(shape, cosine.dtype)
        shadow = x * cosine + y[:, None] * sine + (num_detectors - 1) / 2 + margin
        lower = jnp.floor(shadow)
        return lower.astype(int), shadow - lower

    def apply(image: Array) -> Array:
        def line(direction: tuple[Array, Array]) -> Array:
            lower, weight = place(*direction)
            detectors = jnp.zeros(num_detectors + 2 * margin, image.dtype)
            detectors = detectors.at[lower].add((1 - weight) * image)
            return detectors.at[lower + 1].add(weight * image)[margin:-margin]

        return lax.map(line, _directions(angles, image))

    def adjoint(sinogram: Array) -> Array:
        padded = jnp.pad(sinogram, ((0, 0), (margin, margin)))

        def term(cosine: Array, sine: Array, detectors: Array) -> Array:
            lower, weight = place(cosine, sine)
            return (1 - weight) * detectors[lower] + weight * detectors[lower + 1]

        return accumulate(term, (*_directions(angles, sinogram), padded))

    gram = _gram(apply, adjoint, missing, lambda: spectrum(_cubic_spline, angles, shape))
    return checked(apply, adjoint, gram, tuple(shape), (len(angles), num_detectors))


def parallel_beam_fourier(
    angles: Float[Array, " a"], shape: tuple[int, int], num_detectors: int
) -> LinearOperator:
    """The projection by the Fourier slice theorem: its Gram operator is exactly Toeplitz.

    The transform of a line over the detectors is that of the image along the line's direction,
    summed as it is defined, up to the detectors' band limit. That makes apply and adjoint slow:
    they are for the data, the Gram operator for the loop. The detector is periodic. One that is
    shorter than the image's diagonal is cut out of one that is not, and its Gram operator is
    adjoint after apply.

    Args:
        angles: radians.
        shape: (H, W).
        num_detectors: D.

    Raises:
        ValueError: angles that are not a vector, a shape that is not (H, W), no detector; from its
            functions, arrays of another shape.

    Reference: Bracewell (1956), "Strip integration in radio astronomy"; the Toeplitz Gram
    operator: Fessler, Lee, Olafsson, Shi & Noll (2005).
    """
    angles = jnp.asarray(angles)
    missing = _check(angles, shape, num_detectors)
    period = num_detectors + 2 * missing
    num_waves = (period - 1) // 2 + 1  # without the wave that an even detector cannot resolve

    def waves(cosine: Array, sine: Array) -> tuple[Array, Array, Array, Array]:
        """Cosines and sines of the frequencies (k, 1) at the columns and at the rows."""
        x, y = _coordinates(shape, cosine.dtype)
        k = 2 * jnp.pi / period * jnp.arange(num_waves, dtype=cosine.dtype)[:, None]
        columns, rows = k * cosine * x, k * sine * y
        return jnp.cos(columns), jnp.sin(columns), jnp.cos(rows), jnp.sin(rows)

    def shift(like: Array) -> Array:
        """The phase that moves the first detector to where it is."""
        k = jnp.pi * (period - 1) / period * jnp.arange(num_waves, dtype=like.dtype)
        return lax.complex(jnp.cos(k), -jnp.sin(k))

    def apply(image: Array) -> Array:
        def line(direction: tuple[Array, Array]) -> Array:
            cx, sx, cy, sy = waves(*direction)
            both = matmul(jnp.concatenate([cy, sy]), image)
            c, s = both[:num_waves], both[num_waves:]
            slice_ = lax.complex(jnp.sum(c * cx - s * sx, 1), -jnp.sum(c * sx + s * cx, 1))
            return jnp.fft.irfft(slice_ * shift(image), period)

        lines = lax.map(line, _directions(angles, image))
        return lines[:, missing : missing + num_detectors]

    def adjoint(sinogram: Array) -> Array:
        padded = jnp.pad(sinogram, ((0, 0), (missing, missing)))
        twice = jnp.where(jnp.arange(num_waves) == 0, 1, 2) / period  # each wave and its conjugate

        def term(cosine: Array, sine: Array, detectors: Array) -> Array:
            cx, sx, cy, sy = waves(cosine, sine)
            slice_ = jnp.fft.rfft(detectors)[:num_waves] * shift(sinogram).conj()
            slice_ = (twice.astype(sinogram.dtype) * slice_)[:, None]
            both = [slice_.real * cx - slice_.imag * sx, -slice_.real * sx - slice_.imag * cx]
            return matmul(jnp.concatenate([cy, sy]).T, jnp.concatenate(both))

        return accumulate(term, (*_directions(angles, sinogram), padded))

    def shadow(t: Array) -> Array:
        return _periodic_sinc(t, period)

    gram = _gram(apply, adjoint, missing, lambda: spectrum(shadow, angles, shape))
    return checked(
        lambda image: by_parts(apply, image),
        lambda sinogram: by_parts(adjoint, sinogram),
        lambda image: by_parts(gram, image),
        tuple(shape),
        (len(angles), num_detectors),
    )


def _check(angles: Array, shape: tuple[int, int], num_detectors: int) -> int:
    """How many detectors are missing on each side to cover the diagonal."""
    if angles.ndim != 1 or not len(angles):
        raise ValueError(f"angles must be a vector, got {angles.shape}")
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape must be (H, W), got {shape}")
    if num_detectors < 1:
        raise ValueError(f"num_detectors must be at least 1, got {num_detectors}")
    diagonal = math.hypot(shape[0] - 1, shape[1] - 1) + 1
    return max(0, math.ceil((diagonal - num_detectors) / 2))


def _gram(
    apply: Callable[[Array], Array],
    adjoint: Callable[[Array], Array],
    missing: int,
    transform: Callable[[], Array],
) -> Callable[[Array], Array]:
    """The convolution, unless pixels fall beside the detector: then their difference is not all."""
    if missing:
        return lambda image: adjoint(apply(image))
    kernel = transform()
    return lambda image: convolve(kernel, image)


def _directions(angles: Array, like: Array) -> tuple[Array, Array]:
    dtype = like.real.dtype
    return jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)


def _coordinates(shape: tuple[int, int], dtype) -> tuple[Array, Array]:
    """Of the columns, x, and of the rows, y: from the axis of rotation."""
    height, width = shape
    x = jnp.arange(width, dtype=dtype) - (width - 1) / 2
    return x, (height - 1) / 2 - jnp.arange(height, dtype=dtype)


def _cubic_spline(t: Array) -> Array:
    """The product of two unit hats at the distance t, averaged over where detectors stand."""
    t = jnp.abs(t)
    return jnp.where(t < 1, 2 / 3 - t**2 + t**3 / 2, jnp.maximum(2 - t, 0) ** 3 / 6)


def _periodic_sinc(t: Array, period: int) -> Array:
    """The mean over the detectors of all waves below their band limit."""
    num = 2 * ((period - 1) // 2) + 1
    t = t - period * jnp.round(t / period)
    zero = t == 0
    sine = jnp.sin(jnp.pi * jnp.where(zero, 0.5, t) / period)
    return jnp.where(zero, num / period, jnp.sin(jnp.pi * num * t / period) / (period * sine))
