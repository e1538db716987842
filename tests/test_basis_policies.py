import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import optim
from subspace_jax.linalg import orthonormalize

POLICIES = {
    "svd": optim.singular("svd"),
    "range": optim.singular(),
    "power": optim.singular("power"),
    "sampled": optim.sampled(),
    "online": optim.online(optax.adam(5e-3)),
    "walk": optim.walk(0.1),
    "jump": optim.jump(),
    "track": optim.track(1.0),
    "complement": optim.complement(jnp.eye(24)[:, :5]),
}

QUICK = ("power", "online", "walk")


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def decaying(seed, m, n, rate=8.0):
    """A matrix whose singular values fall by the factor e every ``rate``."""
    k = min(m, n)
    U, V = orthonormalize(normal(seed, m, k)), orthonormalize(normal(seed + 1, n, k))
    return U * jnp.exp(-jnp.arange(k) / rate) @ V.T


def energy(Q, grad):
    return jnp.sum((Q.T @ grad) ** 2) / jnp.sum(grad**2)


def off_orthonormal(Q):
    return jnp.max(jnp.abs(Q.T @ Q - jnp.eye(Q.shape[1])))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in POLICIES]
)
def test_bases_are_orthonormal_after_a_thousand_steps_of_low_precision(name):
    optimizer = optim.low_rank(rank=4, basis=POLICIES[name], refresh_every=1, side="rows")
    W = normal(0, 24, 16).astype(jnp.bfloat16)

    def step(carry, key):
        W, state = carry
        grad = W + jax.random.normal(key, W.shape, W.dtype)
        update, state = optimizer.update(grad, state)
        return (W - 0.01 * update, state), None

    keys = jax.random.split(jax.random.key(1), 1000)
    (_, state), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((W, optimizer.init(W)))
    assert off_orthonormal(state.leaves.basis) <= 1e-5


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("shape", [(24, 16), pytest.param((24, 40), marks=pytest.mark.slow)])
def test_a_policy_returns_an_orthonormal_basis_of_the_same_shape(name, shape):
    S = orthonormalize(normal(3, 24, 4))
    Q = jax.jit(POLICIES[name])(jax.random.key(0), S, normal(5, *shape))
    assert Q.shape == S.shape
    assert off_orthonormal(Q) <= 1e-5


def test_the_range_keeps_what_the_svd_keeps():
    grad, S = decaying(0, 128, 96), orthonormalize(normal(3, 128, 16))
    kept = [energy(optim.singular(m)(jax.random.key(0), S, grad), grad) for m in ("svd", "range")]
    assert kept[1] >= 0.999 * kept[0]


def test_singular_vectors_do_not_flip_between_refreshes():
    grad, S = decaying(0, 12, 20), orthonormalize(normal(3, 12, 3))
    for method in ("svd", "range"):
        policy = optim.singular(method)
        Q = policy(jax.random.key(0), S, grad)
        again = policy(jax.random.key(1), -Q, grad)
        np.testing.assert_allclose(again, -Q, atol=1e-3)


def test_power_steps_find_the_singular_subspace():
    grad, Q = decaying(0, 30, 20, rate=3.0), orthonormalize(normal(3, 30, 4))
    U, _, _ = jnp.linalg.svd(grad)
    for _ in range(12):
        Q = optim.singular("power")(jax.random.key(0), Q, grad)
    assert energy(Q, U[:, :4]) > 0.9999


def test_directions_are_drawn_as_their_singular_values():
    sizes = jnp.array([4.0, 2.0, 1.0, 1.0])
    grad, S = jnp.diag(sizes), jnp.eye(4)[:, :1]
    policy = optim.sampled(num_candidates=4)
    found = jax.vmap(lambda key: policy(key, S, grad))(jax.random.split(jax.random.key(0), 4000))
    share = jnp.mean(found[:, :, 0] ** 2, axis=0)
    np.testing.assert_allclose(share, sizes / 8, atol=0.03)


def test_draws_are_without_replacement_and_never_of_zero_values():
    grad = jnp.diag(jnp.array([1.0, 1.0, 1.0, 0.0, 0.0]))
    policy = optim.sampled(num_candidates=5)
    keys = jax.random.split(jax.random.key(0), 50)
    found = jax.vmap(lambda key: policy(key, jnp.eye(5)[:, :3], grad))(keys)
    np.testing.assert_allclose(jnp.sum(found[:, 3:] ** 2), 0, atol=1e-8)
    assert max(map(float, jax.vmap(off_orthonormal)(found))) < 1e-5


def test_fewer_candidates_than_directions_are_refused():
    with pytest.raises(ValueError, match="3 directions from 2"):
        optim.sampled(2)(jax.random.key(0), jnp.eye(5)[:, :3], jnp.ones((5, 5)))
    with pytest.raises(ValueError, match="'qr'"):
        optim.singular("qr")


def test_an_online_step_is_down_the_papers_loss_with_its_penalty():
    P, grad, rate, penalty = normal(0, 8, 2), normal(1, 8, 5), 0.05, 3.0
    g = np.asarray(grad / jnp.linalg.norm(grad), float)
    P64 = np.asarray(P, float)
    A = P64.T @ g
    residual = P64 @ A - g
    slope = 2 * residual @ A.T + 2 * g @ residual.T @ P64
    slope += 4 * penalty * P64 @ (P64.T @ P64 - np.eye(2))
    expected = np.linalg.qr(P64 - rate * slope)[0]
    Q = optim.online(optax.sgd(rate), penalty=penalty)(jax.random.key(0), P, grad)
    np.testing.assert_allclose(Q @ Q.T, expected @ expected.T, atol=1e-5)
    without = optim.online(optax.sgd(rate), penalty=0.0)(jax.random.key(0), P, grad)
    assert jnp.max(jnp.abs(Q @ Q.T - without @ without.T)) > 1e-3


def test_online_and_track_learn_the_singular_subspace():
    grad = decaying(0, 20, 30, rate=2.0)
    best = energy(jnp.linalg.svd(grad)[0][:, :3], grad)
    for policy in (optim.online(optax.sgd(0.2)), optim.track(1.0)):
        Q = orthonormalize(normal(3, 20, 3))
        policy = jax.jit(policy)
        for step in range(200):
            Q = policy(jax.random.key(step), Q, grad)
        assert energy(Q, grad) > 0.98 * best


@pytest.mark.parametrize("shape", [(20, 6), (6, 20)])
@pytest.mark.parametrize("side", ["rows", "columns"])
def test_tracking_moves_bases_of_wide_and_of_tall_matrices(shape, side):
    optimizer = optim.low_rank(rank=2, basis=optim.track(1.0), refresh_every=1, side=side)
    state = optimizer.init(jnp.zeros(shape))
    _, state = optimizer.update(normal(0, *shape), state)
    _, after = optimizer.update(normal(1, *shape), state)
    assert jnp.max(jnp.abs(after.leaves.basis - state.leaves.basis)) > 0.01


def test_the_memory_of_the_online_optimizer_is_kept():
    optimizer = optim.low_rank(rank=2, basis=optim.online(optax.adam(0.01)), refresh_every=1)
    state = optimizer.init(jnp.zeros((6, 9)))
    for seed in range(4):
        _, state = optimizer.update(normal(seed, 6, 9), state)
    assert state.leaves.memory[0].count == 3  # the first step begins


def test_walking_in_the_whole_space_stays():
    S = orthonormalize(normal(0, 4, 4))
    assert jnp.all(optim.walk(0.5)(jax.random.key(0), S, jnp.zeros((4, 7))) == S)


@pytest.mark.parametrize("num_used", [0, 3, 7])
@pytest.mark.parametrize("rank_of_gradient", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_the_complement_is_never_left(num_used, rank_of_gradient):
    used = orthonormalize(normal(0, 10, 7)).at[:, num_used:].set(0)
    grad = normal(1, 10, rank_of_gradient) @ normal(2, rank_of_gradient, 12)
    S = orthonormalize(normal(3, 10, 3))
    for inside in (optim.singular("svd"), optim.singular(), optim.jump(), optim.walk(0.1)):
        Q = optim.complement(used, inside)(jax.random.key(0), S, grad)
        assert jnp.max(jnp.abs(used.T @ Q)) < 1e-5
        assert off_orthonormal(Q) < 1e-5


def test_the_complement_of_nothing_is_the_policy_itself():
    grad, S = decaying(0, 10, 12, rate=2.0), orthonormalize(normal(3, 10, 3))
    Q = optim.complement(jnp.zeros((10, 4)), optim.singular("svd"))(jax.random.key(0), S, grad)
    np.testing.assert_allclose(Q, optim.singular("svd")(jax.random.key(0), S, grad), atol=1e-5)


def test_where_no_room_is_left_columns_are_zero():
    used = jnp.eye(5)[:, :4]
    Q = optim.complement(used)(jax.random.key(0), jnp.eye(5)[:, :3], normal(0, 5, 6))
    np.testing.assert_allclose(jnp.abs(Q), jnp.zeros((5, 3)).at[4, 0].set(1), atol=1e-6)
