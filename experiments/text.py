"""Bytes of text for small language models: the running interpreter's own sources, or any files.

The standard library's modules with their documentation are on every machine that has Python, in
another wording from version to version: results carry the digest of what was read.
"""

import hashlib
import sysconfig
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Text(NamedTuple):
    """Three parts of a text as bytes (num,), of different files."""

    train: np.ndarray
    tune: np.ndarray
    """To choose settings by."""
    test: np.ndarray
    digest: str
    """sha256 of all three, one after another."""


def load(path: str | Path = "", *, num_bytes: int = 4_000_000, held_out: float = 0.05) -> Text:
    """Files in the order of the digests of their names, up to ``num_bytes``, in three parts.

    Args:
        path: a text file, or a folder whose ``.py``, ``.md``, ``.rst`` and ``.txt`` files are
            taken, those in its subfolders too; empty: the modules of the standard library.
        num_bytes: to read at most; the last file is cut.
        held_out: share of the bytes, at least, in each of ``tune`` and ``test``. They are whole
            files, except of a single file, of which they are the end.

    Raises:
        FileNotFoundError: no such file, or none in the folder.
        ValueError: a share outside of 0 to a half, or a part that is left without any bytes.
    """
    if not 0 < held_out < 0.5:
        raise ValueError(f"held_out must be between 0 and 0.5, got {held_out}")
    files = _standard_library() if not path else _files(Path(path))
    pieces = _limited(files, num_bytes)
    if len(pieces) == 1:
        size = len(pieces[0])
        ends = [round(held_out * size), round(2 * held_out * size)]
        test, tune, train = np.split(pieces[0][::-1], ends)
        parts = [part[::-1] for part in (train, tune, test)]
    else:
        limit = held_out * sum(map(len, pieces))
        tune, rest = _first(pieces, limit)
        test, train = _first(rest, limit)
        parts = [np.concatenate([np.zeros(0, np.uint8), *p]) for p in (train, tune, test)]
    if not all(len(part) for part in parts):
        raise ValueError(f"{len(pieces)} files do not fill three parts of the text")
    return Text(*parts, hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())


def windows(key: jax.Array, text: jax.Array, num: int, length: int) -> jax.Array:
    """Windows (num, length) of a text that start anywhere.

    Raises:
        ValueError: a text shorter than a window.
    """
    _check_length(text, length)
    starts = jax.random.randint(key, (num, 1), 0, len(text) - length + 1)
    return jnp.asarray(text)[starts + jnp.arange(length)]


def spread_windows(text: np.ndarray, num: int, length: int) -> np.ndarray:
    """The same windows (num, length) each time, spread evenly; they overlap in a short text.

    Raises:
        ValueError: a text shorter than a window.
    """
    _check_length(text, length)
    starts = np.linspace(0, len(text) - length, num).astype(int)
    return text[starts[:, None] + np.arange(length)]


def _standard_library() -> list[tuple[str, Path]]:
    """The modules at its top, and the language reference that ``help()`` shows."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [*folder.glob("*.py"), folder / "pydoc_data" / "topics.py"]
    return [(path.name, path) for path in paths if path.exists()]


def _files(path: Path) -> list[tuple[str, Path]]:
    if path.is_file():
        return [(path.name, path)]
    kinds = (".py", ".md", ".rst", ".txt")
    found = [p for p in path.rglob("*") if p.suffix in kinds and p.is_file()]
    if not found:
        raise FileNotFoundError(f"no text file at {path}")
    return [(p.relative_to(path).as_posix(), p) for p in found]


def _limited(files: list[tuple[str, Path]], num_bytes: int) -> list[np.ndarray]:
    """The contents of files, so that a limit takes of everything and not the first letters."""
    pieces, left = [], num_bytes
    for _, path in sorted(files, key=lambda f: hashlib.sha256(f[0].encode()).digest()):
        piece = np.frombuffer(path.read_bytes()[:left], np.uint8)
        left -= len(piece)
        if len(piece):
            pieces.append(piece)
    return pieces


def _first(pieces: list[np.ndarray], limit: float) -> tuple[list, list]:
    """As many of the first pieces as have the limit together, and the others."""
    count = int(np.searchsorted(np.cumsum([len(piece) for piece in pieces]), limit)) + 1
    return pieces[:count], pieces[count:]


def _check_length(text: jax.Array | np.ndarray, length: int) -> None:
    if len(text) < length:
        raise ValueError(f"a text of {len(text)} bytes has no window of {length}")
