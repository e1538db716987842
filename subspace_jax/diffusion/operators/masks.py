"""Which points of k-space are measured: masks with a fully sampled centre.

Functions of the host, each a function of its seed. True is what is measured, and zero frequency
lies at index n // 2. `acceleration` says what a mask really costs, its centre included.
"""

import math

import jax.numpy as jnp
import numpy as np

from subspace_jax.typing import Array, Bool

__all__ = [
    "acceleration",
    "equispaced",
    "gaussian",
    "gaussian2d",
    "poisson_disc",
    "radial",
    "uniform",
]


def acceleration(mask: Bool[Array, "..."]) -> float:
    """All points over those measured.

    Raises:
        ValueError: a mask that measures nothing.
    """
    if not (count := int(np.count_nonzero(mask))):
        raise ValueError(f"the mask of shape {mask.shape} measures nothing")
    return mask.size / count


def uniform(
    seed: int, width: int, *, acceleration: float, num_center: int = 0
) -> Bool[Array, " width"]:
    """Lines drawn with equal chances, round(width / acceleration) with those of the centre.

    Args:
        seed: of the draw.
        width: how many lines there are.
        acceleration: all lines over those measured.
        num_center: measured lines about zero frequency.

    Raises:
        ValueError: an acceleration below one, a centre that is wider than all that is measured.
    """
    return _likeliest((width,), acceleration, (num_center,), _gumbel(seed, (width,)))


def equispaced(
    seed: int, width: int, *, acceleration: float, num_center: int = 0
) -> Bool[Array, " width"]:
    """Lines at equal distances, as far as integers allow, counted outside of the centre.

    Args:
        seed: of the first line.
        width: how many lines there are.
        acceleration: all lines over those measured.
        num_center: measured lines about zero frequency.

    Raises:
        ValueError: an acceleration below one, a centre that is wider than all that is measured.
    """
    mask, remaining = _start((width,), acceleration, (num_center,))
    outside = np.flatnonzero(~mask)
    if remaining:
        steps = np.arange(remaining) + np.random.default_rng(seed).uniform()
        mask[outside[np.floor(steps * len(outside) / remaining).astype(int)]] = True
    return jnp.asarray(mask)


def gaussian(
    seed: int, width: int, *, acceleration: float, num_center: int = 0, deviation: float = 1 / 6
) -> Bool[Array, " width"]:
    """Lines drawn with chances that fall off like a Gaussian from zero frequency.

    Args:
        seed: of the draw.
        width: how many lines there are.
        acceleration: all lines over those measured.
        num_center: measured lines about zero frequency.
        deviation: standard deviation, as a part of the width.

    Raises:
        ValueError: an acceleration below one, a centre that is wider than all that is measured,
            a deviation that is not positive.
    """
    keys = _log_gaussian((width,), deviation) + _gumbel(seed, (width,))
    return _likeliest((width,), acceleration, (num_center,), keys)


def gaussian2d(
    seed: int,
    shape: tuple[int, int],
    *,
    acceleration: float,
    num_center: tuple[int, int] = (0, 0),
    deviation: float = 1 / 6,
) -> Bool[Array, "h w"]:
    """Points drawn with chances that fall off like a Gaussian from zero frequency.

    Args:
        seed: of the draw.
        shape: (H, W).
        acceleration: all points over those measured.
        num_center: measured rows and columns of the block about zero frequency.
        deviation: standard deviation, as a part of height and width.

    Raises:
        ValueError: an acceleration below one, a centre that is larger than all that is measured,
            a deviation that is not positive.
    """
    keys = _log_gaussian(shape, deviation) + _gumbel(seed, shape)
    return _likeliest(shape, acceleration, num_center, keys)


def poisson_disc(
    seed: int,
    shape: tuple[int, int],
    *,
    acceleration: float,
    num_center: tuple[int, int] = (0, 0),
    growth: float = 1.0,
) -> Bool[Array, "h w"]:
    """Points that keep a distance, and so many that no point more could keep it.

    Each point keeps later ones off a disc of radius s (1 + growth rho), rho from 0 at zero
    frequency to 1 in the middle of an edge, and s such that the acceleration is as near as 16
    bisections get: with growth zero there are few distances on a grid, and it may be some way off.

    Args:
        seed: of the order in which points are tried.
        shape: (H, W).
        acceleration: about all points over those measured.
        num_center: measured rows and columns of the block about zero frequency.
        growth: of the distance towards the edge.

    Raises:
        ValueError: an acceleration below one, a centre that is larger than all that is measured,
            a negative growth.

    Reference: Cook (1986), "Stochastic sampling in computer graphics"; Bridson (2007).
    """
    if growth < 0:
        raise ValueError(f"growth must be >= 0, got {growth}")
    center, remaining = _start(shape, acceleration, num_center)
    order = np.random.default_rng(seed).permutation(center.size).tolist()
    distance = 1 + growth * np.linalg.norm(_frequencies(shape, 0.5), axis=0)
    low, high, best = 0.0, float(max(shape)), center
    for _ in range(16):
        middle = (low + high) / 2
        mask = _throw_darts(order, middle * distance, center)
        if abs(mask.sum() - center.sum() - remaining) < abs(best.sum() - center.sum() - remaining):
            best = mask
        too_many = mask.sum() - center.sum() > remaining
        low, high = (middle, high) if too_many else (low, middle)
    return jnp.asarray(best)


def radial(num_spokes: int, shape: tuple[int, int]) -> Bool[Array, "h w"]:
    """The grid points nearest to spokes through zero frequency, at equal angles from the rows on.

    Raises:
        ValueError: fewer than one spoke, a shape that is not (H, W).
    """
    if num_spokes < 1 or len(shape) != 2:
        raise ValueError(f"expected at least 1 spoke and (H, W), got {num_spokes} and {shape}")
    angles = np.pi * np.arange(num_spokes)[:, None] / num_spokes
    # Half steps, so that no point that a spoke passes is left out between two of them.
    along = np.arange(-sum(shape), sum(shape) + 1) / 2
    rows = np.rint(along * np.sin(angles)).astype(int) + shape[0] // 2
    columns = np.rint(along * np.cos(angles)).astype(int) + shape[1] // 2
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    mask = np.zeros(shape, bool)
    mask[rows[inside], columns[inside]] = True
    return jnp.asarray(mask)


def _start(shape: tuple[int, ...], acceleration: float, num_center: tuple[int, ...]):
    """A mask of the centre alone, and how many points more there are to be."""
    if not acceleration >= 1:
        raise ValueError(f"acceleration must be >= 1, got {acceleration}")
    if len(num_center) != len(shape) or not all(
        0 <= k <= n for k, n in zip(num_center, shape, strict=True)
    ):
        raise ValueError(f"num_center must lie between 0 and {shape}, got {num_center}")
    mask, total = np.zeros(shape, bool), round(math.prod(shape) / acceleration)
    mask[
        tuple(
            slice(n // 2 - k // 2, n // 2 - k // 2 + k)
            for n, k in zip(shape, num_center, strict=True)
        )
    ] = True
    if mask.sum() > total:
        raise ValueError(f"num_center is {num_center}, but only {total} of {shape} are measured")
    return mask, total - int(mask.sum())


def _likeliest(
    shape: tuple[int, ...], acceleration: float, num_center: tuple[int, ...], keys: np.ndarray
) -> Array:
    """The centre and the points of the greatest keys: log chances plus Gumbel noise."""
    mask, remaining = _start(shape, acceleration, num_center)
    order = np.argsort(np.where(mask, -np.inf, keys), axis=None)[::-1]
    mask.flat[order[:remaining]] = True
    return jnp.asarray(mask)


def _gumbel(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).gumbel(size=shape)


def _log_gaussian(shape: tuple[int, ...], deviation: float) -> np.ndarray:
    if not deviation > 0:
        raise ValueError(f"deviation must be > 0, got {deviation}")
    return -np.sum(np.square(_frequencies(shape, deviation)), axis=0) / 2


def _frequencies(shape: tuple[int, ...], unit: float):
    """Distance from zero frequency along each axis, in units of a part of its length."""
    axes = [(np.arange(n) - n // 2) / (unit * n) for n in shape]
    return np.meshgrid(*axes, indexing="ij")


def _throw_darts(order: list[int], distance: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Points taken in that order, unless one before keeps them off its disc."""
    height, width = center.shape
    taken, blocked = center.copy(), center.copy()
    for index in order:
        i, j = divmod(index, width)
        if blocked[i, j]:
            continue
        taken[i, j], radius = True, distance[i, j]
        reach = math.floor(radius)
        rows = slice(max(i - reach, 0), min(i + reach + 1, height))
        columns = slice(max(j - reach, 0), min(j + reach + 1, width))
        y, x = np.ogrid[rows, columns]
        blocked[rows, columns] |= (y - i) ** 2 + (x - j) ** 2 <= radius**2
    return taken
