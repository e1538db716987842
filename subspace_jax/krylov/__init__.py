"""Solve without matrices: Krylov methods that say how they ended.

The method is a claim about A: `cg` (Hermitian positive definite), `minres` (Hermitian), `gmres`,
`fgmres` and `bicgstab` (general), `lsmr` and `cgls` (rectangular), `block_cg` (several right-hand
sides), `flexible_cg` (directions from anywhere), `refine` (float64 around float32). `gcrodr`
(general) and `recycled_cg` (Hermitian positive definite) hand a space on to the next system of a
sequence; `solve_sequence` runs one, `sort_systems` finds its order. A is a
callable on any pytree or anything with ``@``; `subspace_jax.linalg.operators` builds some. All
return ``Solution(value, info)``, stop on the true residual, work under jit, vmap and sharding, and
have implicit derivatives.
"""

from subspace_jax.krylov import precondition
from subspace_jax.krylov._batched import batched
from subspace_jax.krylov._bicgstab import bicgstab
from subspace_jax.krylov._block import block_cg
from subspace_jax.krylov._cg import cg
from subspace_jax.krylov._cgls import cgls
from subspace_jax.krylov._gmres import fgmres, gmres
from subspace_jax.krylov._lsmr import lsmr
from subspace_jax.krylov._minres import minres
from subspace_jax.krylov._refine import refine
from subspace_jax.krylov._solution import Info, Solution, Status, raise_if_failed
from subspace_jax.krylov.flexible import flexible_cg
from subspace_jax.krylov.recycling import RecycleSpace, gcrodr, recycled_cg
from subspace_jax.krylov.sequences import solve_sequence, sort_systems

__all__ = [
    "Info",
    "RecycleSpace",
    "Solution",
    "Status",
    "batched",
    "bicgstab",
    "block_cg",
    "cg",
    "cgls",
    "fgmres",
    "flexible_cg",
    "gcrodr",
    "gmres",
    "lsmr",
    "minres",
    "precondition",
    "raise_if_failed",
    "recycled_cg",
    "refine",
    "solve_sequence",
    "sort_systems",
]
