"""Gradients in a tiny subspace: how much of them lies in the Hessian's leading eigenspace?

Claim (Gur-Ari, Roberts & Dyer, 2018): after a short time gradients lie almost wholly in the span of
as many leading eigenvectors of the Hessian as there are classes, and this space hardly changes.

    python -m experiments.gradient_subspace

Expected: it is a property of the noise. With stochastic gradients (rate 0.1, batches of 64) 95 % of
the gradient of all images lies in the 10 leading eigenvectors from step 50 on, of a minibatch's 50
to 65 %, and the space moves slowly (overlap 0.9 to 0.97 over 50 steps). With the gradients of all
images it is 0.4 %, and the space stands still. And it is not the part that learns: descent along
the part in the span gets nowhere, the rest alone learns as fast as the whole.

A network 784-200-200-10 learns MNIST-5k, by stochastic gradients and by those of all images. At
equal steps the k leading eigenvectors are found from Hessian products; of the gradient of all
images, and of those of single minibatches, the share in their span is measured, and the overlap of
the span with that of 50 steps before. Two more runs keep only one part of every stochastic
gradient, in the span or outside of it, to see which part it is that learns. A run that is started
again computes only the pieces it has not got.
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
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import data, harness, models, plots, records
from subspace_jax import krylov, landscape, tree

COLOURS = {
    "SGD": plots.BLUE,
    "full batch": plots.VERMILION,
    "SGD, top part": plots.ORANGE,
    "SGD, rest": plots.GREEN,
}
MEASURED = ("fraction", "minibatch_fraction", "overlap", "loss", "accuracy", "values")


class Problem(NamedTuple):
    """What is learned."""

    split: data.Split
    init: Callable[[jax.Array], Any]
    loss: Callable[..., jax.Array]
    accuracy: Callable[..., jax.Array]
    k: int


def run(config: ConfigDict, workdir: Path) -> dict:
    """Follow every method from every seed, and say what was in the leading space."""
    if config.num_steps % config.measure_every:
        raise ValueError(
            f"num_steps={config.num_steps} is not a multiple of "
            f"measure_every={config.measure_every}"
        )
    for method in config.methods:
        harness.pick("methods", method, COLOURS)
    problem = classification(config)
    measure = jax.jit(partial(measured, problem, config))
    train = {m: jax.jit(partial(trained, problem, config, m)) for m in config.methods}

    def compute(method, seed):
        start = time.perf_counter()
        found = follow(problem, config, seed, measure, train[method])
        return found | {"seconds": time.perf_counter() - start}

    def told(piece):
        return {name: np.asarray(piece[name][-1]) for name in ("fraction", "loss", "accuracy")}

    pairs = list(itertools.product(config.methods, range(config.num_seeds)))
    pieces = records.piecewise(workdir, pairs, compute, told)
    found = {
        method: [piece for piece, pair in zip(pieces, pairs, strict=True) if pair[0] == method]
        for method in config.methods
    }
    results = {
        "k": problem.k,
        "num_parameters": tree.size(jax.eval_shape(problem.init, jax.random.key(0))),
        "steps": list(range(0, config.num_steps + 1, config.measure_every)),
        "methods": {
            method: {name: [piece[name] for piece in several] for name in MEASURED}
            for method, several in found.items()
        },
    }
    results["summary"] = headline(config, results)
    records.say(results["summary"], sys.stdout)
    picture = partial(draw, config, results)
    plots.save(workdir / "gradient_subspace.png", picture, size=(11, 3.8))
    return results | {"seconds": {"compile": 0.0, "train": sum(p["seconds"] for p in pieces)}}


def classification(config: ConfigDict) -> Problem:
    """A network with the cross entropy of the classes, all of it in float32."""
    split = data.load(config.data, config.data_path)
    num_classes = int(split.train_y.max()) + 1
    model = models.MLP((*config.hidden, num_classes))

    def loss(params, batch):
        x, y = batch
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    def accuracy(params, x, y):
        return jnp.mean(model.apply(params, x).argmax(-1) == y)

    return Problem(
        split,
        lambda key: model.init(key, split.train_x[:1]),
        loss,
        accuracy,
        config.k or num_classes,
    )


def follow(
    problem: Problem, config: ConfigDict, seed: int, measure: Callable, train: Callable
) -> dict[str, list]:
    """Train from one seed; everything that is measured, in lists over the steps of measurement."""
    params = problem.init(jax.random.fold_in(jax.random.key(config.seed), seed))
    whole = problem.split.train_x, problem.split.train_y
    stream = data.epochs(problem.split, config.batch_size, (config.seed, seed))
    chosen = np.random.default_rng([config.seed, seed]).permutation(len(whole[0]))
    examples = tuple(x[chosen[: config.num_examples]] for x in whole)
    space, found = None, {name: [] for name in MEASURED}
    for step in range(0, config.num_steps + 1, config.measure_every):
        own = _stacked(stream, range(step, step + config.num_minibatches))
        space_before = space
        space, values = measure(params, whole, examples, own)
        if space_before is not None:
            values["overlap"] = landscape.overlap(space_before, space)
        for name, value in values.items():
            found[name].append(np.asarray(value).tolist())
        if step == config.num_steps:
            return found
        batches = _stacked(stream, range(step, step + config.measure_every))
        params = train(params, space, whole, batches)
    raise AssertionError("the last step is one of measurement")


def measured(problem: Problem, config: ConfigDict, params, whole, examples, minibatches):
    """The leading eigenspace at ``params``, and what lies in it."""
    hvp = landscape.hessian(lambda p: problem.loss(p, examples), params)
    ritz, info = landscape.top_eigenspace(hvp, params, k=problem.k, rtol=config.rtol)
    loss, gradient = jax.value_and_grad(problem.loss)(params, whole)

    def fraction(batch):
        return landscape.gradient_fraction(ritz.vectors, jax.grad(problem.loss)(params, batch))

    converged = info.status == krylov.Status.CONVERGED
    return ritz.vectors, {
        "fraction": landscape.gradient_fraction(ritz.vectors, gradient),
        "minibatch_fraction": jnp.mean(jax.lax.map(fraction, minibatches)),
        "loss": loss,
        "accuracy": problem.accuracy(params, problem.split.test_x, problem.split.test_y),
        "values": jnp.where(converged, ritz.values, jnp.nan),
    }


def trained(problem: Problem, config: ConfigDict, method: str, params, space, whole, batches):
    """Steps along the gradient of every batch, along one part of it, or along that of the whole."""

    def step(params, batch):
        gradient = jax.grad(problem.loss)(params, whole if method == "full batch" else batch)
        if method in ("SGD, top part", "SGD, rest"):
            top = landscape.component(space, gradient)
            gradient = top if method == "SGD, top part" else tree.axpy(-1.0, top, gradient)
        return tree.axpy(-config.learning_rate, gradient, params), None

    return jax.lax.scan(step, params, batches)[0]


def _stacked(stream: Callable[[int], Any], steps: range) -> Any:
    return jax.tree.map(lambda *xs: np.stack(xs), *map(stream, steps))


def after_the_start(results: dict, method: str, name: str) -> np.ndarray:
    """The mean over the second half of the run, one number a seed."""
    values = np.asarray(results["methods"][method][name])
    return values[:, values.shape[1] // 2 :].mean(axis=1)


def headline(config: ConfigDict, results: dict) -> str:
    """Fractions of the second half of the runs, with the seeds' range, and who learned."""
    chance = results["k"] / results["num_parameters"]
    parts = []
    for method in config.methods:
        fraction = after_the_start(results, method, "fraction")
        overlap = after_the_start(results, method, "overlap")
        accuracy = np.asarray(results["methods"][method]["accuracy"])[:, -1]
        parts.append(
            f"{method}: {fraction.mean():.3f} ({fraction.min():.3f} to {fraction.max():.3f}), "
            f"overlap {overlap.mean():.2f}, accuracy {accuracy.mean():.3f}"
        )
    return (
        f"share of the gradient in the {results['k']} leading eigenvectors (by chance "
        f"{chance:.0e}), second half of {config.num_steps} steps, {config.num_seeds} seeds. "
        + "; ".join(parts)
    )


def draw(config: ConfigDict, results: dict, figure: Figure) -> None:
    """The share in the leading space, how the space moves, and which part of a gradient learns."""
    shares, overlaps, losses = figure.subplots(1, 3)
    steps = np.asarray(results["steps"])
    for method in config.methods:
        found, colour = results["methods"][method], COLOURS[method]
        if method in ("SGD", "full batch"):
            curves(shares, steps, found["fraction"], colour, f"{method}, all images")
            curves(overlaps, steps[1:], found["overlap"], colour, method)
        if method == "SGD":
            label = "SGD, one minibatch"
            curves(shares, steps, found["minibatch_fraction"], plots.SKY, label)
        curves(losses, steps, found["loss"], colour, method)
    chance = results["k"] / results["num_parameters"]
    shares.axhline(chance, color=plots.GREY, linestyle="--", label="a random direction")
    title = f"gradient in {results['k']} leading eigenvectors"
    shares.set(title=title, xlabel="step", ylabel="share of its square", ylim=(-0.02, 1.02))
    overlaps.set(
        title=f"the space {config.measure_every} steps later", xlabel="step", ylabel="overlap",
        ylim=(-0.02, 1.02),
    )  # fmt: skip
    losses.set(title="which part learns", xlabel="step", ylabel="training loss", yscale="log")
    shares.legend(fontsize="small", loc="center right", bbox_to_anchor=(1, 0.25))
    overlaps.legend(fontsize="small")
    losses.legend(fontsize="small")


def curves(axes, steps: np.ndarray, values: list, colour: str, label: str) -> None:
    """The mean over seeds, and their range."""
    values = np.asarray(values)
    axes.plot(steps, values.mean(axis=0), color=colour, label=label)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0)


if __name__ == "__main__":
    harness.main(run)
