"""How much of a direction lies in a subspace of the parameters, and how alike two of them are.

A basis is a pytree like the parameters, with k orthonormal columns on a further, last axis of every
leaf, as `top_eigenspace` returns it.
"""

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, PyTree

__all__ = ["component", "gradient_fraction", "overlap"]


def gradient_fraction(basis: PyTree, grads: PyTree) -> Float[Array, ""]:
    """The share |V^T g|^2 / |g|^2 of a gradient that lies in the span of the basis; of zero, zero.

    A random direction has k / D of it.

    Args:
        basis: V, orthonormal columns on the last axis of every leaf.
        grads: g, like the parameters; or anything else, such as the parameters' own change.

    Raises:
        ValueError: trees that do not fit.

    Reference: Gur-Ari, Roberts & Dyer (2018), "Gradient descent happens in a tiny subspace".
    """
    largest = jnp.stack([jnp.max(jnp.abs(g), initial=0) for g in jax.tree.leaves(grads)]).max()
    scale = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    grads = jax.tree.map(lambda g: g / scale, grads)  # or squares of small ones were lost
    square = tree.vdot(grads, grads).real
    inside = jnp.sum(jnp.abs(_coordinates(basis, grads)) ** 2)
    return inside / jnp.where(square > 0, square, 1)


def component(basis: PyTree, grads: PyTree) -> PyTree:
    """The part V V^T g of a gradient in the span of the basis; g less it is the rest.

    Descent along one or the other shows which of them trains.

    Raises:
        ValueError: trees that do not fit.
    """
    inside = _coordinates(basis, grads)
    return jax.tree.map(lambda V: matmul(V, inside[:, None])[..., 0], basis)


def overlap(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """The overlap tr(P P') / sqrt(tr P tr P') of two subspaces, in [0, 1]: the mean cosine squared.

    Args:
        a: a basis of k columns.
        b: a basis of l columns.

    Raises:
        ValueError: trees that do not fit.

    Reference: Gur-Ari, Roberts & Dyer (2018), equation (4).
    """
    columns = [jax.tree.leaves(basis)[0].shape[-1] for basis in (a, b)]
    like_a = jax.tree.map(lambda V: V[..., 0], a)
    tree.check_same_shapes("a", like_a, "b", jax.tree.map(lambda V: V[..., 0], b))
    products = jax.vmap(lambda one: _coordinates(a, one), in_axes=-1)(b)
    return jnp.sum(jnp.abs(products) ** 2) / jnp.sqrt(columns[0] * columns[1])


def _coordinates(basis: PyTree, x: PyTree) -> Array:
    """V^H x, (k,)."""
    tree.check_same_shapes(
        "a column of the basis", jax.tree.map(lambda V: V[..., 0], basis), "x", x
    )

    def part(V, leaf):
        return matmul(V.reshape(-1, V.shape[-1]).conj().T, leaf.reshape(-1))

    return jax.tree.reduce(jnp.add, jax.tree.map(part, basis, x))
