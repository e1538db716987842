import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import optim
from subspace_jax.linalg import orthonormalize
from tests.gradient_runs import gradients, run


def test_rotated_means_are_the_projection_of_the_momentum():
    optimizer = optim.low_rank(
        optax.trace(0.9), rank=2, basis=optim.jump(), refresh_every=3, carry="rotate", side="rows"
    )
    full, before = 0, None
    for step, (_, state) in enumerate(run(optimizer, gradients(8))):
        leaf = state.leaves
        if before is not None and step % 3 == 0:  # the basis moved: from the last, not the first
            carried = leaf.inner.trace - leaf.basis.T @ gradients(8)[step]
            change = leaf.basis.T @ before.basis
            np.testing.assert_allclose(carried, 0.9 * change @ before.inner.trace, atol=1e-5)
            lost = leaf.basis.T @ (full - before.basis @ (before.basis.T @ full))
            error = jnp.linalg.norm(carried - 0.9 * leaf.basis.T @ full)
            off_span = jnp.linalg.norm(
                0.9 * leaf.basis.T @ (full - before.basis @ before.inner.trace)
            )
            assert error <= 1.01 * off_span + 1e-5
            assert jnp.linalg.norm(lost) > 0.1
        full = 0.9 * full + gradients(8)[step]
        before = leaf


def test_rotated_means_are_exact_when_the_gradients_lie_in_the_old_span():
    S = orthonormalize(gradients(1)[0][:, :2])
    grads = S @ gradients(6, (2, 4))
    optimizer = optim.low_rank(
        optax.trace(0.9), rank=2, refresh_every=2, carry="rotate", side="rows"
    )
    momentum = 0
    for grad, (update, _) in zip(grads, run(optimizer, grads), strict=True):
        momentum = 0.9 * momentum + grad
        np.testing.assert_allclose(update, momentum, atol=1e-4)


def test_rotated_squares_are_those_of_uncorrelated_entries():
    b1, b2, num = 0.8, 0.9, 5
    grads = gradients(num + 1)
    optimizer = optim.low_rank(
        optax.scale_by_adam(b1, b2), rank=3, basis=optim.jump(), refresh_every=num,
        carry="rotate", side="rows",
    )  # fmt: skip
    states = [state.leaves for _, state in run(optimizer, grads)]
    before, after = states[-2], states[-1]
    C = np.asarray(after.basis.T @ before.basis)
    mean = before.inner.mu / (1 - b1**num)
    variance = before.inner.nu / (1 - b2**num) - mean**2
    expected = np.empty_like(mean)
    for column in range(mean.shape[1]):
        covariance = C @ np.diag(variance[:, column]) @ C.T
        expected[:, column] = np.abs(np.diag(covariance) + (C @ mean[:, column]) ** 2)
    core = after.basis.T @ grads[-1]
    found = (after.inner.nu - (1 - b2) * core**2) / b2 / (1 - b2**num)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rotated_squares_without_a_mean_are_mixed_with_squared_weights():
    optimizer = optim.low_rank(
        optax.scale_by_rms(0.9), rank=3, basis=optim.jump(), refresh_every=2, carry="rotate"
    )
    grads = gradients(3)
    _, (_, one), (_, two) = run(optimizer, grads)
    C = two.leaves.basis.T @ one.leaves.basis
    core = two.leaves.basis.T @ grads[2].T
    expected = 0.9 * C**2 @ one.leaves.inner.nu + 0.1 * core**2
    np.testing.assert_allclose(two.leaves.inner.nu, expected, rtol=1e-4)


def test_rotation_of_unknown_moments_asks_for_a_rule():
    optimizer = optim.low_rank(optax.scale_by_adan(), rank=2, carry="rotate")
    with pytest.raises(ValueError, match="rotate="):
        run(optimizer, gradients(2))
    own = optim.low_rank(
        optax.trace(0.5), rank=2, carry="rotate", refresh_every=1,
        rotate=lambda state, change: optax.TraceState(change @ state.trace),
    )  # fmt: skip
    usual = optim.low_rank(optax.trace(0.5), rank=2, carry="rotate", refresh_every=1)
    for (ours, _), (theirs, _) in zip(
        run(own, gradients(4)), run(usual, gradients(4)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
