"""Slices of two patients' lungs for CT: one to learn from but for a slab to tune on, one to test.

The first patient trains the prior, without the slices of `TUNE` and the two on each side of them,
10 mm and more; the second is there for the test alone. One person each: a spread over slices is not
one over people. Images are the scans' whole fields of view, 292 and 321 mm, which cut the bodies
off at the sides: what is measured here is what the picture shows. Values are HU / 2000 + 0.5, so
that air is 0 and water 0.5, and nothing is below 0 or above 1.5.
"""

from pathlib import Path

import numpy as np

from experiments import data

TRAIN_PATIENT, TEST_PATIENT = 1, 2
TUNE = range(20, 26)
"""Slices of the first patient, of 5 mm like all."""
_GAP = 2
_COMMITTED = Path(__file__).parent / "assets" / "lungs128.npz"


def load(patient: int) -> np.ndarray:
    """All slices (num, 512, 512) float32 of a patient, upwards; rows backwards, columns leftwards.

    Raises:
        FileNotFoundError: the volumes are not in the cache; says how to get them there.
    """
    volume = data.load_arrays("lung_ct")[f"image{patient}"]
    return normalized(np.moveaxis(volume, 2, 0).swapaxes(1, 2))


def normalized(hounsfield: np.ndarray) -> np.ndarray:
    """HU as numbers that are about 0 in air and at most 1 in bone."""
    return np.clip(hounsfield.astype(np.float32) / 2000 + 0.5, 0, 1.5)


def training_parts(num: int) -> tuple[range, range]:
    """Of ``num`` slices those below the slab to tune on and those above it, without the gaps."""
    return range(TUNE.start - _GAP), range(TUNE.stop + _GAP, num)


def shrunk(slices: np.ndarray, size: int) -> np.ndarray:
    """Means (num, size, size) over pixels of slices (num, n, n)."""
    area = overlap(0, slices.shape[-1], size, slices.shape[-1])
    return (area @ slices @ area.T).astype(np.float32)


def overlap(start: float, stop: float, size: int, num: int) -> np.ndarray:
    """The share (size, num) of each of ``num`` unit intervals in equal parts of [start, stop]."""
    edges, left = np.linspace(start, stop, size + 1)[:, None], np.arange(num)
    shared = np.minimum(edges[1:], left + 1) - np.maximum(edges[:-1], left)
    return (np.maximum(shared, 0) * size / (stop - start)).astype(np.float32)


def random_slices(num: int, size: int, seed: int) -> np.ndarray:
    """Slices (num, size, size) to train on: between neighbours, mirrored, cut out of the whole.

    A cut has 0.85 to 1 of the field's side, anywhere within it.
    """
    volume = load(TRAIN_PATIENT)
    rng = np.random.default_rng(seed)
    parts = training_parts(len(volume))
    share = np.array([len(part) for part in parts], float)
    field = volume.shape[-1]
    slices = np.empty((num, size, size), np.float32)
    for i in range(num):
        part = parts[rng.choice(2, p=share / share.sum())]
        below, between = rng.choice(part[:-1]), rng.random()
        one = (1 - between) * volume[below] + between * volume[below + 1]
        side = field * rng.uniform(0.85, 1)
        areas = [overlap(a, a + side, size, field) for a in rng.uniform(0, field - side, 2)]
        one = areas[0] @ one @ areas[1].T
        slices[i] = one[:, ::-1] if rng.random() < 0.5 else one
    return slices


def committed(kind: str) -> np.ndarray:
    """The 128 x 128 slices that come with the code: "train", "tune" or "test", float32."""
    with np.load(_COMMITTED) as slices:
        return slices[kind].astype(np.float32)


def write_committed() -> None:
    """Shrink the slices of `committed` from the cache: of the test patient all."""
    first = load(TRAIN_PATIENT)
    below, above = training_parts(len(first))
    slices = {
        "train": first[[*below[::4], *above[::4]]],
        "tune": first[list(TUNE)],
        "test": load(TEST_PATIENT),
    }
    arrays = {kind: shrunk(x, 128).astype(np.float16) for kind, x in slices.items()}
    np.savez_compressed(_COMMITTED, **arrays)


if __name__ == "__main__":
    write_committed()
