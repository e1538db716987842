"""Multigrid V-cycles: of diffusion operators on a grid, and of a hierarchy made by pyamg."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve
from jax.tree_util import Partial

from subspace_jax.linalg import operators
from subspace_jax.linalg._fusion import apart
from subspace_jax.linalg._stencil import Stencil, check_grid
from subspace_jax.typing import Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class RedBlack:
    """One sweep of successive over-relaxation in two colours, from zero: r -> z."""

    operator: Stencil
    """The operator A on the grid."""
    omega: Any
    """Relaxation, 0 < omega < 2."""
    first: int = field(metadata={"static": True})
    """The colour that starts, the parity of the sum of a cell's indices; the other is the sweep
    that starts with its opposite: the transpose."""

    def __call__(self, r: Float[Array, "..."]) -> Float[Array, "..."]:
        """One sweep."""
        check_grid(r, self.operator.diagonal)
        indices = [lax.broadcasted_iota(jnp.int32, r.shape, axis) for axis in range(r.ndim)]
        starts = sum(indices[1:], start=indices[0]) % 2 == self.first
        scale = (self.omega / self.operator.diagonal).astype(r.dtype)
        z = jnp.where(starts, scale * r, 0)
        return jnp.where(starts, z, scale * (r - self.operator(z)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Symmetric:
    """The stationary iteration with a smoother M and then its transpose, from zero: r -> z."""

    operator: Any
    """The operator A."""
    smoother: Any
    """r -> M r."""
    transpose: Any
    """r -> M^T r."""
    num_sweeps: int = field(metadata={"static": True})

    def __call__(self, r: Float[Array, "..."]) -> Float[Array, "..."]:
        """All sweeps."""
        stored = partial(_stored, self.operator)
        z = jnp.zeros_like(r)
        for sweep in range(self.num_sweeps):
            left = stored(lambda z: r - self.operator(z), z) if sweep else r
            z += stored(self.smoother, left)
            z += stored(self.transpose, stored(lambda z: r - self.operator(z), z))
        return z


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Level:
    """One level of a V-cycle."""

    operator: Any
    """v -> A v."""
    smoother: Any
    """r -> M r, before the coarse correction."""
    transpose: Any
    """r -> M^T r, after it."""
    restrict: Any
    """To the next coarser level; the transpose of ``prolong``."""
    prolong: Any
    """From the next coarser level."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class VCycle:
    """One V-cycle from zero: r -> z, symmetric positive definite if each smoother converges."""

    levels: tuple[Level, ...]
    """The finest first."""
    coarsest: Any
    """r -> A^{-1} r on the coarsest grid."""

    def __call__(self, r: Float[Array, "..."]) -> Float[Array, "..."]:
        """One cycle."""
        return _cycle(self.levels, self.coarsest, r)


def _cycle(levels: tuple[Level, ...], coarsest: Any, r: Array) -> Array:
    if not levels:
        return coarsest(r)
    level, stored = levels[0], partial(_stored, levels[0].operator)
    z = stored(level.smoother, r)
    coarse = stored(level.restrict, stored(lambda z: r - level.operator(z), z))
    z += stored(level.prolong, _cycle(levels[1:], coarsest, coarse))
    return z + stored(level.transpose, stored(lambda z: r - level.operator(z), z))


def _stored(operator: Any, stage: Callable[[Array], Array], x: Array) -> Array:
    """``stage(x)``, stored: XLA would recompute one stage of a cycle in the next.

    That makes a cycle on 512 x 512 cells 25 times slower on CPU.
    """
    entries = (a for a in jax.tree.leaves(operator) if jnp.issubdtype(a.dtype, jnp.inexact))
    return apart(stage, x, next(entries))


def multigrid(operator: Stencil, *, coarsest_size: int = 64) -> VCycle:
    """A geometric multigrid V-cycle r -> z for a `linalg.operators.diffusion`, any rank and shape.

    Cells are joined two by two, one axis after the other. Along a line of cells a coarse face is
    the series of the conductances between the centres of its cells, and a correction is
    interpolated with the flux that they let through (so that jumps are seen); side by side, lines
    add up. The smoother is red-black Gauss-Seidel, reversed after the correction, so that the
    cycle is symmetric positive definite; the coarsest grid is solved by Cholesky. For the
    Laplacian take ``diffusion(jnp.ones(shape))``. Meant for spacings of about one size.

    Args:
        operator: the diffusion operator; it may be traced.
        coarsest_size: the most cells that are solved directly.

    Raises:
        ValueError: the operator is not a `Stencil`.

    Reference: Trottenberg, Oosterlee & Schüller (2001), sections 2.8.4 and 7.7.
    """
    check_stencil("multigrid", operator)
    grid, levels = _grid(operator), []
    while operator.diagonal.size > coarsest_size:
        grid, prolong, coarse = _coarsen(grid)
        forward, backward = (RedBlack(operator, 1.0, first) for first in (0, 1))
        restrict = Partial(_restrict, prolong)
        levels.append(Level(operator, forward, backward, restrict, prolong))
        operator = coarse
    like = jax.ShapeDtypeStruct(operator.diagonal.shape, operator.diagonal.dtype)
    factor = cho_factor(operators.materialize(operator, like))[0]
    return VCycle(tuple(levels), Partial(_dense_solve, factor))


def check_stencil(name: str, operator: Any) -> None:
    """Return if ``operator`` is a symmetric grid operator.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(operator, Stencil):
        kind = type(operator).__name__
        raise ValueError(f"{name} needs an operator from linalg.operators.diffusion, got {kind}")


class _Grid(NamedTuple):
    """Conductances of the faces, and to the zero outside, along each axis; where the domain is."""

    faces: tuple[Array, ...]
    walls: tuple[Array, ...]
    inside: Array


@jax.jit
def _grid(operator: Stencil) -> _Grid:
    """The grid of a stencil: its walls share the diagonal's excess over the faces."""
    inside = operator.mask
    if inside is None:
        inside = jnp.ones(operator.diagonal.shape, bool)
    excess = operator.diagonal - sum(_sides(face, axis) for axis, face in enumerate(operator.faces))
    walls = [_sides(face == 0, axis) for axis, face in enumerate(operator.faces)]
    share = jnp.where(inside, excess, 0) / jnp.maximum(sum(walls), 1)
    return _Grid(operator.faces, tuple(share * wall for wall in walls), inside)


def _stencil(grid: _Grid) -> Stencil:
    faces = sum(_sides(face, axis) for axis, face in enumerate(grid.faces))
    diagonal = jnp.where(grid.inside, faces + sum(grid.walls), 1)
    return Stencil(diagonal, grid.faces, grid.inside)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _Interpolation:
    """From the coarse grid to the fine one, the last axis first."""

    own: tuple[Any, ...]
    """For each axis the weights (..., m, 2, ...) of a fine cell's own coarse cell."""
    neighbour: tuple[Any, ...]
    """Those of the coarse cell next to it, on its side."""
    shape: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, v: Array) -> Array:
        for axis in reversed(range(v.ndim)):
            if self.shape[axis] > 1:
                ends = jnp.pad(v, _at(axis, v.ndim, (1, 1)))
                m = v.shape[axis]
                sides = [lax.slice_in_dim(ends, i, i + m, axis=axis) for i in (0, 2)]
                fine = self.own[axis] * jnp.expand_dims(v, axis + 1)
                fine += self.neighbour[axis] * jnp.stack(sides, axis + 1)
                v = lax.slice_in_dim(_unpair(fine, axis), 0, self.shape[axis], axis=axis)
        return v


def _restrict(prolong: _Interpolation, r: Array) -> Array:
    shape = tuple((n + 1) // 2 for n in prolong.shape)
    return jax.linear_transpose(prolong, jax.ShapeDtypeStruct(shape, r.dtype))(r)[0]


@jax.jit  # one compilation a level rather than one an operation
def _coarsen(grid: _Grid) -> tuple[_Grid, _Interpolation, Stencil]:
    """The grid of cells joined two by two along each axis of more than one cell."""
    own, neighbour, shape = [], [], grid.inside.shape
    for axis in range(len(shape)):
        grid, weights = _coarsen_axis(grid, axis)
        own.append(weights[0])
        neighbour.append(weights[1])
    return grid, _Interpolation(tuple(own), tuple(neighbour), shape), _stencil(grid)


def _coarsen_axis(grid: _Grid, axis: int) -> tuple[_Grid, tuple[Array, Array]]:
    """Cells joined along one axis, and the weights of the interpolation back.

    A pair's centre lies half the resistance of its inner face away from either of its cells.
    """
    if grid.inside.shape[axis] == 1:
        return grid, (jnp.ones(()), jnp.zeros(()))
    rank, face = grid.inside.ndim, grid.faces[axis]
    resistance = _pair(_inverse(face), axis)
    wall, inside = _pair(grid.walls[axis], axis), _pair(grid.inside, axis)
    m = wall.shape[axis]
    below, inner = (lax.index_in_dim(resistance, i, axis + 1, keepdims=False) for i in (0, 1))
    half = lax.slice_in_dim(inner, 0, m, axis=axis) / 2
    between = lax.slice_in_dim(below, 1, m, axis=axis)
    left, right = (lax.slice_in_dim(half, i, m - 1 + i, axis=axis) for i in (0, 1))
    left, right = (jnp.where(between > 0, between + side, 0) for side in (left, right))
    series = left + right - between
    # From each cell to the centre of the pair next to it on its side; zero where there is none.
    ways = [jnp.pad(way, _at(axis, rank, pad)) for way, pad in ((left, (1, 0)), (right, (0, 1)))]
    away, half = jnp.stack(ways, axis + 1), jnp.expand_dims(half, axis + 1)
    share = _inverse(away + half)
    own = jnp.where(away > 0, away * share, 1 / (1 + wall * half))
    neighbour = jnp.where(away > 0, half * share, 0)
    faces = [_pair(f, axis).sum(axis + 1) for f in grid.faces]
    faces[axis] = jnp.pad(_inverse(series), _at(axis, rank, (1, 1)))
    walls = [_pair(w, axis).sum(axis + 1) for w in grid.walls]
    walls[axis] = (wall / (1 + wall * half)).sum(axis + 1)
    coarse = _Grid(tuple(faces), tuple(walls), inside.any(axis + 1))
    return coarse, (jnp.where(inside, own, 0), jnp.where(inside, neighbour, 0))


def _inverse(x: Array) -> Array:
    """1 / x, and zero where there is nothing to invert."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def _at(axis: int, rank: int, pads: tuple[int, int]) -> list[tuple[int, int]]:
    return [pads if i == axis else (0, 0) for i in range(rank)]


def _pair(x: Array, axis: int) -> Array:
    """(..., n, ...) -> (..., ceil(n / 2), 2, ...), padded with zero."""
    x = jnp.pad(x, _at(axis, x.ndim, (0, x.shape[axis] % 2)))
    return x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])


def _unpair(x: Array, axis: int) -> Array:
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _sides(face: Array, axis: int) -> Array:
    """The sum of the two faces of each cell along one axis."""
    n = face.shape[axis] - 1
    low, high = (lax.slice_in_dim(face, i, n + i, axis=axis) for i in (0, 1))
    return jnp.add(low, high) if face.dtype != bool else low.astype(int) + high


def _dense_solve(factor: Array, r: Array) -> Array:
    solution = cho_solve((factor.astype(r.dtype), False), jnp.ravel(r))
    return solution.reshape(r.shape)
