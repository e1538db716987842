"""Data consistency against dense matrices, in float64, alone and inside of a sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import diffusion
from subspace_jax.diffusion._consistency import linearized
from tests.measurements import SIGMA_Y, M, N, problem
from tests.measurements import standard_normal as normal

pytestmark = pytest.mark.usefixtures("x64")

# complex is the harder case; every compilation takes a second
FIELDS = [jnp.complex128, pytest.param(jnp.float64, marks=pytest.mark.slow)]
SIGMA = 0.8


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


@pytest.mark.parametrize("num_steps", [1, 5, 20])
def test_steps_past_convergence_do_no_harm_in_single_precision(num_steps):
    """One coil: A^H A is a projector, so one step is enough, and what is left is rounding."""
    mask = diffusion.operators.masks.uniform(0, 32, acceleration=2.0, num_center=4)
    maps = jnp.ones((1, 32, 32), jnp.complex64)
    op = diffusion.operators.multicoil_mri(jnp.asarray(mask, jnp.float32), maps)
    x, error = (normal(seed, (32, 32), jnp.complex64) for seed in (1, 2))
    y, x0 = op.apply(x), x + 0.1 * error
    found = jax.jit(
        lambda x0: diffusion.cg_normal(op, y, num_steps).update(x0, None, jnp.float32(1), ())[0]
    )(x0)
    exact = x0 + op.adjoint(y - op.apply(x0))
    np.testing.assert_allclose(found, exact, atol=1e-5)


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
def test_the_proximal_step_with_a_variance_a_pixel_is_the_posterior_mean(dtype):
    op, A, y, x0, x = problem(dtype)
    known = SIGMA**2 * jnp.abs(x0) ** 2
    expected = np.linalg.solve(
        np.diag(1 / known) + A.conj().T @ A / SIGMA_Y**2, x0 / known + A.conj().T @ y / SIGMA_Y**2
    )
    dc = diffusion.posterior_proximal(
        op, y, SIGMA_Y, num_steps=2 * N, variance=lambda x0, sigma: sigma**2 * jnp.abs(x0) ** 2
    )
    np.testing.assert_allclose(updated(dc, x0, x)[0], expected, atol=1e-8)
    wrong = diffusion.posterior_proximal(op, y, SIGMA_Y, variance=lambda x0, sigma: x0[:-1].real)
    with pytest.raises(ValueError, match="variance must have shape"):
        updated(wrong, x0, x)


@pytest.mark.parametrize("shape", [(6, 7), (2, 6, 7)])
def test_the_local_variance_is_that_of_the_windows(shape):
    x0, sigma = normal(5, shape, complex), 0.3
    found = diffusion.local_variance(0.4, width=3, floor=0.2)(x0, jnp.float64(sigma))
    power = np.abs(np.reshape(x0, (-1, *shape[-2:]))) ** 2
    padded = np.pad(power, ((0, 0), (1, 1), (1, 1)))
    for image, around, r2 in zip(power, padded, np.reshape(found, power.shape), strict=True):
        for i, j in np.ndindex(image.shape):
            data = 0.4**2 * (around[i : i + 3, j : j + 3].mean() + 0.2 * image.mean())
            assert r2[i, j] == pytest.approx(1 / (1 / sigma**2 + 1 / data))


def test_a_local_variance_refuses_what_makes_none():
    for options in ({"contrast": 0.0}, {"floor": 0.0}, {"width": 4}, {"width": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
            diffusion.local_variance(**options)
    with pytest.raises(ValueError, match=r"for images, got shape \(5,\)"):
        diffusion.local_variance()(jnp.ones(5), jnp.float64(1.0))


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
