"""Measurement operators against dense matrices, explicit sums and line integrals, in float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax.diffusion import operators
from subspace_jax.diffusion.operators import coils, masks
from tests import rows


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def normal(seed, shape, dtype="float64"):
    return rows.normal(np.random.default_rng(seed), shape, dtype)


LINE = masks.uniform(0, 10, acceleration=2.0, num_center=2)
PLANE = masks.gaussian2d(0, (8, 10), acceleration=2.0, num_center=(2, 2))

birdcage = jax.jit(coils.birdcage, static_argnums=(0, 1))
ANGLES = np.array([0.0, 0.3, np.pi / 2, 2.0, 4.0])


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
    "parallel_beam short": (lambda: operators.parallel_beam(jnp.asarray(ANGLES), (6, 9), 7), ONE),
    "parallel_beam_fourier odd": (
        lambda: operators.parallel_beam_fourier(jnp.asarray(ANGLES), (6, 9), 13),
        REAL,
    ),
    "parallel_beam_fourier even": (
        lambda: operators.parallel_beam_fourier(jnp.asarray(ANGLES), (7, 4), 8),
        ONE,
    ),
    "parallel_beam_fourier short": (
        lambda: operators.parallel_beam_fourier(jnp.asarray(ANGLES), (6, 9), 6),
        ONE,
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
}
CASES = [(name, dtype) for name, (_, dtypes) in OPERATORS.items() for dtype in dtypes]
FIRST = [(name, dtypes[0]) for name, (_, dtypes) in OPERATORS.items()]


def materialize(op, dtype):
    """The matrix of ``op`` from its products with the unit images."""
    units = jnp.eye(math.prod(op.in_shape), dtype=dtype).reshape(-1, *op.in_shape)
    columns = jax.jit(jax.vmap(op.apply))(units)
    return np.asarray(columns).reshape(len(units), -1).T


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
    if name == "linear":
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


def shadows(shape, num_detectors):
    """Where each pixel falls on the detector at each angle, counted in detectors: (a, h, w)."""
    rows, columns = np.indices(shape)
    x, y = columns - (shape[1] - 1) / 2, (shape[0] - 1) / 2 - rows
    along = [x * np.cos(angle) + y * np.sin(angle) for angle in ANGLES]
    return np.stack(along) + (num_detectors - 1) / 2


@pytest.mark.parametrize(("shape", "num_detectors"), [((4, 5), 8), ((6, 3), 4), ((1, 1), 1)])
def test_parallel_beam_is_hats_of_the_distance_to_the_detectors(shape, num_detectors):
    op = operators.parallel_beam(jnp.asarray(ANGLES), shape, num_detectors)
    apart = shadows(shape, num_detectors)[:, None] - np.arange(num_detectors)[:, None, None]
    hats = np.maximum(1 - np.abs(apart), 0)
    np.testing.assert_allclose(
        materialize(op, "float64"), hats.reshape(-1, math.prod(shape)), atol=1e-12
    )


FOURIER = [((4, 5), 8, 8), ((4, 5), 9, 9), ((6, 3), 4, 8), ((6, 3), 5, 7), ((1, 1), 1, 1)]


@pytest.mark.parametrize(("shape", "num_detectors", "period"), FOURIER)
def test_parallel_beam_fourier_is_the_sum_of_waves_below_the_band_limit(
    shape, num_detectors, period
):
    op = operators.parallel_beam_fourier(jnp.asarray(ANGLES), shape, num_detectors)
    detectors = np.arange(num_detectors)[:, None, None]
    apart = shadows(shape, num_detectors)[:, None] - detectors
    limit = (period - 1) // 2
    waves = sum(np.exp(2j * np.pi * k * apart / period) for k in range(-limit, limit + 1))
    expected = waves.real.reshape(-1, math.prod(shape)) / period
    np.testing.assert_allclose(materialize(op, "float64"), expected, atol=1e-12)


def disc(size, center, radius, *, finer=8):
    """A disc on pixels, each the part that lies inside; x right, y up, from the middle."""
    t = (np.arange(size * finer) + 0.5) / finer - size / 2
    inside = (t - center[0]) ** 2 + (-t[:, None] - center[1]) ** 2 < radius**2
    return jnp.asarray(inside.reshape(size, finer, size, finer).mean((1, 3)))


@pytest.mark.parametrize("name", ["parallel_beam", "parallel_beam_fourier"])
def test_projections_of_a_disc_are_its_chords(name):
    size, center, radius = 64, (9.0, 4.0), 18.0
    op = getattr(operators, name)(jnp.asarray(ANGLES), (size, size), 95)
    sinogram = jax.jit(op.apply)(disc(size, center, radius))
    along = center[0] * np.cos(ANGLES) + center[1] * np.sin(ANGLES)
    t = np.arange(95) - 47.0
    chords = 2 * np.sqrt(np.maximum(radius**2 - (t - along[:, None]) ** 2, 0))
    assert np.linalg.norm(sinogram - chords) < 0.03 * np.linalg.norm(chords)
    np.testing.assert_allclose(np.sum(sinogram, 1), np.pi * radius**2, rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "rtol"), [("parallel_beam", 4e-2), ("parallel_beam_fourier", 1e-7)]
)
def test_projections_of_a_gaussian_are_its_line_integrals(name, rtol):
    t, center, s = np.arange(32) - 15.5, (2.0, -1.5), 2.0
    image = np.exp(-((t - center[0]) ** 2 + (-t[:, None] - center[1]) ** 2) / (2 * s**2))
    op = getattr(operators, name)(jnp.asarray(ANGLES), (32, 32), 47)
    sinogram = jax.jit(op.apply)(jnp.asarray(image))
    along = center[0] * np.cos(ANGLES) + center[1] * np.sin(ANGLES)
    apart = np.arange(47) - 23.0 - along[:, None]
    expected = np.sqrt(2 * np.pi) * s * np.exp(-(apart**2) / (2 * s**2))
    np.testing.assert_allclose(sinogram, expected, atol=rtol * expected.max())


def smooth(size):
    t = np.linspace(-1, 1, size)
    bumps = [(0.2, -0.1, 0.3), (-0.3, 0.2, 0.2), (0.1, 0.4, 0.25)]
    images = (np.exp(-((t - a) ** 2 + (t[:, None] - b) ** 2) / (2 * s**2)) for a, b, s in bumps)
    return jnp.asarray(sum(images))


def test_the_averaged_gram_of_parallel_beam_is_near_on_smooth_images():
    angles = jnp.linspace(0, jnp.pi, 30, endpoint=False)
    op, fourier = (
        build(angles, (48, 48), 69)
        for build in (operators.parallel_beam, operators.parallel_beam_fourier)
    )
    u = smooth(48)
    gram, twice, exact = jax.jit(
        lambda u: (op.gram(u), op.adjoint(op.apply(u)), fourier.adjoint(fourier.apply(u)))
    )(u)
    assert np.linalg.norm(gram - twice) < 2e-3 * np.linalg.norm(twice)
    assert np.linalg.norm(gram - exact) < 2e-2 * np.linalg.norm(exact)


def test_the_averaged_gram_is_positive_semidefinite():
    op = operators.parallel_beam(jnp.asarray(ANGLES), (5, 6), 9)
    units = jnp.eye(30).reshape(30, 5, 6)
    matrix = np.asarray(jax.jit(jax.vmap(op.gram))(units)).reshape(30, 30)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-12


def test_the_exact_gram_holds_in_single_precision():
    angles = jnp.linspace(0, jnp.pi, 20, endpoint=False, dtype="float32")
    op = operators.parallel_beam_fourier(angles, (32, 32), 47)
    u = normal(0, (32, 32), "float32")
    gram, twice = jax.jit(lambda u: (op.gram(u), op.adjoint(op.apply(u))))(u)
    assert gram.dtype == twice.dtype == "float32"
    assert np.linalg.norm(gram - twice) < 1e-5 * np.linalg.norm(twice)


def test_angles_may_be_traced():
    u = smooth(4)

    @jax.jit
    def build(angles):
        op = operators.parallel_beam(angles, (4, 4), 7)
        return op.apply(u), op.gram(u)

    batch = jnp.stack([jnp.asarray(ANGLES), jnp.asarray(ANGLES) + 1])
    together = jax.jit(jax.vmap(build))(batch)
    for i in range(2):
        for both, one in zip(together, build(batch[i]), strict=True):
            np.testing.assert_allclose(both[i], one, atol=1e-12)


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


MASKS = {
    "uniform": (lambda seed, **o: masks.uniform(seed, 40, **o), (40,), 4),
    "equispaced": (lambda seed, **o: masks.equispaced(seed, 40, **o), (40,), 4),
    "gaussian": (lambda seed, **o: masks.gaussian(seed, 40, **o), (40,), 4),
    "gaussian2d": (lambda seed, **o: masks.gaussian2d(seed, (20, 24), **o), (20, 24), (4, 5)),
    "poisson_disc": (lambda seed, **o: masks.poisson_disc(seed, (20, 24), **o), (20, 24), (4, 5)),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("target", [2.0, 4.0, 8.0])
def test_masks_reach_their_true_acceleration_with_a_full_centre(name, target):
    draw, shape, center = MASKS[name]
    mask = draw(0, acceleration=target, num_center=center)
    assert mask.shape == shape
    wanted = round(math.prod(shape) / target)
    slack = 0.1 * wanted if name == "poisson_disc" else 0
    assert abs(int(mask.sum()) - wanted) <= slack
    assert masks.acceleration(mask) == mask.size / int(mask.sum())
    widths = np.broadcast_to(center, len(shape))
    starts = np.asarray(shape) // 2 - widths // 2
    block = tuple(slice(start, start + width) for start, width in zip(starts, widths, strict=True))
    assert np.all(np.asarray(mask)[block])


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_functions_of_their_seed(name):
    draw, _, center = MASKS[name]
    first, again, *others = (draw(s, acceleration=3.0, num_center=center) for s in (0, 0, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert any(np.any(first != other) for other in others)


def test_everything_is_measured_without_acceleration():
    for draw in (masks.uniform, masks.equispaced, masks.gaussian):
        assert np.all(draw(0, 11, acceleration=1.0))


@pytest.mark.parametrize("seed", range(3))
def test_equispaced_lines_are_equally_far_apart(seed):
    lines = np.flatnonzero(masks.equispaced(seed, 60, acceleration=4.0))
    np.testing.assert_array_equal(np.diff(lines), 4)
    uneven = np.flatnonzero(masks.equispaced(seed, 61, acceleration=3.7))
    assert set(np.diff(uneven)) <= {3, 4}


def test_uniform_draws_every_line_and_gaussian_the_middle_ones_more_often():
    uniform = np.mean([masks.uniform(s, 8, acceleration=2.0) for s in range(400)], axis=0)
    np.testing.assert_allclose(uniform, 0.5, atol=0.1)  # four standard deviations
    chances = np.mean([masks.gaussian(s, 9, acceleration=9.0) for s in range(400)], axis=0)
    expected = np.exp(-((np.arange(9) - 4) ** 2) / (2 * (9 / 6) ** 2))
    np.testing.assert_allclose(chances, expected / expected.sum(), atol=0.1)
    corner, middle = np.mean(
        [masks.gaussian2d(s, (8, 8), acceleration=4.0)[(0, 4), (0, 4)] for s in range(50)], axis=0
    )
    assert corner < middle


@pytest.mark.parametrize("acceleration", [3.0, 8.0])
def test_poisson_disc_points_are_apart_and_leave_no_room(acceleration):
    mask = masks.poisson_disc(0, (24, 20), acceleration=acceleration, growth=0.0)
    points, everywhere = np.argwhere(mask), np.argwhere(np.ones((24, 20)))
    between = np.linalg.norm(points[:, None] - points, axis=-1)
    nearest = np.linalg.norm(everywhere[:, None] - points, axis=-1).min(axis=1)
    assert nearest.max() < between[between > 0].min()


def test_poisson_disc_distances_grow_outwards():
    mask = np.asarray(masks.poisson_disc(0, (48, 48), acceleration=4.0, growth=2.0))
    assert mask[16:32, 16:32].mean() > 2 * mask[:8].mean()


def test_a_radial_mask_is_spokes_through_zero_frequency():
    cross = np.zeros((7, 8), bool)
    cross[3], cross[:, 4] = True, True
    np.testing.assert_array_equal(masks.radial(2, (7, 8)), cross)
    np.testing.assert_array_equal(masks.radial(1, (7, 8))[3], True)
    many = masks.radial(5, (21, 21))
    np.testing.assert_array_equal(many, many[::-1, ::-1])  # about zero frequency
    assert np.all(masks.radial(60, (9, 9)))


@pytest.mark.parametrize("shape", [(6, 8), (5, 5)])
@pytest.mark.parametrize("num_coils", [1, 4])
def test_birdcage_maps_have_unit_squares_and_look_outwards(num_coils, shape):
    maps = birdcage(num_coils, shape)
    assert maps.shape == (num_coils, *shape)
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=0), 1, rtol=1e-12)
    if num_coils == 4:  # to the right, below, to the left, above
        near = np.abs(
            maps[:, (shape[0] // 2, -1, shape[0] // 2, 0), (-1, shape[1] // 2, 0, shape[1] // 2)]
        )
        np.testing.assert_array_equal(np.argmax(near, axis=0), range(4))


def test_birdcage_maps_turn_into_each_other():
    maps = np.asarray(birdcage(4, (9, 9)))  # odd, so its middle is a pixel
    for here, after in zip(maps, maps[[1, 2, 3, 0]], strict=True):
        np.testing.assert_allclose(np.rot90(here, -1), after, atol=1e-12)


def acquired(size, num_coils):
    """Where an object of varying phase is, the coil maps, and the k-space of all coils."""
    t = np.arange(size) - size // 2
    values = (1 + 0.5 * np.sin(t / 3) * np.cos(t[:, None] / 2)) * np.exp(1j * t / 9)
    inside = np.hypot(t, t[:, None]) < size / 3.2
    maps = birdcage(num_coils, (size, size))
    op = operators.multicoil_mri(jnp.ones(size), maps)
    return inside, maps, jax.jit(op.apply)(jnp.asarray(values * inside))


espirit = jax.jit(coils.espirit, static_argnums=1)


def test_espirit_finds_the_maps_up_to_a_phase_where_the_object_is():
    inside, maps, kspace = acquired(32, 4)
    found = np.asarray(espirit(kspace))
    squares = np.sum(np.abs(found) ** 2, axis=0)
    np.testing.assert_allclose(squares[inside], 1, rtol=1e-12)
    np.testing.assert_allclose(squares[~inside], squares[~inside].round(), atol=1e-12)
    assert squares[~inside].mean() < 0.3  # cropped, but for a margin
    alike = np.abs(np.sum(maps.conj() * found, axis=0))
    assert alike[inside].min() > 0.999
    np.testing.assert_allclose(found[0].imag, 0, atol=1e-12)


def test_espirit_of_the_middle_is_that_of_all_and_a_batch_one_after_another():
    _, _, kspace = acquired(16, 2)
    options = {"calibration_width": 10, "kernel_width": 4, "num_steps": 50}
    run = jax.jit(functools.partial(coils.espirit, **options), static_argnums=1)
    whole = run(kspace)
    np.testing.assert_allclose(run(kspace[:, 3:13, 3:13], (16, 16)), whole, atol=1e-9)
    two = jnp.stack([kspace, kspace[::-1]])
    together = jax.jit(jax.vmap(functools.partial(coils.espirit, **options)))(two)
    for batch, each in zip(together, two, strict=True):
        np.testing.assert_allclose(batch, run(each), atol=1e-9)


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
