"""Samplers with data consistency against dense recursions, in float64."""

from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import diffusion
from subspace_jax.diffusion._consistency import linearized
from tests.measurements import (
    SIGMA_Y,
    M,
    N,
    covariance,
    gaussian_denoiser,
    levels,
    problem,
)
from tests.measurements import standard_normal as normal

pytestmark = pytest.mark.usefixtures("x64")

gaussian_network = gaussian_denoiser(covariance(N))


def methods(op, y):
    return {
        "cg_normal": diffusion.cg_normal(op, y, M),
        "cg_proximal": diffusion.cg_proximal(op, y, 2.0, N),
        "posterior_proximal": diffusion.posterior_proximal(op, y, SIGMA_Y, 1.0, N),
        "pigdm": diffusion.pigdm(op, y, SIGMA_Y, 1.0, M),
        "moment_matching": diffusion.moment_matching(op, y, SIGMA_Y, M),
        "null_space": diffusion.null_space(op, y, SIGMA_Y, num_steps=M),
        "hard_projection": diffusion.hard_projection(op, y, step_size=0.1),
        "dps": diffusion.dps(op, y, 0.3),
        "admm_tv": diffusion.admm_tv(op, y, 1.0, 0.1),
    }


DDS = ("cg_normal", "cg_proximal", "null_space", "hard_projection", "admm_tv")
JACOBIAN = ("pigdm", "moment_matching", "dps")
NAMES = (*DDS, "posterior_proximal", *JACOBIAN)


def corrected(name, A, y, x0, D, sigma):
    """The correction with converged solves, dense."""
    r2, G, b, eye = sigma**2 / (1 + sigma**2), A.T @ A, A.T @ y, np.eye(N)
    C = sigma**2 * D
    missing = np.linalg.pinv(A) @ (y - A @ x0)
    if name == "cg_normal":
        return x0 + missing
    if name == "null_space":
        return x0 + min(1, sigma / SIGMA_Y) * missing
    if name == "hard_projection":
        return x0 + 0.1 * (b - G @ x0)
    if name in ("cg_proximal", "posterior_proximal"):
        gamma = 2.0 if name == "cg_proximal" else r2 / SIGMA_Y**2
        return np.linalg.solve(eye + gamma * G, x0 + gamma * b)
    inner = r2 * A @ A.T if name == "pigdm" else A @ C @ A.T
    inner = inner + SIGMA_Y**2 * np.eye(M)
    return x0 + C @ A.T @ np.linalg.solve(inner, y - A @ x0)


FAST = ("cg_normal", "posterior_proximal", "moment_matching")
AFFINE = [
    pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow])
    for name in NAMES
    if name not in ("dps", "admm_tv")
]


@pytest.mark.parametrize("name", AFFINE)
def test_every_affine_sampler_is_its_dense_recursion_in_its_own_direction(name):
    op, A, y, _, _ = problem()
    key, sigmas, eta = jax.random.key(7), np.asarray(levels(8)), 0.85
    step = diffusion.ddim(eta, noise="churned" if name == "cg_proximal" else "ddim")
    found = jax.jit(
        lambda key: (
            diffusion.sample(
                key,
                gaussian_network,
                levels(8),
                (N,),
                data_consistency=methods(op, y)[name],
                step=step,
            ).x
        )
    )(key)
    first, rest = jax.random.split(key)
    x = sigmas[0] * np.asarray(jax.random.normal(first, (N,)))
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        D = covariance(N) @ np.linalg.inv(covariance(N) + sigma**2 * np.eye(N))
        x0 = D @ x
        x0_new = corrected(name, A, np.asarray(y), x0, D, sigma)
        share = eta * after * (1 if name == "cg_proximal" else np.sqrt(1 - (after / sigma) ** 2))
        noise = (x - (x0 if name in DDS else x0_new)) / sigma
        z = np.asarray(jax.random.normal(jax.random.fold_in(rest, i), (N,)))
        x = x0_new + np.sqrt(after**2 - share**2) * noise + share * z
    np.testing.assert_allclose(found, x, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_only_methods_of_the_jacobian_linearize_and_they_do_so_once(name):
    op, _, y, x0, x = problem()
    sigma, calls = jnp.asarray(0.8), []

    def linearize(mode):
        calls.append(mode)
        return linearized(lambda x: gaussian_network(x, sigma), x)(mode)

    dc = methods(op, y)[name]
    jax.eval_shape(lambda x0: dc.update(x0, linearize, sigma, dc.init(x0)), x0)
    assert calls == (["vjp"] if name in JACOBIAN else [])
    assert dc.direction == ("prior" if name in DDS else "conditional")


def test_the_direction_can_be_chosen_and_does_not_matter_if_all_noise_is_new():
    op, _, y, _, _ = problem()

    def draw(eta, direction):
        step = diffusion.ddim(eta, noise="churned", direction=direction)
        dc = diffusion.cg_normal(op, y)
        return diffusion.sample(
            jax.random.key(0), gaussian_network, levels(8), (N,), data_consistency=dc, step=step
        ).x

    directions = (None, "prior", "conditional")
    together = jax.jit(lambda eta: [draw(eta, direction) for direction in directions])
    own, first, second = together(0.5)
    np.testing.assert_allclose(own, first, rtol=1e-12)
    assert jnp.linalg.norm(own - second) > 1e-3
    _, first, second = together(1.0)
    np.testing.assert_allclose(first, second, rtol=1e-7)


@pytest.mark.parametrize(
    "name", ["moment_matching", pytest.param("admm_tv", marks=pytest.mark.slow)]
)
def test_many_measurements_at_once_are_one_after_another_and_compile_once(name):
    op, _, _, _, _ = problem()
    keys, ys = jax.random.split(jax.random.key(1), 3), normal(11, (3, M))
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def draw(key, y):
        dc = methods(op, y)[name]
        return diffusion.sample(key, gaussian_network, levels(4), (N,), data_consistency=dc).x

    apart = jnp.stack([draw(key, y) for key, y in zip(keys, ys, strict=True)])
    chex.clear_trace_counter()
    np.testing.assert_allclose(jax.jit(jax.vmap(draw))(keys, ys), apart, rtol=1e-8, atol=1e-10)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from subspace_jax import diffusion
from subspace_jax.diffusion._consistency import linearized
from tests.measurements import covariance, gaussian_denoiser, levels

num, n = 16, 6
op = diffusion.operators.linear(lambda x: x[::2] + 0.5 * x[1::2], (n,))
denoise = gaussian_denoiser(covariance(n))
keys = jax.random.split(jax.random.key(0), num)
ys = jax.random.normal(jax.random.key(1), (num, n // 2))

def draw(key, y):
    dc = diffusion.METHOD(op, y, 0.3)
    return diffusion.sample(key, denoise, levels(8), (n,), data_consistency=dc).x

"""

SHARDED_SCANS = """
from subspace_jax.diffusion.operators import coils, masks
maps = coils.birdcage(4, (16, 16), dtype=jnp.complex64)
op = diffusion.operators.multicoil_mri(masks.equispaced(0, 16, acceleration=2, num_center=4), maps)
keys = jax.random.split(jax.random.key(0), num)
truth = jax.random.normal(jax.random.key(1), (num, 2, 16, 16))
ys = jax.vmap(op.apply)(jax.lax.complex(truth[:, 0], truth[:, 1]))

def denoise(x, sigma):
    return x / (1 + sigma**2)

def draw(key, y):
    dc = diffusion.METHOD(op, y, 0.3)
    return diffusion.sample(
        key, denoise, levels(8), (16, 16), data_consistency=dc, dtype=jnp.complex64
    ).x

"""

COMPARED = """
together = jax.jit(jax.vmap(draw))
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
rows = NamedSharding(mesh, P("data"))
operands = jax.device_put((keys, ys), rows)
shared = together.lower(*operands).compile()
found = shared(*operands)
assert len(found.sharding.device_set) == 8 and not found.sharding.is_fully_replicated
one = jax.jit(draw)
apart = np.stack([one(key, y) for key, y in zip(keys, ys)])
np.testing.assert_allclose(found, apart, rtol=1e-4, atol=1e-4 * np.abs(apart).max())
text = shared.as_text()
sent = [word for word in ("all-reduce", "all-gather", "all-to-all") if word in text]
assert not sent or FOURIER, sent
"""


@pytest.mark.slow
@pytest.mark.parametrize("scans", [False, True])
@pytest.mark.parametrize("method", ["posterior_proximal", "moment_matching", "dps"])
def test_sixteen_measurements_on_eight_devices_are_one_after_another(
    on_eight_devices, method, scans
):
    """And nothing travels between the devices."""
    code = (SHARDED + SHARDED_SCANS if scans else SHARDED) + COMPARED
    on_eight_devices(code.replace("METHOD", method).replace("FOURIER", str(scans)))


@pytest.mark.parametrize("step", [diffusion.heun(), diffusion.dpmpp_2m()])
def test_a_flow_on_a_prior_of_one_point_ends_there_whatever_was_measured(step):
    op, _, y, _, _ = problem()
    point = normal(12, (N,))
    dc = diffusion.moment_matching(op, y, SIGMA_Y)  # no variance, so nothing to correct
    found = jax.jit(
        lambda key: (
            diffusion.sample(
                key, lambda x, sigma: point + 0 * x, levels(4), (N,), data_consistency=dc, step=step
            ).x
        )
    )(jax.random.key(0))
    np.testing.assert_allclose(found, point, atol=1e-10)


def test_red_diff_ends_where_the_expected_gradient_vanishes():
    op, A, y, _, _ = problem()
    sigma, weight = 3.0, 2.0
    levels = sigma * jnp.ones(6001)
    found = jax.jit(
        lambda key: (
            diffusion.red_diff(
                key, gaussian_network, levels, op, y, weight=weight, learning_rate=1e-3
            ).x
        )
    )(jax.random.key(0))
    D = covariance(N) @ np.linalg.inv(covariance(N) + sigma**2 * np.eye(N))
    expected = np.linalg.solve(A.T @ A + weight / sigma * (np.eye(N) - D), A.T @ y)
    np.testing.assert_allclose(found, expected, atol=0.02)


WEIGHTED = {
    "cg_proximal": lambda op, y, w: diffusion.cg_proximal(op, y, w),
    "posterior_proximal": lambda op, y, w: diffusion.posterior_proximal(op, y, w, w),
    "null_space": lambda op, y, w: diffusion.null_space(op, y, w),
    "hard_projection": lambda op, y, w: diffusion.hard_projection(op, y, step_size=w),
    "pigdm": lambda op, y, w: diffusion.pigdm(op, y, w, w),
    "moment_matching": lambda op, y, w: diffusion.moment_matching(op, y, w),
    "dps": lambda op, y, w: diffusion.dps(op, y, w),
    "admm_tv": lambda op, y, w: diffusion.admm_tv(op, y, w, w),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_may_be_functions_of_sigma_and_measurements_of_numpy(name):
    op, _, y, _, _ = problem()
    x0, sigma, make = normal(3, (N,)), jnp.asarray(0.7), WEIGHTED[name]
    linearize = linearized(lambda x: gaussian_network(x, sigma), x0)

    def corrected(dc):
        return np.asarray(dc.update(x0, linearize, sigma, dc.init(x0))[0])

    expected = corrected(make(op, y, 0.35))
    assert jnp.any(expected != x0)
    np.testing.assert_array_equal(corrected(make(op, np.asarray(y), lambda s: s / 2)), expected)


def test_a_real_sample_of_complex_images_is_refused_by_name():
    maps = jnp.ones((1, N, N), jnp.complex64)
    op = diffusion.operators.multicoil_mri(jnp.ones((N, N), bool), maps)
    for dc in (diffusion.cg_normal(op, maps), diffusion.dps(op, maps, 0.1)):
        with pytest.raises(ValueError, match="the image must be of dtype complex64, got float"):
            diffusion.sample(
                jax.random.key(0), lambda x, sigma: x, levels(8), (N, N), data_consistency=dc
            )


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named():
    op, _, y, _, _ = problem()
    for name in NAMES:
        with pytest.raises(ValueError, match=r"\(3,\), got \(2,\)"):
            methods(op, y[:2])[name]
    with pytest.raises(ValueError, match=r"gamma must be > 0, got 0\.0"):
        diffusion.cg_proximal(op, y, 0.0)
    for method in (diffusion.posterior_proximal, diffusion.pigdm, diffusion.moment_matching):
        with pytest.raises(ValueError, match=r"sigma_y must be >= 0, got -0\.1"):
            method(op, y, -0.1)
    with pytest.raises(ValueError, match="sigma_data must be > 0, got 0"):
        diffusion.pigdm(op, y, 0.1, 0.0)
    with pytest.raises(ValueError, match="'both'"):
        diffusion.pigdm(op, y, 0.1, jacobian="both")
    with pytest.raises(ValueError, match="zeta must be > 0, got -1"):
        diffusion.dps(op, y, -1.0)
    with pytest.raises(ValueError, match="rho must be > 0, got 0"):
        diffusion.admm_tv(op, y, 0.0, 1.0)
    with pytest.raises(ValueError, match="lam must be >= 0, got -1"):
        diffusion.admm_tv(op, y, 1.0, -1.0)
    with pytest.raises(ValueError, match="step_size must be > 0"):
        diffusion.hard_projection(op, y, step_size=0.0)
    with pytest.raises(ValueError, match="sigmas before the last"):
        diffusion.red_diff(jax.random.key(0), gaussian_network, jnp.zeros(3), op, y)
    with pytest.raises(ValueError, match=r"measures \(5,\), got \(6,\)"):
        diffusion.sample(
            jax.random.key(0), lambda x, sigma: x, levels(8), (6,),
            data_consistency=diffusion.cg_normal(op, y),
        )  # fmt: skip
