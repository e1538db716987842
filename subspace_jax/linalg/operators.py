"""Matrices as products: callables v -> A v that go through jit, vmap and grad as arguments.

What comes back is a pytree. It holds its arrays; the functions among its arguments are static
unless they are pytrees themselves (``jax.tree_util.Partial``, another operator).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from subspace_jax import tree
from subspace_jax.linalg._formats import Dia, Ell, dia, ell
from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg._stencil import (
    Convection,
    Stencil,
    convection_diffusion,
    diagonal,
    diffusion,
    laplacian,
)
from subspace_jax.typing import Array, Float, Inexact, LinearMap, PyTree

__all__ = [
    "Convection",
    "Dia",
    "Ell",
    "Stencil",
    "adjoint",
    "as_callable",
    "as_operator",
    "convection_diffusion",
    "dia",
    "diagonal",
    "diffusion",
    "ell",
    "ggn",
    "hvp",
    "kernel",
    "laplacian",
    "materialize",
    "normal",
    "shifted",
]


def as_callable(A: LinearMap) -> Callable[[PyTree], PyTree]:
    """The product v -> A v of an array, a sparse matrix or anything else with ``@``.

    Callables come back as they are; arrays multiply at full precision.

    Raises:
        ValueError: ``A`` is neither callable nor has ``@``, or is scipy's, which multiplies no
            traced vector.
    """
    if callable(A):
        return A
    if isinstance(A, jax.Array | np.ndarray):
        return Partial(matmul, jnp.asarray(A))
    if hasattr(A, "tocoo"):
        raise ValueError(
            f"{type(A).__name__} multiplies on the host only: convert it by linalg.operators.ell "
            "or dia, or by BCOO.from_scipy_sparse"
        )
    if hasattr(A, "__matmul__"):
        return Partial(_at, A)
    raise ValueError(f"a linear map must be callable or have @, got {type(A).__name__}")


def as_operator(A: LinearMap) -> Callable[[PyTree], PyTree]:
    """The callable of `as_callable` as a pytree: a plain function becomes a ``Partial``."""
    function = as_callable(A)
    return Partial(function) if jax.tree_util.all_leaves([function]) else function


def adjoint(A: LinearMap, like: PyTree = None) -> Callable[[PyTree], PyTree]:
    """The product u -> A^H u; exact, by transposing the computation of A v.

    Args:
        A: an array, anything with ``@``, or a callable that is linear to JAX.
        like: arrays or ``ShapeDtypeStruct``s shaped like v; needed for a callable ``A``.

    Raises:
        ValueError: a callable without ``like``.
    """
    if isinstance(A, jax.Array | np.ndarray):
        return Partial(matmul, jnp.asarray(A).conj().T)
    if not callable(A):
        return Partial(_adjoint_at, A)
    if like is None:
        raise ValueError("the adjoint of a callable needs like= (shape and dtype of v)")
    leaves, structure = jax.tree.flatten(like)
    shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves)
    return _Adjoint(as_operator(A), shapes, structure)


def normal(
    A: LinearMap,
    like: PyTree = None,
    *,
    AT: LinearMap | None = None,
    shift: float | Float[Array, ""] = 0.0,
) -> Callable[[PyTree], PyTree]:
    """The product v -> A^H A v + shift v of the normal equations: positive semidefinite.

    Args:
        A: an array, anything with ``@``, or a callable; rectangular.
        like: shapes of v, as in `adjoint`; not needed with ``AT``.
        AT: the adjoint A^H; by default `adjoint` of ``A``.
        shift: added to the diagonal.
    """
    back = adjoint(A, like) if AT is None else as_operator(AT)
    return Partial(_normal, as_operator(A), back, shift)


def shifted(
    A: LinearMap, shift: complex | float | Inexact[Array, ""]
) -> Callable[[PyTree], PyTree]:
    """The product v -> A v + shift v."""
    return Partial(_shifted, as_operator(A), shift)


def hvp(loss: Callable[[PyTree], Any], params: PyTree) -> Callable[[PyTree], PyTree]:
    """The product v -> H v with the Hessian of ``loss`` at ``params``; v is like ``params``.

    Forward over reverse: the price of about two gradients. Real parameters.

    Reference: Pearlmutter (1994).
    """
    return Partial(_hvp, as_operator(loss), params)


def ggn(
    model: Callable[[PyTree], PyTree], loss: Callable[[PyTree], Any], params: PyTree
) -> Callable[[PyTree], PyTree]:
    """The product v -> J^T H_loss J v with the generalised Gauss-Newton matrix at ``params``.

    Positive semidefinite where ``loss`` is convex in the outputs. Real parameters.

    Args:
        model: params -> outputs, with the Jacobian J.
        loss: outputs -> a number, with the Hessian H_loss.
        params: where the matrix is taken; v is of their structure.

    Reference: Schraudolph (2002).
    """
    return Partial(_ggn, as_operator(model), as_operator(loss), params)


def kernel(
    k: Callable[[Array, Array], Any],
    X: Inexact[Array, "n ..."],
    *,
    shift: float | Float[Array, ""] = 0.0,
    chunk: int = 256,
) -> Callable[[Inexact[Array, " n"]], Inexact[Array, " n"]]:
    """The product v -> K v + shift v with K_ij = k(X_i, X_j), which is never stored.

    Args:
        k: a kernel of two points; a ``Partial`` may carry its hyperparameters.
        X: the points, (n, ...).
        shift: added to the diagonal.
        chunk: rows of K held at a time.
    """
    return _Kernel(as_operator(k), X, shift, chunk)


def materialize(A: LinearMap, like: PyTree) -> Inexact[Array, "m n"]:
    """The matrix of ``A``: m n numbers, for tests and small problems.

    Args:
        A: an array, anything with ``@``, or a callable on pytrees.
        like: arrays or ``ShapeDtypeStruct``s shaped like v; rows and columns are in the order of
            `tree.ravel`.
    """
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.result_type(x)), like)
    flat, unravel = ravel_pytree(zeros)
    matvec = as_callable(A)
    basis = jnp.eye(flat.size, dtype=flat.dtype)
    return jax.vmap(lambda e: tree.ravel(matvec(unravel(e))), out_axes=1)(basis)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _Adjoint:
    matvec: Any
    shapes: tuple[jax.ShapeDtypeStruct, ...] = field(metadata={"static": True})
    structure: Any = field(metadata={"static": True})

    def __call__(self, u: PyTree) -> PyTree:
        transpose = jax.linear_transpose(
            self.matvec, jax.tree.unflatten(self.structure, self.shapes)
        )
        return _conj(transpose(_conj(u))[0])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _Kernel:
    k: Any
    X: Any
    shift: Any
    chunk: int = field(metadata={"static": True})

    def __call__(self, v: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        num_points = self.X.shape[0]
        if v.shape != (num_points,):
            raise ValueError(f"need a vector of shape ({num_points},), got {v.shape}")

        @jax.checkpoint  # the derivative recomputes a chunk rather than store K
        def row(x):
            return matmul(jax.vmap(self.k, (None, 0))(x, self.X), v)

        chunk = min(self.chunk, num_points)
        return tree.axpy(self.shift, v, jax.lax.map(row, self.X, batch_size=chunk))


def _at(A: Any, v: PyTree) -> PyTree:
    return A @ v


def _adjoint_at(A: Any, u: Array) -> Array:
    return (A.T @ u.conj()).conj()  # by way of A^T: sparse matrices have no conj


def _normal(A, AT, shift, v):
    return tree.axpy(shift, v, AT(A(v)))


def _shifted(A, shift, v):
    return tree.axpy(shift, v, A(v))


def _hvp(loss, params, v):
    tree.check_same_shapes("v", v, "params", params)
    return jax.jvp(jax.grad(loss), (params,), (v,))[1]


def _ggn(model, loss, params, v):
    tree.check_same_shapes("v", v, "params", params)
    outputs, pullback = jax.vjp(model, params)
    Jv = jax.jvp(model, (params,), (v,))[1]
    return pullback(jax.jvp(jax.grad(loss), (outputs,), (Jv,))[1])[0]


def _conj(x: PyTree) -> PyTree:
    return jax.tree.map(jnp.conj, x)
