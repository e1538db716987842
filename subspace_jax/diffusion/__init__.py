"""Diffusion samplers for linear inverse problems.

Everything is in the variable x = x_0 + sigma n: a prior is ``denoise(x, sigma) -> x_0``, noise
levels are an array, `sample` is the loop, and a data consistency makes it a sampler of a posterior.
"""

from subspace_jax.diffusion import jacobian, low_rank_gaussians, olss, operators
from subspace_jax.diffusion.data_consistency import (
    DataConsistency,
    admm_tv,
    cg_normal,
    cg_proximal,
    dps,
    hard_projection,
    local_variance,
    moment_matching,
    null_space,
    pigdm,
    posterior_proximal,
    red_diff,
)
from subspace_jax.diffusion.denoisers import Denoiser, from_epsilon, from_score, from_v
from subspace_jax.diffusion.sampler import MeanResult, SampleResult, sample, sample_mean
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
    balanced_normal,
    ddim,
    dpmpp_2m,
    euler,
    heun,
    no_noise,
    standard_normal,
)

__all__ = [
    "DataConsistency",
    "Denoiser",
    "Guided",
    "MeanResult",
    "SampleResult",
    "Schedule",
    "Step",
    "admm_tv",
    "ancestral",
    "balanced_normal",
    "cg_normal",
    "cg_proximal",
    "cosine_sigmas",
    "ddim",
    "dpmpp_2m",
    "dps",
    "euler",
    "from_epsilon",
    "from_score",
    "from_v",
    "hard_projection",
    "heun",
    "jacobian",
    "karras_sigmas",
    "local_variance",
    "low_rank_gaussians",
    "moment_matching",
    "no_noise",
    "null_space",
    "olss",
    "operators",
    "pigdm",
    "posterior_proximal",
    "red_diff",
    "sample",
    "sample_mean",
    "standard_normal",
    "ve",
    "ve_sigmas",
    "vp_cosine",
    "vp_linear",
    "vp_sigmas",
]
