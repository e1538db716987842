"""Riemannian optimizers: they descend, stay on the manifold, and fall into none of the traps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import linalg, optim
from subspace_jax.manifolds import GrassmannHead, Manifold, grassmann
from tests.problems import descend

TRANSPORTS = ["projection", "parallel", "ambient"]


def normal(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def frames(seed, shape, dtype=jnp.float32):
    return jnp.linalg.qr(normal(seed, shape, dtype))[0]


def covariance(n, dtype=jnp.float32):
    """With eigenvalues 1, 1/2, 1/4 ... in a random basis."""
    U = frames(7, (n, n), dtype)
    return (U * 0.5 ** jnp.arange(n)) @ U.conj().T


def unexplained(A):
    """What PCA minimises: minus the variance in the subspace."""

    def loss(Q):
        return -jnp.sum((Q.conj() * (A @ Q)).real)

    return loss


def leading(A, k):
    return jnp.linalg.eigh(A)[1][:, -k:]


@pytest.mark.parametrize(
    ("transport", "nesterov", "dtype"),
    [
        ("projection", False, jnp.complex64),
        pytest.param("projection", True, jnp.float32, marks=pytest.mark.slow),
        pytest.param("parallel", False, jnp.float32, marks=pytest.mark.slow),
        ("parallel", True, jnp.complex64),
    ],
)
def test_momentum_finds_the_principal_subspace(transport, nesterov, dtype):
    A = covariance(10, dtype)
    options = {"manifold": grassmann, "transport": transport, "nesterov": nesterov}
    optimizer = optim.riemannian_sgd(0.3, 0.8, **options)
    Q = descend(optimizer, unexplained(A), frames(0, (10, 2), dtype), 400)
    assert linalg.geodesic_distance(Q, leading(A, 2)) < 1e-5
    assert grassmann.check(Q) < 5e-7


def test_an_ambient_buffer_depends_on_how_the_loss_goes_on_off_the_manifold():
    """It stalls where the loss grows with the frame, and converges where it does not."""
    A, Q = covariance(10), frames(0, (10, 2))

    def scale_free(Q):
        return -jnp.trace(jnp.linalg.solve(Q.T @ Q, Q.T @ A @ Q))

    optimizer = optim.riemannian_sgd(0.3, 0.8, manifold=grassmann, transport="ambient")
    best = leading(A, 2)
    ends = [descend(optimizer, loss, Q, 400) for loss in (unexplained(A), scale_free)]
    assert linalg.geodesic_distance(ends[0], best) > 0.1
    assert linalg.geodesic_distance(ends[1], best) < 1e-4


@pytest.mark.parametrize("transport", ["projection", "parallel"])
def test_adam_finds_the_principal_subspace(transport):
    A = covariance(10)
    rate = optax.exponential_decay(0.1, 20, 0.7)
    optimizer = optim.riemannian_adam(rate, manifold=grassmann, transport=transport)
    Q = descend(optimizer, unexplained(A), frames(0, (10, 2)), 400)
    assert linalg.geodesic_distance(Q, leading(A, 2)) < 1e-3


def test_one_step_without_momentum_is_the_geodesic_along_the_gradient():
    with jax.enable_x64(True):
        Q, G = frames(0, (8, 3), jnp.complex128), normal(1, (8, 3), jnp.complex128)
        optimizer = optim.riemannian_sgd(0.1, manifold=grassmann)
        u, _ = optimizer.update(G, optimizer.init(Q), Q)
        expected = grassmann.exp(Q, -0.1 * grassmann.project_tangent(Q, G.conj()))
        np.testing.assert_allclose(Q + u, expected, atol=1e-14)


@pytest.mark.parametrize(
    ("maker", "transport"),
    [
        ("riemannian_sgd", "parallel"),
        ("riemannian_adam", "projection"),
        pytest.param("riemannian_sgd", "projection", marks=pytest.mark.slow),
        pytest.param("riemannian_adam", "parallel", marks=pytest.mark.slow),
    ],
)
def test_the_steps_do_not_depend_on_the_frame(maker, transport):
    """Pitfall 3: no sign or rotation comes from a decomposition; second moments are one number."""
    with jax.enable_x64(True):
        A, Q = covariance(9, jnp.float64), frames(0, (9, 3), jnp.float64)
        turn = frames(1, (3, 3), jnp.float64)
        optimizer = getattr(optim, maker)(0.3, 0.9, manifold=grassmann, transport=transport)
        start = jnp.stack([Q, Q @ turn])
        ends = jax.vmap(lambda P: descend(optimizer, unexplained(A), P, 20))(start)
        np.testing.assert_allclose(ends[0] @ turn, ends[1], atol=1e-12)


@pytest.mark.slow
def test_cholesky_qr_turns_the_frame_and_its_transport_turns_with_it():
    """Pitfall 3, the other way round."""
    with jax.enable_x64(True):
        A, Q = covariance(9, jnp.float64), frames(0, (9, 3), jnp.float64)
        ends = [
            descend(
                optim.riemannian_sgd(
                    0.1, 0.9, manifold=grassmann.with_retraction(name), transport="parallel"
                ),
                unexplained(A),
                Q,
                30,
            )
            for name in ("polar", "cholesky_qr")
        ]
        assert linalg.geodesic_distance(*ends) < 1e-10
        assert jnp.max(jnp.abs(ends[0] - ends[1])) > 1e-3


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("steps", "num", "n", "together"),
    [
        (300, 6, 32, True),
        pytest.param(10_000, 6, 32, True, marks=pytest.mark.slow),
        pytest.param(1000, 4, 700, True, marks=pytest.mark.slow),
        pytest.param(1000, 4, 700, False, marks=pytest.mark.slow),  # not stored as rows
    ],
    ids=["short", "long", "tall", "tall one by one"],
)
def test_orthonormality_does_not_drift_at_any_learning_rate(
    transport, steps, num, n, together, compiler_options
):
    """Pitfall 4: neither over many steps, nor where the step is as long as it may be."""
    p = frames(0, (3 * num, n, 4)).reshape(3, num, n, 4)
    rates = jnp.array([0.01, 1.0, 100.0])

    def run(p, rate):
        optimizer = optim.riemannian_sgd(rate, 0.9, manifold=grassmann, transport=transport)

        def step(carry, key):
            p, state = carry
            noise = jax.random.normal(key, p.shape) + p  # with a large part inside the span
            updates, state = optimizer.update(noise, state, p)
            return (optax.apply_updates(p, updates), state), None

        def some(carry, key):
            carry = jax.lax.scan(step, carry, jax.random.split(key, steps // 50))[0]
            return carry, carry[0]

        start = p, optimizer.init(p)
        return jax.lax.scan(some, start, jax.random.split(jax.random.key(1), 50))[1]

    runs = jax.vmap(run if together else jax.vmap(run, (0, None)))
    Q = np.float64(jax.jit(runs, compiler_options=compiler_options)(p, rates))
    assert np.max(np.abs(Q.swapaxes(-1, -2) @ Q - np.eye(4))) <= 5e-7


def test_the_update_itself_is_returned_and_keeps_a_small_step():
    """Pitfall 1: the difference of two frames would have lost it in their rounding."""
    Q, G = frames(0, (20, 3)), normal(1, (20, 3))
    optimizer = optim.riemannian_sgd(1e-7, manifold=grassmann)
    u, _ = optimizer.update(G, optimizer.init(Q), Q)
    step = u - grassmann.update(Q, jnp.zeros_like(Q))  # which mends Q's own rounding
    np.testing.assert_allclose(step, -1e-7 * grassmann.project_tangent(Q, G), atol=1e-12)
    moved = Q + step - Q
    assert jnp.max(jnp.abs(moved - step)) > 1e-8


def test_coarse_or_missing_parameters_are_refused():
    """Pitfalls 1 and 2."""
    optimizer = optim.riemannian_sgd(0.1, manifold=grassmann)
    Q = frames(0, (5, 2))
    with pytest.raises(ValueError, match="needs params"):
        optimizer.update(Q, optimizer.init(Q))
    low = Q.astype(jnp.bfloat16)
    with pytest.raises(ValueError, match="float32 or finer, got bfloat16"):
        optimizer.update(low, optimizer.init(low), low)


def test_a_schedule_goes_inside_and_a_clip_before():
    """Pitfall 2: after the transformation, the same schedule leaves the manifold."""
    Q, G = frames(0, (5, 2)), 100 * normal(1, (5, 2))
    schedule = optax.linear_schedule(0.5, 0.0, 10)
    inside = optax.chain(
        optax.clip_by_global_norm(1.0), optim.riemannian_sgd(schedule, manifold=grassmann)
    )
    outside = optax.chain(
        optim.riemannian_sgd(1.0, manifold=grassmann), optax.scale_by_schedule(schedule)
    )
    updates = [optimizer.update(G, optimizer.init(Q), Q)[0] for optimizer in (inside, outside)]
    assert grassmann.check(Q + updates[0]) < 5e-7
    assert grassmann.check(Q + updates[1]) > 1e-2
    length = grassmann.dist(Q, Q + updates[0])
    share = grassmann.norm(Q, grassmann.project_tangent(Q, G)) / jnp.linalg.norm(G)
    np.testing.assert_allclose(length, 0.5 * share, rtol=1e-5)


def test_an_average_of_frames_is_brought_back_by_orthonormalizing():
    """Pitfall 2: as of an exponential moving average of parameters."""
    Q = frames(0, (9, 3))
    mean = (Q + grassmann.exp(Q, 0.5 * grassmann.random_tangent(jax.random.key(1), Q))) / 2
    assert grassmann.check(mean) > 1e-2
    assert grassmann.check(linalg.orthonormalize(mean)) < 5e-7


def test_invariance_is_checked():
    """Pitfall 5: a function of single columns is no function of the subspace."""
    with jax.enable_x64(True):
        p = {"a": frames(0, (6, 2), jnp.float64), "b": frames(1, (3, 5, 2), jnp.complex128)}
        weights = jax.tree.map(lambda Q: jnp.arange(Q.shape[-1]) + 1, p)

        def energy(p, columns):
            terms = jax.tree.map(lambda Q, w: jnp.sum(jnp.abs(Q[..., 1, :]) ** 2 * w), p, columns)
            return terms["a"] + terms["b"] ** 2

        key, ones = jax.random.key(3), jax.tree.map(jnp.ones_like, weights)
        assert optim.check_invariance(key, lambda p: energy(p, ones), p) < 1e-14
        assert optim.check_invariance(key, lambda p: energy(p, weights), p) > 1e-3


def test_weight_decay_has_no_effect_on_a_subspace():
    """Pitfall 7: its gradient is the frame itself, which is normal to the manifold."""
    Q, G = frames(0, (8, 3)), normal(1, (8, 3))
    optimizer = optim.riemannian_sgd(0.1, 0.9, manifold=grassmann)
    decayed = optax.chain(optax.add_decayed_weights(10.0), optimizer)
    plain, _ = optimizer.update(G, optimizer.init(Q), Q)
    update, _ = decayed.update(G, decayed.init(Q), Q)
    np.testing.assert_allclose(update, plain, atol=1e-6)


def test_every_product_asks_for_the_highest_precision():
    """Pitfall 8: accelerators would multiply in half the digits."""
    Q = frames(0, (2, 8, 3))
    for transport in TRANSPORTS:
        optimizer = optim.riemannian_sgd(0.1, 0.9, manifold=grassmann, transport=transport)
        text = str(jax.make_jaxpr(optimizer.update)(Q, optimizer.init(Q), Q))
        products = text.count("dot_general[")
        assert products > 10
        assert text.count("Precision.HIGHEST, Precision.HIGHEST") == products


def test_no_step_is_longer_than_max_angle():
    """Pitfall 11: also where the gradient explodes."""
    Q, G = (
        frames(0, (4, 9, 3)),
        normal(1, (4, 9, 3)) * jnp.array([1e-3, 1.0, 1e3, 1e8])[:, None, None],
    )
    for angle in (0.3, np.pi / 2):
        optimizer = optim.riemannian_sgd(1.0, manifold=grassmann, max_angle=angle)
        u, _ = jax.jit(optimizer.update)(G, optimizer.init(Q), Q)
        lengths = grassmann.dist(Q, Q + u)
        free = grassmann.norm(Q, grassmann.project_tangent(Q, G))
        np.testing.assert_allclose(lengths, jnp.minimum(free, angle), rtol=1e-4)


def test_a_complex_gradient_is_conjugated():
    """Pitfall 12: a short step along what `jax.grad` gives goes down."""
    A, Q = covariance(6, jnp.complex64), frames(0, (6, 2), jnp.complex64)
    loss = unexplained(A)
    optimizer = optim.riemannian_sgd(1e-2, manifold=grassmann)
    G = jax.grad(loss)(Q)
    u, _ = optimizer.update(G, optimizer.init(Q), Q)
    slope = -1e-2 * grassmann.norm(Q, grassmann.project_tangent(Q, G.conj())) ** 2
    np.testing.assert_allclose(loss(Q + u) - loss(Q), slope, rtol=0.1)


@pytest.mark.parametrize(
    ("maker", "transport"),
    [*(("riemannian_sgd", each) for each in TRANSPORTS), ("riemannian_adam", "projection")],
)
def test_many_subspaces_in_chunks_of_rows_move_as_all_at_once(maker, transport, monkeypatch):
    """Pitfall 10; the last chunk is not full, and a frame is stored in two blocks."""
    Q, G = frames(0, (7, 3, 700, 2)), normal(1, (7, 3, 700, 2))
    columns = grassmann.with_retraction("geodesic")._replace(in_rows=None)
    monkeypatch.setattr("subspace_jax.optim._chunks._CHUNK_BYTES", 4 * 4 * 1400)
    found = []
    for manifold, whole in ((columns, 1 << 30), (grassmann, 1 << 30), (grassmann, 0)):
        monkeypatch.setattr("subspace_jax.optim._chunks._WHOLE_BYTES", whole)
        optimizer = getattr(optim, maker)(0.3, 0.9, manifold=manifold, transport=transport)
        found.append(jax.jit(optimizer.update)(G, optimizer.init(Q), Q))
    for other in found[1:]:
        for a, b in zip(*map(jax.tree.leaves, (found[0], other)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6 * jnp.max(jnp.abs(a)))


def test_subspaces_and_weights_train_together():
    """optax.partition: each leaf by its own transformation, one state, one update."""
    x, y = normal(0, (60, 12)), jnp.arange(60) % 3
    x = x + 3 * normal(1, (3, 12))[y]
    params = {"W": normal(2, (12, 8)) / 4, "S": GrassmannHead.init(jax.random.key(3), 3, 8, 2)}

    def loss(params):
        logits = GrassmannHead.logits(params["S"], x @ params["W"])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    optimizer = optax.partition(
        {"S": optim.riemannian_sgd(0.1, 0.9, manifold=grassmann), "W": optax.adamw(1e-2)},
        {"W": "W", "S": "S"},
    )
    trained = descend(optimizer, loss, params, 60)
    assert loss(trained) < 0.2 * loss(params)
    assert jnp.max(grassmann.check(trained["S"])) < 5e-7


@pytest.mark.slow
def test_vmap_over_learning_rates_equals_one_after_another():
    A, Q = covariance(8), frames(0, (8, 2))

    def end(rate):
        optimizer = optim.riemannian_adam(rate, manifold=grassmann)
        return descend(optimizer, unexplained(A), Q, 10)

    rates = jnp.array([0.01, 0.1])
    together = jax.vmap(end)(rates)
    np.testing.assert_allclose(together, jnp.stack([end(r) for r in rates]), atol=1e-5)


def test_a_module_is_a_manifold_and_so_is_another_retraction():
    assert isinstance(grassmann, Manifold)
    assert isinstance(grassmann.with_retraction("cayley"), Manifold)
    assert not isinstance(linalg, Manifold)


@pytest.mark.usefixtures("unchecked")
def test_wrong_options_are_named():
    with pytest.raises(ValueError, match=r"transport must be one of .* got 'ambient'"):
        optim.riemannian_adam(0.1, manifold=grassmann, transport="ambient")
    with pytest.raises(ValueError, match="momentum must be in 0 <= momentum < 1, got 1"):
        optim.riemannian_sgd(0.1, 1.0, manifold=grassmann)


@pytest.mark.parametrize("make", [optim.riemannian_sgd, optim.riemannian_adam])
def test_a_network_without_subspaces_is_no_error(make):
    optimizer = make(0.1, 0.9, manifold=grassmann)
    masked = {"W": optax.MaskedNode()}
    updates, _ = optimizer.update(masked, optimizer.init(masked), masked)
    assert jax.tree.leaves(updates) == []
