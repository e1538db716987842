"""Orthonormal bases that grow by one vector at a time, stored as the rows of flat matrices.

Rows, because a product with a matrix (m, n) of long rows runs at the memory's speed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import normalized
from subspace_jax.krylov._operands import (
    check_count,
    check_same_spaces,
    linear_map,
    traced,
    vector,
)
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, LinearMap, PyTree

RETRY = 0.5
"""A pass of Gram-Schmidt that leaves less than this of a vector is done again."""

ROUNDINGS = 30
"""What is left of a product is nothing below so many of them: its own sums have that error."""


class Flat(NamedTuple):
    """A linear map on flat vectors, apart from the arrays that it depends on."""

    product: Callable[[tuple, Array], Array]
    """(constants, x) -> A x."""
    constants: tuple

    def __call__(self, x: Array) -> Array:
        """The product A x."""
        return self.product(self.constants, x)

    def frozen(self) -> "Flat":
        """The map without derivatives by its constants."""
        return self._replace(constants=jax.lax.stop_gradient(self.constants))


class Start(NamedTuple):
    """A start vector, flat, and the way back to its pytree."""

    x: Array
    unravel: Callable[[Array], PyTree]

    def columns(self, rows: Array) -> PyTree:
        """The rows (k, n) as a pytree with k columns on the last axis of every leaf."""
        return jax.vmap(self.unravel, 0, -1)(rows)


def start_vector(name: str, x: PyTree) -> Start:
    """The vector, flat.

    Raises:
        ValueError: as in `vector`.
    """
    return Start(*ravel_pytree(vector(name, x)))


def flat_map(name: str, A: LinearMap, v0: PyTree) -> Flat:
    """A square map on the space of ``v0``, its Python code run once.

    Raises:
        ValueError: as in `traced`.
    """
    v0 = vector("v0", v0)
    return flattened(traced(name, A, v0), v0)


def flattened(apply: Callable[[PyTree], PyTree], like: PyTree) -> Flat:
    """The map of pytrees as one of flat vectors."""
    x, unravel = ravel_pytree(like)
    converted, constants = jax.closure_convert(lambda x: tree.ravel(apply(unravel(x))), x)
    return Flat(lambda constants, x: converted(x, *constants), tuple(constants))


def rectangular(A: LinearMap, AT: LinearMap, v0: PyTree) -> tuple[Flat, Flat, Start, Start]:
    """A and its adjoint on flat vectors, the start, and zero in the space of A's results.

    Raises:
        ValueError: not linear maps, or ones that do not fit ``v0`` and each other.
    """
    v0 = vector("v0", v0)
    apply, adjoint = linear_map("A", A), linear_map("AT", AT)
    shape = getattr(A, "shape", None)
    if shape is not None and (len(shape) != 2 or jnp.shape(v0) != tuple(shape[1:])):
        raise ValueError(f"A has shape {shape}, v0 {jnp.shape(v0)}")
    image = jax.eval_shape(apply, v0)
    zeros = jax.tree.map(jnp.zeros_like, image)
    back = jax.eval_shape(adjoint, image)
    check_same_spaces("the result of AT", back, "v0", v0)
    start, end = start_vector("v0", v0), start_vector("the result of A", zeros)
    return flattened(apply, v0), flattened(adjoint, zeros), start, end


def coefficients(V: Array, w: Array) -> Array:
    """The inner products <v_i, w> with the rows of V."""
    return matmul(V, w.conj()).conj()  # V is long, w short to conjugate


def remove(blocks: tuple[Array, ...], w: Array) -> tuple[Array, Array]:
    """One pass of classical Gram-Schmidt: the coefficients <v_i, w>, and w without them."""
    h = [coefficients(V, w) for V in blocks]
    for a, V in zip(h, blocks, strict=True):
        w = w - matmul(a, V)
    return jnp.concatenate(h), w


def orthogonalize(
    blocks: tuple[Array, ...], w: Array, size: Any
) -> tuple[Array, Array, Array, Array]:
    """(h, v, norm, dead) with w = sum_i h_i v_i + norm v and v a unit vector orthogonal to all v_i.

    A second pass runs where the first took most of w away. If that one does so too, or what is left
    is rounding beside ``size``, w lay in the span: ``dead``, and v and the norm are zero.

    Reference: Daniel, Gragg, Kaufman & Stewart (1976); Giraud et al. (2005).
    """
    before = tree.norm(w)
    h, w = remove(blocks, w)
    first = tree.norm(w)

    def again(h, w):
        more, w = remove(blocks, w)
        return h + more, w, tree.norm(w)

    h, w, norm = jax.lax.cond(first < RETRY * before, again, lambda h, w: (h, w, first), h, w)
    dead = (norm < RETRY * first) | (norm <= ROUNDINGS * jnp.finfo(norm.dtype).eps * size)
    norm = jnp.where(dead, 0, norm)
    return h, jnp.where(dead, 0, w / jnp.where(dead, 1, norm)), norm, dead


def refill(blocks: tuple[Array, ...], like: Array, index: Any) -> Array:
    """A unit vector orthogonal to all rows: what goes on where a Krylov space has ended."""
    w = jax.random.normal(jax.random.fold_in(jax.random.key(0), index), like.shape, like.dtype)
    for _ in range(2 if blocks else 0):
        w = remove(blocks, w / tree.norm(w))[1]
    return w / tree.norm(w)


def unit(x: Array) -> Array:
    """The vector x / |x|; some unit vector if x is zero."""
    norm = tree.norm(x)
    return jax.lax.cond(norm == 0, lambda: refill((), x, 0), lambda: normalized(x, norm))


def sections(num_steps: int, first: int = 32) -> list[int]:
    """Row counts of the blocks that a basis grows in: 32, 32, 64, 128 ..., in all ``num_steps``.

    A step multiplies the whole of its block, zeros included; blocks of their own keep that little,
    and reverse mode stores one block a step, not the basis.
    """
    sizes, total = [], 0
    while total < num_steps:
        sizes.append(min(max(first, total), num_steps - total))
        total += sizes[-1]
    return sizes


def in_sections(
    step: Callable[..., tuple[Any, Any]], carry: Any, shapes: tuple[tuple[int, Any], ...], num: int
) -> tuple[Any, list[tuple[Array, ...]], Any]:
    """Scans of ``step(done, (blocks, carry), j) -> ((blocks, carry), y)``, a scan for each section.

    ``shapes`` are (length, dtype) of the rows of each basis. Back come the carry, the blocks of
    each basis, and the outputs, whose last axes are padded to ``num`` where they are shorter.
    """
    done, outputs = [() for _ in shapes], []
    for size in sections(num):
        blocks = tuple(jnp.zeros((size, n), dtype) for n, dtype in shapes)

        def body(carry, j, done=tuple(done)):
            return step(done, carry, j)

        (blocks, carry), y = jax.lax.scan(body, (blocks, carry), jnp.arange(size))
        done = [(*old, new) for old, new in zip(done, blocks, strict=True)]
        outputs.append(jax.tree.map(lambda leaf: _padded(leaf, num), y))
    return carry, done, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)


def _padded(leaf: Array, num: int) -> Array:
    if leaf.ndim < 2:
        return leaf
    return jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, num - leaf.shape[-1])])


def check_num_steps(num_steps: int, dimension: int) -> int:
    """The number of steps.

    Raises:
        ValueError: it is no integer in 1..n.
    """
    return check_count("num_steps", num_steps, 1, dimension)
