"""Is this the principal subspace? Tests and confidence regions of PCA, on the Grassmannian.

The sample's principal subspace estimates the population's; what separates it from a hypothesis Q is
the Riemannian logarithm, and its large-sample covariance is known. A confidence region is the set
of Q that the test does not reject.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import chi2

from subspace_jax.linalg._matmul import matmul
from subspace_jax.manifolds import grassmann
from subspace_jax.typing import Array, Float

__all__ = ["SubspaceTest", "principal_subspace_test", "robust_subspace_test"]


class SubspaceTest(NamedTuple):
    """The outcome of a test of H0: the principal subspace is span Q."""

    statistic: Float[Array, ""]
    num_degrees: int
    """Of freedom of the chi-square distribution that the statistic has in large samples."""
    p_value: Float[Array, ""]


def principal_subspace_test(
    X: Float[Array, "n d"], Q: Float[Array, "d k"], *, multiplicities: tuple[int, ...] | None = None
) -> SubspaceTest:
    """The test of H0: span ``Q`` is spanned by the k leading eigenvectors of the covariance.

    The statistic is n sum_ij (l_i - l_j)^2 / (l_i l_j) H_ij^2 over the k leading eigenvalues l_j
    and the others l_i, H the logarithm of Q at the sample's subspace in its eigenvectors. For
    normal samples it is chi-square with k (d - k) degrees; samples with heavier tails reject too
    often, see `robust_subspace_test`. With no gap between l_k and l_{k+1} there is no subspace to
    test, and the statistic is small.

    Args:
        X: samples in rows.
        Q: orthonormal basis of the hypothesis.
        multiplicities: of the population's eigenvalues, descending; they must sum to d and k must
            be a sum of the first few. Sample eigenvalues are averaged over them. By default all
            are simple.

    Raises:
        ValueError: shapes that do not match, k >= d, fewer than two samples, or multiplicities
            that do not add up.

    Reference: Rabenoro & Pennec (2022), arXiv 2209.02025; Anderson (1963).
    """
    values, H, _ = _deviation(X, Q)
    d, k = Q.shape
    if multiplicities is not None:
        values = _averaged(values, multiplicities, k)
    leading, others = values[None, :k], values[k:, None]
    weights = (leading - others) ** 2 / (leading * others)
    return _outcome(len(X) * jnp.sum(weights * H**2), k * (d - k))


def robust_subspace_test(X: Float[Array, "n d"], Q: Float[Array, "d k"]) -> SubspaceTest:
    """The same test with the covariance of H estimated from fourth moments: no normality needed.

    It inverts a matrix of size k (d - k), so it wants several times as many samples.

    Args:
        X: samples in rows.
        Q: orthonormal basis of the hypothesis.

    Raises:
        ValueError: shapes that do not match, k >= d, or at most k (d - k) samples.

    Reference: Tyler (1981), "Asymptotic inference for eigenvectors", for elliptical and other
    distributions; the logarithm as in Rabenoro & Pennec (2022).
    """
    values, H, scores = _deviation(X, Q)
    d, k = Q.shape
    num_degrees = k * (d - k)
    if len(X) <= num_degrees:
        raise ValueError(f"{num_degrees} degrees of freedom need more than {len(X)} samples")
    products = (scores[:, k:, None] * scores[:, None, :k]).reshape(len(X), num_degrees)
    covariance = matmul(products.T, products) / len(X)
    gaps = ((values[None, :k] - values[k:, None]) * H).reshape(num_degrees)
    factor = jax.scipy.linalg.cho_factor(covariance)
    return _outcome(len(X) * gaps @ jax.scipy.linalg.cho_solve(factor, gaps), num_degrees)


def _deviation(X: Array, Q: Array) -> tuple[Array, Array, Array]:
    """Eigenvalues descending, the logarithm's coordinates (d - k, k), the samples' (n, d)."""
    if X.ndim != 2 or Q.ndim != 2 or X.shape[1] != Q.shape[0]:
        raise ValueError(f"X must be (n, d) and Q (d, k), got {X.shape} and {Q.shape}")
    if Q.shape[1] >= Q.shape[0] or len(X) < 2:
        raise ValueError(f"need k < d and two samples, got Q {Q.shape} and X {X.shape}")
    centred = X - jnp.mean(X, axis=0)
    values, vectors = jnp.linalg.eigh(matmul(centred.T, centred) / len(X))
    values, vectors = values[::-1], vectors[:, ::-1]
    k = Q.shape[1]
    towards = grassmann.log(vectors[:, :k], Q)
    return values, matmul(vectors[:, k:].T, towards), matmul(centred, vectors)


def _averaged(values: Array, multiplicities: tuple[int, ...], k: int) -> Array:
    ends = [sum(multiplicities[: i + 1]) for i in range(len(multiplicities))]
    if min(multiplicities) < 1 or ends[-1] != len(values) or k not in ends:
        raise ValueError(
            f"multiplicities {multiplicities} must sum to d = {len(values)}, and the first few of "
            f"them to k = {k}"
        )
    blocks = jnp.split(values, ends[:-1])
    return jnp.concatenate([jnp.full(block.shape, jnp.mean(block)) for block in blocks])


def _outcome(statistic: Array, num_degrees: int) -> SubspaceTest:
    return SubspaceTest(statistic, num_degrees, chi2.sf(statistic, num_degrees))
