"""Many similar systems: in which order, and one after another with recycling.

Reference: Wang, Hao, Wang, Geng, Wang, Li & Wu (2024), "Accelerating data generation for neural
operators via Krylov subspace recycling" (SKR).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax.krylov._operands import check_count
from subspace_jax.krylov._solution import Info
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Inexact, Integer, LinearMap, PyTree

__all__ = ["solve_sequence", "sort_systems"]

_BLOCK = 12
"""Low frequencies an axis that tell fields apart."""
_COMPONENTS = 7
_CHUNK = 512


def sort_systems(
    features: Inexact[Array, "N *shape"] | Inexact[np.ndarray, "N *shape"],
    *,
    max_greedy: int = 10_000,
) -> Integer[Array, " N"]:
    """An order in which neighbours are similar: from the first on, always to the nearest unused.

    It pays where the features span few dimensions; among independent high-dimensional fields all
    distances are alike. O(N^2 p) work, O(N) memory beside the features.

    More than ``max_greedy`` systems are first brought into the order of cells: the signs of seven
    principal components (of the low frequencies, where the features are fields (N, s, t)),
    neighbouring cells by a reflected Gray code; the nearest is then looked for among 512 at a time.

    Args:
        features: what tells the systems apart, in the Euclidean norm, such as their coefficients.
        max_greedy: most systems for which all distances are computed.

    Returns:
        A permutation of 0 .. N - 1; it has no derivative.

    Raises:
        ValueError: no system, or features without a leading axis.

    Reference: Wang et al. (2024), algorithm 1 and appendix E.2.2.
    """
    features = jnp.asarray(features)
    if features.ndim == 0 or len(features) == 0:
        raise ValueError(f"features need a leading axis of systems, got shape {features.shape}")
    features = jax.lax.stop_gradient(features)
    flat = features.reshape(len(features), -1)
    if len(features) <= max_greedy:
        return _greedy(flat, jnp.arange(len(flat)) >= 0, flat[0])
    order = jnp.argsort(_gray_rank(_principal(_low_frequencies(features))), stable=True)
    return _greedy_in_chunks(flat, order.astype(jnp.int32))


def solve_sequence(
    solver: Callable[..., Any],
    operator: Callable[[PyTree], LinearMap],
    params: PyTree,
    bs: PyTree,
    *,
    order: Integer[Array, " N"] | None = None,
    num_chains: int = 1,
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
        num_chains: chains that run side by side, 1 to N. Over devices: the whole call under
            ``shard_map`` (with ``check_vma=False``), a chain a device; nothing travels.

    Returns:
        ``(xs, infos)``, N along the leading axis, in the order of ``params``.

    Raises:
        ValueError: leading axes that differ, an ``order`` that is not (N,), or a ``num_chains``
            out of bounds.
    """
    num = _num_systems(params)
    bs = jax.tree.map(jnp.asarray, bs)
    shared = all(leaf.ndim == 1 for leaf in jax.tree.leaves(bs))
    if not shared and _num_systems(bs) != num:
        raise ValueError(f"{num} systems in params, {_num_systems(bs)} right-hand sides in bs")
    if order is not None and order.shape != (num,):
        raise ValueError(f"order must have shape ({num},), got {order.shape}")
    num_chains = check_count("num_chains", num_chains, 1, num)

    def solve(space, index):
        here = jnp.minimum(index, num - 1)
        b = bs if shared else jax.tree.map(lambda leaf: leaf[here], bs)
        b = jax.tree.map(lambda leaf: jnp.where(index < num, leaf, 0), b)
        A = operator(jax.tree.map(lambda leaf: leaf[here], params))
        solution, space = solver(A, b, recycle=space)
        return space, solution

    def cold(index):
        A = operator(jax.tree.map(lambda leaf: leaf[index], params))
        return solver(A, bs if shared else jax.tree.map(lambda leaf: leaf[index], bs))[1]

    shapes = jax.eval_shape(cold, jnp.int32(0))
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    order = jnp.arange(num) if order is None else order
    chains = _chains(order, num, num_chains)
    scan = partial(jax.lax.scan, solve, empty)
    _, solutions = jax.vmap(scan)(chains) if num_chains > 1 else scan(chains[0])
    return _in_callers_order(solutions, order, batched=num_chains > 1)


def _greedy(features: Array, unused: Array, start: Array) -> Array:
    """Indices of the unused features: the nearest to ``start``, the nearest to that, and so on."""

    def step(carry, _):
        here, unused = carry
        distances = jnp.sum(jnp.abs(features - here) ** 2, axis=1)
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
    if features.ndim < 3:
        return features.reshape(len(features), -1)
    spectrum = jnp.fft.fft2(features)[..., :_BLOCK, :_BLOCK].reshape(len(features), -1)
    return jnp.concatenate([spectrum.real, spectrum.imag], axis=1)


def _principal(features: Array) -> Float[Array, "N c"]:
    """The leading principal components; a complex feature counts as two real ones."""
    if jnp.iscomplexobj(features):
        features = jnp.concatenate([features.real, features.imag], axis=1)
    centred = features - jnp.mean(features, axis=0)
    _, vectors = jnp.linalg.eigh(matmul(centred.T, centred))
    return matmul(centred, vectors[:, -_COMPONENTS:])


def _gray_rank(components: Float[Array, "N c"]) -> Integer[Array, " N"]:
    """Where a Gray code visits the cell of each point, the box of all cut in half along each axis.

    The bits are those of a reflected code; the rank is their running exclusive or.
    """
    low, high = jnp.min(components, axis=0), jnp.max(components, axis=0)
    bits = (components > (low + high) / 2)[:, ::-1]  # the first component decides first
    binary = jnp.cumsum(bits, axis=1) % 2
    return jnp.sum(binary * 2 ** jnp.arange(bits.shape[1])[::-1], axis=1)


def _chains(order: Array, num: int, num_chains: int) -> Array:
    """The order in rows; ``num`` stands for no system."""
    length = -(-num // num_chains)
    padding = jnp.full(length * num_chains - num, num, order.dtype)
    return jnp.concatenate([order, padding]).reshape(num_chains, length)


def _in_callers_order(solutions: PyTree, order: Array, *, batched: bool) -> Any:
    num = len(order)
    positions = jnp.zeros(num, jnp.int32).at[order].set(jnp.arange(num, dtype=jnp.int32))

    def gather(leaf):
        leaf = leaf.reshape(-1, *leaf.shape[2:]) if batched else leaf
        return leaf[positions]

    xs, infos = jax.tree.map(gather, solutions)
    return xs, infos


def _num_systems(tree: PyTree) -> int:
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(jax.tree.map(jnp.asarray, tree))}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(f"need one common leading axis of systems, got {sorted(sizes)}")
    return sizes.pop()[0]
