"""Traces of functions of operators, and densities of eigenvalues, from random probes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.krylov._basis import check_num_steps, flat_map, start_vector
from subspace_jax.krylov._funm import Function, filled
from subspace_jax.krylov._lanczos import lanczos_rows
from subspace_jax.krylov._operands import check_count
from subspace_jax.linalg._spectral import hermitian_function
from subspace_jax.typing import Array, Float, Key, LinearMap, PyTree


class Estimate(NamedTuple):
    """A random estimate."""

    mean: Array
    standard_error: Array
    """Of the mean, from the spread of the probes; NaN for a single one."""


class Density(NamedTuple):
    """A smoothed density of eigenvalues."""

    points: Array
    """(num_points,), evenly spaced, beyond the ends of the spectrum."""
    values: Array
    """(num_points,); the integral is one."""
    standard_errors: Array
    """(num_points,), of the values."""


def trace_funm(
    key: Key, f: Function, A: LinearMap, like: PyTree, *, num_probes: int, num_steps: int
) -> Estimate:
    """The trace of f(A) for a Hermitian A, by random signs and Lanczos quadrature.

    The probes run together, so that A multiplies ``num_probes`` vectors at once; they take
    num_probes num_steps n numbers. The error has two parts: the standard error of the probes, and
    that of a polynomial of degree 2 num_steps - 1 in the place of f, which no estimate shows.

    Args:
        key: PRNG key of the probes.
        f: see `funm_hermitian`.
        A: Hermitian, see `cg`; mapped over vectors by ``vmap``.
        like: arrays or ``ShapeDtypeStruct``s shaped like v, any pytree.
        num_probes: random vectors.
        num_steps: products with A for each, 1 <= num_steps <= n.

    Returns:
        `Estimate`: mean, standard_error; derivatives are those of the fixed steps.

    Raises:
        ValueError: not a linear map on the space of ``like``, or a number out of bounds.

    Reference: Ubaru, Chen & Saad (2017).
    """

    def quadratic_form(H, size):
        return size * hermitian_function(f, H)[0, 0]

    projections, size = _projections(key, A, like, num_probes, num_steps)
    return _estimate(jax.vmap(quadratic_form, (0, None))(projections, size))


def logdet(key: Key, A: LinearMap, like: PyTree, *, num_probes: int, num_steps: int) -> Estimate:
    """The logarithm of the determinant of a Hermitian positive definite A: `trace_funm` of log.

    Arguments, results, errors and reference as there.
    """
    return trace_funm(key, jnp.log, A, like, num_probes=num_probes, num_steps=num_steps)


def spectral_density(
    key: Key,
    A: LinearMap,
    like: PyTree,
    *,
    num_probes: int,
    num_steps: int,
    num_points: int = 1024,
    width: float | Float[Array, ""] = 0.01,
) -> Density:
    """The density of a Hermitian operator's eigenvalues, each widened to a Gaussian.

    Without derivatives.

    Args:
        key: see `trace_funm`.
        A: see `trace_funm`.
        like: see `trace_funm`.
        num_probes: see `trace_funm`.
        num_steps: see `trace_funm`; about 1 / width of them resolve the density.
        num_points: where the density is evaluated.
        width: standard deviation of the Gaussians, as a part of the spectrum's extent.

    Returns:
        `Density`: points, values, standard_errors.

    Raises:
        ValueError: as in `trace_funm`.

    Reference: Lin, Saad & Yang (2016); Ghorbani, Krishnan & Xiao (2019).
    """
    num_points = check_count("num_points", num_points, 2)
    projections, _ = jax.lax.stop_gradient(_projections(key, A, like, num_probes, num_steps))
    nodes, Y = jnp.linalg.eigh(projections)
    low, high = jnp.min(nodes), jnp.max(nodes)
    sigma = jax.lax.stop_gradient(width) * jnp.where(high > low, high - low, 1)
    sigma = sigma.astype(nodes.dtype)
    points = jnp.linspace(low - 5 * sigma, high + 5 * sigma, num_points)

    def at(point):
        bells = jnp.exp(-(((nodes - point) / sigma) ** 2) / 2) / (sigma * jnp.sqrt(2 * jnp.pi))
        return _estimate(jnp.sum(Y[:, 0] ** 2 * bells.astype(nodes.dtype), axis=1))

    return Density(points, *jax.lax.map(at, points))


def _projections(key, A, like, num_probes, num_steps) -> tuple[Array, Array]:
    """The matrix of A (m, m) in the Krylov space of each probe, and the probes' squared norm."""
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.result_type(x)), like)
    apply, start = flat_map("A", A, zeros), start_vector("like", zeros)
    n, dtype = start.x.size, start.x.dtype
    num_probes = check_count("num_probes", num_probes, 1)
    num_steps = check_num_steps(num_steps, n)
    probes = jax.random.rademacher(key, (num_probes, n), dtype)
    projections = jax.vmap(lambda z: filled(lanczos_rows(apply, z, num_steps)))(probes)
    return projections, jnp.asarray(n, projections.dtype)


def _estimate(samples: Array) -> Estimate:
    num = len(samples)
    deviation = jnp.std(samples, ddof=1) if num > 1 else jnp.full_like(samples[0], jnp.nan)
    return Estimate(jnp.mean(samples), deviation / num**0.5)
