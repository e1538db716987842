import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from jax.experimental import sparse
from jax.test_util import check_grads

from subspace_jax import tree
from subspace_jax.linalg import operators

pytestmark = pytest.mark.usefixtures("x64")

SHAPES = [(1,), (7,), (5, 4), (1, 6), (3, 4, 2)]
RNG = np.random.default_rng(0)


def random(shape, dtype=float, seed=0):
    rng = np.random.default_rng(seed)
    imaginary = 1j * rng.normal(size=shape) if np.issubdtype(dtype, np.complexfloating) else 0
    return jnp.asarray(rng.normal(size=shape) + imaginary, dtype)


def coefficient(shape, seed=1):
    return jnp.exp(random(shape, seed=seed))


def disc(shape):
    axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in shape), indexing="ij")
    return jnp.asarray(sum(axis**2 for axis in axes) <= 1.2)


def kron_laplacian(shape, spacings):
    """The Laplacian as a Kronecker sum of second differences."""
    total = np.zeros((1, 1))
    for n, h in zip(shape, spacings, strict=True):
        second = (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)) / h**2
        total = np.kron(total, np.eye(n)) + np.kron(np.eye(total.shape[0]), second)
    return total


def dense_diffusion(c, mask, spacings):
    """Face by face in Python."""
    index = np.arange(c.size).reshape(c.shape)
    A = np.zeros((c.size, c.size))
    for cell in np.ndindex(c.shape):
        for axis, h in enumerate(spacings):
            for step in (-1, 1):
                other = tuple(k + step * (a == axis) for a, k in enumerate(cell))
                if not mask[cell]:
                    continue
                i = index[cell]
                inside = all(0 <= k < n for k, n in zip(other, c.shape, strict=True))
                if inside and mask[other]:
                    face = 2 * c[cell] * c[other] / (c[cell] + c[other])
                    A[i, index[other]] -= face / h**2
                else:
                    face = c[cell]
                A[i, i] += face / h**2
    return A


def sparse_pattern(m, n):
    return sp.random(m, n, 0.3, rng=np.random.default_rng(3))


def sines(params):
    return jnp.sin(random((6, 4), seed=5) @ params)


def quartic(y):
    return jnp.sum(y**2) ** 2 + jnp.sum(jnp.cos(y[:-1] * y[1:]))


OPERATORS = {
    "laplacian": lambda: (operators.laplacian, jnp.zeros((5, 4))),
    "complex laplacian": lambda: (operators.laplacian, jnp.zeros((5, 4), complex)),
    "diffusion": lambda: (
        operators.diffusion(coefficient((5, 4)), mask=disc((5, 4))),
        jnp.zeros((5, 4)),
    ),
    "convection": lambda: (
        operators.convection_diffusion(coefficient((5, 4)), (3.0, -2.0)),
        jnp.zeros((5, 4)),
    ),
    "ell": lambda: (operators.ell(sparse_pattern(6, 9)), jnp.zeros(9)),
    "complex ell": lambda: (
        operators.ell(sp.csr_matrix(np.asarray(random((4, 4), complex)))),
        jnp.zeros(4, complex),
    ),
    "dia": lambda: (operators.dia(sparse_pattern(9, 9)), jnp.zeros(9)),
    "complex dia": lambda: (
        operators.dia(sparse_pattern(9, 9) * (1 + 2j) + 1j * sp.eye(9)),
        jnp.zeros(9, complex),
    ),
    "laplacian in space": lambda: (operators.laplacian, jnp.zeros((3, 4, 2))),
    "diffusion in space": lambda: (
        operators.diffusion(coefficient((3, 4, 2)), mask=disc((3, 4, 2))),
        jnp.zeros((3, 4, 2)),
    ),
    "convection in space": lambda: (
        operators.convection_diffusion(coefficient((3, 4, 2)), (3.0, -2.0, 1.0)),
        jnp.zeros((3, 4, 2)),
    ),
    "normal": lambda: (operators.normal(random((5, 4), complex), shift=0.3), jnp.zeros(4, complex)),
    "hvp": lambda: (operators.hvp(quartic, random((4,), seed=4)), jnp.zeros(4)),
    "ggn": lambda: (operators.ggn(sines, quartic, random((4,), seed=4)), jnp.zeros(4)),
    "shifted": lambda: (operators.shifted(random((4, 4), complex), 2j), jnp.zeros(4, complex)),
    "kernel": lambda: (operators.kernel(asymmetric, random((7, 2)), chunk=3), jnp.zeros(7)),
    "adjoint": lambda: (
        operators.adjoint(jax.tree_util.Partial(jnp.matmul, random((4, 3))), jnp.zeros(3)),
        jnp.zeros(4),
    ),
}
"""By name what makes an operator and a vector of its domain."""


def asymmetric(x, y):
    return jnp.exp(-jnp.sum((x - 0.5 * y) ** 2))


def gaussian(x, y):
    return jnp.exp(-jnp.sum((x - y) ** 2))


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_moves_the_operator_across_the_inner_product(name):
    A, like = OPERATORS[name]()
    v = random(like.shape, like.dtype, 1)
    Av = np.asarray(jax.jit(A)(v))
    u = np.asarray(random(Av.shape, Av.dtype, 2))
    assert np.linalg.norm(Av) > 0
    np.testing.assert_allclose(
        np.vdot(u, Av), np.vdot(jax.jit(operators.adjoint(A, like))(u), v), rtol=1e-12
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_an_argument_of_jit(name):
    A, like = OPERATORS[name]()
    v = random(like.shape, like.dtype, 1)
    A = jax.tree_util.Partial(A)
    np.testing.assert_allclose(jax.jit(lambda A, v: A(v))(A, v), A(v), rtol=1e-13)
    assert A(v).dtype == v.dtype


@pytest.mark.parametrize("shape", SHAPES)
def test_laplacian_is_the_kronecker_sum_of_second_differences(shape):
    spacings = [0.5, 2.0, 1.5][: len(shape)]
    like = jnp.zeros(shape)
    A = operators.materialize(lambda v: operators.laplacian(v, spacing=spacings), like)
    np.testing.assert_allclose(A, kron_laplacian(shape, spacings), rtol=1e-14)
    np.testing.assert_array_equal(A, A.T)


@pytest.mark.parametrize("shape", SHAPES)
def test_diffusion_is_its_sum_over_faces_and_exactly_symmetric(shape):
    spacings = [0.5, 2.0, 1.5][: len(shape)]
    c, like = coefficient(shape), jnp.zeros(shape)
    for mask in (None, disc(shape)):
        operator = operators.diffusion(c, mask=mask, spacing=spacings)
        A = np.asarray(operators.materialize(operator, like))
        inside = np.ones(shape, bool) if mask is None else np.asarray(mask)
        expected = dense_diffusion(np.asarray(c), inside, spacings)
        rows = inside.ravel()
        np.testing.assert_allclose(A[rows], expected[rows], rtol=1e-13)
        np.testing.assert_array_equal(A, A.T)
        assert np.linalg.eigvalsh(A).min() > 0
        np.testing.assert_array_equal(np.diag(A), np.ravel(operators.diagonal(operator)))
        assert np.count_nonzero(A[~rows]) == np.count_nonzero(~rows)


def test_diffusion_with_coefficient_one_is_the_laplacian():
    v = random((5, 4))
    for h in (1.0, 0.25, (0.5, 2.0)):
        np.testing.assert_allclose(
            operators.diffusion(jnp.ones((5, 4)), spacing=h)(v),
            operators.laplacian(v, spacing=h),
            rtol=1e-13,
        )


def test_what_the_coefficient_is_outside_the_mask_does_not_matter():
    mask = disc((6, 6))
    c = jnp.where(mask, coefficient((6, 6)), jnp.nan)
    v = random((6, 6))
    outside_one = operators.diffusion(jnp.where(mask, c, 1), mask=mask)
    np.testing.assert_array_equal(operators.diffusion(c, mask=mask)(v), outside_one(v))


def test_vmap_over_coefficients_builds_one_operator_each():
    cs = jnp.stack([coefficient((4, 3), seed) for seed in range(3)])
    v = random((4, 3))
    together = jax.vmap(lambda c: operators.diffusion(c)(v))(cs)
    batch = jax.vmap(operators.diffusion)(cs)
    again = jax.vmap(lambda A: A(v))(batch)
    for c, first, second in zip(cs, together, again, strict=True):
        np.testing.assert_allclose(first, operators.diffusion(c)(v), rtol=1e-14)
        np.testing.assert_allclose(second, first, rtol=1e-14)


@pytest.mark.slow
def test_diffusion_is_differentiable_in_its_coefficient():
    v, mask = random((4, 3)), disc((4, 3))

    def energy(c):
        c = jnp.asarray(c)  # check_grads calls with numpy arrays
        return tree.vdot(v, operators.diffusion(c, mask=mask, spacing=0.5)(v))

    check_grads(energy, (coefficient((4, 3)),), order=2, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_upwind_convection_differences_against_the_flow(shape):
    velocity, spacings = [3.0, -2.0, 0.0][: len(shape)], [0.5, 2.0, 1.5][: len(shape)]
    c = coefficient(shape)
    A = operators.convection_diffusion(c, velocity, spacing=spacings)
    v = random(shape)
    expected = operators.diffusion(c, spacing=spacings)(v)
    for axis, (a, h) in enumerate(zip(velocity, spacings, strict=True)):
        difference = jnp.diff(jnp.pad(v, [(int(i == axis),) * 2 for i in range(v.ndim)]), axis=axis)
        start = 0 if a > 0 else 1
        upwind = jax.lax.slice_in_dim(difference, start, start + shape[axis], axis=axis)
        expected = expected + a / h * upwind
    np.testing.assert_allclose(A(v), expected, rtol=1e-12)
    matrix = operators.materialize(A, v)
    np.testing.assert_allclose(jnp.diag(matrix), jnp.ravel(operators.diagonal(A)), rtol=1e-14)
    assert jnp.linalg.eigvals(matrix).real.min() > 0


PARAMS = {"w": jnp.arange(6, dtype=jnp.float32).reshape(3, 2) / 6, "b": jnp.ones(2)}


def model(params):
    return jnp.tanh(jnp.arange(3.0) @ params["w"] + params["b"] ** 2)


def loss(outputs):
    return jnp.sum(jnp.cosh(outputs)) + outputs[0] * outputs[1]


def test_hvp_is_the_hessian():
    params = jax.tree.map(lambda x: jnp.asarray(x, float), PARAMS)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    expected = jax.hessian(lambda z: loss(model(unravel(z))))(flat)
    A = operators.materialize(operators.hvp(lambda p: loss(model(p)), params), params)
    np.testing.assert_allclose(A, expected, atol=1e-13)


def test_ggn_is_the_jacobian_around_the_hessian_of_the_loss():
    params = jax.tree.map(lambda x: jnp.asarray(x, float), PARAMS)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    J = jax.jacobian(lambda z: model(unravel(z)))(flat)
    expected = J.T @ jax.hessian(loss)(model(params)) @ J
    A = operators.materialize(operators.ggn(model, loss, params), params)
    np.testing.assert_allclose(A, expected, atol=1e-13)


def test_hvp_and_ggn_are_traced_once_for_all_params():
    traces = []

    def counted(A, v):
        traces.append(1)
        return A(v)

    params = jax.tree.map(lambda x: jnp.asarray(x, float), PARAMS)
    jitted = jax.jit(counted)
    for scale in (1.0, 2.0):
        at = jax.tree.map(lambda x, scale=scale: scale * x, params)
        jitted(operators.ggn(model, loss, at), params)
    assert len(traces) == 1


@pytest.mark.parametrize("build", [lambda p: operators.hvp(model, p)])
def test_a_vector_unlike_the_params_is_named(build):
    with pytest.raises(ValueError, match=r"v\['b'\] has shape \(3,\), params\['b'\] has shape"):
        build(PARAMS)({"w": PARAMS["w"], "b": jnp.ones(3)})


@pytest.mark.parametrize("dtype", [float, complex])
def test_normal_is_the_gram_matrix_plus_a_shift(dtype):
    A = random((5, 3), dtype)
    expected = A.conj().T @ A + 2 * jnp.eye(3)
    matvec = jax.tree_util.Partial(jnp.matmul, A)
    like = jax.ShapeDtypeStruct((3,), A.dtype)
    for operator in (
        operators.normal(A, shift=2.0),
        operators.normal(sparse.BCOO.fromdense(A), shift=2.0),
        operators.normal(matvec, like, shift=2.0),
        operators.normal(matvec, AT=A.conj().T, shift=jnp.asarray(2.0)),
    ):
        np.testing.assert_allclose(operators.materialize(operator, like), expected, rtol=1e-12)


def test_adjoint_of_a_map_between_pytrees():
    def A(v):
        return {"sum": v["x"] + v["y"], "scaled": 2j * v["x"]}

    like = {"x": jnp.zeros(2, complex), "y": jnp.zeros(2, complex)}
    AH = operators.adjoint(A, like)
    matrix = operators.materialize(A, like)
    image = jax.eval_shape(A, like)
    np.testing.assert_allclose(operators.materialize(AH, image), matrix.conj().T)


def test_the_adjoint_of_a_callable_needs_like():
    with pytest.raises(ValueError, match="like="):
        operators.adjoint(lambda v: v)


@pytest.mark.parametrize(("n", "chunk"), [(1, 256), (7, 3), (6, 3), (8, 1)])
def test_kernel_is_the_gram_matrix_of_its_points(n, chunk):
    X = random((n, 2))
    expected = jax.vmap(jax.vmap(gaussian, (None, 0)), (0, None))(X, X) + 0.1 * jnp.eye(n)
    A = operators.kernel(gaussian, X, shift=0.1, chunk=chunk)
    np.testing.assert_allclose(operators.materialize(A, jnp.zeros(n)), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=rf"shape \({n},\), got \({n + 1},\)"):
        A(jnp.ones(n + 1))


def test_kernel_is_differentiable_in_its_hyperparameters():
    X, v = random((5, 2)), random(5)

    def energy(width):
        k = jax.tree_util.Partial(lambda width, x, y: gaussian(x / width, y / width), width)
        return tree.vdot(v, operators.kernel(k, X, chunk=2)(v))

    check_grads(energy, (jnp.asarray(1.3),), order=1, rtol=1e-6)


def test_arrays_sparse_matrices_and_callables_are_linear_maps():
    A, v = random((4, 3)), random(3)
    for B in (A, np.asarray(A), sparse.BCOO.fromdense(A), lambda v: A @ v):
        np.testing.assert_allclose(operators.as_callable(B)(v), A @ v, rtol=1e-14)
        np.testing.assert_allclose(operators.materialize(B, v), A, rtol=1e-14)
        np.testing.assert_allclose(
            operators.adjoint(B, v)(jnp.ones(4)), A.T @ jnp.ones(4), rtol=1e-13
        )
    with pytest.raises(ValueError, match="callable or have @, got float"):
        operators.as_callable(1.0)


def test_wrong_grids_are_named():
    with pytest.raises(ValueError, match=r"the grid \(3, 3\) got values of shape \(2, 3\)"):
        operators.diffusion(jnp.ones((3, 3)))(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"bool array of shape \(3, 3\), got float64 \(3, 3\)"):
        operators.diffusion(jnp.ones((3, 3)), mask=jnp.ones((3, 3)))
    with pytest.raises(ValueError, match="one spacing per axis, 2, got 3"):
        operators.laplacian(jnp.ones((3, 3)), spacing=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"one velocity per axis of \(3, 3\), got 1"):
        operators.convection_diffusion(jnp.ones((3, 3)), (1.0,))
