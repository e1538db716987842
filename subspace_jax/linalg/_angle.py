"""Functions of an angle given by squares of sines and cosines: smooth where the angle is zero."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from subspace_jax.typing import Array

_NUM_TERMS = 10


def root(square: Array, floor: float | Array = 0.0) -> Array:
    """The square root, of a negative number zero; flat, not infinitely steep, up to ``floor``."""
    positive = square > floor
    smooth = jnp.sqrt(jnp.where(positive, square, 1))
    return jnp.where(positive, smooth, jnp.sqrt(jnp.maximum(jax.lax.stop_gradient(square), 0)))


def squared_angle(sine_squared: Array, cosine: Array) -> Array:
    """The square of the angle in [0, pi] with this sine and cosine (to one common factor).

    Accurate at 0, pi/2 and pi, and a smooth function at 0: arctan(sqrt t)^2 with t = tan^2 is
    analytic there. Where the sine is zero and the cosine negative the derivative is left out.
    """
    return _near_or_far(
        sine_squared,
        cosine,
        [(-1) ** n * sum(1 / (2 * j + 1) for j in range(n + 1)) / (n + 1) for n in range(6)],
        lambda t, series, _: t * series,
        lambda theta, _: theta**2,
    )


def angle_over_sine(sine_squared: Array, cosine: Array) -> Array:
    """The ratio theta / sin(theta) of the angle in [0, pi) of `squared_angle`; 0 at pi.

    Smooth at 0, where it is arctan(sqrt t) / sqrt t over the cosine.
    """
    return _near_or_far(
        sine_squared,
        cosine,
        [(-1) ** n / (2 * n + 1) for n in range(6)],
        lambda _, series, cosine: series / cosine,
        lambda theta, sine: jnp.where(sine > 0, theta / jnp.where(sine > 0, sine, 1), 0),
    )


def _near_or_far(
    sine_squared: Array,
    cosine: Array,
    coefficients: list[float],
    near: Callable[[Array, Array, Array], Array],
    far: Callable[[Array, Array], Array],
) -> Array:
    """A power series in tan^2 for small angles, a function of the angle and its sine elsewhere."""
    eps = float(jnp.finfo(sine_squared.dtype).eps)
    # The six terms and the closed form have errors of one size where they meet.
    small = (cosine > 0) & (sine_squared < eps ** (1 / 6) * cosine**2)
    safe = jnp.where(small, cosine, 1)
    t = jnp.where(small, sine_squared, 0) / safe**2
    series = jnp.zeros_like(t)
    for coefficient in reversed(coefficients):
        series = coefficient + t * series
    sine = root(jnp.where(small, 1, sine_squared))
    theta = jnp.atan2(sine, jnp.where(small, 1, cosine))
    return jnp.where(small, near(t, series, safe), far(theta, sine))


def sinc_root(m: Array) -> Array:
    """sin(sqrt m) / sqrt(m), an entire function of m >= 0."""
    small = m < 1
    r = jnp.sqrt(jnp.where(small, 1, m))
    return jnp.where(small, _series(jnp.where(small, m, 0), 1), jnp.sin(r) / r)


def versine_root(m: Array) -> Array:
    """(cos(sqrt m) - 1) / m, an entire function of m >= 0."""
    small = m < 1
    r = jnp.sqrt(jnp.where(small, 1, m))
    closed = -2 * jnp.sin(r / 2) ** 2 / r**2
    return jnp.where(small, -_series(jnp.where(small, m, 0), 2), closed)


def _series(m: Array, offset: int) -> Array:
    """The sum of (-m)^j / (2 j + offset)!."""
    total = jnp.zeros_like(m)
    for j in reversed(range(_NUM_TERMS)):
        total = 1 / math.factorial(2 * j + offset) - m * total
    return total
