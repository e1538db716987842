"""Gram operators of parallel-beam projections: sums of differences, hence convolutions.

Where a line sees two pixels by a function of the difference of their shadows alone, A^H A is the
convolution with the back-projection of that function: two real transforms of twice the image's
size, whatever the number of angles.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from subspace_jax.typing import Array, Float, Inexact


def spectrum(
    shadow: Callable[[Array], Array], angles: Float[Array, " a"], shape: tuple[int, int]
) -> Float[Array, "h2 w2"]:
    """The transform of the sum over angles of ``shadow`` of all differences of two pixels.

    Args:
        shadow: an even function of the difference of two shadows on the detector.
        angles: radians.
        shape: (H, W) of the image.
    """
    rows, columns = (jnp.fft.fftfreq(2 * n, 1 / (2 * n)).astype(angles.dtype) for n in shape)

    def term(cosine: Array, sine: Array) -> Array:
        return shadow(columns * cosine - rows[:, None] * sine)

    kernel = accumulate(term, (jnp.cos(angles), jnp.sin(angles)))
    # Even but for differences of a whole H or W, which no two pixels have.
    return jnp.fft.rfft2(kernel).real


def convolve(spectrum: Float[Array, "h2 w2"], x: Inexact[Array, "h w"]) -> Inexact[Array, "h w"]:
    """The convolution of an image with the real kernel of that transform."""
    size = (2 * x.shape[0], 2 * x.shape[1])

    def real(x: Array) -> Array:
        transformed = spectrum.astype(x.dtype) * jnp.fft.rfft2(x, size)
        return jnp.fft.irfft2(transformed, size)[: x.shape[0], : x.shape[1]]

    return by_parts(real, x)


def by_parts(function: Callable[[Array], Array], x: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """A real linear function of the real and of the imaginary part, if there is one."""
    if jnp.iscomplexobj(x):
        return lax.complex(function(x.real), function(x.imag))
    return function(x)


def accumulate(term: Callable[..., Array], operands: Any) -> Array:
    """The sum of a function over the leading axis of its operands, one after the other."""
    first = jax.eval_shape(term, *(operand[0] for operand in operands))
    zero = jnp.zeros(first.shape, first.dtype)
    return lax.scan(lambda total, each: (total + term(*each), None), zero, operands)[0]
