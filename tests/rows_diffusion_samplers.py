"""Rows of the contract's table: diffusion samplers, their parts and the oracle."""

import jax
import jax.numpy as jnp

from subspace_jax import diffusion
from subspace_jax.diffusion import jacobian
from subspace_jax.diffusion import low_rank_gaussians as lrg
from subspace_jax.diffusion._consistency import linearized
from tests.rows import FIELD, Row, arrays, keys, normal

KEY = jax.random.key(0)


def mixture(*shapes):
    """Two bases of two directions in R^5, their weights, and more arrays."""

    def operands(rng, dtype):
        U = jnp.linalg.qr(normal(rng, (2, 5, 2), dtype))[0]
        weights = jnp.asarray([0.4, 0.6], dtype) + normal(rng, (2,), dtype) / 100
        return U, weights, *(normal(rng, shape, dtype) for shape in shapes)

    return operands


def levels(dtype, n=3):
    return diffusion.karras_sigmas(n, sigma_min=0.1, sigma_max=5.0, dtype=dtype)


def denoise(x, sigma):
    return x / (1 + sigma**2)


def drawn(step, num=1):
    def draw(scale):
        def scaled(x, sigma):
            return scale * x / (1 + sigma**2)

        if num > 1:
            return diffusion.sample_mean(KEY, scaled, levels(scale.dtype), (5,), num).samples
        return diffusion.sample(KEY, scaled, levels(scale.dtype), (5,), step=step).x

    return Row(draw, arrays(()))


def recorded(scale):
    def scaled(x, sigma):
        return scale * x / (1 + sigma**2)

    return diffusion.olss.record(KEY, scaled, levels(scale.dtype), (5,))


def replayed():
    weights = jnp.tril(jnp.arange(9.0).reshape(3, 3))
    schedule = diffusion.olss.FastSchedule(
        levels(jnp.float32), jnp.arange(4), jnp.ones(3), weights, weights / 2, jnp.zeros(3)
    )
    return drawn(diffusion.olss.replay(schedule))


def network(x, sigma):
    return (x + jnp.tanh(x.real)) / (1 + sigma)


def corrected(make, **kwargs):
    """One update by a method, as a function of the matrix, the measurement and the estimate."""

    def update(A, y, x):
        # well conditioned, so that differences agree with derivatives
        A = jnp.eye(3, 5, dtype=A.dtype) + A / 4
        op = diffusion.operators.linear(lambda x: A @ x, (5,), dtype=x.dtype)
        sigma = jnp.asarray(0.8, x.real.dtype)
        dc = make(op, y)
        x0 = network(x, sigma)
        return dc.update(x0, linearized(lambda x: network(x, sigma), x), sigma, dc.init(x0))[0]

    return Row(update, arrays((3, 5), (3,), (5,)), FIELD, **kwargs)


def in_time(clock):
    def both(t):
        t = 500 + 10 * t
        return clock.inverse(clock.sigma(t)), clock.scale(t)

    return Row(lambda t: both(t), arrays(()), grad=False)


def parametrised(convert):
    def call(x, w):
        found = convert(lambda x_t, t: w * x_t, diffusion.ve())
        return found(x, jnp.asarray(0.5, x.dtype))

    return Row(call, arrays((5,), (5,)))


def decaying(x):
    """A function whose Jacobian has singular values apart from each other."""
    return jnp.tanh(x * 0.5 ** jnp.arange(x.size, dtype=x.dtype)) + x[0] ** 2 / 4


def leading(x):
    return jacobian.singular_triplets(KEY, decaying, x, rank=2).values


def remaining(x):
    V = jnp.eye(x.size, 2, dtype=x.dtype)
    return jacobian.remaining_energy(KEY, decaying, x, V, num_probes=3).mean


def optimised(y):
    op = diffusion.operators.linear(lambda x: x[:3], (5,), dtype=y.dtype)
    return diffusion.red_diff(KEY, denoise, levels(y.dtype), op, y).x


def constant(make):
    """Levels of named numbers have no operand: one that scales them stands for it."""
    return Row(lambda scale: scale * make(scale.dtype), arrays(()))


def of_pair(make):
    return Row(lambda low, high: make(0.1 + low**2, 9 + high**2, low.dtype), arrays((), ()))


DIFFUSION_SAMPLER_ROWS = {
    "low_rank_gaussians.denoise": Row(lambda *a: lrg.denoise(*a, 0.7), mixture((5,))),
    "low_rank_gaussians.denoise_posterior": Row(
        lambda U, w, A, y, x: lrg.denoise_posterior(U, w, A, y, 0.5, x, 0.7),
        mixture((3, 5), (3,), (5,)),
    ),
    "low_rank_gaussians.posterior": Row(
        lambda U, w, A, y: lrg.posterior(U, w, A, y, 0.5), mixture((3, 5), (3,))
    ),
    "low_rank_gaussians.moments": Row(
        lambda U, w, means: lrg.moments(lrg.Mixture(w, means, U)), mixture((2, 5))
    ),
    "low_rank_gaussians.sample": Row(lambda U, w: lrg.sample(KEY, U, w, 3), mixture(), grad=False),
    "diffusion.karras_sigmas": of_pair(
        lambda low, high, dtype: diffusion.karras_sigmas(
            3, sigma_min=low, sigma_max=high, dtype=dtype
        )
    ),
    "diffusion.ve_sigmas": of_pair(
        lambda low, high, dtype: diffusion.ve_sigmas(3, sigma_min=low, sigma_max=high, dtype=dtype)
    ),
    "diffusion.vp_sigmas": constant(lambda dtype: diffusion.vp_sigmas(3, dtype=dtype)),
    "diffusion.cosine_sigmas": constant(lambda dtype: diffusion.cosine_sigmas(3, dtype=dtype)),
    "diffusion.vp_linear": in_time(diffusion.vp_linear()),
    "diffusion.vp_cosine": in_time(diffusion.vp_cosine()),
    "diffusion.ve": in_time(diffusion.ve()),
    "diffusion.from_epsilon": parametrised(diffusion.from_epsilon),
    "diffusion.from_score": parametrised(diffusion.from_score),
    "diffusion.from_v": parametrised(diffusion.from_v),
    "diffusion.standard_normal": Row(
        lambda key: diffusion.standard_normal(key, (3,), jnp.float32),
        keys,
        dtypes=("float32",),
        grad=False,
    ),
    "diffusion.no_noise": Row(
        lambda key: diffusion.no_noise(key, (3,), jnp.float32),
        keys,
        dtypes=("float32",),
        grad=False,
    ),
    "diffusion.balanced_normal": Row(
        lambda keys: jax.vmap(
            lambda key: diffusion.balanced_normal("samples")(key, (3,), jnp.float32),
            axis_name="samples",
        )(jax.random.split(keys)),
        keys,
        dtypes=("float32",),
        grad=False,
    ),
    "diffusion.sample": drawn(None),
    "diffusion.sample_mean": drawn(None, num=2),
    "diffusion.ddim": drawn(diffusion.ddim(0.5, noise="churned")),
    "diffusion.ancestral": drawn(diffusion.ancestral()),
    "diffusion.euler": drawn(diffusion.euler()),
    "diffusion.heun": drawn(diffusion.heun()),
    "diffusion.dpmpp_2m": drawn(diffusion.dpmpp_2m()),
    "jacobian.singular_triplets": Row(leading, arrays((5,))),
    "jacobian.remaining_energy": Row(remaining, arrays((5,))),
    "jacobian.numerical_rank": Row(
        lambda x: jnp.where(jnp.arange(4) < jacobian.numerical_rank(x**2, 0.1, 0.8), x, 0),
        arrays((4,)),
    ),
    "olss.record": Row(recorded, arrays(())),
    "olss.replay": replayed(),
    "diffusion.red_diff": Row(optimised, arrays((3,)), grad=False),
    "diffusion.cg_normal": corrected(lambda op, y: diffusion.cg_normal(op, y, 2)),
    "diffusion.cg_proximal": corrected(lambda op, y: diffusion.cg_proximal(op, y, 2.0, 2)),
    "diffusion.posterior_proximal": corrected(
        lambda op, y: diffusion.posterior_proximal(op, y, 0.3, 1.0, 2)
    ),
    "diffusion.local_variance": Row(
        lambda x: diffusion.local_variance(width=3)(x, jnp.asarray(0.8, x.real.dtype)),
        arrays((4, 5)),
    ),
    "diffusion.pigdm": corrected(lambda op, y: diffusion.pigdm(op, y, 0.3, 1.0, 2)),
    "diffusion.moment_matching": corrected(lambda op, y: diffusion.moment_matching(op, y, 0.3, 2)),
    "diffusion.dps": corrected(lambda op, y: diffusion.dps(op, y, 0.5)),
    "diffusion.null_space": corrected(lambda op, y: diffusion.null_space(op, y, num_steps=2)),
    "diffusion.hard_projection": corrected(diffusion.hard_projection),
    "diffusion.admm_tv": corrected(
        lambda op, y: diffusion.admm_tv(op, y, 1.0, 0.1, num_steps=2), grad=False
    ),
}
