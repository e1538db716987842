"""Parallel-beam operators against explicit sums and line integrals, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax.diffusion import operators
from tests.measurements import ANGLES, materialize, normal

pytestmark = pytest.mark.usefixtures("x64")


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
