"""The papers' optimizers, each a call of `low_rank` with the settings they publish.

``options`` are others of `low_rank` everywhere; what is no matrix is trained by the inner method.
"""

from typing import Any

import optax

from subspace_jax.optim._bases import jump, online, sampled, singular, walk
from subspace_jax.optim._low_rank import low_rank, recover
from subspace_jax.optim._subset_norm import scale_by_subset_norm


def galore(
    learning_rate: optax.ScalarOrSchedule,
    *,
    rank: int = 128,
    method: str = "range",
    scale: float = 0.25,
    adam: optax.GradientTransformation | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Adam in the leading singular subspace of each gradient, found anew every 200 steps.

    Published: learning rate .01, rank 128 to 512, scale .25 for LLaMA of 60M to 1B parameters;
    .005, 1024 and 500 steps at 7B.

    Args:
        learning_rate: or a schedule.
        rank: of the subspaces.
        method: of `singular`; "svd" is the paper's.
        scale: of the updates of matrices.
        adam: the inner transformation; None: ``optax.scale_by_adam()``.
        options: of `low_rank`.

    Reference: Zhao et al. (2024), "GaLore: memory-efficient LLM training by gradient low-rank
    projection", algorithm 2.
    """
    settings: dict[str, Any] = {"basis": singular(method)}
    return _descent(learning_rate, adam, rank, scale, settings | options)


def online_subspace_descent(
    learning_rate: optax.ScalarOrSchedule,
    *,
    rank: int = 128,
    basis_learning_rate: float = 5e-3,
    scale: float = 0.25,
    adam: optax.GradientTransformation | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Adam in a subspace that takes a step of its own Adam in every step: no decomposition.

    Args:
        learning_rate: or a schedule.
        rank: of the subspaces.
        basis_learning_rate: of the bases; the released code's is 1 / 200 at the start, falling
            with the schedule, which a constant here does not.
        scale: of the updates of matrices.
        adam: as in `galore`.
        options: of `low_rank`.

    Reference: Liang et al. (2024), "Memory-efficient LLM training with online subspace descent".
    """
    policy = online(optax.adam(basis_learning_rate))
    settings: dict[str, Any] = {"basis": policy, "refresh_every": 1}
    return _descent(learning_rate, adam, rank, scale, settings | options)


def sara(
    learning_rate: optax.ScalarOrSchedule,
    *,
    rank: int = 128,
    num_candidates: int | None = None,
    scale: float = 0.25,
    adam: optax.GradientTransformation | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """`galore` with singular vectors that are drawn, likelier the larger their singular value.

    Args:
        learning_rate: or a schedule.
        rank: of the subspaces.
        num_candidates: of `sampled`.
        scale: of the updates of matrices.
        adam: as in `galore`.
        options: of `low_rank`.

    Reference: SARA, arXiv 2502.05790.
    """
    settings: dict[str, Any] = {"basis": sampled(num_candidates)}
    return _descent(learning_rate, adam, rank, scale, settings | options)


def grasswalk(
    learning_rate: optax.ScalarOrSchedule,
    *,
    rank: int = 128,
    step: float = 0.1,
    scale: float = 0.25,
    adam: optax.GradientTransformation | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Adam in a subspace that walks at random, its moments rotated, the residual recovered.

    Args:
        learning_rate: or a schedule.
        rank: of the subspaces.
        step: of `walk`; the paper's is not public.
        scale: of the updates of matrices; the recovered residual is not scaled.
        adam: as in `galore`.
        options: of `low_rank`.

    Reference: "Randomized gradient subspaces for efficient large language model training", arXiv
    2510.01878; its interval of 200 steps is that of SubTrack++.
    """
    settings: dict[str, Any] = {"basis": walk(step), "carry": "rotate", "residual": recover(1.01)}
    return _descent(learning_rate, adam, rank, scale, settings | options)


def grassjump(
    learning_rate: optax.ScalarOrSchedule,
    *,
    rank: int = 128,
    scale: float = 0.25,
    adam: optax.GradientTransformation | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """`grasswalk` with a subspace drawn uniformly in place of a walk; arguments as there."""
    settings: dict[str, Any] = {"basis": jump(), "carry": "rotate", "residual": recover(1.01)}
    return _descent(learning_rate, adam, rank, scale, settings | options)


def subspace_momentum(
    learning_rate: optax.ScalarOrSchedule,
    *,
    rank: int = 128,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    subset_size: int | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """SN-SM: momentum in a subspace, plain gradients outside of it, over subset norms.

    Args:
        learning_rate: or a schedule; some ten times Adam's.
        rank: of the subspaces.
        b1: of the momentum, an unscaled mean; it starts anew with every subspace.
        b2: of `scale_by_subset_norm`.
        eps: of `scale_by_subset_norm`.
        subset_size: of `scale_by_subset_norm`.
        options: of `low_rank`.

    Reference: Nguyen & Nguyen (2025), "Efficient adaptive optimization via subset-norm and
    subspace-momentum", algorithms 2 and 3.
    """
    settings: dict[str, Any] = {"basis": singular(), "carry": "reset", "residual": "pass_through"}
    momentum = low_rank(optax.ema(b1, debias=False), rank=rank, **(settings | options))
    scaled = scale_by_subset_norm(b2, eps, subset_size=subset_size, numerator=momentum)
    return optax.chain(scaled, optax.scale_by_learning_rate(learning_rate))


def _descent(learning_rate, inner, rank, scale, settings):
    direction = low_rank(inner, rank=rank, scale=scale, **settings)
    return optax.chain(direction, optax.scale_by_learning_rate(learning_rate))
