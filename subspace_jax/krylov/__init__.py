"""Krylov solvers."""

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

__all__ = [
    "Info",
    "Solution",
    "Status",
    "batched",
    "bicgstab",
    "block_cg",
    "cg",
    "cgls",
    "fgmres",
    "flexible_cg",
    "gmres",
    "lsmr",
    "minres",
    "precondition",
    "raise_if_failed",
    "refine",
]
