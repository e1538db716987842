"""Measurement operators against dense matrices, explicit sums and line integrals, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax.diffusion import operators
from subspace_jax.diffusion.operators import coils, masks
from tests.measurements import ANGLES, LINE, birdcage, materialize, normal

pytestmark = pytest.mark.usefixtures("x64")


PLANE = masks.gaussian2d(0, (8, 10), acceleration=2.0, num_center=(2, 2))


def mri(mask):
    return operators.multicoil_mri(mask, normal(5, (3, 8, 10), "complex128"))


REAL, COMPLEX = ("float64", "complex128"), ("complex128",)
ONE = ("float64",)
OPERATORS = {
    "multicoil_mri line": (lambda: mri(LINE), COMPLEX),
    "multicoil_mri plane": (lambda: mri(PLANE), COMPLEX),
    "multicoil_mri weights": (lambda: mri(jnp.linspace(-1, 1, 80).reshape(8, 10)), COMPLEX),
    "multicoil_mri odd": (
        lambda: operators.multicoil_mri(jnp.arange(5) % 3 == 0, birdcage(2, (7, 5))),
        COMPLEX,
    ),
    "radial": (lambda: operators.radial(3, (7, 8)), COMPLEX),
    "stack3d": (lambda: operators.stack3d(mri(LINE), 2), COMPLEX),
    "parallel_beam": (lambda: operators.parallel_beam(jnp.asarray(ANGLES), (6, 9), 12), REAL),
    "parallel_beam short": (lambda: operators.parallel_beam(jnp.asarray(ANGLES), (6, 9), 7), REAL),
    "parallel_beam_fourier odd": (
        lambda: operators.parallel_beam_fourier(jnp.asarray(ANGLES), (6, 9), 13),
        REAL,
    ),
    "parallel_beam_fourier even": (
        lambda: operators.parallel_beam_fourier(jnp.asarray(ANGLES), (7, 4), 8),
        REAL,
    ),
    "parallel_beam_fourier short": (
        lambda: operators.parallel_beam_fourier(jnp.asarray(ANGLES), (6, 9), 6),
        REAL,
    ),
    "stack3d parallel_beam": (
        lambda: operators.stack3d(
            operators.parallel_beam_fourier(jnp.asarray(ANGLES), (3, 3), 5), 3
        ),
        ONE,
    ),
    "inpaint": (lambda: operators.inpaint(jnp.asarray(PLANE)), REAL),
    "inpaint weights": (lambda: operators.inpaint(jnp.arange(-2.0, 3)), ONE),
    "downsample": (lambda: operators.downsample((6, 9), 3), REAL),
    "downsample volume": (lambda: operators.downsample((2, 4, 2), 2), ONE),
    "blur": (lambda: operators.blur((6, 7), normal(4, (3, 4))), REAL),
    "blur complex": (lambda: operators.blur((5, 4), normal(4, (5, 3), "complex128")), COMPLEX),
    "blur line": (lambda: operators.blur((6,), normal(4, (6,))), ONE),
    "linear": (lambda: operators.linear(jnp.cumsum, (5,), dtype="float64"), ONE),
    "linear complex": (
        lambda: operators.linear(
            lambda x: (1 - 2j) * jnp.cumsum(x)[1:] + 1j * x[:-1], (5,), dtype="complex128"
        ),
        COMPLEX,
    ),
}
CASES = [(name, dtype) for name, (_, dtypes) in OPERATORS.items() for dtype in dtypes]
FIRST = [(name, dtypes[0]) for name, (_, dtypes) in OPERATORS.items()]


@functools.cache
def compiled(name):
    """The operator, and all that it can do in one program."""
    op = OPERATORS[name][0]()

    def everything(u, v):
        return op.apply(u), op.adjoint(v), op.gram(u), op.adjoint(op.apply(u))

    return op, everything, jax.jit(everything)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_the_adjoint_is_matched_and_gram_is_adjoint_after_apply(name, dtype):
    op, _, everything = compiled(name)
    u, v = normal(0, op.in_shape, dtype), normal(1, op.out_shape, dtype)
    Au, AHv, gram, twice = everything(u, v)
    assert Au.shape == op.out_shape
    assert AHv.shape == op.in_shape
    assert Au.dtype == AHv.dtype == gram.dtype == dtype
    scale = np.linalg.norm(Au) * np.linalg.norm(v)
    assert abs(np.vdot(Au, v) - np.vdot(u, AHv)) < 1e-12 * scale
    if name != "parallel_beam":  # whose Gram operator is tested on smooth images
        np.testing.assert_allclose(gram, twice, atol=1e-12 * np.abs(twice).max())


@pytest.mark.parametrize(("name", "dtype"), FIRST)
def test_a_batch_is_one_image_after_another(name, dtype):
    op, _, everything = compiled(name)
    u, v = normal(0, (2, *op.in_shape), dtype), normal(1, (2, *op.out_shape), dtype)
    together = jax.jit(jax.vmap(everything))(u, v)
    for i in range(2):
        for batch, one in zip(together, everything(u[i], v[i]), strict=True):
            np.testing.assert_allclose(batch[i], one, atol=1e-12 * np.abs(one).max())


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_single_precision_stays_single(name, dtype):
    if name.startswith("linear"):
        return  # its dtype is the caller's
    op, everything, _ = compiled(name)
    short = {"float64": "float32", "complex128": "complex64"}[dtype]
    structs = (jax.ShapeDtypeStruct(shape, short) for shape in (op.in_shape, op.out_shape))
    assert {each.dtype.name for each in jax.eval_shape(everything, *structs)} == {short}


def dft(n):
    """The centred orthonormal Fourier matrix, by its definition."""
    k = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(k, k) / n) / np.sqrt(n)


@pytest.mark.parametrize("shape", [(4, 6), (5, 4), (7, 5), (1, 1)])
def test_multicoil_mri_is_mask_after_explicit_fourier_sums_after_maps(shape):
    maps, mask = normal(0, (2, *shape), "complex128"), normal(1, shape) > 0
    F = np.kron(dft(shape[0]), dft(shape[1]))
    blocks = [np.diag(np.ravel(mask)) @ F @ np.diag(np.ravel(s)) for s in maps]
    matrix = materialize(operators.multicoil_mri(mask, maps), "complex128")
    np.testing.assert_allclose(matrix, np.concatenate(blocks), atol=1e-12)


def test_radial_is_mask_after_explicit_fourier_sums():
    mask = masks.radial(3, (5, 6))
    matrix = np.diag(np.ravel(mask)) @ np.kron(dft(5), dft(6))
    found = materialize(operators.radial(3, (5, 6)), "complex128")
    np.testing.assert_allclose(found, matrix, atol=1e-12)


def test_a_line_mask_is_its_columns():
    line, plane = mri(LINE), mri(jnp.broadcast_to(LINE, (8, 10)))
    u = normal(0, (8, 10), "complex128")
    for name in ("apply", "gram"):
        here, there = (jax.jit(getattr(op, name))(u) for op in (line, plane))
        np.testing.assert_allclose(here, there, atol=1e-12)


def test_the_gram_of_a_line_mask_transforms_one_axis_only():
    jaxpr = str(jax.make_jaxpr(mri(LINE).gram)(jnp.zeros((8, 10), complex)))
    assert jaxpr.count("fft_lengths") == jaxpr.count("fft_lengths=(10,)") > 0


def test_eigenvalues_are_at_most_one_for_maps_whose_squares_sum_to_one():
    op = operators.multicoil_mri(LINE, birdcage(3, (4, 10)))
    values = np.linalg.svd(materialize(op, "complex128"), compute_uv=False)
    assert values.max() <= 1 + 1e-12
    full = operators.multicoil_mri(jnp.ones(10), birdcage(3, (4, 10)))
    u = normal(0, (4, 10), "complex128")
    np.testing.assert_allclose(jax.jit(full.gram)(u), u, atol=1e-12)


def test_inpainting_is_the_diagonal_of_the_mask():
    matrix = materialize(operators.inpaint(jnp.asarray(PLANE)), "float64")
    np.testing.assert_array_equal(matrix, np.diag(np.ravel(PLANE)))


@pytest.mark.parametrize(("shape", "factor"), [((4, 6), 2), ((3, 3), 3), ((5,), 1)])
def test_downsampling_takes_means_over_blocks(shape, factor):
    op = operators.downsample(shape, factor)
    u = normal(0, shape)
    expected = np.empty(op.out_shape)
    for index in np.ndindex(op.out_shape):
        expected[index] = u[tuple(slice(factor * i, factor * (i + 1)) for i in index)].mean()
    np.testing.assert_allclose(jax.jit(op.apply)(u), expected, atol=1e-14)
    matrix = materialize(op, "float64")
    identity = np.eye(len(matrix)) / factor ** len(shape)
    np.testing.assert_allclose(matrix @ matrix.T, identity, atol=1e-14)


@pytest.mark.parametrize(
    ("shape", "lengths", "dtype"),
    [
        ((5, 6), (3, 2), "float64"),
        ((4, 4), (4, 1), "complex128"),
        ((3,), (3,), "float64"),
        ((2, 3, 4), (1, 3, 2), "float64"),
    ],
)
def test_blurring_is_the_circular_sum_over_the_kernel(shape, lengths, dtype):
    kernel, u = normal(0, lengths, dtype), normal(1, shape, dtype)
    expected = np.zeros(shape, dtype)
    for index in np.ndindex(lengths):
        offsets = [i - k // 2 for i, k in zip(index, lengths, strict=True)]
        expected += np.asarray(kernel)[index] * np.roll(u, offsets, range(len(shape)))
    blurred = jax.jit(operators.blur(shape, kernel).apply)(u)
    np.testing.assert_allclose(blurred, expected, atol=1e-13)


def test_derivatives_reach_the_maps():
    y = normal(3, (2, 4, 6), "complex128")

    def misfit(maps):
        return jnp.sum(jnp.abs(operators.multicoil_mri(LINE[:6], maps).adjoint(y)) ** 2)

    maps, t = normal(1, (2, 4, 6), "complex128"), normal(2, (2, 4, 6), "complex128")
    slope = jax.jit(lambda m: jax.jvp(misfit, (m,), (t,))[1])(maps)
    misfit = jax.jit(misfit)
    difference = (misfit(maps + 1e-6 * t) - misfit(maps - 1e-6 * t)) / 2e-6
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named():
    maps = jnp.ones((2, 4, 6), complex)
    op = operators.multicoil_mri(jnp.ones(6), maps)
    with pytest.raises(ValueError, match=r"\(4, 6\) or \(6,\).*got \(5, 6\)"):
        operators.multicoil_mri(jnp.ones((5, 6)), maps)
    with pytest.raises(ValueError, match=r"\(C, H, W\), got \(4, 6\)"):
        operators.multicoil_mri(jnp.ones(6), maps[0])
    with pytest.raises(ValueError, match="mask must be real"):
        operators.multicoil_mri(jnp.ones(6, complex), maps)
    with pytest.raises(ValueError, match=r"image must be of dtype complex64, got float64"):
        op.apply(jnp.ones((4, 6)))
    with pytest.raises(ValueError, match="image must be of dtype"):
        op.gram(jnp.ones((4, 6)))
    with pytest.raises(ValueError, match="measurement must be of dtype"):
        op.adjoint(jnp.ones((2, 4, 6)))
    with pytest.raises(ValueError, match=r"image must have shape \(4, 6\), got \(6, 4\)"):
        jax.jit(op.apply)(jnp.ones((6, 4), complex))
    with pytest.raises(ValueError, match=r"got 0 and \(4, 4\)"):
        operators.radial(0, (4, 4))
    with pytest.raises(ValueError, match="num_slices must be at least 1, got 0"):
        operators.stack3d(op, 0)
    with pytest.raises(ValueError, match=r"image must have shape \(2, 4, 6\), got \(3, 4, 6\)"):
        operators.stack3d(op, 2).apply(jnp.ones((3, 4, 6), complex))
    with pytest.raises(ValueError, match=r"vector, got \(2, 2\)"):
        operators.parallel_beam(jnp.ones((2, 2)), (4, 4), 7)
    with pytest.raises(ValueError, match=r"\(H, W\), got \(4,\)"):
        operators.parallel_beam_fourier(jnp.ones(2), (4,), 7)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        operators.parallel_beam(jnp.ones(2), (4, 4), 0)
    ct = operators.parallel_beam(jnp.ones(2), (4, 4), 2)
    with pytest.raises(ValueError, match=r"measurement must have shape \(2, 2\), got \(7, 2\)"):
        ct.adjoint(jnp.ones((7, 2)))
    with pytest.raises(ValueError, match="image must be real or complex, got int64"):
        ct.apply(jnp.ones((4, 4), int))
    with pytest.raises(ValueError, match="mask must be real, got complex128"):
        operators.inpaint(jnp.ones((2, 2), complex))
    with pytest.raises(ValueError, match=r"divide the shape \(4, 6\), got 4"):
        operators.downsample((4, 6), 4)
    with pytest.raises(ValueError, match=r"into the shape \(4, 6\), got \(5, 1\)"):
        operators.blur((4, 6), jnp.ones((5, 1)))
    with pytest.raises(ValueError, match=r"into the shape \(4, 6\), got \(3,\)"):
        operators.blur((4, 6), jnp.ones(3))
    with pytest.raises(ValueError, match="image must be of dtype complex128, got float64"):
        operators.blur((4,), jnp.ones(3, complex)).apply(jnp.ones(4))
    with pytest.raises(ValueError, match=r">= 1, got 0\.5"):
        masks.uniform(0, 8, acceleration=0.5)
    with pytest.raises(ValueError, match=r"\(4,\), but only 2 of \(8,\)"):
        masks.gaussian(0, 8, acceleration=4.0, num_center=4)
    with pytest.raises(ValueError, match=r"between 0 and \(8,\), got \(9,\)"):
        masks.equispaced(0, 8, acceleration=1.0, num_center=9)
    with pytest.raises(ValueError, match="deviation must be > 0, got 0"):
        masks.gaussian2d(0, (8, 8), acceleration=2.0, deviation=0.0)
    with pytest.raises(ValueError, match="growth must be >= 0, got -1"):
        masks.poisson_disc(0, (8, 8), acceleration=2.0, growth=-1.0)
    with pytest.raises(ValueError, match=r"\(8,\) measures nothing"):
        masks.acceleration(jnp.zeros(8, bool))
    with pytest.raises(ValueError, match="got 0 and"):
        coils.birdcage(0, (4, 4))
    with pytest.raises(ValueError, match=r"above sqrt\(2\) half widths, got 1\.0"):
        coils.birdcage(2, (4, 4), radius=1.0)
    with pytest.raises(ValueError, match=r"got float64 \(2, 8, 8\)"):
        coils.espirit(jnp.ones((2, 8, 8)))
    with pytest.raises(ValueError, match=r"kernel_width must lie in 1\.\.5, got 6"):
        coils.espirit(jnp.ones((2, 5, 8), complex))
