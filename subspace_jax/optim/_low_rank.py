"""Optimizers whose state lives in a low-rank subspace of each matrix of parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from subspace_jax.krylov._lanes import any_lane, select
from subspace_jax.linalg import orthonormalize
from subspace_jax.linalg._matmul import matmul
from subspace_jax.optim._bases import BasisPolicy, as_policy, singular
from subspace_jax.optim._matrices import Fold, MatrixAxes, matrix_axes, matrix_of
from subspace_jax.optim._moments import rotate_moments
from subspace_jax.typing import Array, Key, PyTree


class Recovery(NamedTuple):
    """What `recover` returns."""

    limit: float


class LowRankLeaf(NamedTuple):
    """State of `low_rank` for one parameter."""

    basis: PyTree
    """(..., m, r), orthonormal columns; None for a parameter that is no matrix."""
    memory: PyTree
    """Of the basis policy."""
    inner: PyTree
    """State of the inner transformation, on the (..., r, n) of the subspace."""
    unit: PyTree
    """State of the inner transformation on a gradient of one, for ``carry="rotate"``."""
    recovered: PyTree
    """Norm of the last recovered residual, for `recover`."""


class LowRankState(NamedTuple):
    """State of `low_rank`."""

    num_steps: Array
    """int32, steps done."""
    leaves: PyTree
    """A `LowRankLeaf` in the place of each parameter."""


def recover(limit: float = 1.01) -> Recovery:
    """The residual policy that scales G - S S^T G as the inner transformation scaled S^T G.

    Column j is multiplied by |u_j| / |(S^T G)_j|, where u is the inner update; the whole may grow
    by the factor ``limit`` from one step to the next.

    Raises:
        ValueError: a limit that is not positive.

    Reference: Chen et al. (2024), "Fira", eqs. 6 and 9.
    """
    if not limit > 0:
        raise ValueError(f"limit must be positive, got {limit}")
    return Recovery(limit)


def low_rank(
    inner: optax.GradientTransformation | None = None,
    *,
    rank: int = 128,
    basis: Any = None,
    refresh_every: int = 200,
    scale: float = 1.0,
    carry: str = "keep",
    residual: str | Recovery = "drop",
    side: str = "paper",
    stagger: bool = True,
    seed: int = 0,
    rotate: Callable[[PyTree, Array], PyTree] | None = None,
    axes: Callable[[Any, Any], MatrixAxes | None] = matrix_axes,
) -> optax.GradientTransformationExtraArgs:
    """An inner transformation that sees each gradient matrix G in a moving basis: S inner(S^T G).

    For G (m, n) the basis S is (m, r), and moments take r n numbers in place of m n. It is a
    direction, as of ``optax.scale_by_adam``: chain weight decay and the learning rate after it.
    Parameters that are no matrices go through ``inner`` as they are. The state is at least float32,
    and starts from nothing but ``seed``: a run that is resumed from it ends in the same bits.

    Under ``vmap`` a basis is computed in the steps in which one of the runs needs it.

    Args:
        inner: any transformation of a gradient alone, called for each parameter by itself; None:
            ``optax.scale_by_adam()``. It gets no parameters.
        rank: r, at most min(m, n) is used of it.
        basis: policy (key, basis, grad) -> basis, such as `singular`, `sampled`, `online`, `walk`,
            `jump`, `track`, `complement`; or a pytree of policies, like the parameters. None:
            ``singular()``.
        refresh_every: steps between moves of a basis.
        scale: of S inner(S^T G): of matrices only.
        carry: what moves do to moments: "keep" them as they are, "reset" the inner state, or
            "rotate" it by the change of basis.
        residual: what becomes of G - S S^T G: "drop", "pass_through" (added as it is), or
            `recover`. The latter two need an ``inner`` that does not turn the sign around.
        side: where S multiplies: "paper": the shorter side of the matrix; "memory": the longer,
            which makes the state smaller; "rows" or "columns", whatever the shape.
        stagger: parameters take turns, so that their moves are not all in one step.
        seed: of all random numbers.
        rotate: (inner state, S'^T S) -> inner state, for "rotate" and an ``inner`` other than
            optax's moments (AdaBelief's ``nu``, a variance, is such a one).
        axes: (path, parameter) -> `MatrixAxes`, or None for what is not to be projected.

    Raises:
        ValueError: an option out of its bounds; parameters that are not real; axes that are not
            those of the parameter; with "rotate", an inner state that is not understood.

    Reference: Zhao et al. (2024), "GaLore"; the other policies name theirs.
    """
    _check_options(rank, refresh_every, carry, residual, side)
    inner = optax.with_extra_args_support(optax.scale_by_adam() if inner is None else inner)

    def leaf_init(key: Key, fold: Fold | None, policy: BasisPolicy, param: Array) -> LowRankLeaf:
        if fold is None:
            return LowRankLeaf(None, (), inner.init(_wide(param)), (), None)
        dtype = _wide(param).dtype
        basis = orthonormalize(jax.random.normal(key, fold.basis_shape, dtype))
        return LowRankLeaf(
            basis,
            fold.batched(policy.init)(basis),
            inner.init(jnp.zeros(fold.core_shape, dtype)),
            inner.init(jnp.zeros((), dtype)) if carry == "rotate" and rotate is None else (),
            jnp.zeros((), dtype) if isinstance(residual, Recovery) else None,
        )

    def moved(fold: Fold, move: Callable, key: Key, G: Array, leaf: LowRankLeaf) -> LowRankLeaf:
        """The leaf after a move of its basis; as it was if the gradient is zero or not finite."""
        keys = jax.random.split(key, fold.batch) if fold.batch else key
        new, memory = fold.batched(move)(keys, leaf.basis, G, leaf.memory)
        change = matmul(new.mT, leaf.basis)
        state = leaf.inner
        if carry == "reset":
            state = inner.init(jnp.zeros(fold.core_shape, G.dtype))
        elif carry == "rotate" and rotate is not None:
            state = rotate(state, change)
        elif carry == "rotate":
            state = rotate_moments(state, leaf.unit, change, fold.core_shape)
        after = leaf._replace(basis=new, memory=memory, inner=state)
        return select((jnp.max(jnp.abs(G)) > 0) & jnp.all(jnp.isfinite(new)), after, leaf)

    def project(fold: Fold, policy: BasisPolicy, key: Key, first, due, G, leaf, extra_args):
        """The update of one matrix and its state."""

        def begin(key, Q, grad, memory):
            del memory
            Q = (policy.first or policy)(key, Q, grad)
            return Q, policy.init(Q)

        if policy.first is None:
            due = due | first
        else:
            leaf = _when(first, lambda leaf: moved(fold, begin, key, G, leaf), leaf)
            due = due & ~first
        leaf = _when(due, lambda leaf: moved(fold, policy.move, key, G, leaf), leaf)
        core = matmul(leaf.basis.mT, G)
        step, state = inner.update(core, leaf.inner, None, **extra_args)
        step = jnp.asarray(step)
        unit = leaf.unit
        if carry == "rotate" and rotate is None:
            _, unit = inner.update(jnp.ones((), G.dtype), unit, None, **extra_args)
        update, recovered = scale * matmul(leaf.basis, step), leaf.recovered
        if residual != "drop":
            rest = G - matmul(leaf.basis, core)
            if isinstance(residual, Recovery):
                rest, recovered = _recovered(residual.limit, rest, core, step, leaf.recovered)
            update = update + rest
        return update, leaf._replace(inner=state, unit=unit, recovered=recovered)

    def init(params):
        params, folds, policies, structure = _leaves(params, rank, side, axes, basis)
        keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(len(params))]
        found = map(leaf_init, keys, folds, policies, params)
        return LowRankState(jnp.int32(0), structure.unflatten(found))

    def update(updates, state, params=None, **extra_args):
        del params
        grads, folds, policies, structure = _leaves(updates, rank, side, axes, basis)
        leaves = structure.flatten_up_to(state.leaves)
        step_key = jax.random.fold_in(jax.random.key(seed), state.num_steps)
        num, turn, found = sum(fold is not None for fold in folds), 0, []
        for i, (grad, fold, policy, leaf) in enumerate(
            zip(grads, folds, policies, leaves, strict=True)
        ):
            if fold is None:
                step, inner_state = inner.update(_wide(grad), leaf.inner, None, **extra_args)
                step = jnp.asarray(step, grad.dtype)
                found.append((step, leaf._replace(inner=inner_state)))
                continue
            phase = turn * refresh_every // num if stagger else 0
            turn, G = turn + 1, fold.fold(_wide(grad))
            first, due = state.num_steps == 0, (state.num_steps + phase) % refresh_every == 0
            key = jax.random.fold_in(step_key, i)
            step, leaf = project(fold, policy, key, first, due, G, leaf, extra_args)
            found.append((fold.unfold(step).astype(grad.dtype), leaf))
        steps, leaves = zip(*found, strict=True) if found else ((), ())
        num_steps = jnp.asarray(optax.safe_increment(state.num_steps))
        return structure.unflatten(steps), LowRankState(num_steps, structure.unflatten(leaves))

    return optax.GradientTransformationExtraArgs(init, update)


def _leaves(tree: PyTree, rank: int, side: str, axes: Callable, basis: Any) -> tuple:
    """The arrays of a tree, how each is folded, the policy of each, and the tree's structure."""
    with_paths, structure = jax.tree.flatten_with_path(tree)
    folds = [matrix_of(path, leaf, axes(path, leaf), rank, side) for path, leaf in with_paths]
    if basis is None or callable(basis):
        policies = [as_policy(basis or singular())] * len(folds)
    else:
        policies = [as_policy(policy) for policy in structure.flatten_up_to(basis)]
    return [leaf for _, leaf in with_paths], folds, policies, structure


def _when(flag: Array, change: Callable, leaf: LowRankLeaf) -> LowRankLeaf:
    """``change(leaf)`` where flagged, computed only if any lane of a vmap is."""
    return jax.lax.cond(
        any_lane(flag), lambda old: select(flag, change(old), old), lambda old: old, leaf
    )


def _recovered(limit: float, rest: Array, core: Array, step: Array, last: Array) -> tuple:
    """The scaled residual and its norm: Fira, eqs. 6 and 9."""
    sizes = jnp.linalg.norm(core, axis=-2, keepdims=True)
    scale = jnp.linalg.norm(step, axis=-2, keepdims=True) / jnp.where(sizes > 0, sizes, 1)
    rest = rest * scale
    size = jnp.linalg.norm(rest)
    bound = jnp.where(last > 0, limit * last, size)
    shrink = jnp.where(size > bound, bound / jnp.where(size > 0, size, 1), 1)
    return rest * shrink, size * shrink


def _wide(x: Array) -> Array:
    """At least in float32."""
    return jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))


def _check_options(rank, refresh_every, carry, residual, side) -> None:
    if rank < 1 or refresh_every < 1:
        raise ValueError(f"rank and refresh_every must be positive, got {rank}, {refresh_every}")
    if carry not in ("keep", "reset", "rotate"):
        raise ValueError(f"carry must be 'keep', 'reset' or 'rotate', got {carry!r}")
    if not isinstance(residual, Recovery) and residual not in ("drop", "pass_through"):
        raise ValueError(f"residual must be 'drop', 'pass_through' or recover(), got {residual!r}")
    if side not in ("paper", "memory", "rows", "columns"):
        raise ValueError(f"side must be 'paper', 'memory', 'rows' or 'columns', got {side!r}")
