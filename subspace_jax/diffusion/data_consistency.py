"""How an estimate of x_0 is made to agree with a measurement: one `DataConsistency` a method.

Without Jacobians: `cg_normal` and `cg_proximal` (DDS), `admm_tv` (DDS across slices),
`posterior_proximal` (DiffPIR; a weight a pixel by `local_variance`), `null_space` (DDNM),
`hard_projection`. With the denoiser's Jacobian: `pigdm`, `moment_matching` (MMPS), `dps`.
`red_diff` optimises, and has its own loop.
"""

from subspace_jax.diffusion._consistency import DataConsistency
from subspace_jax.diffusion._jacobian import dps, moment_matching, pigdm
from subspace_jax.diffusion._proximal import (
    cg_normal,
    cg_proximal,
    hard_projection,
    local_variance,
    null_space,
    posterior_proximal,
)
from subspace_jax.diffusion._red_diff import red_diff
from subspace_jax.diffusion._total_variation import admm_tv

__all__ = [
    "DataConsistency",
    "admm_tv",
    "cg_normal",
    "cg_proximal",
    "dps",
    "hard_projection",
    "local_variance",
    "moment_matching",
    "null_space",
    "pigdm",
    "posterior_proximal",
    "red_diff",
]
