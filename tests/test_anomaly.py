"""Detectors of anomalies against dense oracles, and what their papers say they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from subspace_jax.anomaly import gods, kernel, pca_residual

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
LOW_RANK = (RNG.normal(size=(60, 3)) @ RNG.normal(size=(3, 12)) + 2).astype(np.float32)


def test_residuals_are_squared_distances_to_the_principal_subspace():
    X = RNG.normal(size=(40, 8)).astype(np.float32) * np.geomspace(4, 0.1, 8).astype(np.float32)
    model = jax.jit(lambda X: pca_residual.fit(X, energy=0.9))(X)
    centred = X - X.mean(0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    rank = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.9)) + 1
    V = np.linalg.svd(centred)[2][:rank].T
    assert int(model.rank) == rank
    new = RNG.normal(size=(5, 8)).astype(np.float32)
    expected = (((new - X.mean(0)) @ (np.eye(8) - V @ V.T)) ** 2).sum(1)
    np.testing.assert_allclose(pca_residual.score(model, jnp.asarray(new)), expected, rtol=1e-3)


def test_normal_examples_of_a_low_rank_have_no_residual():
    model = pca_residual.fit(jnp.asarray(LOW_RANK), energy=1.0)
    scores = pca_residual.score(model, jnp.asarray(LOW_RANK))
    assert float(jnp.max(scores)) < 1e-4 * float(jnp.sum(jnp.asarray(LOW_RANK) ** 2))


@pytest.mark.parametrize("rank", [0, 1, 4])
def test_the_noise_threshold_finds_the_number_of_signals(rank):
    rng = np.random.default_rng(rank)
    signal = rng.normal(size=(400, rank)) @ (4 * rng.normal(size=(rank, 60)))
    X = jnp.asarray(signal + rng.normal(size=(400, 60)), jnp.float32)
    assert int(jax.jit(pca_residual.fit_above_noise)(X).rank) == rank


def test_an_image_is_scored_by_its_worst_patches():
    scores = jnp.asarray(RNG.permutation(200.0 - np.arange(200.0)).reshape(10, 20))
    assert float(pca_residual.image_score(scores)) == pytest.approx(199.5)
    assert float(pca_residual.image_score(scores, top=1e-9)) == 200
    assert float(pca_residual.image_score(scores, top=1.0)) == pytest.approx(100.5)


def test_the_map_is_the_interpolated_image_under_a_gaussian():
    scores = jnp.asarray(RNG.random((7, 9)), jnp.float32)
    found = pca_residual.score_map(scores, (28, 36), sigma=2.0)
    image = np.asarray(jax.image.resize(scores, (28, 36), "linear"))
    expected = ndimage.gaussian_filter(image, 2.0, mode="nearest", truncate=4.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("num_directions", [1, 3])
def test_frames_stay_orthonormal_and_descend(num_directions):
    X = jnp.asarray(LOW_RANK / np.linalg.norm(LOW_RANK, axis=1).mean())
    loss = gods.objective(X, margin=0.3, penalty=10.0)
    start = gods._start(KEY, X, num_directions, 0.3)
    model = jax.jit(
        lambda X: gods.fit(KEY, X, num_directions=num_directions, margin=0.3, maxiter=30)
    )(X)
    for W in (model.frames.W1, model.frames.W2):
        np.testing.assert_allclose(W.T @ W, np.eye(num_directions), atol=1e-5)
    assert float(loss(model.frames)) < 0.9 * float(loss(start))


@pytest.mark.slow
def test_the_score_is_positive_exactly_where_the_paper_says_abnormal():
    X = jnp.asarray(LOW_RANK / np.linalg.norm(LOW_RANK, axis=1).mean())
    model = jax.jit(lambda X: gods.fit(KEY, X, num_directions=2, maxiter=10))(X)
    new = jnp.asarray(RNG.normal(size=(200, 12)), jnp.float32)
    above, below = new @ model.frames.W1 + model.frames.b1, new @ model.frames.W2 + model.frames.b2
    normal = (above.min(1) >= model.margin) & (below.max(1) <= -model.margin)
    np.testing.assert_array_equal(gods.score(model, new) <= 0, normal)


def test_inner_products_of_kernel_coordinates_are_the_kernel():
    X, new = (jnp.asarray(RNG.normal(size=(n, 4)), jnp.float32) for n in (25, 6))
    model = kernel.fit(X, gamma=0.3, rank=25)
    squares = ((np.asarray(new)[:, None] - np.asarray(X)[None]) ** 2).sum(-1)
    found = kernel.apply(model, new) @ kernel.apply(model, X).T
    np.testing.assert_allclose(found, np.exp(-0.3 * squares), atol=2e-3)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("energy must be in", lambda X: pca_residual.fit(X, energy=1.5)),
        ("at least two examples", lambda X: pca_residual.fit(X[0])),
        ("features are expected", lambda X: pca_residual.score(pca_residual.fit(X), X[:, :3])),
        ("top must be in", lambda X: pca_residual.image_score(X, top=0.0)),
        ("sigma must be positive", lambda X: pca_residual.score_map(X, (9, 9), sigma=0.0)),
        ("num_directions must be in 1 to 12", lambda X: gods.fit(KEY, X, num_directions=13)),
        ("must be >= 0", lambda X: gods.fit(KEY, X, num_directions=1, margin=-1.0)),
        ("gamma must be positive", lambda X: kernel.fit(X, gamma=0.0, rank=3)),
        ("rank must be in 1 to 60", lambda X: kernel.fit(X, gamma=1.0, rank=61)),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(message, call):
    with pytest.raises(ValueError, match=message):
        call(jnp.asarray(LOW_RANK))
