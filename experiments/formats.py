"""Readers of other people's files: images (IDX, NRRD, NIfTI), pickled arrays, torch's weights."""

import collections
import gzip
import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

IDX_FILES = {
    "train_x": "train-images-idx3-ubyte",
    "train_y": "train-labels-idx1-ubyte",
    "test_x": "t10k-images-idx3-ubyte",
    "test_y": "t10k-labels-idx1-ubyte",
}


def read_idx(folder: Path) -> dict[str, np.ndarray]:
    """The four arrays of an image set in Yann LeCun's IDX format, plain or .gz.

    A file is two zero bytes, a type byte (8: uint8), the rank, the sizes, the numbers.
    """
    arrays = {}
    for field, file in IDX_FILES.items():
        path = next((p for p in (folder / file, folder / f"{file}.gz") if p.exists()), None)
        if path is None:
            raise FileNotFoundError(f"neither {file} nor {file}.gz is in {folder}")
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
            content = stream.read()
        rank = content[3] if len(content) > 3 else 0
        shape = [int.from_bytes(content[i : i + 4]) for i in range(4, 4 + 4 * rank, 4)]
        if content[:3] != b"\x00\x00\x08" or len(content) != 4 + 4 * rank + math.prod(shape):
            raise ValueError(f"{path} is not a whole IDX file of bytes")
        arrays[field] = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    return arrays


class NumpyUnpickler(pickle.Unpickler):
    """A pickle may call anything; this one may only build numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function that the pickle names, if it is one that builds arrays."""
        builders = {
            ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in builders:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}")
        return builders[module, name]


def read_torch(content: bytes) -> dict[str, np.ndarray]:
    """The float32 tensors of a state dict that torch before 1.6 has saved.

    Such a file is five pickles (a magic number, the version, the machine, the tensors by name, the
    storages in their order), then each storage: its length in eight bytes, its numbers.
    """
    stream = io.BytesIO(content)
    tensors = [_TorchUnpickler(stream).load() for _ in range(4)][-1]
    storages = {}
    dtypes = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
    kinds = {storage[2]: dtypes[storage[1]] for storage, *_ in tensors.values()}
    for key in _TorchUnpickler(stream).load():
        size = int.from_bytes(stream.read(8), "little")
        storages[key] = np.frombuffer(stream.read(size * kinds[key].itemsize), kinds[key])
    arrays = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        numbers = storages[storage[2]]
        strides = [stride * numbers.itemsize for stride in strides]
        view = np.lib.stride_tricks.as_strided(numbers[offset:], shape, strides, writeable=False)
        if view.dtype == np.float32:
            arrays[name] = view.copy()
    return arrays


def read_nrrd(path: Path) -> np.ndarray:
    """The volume of an NRRD file, gzipped or raw, its axes in the order of the header's sizes.

    A magic line, lines ``key: value`` up to an empty one, then the numbers, the first axis fastest.
    """
    header, _, content = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line[:40])
    kinds = {"short": "<i2", "unsigned short": "<u2", "uchar": "u1", "unsigned char": "u1"}
    kinds |= {"int": "<i4", "unsigned int": "<u4", "float": "<f4", "double": "<f8", "int16": "<i2"}
    if fields["encoding"] == "gzip":
        content = gzip.decompress(content)
    sizes = [int(size) for size in fields["sizes"].split()]
    return np.frombuffer(content, kinds[fields["type"]]).reshape(sizes, order="F")


def read_nifti(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The volume of a NIfTI-1 file, gzipped or not, and the (3, 4) map from its indices to mm.

    A header of 348 bytes, the numbers from ``vox_offset`` on, the first axis fastest. The map is
    the header's rows, or the rotation by its quaternion; mm to the right, forwards, up.

    Raises:
        ValueError: not a NIfTI-1 file in one part, or numbers of a kind that is not read here.

    Reference: Cox et al. (2004), "A (sort of) new image data format standard: NIfTI-1".
    """
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) < 352 or content[344:348] != b"n+1\x00":
        raise ValueError("not a NIfTI-1 file in one part")
    order = "<" if content[:4] == b"\x5c\x01\x00\x00" else ">"

    def field(kind: str, offset: int, count: int = 1) -> np.ndarray:
        return np.frombuffer(content, order + kind, count, offset)

    kinds = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
    code = int(field("i2", 70)[0])
    if code not in kinds:
        raise ValueError(f"NIfTI-1 data of type {code} are not read here")
    rank, *shape = field("i2", 40, 8).tolist()
    shape = [*shape[:rank], 1, 1, 1][: max(rank, 3)]
    start = int(field("f4", 108)[0])
    volume = field(kinds[code], start, math.prod(shape)).reshape(shape, order="F")
    volume = volume.reshape(volume.shape[:3]) if math.prod(shape[3:]) == 1 else volume
    slope, intercept = field("f4", 112, 2)
    if slope not in (0, 1) or intercept:
        volume = volume * (slope or np.float32(1)) + intercept
    rotation_code, rows_code = field("i2", 252, 2)
    if rows_code > 0:
        return volume, field("f4", 280, 12).reshape(3, 4).astype(float)
    sizes = field("f4", 76, 4).astype(float)
    if rotation_code <= 0:
        return volume, np.diag([*sizes[1:], 0])[:3]
    b, c, d, *offset = field("f4", 256, 6).astype(float)
    rotation = _rotation(b, c, d) * sizes[1:] * [1, 1, sizes[0] or 1]
    return volume, np.column_stack([rotation, offset])


def _rotation(b: float, c: float, d: float) -> np.ndarray:
    """The rotation (3, 3) of the unit quaternion (a, b, c, d) with a >= 0."""
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )


class _TorchUnpickler(pickle.Unpickler):
    """Names tensors' storages instead of building them; calls nothing of torch."""

    def find_class(self, module: str, name: str) -> Any:
        """The few names that a state dict needs."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """("storage", kind, key, device, size, view)."""
        return pid
