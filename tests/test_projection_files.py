"""A model as a seed and d numbers."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import projections, tree

PARAMS = {"w": jnp.zeros((30, 40)), "b": jnp.zeros(17)}
SCHEMES = [
    "hashed", "rolled", "fastfood", "gaussian", "gaussian_orthonormal", "sparse", "rademacher"
]  # fmt: skip
ELSEWHERE = """
import sys, jax, jax.numpy as jnp
from subspace_jax import projections, tree
like = {"w": jax.ShapeDtypeStruct((30, 40), "float32"), "b": jax.ShapeDtypeStruct((17,), "float32")}
moved = projections.expand(*projections.load(sys.argv[1], like))
sys.stdout.buffer.write(tree.ravel(moved).tobytes())
"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_loaded_is_what_was_saved_to_the_last_bit(scheme, tmp_path):
    key, z = jax.random.key(5), jnp.linspace(-1, 1, 9)
    projections.save(tmp_path / "model.npz", scheme, key, PARAMS, z)
    P, found = projections.load(tmp_path / "model.npz", PARAMS)
    np.testing.assert_array_equal(found, z)
    assert projections.load_key(tmp_path / "model.npz") == key
    expected = projections.expand(getattr(projections, scheme)(key, PARAMS, 9), z)
    np.testing.assert_array_equal(tree.ravel(projections.expand(P, found)), tree.ravel(expected))
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["hashed", "fastfood"])
def test_another_process_makes_the_same_bits(scheme, tmp_path):
    key, z = jax.random.key(5), jnp.linspace(-1, 1, 9)
    projections.save(tmp_path / "model.npz", scheme, key, PARAMS, z)
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "model.npz")]
    there = subprocess.run(command, capture_output=True, check=True).stdout
    P = getattr(projections, scheme)(key, PARAMS, 9)
    assert there == np.asarray(tree.ravel(projections.expand(P, z))).tobytes()


def test_the_file_is_z_and_a_few_hundred_bytes(tmp_path):
    sizes = []
    for d in (10, 1000):
        z = jnp.ones(d, jnp.float32)
        projections.save(tmp_path / "model.npz", "hashed", jax.random.key(0), PARAMS, z)
        sizes.append((tmp_path / "model.npz").stat().st_size)
    assert sizes[1] - sizes[0] == 4 * 990
    assert sizes[0] < 1500


def test_what_does_not_fit_is_named(tmp_path):
    key, z = jax.random.key(0), jnp.ones(4)
    with pytest.raises(ValueError, match=r"one of hashed, .* got 'dense'"):
        projections.save(tmp_path / "x.npz", "dense", key, PARAMS, z)
    with pytest.raises(ValueError, match=r"vector, got shape \(2, 2\)"):
        projections.save(tmp_path / "x.npz", "hashed", key, PARAMS, z.reshape(2, 2))
    projections.save(tmp_path / "x.npz", "hashed", key, PARAMS, z)
    with pytest.raises(ValueError, match=r"for parameters .*17.* got .*18"):
        projections.load(tmp_path / "x.npz", PARAMS | {"b": jnp.zeros(18)})
    with pytest.raises(FileNotFoundError):
        projections.load(tmp_path / "y.npz", PARAMS)
