"""Random linear maps from a small space R^d into the space of a model's parameters.

A `Projection` is a frozen dataclass of arrays, a pytree: pass it through ``jit`` and ``vmap``,
save it, or rebuild it from its key. `hashed`, `rolled`, `fastfood` and `gaussian_orthonormal` are
isometric to working precision; the columns of the others have norm 1 and are nearly orthogonal.
`hashed` is the one to begin with: one pass over the parameters, one integer stored for each;
`rolled` stores none. `spanned` takes directions that are given; `save` and `load` keep a trained
model as a seed and d numbers.
"""

from subspace_jax.projections._dense import gaussian, gaussian_orthonormal
from subspace_jax.projections._fastfood import fastfood
from subspace_jax.projections._files import load, load_key, save
from subspace_jax.projections._hashed import hashed
from subspace_jax.projections._rademacher import rademacher
from subspace_jax.projections._rolled import rolled
from subspace_jax.projections._spanned import spanned
from subspace_jax.projections._sparse import sparse
from subspace_jax.projections.maps import Projection, contract, expand, materialize, restrict

__all__ = [
    "Projection",
    "contract",
    "expand",
    "fastfood",
    "gaussian",
    "gaussian_orthonormal",
    "hashed",
    "load",
    "load_key",
    "materialize",
    "rademacher",
    "restrict",
    "rolled",
    "save",
    "spanned",
    "sparse",
]
