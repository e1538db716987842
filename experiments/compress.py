"""A network as a seed and d numbers: accuracy against bytes, beside the usual ways to be small.

Claim (Li, Farkhoor, Liu & Yosinski, 2018): a network trained in a random subspace, params0 + P z,
is stored as one seed and the d numbers of z, "in some cases" more than 100 times smaller.

    python -m experiments.compress
    python -m experiments.compress --config=configs/compress.py:fashion

Expected: on MNIST-5k a seed and 3000 numbers are 7.4 kB and 97.6 % of direct training's accuracy
(93.3 against 95.6 %), 107 times less than float32: the claim. But a small network is the better way
up to there: 1.2 kB for 90 %, where the subspace takes 2.9 kB, 3.2 kB for 95 %, where it takes 7.4.
From 10 kB on the subspace is the best of those tried (94.6 % in 25 kB); the widths of the small
networks are a coarse grid that ends there. Pruned int8 weights need 62 kB, all of them 157 kB. Not
tried: z as int8 in a tighter file (it has 1.4 kB besides its numbers, theirs half a kilobyte),
which would move the crossing down, and training again what was pruned, which would help pruning.
The sizes named are the smallest by the test's accuracy, of 8 subspaces and 12 small networks.

The network 784-200-200-10 is trained in subspaces of several d, and directly. Rivals: the direct
weights as float32, float16 and int8 (a scale an array); the int8 weights of which all but the
largest are zero, not trained again; smaller networks, also on averaged pixels, trained directly,
as int8. Weights are compressed by zlib, z is float16. Bytes are those of the file, a container of
about a kilobyte with it; the architecture is not counted. Every file is read by a fresh Python
process, and the sha256 of all bits of its parameters compared: for the subspace with that of what
was trained, for the rivals with that of the file as this process reads it.
Between machines it may fail: the subspace is integer arithmetic, but initial parameters are drawn
by ``jax.random``, the same for one version of JAX and one kind of device. A run that is started
again trains only what it has not got.
"""

import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import data, harness, model_files, plots, records
from experiments.model_files import Network
from subspace_jax import projections, tree

LOOKS = {
    "seed and d numbers": (plots.BLUE, "o"),
    "float32": (plots.GREY, "s"),
    "float16": (plots.GREY, "D"),
    "int8": (plots.GREY, "^"),
    "pruned, int8": (plots.VERMILION, "v"),
    "small, int8": (plots.GREEN, "P"),
}


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train, store and read back everything from every seed; print, draw, return the numbers."""
    for knob in ("num_seeds", "num_steps", "batch_size"):
        if config[knob] < 1:
            raise ValueError(f"{knob} must be at least 1, got {config[knob]}")
    split = data.load(config.data)
    if config.validation:
        split = data.hold_out(split.train_x, split.train_y, 1 / 8)
    network = Network(split.train_x.shape[1:], (*config.hidden, int(split.train_y.max()) + 1))
    families = {"subspace": subspaces, "direct": direct, "small": small_networks}
    trainers = {name: family(config, split, network) for name, family in families.items()}
    (workdir / "models").mkdir(parents=True, exist_ok=True)

    def compute(name, seed):
        start = time.perf_counter()
        found = trainers[name](workdir / "models", seed)
        return {"models": found, "seconds": time.perf_counter() - start}

    def told(piece):
        return {"accuracy": np.array([model["accuracy"] for model in piece["models"]])}

    pairs = list(itertools.product(families, range(config.num_seeds)))
    pieces = records.piecewise(workdir, pairs, compute, told)
    found = [model for piece in pieces for model in piece["models"]]
    results = {
        "num_files_read_alike": compare(workdir / "models", found),
        "num_parameters": tree.size(jax.eval_shape(network.init, jax.random.key(0))),
        "num_test_examples": len(split.test_y),
        "models": gathered(found),
    }
    results["direct_accuracy"] = next(
        row["accuracy"] for row in results["models"] if row["method"] == "float32"
    )
    results["smallest"] = {
        f"{fraction:.0%}": smallest(results["models"], fraction) for fraction in config.fractions
    }
    results["summary"] = headline(config, results)
    records.say(table(results), sys.stdout)
    plots.save(workdir / "compress.png", partial(draw, config, results), size=(7.2, 4.8))
    return results | {"seconds": {"compile": 0.0, "train": sum(p["seconds"] for p in pieces)}}


def subspaces(config: ConfigDict, split: data.Split, network: Network) -> Callable:
    """A function (folder, seed) -> models: a seed and d numbers, for every d, from one compile."""
    length = max(config.dims)

    @jax.jit
    def train(key, dim, xs, ys, rows):
        params0 = model_files.initial(network, key)
        P = projections.hashed(key, params0, dim, max_dim=length)
        loss = projections.restrict(partial(cross_entropy, network), P, params0)
        return fit(config.learning_rate, loss, jnp.zeros(length), xs, ys, rows)

    def models_of(folder, seed):
        key = jax.random.fold_in(jax.random.key(config.seed), seed)
        stored, meant = [], []
        for dim in config.dims:
            z = train(key, dim, split.train_x, split.train_y, minibatches(config, split, seed))
            z = z[:dim].astype(jnp.float16)
            params0 = model_files.initial(network, key)
            path = folder / f"subspace-{dim}-{seed}.npz"
            projections.save(path, "hashed", key, params0, z)
            P = projections.hashed(key, params0, dim)
            meant.append(jax.tree.map(jnp.add, params0, projections.expand(P, z)))
            stored.append(("seed and d numbers", dim, path))
        return judged(split, network, stored, meant)

    return models_of


def direct(config: ConfigDict, split: data.Split, network: Network) -> Callable:
    """A function (folder, seed) -> models: all weights in several dtypes, and less and less."""
    train = whole(config, config.direct_learning_rate, split, network)

    def models_of(folder, seed):
        params, stored = train(seed), []
        for dtype in ("float32", "float16", "int8"):
            stored.append((dtype, 1.0, folder / f"{dtype}-{seed}.npz"))
            model_files.save_weights(stored[-1][-1], params, dtype)
        for kept in config.kept:
            stored.append(("pruned, int8", kept, folder / f"pruned-{kept}-{seed}.npz"))
            model_files.save_weights(stored[-1][-1], pruned(params, kept), "int8")
        return judged(split, network, stored)

    return models_of


def small_networks(config: ConfigDict, split: data.Split, network: Network) -> Callable:
    """A function (folder, seed) -> models: fewer weights from the start."""
    smaller = [
        Network(network.image, (*[width] * len(config.hidden), network.features[-1]), pool)
        for pool, width in config.small
    ]
    trainers = [whole(config, config.small_learning_rate, split, one) for one in smaller]

    def models_of(folder, seed):
        found = []
        for one, train in zip(smaller, trainers, strict=True):
            path = folder / f"small-{one.pool}-{one.features[0]}-{seed}.npz"
            params = train(seed)
            model_files.save_weights(path, params, "int8")
            found += judged(split, one, [("small, int8", tree.size(params), path)])
        return found

    return models_of


def whole(config: ConfigDict, rate: float, split: data.Split, network: Network) -> Callable:
    """A function seed -> parameters of the network, all of them trained."""

    @jax.jit
    def train(key, xs, ys, rows):
        return fit(rate, partial(cross_entropy, network), network.init(key), xs, ys, rows)

    def from_seed(seed):
        key = jax.random.fold_in(jax.random.key(config.seed), seed)
        return train(key, split.train_x, split.train_y, minibatches(config, split, seed))

    return from_seed


def fit(rate: float, loss: Callable, start: Any, xs, ys, rows) -> Any:
    """What Adam makes of ``start``, at a rate that falls to zero."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, len(rows)))

    def step(state, chosen):
        variables, optimizer_state = state
        grads = jax.grad(loss)(variables, xs[chosen], ys[chosen])
        updates, optimizer_state = optimizer.update(grads, optimizer_state, variables)
        return (optax.apply_updates(variables, updates), optimizer_state), None

    return jax.lax.scan(step, (start, optimizer.init(start)), rows)[0][0]


def cross_entropy(network: Network, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = network.apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def minibatches(config: ConfigDict, split: data.Split, seed: int) -> np.ndarray:
    """Rows of the training set (num_steps, batch_size)."""
    numbered = split._replace(train_x=np.arange(len(split.train_x)))
    stream = data.epochs(numbered, config.batch_size, (config.seed, seed))
    return np.stack([stream(step)[0] for step in range(config.num_steps)])


def pruned(params: Any, kept: float) -> Any:
    """Zero but for the share ``kept`` of all weights, the largest ones."""
    least = jnp.quantile(jnp.abs(tree.ravel(params)), 1 - kept)
    return jax.tree.map(lambda leaf: jnp.where(jnp.abs(leaf) >= least, leaf, 0), params)


def judged(split: data.Split, network: Network, stored: list, meant: list | None = None) -> list:
    """What is to be known of every (method, setting, path): bytes, accuracy of what the file holds.

    The digest is that of the parameters that were ``meant``, or else of those in the file.
    """
    found = []
    for i, (method, setting, path) in enumerate(stored):
        params = model_files.load(path, network)
        about = {"method": method, "setting": setting, "file": path.name, "network": network}
        about["digest"] = model_files.digest(meant[i] if meant else params)
        about["accuracy"] = float(accuracy(network, params, split.test_x, split.test_y))
        found.append(about | {"bytes": path.stat().st_size})
    return found


def compare(folder: Path, found: list[dict]) -> int:
    """How many files a fresh process has read to the last bit; ValueError if one is another."""
    files = [(folder / one["file"], one["network"]) for one in found]
    elsewhere = model_files.digests_elsewhere(files)
    for one, there in zip(found, elsewhere, strict=True):
        if one["digest"] != there:
            raise ValueError(f"{folder / one['file']} does not hold the bits of the parameters")
    return len(files)


@partial(jax.jit, static_argnums=0)
def accuracy(network: Network, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(network.apply(params, x).argmax(-1) == y)


def gathered(models: list[dict]) -> list[dict]:
    """A row a (method, setting), with the numbers of all seeds; by method, then by bytes."""
    rows: dict[tuple, dict] = {}
    for one in models:
        about = {"method": one["method"], "setting": one["setting"], "bytes": [], "accuracy": []}
        row = rows.setdefault((one["method"], one["setting"]), about)
        for name in ("bytes", "accuracy"):
            row[name].append(one[name])
    order = list(LOOKS)
    return sorted(
        rows.values(), key=lambda row: (order.index(row["method"]), np.mean(row["bytes"]))
    )


def smallest(models: list[dict], fraction: float) -> dict[str, float | None]:
    """The mean bytes of each method's smallest model of this share of the direct accuracy."""
    whole_accuracy = next(np.mean(m["accuracy"]) for m in models if m["method"] == "float32")
    sizes: dict[str, float | None] = dict.fromkeys(LOOKS)
    for one in reversed(models):
        if np.mean(one["accuracy"]) >= fraction * whole_accuracy:
            sizes[one["method"]] = float(np.mean(one["bytes"]))
    return sizes


def headline(config: ConfigDict, results: dict) -> str:
    """Kilobytes that each method takes for these shares of the direct accuracy."""
    raw = 4 * results["num_parameters"]
    parts = []
    for share, sizes in results["smallest"].items():
        told = [
            f"{method} {size / 1000:.1f} ({raw / size:.0f} x)" if size else f"{method} never"
            for method, size in sizes.items()
        ]
        parts.append(f"for {share} of direct training's accuracy " + ", ".join(told))
    return (
        f"{config.data}, kB (times smaller than {raw / 1000:.0f} kB), {config.num_seeds} seeds: "
        + "; ".join(parts)
    )


def table(results: dict) -> str:
    """A row a stored model."""
    lines = [f"{'stored as':20}{'setting':>10}{'bytes':>10}  accuracy  (min, max)"]
    for one in results["models"]:
        scores = one["accuracy"]
        lines.append(
            f"{one['method']:20}{one['setting']:>10.6g}{np.mean(one['bytes']):>10.0f}"
            f"  {np.mean(scores):8.4f}  ({min(scores):.4f}, {max(scores):.4f})"
        )
    return "\n".join([*lines, "", results["summary"]])


def draw(config: ConfigDict, results: dict, figure: Figure) -> None:
    """Accuracy against bytes: means, and every seed."""
    axes = figure.subplots()
    for method, (colour, marker) in LOOKS.items():
        rows = [one for one in results["models"] if one["method"] == method]
        sizes, scores = (np.array([one[name] for one in rows]) for name in ("bytes", "accuracy"))
        axes.plot(sizes, scores, ".", color=colour, ms=3, alpha=0.6)
        line = "" if method.startswith("small") else "-"  # pools and widths are no one curve
        label = f"all weights, {method}" if rows[0]["setting"] == 1 else method
        axes.plot(sizes.mean(1), scores.mean(1), line + marker, color=colour, ms=6, label=label)
    axes.set_xscale("log")
    axes.set(xlabel="bytes of the file", ylabel=f"accuracy on {config.data}")
    axes.set_title(f"A network of {results['num_parameters']:,} weights, stored")
    figure.legend(loc="outside lower center", ncols=3)


if __name__ == "__main__":
    harness.main(run)
