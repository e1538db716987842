"""Diffusion on a photograph: the domain is cut out of it, the coefficient is its grey values."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from scipy import ndimage, sparse
from skimage import color, data, filters, transform

from experiments import harness
from subspace_jax.linalg import operators

IMAGES = {
    "retina": (data.retina, True),
    "coins": (data.coins, False),
    "camera": (data.camera, False),
}
"""What to read, and whether the domain is brighter than the rest."""


class Problem(NamedTuple):
    """-div(c grad u) = 1 on the cells of a grid, u = 0 outside."""

    coefficient: np.ndarray
    inside: np.ndarray
    operator: Callable
    matrix: sparse.csr_array
    """Assembled without JAX, on the cells inside."""
    spacing: float

    def residual(self, u: np.ndarray) -> float:
        """The true |b - A u| / |b| of a grid function, in float64."""
        b = np.ones(self.matrix.shape[0])
        r = b - self.matrix @ np.asarray(u, np.float64)[self.inside]
        return float(np.linalg.norm(r) / np.linalg.norm(b))


def make_problem(config: ConfigDict) -> Problem:
    """The domain and the coefficient of the image, and the operator and the matrix of both."""
    coefficient, inside = medium(config)
    spacing = 1 / config.size
    operator = operators.diffusion(
        jnp.asarray(coefficient, config.dtype), mask=jnp.asarray(inside), spacing=spacing
    )
    return Problem(coefficient, inside, operator, assemble(coefficient, inside, spacing), spacing)


def medium(config: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """The coefficient, from 1 / ``contrast`` to 1, and the domain: the largest part of the image.

    Local means are taken off, so that lighting does not count; in depth the image blurs.
    """
    read, bright = harness.pick("image", config.image, IMAGES)
    image = read()
    grey = color.rgb2gray(image) if image.ndim == 3 else image / 255
    grey = transform.resize(grey, (config.size, config.size), anti_aliasing=True)
    inside = largest_part((grey > filters.threshold_otsu(grey)) == bright)
    filled = np.where(inside, grey, grey[inside].mean())
    detail = filled - filters.gaussian(filled, config.size / 16)
    low, high = np.percentile(detail[inside], [2, 98])
    levels = np.clip((detail - low) / (high - low), 0, 1)
    if config.depth:
        blurs = np.linspace(0, config.size / 16, config.depth)
        levels = np.stack([filters.gaussian(levels, blur) for blur in blurs])
        inside = np.broadcast_to(inside, levels.shape)
    return config.contrast ** (levels - 1), inside


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    labels, _ = ndimage.label(mask)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def assemble(c: np.ndarray, inside: np.ndarray, spacing: float) -> sparse.csr_array:
    """The finite volumes of `operators.diffusion` over again, in numpy, on the cells inside."""
    number = np.cumsum(inside).reshape(inside.shape) - 1
    diagonal, rows, columns, values = np.zeros(c.shape), [], [], []
    for axis in range(c.ndim):
        first, second = (
            tuple(part if i == axis else slice(None) for i in range(c.ndim))
            for part in (slice(None, -1), slice(1, None))
        )
        coupled = inside[first] & inside[second]
        face = np.where(coupled, 2 / (1 / c[first] + 1 / c[second]), 0)
        for here, there in ((first, second), (second, first)):
            diagonal[here] += np.where(coupled, face, c[here])
            rows.append(number[here][coupled])
            columns.append(number[there][coupled])
            values.append(-face[coupled])
        for edge in (0, -1):
            end = tuple(edge if i == axis else slice(None) for i in range(c.ndim))
            diagonal[end] += c[end]
    rows.append(number[inside])
    columns.append(number[inside])
    entries = np.concatenate([*values, diagonal[inside]]) / spacing**2
    return sparse.csr_array((entries, (np.concatenate(rows), np.concatenate(columns))))
