"""Slices of two patients with brain tumours: one without tumour to learn, the other's to test."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from experiments import data


class Slices(NamedTuple):
    """Axial slices (num, 256, 256), about 1 at the brightest tissue."""

    train: np.ndarray
    """Of one patient, those that no mask touches."""
    test: np.ndarray
    """All of the other's."""
    masks: np.ndarray
    """Where the other's tumour is."""
    heads: np.ndarray
    """Where the other's head is: pixels outside of it are not scored."""


def slices(patient: int) -> Slices:
    """Patient ``patient`` (1 or 2) to learn from, the other one to test.

    Raises:
        FileNotFoundError: the volumes are not in the cache.
    """
    volumes = data.load_arrays("brain_tumours")
    images, masks = {}, {}
    for i in (1, 2):
        volume = np.moveaxis(volumes[f"image{i}"], 2, 0).swapaxes(1, 2).astype(np.float32)
        images[i] = np.clip(volume / np.quantile(volume[volume > 0], 0.99), 0, 1.5)
        masks[i] = np.moveaxis(volumes[f"label{i}"], 2, 0).swapaxes(1, 2) > 0
    other = 3 - patient
    free = ~masks[patient].any((1, 2))
    return Slices(images[patient][free], images[other], masks[other], _heads(images[other]))


def _heads(images: np.ndarray) -> np.ndarray:
    bright = ndimage.gaussian_filter(images, (0, 2, 2)) > 0.1
    return np.stack([ndimage.binary_fill_holes(one) for one in bright])
