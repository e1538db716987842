"""Subspace methods for JAX: pure functions on arrays and pytrees.

Import the modules and call their functions::

    from subspace_jax import anomaly, clustering, concepts, continual, diffusion, krylov, landscape
    from subspace_jax import linalg, manifolds, optim, projections

Floors, from the ground up: ``typing`` and ``tree``; ``linalg``; ``krylov``,
``manifolds`` and ``projections``; ``optim``, ``diffusion`` and ``landscape``; families of methods
(``anomaly``, ``clustering``, ``concepts``, ``continual``).
A module imports from lower floors only.
"""

from subspace_jax import (
    anomaly,
    clustering,
    concepts,
    continual,
    diffusion,
    krylov,
    landscape,
    linalg,
    manifolds,
    optim,
    projections,
    tree,
    typing,
)

__version__ = "0.1.0"
__all__ = [
    "anomaly",
    "clustering",
    "concepts",
    "continual",
    "diffusion",
    "krylov",
    "landscape",
    "linalg",
    "manifolds",
    "optim",
    "projections",
    "tree",
    "typing",
]
