"""One table: every public function under jit, vmap and grad, in every dtype it claims."""

from types import FunctionType, ModuleType
from typing import get_origin

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from subspace_jax import (
    anomaly,
    clustering,
    concepts,
    continual,
    diffusion,
    krylov,
    landscape,
    linalg,
    manifolds,
    optim,
    projections,
    tree,
)
from subspace_jax.krylov import precondition
from subspace_jax.linalg import frequent_directions, operators, subspaces
from subspace_jax.manifolds import head
from tests.rows import FIELD, SHAPES, Row, arrays, bases, keys, normal, params
from tests.rows_anomaly import ANOMALY_ROWS
from tests.rows_clustering import CLUSTERING_ROWS
from tests.rows_concepts import CONCEPT_ROWS
from tests.rows_continual import CONTINUAL_ROWS
from tests.rows_diffusion_operators import DIFFUSION_OPERATOR_ROWS
from tests.rows_diffusion_samplers import DIFFUSION_SAMPLER_ROWS
from tests.rows_krylov import OPERATOR_ROWS, SOLVER_ROWS
from tests.rows_landscape import LANDSCAPE_ROWS
from tests.rows_low_rank import LOW_RANK_ROWS
from tests.rows_manifolds import MANIFOLD_ROWS
from tests.rows_riemannian import RIEMANNIAN_ROWS
from tests.rows_select import SELECT_ROWS
from tests.rows_spectral import SPECTRAL_ROWS

SCHEMES = (
    "hashed", "rolled", "fastfood", "gaussian", "gaussian_orthonormal", "sparse", "rademacher"
)  # fmt: skip


def projection(scheme, dtype="float32"):
    like = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in SHAPES.items()}
    return getattr(projections, scheme)(jax.random.key(0), like, 7)


def constructor(scheme):
    def build(key):
        like = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
        return projections.materialize(getattr(projections, scheme)(key, like, 7))

    return Row(build, keys, dtypes=("float32",), grad=False)


def quadratic(params):
    return sum(jnp.sum(leaf**2) for leaf in params.values())


def restricted(z):
    zeros = {name: jnp.ones(shape, z.dtype) for name, shape in SHAPES.items()}
    P = projection("hashed", str(z.dtype))
    return projections.restrict(quadratic, P, zeros)(z)


def expanded(z):
    return projections.expand(projection("fastfood", str(z.dtype)), z)


def subspace_update(grads):
    optimizer = optim.subspace(optax.sgd(0.1), projection("hashed", str(grads["w"].dtype)))
    return optimizer.update(grads, optimizer.init(grads))[0]


def structured_update(grads):
    P = projection("hashed", str(grads["w"].dtype))
    optimizer = optim.structured_subspace(optax.sgd(0.1), P)
    return optimizer.update(grads, optimizer.init(grads))[0]


def sparse_posterior(p):
    method = optim.sparse_vi(quadratic, p, optax.sgd(0.1), num_active=5, num_examples=10)
    state = method.update(jax.random.key(1), method.init(jax.random.key(0), p))[0]
    return method.center(state.posterior)


def through_random_bases(grads):
    transform = optim.random_bases(jax.random.key(0), projections.hashed, 3, per_leaf=True)
    return transform.update(grads, transform.init(grads))[0]


def gram_of_sketch(start, A):
    found = frequent_directions.update(frequent_directions.update(start, A[:4]), A[4:])
    return found.B.conj().T @ found.B, found.shrinkage


TABLE = {
    "tree.size": Row(lambda x: jnp.asarray(tree.size(x)), lambda r, d: (params(r, d),), grad=False),
    "tree.vdot": Row(tree.vdot, lambda r, d: (params(r, d), params(r, d)), FIELD),
    "tree.norm": Row(tree.norm, lambda r, d: (params(r, d),), FIELD),
    "tree.axpy": Row(
        lambda x, y: tree.axpy(2.0, x, y), lambda r, d: (params(r, d), params(r, d)), FIELD
    ),
    "tree.ravel": Row(tree.ravel, lambda r, d: (params(r, d),), FIELD),
    "linalg.orthonormalize": Row(linalg.orthonormalize, arrays((6, 3)), FIELD),
    "linalg.project": Row(
        linalg.project, lambda r, d: (*bases(2)(r, d), normal(r, (6,), d)), FIELD
    ),
    "linalg.project_out": Row(
        linalg.project_out, lambda r, d: (*bases(2)(r, d), normal(r, (6, 3), d)), FIELD
    ),
    "linalg.complement": Row(linalg.complement, bases(2), FIELD, grad=False),
    "linalg.principal_angles": Row(linalg.principal_angles, bases(2, 2), FIELD),
    "linalg.procrustes": Row(linalg.procrustes, arrays((6, 3), (6, 3)), FIELD),
    "linalg.hadamard_transform": Row(linalg.hadamard_transform, arrays((2, 8))),
    "linalg.block_hadamard_transform": Row(linalg.block_hadamard_transform, arrays((2, 11))),
    "linalg.range_finder": Row(
        lambda A: linalg.range_finder(jax.random.key(0), A, 2), arrays((6, 5)), FIELD
    ),
    "linalg.randomized_svd": Row(
        lambda A: linalg.randomized_svd(jax.random.key(0), A, 2)[1], arrays((6, 5)), FIELD
    ),
    "linalg.energy_rank": Row(
        lambda x: jnp.where(jnp.arange(4) < linalg.energy_rank(x**2, 0.6), x, 0), arrays((4,))
    ),
    "frequent_directions.init": Row(
        lambda x: frequent_directions.init(5, 3, dtype=x.dtype), arrays(()), FIELD, grad=False
    ),
    "frequent_directions.update": Row(
        lambda A: gram_of_sketch(frequent_directions.init(5, 3, dtype=A.dtype), A),
        arrays((6, 5)),
        FIELD,
    ),
    **{f"projections.{scheme}": constructor(scheme) for scheme in SCHEMES},
    "projections.spanned": Row(
        lambda basis, z: projections.expand(projections.spanned(basis), z),
        lambda r, d: ({"w": normal(r, (5, 4, 3), d)}, normal(r, (3,), d)),
    ),
    "projections.expand": Row(expanded, arrays((7,))),
    "projections.contract": Row(
        lambda g: projections.contract(projection("fastfood", str(g["w"].dtype)), g),
        lambda r, d: (params(r, d),),
    ),
    "projections.restrict": Row(restricted, arrays((7,))),
    "projections.materialize": Row(
        lambda scale: scale * projections.materialize(projection("sparse", str(scale.dtype))),
        arrays(()),
    ),
    "optim.subspace": Row(subspace_update, lambda r, d: (params(r, d),)),
    "optim.structured_subspace": Row(structured_update, lambda r, d: (params(r, d),)),
    "optim.sparse_vi": Row(sparse_posterior, lambda r, d: (params(r, d),)),
    "optim.random_bases": Row(through_random_bases, lambda r, d: (params(r, d),)),
    **ANOMALY_ROWS,
    **CLUSTERING_ROWS,
    **CONCEPT_ROWS,
    **CONTINUAL_ROWS,
    **DIFFUSION_OPERATOR_ROWS,
    **DIFFUSION_SAMPLER_ROWS,
    **LANDSCAPE_ROWS,
    **LOW_RANK_ROWS,
    **MANIFOLD_ROWS,
    **OPERATOR_ROWS,
    **SELECT_ROWS,
    **SOLVER_ROWS,
    **SPECTRAL_ROWS,
    **RIEMANNIAN_ROWS,
}
CASES = [(name, dtype) for name, row in TABLE.items() for dtype in row.dtypes]

HEAVY = ("krylov", "gods", "linalg", "optim.riemannian", "precondition", "subspaces")
HEAVY += (*manifolds.__all__, "diffusion", "landscape.top", "low_rank_gaussians", "coils", "masks")
HEAVY += ("optim.galore", "optim.grass", "optim.low_rank", "optim.matrix_axes", "optim.online")
HEAVY += ("optim.recover", "optim.sara", "optim.sampled", "optim.subspace_momentum", "olss.replay")
HEAVY += ("jacobian", "k_subspaces.fit")
"""Functions that compile for seconds; they have tests of their own, in every dtype."""


ON_THE_HOST = {"krylov.raise_if_failed"}
ON_THE_HOST |= {f"projections.{name}" for name in ("save", "load", "load_key")}
ON_THE_HOST |= {f"olss.{name}" for name in ("factorize", "fit", "search", "refit")}


def first_dtypes():
    """A case for each function, in its first dtype, the heavy ones marked slow."""
    for name, row in TABLE.items():
        slow = name.startswith(HEAVY)
        yield pytest.param(name, row.dtypes[0], marks=[pytest.mark.slow] if slow else [])


def public_functions():
    packages = (manifolds, anomaly, clustering, concepts, continual, diffusion, diffusion.operators)
    modules = [getattr(package, name) for package in packages for name in package.__all__]
    for module in (
        *(diffusion, head, krylov, landscape, linalg, operators, optim, precondition),
        *(frequent_directions, projections, subspaces),
        *(module for module in modules if isinstance(module, ModuleType)),
    ):
        for name in module.__all__:
            value = getattr(module, name)
            alias = get_origin(value) is not None  # of a type, such as Denoiser
            name = f"{module.__name__.split('.')[-1]}.{name}"
            if not (name in ON_THE_HOST or alias or isinstance(value, type | ModuleType)):
                yield name
    for name, value in vars(tree).items():
        local = isinstance(value, FunctionType) and value.__module__ == tree.__name__
        if local and not name.startswith(("_", "check")):
            yield f"tree.{name}"


def test_every_public_function_stands_in_the_table():
    assert sorted(TABLE) == sorted(public_functions())


@pytest.fixture
def x64(request):
    with jax.enable_x64("64" in request.getfixturevalue("dtype")):
        yield


def operands(name, dtype, seed=0):
    return TABLE[name].operands(np.random.default_rng(seed), dtype)


def stacked(*trees):
    """By numpy, which compiles nothing, but for keys."""

    def stack(*leaves):
        is_key = jnp.issubdtype(leaves[0].dtype, jax.dtypes.extended)
        return (jnp if is_key else np).stack(leaves)

    return jax.tree.map(stack, *trees)


def tolerance(dtype):
    return {"rtol": 1e-11, "atol": 1e-12} if dtype == "float64" else {"rtol": 2e-4, "atol": 2e-5}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_jit_traces_once_for_operands_of_one_shape_and_dtype_out_is_dtype_in(name, dtype):
    chex.clear_trace_counter()
    jitted = jax.jit(chex.assert_max_traces(TABLE[name].function, n=1))
    traced = [jitted.trace(*operands(name, dtype, seed)) for seed in range(2)]  # not compiled
    expected = {jnp.dtype(dtype), jnp.zeros((), dtype).real.dtype}
    for leaf in jax.tree.leaves(traced[0].out_info):
        assert leaf.dtype in expected or name == "tree.size"


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "dtype"), [case for case in CASES if not case[0].startswith(HEAVY)]
)
def test_jit_gives_the_same(name, dtype):
    function, given = TABLE[name].function, operands(name, dtype)
    chex.assert_trees_all_close(jax.jit(function)(*given), function(*given), **tolerance(dtype))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "dtype"), first_dtypes())
def test_vmap_equals_one_call_after_another(name, dtype):
    function, first, second = TABLE[name].function, operands(name, dtype), operands(name, dtype, 1)
    function = jax.jit(function)
    together = jax.vmap(function)(*stacked(first, second))
    apart = stacked(function(*first), function(*second))
    chex.assert_trees_all_close(together, apart, **tolerance(dtype))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * name.startswith(HEAVY))
     for name, row in TABLE.items() if row.grad],
)  # fmt: skip
def test_derivatives_equal_finite_differences(name):
    with jax.enable_x64(True):
        check_grads(
            jax.jit(TABLE[name].function), operands(name, "float64"), order=1, rtol=1e-5, atol=1e-6
        )
