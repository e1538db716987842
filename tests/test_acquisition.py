"""What an MR scanner measures: masks and coil maps, in float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax.diffusion import operators
from subspace_jax.diffusion.operators import coils, masks
from tests.measurements import birdcage

pytestmark = pytest.mark.usefixtures("x64")


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
