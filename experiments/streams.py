"""Batches from a folder of arrays that is larger than memory.

A folder holds a subfolder for every field, and that any number of ``.npy`` files, whose rows
follow each other in the order of the names: ``x/000.npy``, ``x/001.npy``, ``y/000.npy``. Files are
mapped, not read. The rows of a step are a function of the step alone, reshuffled in every epoch
(by grain, which stores no permutation), so a run that was killed sees the same; what is read is
only what is asked for: a process of several reads the rows of its own devices.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import numpy as np


class Field:
    """The rows of several files, one after another."""

    def __init__(self, folder: Path):
        self._files = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]
        kinds = {(file.dtype, file.shape[1:]) for file in self._files}
        if len(kinds) > 1:
            raise ValueError(f"the files in {folder} hold rows of other kinds: {sorted(kinds)}")
        self.dtype, self.row_shape = kinds.pop()
        self._first = np.cumsum([0, *map(len, self._files)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The rows of these numbers."""
        found = np.empty((len(rows), *self.row_shape), self.dtype)
        owners = np.searchsorted(self._first, rows, side="right") - 1
        for owner in np.unique(owners):
            here = owners == owner
            found[here] = self._files[owner][rows[here] - self._first[owner]]
        return found


class Rows:
    """Some rows of a field, read when they are indexed: an array for those who ask for slices."""

    def __init__(self, field: Field, rows: np.ndarray):
        self._field, self._rows = field, rows
        self.shape, self.dtype = (len(rows), *field.row_shape), field.dtype

    def __getitem__(self, index: slice | tuple[Any, ...]) -> np.ndarray:
        """The part that numpy's basic indices name."""
        rows, *rest = index if isinstance(index, tuple) else (index,)
        return self._field[self._rows[rows]][:, *rest]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def stream(folder: str | Path, batch_size: int, seed: int) -> Callable[[int], dict[str, Rows]]:
    """A function step -> {field: rows of the batch}, for `harness.train`.

    The last, incomplete batch of an epoch is left out.

    Raises:
        FileNotFoundError: no subfolder with ``.npy`` files.
        ValueError: fields of other lengths, files of other kinds, or a batch larger than all.
    """
    parts = sorted({path.parent for path in Path(folder).glob("*/*.npy")})
    if not parts:
        raise FileNotFoundError(f"no subfolders with .npy files in {folder}")
    fields = {part.name: Field(part) for part in parts}
    sizes = {name: len(field) for name, field in fields.items()}
    size = min(sizes.values())
    if size != max(sizes.values()):
        raise ValueError(f"fields must have as many rows each, got {sizes}")
    if not 1 <= batch_size <= size:
        raise ValueError(f"batch_size must be in 1 to {size}, got {batch_size}")
    steps = grain.MapDataset.range(size).seed(seed).shuffle()
    steps = steps.batch(batch_size, drop_remainder=True).repeat()

    def batch(step: int) -> dict[str, Rows]:
        rows = np.asarray(steps[step])
        return {name: Rows(field, rows) for name, field in fields.items()}

    return batch
