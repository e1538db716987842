"""Many similar systems: in which order, and one after another with recycling.

Reference: Wang, Hao, Wang, Geng, Wang, Li & Wu (2024), "Accelerating data generation for neural
operators via Krylov subspace recycling" (SKR).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from subspace_jax.krylov._operands import check_count
from subspace_jax.krylov._solution import Info
from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg.lowrank import randomized_svd
from subspace_jax.typing import Array, Float, Integer, LinearMap, Num, PyTree

__all__ = ["solve_sequence", "sort_systems"]

_BLOCK = 12
"""Low frequencies an axis that tell fields apart."""
_COMPONENTS = 7
_CHUNK = 512


def sort_systems(
    features: Num[Array, "N *shape"] | Num[np.ndarray, "N *shape"],
    *,
    max_greedy: int = 10_000,
) -> Integer[Array, " N"]:
    """An order in which neighbours are similar: from the first on, always to the nearest unused.

    It pays where the features span few dimensions; among independent high-dimensional fields all
    distances are alike. O(N^2 p) work, O(N) memory beside the features and a copy of them.

    More than ``max_greedy`` systems are first brought into the order of 128 cells that halve the
    box of seven principal components (of 12 x 12 low frequencies, where the features are fields
    (N, s, t)), as in the paper, but where the spread is; the nearest is then looked for among 512
    at a time.

    Args:
        features: what tells the systems apart, in the Euclidean norm, such as their coefficients;
            of any size, and integers as well.
        max_greedy: most systems for which all distances are computed.

    Returns:
        A permutation of 0 .. N - 1; it has no derivative. Features that are not finite count as
        far from all others.

    Raises:
        ValueError: no system, or features without a leading axis.

    Reference: Wang et al. (2024), algorithm 1 and appendix E.2.2.
    """
    features = jnp.asarray(features)
    if features.ndim == 0 or len(features) == 0:
        raise ValueError(f"features need a leading axis of systems, got shape {features.shape}")
    features = _scaled(jax.lax.stop_gradient(features))
    flat = features.reshape(len(features), -1)
    if len(features) <= max_greedy:
        return _greedy(flat, jnp.arange(len(flat)) >= 0, flat[0])
    order = jnp.argsort(_cell_rank(_principal(_low_frequencies(features))), stable=True)
    return _greedy_in_chunks(flat, order.astype(jnp.int32))


def solve_sequence(
    solver: Callable[..., Any],
    operator: Callable[[PyTree], LinearMap],
    params: PyTree,
    bs: PyTree,
    *,
    order: Integer[Array, " N"] | Integer[np.ndarray, " N"] | Sequence[int] | None = None,
    num_chains: int = 1,
    preconditioner: Callable[[PyTree], LinearMap] | None = None,
) -> tuple[PyTree, Info]:
    """The solutions of A(params_i) x_i = b_i, each solve recycling the space of the one before.

    The sequence is cut into chains of equal length (the last is filled up with systems of
    b = 0, which take no step): a `lax.scan` over a chain, a `vmap` over the chains. Each chain
    starts without a space. A system that fails says so in its status, the chain goes on.

    Args:
        solver: `gcrodr` or `recycled_cg`, options bound by `functools.partial`; any
            ``f(A, b, recycle=space) -> ((value, info), space)`` for which a space of zeros is none.
        operator: what one entry of ``params`` makes of itself: the linear map A.
        params: arrays with a leading axis of N systems.
        bs: right-hand sides with a leading axis of N; a vector (n,), or a pytree of such, is
            shared by all systems.
        order: the permutation in which they are solved, as from `sort_systems`; None: as given.
            Systems that a traced ``order`` leaves out come back as NaN, with a negative status.
        num_chains: chains that run side by side, 1 to N. Over devices: the whole call under
            ``shard_map`` (with ``check_vma=False``), a chain a device; nothing travels.
        preconditioner: what one entry of ``params`` makes of itself: the solver's
            ``preconditioner`` for that system. One for all is bound to ``solver``.

    Returns:
        ``(xs, infos)``, N along the leading axis, in the order of ``params``.

    Raises:
        ValueError: no system, leading axes that differ, an ``order`` that is not (N,) or, where
            its values are known, no permutation, or a ``num_chains`` out of bounds.
    """
    num = _num_systems(params)
    bs = jax.tree.map(jnp.asarray, bs)
    shared = all(leaf.ndim == 1 for leaf in jax.tree.leaves(bs))
    if not shared and _num_systems(bs) != num:
        raise ValueError(f"{num} systems in params, {_num_systems(bs)} right-hand sides in bs")
    order = _permutation(order, num)
    num_chains = check_count("num_chains", num_chains, 1, num)

    def solve_one(params, b, **options):
        if preconditioner is not None:
            options["preconditioner"] = preconditioner(params)
        return solver(operator(params), b, **options)

    def solve(space, index):
        here = jnp.minimum(index, num - 1)
        b = bs if shared else jax.tree.map(lambda leaf: leaf[here], bs)
        b = jax.tree.map(lambda leaf: jnp.where(index < num, leaf, 0), b)
        solution, space = solve_one(jax.tree.map(lambda leaf: leaf[here], params), b, recycle=space)
        return space, solution

    def cold(index):
        b = bs if shared else jax.tree.map(lambda leaf: leaf[index], bs)
        return solve_one(jax.tree.map(lambda leaf: leaf[index], params), b)[1]

    shapes = jax.eval_shape(cold, jnp.int32(0))
    empty = jax.tree.map(jnp.zeros_like, shapes)
    chains = _chains(order, num, num_chains)
    scan = partial(jax.lax.scan, solve, empty)
    _, solutions = jax.vmap(scan)(chains) if num_chains > 1 else scan(chains[0])
    return _in_callers_order(solutions, order, batched=num_chains > 1)


def _scaled(features: Array) -> Array:
    """Floating-point features of largest entry one, so that squares neither overflow nor vanish."""
    features = features.astype(jnp.result_type(features, jnp.float32))
    size = jnp.abs(features)
    largest = jnp.max(jnp.where(jnp.isfinite(size), size, 0), initial=0)
    return features / jnp.where(largest > 0, largest, 1)


def _permutation(order: Any, num: int) -> Array:
    """The order as an array; wrong ones are refused as far as they are known."""
    if order is None:
        return jnp.arange(num)
    if np.shape(order) != (num,):
        raise ValueError(f"order must have shape ({num},), got {np.shape(order)}")
    if not isinstance(order, Tracer):
        values = np.asarray(order)
        if not np.array_equal(np.sort(values), np.arange(num)):
            raise ValueError(f"order must be a permutation of 0 .. {num - 1}, got {values}")
    return jnp.asarray(order, jnp.int32)


def _greedy(features: Array, unused: Array, start: Array) -> Array:
    """Indices of the unused features: the nearest to ``start``, the nearest to that, and so on."""
    farthest = jnp.finfo(features.dtype).max

    def step(carry, _):
        here, unused = carry
        distances = jnp.sum(jnp.abs(features - here) ** 2, axis=1)
        distances = jnp.nan_to_num(distances, nan=farthest, posinf=farthest)
        nearest = jnp.argmin(jnp.where(unused, distances, jnp.inf)).astype(jnp.int32)
        return (features[nearest], unused.at[nearest].set(False)), nearest

    return jax.lax.scan(step, (start, unused), length=len(features))[1]


def _greedy_in_chunks(features: Array, order: Array) -> Array:
    """The order made greedy among each _CHUNK in a row, every chunk from the end of the last."""
    num = len(order)
    chunk = min(_CHUNK, num)
    padding = -num % chunk
    chunks = jnp.concatenate([order, jnp.full(padding, -1, order.dtype)]).reshape(-1, chunk)

    def sort(here, indices):
        rows = features[indices]
        found = indices[_greedy(rows, indices >= 0, here)]
        last = jnp.sum(indices >= 0) - 1
        return features[found[last]], found

    _, found = jax.lax.scan(sort, features[order[0]], chunks)
    return found.ravel()[:num]


def _low_frequencies(features: Array) -> Array:
    """Of fields their products with few long waves along both axes; of others all, flat."""
    if features.ndim >= 3:
        rows, columns = (jnp.asarray(_waves(size), features.dtype) for size in features.shape[-2:])
        features = matmul(matmul(rows, features), columns.T)
    return features.reshape(len(features), -1)


def _waves(size: int) -> np.ndarray:
    """The first rows of the discrete Fourier transform as sines and cosines."""
    angles = 2 * np.pi / size * np.outer(np.arange(min(_BLOCK, size)), np.arange(size))
    return np.concatenate([np.cos(angles), np.sin(angles)])


def _principal(features: Array) -> Float[Array, "N c"]:
    """The leading principal components; a complex feature counts as two real ones."""
    if jnp.iscomplexobj(features):
        features = jnp.concatenate([features.real, features.imag], axis=1)
    centred = features - jnp.mean(features, axis=0)
    rank = min(_COMPONENTS, *centred.shape)
    U, values, _ = randomized_svd(jax.random.key(0), centred, rank)
    return U * values


def _cell_rank(components: Float[Array, "N c"]) -> Integer[Array, " N"]:
    """Where a reflected order visits the cell of each point: neighbouring cells follow each other.

    The box of all points is halved as often as there are components, each time along the longest
    side of the cells: along every axis once where the spread is the same.
    """
    low, high = jnp.min(components, axis=0), jnp.max(components, axis=0)
    width = high - low

    def halve(_, parts):
        return parts.at[jnp.argmax(width / parts)].multiply(2)

    num = components.shape[1]
    parts = jax.lax.fori_loop(0, num, halve, jnp.ones(num, jnp.int32))
    share = (components - low) / jnp.where(width > 0, width, 1)
    digits = jnp.clip(jnp.floor(share * parts).astype(jnp.int32), 0, parts - 1)
    rank = jnp.zeros(len(components), jnp.int32)
    for axis in range(num):  # the first component decides first
        digit = digits[:, axis]
        digit = jnp.where(rank % 2 == 1, parts[axis] - 1 - digit, digit)
        rank = rank * parts[axis] + digit
    return rank


def _chains(order: Array, num: int, num_chains: int) -> Array:
    """The order in rows; ``num`` stands for no system."""
    length = -(-num // num_chains)
    padding = jnp.full(length * num_chains - num, num, order.dtype)
    return jnp.concatenate([order, padding]).reshape(num_chains, length)


def _in_callers_order(solutions: PyTree, order: Array, *, batched: bool) -> Any:
    num = len(order)
    nowhere = jnp.iinfo(jnp.int32).max
    positions = jnp.full(num, nowhere).at[order].set(jnp.arange(num, dtype=jnp.int32))

    def gather(leaf):
        leaf = leaf.reshape(-1, *leaf.shape[2:]) if batched else leaf
        return leaf.at[positions].get(mode="fill")

    xs, infos = jax.tree.map(gather, solutions)
    return xs, infos


def _num_systems(tree: PyTree) -> int:
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(jax.tree.map(jnp.asarray, tree))}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        raise ValueError(f"need one common leading axis of systems, got {sorted(sizes)}")
    return sizes.pop()[0]
