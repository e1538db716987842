import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import optim


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def steps(optimizer, grads):
    state, found = optimizer.init(grads[0]), []
    for grad in grads:
        update, state = optimizer.update(grad, state)
        found.append(update)
    return found, state


@pytest.mark.parametrize(("shape", "axis"), [((6, 3), 1), ((3, 6), 0), ((4, 4), 1)])
def test_a_matrix_has_a_number_for_each_index_of_its_longer_axis(shape, axis):
    grads = [normal(seed, *shape) for seed in range(3)]
    found, state = steps(optim.scale_by_subset_norm(0.9, 0.0), grads)
    assert state.nu.size == max(shape)
    v = 0
    for t, (grad, update) in enumerate(zip(grads, found, strict=True), start=1):
        v = 0.9 * v + 0.1 * np.sum(np.asarray(grad) ** 2, axis=axis, keepdims=True)
        np.testing.assert_allclose(update, grad / np.sqrt(v / (1 - 0.9**t)), rtol=1e-5)


def test_without_decay_it_is_adagrad_of_norms():
    grads = [normal(seed, 2, 5) for seed in range(4)]
    found, _ = steps(optim.scale_by_subset_norm(1.0, 0.0), grads)
    total = sum(np.sum(np.asarray(g) ** 2, axis=0) for g in grads)
    np.testing.assert_allclose(found[-1], grads[-1] / np.sqrt(total), rtol=1e-5)


@pytest.mark.parametrize(("size", "expected"), [(4, 4), (5, 4), (7, 6), (100, 24), (1, 1)])
def test_subsets_are_of_the_next_smaller_divisor(size, expected):
    grad = normal(0, 2, 3, 4)
    found, state = steps(optim.scale_by_subset_norm(0.5, 0.0, subset_size=size), [grad])
    norms = np.linalg.norm(np.asarray(grad).reshape(-1, expected), axis=1, keepdims=True)
    assert state.nu.size == 24 // expected
    np.testing.assert_allclose(found[0].reshape(-1, expected), grad.reshape(-1, expected) / norms,
                               rtol=1e-5)  # fmt: skip


def test_with_subsets_of_one_entry_and_a_mean_above_it_is_adam():
    grads = [normal(seed, 7) for seed in range(5)]
    ours, _ = steps(optim.scale_by_subset_norm(0.99, 1e-8, numerator=optax.ema(0.9)), grads)
    theirs, _ = steps(optax.scale_by_adam(0.9, 0.99, 1e-8), grads)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_without_its_correction_the_first_step_is_longer():
    grad = normal(0, 3, 3)
    one, _ = steps(optim.scale_by_subset_norm(0.99, 0.0), [grad])
    other, _ = steps(optim.scale_by_subset_norm(0.99, 0.0, debias=False), [grad])
    np.testing.assert_allclose(other[0], 10 * one[0], rtol=1e-4)


def test_low_precision_sums_in_float32():
    grad = jnp.full((2, 4096), 0.1, jnp.bfloat16)
    update, state = steps(optim.scale_by_subset_norm(0.5), [grad])
    assert update[0].dtype == jnp.bfloat16
    assert jax.tree.leaves(state.nu)[0].dtype == jnp.float32
    ones = optim.scale_by_subset_norm(0.5, subset_size=8192)
    assert float(ones.update(grad, ones.init(grad))[1].nu[0, 0]) == pytest.approx(
        0.5 * 8192 * float(grad[0, 0]) ** 2, rel=1e-4
    )


@pytest.mark.parametrize("options", [{"b2": 1.5}, {"subset_size": 0}])
def test_options_out_of_bounds_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        optim.scale_by_subset_norm(**options)
