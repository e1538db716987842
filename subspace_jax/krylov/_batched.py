"""Many systems without making all wait for the slowest."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from subspace_jax.krylov._operands import check_count
from subspace_jax.typing import PyTree


def batched(solver: Callable[..., Any], *, chunk: int = 1) -> Callable[..., Any]:
    """The solver mapped over the leading axis of all its arguments, ``chunk`` systems at a time.

    Under ``vmap`` a batch runs until its slowest system is done. Here only a chunk does: the rest
    of the batch comes after it, in one compiled loop. On a CPU ``chunk=1``, one system after
    another with its vectors in the cache, is usually the fastest; on a GPU take enough systems to
    fill it. Sort systems by expected difficulty, and chunks are even.

    Args:
        solver: ``f(*operands) -> value``, for one system: `cg` itself for a batch of matrices,
            or a lambda that builds the operator from its operands and calls a solver.
        chunk: systems that run in lock step, >= 1; a last, smaller chunk takes what is left.

    Returns:
        A function of operands with one leading axis more, as ``jax.vmap(solver)`` is; it can be
        jitted, differentiated and mapped. Keywords go to the solver as they are.

    Raises:
        ValueError: ``chunk`` < 1; on the call, leading axes that differ.
    """
    chunk = check_count("chunk", chunk, 1)

    def solve_all(*operands: PyTree, **options: Any) -> Any:
        sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(operands)}
        if len(sizes) != 1 or sizes == {()}:
            raise ValueError(f"operands need one common leading axis, got {sorted(sizes)}")
        ((size,),) = sizes
        if chunk >= size:
            return jax.vmap(partial(solver, **options))(*operands)
        batch_size = chunk if chunk > 1 else None
        return jax.lax.map(lambda xs: solver(*xs, **options), operands, batch_size=batch_size)

    return solve_all
