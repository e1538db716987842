"""Means and medians: of subspaces by flags, of the points of any manifold by its exp and log.

A flag mean is an eigenproblem, a flag median a sequence of weighted ones. Both are solved in the
Gram matrix of the vectors: what is as long as the vectors is read once and written once, and in a
distributed computation only the Gram matrix and the coefficients travel.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.linalg._angle import root
from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg.basis import orthonormalize
from subspace_jax.typing import Array, Float, Inexact, Integer, PyTree

__all__ = [
    "MeanInfo",
    "MedianInfo",
    "flag_mean",
    "flag_median",
    "flag_median_coefficients",
    "karcher_mean",
]


def flag_mean(
    bases: Inexact[Array, "p n k"],
    weights: Float[Array, " p"] | None = None,
    *,
    rank: int | None = None,
) -> Inexact[Array, "n r"]:
    """The basis of dimension r nearest to all subspaces, in the sum of squared chordal distances.

    The r leading eigenvectors of the weighted sum of projectors, in descending order: the first
    one is nearest, the first two span the nearest plane, and so on. An eigenproblem of size
    min(p k, n). No derivative where eigenvalues are equal.

    Args:
        bases: orthonormal columns.
        weights: not negative; None: all equal.
        rank: r, 1 to n; None: k.

    Raises:
        ValueError: arrays that do not fit, or a rank out of bounds.

    Reference: Draper, Kirby, Marks, Marrinan & Peterson (2014), "A flag representation for finite
    collections of subspaces of mixed dimensions".
    """
    columns, num = _columns(bases)
    if weights is not None:
        if weights.shape != (num,):
            raise ValueError(f"weights must have shape ({num},), got {weights.shape}")
        columns = columns * jnp.sqrt(
            jnp.repeat(weights, bases.shape[-1], total_repeat_length=columns.shape[1])
        )
    n, total = columns.shape
    rank = bases.shape[-1] if rank is None else rank
    if not 1 <= rank <= n:
        raise ValueError(f"rank must lie in 1..{n}, got {rank}")
    if total >= n:
        return jnp.linalg.eigh(matmul(columns, columns.conj().T))[1][:, ::-1][:, :rank]
    V = jnp.linalg.eigh(matmul(columns.conj().T, columns))[1][:, ::-1][:, :rank]
    found = matmul(columns, V)  # orthogonal, and ordered by length: what the QR rests on
    return orthonormalize(jnp.pad(found, ((0, 0), (0, rank - found.shape[1]))))


class MedianInfo(NamedTuple):
    """How an iteratively reweighted flag median went."""

    objectives: Array
    """(num_steps + 1,), of the start and after each step: never ascending."""
    rank: Array
    """The numerical rank of the vectors; directions beyond it are zero."""


def flag_median(
    G: Inexact[Array, "*p n q"],
    *,
    num_directions: int,
    pairwise: float | Float[Array, ""] = 0.0,
    num_steps: int = 20,
    smoothing: float | None = None,
) -> tuple[Inexact[Array, "n m"], MedianInfo]:
    """The basis Y of m directions that minimises the sum of unsquared distances to the vectors.

    The distance of the unit vector g is the sine sqrt(1 - |Y^H g|^2), so a minority of far-off
    vectors weighs little. Found by iteratively reweighted least squares from the least squares
    solution, at the price of two products with ``G`` in all.

    Args:
        G: p vectors as columns (n, p), which are normalised (zero ones are left out), or p
            orthonormal bases (p, n, k).
        num_directions: m, at most the number of all columns.
        pairwise: the weight lambda of the mean of the same over all (normalised) differences of
            two unit vectors; for vectors only.
        num_steps: weighted eigenproblems after the first.
        smoothing: delta in sqrt(1 - |Y^H g|^2 + delta); None: the rounding unit of the dtype.

    Returns:
        ``(Y, info)``. Columns of Y beyond the numerical rank of G are zero.

    Raises:
        ValueError: arrays that do not fit, or an option out of bounds.

    Reference: Almasi, Mishra, Vamanan & Ravi (2024), "Flag aggregator".
    """
    columns, _ = _columns(G) if G.ndim == 3 else (G, 0)
    width = G.shape[-1] if G.ndim == 3 else 1
    K = matmul(columns.conj().T, columns)
    coefficients, info = flag_median_coefficients(
        K,
        num_directions=num_directions,
        pairwise=pairwise,
        num_steps=num_steps,
        smoothing=smoothing,
        width=width,
    )
    return matmul(columns, coefficients), info


def flag_median_coefficients(
    K: Inexact[Array, "p p"],
    *,
    num_directions: int,
    pairwise: float | Float[Array, ""] = 0.0,
    num_steps: int = 20,
    smoothing: float | None = None,
    width: int = 1,
) -> tuple[Inexact[Array, "p m"], MedianInfo]:
    """The coefficients X of the flag median Y = G X, from the Gram matrix K = G^H G alone.

    Where G is cut in pieces along n, the sum of their Gram matrices (a ``psum``) gives every
    piece its rows of Y. All work is in p dimensions.

    Args:
        K: Hermitian positive semidefinite.
        num_directions: as in `flag_median`, as are the other options.
        pairwise: weight of the differences.
        num_steps: weighted eigenproblems after the first.
        smoothing: delta.
        width: columns in a row of G that are one basis.

    Raises:
        ValueError: K is not square, or an option out of bounds.
    """
    p = K.shape[0]
    if K.shape != (p, p) or p % width:
        raise ValueError(f"K must be square, of bases of {width} columns, got {K.shape}")
    if not 1 <= num_directions <= p:
        raise ValueError(f"num_directions must lie in 1..{p}, got {num_directions}")
    if width > 1 and not (isinstance(pairwise, int | float) and pairwise == 0):
        raise ValueError("differences are of vectors: bases take no pairwise weight")
    eps = float(jnp.finfo(K.dtype).eps)
    delta = eps if smoothing is None else smoothing
    sizes = root(jnp.diagonal(K).real)
    scales = jnp.where(sizes > 0, 1 / jnp.where(sizes > 0, sizes, 1), 0)
    values, U = jnp.linalg.eigh(K * scales[:, None] * scales)
    kept = values > p * eps * values[-1]
    lengths = jnp.sqrt(jnp.where(kept, values, 0))
    R = lengths[:, None] * U.conj().T  # coordinates of the unit vectors in an orthonormal basis
    R = R * jnp.where(sizes > 0, 1, 0)
    groups, shares = _groups(R, width, pairwise)
    Y, objectives = _reweighted(groups, shares, num_directions, num_steps, delta)
    inverse = jnp.where(kept, 1 / jnp.where(kept, lengths, 1), 0)
    coefficients = scales[:, None] * matmul(U * inverse, Y)
    return coefficients, MedianInfo(objectives, jnp.sum(kept))


def _columns(bases: Array) -> tuple[Array, int]:
    """All columns of bases (p, n, k) beside each other, (n, p k)."""
    if bases.ndim != 3:
        raise ValueError(f"need bases of shape (p, n, k), got {bases.shape}")
    p, n, k = bases.shape
    return jnp.moveaxis(bases, 0, 1).reshape(n, p * k), p


def _groups(R: Array, width: int, pairwise: float | Array) -> tuple[Array, Array]:
    """What has a distance, (num, width, p), and the share of each in the objective."""
    vectors = R.T.reshape(-1, width, R.shape[0])
    present = jnp.any(vectors != 0, axis=(1, 2)).astype(R.real.dtype)
    if width > 1 or len(vectors) == 1 or (isinstance(pairwise, int | float) and pairwise == 0):
        return vectors, present
    num = len(vectors)
    first, second = jnp.triu_indices(num, 1)
    differences = vectors[first] - vectors[second]
    sizes = jnp.sqrt(jnp.sum(jnp.abs(differences) ** 2, axis=(1, 2), keepdims=True))
    # The Gram matrix does not resolve differences below the root of the rounding unit.
    apart = sizes > jnp.sqrt(jnp.finfo(sizes.dtype).eps)
    units = jnp.where(apart, differences / jnp.where(apart, sizes, 1), 0)
    both = apart[:, 0, 0] * present[first] * present[second]
    share = 2 * pairwise / (num * (num - 1))  # each pair stands for two ordered ones
    return jnp.concatenate([vectors, units]), jnp.concatenate([present, share * both])


def _reweighted(
    groups: Array, shares: Array, num_directions: int, num_steps: int, delta: float
) -> tuple[Array, Array]:
    """The minimiser of sum_a share_a sqrt(rest_a + delta), and the objective at every step."""

    def leading(weights):
        scaled = groups * jnp.sqrt(weights)[:, None, None]
        rows = scaled.reshape(-1, groups.shape[-1])
        return jnp.linalg.eigh(matmul(rows.T, rows.conj()))[1][:, ::-1][:, :num_directions]

    def distances(Y):
        # Of the remainder, not 1 - |Y^H g|^2: most vectors end up close to the span of Y.
        rest = groups - matmul(matmul(groups, Y.conj()), Y.T)
        return jnp.sqrt(jnp.sum(jnp.abs(rest) ** 2, axis=(1, 2)) + delta)

    def step(Y, _):
        here = distances(Y)
        return leading(shares / here), jnp.sum(shares * here)

    Y, objectives = jax.lax.scan(step, leading(shares), length=num_steps)
    return Y, jnp.append(objectives, jnp.sum(shares * distances(Y)))


class MeanInfo(NamedTuple):
    """How a Karcher mean was found."""

    num_steps: Integer[Array, ""]
    norm: Float[Array, ""]
    """The norm of the mean of the logarithms, zero at the mean."""
    converged: Any


def karcher_mean(
    points: PyTree,
    weights: Float[Array, " N"] | None = None,
    *,
    manifold: Any,
    x0: PyTree = None,
    maxiter: int = 100,
    tol: float | None = None,
) -> tuple[PyTree, MeanInfo]:
    """The point with the least sum of squared geodesic distances to the ``points``.

    From ``x0`` on, to the exponential of the mean of the logarithms. Unique, and sure to be found,
    for points within half the radius of convexity of each other. Without a derivative.

    Args:
        points: a leading axis of N.
        weights: not negative, of any sum; None: all equal.
        manifold: with ``exp``, ``log``, ``norm``, such as the module `manifolds.spd`.
        x0: where to start; None: the first point.
        maxiter: steps at most.
        tol: stop when the norm of the mean of the logarithms is below it; None: ten times the
            rounding unit.

    Raises:
        ValueError: weights that do not fit the points.

    Reference: Afsari, Tron & Vidal (2013), "On the convergence of gradient descent for finding the
    Riemannian center of mass".
    """
    leaves = jax.tree.leaves(points)
    num = leaves[0].shape[0]
    if weights is None:
        weights = jnp.ones(num, leaves[0].real.dtype)
    if weights.shape != (num,):
        raise ValueError(f"weights must have shape ({num},), got {weights.shape}")
    weights = weights / jnp.sum(weights)
    points, weights = jax.lax.stop_gradient((points, weights))
    tol = 10 * float(jnp.finfo(leaves[0].dtype).eps) if tol is None else tol
    start = jax.tree.map(lambda leaf: leaf[0], points) if x0 is None else x0

    def mean_log(point):
        logs = jax.vmap(lambda q: manifold.log(point, q))(points)
        return jax.tree.map(lambda v: jnp.tensordot(weights.astype(v.dtype), v, 1), logs)

    def unfinished(state):
        _, v, num_steps = state
        # A whole loop of rounding may be all that is left: NaN ends it too.
        return (manifold.norm(state[0], v) > tol) & (num_steps < maxiter)

    def step(state):
        point, v, num_steps = state
        point = manifold.exp(point, v)
        return point, mean_log(point), num_steps + 1

    state = start, mean_log(start), jnp.int32(0)
    point, v, num_steps = jax.lax.while_loop(unfinished, step, state)
    norm = manifold.norm(point, v)
    return point, MeanInfo(num_steps, norm, norm <= tol)
