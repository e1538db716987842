"""Diffusion samplers for linear inverse problems.

Everything is in the variable x = x_0 + sigma n: a prior is ``denoise(x, sigma) -> x_0``, noise
levels are an array, `sample` is the loop, and a data consistency makes it a sampler of a posterior.
"""

from subspace_jax.diffusion import low_rank_gaussians, operators
from subspace_jax.diffusion.denoisers import Denoiser, from_epsilon, from_score, from_v
from subspace_jax.diffusion.sampler import SampleResult, sample
from subspace_jax.diffusion.schedules import (
    Schedule,
    cosine_sigmas,
    karras_sigmas,
    ve,
    ve_sigmas,
    vp_cosine,
    vp_linear,
    vp_sigmas,
)
from subspace_jax.diffusion.steps import (
    Guided,
    Step,
    ancestral,
    ddim,
    dpmpp_2m,
    euler,
    heun,
    standard_normal,
)

__all__ = [
    "Denoiser",
    "Guided",
    "SampleResult",
    "Schedule",
    "Step",
    "ancestral",
    "cosine_sigmas",
    "ddim",
    "dpmpp_2m",
    "euler",
    "from_epsilon",
    "from_score",
    "from_v",
    "heun",
    "karras_sigmas",
    "low_rank_gaussians",
    "operators",
    "sample",
    "standard_normal",
    "ve",
    "ve_sigmas",
    "vp_cosine",
    "vp_linear",
    "vp_sigmas",
]
