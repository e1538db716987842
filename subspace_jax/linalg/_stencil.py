"""Grid operators: the Laplacian, diffusion and convection, one cell and its 2 d neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from subspace_jax.typing import Array, Float, Inexact


def laplacian(
    v: Inexact[Array, "..."], *, spacing: float | Sequence[float] = 1.0
) -> Inexact[Array, "..."]:
    """Minus the Laplacian of ``v`` on a grid of any rank, zero outside: positive definite.

    Args:
        v: values on the grid.
        spacing: distance of neighbours, one number or one per axis.

    Raises:
        ValueError: not one spacing per axis.
    """
    weights = [h**-2 for h in _spacings(spacing, v.ndim)]

    def product(v):
        ends = _framed(v)
        neighbours = sum(
            w * (_shifted(ends, axis, 0) + _shifted(ends, axis, 2))
            for axis, w in enumerate(weights)
        )
        return 2 * sum(weights) * v + neighbours

    return _placed_like(v, product, v)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Stencil:
    """The symmetric operator (A u)_i = diagonal_i u_i - sum over neighbours j of face_ij u_j."""

    diagonal: Any
    """The diagonal, of the grid's shape."""
    faces: tuple[Any, ...]
    """Couplings of neighbours along each axis: of the grid's shape but one longer in that axis,
    entry i between the cells i - 1 and i, zero at both ends."""
    mask: Any = None
    """True where the domain is, or None: everywhere. Cells outside are coupled to none."""

    def __call__(self, u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """The product A u."""
        check_grid(u, self.diagonal)
        return _placed_like(u, Stencil._product, self, u)

    def _product(self, u: Array) -> Array:
        ends = _framed(u)
        out = self.diagonal * u
        for axis, face in enumerate(self.faces):
            out += _lower(face, axis) * _shifted(ends, axis, 0)
            out += _upper(face, axis) * _shifted(ends, axis, 2)
        return out


def diffusion(
    coefficient: Float[Array, "..."],
    *,
    mask: Array | None = None,
    spacing: float | Sequence[float] = 1.0,
) -> Stencil:
    """The operator u -> -div(c grad u) in finite volumes, zero outside: positive definite.

    A face carries the harmonic mean of its two cells' coefficients. The zero lies one spacing away
    from the last cell, so that ``diffusion(ones)`` equals `laplacian`. Entries outside the mask
    are decoupled, with a diagonal of the domain's mean size. Differentiable in ``coefficient``.

    Args:
        coefficient: c > 0 on a grid of any rank.
        mask: bool, True where the domain is; the solution is zero elsewhere.
        spacing: distance of neighbours, one number or one per axis.

    Raises:
        ValueError: the mask is not bool of the grid's shape, or not one spacing per axis.

    Reference: Patankar (1980), section 4.2-3 (the harmonic mean at a face).
    """
    if mask is not None and (mask.shape != coefficient.shape or mask.dtype != bool):
        wanted = f"a bool array of shape {coefficient.shape}"
        raise ValueError(f"mask must be {wanted}, got {mask.dtype} {mask.shape}")
    inside = jnp.ones(coefficient.shape, bool) if mask is None else mask
    size = jnp.sum(inside).astype(coefficient.dtype)
    total = jnp.sum(jnp.where(inside, coefficient, 0))
    mean = jnp.where(size > 0, total / jnp.maximum(size, 1), 1)
    c = jnp.where(inside, coefficient, mean)
    diagonal, faces = jnp.zeros_like(c), []
    for axis, h in enumerate(_spacings(spacing, c.ndim)):
        face, coupling = _harmonic_faces(c, inside, axis)
        diagonal += (_lower(face, axis) + _upper(face, axis)) / h**2
        faces.append(coupling / h**2)
    outside = 2 * mean * sum(h**-2 for h in _spacings(spacing, c.ndim))
    return Stencil(jnp.where(inside, diagonal, outside), tuple(faces), mask)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Convection:
    """The operator ``diffusion`` plus first-order upwind differences with a constant velocity."""

    diffusion: Stencil
    """The symmetric part."""
    forward: tuple[Any, ...]
    """max(velocity, 0) / spacing along each axis."""
    backward: tuple[Any, ...]
    """max(-velocity, 0) / spacing along each axis."""

    @property
    def diagonal(self) -> Array:
        """The diagonal, of the grid's shape."""
        return self.diffusion.diagonal + sum(self.forward) + sum(self.backward)

    def __call__(self, u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """The product A u."""
        return _placed_like(u, Convection._product, self, u)

    def _product(self, u: Array) -> Array:
        ends = _framed(u)
        out = self.diffusion(u)
        for axis, (a, b) in enumerate(zip(self.forward, self.backward, strict=True)):
            out += a * (u + _shifted(ends, axis, 0)) + b * (u + _shifted(ends, axis, 2))
        return out


def convection_diffusion(
    coefficient: Float[Array, "..."],
    velocity: Sequence[float] | Float[Array, " d"],
    *,
    spacing: float | Sequence[float] = 1.0,
) -> Convection:
    """The operator u -> -div(c grad u) + velocity . grad u, upwind, zero outside: nonsymmetric.

    Args:
        coefficient: c > 0 on a grid of any rank, as in `diffusion`.
        velocity: one number per axis.
        spacing: distance of neighbours, one number or one per axis.

    Raises:
        ValueError: not one velocity, or not one spacing, per axis.

    Reference: Patankar (1980), section 5.2-3 (the upwind scheme).
    """
    if len(velocity) != coefficient.ndim:
        raise ValueError(
            f"need one velocity per axis of {coefficient.shape}, got {len(velocity)} numbers"
        )
    v = [jnp.asarray(a, coefficient.dtype) for a in velocity]
    spacings = _spacings(spacing, coefficient.ndim)
    return Convection(
        diffusion(coefficient, spacing=spacing),
        tuple(jnp.maximum(a, 0) / h for a, h in zip(v, spacings, strict=True)),
        tuple(jnp.maximum(-a, 0) / h for a, h in zip(v, spacings, strict=True)),
    )


def diagonal(operator: Stencil | Convection) -> Float[Array, "..."]:
    """The diagonal of a grid operator, of the grid's shape."""
    return operator.diagonal


def check_grid(u: Array, grid: Array) -> None:
    """Return if ``u`` has the grid's shape.

    Raises:
        ValueError: names both shapes.
    """
    if u.shape != grid.shape:
        raise ValueError(f"an operator on the grid {grid.shape} got values of shape {u.shape}")


def _harmonic_faces(c: Array, inside: Array, axis: int) -> tuple[Array, Array]:
    """The conductances of all faces along one axis, and of those that couple two cells."""
    both = [(0, 0)] * c.ndim
    both[axis] = (1, 1)
    c, inside = jnp.pad(c, both, mode="edge"), jnp.pad(inside, both)
    n = c.shape[axis]
    a, b = (lax.slice_in_dim(c, i, n - 1 + i, axis=axis) for i in (0, 1))
    left, right = (lax.slice_in_dim(inside, i, n - 1 + i, axis=axis) for i in (0, 1))
    total = jnp.where(a + b > 0, a + b, 1)
    # The domain ends at a face with one cell inside: that cell's coefficient alone.
    face = jnp.where(left == right, 2 * a * b / total, jnp.where(left, a, b))
    return face, jnp.where(left & right, face, 0)


def _spacings(spacing: float | Sequence[float], rank: int) -> tuple[float, ...]:
    spacings = tuple(spacing) if isinstance(spacing, Sequence) else (spacing,) * rank
    if len(spacings) != rank:
        raise ValueError(f"need one spacing per axis, {rank}, got {len(spacings)}")
    return spacings


def _placed_like(u: Array, product: Callable[..., Array], *operands: Any) -> Array:
    """``product(*operands)``, on a mesh with explicit axes over the same devices as ``u``.

    JAX has no pad of an axis whose sharding is part of the type: there XLA places the parts.
    """
    spec = jax.typeof(u).sharding.spec
    if not any(spec):
        return product(*operands)
    placed: Any = jax.sharding.auto_axes(product, out_sharding=spec)
    return placed(*operands)


def _framed(u: Array) -> Array:
    """The grid -u with a frame of zeros, one cell wide."""
    # With its sign: a pad that XLA fuses with what makes its operand takes half the time on a CPU
    # of one that only copies.
    return jnp.pad(-u, 1)


def _shifted(ends: Array, axis: int, start: int) -> Array:
    """The grid without its one-cell frame ``ends``, moved by ``start`` - 1 along the axis."""
    starts = [start if i == axis else 1 for i in range(ends.ndim)]
    stops = [begin + n - 2 for begin, n in zip(starts, ends.shape, strict=True)]
    return lax.slice(ends, starts, stops)


def _lower(face: Array, axis: int) -> Array:
    return lax.slice_in_dim(face, 0, face.shape[axis] - 1, axis=axis)


def _upper(face: Array, axis: int) -> Array:
    return lax.slice_in_dim(face, 1, face.shape[axis], axis=axis)
