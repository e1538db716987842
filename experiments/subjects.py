"""What a prior learns: heads in MR, complex; lungs in CT and Fashion-MNIST, real."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import ct, data, denoisers, heads, lungs, mri


class Subject(NamedTuple):
    """Magnitudes to learn from and to test on, and what images they become."""

    train: Callable[[ConfigDict], np.ndarray]
    """Random slices (num, size, size) of the config, or those that come with the code."""
    tune: Callable[[ConfigDict], np.ndarray]
    """Of what is neither trained nor tested on."""
    images: Callable[[jax.Array, Any], jax.Array]
    """(key, magnitudes) -> images, real or complex."""
    about: Callable[[ConfigDict], dict[str, Any]]
    """What the weights tell of it."""


def phased(key: jax.Array, magnitudes: Any) -> jax.Array:
    """Complex images of magnitudes (num, n, n), with random smooth phases."""
    keys = jax.random.split(key, len(magnitudes))
    phases = jax.vmap(lambda k: denoisers.smooth_phase(k, magnitudes.shape[-1]))(keys)
    return magnitudes * phases


def _train_heads(config: ConfigDict) -> np.ndarray:
    if config.scans:
        return mri.magnitudes(mri.coil_images(config.scans, config.size))
    if not config.heads:
        return heads.committed("train")
    return heads.random_slices(
        tuple(config.heads), config.num_slices, config.size, config.seed, warp=config.warp
    )


def _tune_heads(config: ConfigDict) -> np.ndarray:
    if config.tune_scans:
        return mri.magnitudes(mri.coil_images(config.tune_scans, config.size))
    if config.size == 64:
        return heads.committed("tune")
    return heads.even_slices(heads.TUNE, 16, config.size, ("axial",))


def _train_lungs(config: ConfigDict) -> np.ndarray:
    if config.scans:
        return ct.load_folder(config.scans, config.size)
    if not config.num_slices:
        return lungs.shrunk(lungs.committed("train"), config.size)
    return lungs.random_slices(config.num_slices, config.size, config.seed)


def _tune_lungs(config: ConfigDict) -> np.ndarray:
    if config.tune_scans:
        return ct.load_folder(config.tune_scans, config.size)
    if config.size <= 128:
        return lungs.shrunk(lungs.committed("tune"), config.size)
    return lungs.shrunk(lungs.load(lungs.TRAIN_PATIENT)[list(lungs.TUNE)], config.size)


def _real(key: jax.Array, magnitudes: Any) -> jax.Array:
    del key
    return jnp.asarray(magnitudes)


_NUM_TUNE = 1000
"""Of the training images of Fashion-MNIST, the last."""


def padded(images: np.ndarray, size: int) -> np.ndarray:
    """Images (num, size, size) with zeros around the given square ones."""
    before, rest = divmod(size - images.shape[-1], 2)
    margin = (before, before + rest)
    return np.pad(images, ((0, 0), margin, margin))


def _train_fashion(config: ConfigDict) -> np.ndarray:
    return padded(data.load("fashion_mnist").train_x[:-_NUM_TUNE], config.size)


def _tune_fashion(config: ConfigDict) -> np.ndarray:
    return padded(data.load("fashion_mnist").train_x[-_NUM_TUNE:][:64], config.size)


SUBJECTS = {
    "heads": Subject(
        _train_heads,
        _tune_heads,
        phased,
        lambda c: (
            {"scans": c.scans, "values": "1: the 99.5 % quantile of a slice"}
            if c.scans
            else {
                "heads": list(c.heads),
                "warp": c.warp,
                "values": "1: the 99 % quantile of a head's bright voxels",
            }
        ),
    ),
    "lungs": Subject(
        _train_lungs,
        _tune_lungs,
        _real,
        lambda c: (
            ({"scans": c.scans} if c.scans else {"patient": lungs.TRAIN_PATIENT})
            | {"values": "HU / 2000 + 0.5"}
        ),
    ),
    "fashion": Subject(
        _train_fashion, _tune_fashion, _real, lambda c: {"images": "Fashion-MNIST, zeros around"}
    ),
}
