"""What a denoiser's Jacobian says of the data: its leading directions and its numerical rank.

Only products J v and J^T u are made, a block at a time; J itself is never stored. Its leading right
singular vectors are the directions of the noisy image that change the estimate most, which on
images are often semantic. ``f`` is any function of one array: ``lambda x: denoise(x, sigma)``, or
what a network makes of its innermost features (h-space).

Reference: arXiv 2409.02426, section 5; Haas et al. (2023), "Discovering interpretable directions in
the semantic latent space of diffusion models", arXiv 2303.11073, section 4.2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax import krylov, linalg
from subspace_jax.typing import Array, Float, Inexact, Integer, Key

__all__ = ["numerical_rank", "remaining_energy", "singular_triplets"]


def singular_triplets(
    key: Key,
    f: Callable[[Array], Array],
    x: Inexact[Array, "*shape"],
    *,
    rank: int,
    num_oversamples: int = 10,
    num_power_iterations: int = 2,
) -> krylov.SingularTriplets:
    """The leading singular triplets of the Jacobian of ``f`` at ``x``, by subspace iteration.

    It takes (rank + num_oversamples) (2 num_power_iterations + 2) + rank products. The Jacobian of
    a function of complex arrays is the real-linear one, in the inner product Re<u, v>.
    `krylov.svds` reaches any accuracy, a product after another.

    Args:
        key: PRNG key of the start.
        f: array to array, differentiable.
        x: where.
        rank: number of triplets.
        num_oversamples: directions carried besides and dropped.
        num_power_iterations: each sharpens the decay of the singular values by a square.

    Returns:
        U (*out_shape, rank), values (rank,) descending, V (*shape, rank), residual_norms (rank,).

    Raises:
        ValueError: a rank out of bounds.

    Reference: Halko, Martinsson & Tropp (2011), algorithms 4.4 and 5.1.
    """
    product, adjoint, like, out = _jacobian(f, x)
    U, values, Vt = linalg.randomized_svd(
        key,
        product,
        rank,
        AT=adjoint,
        like=like,
        num_oversamples=num_oversamples,
        num_power_iterations=num_power_iterations,
    )
    # J^T U = V diag(values) by construction: the residual is on this side alone.
    errors = jnp.linalg.norm(jax.vmap(product, 0, 1)(Vt) - U * values, axis=0)
    U = jax.vmap(lambda u: _unpacked(u, out), 1, -1)(U)
    return krylov.SingularTriplets(
        U, values, jax.vmap(lambda v: _unpacked(v, x), 0, -1)(Vt), errors
    )


def remaining_energy(
    key: Key,
    f: Callable[[Array], Array],
    x: Inexact[Array, "*shape"],
    V: Inexact[Array, "*shape k"],
    *,
    num_probes: int,
) -> krylov.Estimate:
    """The sum of the squared singular values of the Jacobian outside of ``V``, by random probes.

    What |J|_F^2 is more than |J V|_F^2. The spread is that of the rest alone.

    Args:
        key: PRNG key of the probes.
        f: as in `singular_triplets`.
        x: where.
        V: directions, orthonormal: of `singular_triplets`.
        num_probes: random vectors, two products each.

    Raises:
        ValueError: ``V`` that is not of the shape of ``x``, or ``num_probes`` below one.

    Reference: Meyer, Musco, Musco & Woodruff (2021), "Hutch++".
    """
    if V.shape[:-1] != x.shape:
        raise ValueError(f"directions V of shape {(*x.shape, 'k')} are expected, got {V.shape}")
    product, adjoint, like, _ = _jacobian(f, x)
    basis = jax.vmap(_packed, -1, -1)(V)

    def outside(v):
        # the trace of P J^T J P, P the projector
        return linalg.project_out(basis, adjoint(product(linalg.project_out(basis, v))))

    return krylov.trace_funm(key, lambda t: t, outside, like, num_probes=num_probes, num_steps=1)


def numerical_rank(
    values: Float[Array, " k"],
    rest: Float[Array, ""] | float,
    share: Float[Array, ""] | float = 0.99,
) -> Integer[Array, ""]:
    """How many leading singular values hold a share of the sum of squares; k + 1 if k do not.

    Args:
        values: the leading ones, descending.
        rest: the sum of the squares of all others, as of `remaining_energy`.
        share: of the sum, at most 1.
    """
    # The rest stands last as one value more: it need not be the smallest.
    return linalg.energy_rank(jnp.append(values**2, rest), share)


def _jacobian(f: Callable[[Array], Array], x: Array) -> tuple[Callable, Callable, Array, Any]:
    """Products of real vectors with J and J^T, a vector of the domain, and what f gives."""
    start = _packed(x)
    _, product = jax.linearize(lambda v: _packed(f(_unpacked(v, x))), start)
    transposed = jax.linear_transpose(product, start)
    return product, lambda u: transposed(u)[0], start, jax.eval_shape(f, x)


def _packed(x: Array) -> Array:
    """An array as a real vector."""
    parts = [x.real, x.imag] if jnp.iscomplexobj(x) else [x]
    return jnp.concatenate([part.ravel() for part in parts])


def _unpacked(v: Array, like: Any) -> Array:
    """The inverse of `_packed`."""
    if not jnp.issubdtype(like.dtype, jnp.complexfloating):
        return v.reshape(like.shape)
    real, imaginary = v.reshape(2, *like.shape)
    return jax.lax.complex(real, imaginary)
