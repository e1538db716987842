"""Networks of any parametrisation as one function: denoise(x, sigma) -> x_0, x = x_0 + sigma n.

``apply_fn(x_t, t)`` is the network with its parameters bound, for one example; a network that sees
the two parts of a complex image as channels is wrapped by the caller, complex in and out.
"""

from collections.abc import Callable
from typing import TypeAlias

from subspace_jax.diffusion.schedules import Schedule
from subspace_jax.typing import Array

__all__ = ["Denoiser", "from_epsilon", "from_score", "from_v"]

Denoiser: TypeAlias = Callable[[Array, Array], Array]
"""(x, sigma) -> the expected x_0 given x = x_0 + sigma n."""


def from_epsilon(apply_fn: Callable[[Array, Array], Array], schedule: Schedule) -> Denoiser:
    """The denoiser of a network that predicts the noise n.

    Reference: Ho et al. (2020), arXiv 2006.11239, equation (15).
    """

    def denoise(x: Array, sigma: Array) -> Array:
        t = schedule.inverse(sigma)
        return x - sigma * apply_fn(schedule.scale(t) * x, t)

    return denoise


def from_score(apply_fn: Callable[[Array, Array], Array], schedule: Schedule) -> Denoiser:
    """The denoiser of a network that predicts the gradient of log p_t at x_t, by Tweedie.

    Reference: Efron (2011), "Tweedie's formula and selection bias".
    """

    def denoise(x: Array, sigma: Array) -> Array:
        t = schedule.inverse(sigma)
        s = schedule.scale(t)
        return x + sigma**2 * s * apply_fn(s * x, t)

    return denoise


def from_v(apply_fn: Callable[[Array, Array], Array], schedule: Schedule) -> Denoiser:
    """The denoiser of a network that predicts v = s n - s sigma x_0.

    Reference: Salimans & Ho (2022), arXiv 2202.00512, appendix D.
    """

    def denoise(x: Array, sigma: Array) -> Array:
        t = schedule.inverse(sigma)
        s = schedule.scale(t)
        # s^2 (1 + sigma^2) is one for a variance preserving network
        return (s * x - sigma * apply_fn(s * x, t)) / (s * (1 + sigma**2))

    return denoise
