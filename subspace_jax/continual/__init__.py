"""Continual learning: tasks one after another, earlier ones kept."""

from subspace_jax.continual import coso, ease, gpm, measures, memory, sparc

__all__ = ["coso", "ease", "gpm", "measures", "memory", "sparc"]
