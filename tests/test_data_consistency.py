"""Data consistency against dense matrices, in float64, alone and inside of a sampler."""

from functools import cache
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import diffusion
from subspace_jax.diffusion._consistency import linearized

N, M = 5, 3
# complex is the harder case; every compilation takes a second
FIELDS = [jnp.complex128, pytest.param(jnp.float64, marks=pytest.mark.slow)]
SIGMA, SIGMA_Y = 0.8, 0.3


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def normal(seed, shape, dtype=jnp.float64):
    return diffusion.standard_normal(jax.random.key(seed), shape, dtype)


@cache
def problem(dtype=jnp.float64):
    """An operator, its matrix, a measurement, an estimate and a noisy point."""
    A = normal(0, (M, N), dtype)
    op = diffusion.operators.linear(lambda x: A @ x, (N,), dtype=dtype)
    return op, np.asarray(A), *(normal(i, (k,), dtype) for i, k in ((1, M), (2, N), (3, N)))


def network(x, sigma):
    """Nothing like a denoiser: its Jacobian is not symmetric, and on complex x only real-linear."""
    W, V = (normal(seed, (N, N)) / 3 for seed in (8, 9))
    parts = jnp.tanh(W @ x.real), jnp.tanh(V @ x.imag + x.real)
    return (x + (parts[0] + (1j * parts[1] if jnp.iscomplexobj(x) else 0))) / (1 + sigma)


def updated(dc, x0, x, sigma=SIGMA, denoise=network, state=None):
    def run(x0, x, sigma, state):
        return dc.update(x0, linearized(lambda x: denoise(x, sigma), x), sigma, state)

    return jax.jit(run)(x0, x, jnp.asarray(sigma), dc.init(x0) if state is None else state)


def to_real(z):
    """A complex vector as the two real channels that a network sees."""
    return z if jnp.isrealobj(z) else np.concatenate([np.real(z), np.imag(z)])


def real_matrix(A):
    return A if jnp.isrealobj(A) else np.block([[A.real, -A.imag], [A.imag, A.real]])


def jacobian(denoise, x):
    """Dense and real, on the channels."""
    units = (1,) if jnp.isrealobj(x) else (1, 1j)
    columns = jnp.concatenate([unit * jnp.eye(N, dtype=x.dtype) for unit in units])
    product = jax.jit(jax.vmap(lambda v: jax.jvp(lambda x: denoise(x, SIGMA), (x,), (v,))[1]))
    return np.stack([to_real(column) for column in np.asarray(product(columns))], axis=1)


def textbook_cg(A, b, x, num_steps, dot):
    r = b - A @ x
    p, square = r, dot(r, r)
    for _ in range(num_steps):
        q = A @ p
        alpha = square / dot(p, q)
        x, r = x + alpha * p, r - alpha * q
        p, square = r + dot(r, r) / square * p, dot(r, r)
    return x


@pytest.mark.parametrize("dtype", FIELDS)
def test_the_dds_steps_are_hermitian_conjugate_gradients_from_the_estimate(dtype):
    (op, A, y, x0, x), num_steps = problem(dtype), 2
    G, b = A.conj().T @ A, A.conj().T @ y
    found, _ = updated(diffusion.cg_normal(op, y, num_steps), x0, x)
    np.testing.assert_allclose(found, textbook_cg(G, b, x0, num_steps, np.vdot), rtol=1e-9)
    found, _ = updated(diffusion.cg_proximal(op, y, 2.0, num_steps), x0, x)
    expected = textbook_cg(np.eye(N) + 2 * G, x0 + 2 * b, x0, num_steps, np.vdot)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", FIELDS)
def test_converged_normal_equations_and_the_null_space_change_only_what_is_measured(dtype):
    op, A, y, x0, x = problem(dtype)
    expected = x0 - np.linalg.pinv(A) @ (A @ x0 - y)
    for dc in (diffusion.cg_normal(op, y, M), diffusion.null_space(op, y, num_steps=M)):
        np.testing.assert_allclose(updated(dc, x0, x)[0], expected, atol=1e-8)
    found, _ = updated(diffusion.null_space(op, y, 4 * SIGMA, num_steps=M), x0, x)
    np.testing.assert_allclose(found, x0 + (expected - x0) / 4, atol=1e-8)


@pytest.mark.parametrize("dtype", FIELDS)
def test_the_calibrated_proximal_step_is_the_posterior_mean_of_white_data(dtype):
    op, A, y, x0, x = problem(dtype)
    sigma_data = 0.7
    r2 = SIGMA**2 * sigma_data**2 / (SIGMA**2 + sigma_data**2)
    G, b = A.conj().T @ A, A.conj().T @ y
    expected = np.linalg.solve(np.eye(N) / r2 + G / SIGMA_Y**2, x0 / r2 + b / SIGMA_Y**2)
    dc = diffusion.posterior_proximal(op, y, SIGMA_Y, sigma_data, N)
    np.testing.assert_allclose(updated(dc, x0, x)[0], expected, atol=1e-8)
    # before convergence too it is DDS with that gamma, and without noise the normal equations
    early = updated(diffusion.posterior_proximal(op, y, SIGMA_Y, sigma_data, 2), x0, x)[0]
    dds = updated(diffusion.cg_proximal(op, y, r2 / SIGMA_Y**2, 2), x0, x)[0]
    np.testing.assert_allclose(early, dds, rtol=1e-9)
    noiseless = updated(diffusion.posterior_proximal(op, y, 0.0, sigma_data, 2), x0, x)[0]
    np.testing.assert_allclose(noiseless, updated(diffusion.cg_normal(op, y, 2), x0, x)[0])


@pytest.mark.parametrize("dtype", FIELDS)
def test_the_hard_projection_meets_the_data_if_rows_are_orthonormal(dtype):
    Q = jnp.linalg.qr(normal(4, (N, M), dtype))[0]
    op = diffusion.operators.linear(lambda x: Q.conj().T @ x, (N,), dtype=dtype)
    _, _, y, x0, x = problem(dtype)
    found, _ = updated(diffusion.hard_projection(op, y), x0, x)
    np.testing.assert_allclose(Q.conj().T @ found, y, atol=1e-12)
    outside = np.eye(N) - Q @ Q.conj().T
    np.testing.assert_allclose(outside @ found, outside @ x0, atol=1e-12)
    half, _ = updated(diffusion.hard_projection(op, y, step_size=0.5), x0, x)
    np.testing.assert_allclose(half, (found + x0) / 2, atol=1e-12)


@pytest.mark.parametrize("dtype", FIELDS)
def test_the_two_products_with_the_jacobian_are_adjoint_over_the_reals(dtype):
    u, v, x = (normal(seed, (N,), dtype) for seed in (4, 5, 6))
    linearize = linearized(lambda x: network(x, SIGMA), x)
    forward, backward = jnp.vdot(u, linearize("jvp")(v)), jnp.vdot(linearize("vjp")(u), v)
    np.testing.assert_allclose(forward.real, backward.real, rtol=1e-12)
    expected = jacobian(network, x) @ to_real(v)
    np.testing.assert_allclose(to_real(linearize("jvp")(v)), expected, atol=1e-12)


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
@pytest.mark.parametrize("dtype", FIELDS)
def test_pigdm_is_its_dense_formula_on_the_real_channels(dtype, mode):
    op, A, y, x0, x = problem(dtype)
    H, J = real_matrix(A), jacobian(network, x)
    J = J.T if mode == "vjp" else J
    r2 = SIGMA**2 / (1 + SIGMA**2)
    inner = SIGMA_Y**2 * np.eye(len(H)) + r2 * H @ H.T
    residual = to_real(y - A @ x0)
    expected = to_real(x0) + SIGMA**2 * J @ H.T @ np.linalg.solve(inner, residual)
    dc = diffusion.pigdm(op, y, SIGMA_Y, num_steps=M, jacobian=mode)
    np.testing.assert_allclose(to_real(updated(dc, x0, x)[0]), expected, atol=1e-8)


def symmetric(x, sigma):
    """The gradient of a convex function of the two channels: a symmetric positive Jacobian."""
    W = normal(8, (N, N)) / 2
    return (x + W.T @ jnp.tanh(W @ x.real) + W @ (1j * jnp.tanh(W.T @ x.imag))) / (1 + sigma)


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
def test_moment_matching_is_its_dense_formula_on_the_real_channels(mode):
    op, A, y, x0, x = problem(jnp.complex128)
    H = real_matrix(A)
    C = SIGMA**2 * jacobian(symmetric, x)
    np.testing.assert_allclose(C, C.T, atol=1e-12)
    inner = SIGMA_Y**2 * np.eye(2 * M) + H @ C @ H.T
    expected = to_real(x0) + C @ H.T @ np.linalg.solve(inner, to_real(y - A @ x0))
    dc = diffusion.moment_matching(op, y, SIGMA_Y, 2 * M, jacobian=mode)
    found, _ = updated(dc, x0, x, denoise=symmetric)
    np.testing.assert_allclose(to_real(found), expected, atol=1e-7)


@pytest.mark.parametrize("dtype", FIELDS)
def test_dps_goes_down_the_gradient_of_the_norm_of_the_residual(dtype):
    op, A, y, _, x = problem(dtype)

    def residual_norm(parts):
        z = parts[0] + 1j * parts[1] if dtype == jnp.complex128 else parts[0]
        return jnp.linalg.norm(y - A @ network(z, SIGMA))

    slope = jax.jit(jax.grad(residual_norm))(jnp.stack([x.real, x.imag]))
    gradient = slope[0] + 1j * slope[1] if dtype == jnp.complex128 else slope[0]
    x0 = network(x, SIGMA)
    found, _ = updated(diffusion.dps(op, y, 0.6), x0, x)
    np.testing.assert_allclose(found, x0 - 0.6 * gradient, atol=1e-10)
    scaled, _ = updated(diffusion.dps(op, y, lambda sigma: 0.6 * (1 + sigma**2)), x0, x)
    np.testing.assert_allclose(scaled - x0, (1 + SIGMA**2) * (found - x0), atol=1e-10)
    still, _ = updated(diffusion.dps(op, jnp.asarray(A @ x0), 0.6), x0, x)
    assert jnp.all(jnp.isfinite(still))


@pytest.mark.parametrize("dtype", FIELDS)
def test_alternating_directions_end_at_the_optimum_of_total_variation(dtype):
    op, A, y, x0, _ = problem(dtype)
    rho, lam = 2.0, 0.4
    dc = diffusion.admm_tv(op, y, rho, lam, num_steps=N)

    def repeat(x0):
        state = (x0, dc.init(x0))
        sigma = jnp.asarray(SIGMA)
        return jax.lax.fori_loop(0, 2000, lambda i, s: dc.update(s[0], None, sigma, s[1]), state)

    found, (d, u) = jax.jit(repeat)(x0)
    D = np.roll(np.eye(N), -1, axis=0) - np.eye(N)  # row i: x[i + 1] - x[i]
    dual = rho * np.asarray(u)
    np.testing.assert_allclose(D @ np.asarray(found), d, atol=1e-7)
    gradient = A.conj().T @ (A @ found - y) + D.T @ dual
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    assert np.all(np.abs(dual) <= lam + 1e-9)
    moving = np.abs(d) > 1e-6
    assert moving.any()
    np.testing.assert_allclose(dual[moving], lam * (d / abs(d))[moving], atol=1e-6)


def gaussian_network(x, sigma):
    """The exact denoiser of N(0, C): the prior of the dense recursions."""
    values, Q = np.linalg.eigh(prior())
    return (Q * (values / (values + sigma**2))) @ (Q.T @ x)


@cache
def prior():
    G = np.random.default_rng(0).normal(size=(N, N))
    return G @ G.T / N


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


def levels(n=8):
    return diffusion.karras_sigmas(n, sigma_min=0.05, sigma_max=20.0)


FAST = ("cg_normal", "posterior_proximal", "moment_matching")
AFFINE = [
    pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow])
    for name in NAMES
    if name not in ("dps", "admm_tv")
]


@pytest.mark.parametrize("name", AFFINE)
def test_every_affine_sampler_is_its_dense_recursion_in_its_own_direction(name):
    op, A, y, _, _ = problem()
    key, sigmas, eta = jax.random.key(7), np.asarray(levels()), 0.85
    step = diffusion.ddim(eta, noise="churned" if name == "cg_proximal" else "ddim")
    found = jax.jit(
        lambda key: (
            diffusion.sample(
                key,
                gaussian_network,
                levels(),
                (N,),
                data_consistency=methods(op, y)[name],
                step=step,
            ).x
        )
    )(key)
    first, rest = jax.random.split(key)
    x = sigmas[0] * np.asarray(jax.random.normal(first, (N,)))
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        D = prior() @ np.linalg.inv(prior() + sigma**2 * np.eye(N))
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
    calls = []

    def linearize(mode):
        calls.append(mode)
        return linearized(lambda x: gaussian_network(x, SIGMA), x)(mode)

    dc = methods(op, y)[name]
    jax.eval_shape(lambda x0: dc.update(x0, linearize, jnp.asarray(SIGMA), dc.init(x0)), x0)
    assert calls == (["vjp"] if name in JACOBIAN else [])
    assert dc.direction == ("prior" if name in DDS else "conditional")


def test_the_direction_can_be_chosen_and_does_not_matter_if_all_noise_is_new():
    op, _, y, _, _ = problem()

    def draw(eta, direction):
        step = diffusion.ddim(eta, noise="churned", direction=direction)
        dc = diffusion.cg_normal(op, y)
        return diffusion.sample(
            jax.random.key(0), gaussian_network, levels(), (N,), data_consistency=dc, step=step
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
    D = prior() @ np.linalg.inv(prior() + sigma**2 * np.eye(N))
    expected = np.linalg.solve(A.T @ A + weight / sigma * (np.eye(N) - D), A.T @ y)
    np.testing.assert_allclose(found, expected, atol=0.02)


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
        diffusion.red_diff(jax.random.key(0), network, jnp.zeros(3), op, y)
    with pytest.raises(ValueError, match=r"measures \(5,\), got \(6,\)"):
        diffusion.sample(
            jax.random.key(0), lambda x, sigma: x, levels(), (6,),
            data_consistency=diffusion.cg_normal(op, y),
        )  # fmt: skip
