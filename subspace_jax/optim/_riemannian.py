"""First-order optimizers on manifolds, as optax transformations.

The update is u with p + u on the manifold, so `optax.apply_updates` lands on it and
`optax.partition` trains manifold and Euclidean leaves together. Two rules follow from that:

- Nothing may come *after* these transformations in a chain: what rescales or decays an update
  (`optax.scale`, `add_decayed_weights`, `lookahead`) leaves the manifold. The learning rate and its
  schedule are therefore arguments. Clipping and accumulating gradients come before. Weight decay
  has no meaning on a compact manifold. An average of frames is no frame: `linalg.orthonormalize`
  it.
- Parameters must be float32 or finer: p + u in bfloat16 is off the manifold by its rounding, and
  small steps are lost.

A complex gradient is expected as `jax.grad` gives it, conjugated.

Frames are columns (..., n, k). On a CPU a step on many thin float32 frames, k up to 24, stores them
as rows meanwhile, in which their products take half the time; elsewhere it does not.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from subspace_jax.linalg._matmul import matmul
from subspace_jax.manifolds import Manifold, grassmann
from subspace_jax.manifolds._manifold import InRows, gradient, zero_tangent
from subspace_jax.optim._chunks import in_chunks
from subspace_jax.typing import Array, Float, Key, PyTree

Transport = Literal["projection", "parallel", "ambient"]
IsPoint = Callable[[Any], bool]


class RiemannianState(NamedTuple):
    """State of the optimizers here: arrays only."""

    num_steps: Array
    """int32, steps done."""
    momentum: PyTree
    """Like the parameters; an empty tuple without momentum."""
    second_moment: PyTree
    """`riemannian_adam`: one number a subspace; else an empty tuple."""


def riemannian_sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.0,
    *,
    manifold: Manifold,
    nesterov: bool = False,
    transport: Transport = "projection",
    max_angle: float | None = math.pi / 2,
    is_point: IsPoint | None = None,
) -> optax.GradientTransformation:
    """Gradient descent along the manifold, with heavy-ball or Nesterov momentum.

    With the buffer b, the gradient g and the projector P onto the tangents at the new point
    (where the metric is not that of the ambient space, g is the manifold's own gradient):
    "projection" keeps b = P(momentum b + g); "parallel" the same, but b is carried along the step
    by the manifold's transport; "ambient" sums raw gradients, b = momentum b + g, and projects
    them when they are used, as the released code of Grassmann class representations does. The
    ambient buffer depends on how the loss goes on off the manifold: it stalls where the others
    converge (PCA), and is steadier at learning rates that are too large for them.

    Args:
        learning_rate: a number, or an optax schedule of the step count.
        momentum: of the buffer; 0 keeps none.
        manifold: `manifolds.grassmann` or the like; every leaf (..., n, k) holds points of it.
        nesterov: look ahead along the buffer.
        transport: how the buffer follows the point.
        max_angle: longest step, in the manifold's norm; for Grassmann it keeps every principal
            angle of a step below itself. None: no limit.
        is_point: where points are themselves pytrees (a product), what tells one.

    Returns:
        The transformation; its ``update`` needs ``params``.

    Raises:
        ValueError: an unknown ``transport``, or a negative momentum; from ``update`` where
            ``params`` is None or coarser than float32.

    Reference: Zhang & Sra (2016); Wang, Li & Zhang (2023), "Grassmann class representation".
    """
    _check_options(transport, ("projection", "parallel", "ambient"), momentum)

    def heavy_ball(manifold, rate, p, g, b):
        project, own = manifold.project_tangent, getattr(manifold, "gradient", None)
        g = _true(g)
        if transport == "parallel":
            g = gradient(manifold, p, g)
        elif transport == "projection" and own:
            g = own(p, g)
        b = _combine(momentum, b, 1.0, g)  # projected together: one projection for both
        b = project(p, b) if transport == "projection" else b
        v = _combine(momentum, b, 1.0, g) if nesterov else b
        if transport == "ambient":
            v = gradient(manifold, p, v)
        elif nesterov and transport == "projection":
            v = project(p, v)
        u, step = _step(manifold, max_angle, rate, p, v)
        return u, manifold.transport(p, step, b) if transport == "parallel" else b

    def descend(manifold, rate, p, g):
        return _step(manifold, max_angle, rate, p, gradient(manifold, p, _true(g)))[:1]

    def init(params):
        if not momentum:
            buffers = ()
        elif transport == "ambient":
            buffers = jax.tree.map(jnp.zeros_like, params)
        else:
            buffers = _zero_tangents(manifold, params, is_point)
        return RiemannianState(jnp.int32(0), buffers, ())

    def update(updates, state, params=None):
        points, split, join = _points(params, is_point)
        rate = _rate(learning_rate, state.num_steps)
        operands = [points, split(updates)] + ([split(state.momentum)] if momentum else [])
        moved = _moved(manifold, heavy_ball if momentum else descend, rate, operands)
        columns = zip(*moved, strict=True) if moved else [()] * (2 if momentum else 1)
        u, *buffers = (join(column) for column in columns)
        buffers = buffers[0] if momentum else ()
        return u, RiemannianState(state.num_steps + 1, buffers, ())

    return optax.GradientTransformation(init, update)


def riemannian_adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    manifold: Manifold,
    transport: Literal["projection", "parallel"] = "projection",
    max_angle: float | None = math.pi / 2,
    is_point: IsPoint | None = None,
) -> optax.GradientTransformation:
    """Adam with one second moment a subspace: the squared norm of the Riemannian gradient.

    A second moment of each entry would depend on the frame and is no tangent's; one number does
    not, and needs no transport. The length of a step is about ``learning_rate``, an angle.

    Args:
        learning_rate: a number, or an optax schedule of the step count.
        b1: decay of the first moment, a tangent.
        b2: decay of the second moment.
        eps: added to its root.
        manifold: as in `riemannian_sgd`.
        transport: as in `riemannian_sgd`.
        max_angle: as in `riemannian_sgd`.
        is_point: as in `riemannian_sgd`.

    Returns:
        The transformation; its ``update`` needs ``params``.

    Raises:
        ValueError: as `riemannian_sgd`; "ambient" is not offered.

    Reference: Bécigneul & Ganea (2019), "Riemannian adaptive optimization methods".
    """
    _check_options(transport, ("projection", "parallel"), b1)

    def move(manifold, rates, p, g, m, s):
        rate, first, second = rates
        g = gradient(manifold, p, _true(g))
        m = m if transport == "parallel" else manifold.project_tangent(p, m)
        m = _combine(b1, m, 1 - b1, g)
        s = b2 * s + (1 - b2) * manifold.norm(p, g) ** 2
        scale = rate / (first * (jnp.sqrt(s / second) + eps))
        u, step = _step(manifold, max_angle, scale, p, m)
        return u, manifold.transport(p, step, m) if transport == "parallel" else m, s

    def init(params):
        points, _, join = _points(params, is_point)
        norms = join(jnp.zeros_like(manifold.norm(p, zero_tangent(manifold, p))) for p in points)
        return RiemannianState(jnp.int32(0), _zero_tangents(manifold, params, is_point), norms)

    def update(updates, state, params=None):
        points, split, join = _points(params, is_point)
        steps = (state.num_steps + 1).astype(jnp.result_type(float))
        rates = _rate(learning_rate, state.num_steps), 1 - b1**steps, 1 - b2**steps
        operands = points, *map(split, (updates, state.momentum, state.second_moment))
        moved = _moved(manifold, move, rates, operands)
        columns = zip(*moved, strict=True) if moved else [()] * 3
        u, m, s = (join(column) for column in columns)
        return u, RiemannianState(state.num_steps + 1, m, s)

    return optax.GradientTransformation(init, update)


def check_invariance(
    key: Key, loss: Callable[[PyTree], Float[Array, ""]], p: PyTree
) -> Float[Array, ""]:
    """The change |loss(Q O) - loss(Q)| under a random unitary O for every leaf Q (..., n, k).

    It is rounding for a function of subspaces. Anything else belongs on `manifolds.stiefel`.

    Args:
        key: PRNG key.
        loss: the function to be checked, of a pytree of frames.
        p: the frames.
    """
    leaves, structure = jax.tree.flatten(p)
    turned = [
        _turned(key, Q) for key, Q in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
    ]
    return jnp.abs(loss(structure.unflatten(turned)) - loss(p))


def _turned(key: Key, Q: Array) -> Array:
    return matmul(Q, grassmann.random_point(key, Q.shape[-1], Q.shape[-1], dtype=Q.dtype))


def _zero_tangents(manifold: Manifold, params: PyTree, is_point: IsPoint | None) -> PyTree:
    points, _, join = _points(params, is_point)
    return join(zero_tangent(manifold, p) for p in points)


def _moved(
    manifold: Manifold, move: Callable[..., Any], rates: Any, operands: Iterable[Sequence[PyTree]]
) -> list[Any]:
    """The results of ``move(manifold, rates, p, g, ...)`` for every point p."""
    rows = getattr(manifold, "in_rows", None)
    in_rows = rows and partial(move, rows, rates)
    columns = partial(move, manifold, rates)
    return [in_chunks(columns, *xs, in_rows=in_rows) for xs in zip(*operands, strict=True)]


def _step(
    manifold: Manifold | InRows, max_angle: float | None, rate: Any, p: PyTree, v: PyTree
) -> tuple[PyTree, PyTree]:
    """The update along -rate v, and the step itself, no longer than ``max_angle``."""
    if max_angle is not None:
        length = rate * manifold.norm(p, v)
        rate = rate * jnp.where(length > max_angle, max_angle / jnp.maximum(length, max_angle), 1)
    step = _scaled(-rate, v)
    return manifold.update(p, step), step


def _scaled(a: Any, v: PyTree) -> PyTree:
    """``v`` times one number a point (a has leading axes only), in the dtypes of ``v``."""

    def scale(leaf):
        factor = jnp.asarray(a)
        return (factor.reshape(*factor.shape, *[1] * (leaf.ndim - factor.ndim)) * leaf).astype(
            leaf.dtype
        )

    return jax.tree.map(scale, v)


def _combine(a: float, x: PyTree, b: float, y: PyTree) -> PyTree:
    return jax.tree.map(lambda u, v: a * u + b * v, x, y)


def _true(gradient: PyTree) -> PyTree:
    """The direction of steepest ascent: `jax.grad` gives its conjugate."""
    return jax.tree.map(jnp.conj, gradient)


def _rate(learning_rate: optax.ScalarOrSchedule, count: Array) -> Any:
    return learning_rate(count) if callable(learning_rate) else learning_rate


def _points(
    params: PyTree, is_point: IsPoint | None
) -> tuple[list[PyTree], Callable[[PyTree], list[PyTree]], Callable[..., PyTree]]:
    """The points in ``params``, and how trees like it are taken apart and put together.

    Raises:
        ValueError: no parameters, or parameters coarser than float32.
    """
    if params is None:
        raise ValueError("a Riemannian optimizer needs params: call update(grads, state, params)")
    for leaf in jax.tree.leaves(params):
        if jnp.finfo(leaf.dtype).eps > jnp.finfo(jnp.float32).eps:
            raise ValueError(
                f"a frame needs float32 or finer, got {leaf.dtype}: keep a float32 copy"
            )
    leaves, structure = jax.tree.flatten(params, is_leaf=is_point)
    return leaves, structure.flatten_up_to, structure.unflatten


def _check_options(transport: str, allowed: tuple[str, ...], momentum: float) -> None:
    if transport not in allowed:
        raise ValueError(f"transport must be one of {allowed}, got {transport!r}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in 0 <= momentum < 1, got {momentum}")
