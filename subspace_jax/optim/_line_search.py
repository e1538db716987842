"""A step length along a curve that satisfies the strong Wolfe conditions."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.typing import Array

_DECREASE, _CURVATURE = 1e-4, 0.4
_MAX_EVALUATIONS = 25


class Search(NamedTuple):
    """Where a line search ended."""

    step: Array
    found: Array
    """bool: the conditions hold there; else ``step`` is the best that went down, or zero."""
    num_evaluations: Array


class _Bracket(NamedTuple):
    step: Array
    low: Array
    """Known to go down, with a slope that goes on doing so; its value and slope."""
    low_value: Array
    low_slope: Array
    high: Array
    """Known to be too far; infinity at first."""
    high_slope: Array
    done: Array
    num_evaluations: Array


def strong_wolfe(
    curve: Callable[[Array], tuple[Array, Array]], value: Array, slope: Array, first: Array
) -> Search:
    """A step t with enough decrease and |slope(t)| <= 0.4 |slope(0)|.

    Near a minimum, where the decrease drowns in rounding, its condition is replaced by one on
    slopes.

    Args:
        curve: t -> value and slope there.
        value: at zero.
        slope: at zero, negative.
        first: the step tried first.

    Reference: Hager & Zhang (2005), "A new conjugate gradient method with guaranteed descent and an
    efficient line search", section 4.
    """
    noise = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)

    def unfinished(b):
        return ~b.done & (b.num_evaluations < _MAX_EVALUATIONS)

    def body(b):
        t = b.step
        here, rise = curve(t)
        down = here <= value + _DECREASE * t * slope
        approximately = (here <= value + noise) & (rise <= (2 * _DECREASE - 1) * slope)
        enough = (down | approximately) & jnp.isfinite(here)
        done = enough & (jnp.abs(rise) <= _CURVATURE * jnp.abs(slope))
        beyond = ~enough | (rise >= 0)
        low = jnp.where(beyond & ~done, b.low, t)
        low_value = jnp.where(beyond & ~done, b.low_value, here)
        low_slope = jnp.where(beyond & ~done, b.low_slope, rise)
        high = jnp.where(beyond, t, b.high)
        high_slope = jnp.where(beyond, jnp.where(enough, rise, jnp.nan), b.high_slope)
        step = _next(low, low_slope, high, high_slope)
        return _Bracket(
            step, low, low_value, low_slope, high, high_slope, done, b.num_evaluations + 1
        )

    zero, infinite = jnp.zeros_like(value), jnp.full_like(value, jnp.inf)
    start = _Bracket(first, zero, value, slope, infinite, infinite, jnp.array(False), jnp.int32(0))
    end = jax.lax.while_loop(unfinished, body, start)
    return Search(end.low, end.done, end.num_evaluations)


def _next(low: Array, low_slope: Array, high: Array, high_slope: Array) -> Array:
    """Four times as far without an upper end; else the secant's root, kept off both ends."""
    width = high - low
    secant = low - low_slope * width / (high_slope - low_slope)
    inside = jnp.clip(secant, low + 0.1 * width, high - 0.1 * width)
    usable = jnp.isfinite(secant) & (high_slope > 0)
    between = jnp.where(usable, inside, low + 0.5 * width)
    return jnp.where(jnp.isfinite(high), between, jnp.where(low > 0, 4 * low, 1))
