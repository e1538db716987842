"""Rows of the contract's table: distances, the algebra of subspaces, manifolds, means."""

from subspace_jax import linalg
from tests.rows import FIELD, Row, bases

DISTANCES = (
    "binet_cauchy_distance",
    "chordal_distance",
    "fubini_study_distance",
    "geodesic_distance",
    "martin_distance",
    "procrustes_distance",
    "projection_distance",
    "squared_geodesic_distance",
)
MANIFOLD_ROWS = {
    **{f"linalg.{name}": Row(getattr(linalg, name), bases(2, 2), FIELD) for name in DISTANCES},
}
