"""Networks as files, by a seed and d numbers or by their weights, and as a new process reads them.

Every file is an ``.npz``; its size on disk is what a network costs. The architecture is known to
who reads it.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import models
from subspace_jax import projections, tree

_ROOT = Path(__file__).resolve().parents[1]
_READ = "from experiments import model_files; model_files.write_digests()"


class Network(NamedTuple):
    """The architecture of an MLP on images."""

    image: tuple[int, ...]
    """(height, width), before pooling."""
    features: tuple[int, ...]
    pool: int = 1
    """Squares of so many pixels a side are averaged before the first layer."""

    def init(self, key: jax.Array) -> Any:
        """Initial parameters."""
        return models.MLP(self.features).init(key, self._pooled(jnp.zeros((1, *self.image))))

    def apply(self, params: Any, x: jax.Array) -> jax.Array:
        """Logits (batch, features[-1]) of images (batch, height, width)."""
        return models.MLP(self.features).apply(params, self._pooled(x))

    def _pooled(self, x):
        height, width = (side // self.pool for side in self.image)
        x = x[:, : height * self.pool, : width * self.pool]
        return x.reshape(-1, height, self.pool, width, self.pool).mean((2, 4))


@partial(jax.jit, static_argnums=0)
def initial(network: Network, key: jax.Array) -> Any:
    """The parameters that a subspace's key names: training in the subspace begins here."""
    return network.init(jax.random.fold_in(key, 1))


def save_weights(path: Path, params: Any, dtype: str) -> None:
    """All weights in that dtype, compressed by zlib; int8 with a scale for each array of them."""
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(params)]
    scales = np.ones(len(leaves), np.float32)
    if dtype == "int8":
        scales = np.array([max(abs(leaf).max(), 1e-30) / 127 for leaf in leaves], np.float32)
        leaves = [np.rint(leaf / scale) for leaf, scale in zip(leaves, scales, strict=True)]
    np.savez_compressed(path, weights=np.concatenate(leaves).astype(dtype), scales=scales)


def load(path: Path, network: Network) -> Any:
    """The parameters of a file that `save_weights` or `projections.save` wrote, in float32."""
    like = jax.eval_shape(network.init, jax.random.key(0))
    with np.load(path) as stored:
        if "weights" not in stored:
            params0 = initial(network, projections.load_key(path))
            P, z = projections.load(path, like)
            return jax.tree.map(jnp.add, params0, projections.expand(P, z))
        weights, scales = stored["weights"].astype(np.float32), stored["scales"]
    leaves, structure = jax.tree.flatten(like)
    parts = np.split(weights, np.cumsum([leaf.size for leaf in leaves])[:-1])
    scaled = [
        jnp.asarray(part * scale).reshape(leaf.shape)
        for part, scale, leaf in zip(parts, scales, leaves, strict=True)
    ]
    return structure.unflatten(scaled)


def digest(params: Any) -> str:
    """The sha256 of all bits of the parameters."""
    return hashlib.sha256(np.asarray(tree.ravel(params)).tobytes()).hexdigest()


def digests_elsewhere(files: Sequence[tuple[Path, Network]]) -> list[str]:
    """The `digest` of each file's parameters, as one fresh Python process reads them all."""
    request = json.dumps([(str(path.absolute()), network) for path, network in files])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", _READ],
        input=request,
        env=environment,
        text=True,
        capture_output=True,
    )
    if done.returncode:
        raise OSError(f"the process that reads the files again failed: {done.stderr.strip()}")
    return done.stdout.split()


def write_digests() -> None:
    """What the fresh process does: stdin names files and networks, stdout gets the digests."""
    for path, (image, features, pool) in json.load(sys.stdin):
        print(digest(load(Path(path), Network(tuple(image), tuple(features), pool))))
