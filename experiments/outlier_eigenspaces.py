"""Outliers of the Hessian: SGD moves into them, and their number is that of the classes.

Claim (Ben Arous, Gheissari, Huang & Jagannath, 2024): on mixtures of Gaussians in high dimension
the weights of every class soon lie in the span of the few leading eigenvectors of their own block
of the Hessian, and of the second moment of gradients; of a two-layer network on XOR the rows of the
first layer lie in the span of two, the second layer in that of its outliers. Claim (Sagun, Evci,
Guney, Dauphin & Bottou, 2017): the bulk of the Hessian's spectrum depends on the network's size,
the number of outliers on the data: it is about that of the classes.

    python -m experiments.outlier_eigenspaces

Expected, 200 dimensions, 3 seeds, on a CPU: on the mixture of five .96 of the weights' square lies
in the leading eigenvectors of the Hessian's blocks, .60 in those of the gradients' (by chance
.025); on XOR .79 and .59 of the first layer's (.01), all of the second's (.2). The Hessian of a
network on two, four and eight classes has 1, 3 and 7 outliers, classes less one, whatever its width
(once, where it had not learned, 6). The bulk grows with the width, towards zero: of two classes 5,
22 and 39 % of all eigenvalues lie below 1e-4 of the largest for widths 5, 10 and 20, of eight 2, 6
and 10 %. The noise matters: at 500 dimensions and a precision of 8 the outliers stay within the
bulk.

One new example is seen a step, with a rate that falls with the dimension; matrices are means over
other examples, as the papers' are. A block's eigenvectors come from `landscape.top_eigenspace`.
"""

import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import harness, plots, records
from subspace_jax import landscape, tree

MATRICES = ("Hessian", "gradients")


class Problem(NamedTuple):
    """Data without end, a model, and the blocks of its weights."""

    sample: Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]
    """(key, num) -> inputs (num, dim), labels (num,)."""
    init: Callable[[jax.Array], Any]
    losses: Callable[[Any, jax.Array, jax.Array], jax.Array]
    """(params, inputs, labels) -> (num,), without the ridge."""
    blocks: dict[str, tuple[str, int]]
    """Of each kind of block the leaf whose rows they are, and how many eigenvectors count."""
    learning_rate: float


def run(config: ConfigDict, workdir: Path) -> dict:
    """Follow SGD on both problems, compute whole spectra of small networks, draw."""
    seeds = range(config.num_seeds)
    pieces = [
        *itertools.product(PROBLEMS, seeds),
        *(("spectrum", *pair) for pair in itertools.product(config.widths, config.classes)),
    ]
    found = records.piecewise(workdir, pieces, partial(compute, config), told)
    results: dict[str, Any] = {"steps": list(range(0, config.num_steps + 1, config.measure_every))}
    for name in PROBLEMS:
        rows = [row["shares"] for row, piece in zip(found, pieces, strict=True) if piece[0] == name]
        results[name] = {block: [row[block] for row in rows] for block in rows[0]}
    results["spectra"] = found[len(PROBLEMS) * config.num_seeds :]
    results["summary"] = headline(config, results)
    records.say(results["summary"], sys.stdout)
    plots.save(workdir / "outlier_eigenspaces.png", partial(draw, config, results), size=(10, 7.4))
    return results | {"seconds": {"compile": 0.0, "train": sum(row["seconds"] for row in found)}}


def compute(config: ConfigDict, name: str, *about: int) -> dict[str, Any]:
    """One piece of the work, and the seconds it took."""
    start = time.perf_counter()
    found = spectrum(config, *about) if name == "spectrum" else follow(config, name, *about)
    return found | {"seconds": time.perf_counter() - start}


def told(piece: dict[str, Any]) -> dict[str, Any]:
    if "shares" not in piece:
        return {"outliers": piece["outliers"]}
    return {name.replace(" ", "_"): rows[-1] for name, rows in piece["shares"].items()}


def mixture(config: ConfigDict, num_classes: int, dim: int) -> Callable:
    """Normal data about orthonormal means, as many as classes."""

    def sample(key, num):
        label_key, noise_key = jax.random.split(key)
        labels = jax.random.randint(label_key, (num,), 0, num_classes)
        noise = jax.random.normal(noise_key, (num, dim)) / config.precision**0.5
        return jax.nn.one_hot(labels, dim) + noise, labels

    return sample


def gaussians(config: ConfigDict) -> Problem:
    """Softmax regression without intercepts: a block is the weights of a class."""
    shape = config.num_classes, config.dim

    def losses(params, x, labels):
        logits = x @ params["classes"].T
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    return Problem(
        mixture(config, *shape),
        lambda key: {"classes": jax.random.normal(key, shape) / config.dim**0.5},
        losses,
        {"weights of a class": ("classes", config.num_classes)},
        config.learning_rates[0],
    )


def xor(config: ConfigDict) -> Problem:
    """Four Gaussians, opposite ones of one class, and a two-layer network of ReLUs."""

    def sample(key, num):
        keys = jax.random.split(key, 3)
        labels, signs = jax.random.randint(keys[0], (2, num), 0, 2)
        means = (2 * signs - 1)[:, None] * jax.nn.one_hot(labels, config.dim)
        noise = jax.random.normal(keys[1], (num, config.dim)) / config.precision**0.5
        return means + noise, labels

    def init(key):
        keys = jax.random.split(key)
        first = jax.random.normal(keys[0], (config.width, config.dim)) / config.dim**0.5
        return {"first": first, "second": jax.random.normal(keys[1], (1, config.width))}

    def losses(params, x, labels):
        logits = jax.nn.relu(x @ params["first"].T) @ params["second"][0]
        return optax.sigmoid_binary_cross_entropy(logits, labels)

    blocks = {"first layer's row": ("first", 2), "second layer": ("second", 4)}
    return Problem(sample, init, losses, blocks, config.learning_rates[1])


PROBLEMS = {"mixture": gaussians, "XOR": xor}


def follow(config: ConfigDict, name: str, seed: int) -> dict[str, Any]:
    """The shares of the blocks that lie in their leading eigenspaces, along one run of SGD."""
    problem = PROBLEMS[name](config)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), seed), 3)
    params = problem.init(keys[0])
    examples = problem.sample(keys[1], config.num_examples)
    advance = jax.jit(partial(descend, config, problem))
    measure = jax.jit(partial(shares, problem))
    found: dict[str, list] = {}
    for step in range(0, config.num_steps + 1, config.measure_every):
        for block, value in measure(params, examples).items():
            found.setdefault(block, []).append(float(value))
        if step < config.num_steps:
            params = advance(params, keys[2], step)
    return {"shares": found}


def descend(config: ConfigDict, problem: Problem, params: Any, key: jax.Array, first: jax.Array):
    """SGD for as many steps as lie between measurements, each on one new example."""

    def step(params, i):
        batch = problem.sample(jax.random.fold_in(key, i), 1)
        gradient = jax.grad(lambda p: problem.losses(p, *batch).mean())(params)
        gradient = tree.axpy(config.ridge, params, gradient)
        return tree.axpy(-problem.learning_rate / config.dim, gradient, params), None

    return jax.lax.scan(step, params, first + jnp.arange(config.measure_every))[0]


def shares(problem: Problem, params: Any, examples: Any) -> dict[str, jax.Array]:
    """Of each kind of block and matrix the mean share of its square in the leading eigenspace."""
    found = {}
    for block, (leaf, k) in problem.blocks.items():
        weights = params[leaf]

        def of_row(i, leaf=leaf, k=k, weights=weights):
            def losses(row):
                return problem.losses(params | {leaf: weights.at[i].set(row)}, *examples)

            row = weights[i]
            hessian = landscape.hessian(lambda row: losses(row).mean(), row)
            moment = landscape.gradient_second_moment(losses, row)
            return [
                landscape.gradient_fraction(
                    landscape.top_eigenspace(matrix, row, k=k, rtol=1e-3)[0].vectors, row
                )
                for matrix in (hessian, moment)
            ]

        each = jax.lax.map(of_row, jnp.arange(len(weights)))
        for matrix, values in zip(MATRICES, each, strict=True):
            found[f"{block}, {matrix}"] = jnp.mean(values)
    return found


def spectrum(config: ConfigDict, width: int, num_classes: int) -> dict[str, Any]:
    """All eigenvalues of the Hessian of a trained two-layer network on a mixture."""
    dim = config.spectrum_dim
    x, labels = mixture(config, num_classes, dim)(jax.random.key(config.seed), config.num_examples)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), width))
    params = {
        "first": jax.random.normal(keys[0], (width, dim)) / dim**0.5,
        "second": jax.random.normal(keys[1], (num_classes, width)) / width**0.5,
    }
    flat, unravel = ravel_pytree(params)

    def loss(flat):
        params = unravel(flat)
        logits = jax.nn.relu(x @ params["first"].T) @ params["second"].T
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    optimizer = optax.adam(optax.cosine_decay_schedule(0.01, config.spectrum_steps))

    def step(carry, _):
        flat, memory = carry
        updates, memory = optimizer.update(jax.grad(loss)(flat), memory)
        return (optax.apply_updates(flat, updates), memory), None

    start = flat, optimizer.init(flat)
    flat = jax.jit(lambda s: jax.lax.scan(step, s, length=config.spectrum_steps)[0][0])(start)
    values = np.linalg.eigvalsh(np.asarray(jax.jit(jax.hessian(loss))(flat), np.float64))[::-1]
    return {
        "width": width,
        "classes": num_classes,
        "loss": float(loss(flat)),
        "values": values.tolist(),
        "outliers": outliers(values, 3 * num_classes),
        "near_zero": float(np.mean(values < FLAT * values[0])),
    }


FLAT = 1e-4
"""A part of the largest eigenvalue, below which others count as near zero."""


def outliers(values: np.ndarray, most: int) -> int:
    """Eigenvalues above the widest gap, as a ratio, among the ``most`` + 1 leading ones."""
    leading = values[: most + 1]
    leading = leading[leading > 0]
    return int(np.argmax(leading[:-1] / leading[1:])) + 1


def headline(config: ConfigDict, results: dict) -> str:
    """Shares at the end of training, with the seeds' range; outliers of the spectra."""
    parts = []
    for name in PROBLEMS:
        for block, rows in results[name].items():
            last = np.asarray(rows)[:, -1]
            first = np.asarray(rows)[:, 0].mean()
            parts.append(
                f"{name}, {block}: {first:.2f} at the start, {last.mean():.2f} "
                f"({last.min():.2f} to {last.max():.2f})"
            )
    flat = ", ".join(
        f"{s['near_zero']:.1%} of {len(s['values'])} for width {s['width']}"
        for s in results["spectra"]
        if s["classes"] == config.classes[0]
    )
    counts = ", ".join(
        f"{c} classes {sorted({s['outliers'] for s in results['spectra'] if s['classes'] == c})}"
        for c in config.classes
    )
    return (
        f"share of the weights in the leading eigenvectors of their block, {config.dim} "
        f"dimensions, {config.num_seeds} seeds. {'; '.join(parts)}. Outliers of the whole Hessian "
        f"for widths {', '.join(map(str, config.widths))}: {counts}. Of the bulk of "
        f"{config.classes[0]} classes, eigenvalues below {FLAT:g} of the largest: {flat}"
    )


LOOKS = {"Hessian": "-", "gradients": ":"}


def draw(config: ConfigDict, results: dict, figure: Figure) -> None:
    """Shares along training, of both problems; and spectra by width and by classes."""
    *first, spectra, bulk = figure.subplots(2, 2).ravel()
    steps = np.asarray(results["steps"])
    colours = (plots.BLUE, plots.VERMILION)
    for axes, name in zip(first, PROBLEMS, strict=True):
        kinds = list(dict.fromkeys(block.rpartition(", ")[0] for block in results[name]))
        for block, rows in results[name].items():
            kind, _, matrix = block.rpartition(", ")
            values, colour = np.asarray(rows), colours[kinds.index(kind)]
            axes.plot(steps, values.mean(0), LOOKS[matrix], color=colour, label=block)
            axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
        axes.set(title=f"{name}: weights in the leading eigenvectors", xlabel="step")
        axes.set(ylabel="share of their square", ylim=(-0.02, 1.02))
        axes.legend(fontsize="small")
    shown = [s for s in results["spectra"] if s["width"] == config.widths[-1]]
    for row, colour in zip(shown, (plots.BLUE, plots.ORANGE, plots.GREEN), strict=False):
        rank = np.arange(1, 41)[: len(row["values"])]
        label = f"{row['classes']} classes: {row['outliers']} outliers"
        leading = np.maximum(row["values"][: len(rank)], 1e-9)
        spectra.plot(rank, leading, "o-", ms=3, lw=1, color=colour, label=label)
        spectra.axvline(row["outliers"] + 0.5, color=colour, lw=0.8, ls="--")
    spectra.set(title=f"Hessian, width {config.widths[-1]}", xlabel="rank", ylabel="eigenvalue")
    spectra.set(yscale="log")
    spectra.legend(fontsize="small")
    narrow = [s for s in results["spectra"] if s["classes"] == config.classes[0]]
    for row, colour in zip(narrow, (plots.SKY, plots.BLUE, plots.VERMILION), strict=False):
        values = np.maximum(row["values"], 1e-9 * row["values"][0]) / row["values"][0]
        bins = np.logspace(-9, 0, 46)
        label = f"width {row['width']}: {len(values)} weights"
        bulk.hist(values, bins, histtype="step", color=colour, lw=1.4, label=label)
    bulk.set(title=f"Bulk of the Hessian, {config.classes[0]} classes", xscale="log")
    bulk.set(xlabel="eigenvalue over the largest", ylabel="how many")
    bulk.legend(fontsize="small")


if __name__ == "__main__":
    harness.main(run)
