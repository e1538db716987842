"""The algebra of subspaces, and of linear relations, by orthonormal bases (n, k) of both.

The dimension of a result depends on values. By default it is decided on the host: singular values
above ``rtol`` count, relative to the largest where the operand is any matrix, absolute where it is
made of orthonormal bases. Under ``jit`` and ``vmap`` the dimension is passed as ``rank``, static.
A subspace of dimension 0 is a basis with no column. There are no batches but those of ``vmap``.

A linear relation between coordinates S and P is a subspace of vectors (f_S, f_P); a matrix is one,
its graph. What matrices do by products, relations do by `composition`.

Reference: Narayanan (2009), "Submodular functions and electrical networks", chapters 3 and 7.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import core

from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg.basis import project, project_out
from subspace_jax.typing import Array, Inexact, Integer

__all__ = [
    "complement",
    "composition",
    "contains",
    "contraction",
    "decomposition",
    "image",
    "intersection",
    "null_space",
    "projection",
    "pullback",
    "restriction",
    "span",
    "sum",
]

Matrix = Inexact[Array, "m n"]
Basis = Inexact[Array, "n k"]
Other = Inexact[Array, "n l"]
Result = Inexact[Array, "n r"]
Coordinates = Sequence[int] | Integer[np.ndarray, " s"]


def span(A: Matrix, *, rank: int | None = None, rtol: float | None = None) -> Inexact[Array, "m r"]:
    """An orthonormal basis of the columns of ``A``, any matrix: its leading left singular vectors.

    Args:
        A: columns that span, independent or not.
        rank: the dimension; None: decided by ``rtol`` on the host.
        rtol: singular values above it, relative to the largest, count; None: the larger dimension
            of A times the rounding unit.

    Raises:
        ValueError: a traced A without ``rank``, or a rank out of bounds.
    """
    if min(A.shape) == 0:
        return _empty(A.shape[0], A.dtype)
    U, s, _ = jnp.linalg.svd(A, full_matrices=False)
    return U[:, : _rank(s, s[0], A, rank, rtol)]


def null_space(
    A: Matrix, *, rank: int | None = None, rtol: float | None = None
) -> Inexact[Array, "n d"]:
    """An orthonormal basis of all x with A x = 0; ``rank`` is that of A, d = n - rank.

    Raises:
        ValueError: a traced A without ``rank``, or a rank out of bounds.
    """
    if min(A.shape) == 0:
        return jnp.eye(A.shape[1], dtype=A.dtype)
    s, Vh = jnp.linalg.svd(A)[1:]
    return Vh[_rank(s, s[0], A, rank, rtol) :].conj().T


def sum(Q: Basis, S: Other, *, rank: int | None = None, rtol: float | None = None) -> Result:
    """The smallest subspace with both in it.

    Raises:
        ValueError: different ambient dimensions, or as `span`.
    """
    _check_rows(Q, S)
    return span(jnp.concatenate([Q, S], axis=1), rank=rank, rtol=rtol)


def intersection(
    Q: Basis, S: Other, *, rank: int | None = None, rtol: float | None = None
) -> Result:
    """What lies in both: the directions of Q at an angle to S with a sine below ``rtol``.

    Raises:
        ValueError: different ambient dimensions, or as `span`; ``rank`` is that of the result.
    """
    _check_rows(Q, S)
    if min(Q.shape[1], S.shape[1]) == 0:
        return _empty(Q.shape[0], Q.dtype)
    across = None if rank is None else Q.shape[1] - rank
    return matmul(Q, _kernel(project_out(S, Q), across, rtol))


def complement(Q: Basis) -> Inexact[Array, "n d"]:
    """What is orthogonal to the subspace; its dimension is known, n - k."""
    n, k = Q.shape
    if k == 0:
        return jnp.eye(n, dtype=Q.dtype)
    return jnp.linalg.qr(Q, mode="complete").Q[:, k:]


def contains(Q: Basis, x: Inexact[Array, "n *m"], *, rtol: float | None = None) -> Array:
    """Whether x, a vector or the columns of a matrix, lies in the subspace; a boolean array.

    That is, whether its part outside is at most ``rtol`` times its norm (in the Frobenius norm);
    None: n times the rounding unit.

    Raises:
        ValueError: different ambient dimensions.
    """
    _check_rows(Q, x)
    outside = x if Q.shape[1] == 0 else project_out(Q, x)
    bound = _rtol(rtol, (x.shape[0], 1), x.dtype)
    return jnp.linalg.norm(outside) <= bound * jnp.linalg.norm(x)


def projection(Q: Basis, S: Other, *, rank: int | None = None, rtol: float | None = None) -> Result:
    """The shadow of the subspace S in Q: the span of the projections Q Q^H s.

    Raises:
        ValueError: different ambient dimensions, or as `span`.
    """
    _check_rows(Q, S)
    return _image(project(Q, S), rank, rtol)


def image(
    A: Matrix, Q: Basis, *, rank: int | None = None, rtol: float | None = None
) -> Inexact[Array, "m r"]:
    """The subspace of all A x with x in the subspace Q.

    Raises:
        ValueError: A does not take vectors of the subspace, or as `span`.
    """
    _check_columns(A, Q)
    return span(matmul(A, Q), rank=rank, rtol=rtol)


def pullback(
    A: Matrix, Q: Inexact[Array, "m k"], *, rank: int | None = None, rtol: float | None = None
) -> Result:
    """The subspace of all x with A x in the subspace Q; ``rank`` is its dimension.

    Raises:
        ValueError: A does not map to where the subspace is, or as `span`.
    """
    _check_rows(Q, A)
    outside = A if Q.shape[1] == 0 else project_out(Q, A)
    scale = jnp.linalg.norm(A, 2) if min(A.shape) else 0.0
    across = None if rank is None else A.shape[1] - rank
    return _kernel(outside, across, rtol, scale)


def restriction(
    V: Basis, coordinates: Coordinates, *, rank: int | None = None, rtol: float | None = None
) -> Inexact[Array, "s r"]:
    """The subspace of the parts f_S of all vectors in V; S are the ``coordinates``.

    Raises:
        ValueError: coordinates out of bounds or repeated, or as `span`.
    """
    inside, _ = _split(V, coordinates)
    return _image(V[inside], rank, rtol)


def contraction(
    V: Basis, coordinates: Coordinates, *, rank: int | None = None, rtol: float | None = None
) -> Inexact[Array, "s r"]:
    """The subspace of all f_S with (f_S, 0) in V; S are the ``coordinates``.

    Its dimension is that of V minus that of the restriction to the other coordinates.

    Raises:
        ValueError: coordinates out of bounds or repeated, or as `span`.
    """
    inside, outside = _split(V, coordinates)
    across = None if rank is None else V.shape[1] - rank
    return matmul(V[inside], _kernel(V[outside], across, rtol))


def composition(
    V: Inexact[Array, "v k"],
    W: Inexact[Array, "w l"],
    *,
    num_shared: int,
    rank: int | None = None,
    rtol: float | None = None,
) -> Inexact[Array, "u r"]:
    """The relation of all (f_S, f_Q) with (f_S, f_P) in V and (f_P, f_Q) in W for some f_P.

    Args:
        V: the last ``num_shared`` coordinates are P.
        W: the first ``num_shared`` coordinates are P.
        num_shared: the size of P.
        rank: the dimension of the result; None: decided by ``rtol`` on the host.
        rtol: singular values above it count; None: the number of rows times the rounding unit.

    Raises:
        ValueError: fewer coordinates than ``num_shared``, or as `span`.
    """
    p, total = num_shared, V.shape[1] + W.shape[1]
    if not 0 <= p <= min(V.shape[0], W.shape[0]):
        raise ValueError(f"{V.shape} and {W.shape} do not share {p} coordinates")
    ends = jax.scipy.linalg.block_diag(V[: V.shape[0] - p], W[p:])
    if p == 0 or total == 0:
        return _image(ends, rank, rtol)
    s, Ch = jnp.linalg.svd(jnp.concatenate([V[V.shape[0] - p :], -W[:p]], axis=1))[1:]
    # Zeros instead of a smaller matrix: the dimension of what matches need not be static.
    s = jnp.pad(s, (0, total - s.size))
    matching = jnp.where(s <= _rtol(rtol, ends.shape, s.dtype), Ch.conj().T, 0)
    return _image(matmul(ends, matching), rank, rtol)


def decomposition(
    V: Basis, num_first: int, *, ranks: tuple[int, int] | None = None, rtol: float | None = None
) -> tuple[Inexact[Array, "v l"], Inexact[Array, "w m"]]:
    """Two relations, over S and P and over P and Q, that compose to V, with the smallest P.

    The size of P is the dimension of the restriction of V to S minus that of its contraction.

    Args:
        V: the first ``num_first`` coordinates are S, the others Q.
        num_first: the size of S.
        ranks: the dimensions of the contractions to S and to Q; None: decided on the host.
        rtol: as in `composition`.

    Returns:
        ``(V_SP, V_PQ)``, for `composition` with ``num_shared = V_SP.shape[0] - num_first``.

    Raises:
        ValueError: ``num_first`` out of bounds, or as `span`.
    """
    n, k = V.shape
    if not 0 <= num_first <= n:
        raise ValueError(f"num_first must lie in 0..{n}, got {num_first}")
    across = (None, None) if ranks is None else (k - ranks[0], k - ranks[1])
    only_S = _kernel(V[num_first:], across[0], rtol)  # coefficients of what is zero on Q
    only_Q = _kernel(V[:num_first], across[1], rtol)
    both = complement(sum(only_S, only_Q, rank=only_S.shape[1] + only_Q.shape[1]))
    first = jnp.concatenate([matmul(V[:num_first], both), jnp.eye(both.shape[1], dtype=V.dtype)])
    last = jnp.concatenate([jnp.eye(both.shape[1], dtype=V.dtype), matmul(V[num_first:], both)])
    alone_S = jnp.pad(matmul(V[:num_first], only_S), ((0, both.shape[1]), (0, 0)))
    alone_Q = jnp.pad(matmul(V[num_first:], only_Q), ((both.shape[1], 0), (0, 0)))
    pairs = (jnp.concatenate(pair, axis=1) for pair in ((first, alone_S), (last, alone_Q)))
    left, right = (span(A, rank=A.shape[1]) for A in pairs)
    return left, right


def _image(A: Array, rank: int | None, rtol: float | None) -> Array:
    """The span of columns that were orthonormal once: singular values count in absolute terms."""
    if min(A.shape) == 0:
        return _empty(A.shape[0], A.dtype)
    U, s, _ = jnp.linalg.svd(A, full_matrices=False)
    return U[:, : _rank(s, 1.0, A, rank, rtol)]


def _kernel(A: Array, rank: int | None, rtol: float | None, scale: Array | float = 1.0) -> Array:
    """The null space of a matrix whose singular values count in units of ``scale``."""
    if min(A.shape) == 0:
        return jnp.eye(A.shape[1], dtype=A.dtype)
    s, Vh = jnp.linalg.svd(A)[1:]
    return Vh[_rank(s, scale, A, rank, rtol) :].conj().T


def _rank(s: Array, scale: Array | float, A: Array, rank: int | None, rtol: float | None) -> int:
    if rank is not None:
        if not 0 <= rank <= s.size:
            raise ValueError(f"a rank of a matrix {A.shape} lies in 0..{s.size}, got {rank}")
        return rank
    if isinstance(s, core.Tracer) or isinstance(scale, core.Tracer):
        raise ValueError(f"the rank of a traced matrix {A.shape} is not known: pass rank=")
    return int(np.sum(np.asarray(s) > _rtol(rtol, A.shape, s.dtype) * np.asarray(scale)))


def _rtol(rtol: float | None, shape: tuple[int, ...], dtype: np.dtype) -> float:
    return 4 * max(shape) * float(jnp.finfo(dtype).eps) if rtol is None else rtol


def _split(V: Array, coordinates: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates and the others, both as indices."""
    inside = np.asarray(coordinates, int).reshape(-1)
    if len(set(inside.tolist())) < inside.size or not all(0 <= i < len(V) for i in inside):
        raise ValueError(f"coordinates must be different ones of 0..{len(V) - 1}, got {inside}")
    return inside, np.setdiff1d(np.arange(len(V)), inside)


def _empty(n: int, dtype: np.dtype) -> Array:
    return jnp.zeros((n, 0), dtype)


def _check_rows(Q: Array, x: Array) -> None:
    if Q.shape[0] != x.shape[0]:
        raise ValueError(f"different ambient dimensions: {Q.shape} and {x.shape}")


def _check_columns(A: Array, Q: Array) -> None:
    if A.shape[1] != Q.shape[0]:
        raise ValueError(f"a map {A.shape} does not take vectors of a subspace {Q.shape}")
