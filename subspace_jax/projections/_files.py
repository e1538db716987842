"""A trained model as a seed and d numbers: what a projection and its z need to be made again."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax.projections._dense import gaussian, gaussian_orthonormal
from subspace_jax.projections._fastfood import fastfood
from subspace_jax.projections._hashed import hashed
from subspace_jax.projections._layout import layout_of
from subspace_jax.projections._rademacher import rademacher
from subspace_jax.projections._rolled import rolled
from subspace_jax.projections._sparse import sparse
from subspace_jax.projections.maps import Projection
from subspace_jax.typing import Array, Key, PyTree

_SCHEMES = {
    f.__name__: f
    for f in (hashed, rolled, fastfood, gaussian, gaussian_orthonormal, sparse, rademacher)
}


def save(path: str | Path, scheme: str, key: Key, params: PyTree, z: Array) -> None:
    """Write all that ``params0 + P z`` needs, but params0: the scheme, its key, and z.

    The file holds z as it is and about a kilobyte more; it is written whole or not at all.

    Args:
        path: of the file, as a rule ``.npz``.
        scheme: name of the constructor, such as "hashed".
        key: typed PRNG key that P was made of.
        params: the parameters or ``ShapeDtypeStruct``s of theirs, whose shapes are kept to be
            checked.
        z: (d,), trained; P is made with ``dim=d``.

    Raises:
        ValueError: an unknown scheme, or a z that is no vector.
    """
    values = np.asarray(z)
    if scheme not in _SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(_SCHEMES)}; got {scheme!r}")
    if values.ndim != 1:
        raise ValueError(f"z must be a vector, got shape {values.shape}")
    about = {"scheme": scheme, "key": str(jax.random.key_impl(key)), "params": _shapes(params)}
    path = Path(path)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.savez(file, about=json.dumps(about), key=jax.random.key_data(key), z=values)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def load(path: str | Path, params: PyTree) -> tuple[Projection, Array]:
    """The projection and z of a file that `save` wrote: the same bits in every process.

    Args:
        path: of the file.
        params: the parameters or ``ShapeDtypeStruct``s of theirs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: parameters of other shapes than those it was saved for.
    """
    with np.load(path) as stored:
        about, z = json.loads(str(stored["about"])), stored["z"]
    if about["params"] != _shapes(params):
        raise ValueError(f"{path} is for parameters {about['params']}, got {_shapes(params)}")
    projection = _SCHEMES[about["scheme"]](load_key(path), params, len(z))
    return projection, jnp.asarray(z)


def load_key(path: str | Path) -> Key:
    """The key of a file that `save` wrote: folded, it can name the initial parameters too.

    Raises:
        FileNotFoundError: no such file.
    """
    with np.load(path) as stored:
        about, data = json.loads(str(stored["about"])), stored["key"]
    return jax.random.wrap_key_data(jnp.asarray(data), impl=about["key"])


def _shapes(params: PyTree) -> list[Any]:
    leaves = layout_of(params).leaves
    return [[str(leaf.dtype), *leaf.shape] for leaf in leaves]
