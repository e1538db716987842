"""Aggregation rules against their definitions, one coordinate and one subset at a time."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import aggregators

GRADIENTS = np.random.default_rng(0).normal(size=(15, 40)).astype(np.float32)
GRADIENTS[:3] *= 4


def apply(rule, G, f):
    return np.asarray(jax.jit(rule)(jnp.asarray(G), jnp.int32(f)))


def brute_krum_scores(G, f):
    distances = ((G[:, None].astype(np.float64) - G[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, : max(len(G) - f - 2, 1)].sum(1)


@pytest.mark.parametrize("f", [0, 2, 6])
def test_a_trimmed_mean_leaves_out_the_f_extremes_of_each_coordinate(f):
    ascending = np.sort(GRADIENTS, axis=0)[f : 15 - f]
    np.testing.assert_allclose(
        apply(aggregators.trimmed_mean, GRADIENTS, f), ascending.mean(0), atol=1e-6
    )


@pytest.mark.parametrize("f", [0, 3, 6])
def test_krum_and_multi_krum_choose_by_distances_to_nearest_neighbours(f):
    order = np.argsort(brute_krum_scores(GRADIENTS, f))
    np.testing.assert_array_equal(apply(aggregators.krum, GRADIENTS, f), GRADIENTS[order[0]])
    np.testing.assert_allclose(
        apply(aggregators.multi_krum, GRADIENTS, f), GRADIENTS[order[: 15 - f]].mean(0), atol=1e-6
    )


@pytest.mark.parametrize("f", [0, 1, 3])
def test_bulyan_averages_what_lies_nearest_to_the_median_of_krums_choices(f):
    left, chosen = list(range(15)), []
    for _ in range(15 - 2 * f):
        best = left[int(np.argmin(brute_krum_scores(GRADIENTS[left], f)))]
        if len(left) <= 2:
            best = left[0]
        left.remove(best)
        chosen.append(best)
    picked = GRADIENTS[chosen].astype(np.float64)
    middle = np.median(picked, axis=0)
    expected = np.empty(40)
    for j in range(40):
        best = min(
            combinations(range(len(picked)), len(picked) - 2 * f),
            key=lambda rows, j=j: np.abs(picked[list(rows), j] - middle[j]).sum(),
        )
        expected[j] = picked[list(best), j].mean()
    np.testing.assert_allclose(apply(aggregators.bulyan, GRADIENTS, f), expected, atol=1e-5)


def test_equal_gradients_come_back_from_every_rule():
    same = np.tile(GRADIENTS[:1], (15, 1))
    rules = ("mean", "median", "trimmed_mean", "krum", "multi_krum", "bulyan", "flag")
    for rule in rules:
        found = apply(getattr(aggregators, rule), same, 2)
        np.testing.assert_allclose(found, same[0], rtol=2e-4, atol=1e-5, err_msg=rule)


def test_the_flag_keeps_to_the_honest_where_the_mean_is_led_off():
    rng = np.random.default_rng(1)
    honest = rng.normal(size=400)
    G = honest + 0.3 * rng.normal(size=(15, 400))
    G[:5] = -10 * honest + 0.1 * rng.normal(size=(5, 400))
    cosines = [
        found @ honest / np.linalg.norm(found) / np.linalg.norm(honest)
        for found in (
            apply(rule, G.astype(np.float32), 5) for rule in (aggregators.mean, aggregators.flag)
        )
    ]
    assert cosines[0] < -0.9
    assert cosines[1] > 0.9


def test_the_gram_matrix_is_summed_over_pieces(monkeypatch):
    monkeypatch.setattr(aggregators, "_PIECE", 16)
    found = jax.jit(aggregators.gram_matrix)(jnp.asarray(GRADIENTS))  # two pieces and a half
    np.testing.assert_allclose(found, GRADIENTS @ GRADIENTS.T, rtol=1e-5, atol=1e-4)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from experiments import aggregators

mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
G = jax.random.normal(jax.random.key(0), (15, 400)).at[:3].multiply(4)

def piece(G):
    K = jax.lax.psum(aggregators.gram_matrix(G), "model")
    return aggregators.matmul(aggregators.flag_coefficients(K), G)

specs = {"in_specs": P(None, "model"), "out_specs": P("model")}
sharded = jax.jit(jax.shard_map(piece, mesh=mesh, **specs))
alone = jax.jit(aggregators.flag)(G, 0)
np.testing.assert_allclose(sharded(G), alone, atol=1e-4 * float(jnp.max(jnp.abs(alone))))
text = sharded.lower(G).compile().as_text()
assert text.count(" all-reduce(") == 1 and "f32[15,15]" in text, text
assert "all-gather" not in text and "all-to-all" not in text
"""


@pytest.mark.slow
def test_only_the_gram_matrix_travels_between_devices_that_hold_pieces_of_the_gradients(
    on_eight_devices,
):
    on_eight_devices(SHARDED)


@pytest.mark.parametrize("name", ["random_attack", "sign_flip", "scaled_flip", "little_is_enough"])
def test_attacks_change_the_liars_only(name):
    liars = jnp.arange(15) < 4
    attacked = getattr(aggregators, name)(jax.random.key(0), jnp.asarray(GRADIENTS), liars)
    np.testing.assert_array_equal(attacked[4:], GRADIENTS[4:])
    assert np.all(np.any(np.asarray(attacked[:4]) != GRADIENTS[:4], axis=1))
