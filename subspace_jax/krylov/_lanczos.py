"""Krylov factorizations with full reorthogonalisation: Lanczos, Arnoldi, Golub-Kahan."""

from typing import NamedTuple

import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import normalized
from subspace_jax.krylov._basis import (
    Flat,
    check_num_steps,
    flat_map,
    in_sections,
    orthogonalize,
    rectangular,
    start_vector,
)
from subspace_jax.typing import Array, LinearMap, PyTree


class Factorization(NamedTuple):
    """A Q = Q H + residual e_m^T, with orthonormal columns of Q spanning a Krylov space."""

    Q: PyTree
    """m columns on the last axis of every leaf, (n, m) for arrays; zero past ``num_steps``."""
    H: Array
    """(m, m), upper Hessenberg; of `lanczos` real, symmetric, tridiagonal."""
    residual: PyTree
    """A vector orthogonal to Q."""
    num_steps: Array
    """int32, less than m if the space is invariant under A; H is zero past it."""


class Bidiagonalization(NamedTuple):
    """A V = U B and A^H U = V B^H + residual e_m^T, with orthonormal columns of U and V."""

    U: PyTree
    """m columns on the last axis of every leaf; zero past ``num_steps``."""
    B: Array
    """(m, m), real, upper bidiagonal."""
    V: PyTree
    """As U, in the domain of A."""
    residual: PyTree
    """A vector of the domain, orthogonal to V."""
    num_steps: Array
    """int32, less than m if the spaces are invariant."""


class Rows(NamedTuple):
    """A basis as the rows of blocks, and the projection onto it."""

    blocks: tuple[Array, ...]
    H: Array
    residual: Array
    num_steps: Array


def lanczos(A: LinearMap, v0: PyTree, num_steps: int) -> Factorization:
    """The orthonormal basis of a Hermitian A's Krylov space in which A is tridiagonal.

    Every vector is orthogonalised against all before it, twice where once does not do. A fixed
    number of steps, with exact derivatives (reverse mode stores a block of the basis a step).

    Args:
        A: Hermitian, see `cg`.
        v0: where the space starts, any pytree.
        num_steps: products with A, 1 <= num_steps <= n.

    Returns:
        `Factorization`: Q, H, residual, num_steps.

    Raises:
        ValueError: not a linear map on the space of ``v0``, or ``num_steps`` out of bounds.

    Reference: Lanczos (1950); Parlett (1998), chapter 13.
    """
    return _factorization(A, v0, num_steps, lanczos_rows)


def arnoldi(A: LinearMap, v0: PyTree, num_steps: int) -> Factorization:
    """The orthonormal basis of a general A's Krylov space in which A is upper Hessenberg.

    Arguments, results, errors and derivatives as in `lanczos`; A is any square linear map.

    Reference: Arnoldi (1951); Saad (2003), section 6.3.
    """
    return _factorization(A, v0, num_steps, arnoldi_rows)


def _factorization(A, v0, num_steps, rows) -> Factorization:
    apply = flat_map("A", A, v0)
    start = start_vector("v0", v0)
    done = rows(apply, start.x, check_num_steps(num_steps, start.x.size))
    Q = start.columns(jnp.concatenate(done.blocks))
    return Factorization(Q, done.H, start.unravel(done.residual), done.num_steps)


def lanczos_rows(apply: Flat, x: Array, num_steps: int) -> Rows:
    """`lanczos` on flat vectors; H is real."""

    def step(done, carry, j):
        (V,), (v, previous, beta) = carry
        V = V.at[j].set(v)
        w = apply(v)
        size = tree.norm(w)
        w = w - beta * previous  # the three terms first: one pass does for their rounding
        alpha = tree.vdot(v, w).real
        h, after, next_beta, _ = orthogonalize((*done[0], V), w - alpha * v, size)
        alpha = alpha + h[sum(map(len, done[0])) + j].real
        return ((V,), (after, v, next_beta)), (alpha, next_beta, jnp.any(v != 0))

    norm = tree.norm(x)
    carry = (normalized(x, norm), jnp.zeros_like(x), jnp.zeros_like(norm))
    (v, _, beta), (blocks,), (alphas, betas, live) = in_sections(
        step, carry, ((x.size, x.dtype),), num_steps
    )
    T = jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    return Rows(blocks, T, beta * v, jnp.sum(live, dtype=jnp.int32))


def arnoldi_rows(apply: Flat, x: Array, num_steps: int) -> Rows:
    """`arnoldi` on flat vectors."""

    def step(done, carry, j):
        (V,), (v, _) = carry
        V = V.at[j].set(v)
        w = apply(v)
        h, after, norm, _ = orthogonalize((*done[0], V), w, tree.norm(w))
        return ((V,), (after, norm)), (h, norm, jnp.any(v != 0))

    norm = tree.norm(x)
    carry = (normalized(x, norm), jnp.zeros_like(norm))
    (v, norm), (blocks,), (h, norms, live) = in_sections(
        step, carry, ((x.size, x.dtype),), num_steps
    )
    H = h.T + jnp.diag(norms[:-1].astype(h.dtype), -1)
    return Rows(blocks, H, norm * v, jnp.sum(live, dtype=jnp.int32))


def golub_kahan(A: LinearMap, AT: LinearMap, v0: PyTree, num_steps: int) -> Bidiagonalization:
    """The orthonormal bases of two Krylov spaces in which a rectangular A is upper bidiagonal.

    Args:
        A: any linear map: a callable on any pytree, or anything with ``@``.
        AT: its adjoint A^H.
        v0: where the space starts, in the domain of A.
        num_steps: products with A and with ``AT`` each, 1 <= num_steps <= the smaller dimension.

    Returns:
        `Bidiagonalization`: U, B, V, residual, num_steps; derivatives as in `lanczos`.

    Raises:
        ValueError: maps that do not fit ``v0`` or each other, or ``num_steps`` out of bounds.

    Reference: Golub & Kahan (1965), with the full reorthogonalisation of Simon & Zha (2000).
    """
    apply, adjoint, start, image = rectangular(A, AT, v0)
    m = check_num_steps(num_steps, min(start.x.size, image.x.size))

    def step(done, carry, j):
        (U, V), (v, u, beta) = carry
        V = V.at[j].set(v)
        w = apply(v)
        _, u, alpha, _ = orthogonalize((*done[0], U), w - beta * u, tree.norm(w))
        U = U.at[j].set(u)
        w = adjoint(u)
        _, v, beta, _ = orthogonalize((*done[1], V), w - alpha * v, tree.norm(w))
        return ((U, V), (v, u, beta)), (alpha, beta, alpha != 0)

    norm = tree.norm(start.x)
    carry = (normalized(start.x, norm), jnp.zeros_like(image.x), jnp.zeros_like(norm))
    shapes = ((image.x.size, image.x.dtype), (start.x.size, start.x.dtype))
    (v, _, beta), (U, V), (alphas, betas, live) = in_sections(step, carry, shapes, m)
    return Bidiagonalization(
        image.columns(jnp.concatenate(U)),
        jnp.diag(alphas) + jnp.diag(betas[:-1], 1),
        start.columns(jnp.concatenate(V)),
        start.unravel(beta * v),
        jnp.sum(live, dtype=jnp.int32),
    )
