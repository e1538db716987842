"""Solve without matrices: Krylov methods that say how they ended.

The method is a claim about A: `cg` (Hermitian positive definite), `minres` (Hermitian), `gmres`,
`fgmres` and `bicgstab` (general), `lsmr` and `cgls` (rectangular), `block_cg` (several right-hand
sides), `flexible_cg` (directions from anywhere), `single_reduction_cg` (one sum a step over many
devices), `refine` (float64 around float32). `gcrodr` (general) and `recycled_cg` (Hermitian
positive definite) hand a space on to the next system of a sequence; `solve_sequence` runs one,
`sort_systems` finds its order. A is a callable on any pytree or anything with ``@``;
`subspace_jax.linalg.operators` builds some. All return ``Solution(value, info)``, stop on the true
residual, work under jit, vmap and sharding, and have implicit derivatives.

Spectra: `eigsh`, `lobpcg` and `subspace_iteration` (Hermitian), `svds` (rectangular), as solvers
with implicit derivatives; `lanczos`, `arnoldi` and `golub_kahan` factorize; `funm_hermitian` and
`funm` are f(A) b, `trace_funm`, `logdet` and `spectral_density` random estimates.
"""

from subspace_jax.krylov import precondition
from subspace_jax.krylov._batched import batched
from subspace_jax.krylov._bicgstab import bicgstab
from subspace_jax.krylov._block import block_cg
from subspace_jax.krylov._cg import cg
from subspace_jax.krylov._cgls import cgls
from subspace_jax.krylov._eigenpairs import Ritz
from subspace_jax.krylov._eigsh import eigsh
from subspace_jax.krylov._funm import funm, funm_hermitian
from subspace_jax.krylov._gmres import fgmres, gmres
from subspace_jax.krylov._lanczos import (
    Bidiagonalization,
    Factorization,
    arnoldi,
    golub_kahan,
    lanczos,
)
from subspace_jax.krylov._lobpcg import lobpcg, subspace_iteration
from subspace_jax.krylov._lsmr import lsmr
from subspace_jax.krylov._minres import minres
from subspace_jax.krylov._refine import refine
from subspace_jax.krylov._single_reduction import single_reduction_cg
from subspace_jax.krylov._solution import Info, Solution, Status, raise_if_failed
from subspace_jax.krylov._svds import SingularTriplets, svds
from subspace_jax.krylov._trace import Density, Estimate, logdet, spectral_density, trace_funm
from subspace_jax.krylov.flexible import flexible_cg
from subspace_jax.krylov.recycling import RecycleSpace, gcrodr, recycled_cg
from subspace_jax.krylov.sequences import solve_sequence, sort_systems

__all__ = [
    "Bidiagonalization",
    "Density",
    "Estimate",
    "Factorization",
    "Info",
    "RecycleSpace",
    "Ritz",
    "SingularTriplets",
    "Solution",
    "Status",
    "arnoldi",
    "batched",
    "bicgstab",
    "block_cg",
    "cg",
    "cgls",
    "eigsh",
    "fgmres",
    "flexible_cg",
    "funm",
    "funm_hermitian",
    "gcrodr",
    "gmres",
    "golub_kahan",
    "lanczos",
    "lobpcg",
    "logdet",
    "lsmr",
    "minres",
    "precondition",
    "raise_if_failed",
    "recycled_cg",
    "refine",
    "single_reduction_cg",
    "solve_sequence",
    "sort_systems",
    "spectral_density",
    "subspace_iteration",
    "svds",
    "trace_funm",
]
