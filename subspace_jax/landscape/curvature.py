"""The Hessian and the second moment of gradients as linear maps, and their leading eigenspaces."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov import Solution, eigsh
from subspace_jax.linalg import operators
from subspace_jax.typing import Array, Key, PyTree

__all__ = ["gradient_second_moment", "hessian", "top_eigenspace"]


def hessian(
    loss: Callable[..., Array], params: PyTree, batches: PyTree | None = None
) -> Callable[[PyTree], PyTree]:
    """The map v -> H v, H the Hessian of a scalar loss at ``params``, forward over reverse.

    A product takes about four evaluations of the loss, and the memory of one minibatch.

    Args:
        loss: params -> scalar; with ``batches`` (params, batch) -> scalar.
        params: real.
        batches: any pytree, with an axis of minibatches in front of every leaf: H is the mean of
            theirs, one after another.

    Raises:
        ValueError: from the map, a tree unlike ``params``.

    Reference: Pearlmutter (1994), "Fast exact multiplication by the Hessian".
    """
    return _mean_over(
        lambda *batch: operators.hvp(lambda p: loss(p, *batch), params), params, batches
    )


def gradient_second_moment(
    losses: Callable[..., Array], params: PyTree, batches: PyTree | None = None
) -> Callable[[PyTree], PyTree]:
    """The map v -> G v, G the mean of g_i g_i^T over the gradients g_i of each example's loss.

    No gradient of a single example is formed: a product is one forward and one reverse derivative.

    Args:
        losses: params -> (n,), the loss of every example; with ``batches`` (params, batch) -> (n,).
        params: real.
        batches: as in `hessian`.

    Raises:
        ValueError: losses that are no vector; from the map, a tree unlike ``params``.

    Reference: Ben Arous, Gheissari, Huang & Jagannath (2024), "High-dimensional SGD aligns with
    emerging outlier eigenspaces".
    """

    def vector(p, *batch):
        found = losses(p, *batch)
        if found.ndim != 1:
            raise ValueError(f"losses must return a vector, got shape {found.shape}")
        return found

    def moment(*batch):  # J^T J / n is the Gauss-Newton matrix of half the mean square
        return operators.ggn(lambda p: vector(p, *batch), lambda f: jnp.mean(f**2) / 2, params)

    return _mean_over(moment, params, batches)


def top_eigenspace(
    hvp: Callable[[PyTree], PyTree],
    params: PyTree,
    *,
    k: int,
    key: Key | None = None,
    which: str = "largest",
    num_basis: int | None = None,
    rtol: float | None = None,
    maxiter: int | None = None,
) -> Solution:
    """The ``k`` leading eigenpairs of a symmetric map on parameters, by restarted Lanczos.

    ``(eigenspace, info) = top_eigenspace(hessian(loss, params), params, k=10)``: in
    ``eigenspace.vectors`` every leaf of params has k columns on a further, last axis.

    Args:
        hvp: v -> H v, such as `hessian`.
        params: for structure, shapes and dtypes.
        k: number of pairs.
        key: of the random start; None: that of seed 0.
        which: see `krylov.eigsh`.
        num_basis: see `krylov.eigsh`.
        rtol: see `krylov.eigsh`.
        maxiter: see `krylov.eigsh`.

    Returns:
        `krylov.Solution` of a `krylov.Ritz` (values, vectors, residual_norms) and an `Info`.

    Raises:
        ValueError: as `krylov.eigsh`.

    Reference: Gur-Ari, Roberts & Dyer (2018), "Gradient descent happens in a tiny subspace".
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(leaves))
    shapes = ((k, jnp.shape(x), jnp.result_type(x)) for k, x in zip(keys, leaves, strict=True))
    start = structure.unflatten([jax.random.normal(*shape) for shape in shapes])
    options = {"num_basis": num_basis, "rtol": rtol, "maxiter": maxiter}
    return eigsh(hvp, start, k=k, which=which, **options)


def _mean_over(
    operator: Callable[..., Callable[[PyTree], PyTree]], params: PyTree, batches: PyTree | None
) -> Callable[[PyTree], PyTree]:
    """``operator()``, or v -> the mean of operator(batch)(v), the batches one after another."""
    if batches is None:
        return operator()
    num = len(jax.tree.leaves(batches)[0])

    def mean(v: PyTree) -> PyTree:
        tree.check_same_shapes("v", v, "params", params)

        def add(total, batch):
            return tree.axpy(1 / num, operator(batch)(v), total), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, v), batches)[0]

    return mean
