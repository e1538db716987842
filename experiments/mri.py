"""Scans of many coils to reconstruct: simulated from slices, or measured ones from a file."""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import denoisers, harness
from subspace_jax import diffusion
from subspace_jax.diffusion.operators import coils, masks


class Sampling(NamedTuple):
    """What is measured of a slice."""

    mask: jax.Array
    """(H, W): points, or whole lines. Not (W,), so that one program serves all."""
    center: tuple[int, int]
    """The size of the fully sampled centre, of which the coil maps are estimated."""


class Scans(NamedTuple):
    """Slices measured with masks of one kind."""

    mask: jax.Array
    """(num, H, W)."""
    maps: jax.Array
    """(num, C, H, W), estimated from the calibration data alone."""
    y: jax.Array
    """(num, C, H, W)."""
    sigma_y: float
    """Standard deviation of the noise, per real component."""
    truth: np.ndarray
    """(num, H, W), magnitudes."""

    @property
    def num_numbers(self) -> np.ndarray:
        """Real ones, of each slice: two a point and coil."""
        return 2 * self.maps.shape[1] * np.asarray(jnp.sum(self.mask, (1, 2)))

    def setup(self, i: int) -> tuple[jax.Array, jax.Array]:
        """The mask and the maps of slice ``i``."""
        return self.mask[i], self.maps[i]

    def operator(self, mask: jax.Array, maps: jax.Array) -> diffusion.operators.LinearOperator:
        """Of a slice."""
        return diffusion.operators.multicoil_mri(mask, maps)


def simulate(
    slices: np.ndarray,
    samplings: Sequence[Sampling],
    key: jax.Array,
    *,
    num_coils: int,
    sigma_y: float,
) -> Scans:
    """Scans of magnitudes (num, n, n), a sampling each, their phases and coils simulated.

    Phases are of the kind that the prior was trained with, which flatters it. A birdcage measures;
    what reconstructs only knows the coil maps that the calibration data tell.
    """
    size = slices.shape[-1]
    true_maps = coils.birdcage(num_coils, (size, size), dtype=jnp.complex64)

    @partial(jax.jit, static_argnames="center")
    def scan(key, magnitude, mask, center):
        op = diffusion.operators.multicoil_mri(mask, true_maps)
        phase_key, noise_key = jax.random.split(key)
        clean = op.apply(magnitude * denoisers.smooth_phase(phase_key, size))
        noise = sigma_y * diffusion.standard_normal(noise_key, clean.shape, clean.dtype)
        y = clean + jnp.where(mask, noise, 0)
        return y, estimate_maps(y, center)

    # One after the other: in a compiled loop the estimation of maps was hundreds of times slower.
    scanned = [
        scan(jax.random.fold_in(key, i), one, *sampling)
        for i, (one, sampling) in enumerate(zip(slices, samplings, strict=True))
    ]
    y, maps = (jnp.stack(arrays) for arrays in zip(*scanned, strict=True))
    return Scans(jnp.stack([s.mask for s in samplings]), maps, y, sigma_y, slices)


def draw_sampling(pattern: str, acceleration: float, size: int, seed: int) -> Sampling:
    """Lines, half of them in the centre; or points, as volumetric scans can have them.

    Args:
        pattern: "equispaced" or "random" lines, or points at "Poisson" disc distances.
        acceleration: all lines or points over those measured; of lines up to 4, or the centre is
            too small to estimate coil maps.
        size: of the square image.
        seed: of the draw.

    Raises:
        ValueError: no such pattern.
    """
    draw = harness.pick("pattern", pattern, _PATTERNS)
    if draw is masks.poisson_disc:
        center = round(size * 0.6 / acceleration**0.5)
        shape, block = (size, size), (center, center)
        return Sampling(
            draw(seed, shape, acceleration=float(acceleration), num_center=block), block
        )
    center = round(size / (2 * acceleration))
    lines = draw(seed, size, acceleration=float(acceleration), num_center=center)
    return Sampling(jnp.broadcast_to(lines, (size, size)), (min(size, 24), center))


_PATTERNS: dict[str, Callable] = {
    "equispaced": masks.equispaced,
    "random": masks.uniform,
    "Poisson": masks.poisson_disc,
}


def estimate_maps(y: jax.Array, center: tuple[int, int]) -> jax.Array:
    """Coil maps (C, H, W) from the centre of k-space.

    Pixels at the edge of the head count, so none is left out; of eight lines, small windows.
    """
    height, width = y.shape[1:]
    rows, columns = (
        slice(n // 2 - k // 2, n // 2 - k // 2 + k)
        for n, k in zip((height, width), center, strict=True)
    )
    return coils.espirit(y[:, rows, columns], (height, width), kernel_width=4, crop=0.0)


def load_fastmri(
    path: Path | str, size: int, pattern: str, acceleration: float, seed: int, *, sigma_y: float
) -> Scans:
    """Scans from the fully sampled ``kspace`` (num, C, H, W) of a file like fastMRI's.

    Images are cropped to (size, size); a slice's scale is that of its brightest pixels. The truth
    is what all of k-space gives. ``sigma_y`` is what samplers are told: the noise is the scanner's.

    Raises:
        ValueError: the package h5py is missing, or the file has no such data.
    """
    images = coil_images(path, size)
    full = _centred(np.fft.fftn, images)
    samplings = [draw_sampling(pattern, acceleration, size, seed + i) for i in range(len(full))]
    mask = jnp.stack([s.mask for s in samplings])
    y = jnp.asarray(np.where(mask[:, None], full, 0), jnp.complex64)
    estimate = jax.jit(lambda one: estimate_maps(one, samplings[0].center))
    maps = jnp.stack([estimate(one) for one in y])
    return Scans(mask, maps, y, sigma_y, magnitudes(images))


def coil_images(path: Path | str, size: int) -> np.ndarray:
    """Images (num, C, size, size) of the ``kspace`` in a file like fastMRI's.

    Raises:
        ValueError: the package h5py is missing, or the file has no such data.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ValueError("files like fastMRI's need the package h5py") from error
    with h5py.File(path) as stored:
        if "kspace" not in stored or stored["kspace"].ndim != 4:
            raise ValueError(f"{path} has no kspace of shape (slices, coils, height, width)")
        kspace = np.asarray(stored["kspace"], np.complex64)
    height, width = kspace.shape[2:]
    if min(height, width) < size:
        raise ValueError(f"size {size} exceeds the images of {height} x {width} in {path}")
    images = _centred(np.fft.ifftn, kspace)
    rows, columns = (slice((n - size) // 2, (n - size) // 2 + size) for n in (height, width))
    images = images[:, :, rows, columns]
    scale = np.quantile(magnitudes(images), 0.995, axis=(1, 2))
    return images / scale[:, None, None, None]


def magnitudes(images: np.ndarray) -> np.ndarray:
    """The root of the sum of squares over coils (num, C, h, w) -> (num, h, w)."""
    return np.sqrt(np.sum(np.abs(images) ** 2, 1)).astype(np.float32)


def _centred(transform: Any, x: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    shifted = np.fft.ifftshift(x, axes)
    return np.fft.fftshift(transform(shifted, axes=axes, norm="ortho"), axes)
