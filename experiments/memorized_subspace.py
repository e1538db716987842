"""Memorised images in a denoiser with prompts: are the weights that carry them shared?

Claim (Chavhan et al., 2024, "Memorized images in diffusion models share a subspace that can be
located and deleted"): feed-forward weights with high scores, |w| times the norm of the neuron,
under memorised prompts and not under the empty one, are few and common to memorised prompts.
Removing those of some prompts ends the replication of all; other generations stay as good.

    python -m experiments.memorized_subspace

Expected (float32 on a CPU, 3 seeds, 8 minutes of two cores): before, every generation of the
duplicated prompts replicates (median ratio .04; trained on each image once 0 %, .96). Located by
ten prompts together, 1.0 % of the weights end the replication of these ten and cost the others
nothing: accuracy .793 (.792 before, .834 trained once), distance .076 (.075), loss .0730 (.0729).
It takes 1.2 % without the reference (accuracy .768), 3.7 % prompt by prompt (.755), 23 % at random
(.621); neither 30 % of the smallest nor the weights of ordinary prompts are enough. But little is
common: with that 1.0 % all generations of the prompts held out still replicate, with 6.5 % 57 %
(accuracy .773; at random 70 % with 10 %, .725). More prompts that locate find no more of the
others' (80 % replicate after one and after fifteen), and the weights of two sets of memorised
prompts overlap little more than those of memorised and ordinary ones (.116, .093 at 6.5 %).
Captions are random here: being repeated is all that the prompts have in common.

Of Fashion-MNIST 20 images are in the training set 100 times and 5,000 once, each with a prompt:
its class, and a caption of its own, random numbers. Ten of the 20 prompts locate, ten are held
out. A generation replicates if its nearest training image is less than a third as far as the
second nearest. Every method removes shares of each output's weights; the share that is reported is
the first after which at most 5 % of the generations of the prompts that locate replicate. Others
are generations of a class with a new caption: how many a classifier of the real images gives that
class, and their sliced Wasserstein distance to test images; and the denoising error of these. The
ceiling is the same network trained on each image once.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import denoisers, harness, oracle, plots, prompted, pruning, records
from experiments.train_denoiser import adam
from subspace_jax import diffusion

STYLES = {
    "located": {"color": plots.BLUE, "marker": "s"},
    "located, prompt by prompt": {"color": plots.SKY, "marker": "D"},
    "without reference": {"color": plots.ORANGE, "marker": "o"},
    "of ordinary prompts": {"color": plots.PURPLE, "marker": "v"},
    "smallest": {"color": plots.GREEN, "marker": "^"},
    "random": {"color": plots.GREY, "marker": "o"},
}
RATES = ("locating", "held out")
QUALITY = ("accuracy", "loss", "distance")


class Tools(NamedTuple):
    """Compiled once for all seeds."""

    measure: Callable
    probe: Callable
    classify: Callable


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train on both sets, prune, score; print the table, draw, return numbers."""
    collections = [prompted.collect(config, seed) for seed in range(config.num_seeds)]
    optimizer = adam(config)
    state, seconds = harness.train(
        workdir,
        config,
        prompted.start(config, optimizer, collections[0]),
        partial(prompted.train_step, config, optimizer),
        partial(prompted.batch, config, collections),
    )
    begun = time.perf_counter()
    classify, accuracy = prompted.classifier(config)
    tools = Tools(
        jax.jit(partial(measured, config)), jax.jit(partial(pruning.probe, config)), classify
    )
    (workdir / "pruning").mkdir(exist_ok=True)
    found = records.piecewise(
        workdir / "pruning",
        [(seed,) for seed in range(config.num_seeds)],
        lambda seed: studied(config, workdir, tools, state["params"], collections[seed], seed),
        lambda row: {name: row["before"][name] for name in ("held out", *QUALITY)},
    )
    results: dict[str, Any] = {"classifier": accuracy, "seeds": found}
    results["loss"] = {name: mean_of(results, name)["loss"] for name in ("before", "once")}
    results["chosen"] = {method: chosen(config, found, method) for method in STYLES}
    results["summary"] = headline(config, results)
    records.say(table(results), sys.stdout)
    picture = partial(draw, config, workdir, results)
    plots.save(workdir / "memorized_subspace.png", picture, size=(13, 7.6))
    seconds = seconds | {"train": seconds["train"] + time.perf_counter() - begun}
    return results | {"seconds": seconds}


def studied(config, workdir: Path, tools: Tools, params, collection, seed: int) -> dict:
    """One seed: before, after every method at every share, trained on each image once."""
    ours, once = (jax.tree.map(itemgetter(2 * seed + i), params) for i in range(2))
    score = partial(scored, config, tools, collection, seed)
    pictures = {"training": collection.images[: config.num_duplicated]}
    rows: dict[str, Any] = {}
    rows["before"], pictures["before"] = score(ours)
    rows["once"], pictures["once"] = score(once)
    neurons = probed(config, tools, ours, collection, seed)
    rows["methods"] = {method: [] for method in STYLES}
    for method in STYLES:
        for share in config.shares:
            masks = pruning.METHODS[method](config, neurons, pruning.kernels(ours), share)
            row, images = score(pruning.without(ours, masks))
            row["removed"] = float(np.mean([jnp.mean(mask) for mask in masks]))
            rows["methods"][method].append(row)
            earlier = rows["methods"]["located"][:-1]
            if method == "located" and all(r["locating"] > config.tolerance for r in earlier):
                pictures["after"] = images  # in the end those of the first share that is enough
    rows["counts"] = [counted(config, neurons, ours, score, count) for count in config.counts]
    rows["overlap"] = [
        overlap(config, neurons, pruning.kernels(ours), share) for share in config.shares
    ]
    np.savez(workdir / "pruning" / f"{seed}.npz", **pictures)
    return rows


def scored(config, tools: Tools, collection, seed: int, params) -> tuple[dict, np.ndarray]:
    """Replication of the duplicated images, quality of all else; a generation a prompt."""
    rng = np.random.default_rng([config.seed, seed, 2])
    labels = np.arange(config.num_others) % 10
    others = prompted.captioned(config, rng, labels)
    test_prompts = prompted.captioned(config, rng, collection.test_labels)
    repeated = np.repeat(collection.prompts[: config.num_duplicated], config.num_samples, 0)
    x, ratio, loss, distance = tools.measure(
        params,
        np.concatenate([repeated, others]),
        collection.images,
        collection.test_images,
        test_prompts,
    )
    first = len(repeated)
    ratio = np.asarray(ratio[:first]).reshape(config.num_duplicated, -1)
    replicas = np.mean(ratio < config.replica, 1)
    row = {
        "locating": float(np.mean(replicas[: config.num_locating])),
        "held out": float(np.mean(replicas[config.num_locating :])),
        "replicas": replicas.tolist(),
        "ratio": np.median(ratio, 1).tolist(),
        "accuracy": float(np.mean(np.asarray(tools.classify(x[first:])) == labels)),
        "loss": float(loss),
        "distance": float(distance),
    }
    shown = np.append(np.arange(0, first, config.num_samples), first + np.arange(config.num_shown))
    return row, np.asarray(x)[shown]


def measured(config: ConfigDict, params, prompts, train, test, test_prompts) -> tuple:
    """Generations under prompts, and how near they are to training images.

    Returns:
        The images; the distance to the nearest training image over that to the second nearest; the
        error of the denoiser on test images; the sliced Wasserstein distance of the last
        generations to these.
    """
    key = jax.random.key(config.seed + 1)

    def one(key, prompt):
        denoise = prompted.denoiser(config, params, prompt)
        step = diffusion.dpmpp_2m()
        return diffusion.sample(key, denoise, prompted.levels(config), train.shape[1:], step=step).x

    x = jax.vmap(one)(jax.random.split(key, len(prompts)), prompts)
    flat, known, unseen = (images.reshape(len(images), -1) for images in (x, train, test))
    squared = jnp.sum(flat**2, 1)[:, None] - 2 * flat @ known.T + jnp.sum(known**2, 1)
    near = jnp.maximum(-jax.lax.top_k(-squared, 2)[0], 0)
    sigma = denoisers.draw_levels(config, key, len(test))
    noise = jax.random.normal(jax.random.fold_in(key, 1), test.shape)
    noisy = (test + sigma[:, None, None] * noise)[..., None]
    error = prompted.on_batches(config, params, test_prompts)(noisy, sigma)[..., 0] - test
    num = config.num_others
    distance = oracle.sliced_wasserstein(key, flat[-num:], unseen[:num])
    return x, jnp.sqrt(near[:, 0] / near[:, 1]), jnp.mean(error**2), distance


def probed(config: ConfigDict, tools: Tools, params, collection, seed: int) -> pruning.Neurons:
    """What the neurons do under each kind of prompt; no image is needed for it."""
    num, end = config.num_locating, config.num_duplicated
    prompts = collection.prompts
    groups = (prompts[:num], prompts[num:end], prompts[end : end + num], 0 * prompts[:1])
    key = jax.random.key(config.seed + 2 + seed)
    side = collection.images.shape[1]
    return pruning.Neurons(
        *(tools.probe(params, key, group, np.zeros((side, side))) for group in groups)
    )


def counted(
    config: ConfigDict, neurons: pruning.Neurons, params, score: Callable, count: int
) -> dict:
    """Replication where so many prompts locate, and of those that never do."""
    norms = jnp.concatenate([neurons.locating, neurons.held_out])[:count]
    masks = pruning.between(pruning.kernels(params), norms, neurons.empty, config.share_shown)
    replicas = score(pruning.without(params, masks))[0]["replicas"]
    never = max(config.counts)
    return {"locating": np.mean(replicas[:count]), "never located": np.mean(replicas[never:])}


def overlap(config: ConfigDict, neurons: pruning.Neurons, Ws, share: float) -> dict[str, float]:
    """Intersection over union of the weights of the locating prompts with those of others."""
    ours = pruning.between(Ws, neurons.locating, neurons.empty, share)
    found = {}
    for name in ("held_out", "ordinary"):
        theirs = pruning.between(Ws, getattr(neurons, name), neurons.empty, share)
        pairs = list(zip(ours, theirs, strict=True))
        either = sum(int(jnp.sum(a | b)) for a, b in pairs)
        found[name] = sum(int(jnp.sum(a & b)) for a, b in pairs) / max(either, 1)
    return found


def chosen(config: ConfigDict, found: list[dict], method: str) -> dict[str, Any]:
    """Means over seeds at the first share after which the locating prompts do not replicate."""
    rows = []
    for seed in found:
        enough = [r for r in seed["methods"][method] if r["locating"] <= config.tolerance]
        rows += enough[:1]
    names = ("removed", *RATES, *QUALITY)
    means = {name: float(np.mean([row[name] for row in rows])) for name in names if rows}
    return {"reached": len(rows)} | means


def headline(config: ConfigDict, results: dict[str, Any]) -> str:
    before, once = (mean_of(results, name) for name in ("before", "once"))
    ours, blind = (results["chosen"][name] for name in ("located", "random"))
    parts = [
        f"replication of duplicated images {percent(before, *RATES)} before (those "
        f"that locate; those held out), {percent(once, *RATES)} trained on each once"
    ]
    for name, row in (("located", ours), ("random", blind)):
        if row["reached"] == config.num_seeds:
            parts.append(
                f"{name}, {100 * row['removed']:.1f} % of the weights removed: "
                f"{percent(row, *RATES)}, accuracy {row['accuracy']:.3f}"
            )
        else:
            parts.append(f"{name}: enough in {row['reached']} of {config.num_seeds} seeds")
    parts.append(f"accuracy {before['accuracy']:.3f} before, {once['accuracy']:.3f} once")
    return "; ".join(parts)


def percent(row: dict[str, Any], *names: str) -> str:
    return ", ".join(f"{100 * row[name]:.0f} %" for name in names)


def mean_of(results: dict[str, Any], name: str) -> dict[str, float]:
    rows = [seed[name] for seed in results["seeds"]]
    return {key: float(np.mean([row[key] for row in rows])) for key in RATES + QUALITY}


def table(results: dict[str, Any]) -> str:
    """Where the locating prompts no longer replicate; before, and without duplicates."""
    names = ("removed", *RATES, *QUALITY)
    lines = [" " * 26 + "  ".join(f"{name:>9}" for name in names)]
    rows = {name: mean_of(results, name) | {"removed": 0.0} for name in ("before", "once")}
    for name, row in (rows | results["chosen"]).items():
        cells = "  ".join(f"{row[key]:9.4f}" for key in names if key in row)
        told = f"({row['reached']} of {len(results['seeds'])} seeds)" if "reached" in row else ""
        lines.append(f"{name:26}{cells}  {told}")
    for kind in ("held_out", "ordinary"):
        rows = [[row[kind] for row in seed["overlap"]] for seed in results["seeds"]]
        told = ", ".join(f"{x:.3f}" for x in np.mean(rows, 0))
        lines.append(f"intersection over union with the weights of {kind} prompts: {told}")
    return "\n".join(lines)


def draw(config: ConfigDict, workdir: Path, results: dict[str, Any], figure: Figure) -> None:
    """Images of the first seed at the left; at the right what is removed, kept and shared."""
    left, right = figure.subfigures(1, 2, width_ratios=(1.2, 1))
    with np.load(workdir / "pruning" / "0.npz") as arrays:
        draw_images(config, dict(arrays), left)
    panels = right.subplots(2, 2)
    titles = {
        "locating": "replication, prompts that locate",
        "held out": "replication, prompts held out",
        "accuracy": "accuracy, new prompts",
    }
    for axes, (name, title) in zip(panels.flat, titles.items(), strict=False):
        for arm, line in (("before", ":"), ("once", "--")):
            level = mean_of(results, arm)[name]
            axes.axhline(level, color=plots.GREY, ls=line, lw=1, label=arm)
        for method, style in STYLES.items():
            x, y = (curve(results, method, key) for key in ("removed", name))
            axes.plot(x, y, ms=4, label=method, **style)
        axes.set(xscale="log", xlabel="share of the weights removed")
        axes.set_title(title, fontsize=9)
    right.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    draw_counts(config, results, panels[1, 1])


def curve(results: dict[str, Any], method: str, name: str) -> np.ndarray:
    """The mean over seeds, a number a share."""
    return np.mean([[r[name] for r in seed["methods"][method]] for seed in results["seeds"]], 0)


def draw_counts(config: ConfigDict, results: dict[str, Any], axes: Any) -> None:
    """The more prompts locate, is there less of the others?"""
    for name, colour in (("locating", plots.BLUE), ("never located", plots.VERMILION)):
        values = [[row[name] for row in seed["counts"]] for seed in results["seeds"]]
        axes.plot(config.counts, np.mean(values, 0), marker="o", ms=4, color=colour, label=name)
    axes.set(xlabel="prompts that locate", ylim=(-0.03, 1.03))
    axes.set_title(f"replication, best {100 * config.share_shown:g} %", fontsize=9)
    axes.legend(fontsize=7)


def draw_images(config: ConfigDict, images: dict[str, np.ndarray], figure: Any) -> None:
    """Duplicated prompts, the second half of them held out, and ordinary ones."""
    half = config.num_shown // 2
    rows = np.append(np.arange(half), config.num_locating + np.arange(half))
    end = config.num_duplicated
    lines = [("training image", images["training"][rows])]
    for name in ("before", "after", "once"):
        lines.append((name, images[name][rows]))
    lines += [(f"{name}, others", images[name][end:]) for name in ("before", "after", "once")]
    grid = figure.subplots(len(lines), config.num_shown)
    for cells, (name, line) in zip(grid, lines, strict=True):
        for axes, image in zip(cells, line, strict=False):
            axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
        cells[0].set_ylabel(name, fontsize=7)
    grid[0, 0].set_title("prompts that locate", fontsize=9)
    grid[0, half].set_title("held out", fontsize=9)


if __name__ == "__main__":
    harness.main(run)
