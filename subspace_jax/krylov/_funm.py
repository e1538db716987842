"""Functions of operators times a vector, from Krylov spaces."""

from collections.abc import Callable

import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._basis import check_num_steps, flat_map, start_vector
from subspace_jax.krylov._lanczos import Rows, arnoldi_rows, lanczos_rows
from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg._spectral import general_function, hermitian_function
from subspace_jax.typing import Array, LinearMap, PyTree

Function = Callable[[Array], Array]
"""Of numbers, entry by entry."""


def funm_hermitian(f: Function, A: LinearMap, b: PyTree, *, num_steps: int) -> PyTree:
    """The vector f(A) b for a Hermitian A, from ``num_steps`` products with A.

    As exact as the best polynomial in A of that degree, within a factor of two: few steps do for
    the exponential, many for a function with a singularity near the spectrum. Derivatives are
    those of the fixed steps; they exist where eigenvalues coincide.

    Args:
        f: a function of real numbers, entry by entry: ``jnp.exp``, ``jnp.sqrt``, ``jnp.sign`` ...,
            defined between the ends of the spectrum.
        A: Hermitian, see `cg`.
        b: the vector, any pytree.
        num_steps: 1 <= num_steps <= n.

    Raises:
        ValueError: not a linear map on the space of b, or ``num_steps`` out of bounds.

    Reference: Saad (1992); Higham (2008), section 13.2.
    """
    return _applied(hermitian_function, lanczos_rows, f, A, b, num_steps)


def funm(f: Function, A: LinearMap, b: PyTree, *, num_steps: int) -> PyTree:
    """The vector f(A) b for a general square A, from ``num_steps`` products with A.

    Arguments, errors and derivatives as in `funm_hermitian`, except that f is a holomorphic
    function of complex numbers, real for real ones where A and b are real. The small matrix is
    diagonalised: digits are lost where its eigenvectors are nearly dependent.

    Reference: Saad (1992); Higham (2008), section 13.2.
    """
    return _applied(general_function, arnoldi_rows, f, A, b, num_steps)


def _applied(function, rows_of, f, A, b, num_steps) -> PyTree:
    apply, start = flat_map("A", A, b), start_vector("b", b)
    rows = rows_of(apply, start.x, check_num_steps(num_steps, start.x.size))
    column = tree.norm(start.x) * function(f, filled(rows))[:, 0]
    if not jnp.iscomplexobj(start.x):
        column = column.real
    return start.unravel(matmul(column.astype(start.x.dtype), jnp.concatenate(rows.blocks)))


def filled(rows: Rows) -> Array:
    """The projection of A, where it is empty for lack of steps with its first entry.

    That is a number for which f is defined; the first column of f(H) does not see it.
    """
    empty = jnp.arange(len(rows.H)) >= rows.num_steps
    return rows.H + jnp.diag(jnp.where(empty, rows.H[0, 0], 0))
