"""Continual learning: tasks one after another, earlier ones kept."""

from subspace_jax.continual import coso, ease, gpm, igsp, measures, memory, sparc

__all__ = ["coso", "ease", "gpm", "igsp", "measures", "memory", "sparc"]
