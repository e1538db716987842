"""A point estimate by optimisation: the diffusion prior as a regulariser."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from subspace_jax import tree
from subspace_jax.diffusion._checks import check_at_least, levels
from subspace_jax.diffusion._consistency import at, measurement
from subspace_jax.diffusion.denoisers import Denoiser
from subspace_jax.diffusion.operators import LinearOperator
from subspace_jax.diffusion.sampler import SampleResult
from subspace_jax.diffusion.steps import standard_normal
from subspace_jax.typing import Array, Float, Key


def red_diff(
    key: Key,
    denoise: Denoiser,
    sigmas: Float[Array, " n_and_1"],
    op: LinearOperator,
    y: Array,
    *,
    weight: Any = 0.25,
    learning_rate: Any = 0.02,
    x0: Array | None = None,
) -> SampleResult:
    """The point that Adam finds, one step a noise level, of the measurement and the prior.

    A driver of its own: what it iterates is not a noisy x but the estimate m. The gradient is
    A^H (A m - y) + weight (n' - n), where n' is the noise predicted at m + sigma n for fresh n.

    Args:
        key: PRNG key.
        denoise: (x, sigma) -> the expected x_0 given x = x_0 + sigma n.
        sigmas: the levels, of which a last one of zero is not visited.
        op: the measurement.
        y: what was measured.
        weight: of the prior, a number or a function of sigma; ``lambda sigma: 0.25 * sigma`` is
            the paper's inverse signal-to-noise ratio.
        learning_rate: of Adam, a number.
        x0: where to start; None: A^H y.

    Raises:
        ValueError: levels or ``learning_rate`` not positive, ``weight`` negative, or ``y`` of
            another shape than the operator's results.

    Reference: Mardani et al. (2024), arXiv 2305.04391, algorithm 1.
    """
    sigmas = levels("sigmas", sigmas)
    check_at_least("sigmas before the last", sigmas[:-1], 0, strict=True)
    check_at_least("learning_rate", learning_rate, 0, strict=True)
    check_at_least("weight", weight, 0)
    y = measurement(op, y)
    b = op.adjoint(y)
    start = b if x0 is None else x0
    adam = optax.adam(learning_rate)
    sigmas = sigmas.astype(start.real.dtype)

    def advance(carry, level):
        m, state = carry
        i, sigma = level
        n = standard_normal(jax.random.fold_in(key, i), m.shape, m.dtype)
        noisy = m + sigma * n
        predicted = (noisy - denoise(noisy, sigma)) / sigma
        gradient = op.gram(m) - b + at(weight, sigma) * (predicted - n)
        updates, state = adam.update(gradient, state, m)
        return (tree.axpy(1.0, updates, m), state), None

    each = (jnp.arange(len(sigmas) - 1), sigmas[:-1])
    (m, _), _ = jax.lax.scan(advance, (start, adam.init(start)), each)
    return SampleResult(m)
