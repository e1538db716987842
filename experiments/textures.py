"""Photographs of brick, grass and gravel in tiles, some with defects that we have painted in.

No photographs of real defects come with any package; these are synthetic and say so.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage import data as photographs

TEXTURES = ("brick", "grass", "gravel")
SIDE = 128


class Tiles(NamedTuple):
    """Tiles of one texture, (num, 128, 128) in [0, 1]."""

    train: np.ndarray
    """Without defects."""
    test: np.ndarray
    masks: np.ndarray
    """Where the test tiles have a defect; every second one has none."""
    kinds: tuple[str, ...]
    """Of defect, for each test tile."""


def tiles(texture: str, *, num_train: int, seed: int) -> Tiles:
    """Sixteen tiles of a 512 x 512 photograph, a random few of them to learn from."""
    rng = np.random.default_rng([seed, TEXTURES.index(texture)])
    order = rng.permutation(16)
    whole = _cut(texture)[order]
    others = np.concatenate([_cut(other) for other in TEXTURES if other != texture])
    test, masks, kinds = whole[num_train:].copy(), [], []
    for i in range(len(test)):
        kind = ("none", *DEFECTS)[0 if i % 2 == 0 else 1 + (i // 2) % len(DEFECTS)]
        mask = np.zeros((SIDE, SIDE), bool)
        if kind != "none":
            test[i], mask = DEFECTS[kind](rng, test[i], others[rng.integers(len(others))])
        masks.append(mask)
        kinds.append(kind)
    return Tiles(whole[:num_train], test, np.stack(masks), tuple(kinds))


def filter_bank(images: np.ndarray) -> np.ndarray:
    """Features (num, 32, 32, 24) of images: Gaussian derivatives to order two, four scales.

    Magnitudes, smoothed at the filter's own scale.
    """
    features = []
    for scale in (1, 2, 4, 8):
        for order in ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0)):
            filtered = ndimage.gaussian_filter(images, (0, scale, scale), (0, *order))
            if order != (0, 0):
                filtered = ndimage.gaussian_filter(np.abs(filtered), (0, 2 * scale, 2 * scale))
            features.append(scale ** sum(order) * filtered[:, 2::4, 2::4])
    return np.stack(features, axis=-1)


def _splice(rng, tile, other):
    """A disc of another texture, brightened or darkened to the tile's mean."""
    mask = _disc(rng, 14)
    return np.where(mask, np.clip(other - other.mean() + tile.mean(), 0, 1), tile), mask


def _scratch(rng, tile, other):
    """A dark straight line, three pixels wide."""
    del other
    y, x = np.mgrid[:SIDE, :SIDE] - rng.integers(40, SIDE - 40, 2)[:, None, None]
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask = (np.abs(across) < 1.5) & (np.abs(along) < 30)
    return np.where(mask, 0.4 * tile, tile), mask


def _blur(rng, tile, other):
    """A disc out of focus."""
    del other
    mask = _disc(rng, 18)
    return np.where(mask, ndimage.gaussian_filter(tile, 3), tile), mask


DEFECTS = {"splice": _splice, "scratch": _scratch, "blur": _blur}


def _disc(rng, radius: int) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] - rng.integers(radius, SIDE - radius, 2)[:, None, None]
    return x**2 + y**2 < radius**2


def _cut(texture: str) -> np.ndarray:
    image = getattr(photographs, texture)().astype(np.float32) / 255
    blocks = image.reshape(4, SIDE, 4, SIDE).swapaxes(1, 2)
    return blocks.reshape(16, SIDE, SIDE)
