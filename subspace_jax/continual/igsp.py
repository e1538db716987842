"""A mixture of low-rank experts that grows only where the old ones do not serve (iGSP, a variant).

A kernel W gets the addition sum_e p_e(x) (x D_e) U_e, its router p(x) = softmax(x R) one a task. A
new task adds candidates. What flows back to an expert is weighted by its probability, so a penalty
on the probability of the new ones keeps the gradient in the span of what the old ones can do
without a projection of it (phase 1); candidates that are hardly asked for are dropped, and the
rest is trained without the penalty (phase 2). Old experts and routers stay as they are: with the
task known nothing is forgotten.

This is a variant, written from the paper's abstract: its formulas and code were not at hand.

Reference: "iGSP: Implicit gradient subspace projection for efficient continual learning of
vision-language models" (2026).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Integer, Key, PyTree

__all__ = ["Experts", "apply", "expand", "init", "new_share", "only_new", "prune", "route"]


class Experts(NamedTuple):
    """Factors of the experts in the order they were made; those past ``num_experts`` are idle."""

    down: Float[Array, "e n r"]
    up: Float[Array, "e r m"]
    num_experts: Integer[Array, ""]


def init(max_experts: int, n: int, m: int, *, rank: int, dtype: Any = jnp.float32) -> Experts:
    """No experts, and room for ``max_experts`` additions (n, m) of ``rank`` r.

    Raises:
        ValueError: a count below 1, or a rank above n or m.
    """
    if min(max_experts, rank) < 1 or rank > min(n, m):
        raise ValueError(
            f"need max_experts >= 1 and 1 <= rank <= {min(n, m)}, got {max_experts} and {rank}"
        )
    down, up = jnp.zeros((max_experts, n, rank), dtype), jnp.zeros((max_experts, rank, m), dtype)
    return Experts(down, up, jnp.zeros((), int))


def expand(key: Key, experts: Experts, num: int) -> Experts:
    """With ``num`` candidates in the next places, which add nothing yet and can be trained.

    They do not count in ``num_experts`` before `prune` says which of them stay. Where there is
    room for fewer, there are fewer.

    Raises:
        ValueError: fewer than one.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    down, up, held = experts
    drawn = jax.random.normal(key, down.shape, down.dtype) / math.sqrt(down.shape[1])
    new = (_is_new(experts) & (jnp.arange(len(down)) < held + num))[:, None, None]
    return Experts(jnp.where(new, drawn, down), jnp.where(new, 0, up), held)


def route(
    router: Float[Array, "n e"], x: Float[Array, " n"], num: Integer[Array, ""] | int
) -> Float[Array, " e"]:
    """Probabilities of the first ``num`` experts for an input, zero of the others."""
    logits = matmul(x, router)
    return jax.nn.softmax(logits, where=jnp.arange(len(logits)) < num)


def apply(
    experts: Experts, probabilities: Float[Array, " e"], x: Float[Array, " n"]
) -> Float[Array, " m"]:
    """What the experts add to W's output for an input, sum_e p_e (x D_e) U_e.

    Raises:
        ValueError: an input of another length.
    """
    e, n, _ = experts.down.shape
    if x.shape != (n,) or probabilities.shape != (e,):
        raise ValueError(
            f"an input ({n},) and probabilities ({e},) are expected, got {x.shape} and "
            f"{probabilities.shape}"
        )
    inner = jnp.einsum("n,enr->er", x, experts.down, precision=jax.lax.Precision.HIGHEST)
    inner = probabilities[:, None] * inner
    return jnp.einsum("er,erm->m", inner, experts.up, precision=jax.lax.Precision.HIGHEST)


def new_share(experts: Experts, probabilities: Float[Array, "*batch e"]) -> Float[Array, "*batch"]:
    """The probability of the candidates, in phase 1 a penalty; without old experts all of it."""
    return jnp.sum(jnp.where(_is_new(experts), probabilities, 0), axis=-1)


def only_new(experts: Experts, updates: PyTree) -> PyTree:
    """Updates of factors (e, ...), zero for the old experts."""
    new = _is_new(experts)
    return jax.tree.map(
        lambda x: jnp.where(new.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.zeros_like(x)), updates
    )


def prune(
    experts: Experts,
    router: Float[Array, "n e"],
    usage: Float[Array, " e"],
    *,
    threshold: float = 0.1,
) -> tuple[Experts, Float[Array, "n e"]]:
    """The candidates that are asked for become experts, the others are dropped.

    Args:
        experts: with candidates.
        router: of the task; its columns move with the experts, those of dropped ones become zero.
        usage: mean probability of every place over the task's inputs.
        threshold: of the usage from which on a candidate stays. The first task keeps the one that
            is most used in any case.

    Raises:
        ValueError: a usage that does not fit, or a threshold outside of [0, 1].
    """
    if usage.shape != experts.down.shape[:1] or not 0 <= threshold <= 1:
        raise ValueError(
            f"a usage {experts.down.shape[:1]} and a threshold in [0, 1] are expected, got "
            f"{usage.shape} and {threshold}"
        )
    down, up, held = experts
    places = jnp.arange(len(down))
    asked = _is_new(experts) & (usage >= threshold) & (usage > 0)
    alone = (held == 0) & (places == jnp.argmax(usage))
    kept = (places < held) | asked | alone
    order = jnp.argsort(~kept, stable=True)
    num = jnp.sum(kept)
    filled = places < num
    down, up = (jnp.where(filled[:, None, None], x[order], 0) for x in (down, up))
    return Experts(down, up, num), jnp.where(filled, router[:, order], 0)


def _is_new(experts: Experts) -> Array:
    """Places that are not an old expert's."""
    return jnp.arange(len(experts.down)) >= experts.num_experts
