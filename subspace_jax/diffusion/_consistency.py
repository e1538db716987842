"""What a data consistency is, and the fixed number of conjugate gradient steps they share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.diffusion.operators import LinearOperator
from subspace_jax.krylov import cg
from subspace_jax.typing import Array

Jacobian = Callable[[Array], Array]
"""v -> J v ("jvp") or v -> J^T v ("vjp"), real-linear; J the denoiser's Jacobian at x."""


class DataConsistency(NamedTuple):
    """How the estimate of x_0 is made to agree with a measurement; `sample` takes one."""

    update: Callable[[Array, Callable[[str], Jacobian], Array, Any], tuple[Array, Any]]
    """(x_0, linearize, sigma, state) -> (x_0, state).

    ``linearize("vjp" | "jvp")`` is the denoiser's `Jacobian`: paid for by those that call it."""
    init: Callable[[Array], Any] = lambda x: ()
    """x -> the state before the first step."""
    direction: str = "conditional"
    """Where the next step's noise is predicted from: x_0 ("prior") or the corrected one."""


def none(x0: Array, linearize: Any, sigma: Array, state: Any) -> tuple[Array, Any]:
    """The estimate as it is."""
    del linearize, sigma
    return x0, state


def linearized(denoise: Callable[[Array], Array], x: Array) -> Callable[[str], Jacobian]:
    """The two products with the Jacobian of the denoiser at x, made when asked for.

    The adjoint is the one of Re<u, v>: on complex images a network is only real-linear.
    """

    def linearize(mode: str) -> Jacobian:
        if mode == "jvp":
            return jax.linearize(denoise, x)[1]
        pullback = jax.vjp(denoise, x)[1]
        return lambda v: pullback(v.conj())[0].conj()

    return linearize


def conjugate_gradients(
    A: Callable[[Array], Array],
    b: Array,
    x0: Array | None,
    num_steps: int,
    *,
    real: bool = False,
) -> Array:
    """That many steps towards A x = b; ``real`` if A is only real-linear on complex arrays."""
    inner = _real_inner if real and jnp.iscomplexobj(b) else None
    return cg(A, b, x0, rtol=None, maxiter=num_steps, inner_product=inner).value


def of_operator(
    op: LinearOperator,
    update: Callable[[Array, Callable[[str], Jacobian], Array, Any], tuple[Array, Any]],
    *,
    init: Callable[[Array], Any] = lambda x: (),
    direction: str = "conditional",
) -> DataConsistency:
    """The data consistency that refuses an estimate the operator cannot measure.

    Raises:
        ValueError: from its update: names both shapes.
    """

    def checked(x0, linearize, sigma, state):
        if x0.shape != tuple(op.in_shape):
            raise ValueError(f"the operator measures {tuple(op.in_shape)}, got {x0.shape}")
        jax.eval_shape(op.apply, x0)  # which refuses real images if it is for complex ones
        return update(x0, linearize, sigma, state)

    return DataConsistency(checked, init, direction)


def measurement(op: LinearOperator, y: Array) -> Array:
    """The array ``y``, if it has the shape of the operator's results.

    Raises:
        ValueError: names both shapes.
    """
    y = jnp.asarray(y)
    if y.shape != tuple(op.out_shape):
        raise ValueError(f"y must have shape {tuple(op.out_shape)}, got {y.shape}")
    return y


def at(weight: Any, sigma: Array) -> Array:
    """A number, or a function of sigma, as a scalar in the dtype of sigma."""
    return jnp.asarray(weight(sigma) if callable(weight) else weight, sigma.dtype)


def _real_inner(u: Array, v: Array) -> Array:
    return tree.vdot(u, v).real
