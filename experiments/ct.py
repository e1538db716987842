"""CT of few views to reconstruct: parallel beams, simulated on a finer grid by another projector.

Lines driven by the pixels of slices of twice the resolution measure, and pairs of detectors are
averaged; the Fourier slice projection of the coarse grid reconstructs. Lengths are in pixels.
"""

import math
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import lungs, meshes, reconstructions
from subspace_jax import diffusion
from subspace_jax.diffusion import operators


class Scans(NamedTuple):
    """Slices measured from the same angles, in units of the operator's largest singular value."""

    angles: jax.Array
    """(views,), radians."""
    scale: jax.Array
    """What line integrals were divided by, so that A^H A <= 1."""
    y: jax.Array
    """(num, views, detectors)."""
    sigma_y: float
    """Standard deviation of the noise."""
    truth: np.ndarray
    """(num, n, n)."""

    @property
    def num_numbers(self) -> int:
        """Measured of a slice."""
        return math.prod(self.y.shape[1:])

    def setup(self, i: int) -> tuple[jax.Array, jax.Array]:
        """The same for every slice."""
        del i
        return self.angles, self.scale

    def operator(self, angles: jax.Array, scale: jax.Array) -> operators.LinearOperator:
        """Of a slice."""
        op = projection(angles, self.truth.shape[-1])
        return op._replace(
            apply=lambda x: op.apply(x) / scale,
            adjoint=lambda y: op.adjoint(y) / scale,
            gram=lambda x: op.gram(x) / scale**2,
        )


def simulate(
    slices: np.ndarray, num_views: int, degrees: float, seed: int, *, size: int, sigma_y: float
) -> Scans:
    """Scans of slices (num, 2 size, 2 size), by ``num_views`` equally spaced over ``degrees``.

    ``sigma_y`` is that of line integrals, in pixels of the coarse grid.

    Raises:
        ValueError: slices of another size.
    """
    if slices.shape[1:] != (2 * size, 2 * size):
        raise ValueError(f"slices must be {2 * size} x {2 * size}, got {slices.shape[1:]}")
    angles = jnp.linspace(0, math.radians(degrees), num_views, endpoint=False)
    clean = line_integrals(jnp.asarray(slices), angles, size)
    key = jax.random.fold_in(jax.random.key(seed), num_views)
    y = clean + sigma_y * jax.random.normal(key, clean.shape)
    scale = largest_singular_value(angles, size)
    return Scans(angles, scale, y / scale, sigma_y / float(scale), lungs.shrunk(slices, size))


def line_integrals(slices: jax.Array, angles: jax.Array, size: int) -> jax.Array:
    """(num, views, detectors) of slices (num, 2 size, 2 size), in pixels of the coarse grid."""
    num = num_detectors(size)
    fine = operators.parallel_beam(angles, slices.shape[1:], 2 * num)
    lines = jax.jit(jax.vmap(fine.apply))(slices)
    return lines.reshape(*lines.shape[:2], num, 2).mean(-1) / 2


def num_detectors(size: int) -> int:
    """More than the diagonal of an image has pixels."""
    return math.ceil(2**0.5 * size) + 4


def projection(angles: jax.Array, size: int) -> operators.LinearOperator:
    """What reconstructs: its Gram operator costs the same for any number of angles."""
    return operators.parallel_beam_fourier(angles, (size, size), num_detectors(size))


def largest_singular_value(angles: jax.Array, size: int) -> jax.Array:
    """Of the projection, by 30 steps of the power method on its Gram operator."""

    def step(x, _):
        x = projection(angles, size).gram(x)
        norm = jnp.linalg.norm(x)
        return x / norm, norm

    ones = jnp.ones((size, size)) / size
    return jnp.sqrt(jax.lax.scan(step, ones, None, length=30)[1][-1])


def filtered_back_projection(key, denoise, op, y, sigma_y, sigmas, settings):
    """A^H of the filtered measurement, at the scale that fits the measurement best.

    The ramp is that of band-limited detectors, under a Hann window that ends at ``cutoff`` times
    their limit.

    Reference: Kak & Slaney (1988), "Principles of computerized tomographic imaging", section 3.3.
    """
    del key, denoise, sigma_y, sigmas
    num = y.shape[-1]
    x = op.adjoint(jnp.fft.irfft(ramp(num, settings["cutoff"]) * jnp.fft.rfft(y, 2 * num))[:, :num])
    seen = op.apply(x)
    return x * jnp.vdot(seen, y) / jnp.vdot(seen, seen)


def ramp(num: int, cutoff: jax.Array) -> jax.Array:
    """The filter (num + 1,) of lines that are padded to twice their length."""
    n = jnp.fft.fftfreq(2 * num, 1 / (2 * num))
    odd = n % 2 == 1
    kernel = jnp.where(odd, -1 / (jnp.pi * jnp.where(odd, n, 1)) ** 2, 0).at[0].set(1 / 4)
    share = jnp.minimum(jnp.linspace(0, 1, num + 1) / cutoff, 1)
    return jnp.fft.rfft(kernel).real * (1 + jnp.cos(jnp.pi * share)) / 2


def load_folder(folder: Path | str, size: int) -> np.ndarray:
    """Slices (num, size, size) of the .npy and .npz files of a folder, in the order of their names.

    Each file holds square slices in HU, one (n, n) or several (num, n, n); .npz one array.

    Raises:
        ValueError: no such file, or slices that are not square or smaller than ``size``.
    """
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix in (".npy", ".npz"))
    if not paths:
        raise ValueError(f"no .npy or .npz file is in {folder}")
    return np.concatenate([_read(path, size) for path in paths])


def _read(path: Path, size: int) -> np.ndarray:
    stored = np.load(path)
    if not isinstance(stored, np.ndarray):
        with stored:
            if len(stored.files) != 1:
                raise ValueError(f"{path} holds {len(stored.files)} arrays, not one")
            stored = stored[stored.files[0]]
    if stored.ndim not in (2, 3) or stored.shape[-1] != stored.shape[-2] or stored.shape[-1] < size:
        raise ValueError(f"{path} holds {stored.shape}, not square slices of {size} or more")
    return lungs.shrunk(lungs.normalized(np.reshape(stored, (-1, *stored.shape[-2:]))), size)


def _with(name: str, **grid: tuple[float, ...]) -> reconstructions.Method:
    """A method of `reconstructions` with other settings to choose from."""
    method = reconstructions.METHODS[name]
    return method._replace(grid={**method.grid, **grid})


_WEIGHTS = tuple(float(f"{10**k:.1e}") for k in np.linspace(-5, -2.25, 12))
METHODS = {
    "FBP": reconstructions.Method(
        filtered_back_projection,
        {"cutoff": (0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 1.0, 1.4, 2.0, 4.0)},
    ),
    "TV": _with("TV", weight=_WEIGHTS)._replace(
        # Small singular values: few steps would be a regularizer of their own.
        reconstruct=partial(reconstructions.total_variation, num_steps=1500)
    ),
    "DDS, normal": _with("DDS, normal"),
    "DDS, proximal": _with("DDS, proximal", gamma=(3.0, 30.0, 300.0, 3000.0)),
    "DDS, calibrated": _with("DDS, calibrated"),
    "DDS, local": _with("DDS, local"),
    "DDS, pair": _with("DDS, pair"),
    "DDS, no noise": _with("DDS, no noise"),
    "DiffPIR": _with("DiffPIR"),
    "DDNM": _with("DDNM"),
    "PiGDM": _with("PiGDM"),
    "MMPS": _with("MMPS"),
    "DPS": _with("DPS"),
    "RED-diff": _with("RED-diff"),
}


def volume(op: operators.LinearOperator, num_slices: int) -> operators.LinearOperator:
    """The operator of a slice on a volume, on every device for its own slices."""
    return operators.stack3d(op, num_slices, batch=lambda f: meshes.in_parts(jax.vmap(f)))


def across_slices(key, denoise, op, y, sigma_y, sigmas, settings, quiet: bool = False):
    """A volume by DDS with total variation across its slices, ``quiet`` without noise.

    The network sees one slice after the other, on every device its own ones; the last slice counts
    as the first's neighbour.
    """

    @meshes.in_parts
    def one_by_one(x, sigma):
        return jax.lax.map(lambda slice: denoise(slice, sigma), x)

    sample = reconstructions.sampler(
        lambda op, y, _, s: diffusion.admm_tv(op, y, s["rho"], s["lam"]),
        started=quiet,
        quiet=quiet,
    )
    return sample(key, one_by_one, op, y, sigma_y, sigmas, settings)


ACROSS = {
    "TV, 3-D": METHODS["TV"],
    "DDS, z-TV": reconstructions.Method(
        across_slices,
        {"eta": (0.85, 1.0), "rho": (0.01, 0.02), "lam": (1e-4, 3e-4, 1e-3)},
        "sample",
    ),
    "DDS, z-TV, no noise": reconstructions.Method(
        partial(across_slices, quiet=True),
        {"eta": (1.0,), "rho": (0.0025, 0.005, 0.01), "lam": (1e-5, 3e-5, 1e-4, 3e-4)},
        "quiet",
    ),
}
"""Of whole volumes, whose operator is a stack."""
