"""Steps from one noise level to the next, for x = x_0 + sigma n.

In this variable variance preserving and variance exploding processes have the same steps. A step is
a pair of functions; one loop runs them all. What it asks for is a `Guided` denoiser: the estimate
of x_0, and the estimate that the measurement has corrected.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from subspace_jax.diffusion._checks import check_at_least
from subspace_jax.krylov._arithmetic import sqrt
from subspace_jax.typing import Array, Inexact, Key

__all__ = [
    "Guided",
    "Normal",
    "Step",
    "ancestral",
    "balanced_normal",
    "ddim",
    "dpmpp_2m",
    "euler",
    "heun",
    "no_noise",
    "standard_normal",
]

Direction: TypeAlias = Literal["prior", "conditional"]
Normal: TypeAlias = Callable[[Key, tuple[int, ...], Any], Array]
"""(key, shape, dtype) -> noise of variance one in every real component."""


class Guided(NamedTuple):
    """A denoiser together with the data consistency that corrects it."""

    predict: Callable[[Array, Array, Any], tuple[Array, Array, Any]]
    """(x, sigma, state) -> (x_0, corrected x_0, state)."""
    direction: str
    """The data consistency's own: is the noise predicted from x_0 or from the corrected one?"""


class Step(NamedTuple):
    """How a sampler goes from one noise level to the next."""

    init: Callable[[Array], Any]
    """x -> what the step remembers, before the first."""
    update: Callable[..., tuple[Array, Array, Any, Any]]
    """(draw, guided, x, sigma, next sigma, memory, state) -> (x, corrected x_0, memory, state).

    ``draw(x)`` is new noise of the shape and dtype of x."""


def ddim(
    eta: Any = 1.0,
    noise: Literal["ddim", "churned"] = "ddim",
    direction: Direction | None = None,
) -> Step:
    """Denoise, correct, and add noise again: predicted noise, and new noise in its place.

    The step is x_0' + sqrt(sigma'^2 - s^2) n + s z, with n the predicted noise, z new noise, and
    its share s = eta sigma' sqrt(1 - sigma'^2 / sigma^2) ("ddim") or s = eta sigma' ("churned",
    much noisier at the same eta).

    Args:
        eta: 0 (deterministic) to 1.
        noise: which share of noise is new.
        direction: whether n comes from x_0 ("prior") or from the corrected x_0' ("conditional");
            None: as the data consistency says.

    Raises:
        ValueError: ``eta`` out of bounds, or no such ``noise`` or ``direction``.

    Reference: Song et al. (2021), arXiv 2010.02502, equations (12) and (16); "churned" is the
    form of the code released with "Decomposed diffusion sampler for accelerating large-scale
    inverse problems".
    """
    check_at_least("eta", eta, 0)
    check_at_least("1 - eta", 1 - eta, 0)
    if noise not in ("ddim", "churned"):
        raise ValueError(f"noise must be 'ddim' or 'churned', got {noise!r}")
    if direction not in (None, "prior", "conditional"):
        raise ValueError(f"direction must be 'prior', 'conditional' or None, got {direction!r}")

    def update(draw, guided, x, sigma, next_sigma, memory, state):
        x0, corrected, state = guided.predict(x, sigma, state)
        towards = x0 if (direction or guided.direction) == "prior" else corrected
        # As shares of sigma', so that no root meets its singular derivative where sigma' is zero.
        fresh = eta**2 * (1.0 if noise == "churned" else 1 - (next_sigma / sigma) ** 2)
        fresh = jnp.asarray(fresh, x.real.dtype)
        predicted = sqrt(1 - fresh) * (x - towards) / sigma
        new = sqrt(fresh) * draw(x)
        return corrected + next_sigma * (predicted + new), corrected, memory, state

    return Step(lambda x: (), update)


def ancestral(direction: Direction | None = None) -> Step:
    """The reverse Markov chain: `ddim` with eta of 1.

    Reference: Ho et al. (2020), arXiv 2006.11239, with the posterior's variance.
    """
    return ddim(1.0, direction=direction)


def euler(direction: Direction | None = None) -> Step:
    """Euler's step of the probability flow: `ddim` with eta of 0.

    Reference: Karras et al. (2022), arXiv 2206.00364, algorithm 1 without its correction.
    """
    return ddim(0.0, direction=direction)


def heun() -> Step:
    """The trapezoidal step of the probability flow, two denoisings but for the last step.

    The corrected denoiser is the denoiser ("conditional"): with the prior's direction the data
    consistency is a jump, and there is no flow to follow.

    Reference: Karras et al. (2022), arXiv 2206.00364, algorithm 1.
    """

    def update(draw, guided, x, sigma, next_sigma, memory, state):
        del draw
        _, corrected, state = guided.predict(x, sigma, state)
        slope = (x - corrected) / sigma
        ahead = x + (next_sigma - sigma) * slope

        def trapezoid(state):
            _, there, state = guided.predict(ahead, next_sigma, state)
            mean = (slope + (ahead - there) / next_sigma) / 2
            return x + (next_sigma - sigma) * mean, there, state

        x, corrected, state = jax.lax.cond(
            next_sigma > 0, trapezoid, lambda state: (ahead, corrected, state), state
        )
        return x, corrected, memory, state

    return Step(lambda x: (), update)


def dpmpp_2m() -> Step:
    """The second-order multistep method in log sigma, one denoising a step.

    First and last steps are of first order. The corrected denoiser is the denoiser
    ("conditional").

    Reference: Lu et al. (2022), arXiv 2211.01095, algorithm 2.
    """

    def update(draw, guided, x, sigma, next_sigma, memory, state):
        del draw
        before, last_sigma = memory
        _, corrected, state = guided.predict(x, sigma, state)
        inner = (last_sigma > 0) & (next_sigma > 0)
        length = jnp.log(sigma / jnp.where(inner, next_sigma, sigma / 2))
        last_length = jnp.log(jnp.where(inner, last_sigma, 2 * sigma) / sigma)
        weight = jnp.where(inner, length / (2 * last_length), 0)
        extrapolated = corrected + weight * (corrected - before)
        ratio = next_sigma / sigma
        x = ratio * x + (1 - ratio) * extrapolated
        return x, corrected, (corrected, sigma), state

    return Step(lambda x: (jnp.zeros_like(x), jnp.zeros((), x.real.dtype)), update)


def standard_normal(key: Key, shape: tuple[int, ...], dtype: Any) -> Inexact[Array, "..."]:
    """Noise of variance one in every real component: a complex entry has two of them."""
    z = jax.random.normal(key, shape, dtype)
    return z * 2**0.5 if jnp.issubdtype(dtype, jnp.complexfloating) else z


def no_noise(key: Key, shape: tuple[int, ...], dtype: Any) -> Inexact[Array, "..."]:
    """Zero in place of normal noise: a sampler's path without what it draws, a point estimate.

    With linear samplers it is the mean of all samples exactly, with others near it: an estimate of
    less error than a sample's, for the price of one, and without a spread (`sample_mean` has one).
    Levels begin where the error of the ``start`` is, which the denoiser takes for noise.
    """
    del key
    return jnp.zeros(shape, dtype)


def balanced_normal(axis_name: str) -> Normal:
    """Normal noise of which all along a mapped axis adds up to zero.

    Each is standard normal by itself, two of num have the correlation -1 / (num - 1): antithetic
    if there are two. With a key each, under ``vmap`` or ``shard_map``.

    Args:
        axis_name: of the mapped axis, at least two long.

    Raises:
        ValueError: from the function: an axis of one.

    Reference: Hammersley & Morton (1956), "A new Monte Carlo technique: antithetic variates".
    """

    def normal(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
        num = jax.lax.axis_size(axis_name)
        if num < 2:
            raise ValueError(f"balanced noise needs an axis of at least 2, got {num}")
        z = standard_normal(key, shape, dtype)
        return (num / (num - 1)) ** 0.5 * (z - jax.lax.pmean(z, axis_name))

    return normal
