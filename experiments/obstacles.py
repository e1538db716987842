"""Boxes with obstacles that are cut out of pictures: domains with internal boundaries."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage
from skimage import data, filters, transform

from experiments import harness


def coins() -> np.ndarray:
    grey = data.coins()
    return ndimage.binary_fill_holes(grey > filters.threshold_otsu(grey))


def camera() -> np.ndarray:
    grey = data.camera()
    return grey < filters.threshold_otsu(grey)


def horse() -> np.ndarray:
    return ~data.horse()


def page() -> np.ndarray:
    """Lines of print, blurred to bars."""
    grey = filters.gaussian(data.page(), 2)
    return grey < filters.threshold_local(grey, 51) - 0.02


IMAGES: dict[str, Callable[[], np.ndarray]] = {
    "coins": coins,
    "camera": camera,
    "horse": horse,
    "page": page,
}
"""Pictures that come with scikit-image, True where the obstacles are."""


def domains(image: str, count: int, shape: Sequence[int], seed: int) -> np.ndarray:
    """So many masks (count, *shape), True outside the obstacles; "box": there are none.

    Each is a square part of the picture, at random, of which obstacles take 5 to 50 %. In depth
    they stand on one side and reach a random height.
    """
    if image == "box":
        return np.ones((count, *shape), bool)
    solid = harness.pick("image", image, IMAGES)()
    rng = np.random.default_rng((seed, sorted(IMAGES).index(image)))
    masks: list[np.ndarray] = []
    for _ in range(100 * count):
        side = rng.integers(min(solid.shape) // 3, min(solid.shape) + 1)
        top, left = (rng.integers(0, n - side + 1) for n in solid.shape)
        part = solid[top : top + side, left : left + side].astype(float)
        plane = transform.resize(part, tuple(shape[-2:]), anti_aliasing=True) > 0.5
        if 0.05 < plane.mean() < 0.5:
            masks.append(~_stand(plane, shape, rng))
        if len(masks) == count:
            return np.stack(masks)
    raise ValueError(f"no part of {image} is a domain of {shape} cells")


def _stand(plane: np.ndarray, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    if len(shape) == 2:
        return plane
    height = rng.integers(shape[0] // 4, shape[0] + 1)
    return plane & (np.arange(shape[0]) < height)[:, None, None]
