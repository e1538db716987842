"""Every sampler of a posterior, with its parameters as one array, on the problems of `oracle`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from experiments import oracle, plots
from subspace_jax import diffusion

NORMAL_STEPS = (1, 2, 5)


def exact(config, problem, sigmas, key, setting):
    """DDIM with the exact denoiser given the measurement: the ceiling of the loop."""
    del config
    shape = problem.truth.shape
    step = diffusion.ddim(setting[1])
    denoise = partial(oracle.denoise_posterior, problem)
    return diffusion.sample(key, denoise, sigmas, shape, step=step).x


def guided(consistency: Callable, direction: Any = None) -> Callable:
    """The sampler of a data consistency (config, op, problem, parameter) -> DataConsistency."""

    def draw_sample(config, problem, sigmas, key, setting):
        dc = consistency(config, oracle.operator(problem), problem, setting[0])
        return diffusion.sample(
            key,
            partial(oracle.denoise, problem),
            sigmas,
            problem.truth.shape,
            data_consistency=dc,
            step=diffusion.ddim(setting[1], direction=direction),
        ).x

    return draw_sample


def cg_normal_of(op, y, choices: tuple[int, ...], num_steps: Any) -> diffusion.DataConsistency:
    """DDS on the normal equations, of a traced number of steps among these, ascending."""
    options = [diffusion.cg_normal(op, y, n) for n in choices]
    branches = [lambda x0, sigma, o=o: o.update(x0, None, sigma, ())[0] for o in options]
    index = jnp.searchsorted(jnp.asarray(choices), num_steps)

    def update(x0, linearize, sigma, state):
        del linearize
        return jax.lax.switch(index, branches, x0, sigma), state

    return options[0]._replace(update=update)


def cg_normal(config, op, problem, parameter):
    """Its parameter is the number of steps, one of `NORMAL_STEPS`."""
    del config
    return cg_normal_of(op, problem.y, NORMAL_STEPS, parameter)


def cg_proximal(config, op, problem, parameter):
    """Its parameter is gamma sigma_y^2."""
    return diffusion.cg_proximal(op, problem.y, parameter / problem.sigma_y**2, config.num_cg)


def posterior_proximal(config, op, problem, parameter):
    return diffusion.posterior_proximal(op, problem.y, problem.sigma_y, parameter, config.num_cg)


def pigdm(config, op, problem, parameter):
    return diffusion.pigdm(op, problem.y, problem.sigma_y, parameter, config.num_cg)


def moment_matching(config, op, problem, parameter):
    del parameter
    return diffusion.moment_matching(op, problem.y, problem.sigma_y, config.num_cg)


def dps(config, op, problem, parameter):
    """Its parameter is the published constant, of the variable that is scaled."""
    del config
    return diffusion.dps(op, problem.y, lambda sigma: parameter * (1 + sigma**2))


def null_space(config, op, problem, parameter):
    del parameter
    return diffusion.null_space(op, problem.y, problem.sigma_y, num_steps=config.num_cg)


def hard_projection(config, op, problem, parameter):
    del config
    return diffusion.hard_projection(op, problem.y, step_size=parameter)


def red_diff(config, problem, sigmas, key, setting):
    """Its parameters are the weight, of sigma, and the learning rate in the place of eta."""
    del config
    weight, rate = setting
    denoise, op = partial(oracle.denoise, problem), oracle.operator(problem)
    return diffusion.red_diff(
        key, denoise, sigmas, op, problem.y, weight=lambda s: weight * s, learning_rate=rate
    ).x


METHODS = {
    "exact denoiser": exact,
    "DDS, normal": guided(cg_normal),
    "DDS, proximal": guided(cg_proximal),
    "DiffPIR": guided(posterior_proximal),
    "PiGDM": guided(pigdm),
    "MMPS": guided(moment_matching),
    "DPS": guided(dps, direction="prior"),  # as published
    "DDNM": guided(null_space),
    "projection": guided(hard_projection),
    "RED-diff": red_diff,
}
LOOKS = {
    "exact denoiser": {"color": plots.GREY, "marker": "D"},
    "MMPS": {"color": plots.VERMILION, "marker": "o"},
    "PiGDM": {"color": plots.ORANGE, "marker": "o"},
    "DPS": {"color": plots.PURPLE, "marker": "o"},
    "DDS, normal": {"color": plots.BLUE, "marker": "o"},
    "DDS, proximal": {"color": plots.BLUE, "marker": "s", "linestyle": "--"},
    "DiffPIR": {"color": plots.SKY, "marker": "s"},
    "DDNM": {"color": plots.GREEN, "marker": "o"},
    "projection": {"color": plots.GREEN, "marker": "s", "linestyle": "--"},
    "RED-diff": {"color": plots.YELLOW, "marker": "^"},
}
