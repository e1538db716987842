"""Reconstructions of scans: classical ones, and samplers with a diffusion prior.

Each is a function of (key, denoise, op, y, sigma_y, sigmas, settings); its `Method` names the
settings and the values among which a tuning subject chooses, at most twelve together.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import samplers
from subspace_jax import diffusion, krylov
from subspace_jax.linalg.operators import shifted


class Method(NamedTuple):
    """How to reconstruct, and what there is to choose."""

    reconstruct: Callable[..., jax.Array]
    grid: Mapping[str, tuple[float, ...]]
    levels: str = ""
    """Which of the config's numbers of noise levels; empty: no network."""
    samples: int = 1
    """Evaluations of the network at each level."""
    products: int = 0
    """Products with its Jacobian at each level."""

    def cost(self, num_levels: int) -> dict[str, int]:
        """Levels of noise, evaluations of the network and products with its Jacobian."""
        return {
            "levels": num_levels,
            "evaluations": num_levels * self.samples,
            "products": num_levels * self.products,
        }

    def choices(self) -> list[dict[str, float]]:
        """All combinations of settings."""
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


def zero_filled(key, denoise, op, y, sigma_y, sigmas, settings):
    """A^H y."""
    del key, denoise, sigma_y, sigmas, settings
    return op.adjoint(y)


def cg_sense(key, denoise, op, y, sigma_y, sigmas, settings):
    """The least squares of |y - A x|^2 + l2 |x|^2, by 30 conjugate gradients.

    Reference: Pruessmann, Weiger, Boernert & Boesiger (2001), "Advances in sensitivity encoding
    with arbitrary k-space trajectories".
    """
    del key, denoise, sigma_y, sigmas
    A = shifted(op.gram, settings["l2"])
    return krylov.cg(A, op.adjoint(y), rtol=None, maxiter=30).value


def total_variation(key, denoise, op, y, sigma_y, sigmas, settings, num_steps: int = 600):
    """The minimum of |y - A x|^2 / 2 + weight TV(x), isotropic, by a primal-dual method.

    Step sizes hold where A^H A <= 1.

    Reference: Condat (2013), "A primal-dual splitting method for convex optimization involving
    Lipschitzian, proximable and linear composite terms", algorithm 3.1.
    """
    del key, denoise, sigma_y, sigmas
    b = op.adjoint(y)
    tau, dual = 0.9, 0.14 / b.ndim  # 1 / tau - 4 ndim dual >= 1 / 2

    def step(carry, _):
        x, u = carry
        ahead = x - tau * (op.gram(x) - b + divergence(u))
        u = u + dual * gradient(2 * ahead - x)
        size = jnp.sqrt(jnp.sum(jnp.abs(u) ** 2, 0))
        return (ahead, u / jnp.maximum(1, size / settings["weight"])), None

    start = (b, jnp.zeros((b.ndim, *b.shape), b.dtype))
    (x, _), _ = jax.lax.scan(step, start, None, length=num_steps)
    return x


def gradient(x: jax.Array) -> jax.Array:
    """Differences (ndim, ...) to the next pixel along each axis; zero at the last one."""
    last = [jax.lax.slice_in_dim(x, -1, None, axis=axis) for axis in range(x.ndim)]
    return jnp.stack([jnp.diff(x, axis=axis, append=end) for axis, end in enumerate(last)])


def divergence(u: jax.Array) -> jax.Array:
    """The adjoint of `gradient`."""
    return jax.linear_transpose(gradient, u[0])(u)[0]


def sampler(
    consistency: Callable[..., diffusion.DataConsistency],
    direction: diffusion.steps.Direction | None = None,
    num_samples: int = 1,
    started: bool = False,
    quiet: bool = False,
) -> Callable[..., jax.Array]:
    """A sample, or the mean of some, by the consistency that ``(op, y, sigma_y, settings)`` gives.

    Its direction is the data consistency's own if left out. A ``started`` one's levels fall from
    `START` at the least squares that CG-SENSE finds, a ``quiet`` one draws no noise.
    """

    def reconstruct(key, denoise, op, y, sigma_y, sigmas, settings):
        draw = diffusion.sample
        if num_samples > 1:
            draw = partial(diffusion.sample_mean, num_samples=num_samples)
        if started:
            start = cg_sense(key, denoise, op, y, sigma_y, sigmas, {"l2": START_L2})
            sigmas = diffusion.karras_sigmas(len(sigmas) - 1, sigma_min=sigmas[-2], sigma_max=START)
            draw = partial(draw, start=start)
        if quiet:
            draw = partial(draw, normal=diffusion.no_noise)
        return draw(
            key,
            denoise,
            sigmas,
            op.in_shape,
            data_consistency=consistency(op, y, sigma_y, settings),
            step=diffusion.ddim(settings["eta"], direction=direction),
            dtype=y.dtype,
        ).x

    return reconstruct


def normal_dds(op, y, sigma_y, s) -> diffusion.DataConsistency:
    """DDS on the normal equations, with one of `NORMAL_STEPS` numbers of steps."""
    del sigma_y
    return samplers.cg_normal_of(op, y, NORMAL_STEPS, s["steps"])


def calibrated_dds(op, y, sigma_y, s) -> diffusion.DataConsistency:
    """DDS with the weight that the noise calibrates: DiffPIR's step, the prior's direction."""
    step = diffusion.posterior_proximal(op, y, s["noise"] * sigma_y, SIGMA_DATA)
    return step._replace(direction="prior")


def local_dds(op, y, sigma_y, s) -> diffusion.DataConsistency:
    """DDS with a weight a pixel, by how bright the estimate is around it."""
    variance = diffusion.local_variance(s["contrast"])
    step = diffusion.posterior_proximal(op, y, s["noise"] * sigma_y, variance=variance)
    return step._replace(direction="prior")


def red_diff(key, denoise, op, y, sigma_y, sigmas, settings):
    """The point that Adam finds; from the zero-filled image, which A^H y is."""
    del sigma_y
    return diffusion.red_diff(
        key,
        denoise,
        sigmas,
        op,
        y,
        weight=lambda sigma: settings["weight"] * sigma,
        learning_rate=settings["rate"],
    ).x


def by_jacobian(jacobian: str = "vjp") -> dict[str, Method]:
    """The methods that take products with the denoiser's Jacobian: J^T v as published, or J v."""

    def pigdm(op, y, sigma_y, s):
        return diffusion.pigdm(op, y, sigma_y, s["sigma_data"], jacobian=jacobian)

    def mmps(op, y, sigma_y, s):
        return diffusion.moment_matching(op, y, s["noise"] * sigma_y, jacobian=jacobian)

    def dps(op, y, sigma_y, s):
        del sigma_y
        return diffusion.dps(op, y, s["zeta"], jacobian=jacobian)

    noises = {"eta": ETAS, "noise": (0.1, 0.3, 1.0, 3.0)}
    zetas = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    return {
        "PiGDM": Method(
            sampler(pigdm),
            {"eta": ETAS, "sigma_data": (0.25, 0.5, 1.0, 2.0)},
            "jacobian",
            products=1,
        ),
        "MMPS": Method(sampler(mmps), noises, "jacobian", products=4),
        "MMPS, pair": Method(
            sampler(mmps, num_samples=2), noises, "jacobian", samples=2, products=8
        ),
        "DPS": Method(  # as published: a step down after that of the sampler
            sampler(dps, "prior"), {"eta": (1.0,), "zeta": zetas}, "dps", products=1
        ),
        "DPS, started": Method(
            sampler(dps, "prior", started=True), {"eta": (1.0,), "zeta": zetas}, "dps", products=1
        ),
        "DPS, no noise": Method(
            sampler(dps, "prior", started=True, quiet=True),
            {"eta": (1.0,), "zeta": zetas},
            "quiet",
            products=1,
        ),
    }


SIGMA_DATA = 0.25
START, START_L2 = 0.5, 0.01
"""The first level of samplers that are started, of 0.3, 0.5 and 1 on MR's tuning slices, and the
weight of the least squares they start from, CG-SENSE's there. Of CT neither is tuned."""
ETAS = (0.5, 0.85, 1.0)
NORMAL_STEPS = (1, 2, 5, 10)
CALIBRATIONS = {"eta": (0.85, 1.0), "noise": (0.3, 1.0, 2.0, 4.0, 10.0, 30.0)}
"""Of the calibrated form, with factors of the noise that it is told."""
CONTRASTS = {"eta": (1.0,), "contrast": (0.1, 0.25, 0.5), "noise": (0.5, 1.0, 2.0, 4.0)}
METHODS = {
    "zero-filled": Method(zero_filled, {}),
    "CG-SENSE": Method(cg_sense, {"l2": (1e-3, 3e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5)}),
    "TV": Method(
        total_variation,
        {"weight": (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 7e-3, 1e-2, 1.5e-2, 2e-2, 3e-2, 5e-2)},
    ),
    "DDS, normal": Method(
        sampler(normal_dds),
        {"eta": ETAS, "steps": NORMAL_STEPS},
        "sample",
    ),
    "DDS, proximal": Method(
        sampler(lambda op, y, sigma_y, s: diffusion.cg_proximal(op, y, s["gamma"])),
        {"eta": ETAS, "gamma": (5.0, 20.0, 100.0, 400.0)},
        "sample",
    ),
    "DDS, calibrated": Method(sampler(calibrated_dds), CALIBRATIONS, "sample"),
    "DDS, local": Method(sampler(local_dds), CONTRASTS, "sample"),
    "DDS, pair": Method(sampler(local_dds, num_samples=2), CONTRASTS, "pair", samples=2),
    "DDS, no noise": Method(sampler(local_dds, started=True, quiet=True), CONTRASTS, "quiet"),
    "DiffPIR": Method(
        sampler(
            lambda op, y, sigma_y, s: diffusion.posterior_proximal(
                op, y, s["noise"] * sigma_y, SIGMA_DATA
            )
        ),
        {"eta": ETAS, "noise": (0.03, 0.1, 0.3, 1.0)},
        "sample",
    ),
    "DDNM": Method(
        sampler(
            lambda op, y, sigma_y, s: diffusion.null_space(
                op, y, s["noise"] * sigma_y, num_steps=10
            )
        ),
        {"eta": ETAS, "noise": (3.0, 10.0, 30.0, 100.0)},
        "sample",
    ),
    **by_jacobian(),
    "RED-diff": Method(
        red_diff,
        {"weight": (0.03, 0.1, 0.3, 1.0), "rate": (0.03, 0.1, 0.3)},
        "red_diff",
    ),
}
