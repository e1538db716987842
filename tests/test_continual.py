"""Continual learners: what was learned stays, against dense oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import linalg
from subspace_jax.continual import coso, ease, gpm, measures, memory, sparc

RNG = np.random.default_rng(0)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(8, 5)), jnp.float32),
    "conv": jnp.asarray(RNG.normal(size=(2, 2, 3, 4)), jnp.float32),
    "b": jnp.asarray(RNG.normal(size=5), jnp.float32),
}


def gradients():
    return jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), jnp.float32), PARAMS)


def frame(n, k):
    return jnp.asarray(np.linalg.qr(RNG.normal(size=(n, k)))[0], jnp.float32)


def held(known):
    return np.asarray(known.Q)[:, : int(known.num_directions)]


def is_memory(x):
    return isinstance(x, memory.Memory)


def test_where_room_is_left_for_one_the_most_important_is_remembered():
    vectors = frame(8, 3)
    known = memory.append(memory.append(memory.empty(8, 3), frame(8, 2)), vectors)
    assert int(known.num_directions) == 3
    first = linalg.project_out(known.Q[:, :2], vectors[:, 0])
    np.testing.assert_allclose(jnp.abs(known.Q[:, 2] @ first), jnp.linalg.norm(first), rtol=1e-4)


@pytest.mark.parametrize("capacity", [2, 5, 8, 20])
def test_memories_stay_orthonormal_within_their_capacity(capacity):
    known, all_vectors = memory.empty(8, capacity), np.zeros((8, 0))
    for num in (2, 0, 3, 4):
        vectors = frame(8, 4)
        before = held(known)
        known = jax.jit(memory.append)(known, vectors, num)
        all_vectors = np.concatenate([all_vectors, vectors[:, :num]], axis=1)
        Q = held(known)
        assert Q.shape[1] == min(np.linalg.matrix_rank(all_vectors), capacity, 8)
        np.testing.assert_allclose(Q.T @ Q, np.eye(Q.shape[1]), atol=1e-5)
        np.testing.assert_array_equal(Q[:, : before.shape[1]], before)
        assert not np.any(np.asarray(known.Q)[:, Q.shape[1] :])
        if Q.shape[1] < capacity:
            np.testing.assert_allclose(Q @ Q.T @ all_vectors, all_vectors, atol=1e-5)


def test_what_a_memory_spans_already_takes_no_room():
    Q = frame(8, 3)
    known = memory.append(memory.empty(8, 8), Q)
    mixed = jnp.concatenate([Q @ frame(3, 2), linalg.complement(Q)[:, :1]], axis=1)
    again = memory.append(known, mixed)
    assert int(again.num_directions) == 4
    np.testing.assert_allclose(held(again).T @ held(again), np.eye(4), atol=1e-6)


def test_a_kernel_keeps_its_outputs_at_remembered_inputs():
    known = {"w": memory.append(memory.empty(8, 8), frame(8, 3)),
             "conv": memory.append(memory.empty(12, 5), frame(12, 4)),
             "b": memory.empty(1, 1)}  # fmt: skip
    grads = gradients()
    free = memory.project_out(known, grads)
    assert jax.tree.map(jnp.shape, free) == jax.tree.map(jnp.shape, PARAMS)
    x = held(known["w"]) @ RNG.normal(size=3)
    np.testing.assert_allclose(free["w"].T @ x, 0, atol=1e-5)
    patch = held(known["conv"]) @ RNG.normal(size=4)
    np.testing.assert_allclose(free["conv"].reshape(12, 4).T @ patch, 0, atol=1e-5)
    np.testing.assert_array_equal(free["b"], grads["b"])


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
def test_gpm_takes_the_fewest_directions_that_hold_the_energy(threshold):
    known = memory.empty(6, 6)
    for _ in range(3):
        X = RNG.normal(size=(40, 6)) * np.geomspace(3, 0.1, 6) @ np.asarray(frame(6, 6))
        before = held(known)
        known = gpm.remember(known, jnp.asarray(X, jnp.float32), threshold=threshold)
        after = held(known)
        shares = []
        for num in range(7 - before.shape[1]):  # the dense oracle, one direction after another
            rest = X - X @ before @ before.T
            V = np.linalg.svd(rest)[2][:num].T
            basis = np.concatenate([before, V], axis=1)
            shares.append(((X @ basis) ** 2).sum() / (X**2).sum())
        expected = int(np.argmax(np.array(shares) >= threshold))
        assert after.shape[1] - before.shape[1] == expected
        assert ((X @ after) ** 2).sum() / (X**2).sum() >= threshold - 1e-5


def test_gpm_leaves_a_network_as_it_was_on_what_it_remembers_wholly():
    params = {"w": PARAMS["w"], "b": PARAMS["b"]}
    X = jnp.asarray(RNG.normal(size=(3, 8)), jnp.float32)  # spans 3 of 8 directions
    seen = {"w": X, "b": jnp.ones((3, 1))}
    known = gpm.end_task(gpm.init(params), seen, threshold=1.0)
    assert (int(known["w"].num_directions), int(known["b"].num_directions)) == (3, 1)
    grads = {name: gradients()[name] for name in params}
    free = gpm.project(known, grads)
    np.testing.assert_allclose(X @ free["w"] + free["b"], 0, atol=1e-5)
    assert float(jnp.linalg.norm(free["w"])) > 0.1 * float(jnp.linalg.norm(grads["w"]))


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_a_share_outside_of_zero_to_one_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\]"):
        gpm.remember(memory.empty(3, 3), jnp.ones((2, 3)), threshold=threshold)
    with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\]"):
        coso.optimizer(optax.sgd(1.0), rank=1, sketch_size=1, threshold=threshold)


def follow(method, params, num_steps):
    """Random gradients; what moved, and the state."""
    state, moves = method.init(params), []
    for _ in range(num_steps):
        step, state = jax.jit(method.update)(gradients(), state, params)
        moves.append(step)
    return moves, state


def test_coso_keeps_off_the_history_exactly_and_fills_it():
    method = coso.optimizer(
        optax.adam(0.1), rank=3, sketch_size=4, threshold=0.9, refresh_every=2, capacity=9
    )
    moves, state = follow(method, PARAMS, 3)
    assert float(jnp.abs(moves[0]["b"]).min()) > 0  # a vector learns in the first task
    sizes = [0, 0, 0]
    for _ in range(4):
        state = method.end_task(state, PARAMS)
        histories = jax.tree.leaves(state.history, is_leaf=is_memory)
        grown = [int(known.num_directions) for known in histories]
        assert all(a >= b for a, b in zip(grown, sizes, strict=True))
        sizes = grown
        for _ in range(3):
            step, state = jax.jit(method.update)(gradients(), state, PARAMS)
            kernels = memory.as_kernels(step)
            for name, known in state.history.items():
                inside = held(known).T @ np.asarray(kernels[name])
                assert np.abs(inside).max(initial=0) < 1e-5, name
            np.testing.assert_allclose(step["b"], 0, atol=1e-6)  # and is kept after it
    assert sizes == [1, 9, 8]  # b and w are full, conv at its capacity


def test_a_full_history_stops_a_kernel():
    method = coso.optimizer(optax.adam(0.1), rank=8, sketch_size=8, threshold=1.0)
    params = {"w": PARAMS["w"]}
    grads = {"w": gradients()["w"]}
    state = method.init(params)
    for _ in range(3):
        state = method.update(grads, state, params)[1]
        state = method.update({"w": gradients()["w"]}, state, params)[1]
    state = method.end_task(state, params)
    assert int(state.history["w"].num_directions) == 8
    step, _ = method.update(grads, state, params)
    np.testing.assert_allclose(step["w"], 0, atol=1e-5)


def test_coso_of_all_directions_and_gradient_descent_is_gradient_descent():
    """P P^T G = G for P of all left singular vectors: the first task is plain training."""
    method = coso.optimizer(optax.sgd(0.3), rank=12, sketch_size=3, threshold=0.9)
    grads = gradients()
    found, _ = method.update(grads, method.init(PARAMS), PARAMS)
    for name, grad in grads.items():
        np.testing.assert_allclose(found[name], -0.3 * grad, atol=1e-5)


def test_a_step_is_the_inner_one_within_the_leading_directions_off_the_history():
    H = frame(8, 3)
    method = coso.optimizer(optax.sgd(1.0), rank=2, sketch_size=4, threshold=0.9)
    params = {"w": PARAMS["w"]}
    state = method.init(params)
    state = state._replace(history={"w": memory.append(memory.empty(8, 8), H)})
    G = gradients()["w"]
    step, _ = method.update({"w": G}, state, params)
    outside = np.asarray(G - H @ H.T @ G)
    U, s, Vh = np.linalg.svd(outside)
    np.testing.assert_allclose(step["w"], -(U[:, :2] * s[:2]) @ Vh[:2], atol=1e-4)


def test_a_tasks_directions_are_the_leading_ones_of_its_gradients():
    method = coso.optimizer(optax.sgd(0.1), rank=2, sketch_size=8, threshold=0.8)
    params = {"w": PARAMS["w"]}
    state, total = method.init(params), np.zeros((8, 8))
    for _ in range(5):
        G = gradients()["w"] * jnp.geomspace(2, 0.2, 8)[:, None]
        state = method.update({"w": G}, state, params)[1]
        total += np.asarray(G @ G.T)
    values, vectors = np.linalg.eigh(total)
    num = 1 + int(np.argmax(np.cumsum(values[::-1]) / values.sum() >= 0.8))
    found = held(method.end_task(state, params).history["w"])
    assert found.shape[1] == num
    angles = linalg.principal_angles(jnp.asarray(found), jnp.asarray(vectors[:, ::-1][:, :num]))
    assert float(angles[-1]) < 1e-2


@pytest.mark.parametrize("wrong", ["rank", "sketch_size", "refresh_every"])
def test_coso_counts_from_one(wrong):
    counts = {"rank": 1, "sketch_size": 1, "refresh_every": 1, wrong: 0}
    with pytest.raises(ValueError, match="at least 1"):
        coso.optimizer(optax.sgd(1.0), **counts)


def test_measures_of_a_table_by_hand():
    R = jnp.array([[0.9, 0.1, 0.2], [0.6, 0.8, 0.3], [0.7, 0.5, 1.0]])
    assert float(measures.average_accuracy(R)) == pytest.approx(2.2 / 3)
    assert float(measures.backward_transfer(R)) == pytest.approx((-0.2 - 0.3) / 2)
    assert float(measures.forgetting(R)) == pytest.approx((0.2 + 0.3) / 2)
    np.testing.assert_allclose(measures.average_accuracy_curve(R), [0.9, 0.7, 2.2 / 3], rtol=1e-6)


def test_forgetting_counts_from_the_best_time_and_backward_transfer_from_the_first():
    R = jnp.array([[0.5, 0.0, 0.0], [0.9, 0.5, 0.0], [0.7, 0.6, 0.5]])
    assert float(measures.forgetting(R)) == pytest.approx((0.2 - 0.1) / 2)
    assert float(measures.backward_transfer(R)) == pytest.approx((0.2 + 0.1) / 2)
    one = jnp.array([[0.4]])
    assert (float(measures.forgetting(one)), float(measures.backward_transfer(one))) == (0, 0)


def test_synthesis_weighs_new_classes_by_their_likeness():
    old, new = jnp.eye(3)[:1], jnp.array([[2.0, 0, 0], [0, 5.0, 0]])
    elsewhere = jnp.array([[1.0, 0], [0, 1.0]])
    weights = np.exp([1.0, 0.0]) / np.exp([1.0, 0.0]).sum()
    np.testing.assert_allclose(ease.synthesize(old, new, elsewhere)[0], weights, rtol=1e-5)


def tasks_of_features():
    """Three tasks of two classes, in three adapters' features."""
    for task in range(3):
        labels = np.repeat([2 * task + 1, 2 * task], 6)
        yield jnp.asarray(RNG.normal(size=(3, 12, 4)), jnp.float32), jnp.asarray(labels)


def test_prototypes_are_means_where_an_adapter_saw_the_class_or_came_before_it():
    prototypes, means = ease.init(3, 6, 4), {}
    for task, (features, labels) in enumerate(tasks_of_features()):
        prototypes = jax.jit(ease.extend)(prototypes, features, labels)
        for adapter in range(task + 1):
            for label in (2 * task, 2 * task + 1):
                means[adapter, label] = features[adapter][np.asarray(labels) == label].mean(0)
    np.testing.assert_array_equal(prototypes.owner, [0, 0, 1, 1, 2, 2])
    for (adapter, label), mean in means.items():
        np.testing.assert_allclose(prototypes.table[adapter, label], mean, atol=1e-5)
    # class 0 in the last adapter: from the likeness of 4 and 5 in its own, the first
    anchors = jnp.stack([means[0, 4], means[0, 5]])
    targets = jnp.stack([means[2, 4], means[2, 5]])
    expected = ease.synthesize(means[0, 0][None], anchors, targets)[0]
    np.testing.assert_allclose(prototypes.table[2, 0], expected, atol=1e-5)


def test_the_decision_is_the_own_cosine_and_a_little_of_the_others():
    prototypes = ease.init(3, 6, 4)
    for features, labels in list(tasks_of_features())[:2]:
        prototypes = ease.extend(prototypes, features, labels)
    x = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
    found = ease.logits(prototypes, x, alpha=0.3)
    assert np.all(np.isneginf(found[4:]))
    for label in range(4):
        cosines = [
            float(x[a] @ p / jnp.linalg.norm(x[a]) / jnp.linalg.norm(p))
            for a, p in enumerate(prototypes.table[:2, label])
        ]
        own = label // 2
        expected = cosines[own] + 0.3 * cosines[1 - own]
        assert float(found[label]) == pytest.approx(expected, abs=1e-5)


def test_features_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="are expected"):
        ease.extend(ease.init(2, 3, 4), jnp.ones((2, 5, 3)), jnp.zeros(5, int))


def test_overlap_is_the_mean_squared_cosine_of_the_principal_angles():
    V, W = frame(9, 3), frame(9, 3)
    cosines = jnp.cos(linalg.principal_angles(V, W))
    assert float(sparc.overlap(V, W)) == pytest.approx(float(jnp.mean(cosines**2)), abs=1e-5)
    assert float(sparc.overlap(V, V @ frame(3, 3))) == pytest.approx(1, abs=1e-5)


def test_a_task_basis_is_that_of_the_covariance():
    X = RNG.normal(size=(50, 6)) * np.geomspace(5, 0.1, 6) + 3
    vectors = np.linalg.eigh(np.cov(X.T))[1][:, ::-1][:, :2]
    found = sparc.task_basis(jnp.asarray(X, jnp.float32), 2)
    angles = linalg.principal_angles(found, jnp.asarray(vectors, jnp.float32))
    assert float(angles[-1]) < 1e-3


def test_like_tasks_share_a_prompt_and_others_get_an_orthogonal_one():
    prompts = sparc.init(9, rank=2, max_prompts=3, num_tokens=2)
    tasks = [frame(9, 2), frame(9, 2)]
    first, second = tasks
    turned = first @ frame(2, 2)
    indices = []
    for V in (first, second, turned, second):
        prompts, index, _ = jax.jit(sparc.assign, static_argnames="threshold")(
            prompts, V, threshold=0.95
        )
        indices.append(int(index))
    assert indices == [0, 1, 0, 1]
    assert int(prompts.num_prompts) == 2
    A, B = prompts.bases[:2]
    np.testing.assert_allclose(A.T @ B, 0, atol=1e-5)
    expected = linalg.project_out(first, second)
    np.testing.assert_allclose(linalg.project(B, expected), expected, atol=1e-5)
    moved = prompts._replace(coefficients=prompts.coefficients.at[1].set(1.0))
    np.testing.assert_allclose(sparc.tokens(moved, 0), 0)
    np.testing.assert_allclose(sparc.tokens(moved, 1), jnp.ones((2, 2)) @ B.T, atol=1e-5)


def test_without_room_the_most_similar_prompt_is_reused():
    prompts = sparc.init(9, rank=2, max_prompts=1)
    prompts, index, first = sparc.assign(prompts, frame(9, 2), threshold=0.99)
    again, other, _ = sparc.assign(prompts, frame(9, 2), threshold=0.99)
    assert (int(index), int(other), int(again.num_prompts), float(first)) == (0, 0, 1, 0)
