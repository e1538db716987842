"""Every projection against its own matrix: isometry, adjoint, traced dimensions, portability."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import projections, tree
from subspace_jax.projections import _hashing, _rolled

GOLDEN = Path(__file__).parent / "golden" / "hashed.json"
SCHEMES_GOLDEN = json.loads((GOLDEN.parent / "schemes.json").read_text())
SCHEMES = (
    "hashed", "rolled", "fastfood", "gaussian", "gaussian_orthonormal", "sparse", "rademacher"
)  # fmt: skip
ISOMETRIC = ("hashed", "rolled", "fastfood", "gaussian_orthonormal")
# (D, d): one parameter, primes, powers of two and their neighbours, d = D, D = d + 1, D < 2 d.
SIZES = [(1, 1), (2, 1), (7, 7), (101, 100), (127, 67), (128, 64), (129, 65), (1009, 31), (997, 2)]


def make(scheme, params, dim, seed=0, **options):
    """In one program: op by op, every step of a hash would be compiled by itself."""
    construct = partial(getattr(projections, scheme), params=params, dim=dim, **options)
    return jax.jit(construct)(jax.random.key(seed))


def build(scheme, size, dim, seed=0, **options):
    return make(scheme, jax.ShapeDtypeStruct((size,), jnp.float32), dim, seed, **options)


def matrix(*args, **options):
    return np.asarray(jax.jit(projections.materialize)(build(*args, **options)), np.float64)


def tree_params(dtype=jnp.float32):
    return {"w": jnp.ones((3, 5), dtype), "b": [jnp.ones((), dtype), jnp.ones(4, dtype)]}


@pytest.mark.parametrize("scheme", ISOMETRIC)
@pytest.mark.parametrize(("size", "dim"), SIZES)
def test_columns_are_orthonormal_to_working_precision(scheme, size, dim):
    P = matrix(scheme, size, dim, seed=size)
    np.testing.assert_allclose(P.T @ P, np.eye(dim), atol=1e-6)


@pytest.mark.parametrize("scheme", ISOMETRIC)
def test_columns_are_orthonormal_for_random_sizes(scheme):
    rng = np.random.default_rng(0)
    for _ in range(3):
        size = int(rng.integers(1, 600))
        dim = int(rng.integers(1, size + 1))
        P = matrix(scheme, size, dim, seed=dim)
        np.testing.assert_allclose(P.T @ P, np.eye(dim), atol=1e-6, err_msg=f"D={size} d={dim}")


@pytest.mark.parametrize("scheme", ISOMETRIC)
def test_columns_are_unit_vectors_over_all_leaves_together(scheme):
    """Not over each leaf: released code of Fastfood has columns of norm sqrt(number of leaves)."""
    P = jax.jit(projections.materialize)(make(scheme, tree_params(), 6))
    np.testing.assert_allclose(P.T @ P, np.eye(6), atol=1e-6)


@pytest.mark.parametrize("scheme", ISOMETRIC)
def test_columns_are_orthonormal_in_float64(scheme):
    with jax.enable_x64(True):
        like = jax.ShapeDtypeStruct((211,), jnp.float64)
        P = jax.jit(projections.materialize)(make(scheme, like, 53))
        assert P.dtype == jnp.float64
        np.testing.assert_allclose(P.T @ P, np.eye(53), atol=1e-13)


@pytest.mark.parametrize("scheme", sorted(set(SCHEMES) - set(ISOMETRIC)))
@pytest.mark.parametrize(("size", "dim"), SIZES)
def test_columns_have_norm_one(scheme, size, dim):
    np.testing.assert_allclose(np.linalg.norm(matrix(scheme, size, dim), axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_different_columns_are_nearly_orthogonal_and_keys_differ(scheme):
    first, second = matrix(scheme, 4001, 20), matrix(scheme, 4001, 20, seed=1)
    off_diagonal = first.T @ first - np.eye(20)
    assert np.abs(off_diagonal).max() < 6 / np.sqrt(4001)  # six standard deviations
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("scheme", SCHEMES)
def test_contract_is_the_adjoint_of_expand(scheme):
    params = tree_params()
    projection = make(scheme, params, 7)
    P = jax.jit(projections.materialize)(projection)
    z = jax.random.normal(jax.random.key(1), (7,))
    grads = jax.tree.map(lambda x: jax.random.normal(jax.random.key(2), x.shape), params)
    updates = jax.jit(projections.expand)(projection, z)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    np.testing.assert_allclose(tree.ravel(updates), P @ z, atol=1e-6)
    np.testing.assert_allclose(
        jax.jit(projections.contract)(projection, grads), P.T @ tree.ravel(grads), atol=1e-6
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sweep_over_dim_compiles_once_and_the_rest_of_z_is_inert(scheme):
    like, dims, length = jax.ShapeDtypeStruct((97,), jnp.float32), jnp.array([1, 5, 12]), 12
    traces = []

    @jax.jit
    @jax.vmap
    def expand_ones(key, dim):
        traces.append(dim)
        projection = getattr(projections, scheme)(key, like, dim, max_dim=length)
        z = jnp.ones(length)
        grads = projections.contract(projection, jnp.arange(97.0))
        return projections.expand(projection, z), grads, projections.materialize(projection)

    keys = jax.random.split(jax.random.key(0), 3)
    for _ in range(2):
        outputs = expand_ones(keys, dims)
    assert len(traces) == 1
    for dim, updates, grads, P in zip(dims, *outputs, strict=True):
        assert np.all(P[:, dim:] == 0)
        assert np.all(grads[dim:] == 0)
        assert np.all(grads[:dim] != 0)
        np.testing.assert_allclose(updates, P[:, :dim].sum(1), atol=1e-5)
        if scheme in ISOMETRIC:
            np.testing.assert_allclose(P[:, :dim].T @ P[:, :dim], np.eye(dim), atol=1e-6)


def test_hashed_of_a_traced_dim_is_hashed_of_that_dim():
    traced = jax.jit(lambda dim: projections.materialize(build("hashed", 97, dim, max_dim=12)))
    np.testing.assert_array_equal(matrix("hashed", 97, 5), traced(5)[:, :5])


def test_a_traced_dim_out_of_bounds_is_clipped():
    like = jax.ShapeDtypeStruct((20,), jnp.float32)

    @jax.jit
    def rank(dim):
        projection = projections.hashed(jax.random.key(0), like, dim, max_dim=6)
        return jnp.sum(jnp.any(projections.materialize(projection) != 0, axis=0))

    assert [int(rank(dim)) for dim in (-3, 0, 1, 6, 99)] == [1, 1, 1, 6, 6]


def test_each_parameter_of_hashed_copies_one_entry_and_the_counts_are_balanced():
    P = matrix("hashed", 1000, 37)
    assert np.all(np.count_nonzero(P, axis=1) == 1)
    assert set(np.count_nonzero(P, axis=0)) <= {27, 28}


def test_leaves_of_hashed_are_parts_of_one_and_small_ones_share_a_lookup():
    # More than one large leaf among small ones, an empty one and a scalar.
    shapes = [(3,), (64, 100), (), (0,), (100,), (5000,)]
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    P = make("hashed", params, 40)
    size = sum(int(np.prod(shape)) for shape in shapes)
    whole = matrix("hashed", size, 40)
    np.testing.assert_array_equal(jax.jit(projections.materialize)(P), whole)
    text = str(jax.make_jaxpr(projections.expand)(P, jnp.zeros(40)))
    assert text.count(" gather[") == 3


def test_tiles_of_rolled_are_signed_copies_of_z_each_rolled_by_another_number():
    size, dim = 29 * 37 + 5, 37
    params = {"a": jnp.ones((50, 3)), "b": jnp.ones(size - 150)}
    P = np.asarray(projections.materialize(projections.rolled(jax.random.key(0), params, dim)))
    shifts = []
    for first in range(0, size, dim):
        tile = P[first : first + dim]
        shift = int(np.abs(tile[0]).argmax())
        pattern = np.roll(np.eye(dim), shift, axis=1)[: len(tile)]
        np.testing.assert_array_equal(tile != 0, pattern != 0)
        shifts.append(shift)
    assert len(set(shifts)) > 15
    assert 0.45 < np.mean(P[P != 0] > 0) < 0.55
    assert set(np.count_nonzero(P, axis=0)) == {29, 30}


def test_rolled_divides_as_integers_divide():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.integers(0, 2**31, 10_000), np.arange(999), 2**31 - np.arange(1, 999)])
    for divisor in (1, 2, 3, 750, 65_535, 65_536, 65_537, 2**24 + 1, 2**30, 2**31 - 1):
        quotient, remainder = _rolled._divide(jnp.asarray(x, jnp.uint32), jnp.uint32(divisor))
        np.testing.assert_array_equal(quotient, x // divisor)
        np.testing.assert_array_equal(remainder, x % divisor)


def test_rolled_holds_d_numbers_and_expands_without_another_vector_of_the_parameters():
    projection = build("rolled", 1_000_000, 100)
    assert sum(map(jnp.size, jax.tree.leaves(projection))) < 110
    compiled = jax.jit(projections.expand).lower(projection, jnp.ones(100)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1000


def test_sparse_has_density_one_over_root_of_size():
    P = matrix("sparse", 1024, 10)
    assert np.all(np.count_nonzero(P, axis=0) == 32)


def test_the_parameters_dtypes_and_shapes_come_back():
    params = {"half": jnp.ones(3, jnp.bfloat16), "single": jnp.ones((2, 2))}
    projection = projections.hashed(jax.random.key(0), params, 4)
    updates = projections.expand(projection, jnp.ones(4))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), updates) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )
    assert projections.contract(projection, params).dtype == jnp.float32


@pytest.mark.parametrize("scheme", SCHEMES)
def test_restrict_differentiates_like_the_chain_rule(scheme):
    params0 = tree_params()
    projection = make(scheme, params0, 3)

    def loss(params, scale):
        return scale * jnp.sum(jnp.sin(tree.ravel(params)) ** 2)

    z = jnp.array([0.3, -0.2, 0.5])
    moved = tree.axpy(1.0, jax.jit(projections.expand)(projection, z), params0)
    value, grads = jax.value_and_grad(loss)(moved, 2.0)
    loss_z = projections.restrict(loss, projection, params0)
    value_z, grads_z = jax.jit(jax.value_and_grad(loss_z))(z, 2.0)
    np.testing.assert_allclose(value_z, value, rtol=1e-6)
    expected = jax.jit(projections.contract)(projection, grads)
    np.testing.assert_allclose(grads_z, expected, rtol=1e-5)
    hessian = jax.jit(jax.hessian(loss_z))(z, 2.0)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("dim", "options", "message"),
    [
        (0, {}, "dim must lie in 1..D = 20, got 0"),
        (-1, {}, "dim must lie in 1..D = 20, got -1"),
        (21, {}, "dim must lie in 1..D = 20, got 21"),
        (5, {"max_dim": 4}, "dim must lie in 1..max_dim = 4, got 5"),
        (5, {"max_dim": 21}, "max_dim must lie in 1..D = 20, got 21"),
    ],
)
def test_a_dimension_out_of_bounds_is_named(scheme, dim, options, message):
    with pytest.raises(ValueError, match=message):
        build(scheme, 20, dim, **options)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_parameters_that_cannot_train_are_named(scheme):
    construct, key = getattr(projections, scheme), jax.random.key(0)
    with pytest.raises(ValueError, match="got 0"):
        construct(key, {}, 1)
    with pytest.raises(ValueError, match=r"params\['step'\] has dtype int32"):
        construct(key, {"step": jnp.arange(3)}, 1)
    with pytest.raises(ValueError, match="complex64"):
        construct(key, jnp.ones(3, jnp.complex64), 1)
    with pytest.raises(ValueError, match="max_dim="):
        jax.jit(lambda dim: construct(key, jnp.ones(3), dim))(2)


@pytest.mark.usefixtures("unchecked")
def test_a_dim_that_is_no_integer_is_named():
    with pytest.raises(ValueError, match=r"dim must be an integer, got 2\.5"):
        build("hashed", 20, 2.5)
    assert build("hashed", 20, np.int64(3)).max_dim == 3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64])
def test_a_z_that_cannot_train_is_named(dtype):
    with pytest.raises(ValueError, match=f"real floating-point vector .* got {dtype.__name__}"):
        projections.expand(build("hashed", 20, 5), jnp.ones(5, dtype))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_z_in_low_precision_is_summed_in_float32(scheme):
    projection = build(scheme, 300, 100)
    z = jax.random.normal(jax.random.key(1), (100,)).astype(jnp.bfloat16)
    expand = jax.jit(projections.expand)
    exact = expand(projection, z.astype(jnp.float32))
    np.testing.assert_allclose(expand(projection, z), exact, rtol=1e-6)


def test_zero_size_and_scalar_leaves_are_parameters_too():
    params = {"none": jnp.ones((0, 3)), "one": jnp.ones(()), "two": jnp.ones(2)}
    for scheme in SCHEMES:
        projection = make(scheme, params, 2)
        updates = jax.jit(projections.expand)(projection, jnp.ones(2))
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)


def test_wrong_operands_are_named():
    projection = build("hashed", 20, 5)
    with pytest.raises(ValueError, match=r"vector of shape \(5,\), got float32 \(6,\)"):
        projections.expand(projection, jnp.ones(6))
    with pytest.raises(ValueError, match=r"grads has shape \(19,\), params has shape \(20,\)"):
        projections.contract(projection, jnp.ones(19))
    with pytest.raises(ValueError, match=r"params0 has shape \(19,\), params has shape \(20,\)"):
        projections.restrict(jnp.sum, projection, jnp.ones(19))(jnp.ones(5))


@pytest.mark.parametrize("size", [1, 2, 3, 10, 97, 100, 101, 4096, 10007])
def test_the_permutation_is_one(size):
    seed = _hashing.seed_from_key(jax.random.key(size))
    values = _hashing.permutation(seed, size)
    np.testing.assert_array_equal(np.sort(values), np.arange(size))
    np.testing.assert_array_equal(
        _hashing.permutation(seed, size, (size + 1) // 2), values[: (size + 1) // 2]
    )


def test_permutations_are_uniform():
    seeds = jax.vmap(_hashing.seed_from_key)(jax.random.split(jax.random.key(0), 4000))
    values = np.asarray(jax.vmap(lambda seed: _hashing.permutation(seed, 12))(seeds))
    counts = np.stack([np.bincount(column, minlength=12) for column in values.T])
    # 121 degrees of freedom: mean 121, standard deviation 15.6.
    assert np.sum((counts - 4000 / 12) ** 2 / (4000 / 12)) < 121 + 5 * 15.6


def test_hashed_normals_are_standard_normal():
    seed = _hashing.seed_from_key(jax.random.key(0))
    x = np.sort(np.asarray(_hashing.normal(seed, jnp.arange(100_000, dtype=jnp.uint32))))
    assert np.all(np.isfinite(x))
    quantiles = jax.scipy.stats.norm.cdf(x)
    assert np.abs(quantiles - np.arange(100_000) / 1e5).max() < 1.63 / np.sqrt(100_000)


def test_a_seed_names_the_same_subspace_for_ever():
    golden = json.loads(GOLDEN.read_text())
    projection = build("hashed", golden["size"], golden["dim"], seed=golden["seed"])
    code = np.asarray(projection.arrays["code"][:64])
    assert (code >> 1).tolist() == golden["indices"]
    assert (1 - 2 * (code & 1).astype(int)).tolist() == golden["signs"]


@pytest.mark.parametrize("name", SCHEMES_GOLDEN)
def test_a_seed_names_the_same_integers_for_ever_in_every_scheme(name):
    scheme, field = name.split(".")
    projection = build(scheme, 1009, 37, seed=42)
    found = np.asarray(projection.arrays[field]).ravel()[:64]
    assert found.astype(int).tolist() == SCHEMES_GOLDEN[name]


def test_a_seed_names_the_same_places_and_signs_for_ever_in_rolled():
    projection = build("rolled", 1009, 37, seed=42)
    z = jnp.arange(1.0, 38.0) / projection.arrays["scale"]
    found = np.rint(jax.jit(projections.expand)(projection, z)).astype(int)[-64:]
    assert found.tolist() == json.loads((GOLDEN.parent / "rolled.json").read_text())


def test_every_word_of_a_key_matters():
    words = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
    keys = [jax.random.wrap_key_data(jnp.array([a, b])) for a in words for b in words]
    seeds = {tuple(np.asarray(_hashing.seed_from_key(key)).tolist()) for key in keys}
    assert len(seeds) == len(keys)
