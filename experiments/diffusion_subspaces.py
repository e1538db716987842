"""What a diffusion model learns of low-dimensional data: subspaces, by clustering.

Claim ("Diffusion models learn low-dimensional distributions via subspace clustering", arXiv
2409.02426): for a mixture of low-rank Gaussians, training a denoiser by the diffusion loss is
subspace clustering. It finds the subspaces from about as many samples as they have dimensions, and
not from fewer; a network needs more, in proportion. The Jacobian of an image prior has low rank at
middle levels of noise, and its leading singular vectors edit images.

    python -m experiments.diffusion_subspaces

Expected (float32 on a CPU, 6 seeds, noise 0.005 a coordinate, K = 3, n = 64): for d = 2, 4, 8, 16
the diffusion loss finds all subspaces from a median of 3, 4, 8.5, 17 points a cluster on,
K-subspaces from 2.5, 4, 8.5, 17; from 2 d points on the median distance is 0.03 or less. Both
start at spans of neighbouring points, the best of 6 by its own error; from random starts the
diffusion loss finds all subspaces only for d = 2, so the claim holds for its minimum and not for
its descent. Networks (d = 4, 2 seeds) have distances of 0.63, 0.30, 0.28, 0.28 (dense) and 0.68,
0.37, 0.31, 0.30 (U-Net, points as 8 x 8 images, of fewer steps) at 4, 15, 60 and 250 d points:
they need more points than their subspaces have dimensions, and stay short of the mixture.

Mean ranks of Jacobians, 4 slices, at sigma 0.1, 0.3, 1, 3, 10: heads above 48 twice, 48, 22, 6;
lungs above 48 twice, 30, 11, 29; the exact mixture 4, 4, 4.5, 11, 11 (d = 4). So a prior's is far
below 4096 at middle levels, but nothing like that of the mixture. Change per unit of edit along
own leading directions, another image's, principal ones of pixels, random ones: heads 1.08, 0.78,
0.64, 0.10; lungs 1.21, 0.92, 0.64, 0.09. The larger the change the less linear: the cosine of
opposite edits is 0.74, 0.76, 0.91, 1.00 for heads and 0.39, 0.54, 0.64, 0.99 for lungs. Edits of
the U-Net's innermost features (h-space), as large as these differ between images: 0.070, 0.058,
0.047, 0.025 and 0.075, 0.073, 0.062, 0.051. There too the Jacobian's change most, but opposite
edits do not make opposite changes (cosines 0.08 and -0.05; principal ones 0.33 and -0.25): no
handle at that size.

Found means that the largest sine of all principal angles is at most a half, here and at all larger
numbers; distances are chordal, 1 for orthogonal subspaces. The Jacobian's numerical rank holds 90
% of its squared singular values. An edit adds a vector of norm 3 to a slice of 64 x 64 pixels at
sigma = 1, with other noise than where the directions were found, or one to the features in every
step; ten Euler steps take the noise off both. Settings of the mixtures (noise, n, levels) and of
the dense network were chosen on two seeds by the same measures. Left out: weights of the hard
maximum, as in the paper's theorem.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import harness, image_directions, low_rank_mixtures, plots, records

METHODS = low_rank_mixtures.METHODS
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.VERMILION)


def run(config: ConfigDict, workdir: Path) -> dict:
    """Transitions, networks, Jacobians and edits; print, draw, return numbers."""
    pieces: list[tuple] = [("mixtures", dim) for dim in config.dims]
    names = tuple(config.network.names)
    pieces += [(name, ratio) for name in names for ratio in config.network.ratios]
    pieces += [("directions", prior) for prior in config.priors]
    found = records.piecewise(workdir, pieces, partial(compute, config, workdir), logged)
    kinds: dict[str, dict] = {kind: {} for kind in ("mixtures", *names, "directions")}
    for (kind, what), value in zip(pieces, found, strict=True):
        kinds[kind][str(what)] = value["found"]
    results: dict[str, Any] = {name: kinds[name] for name in ("mixtures", "directions")}
    results |= {"networks": {name: kinds[name] for name in names}}
    results["gate"] = gate(config, kinds["mixtures"])
    results["distance"] = {
        dim: {method: float(np.median(f["chordal"][method][-1])) for method in METHODS[:2]}
        for dim, f in kinds["mixtures"].items()
    }
    results["edits"] = {name: edits(f["edits"]) for name, f in kinds["directions"].items()}
    results["inside"] = {
        name: edits(f["inside"]) for name, f in kinds["directions"].items() if "inside" in f
    }
    results["summary"] = headline(config, results)
    records.say(table(config, results), sys.stdout)
    picture = partial(draw, config, results)
    plots.save(workdir / "diffusion_subspaces.png", picture, size=(12.5, 7.6))
    photographed = [name for name in config.priors if name != "mixture"]
    if photographed:
        sheet = partial(draw_edits, workdir, photographed)
        size = (11, 3 * len(photographed))
        plots.save(workdir / "diffusion_subspaces-edits.png", sheet, size=size)
    return results | {"seconds": {"compile": 0.0, "train": sum(f["seconds"] for f in found)}}


def compute(config: ConfigDict, workdir: Path, kind: str, what: Any) -> dict:
    start = time.perf_counter()
    if kind == "mixtures":
        found = transition(config, what)
    elif kind == "directions":
        found = image_directions.study(config, workdir, what)
    else:
        found = networks(config, kind, what)
    return {"found": found, "seconds": time.perf_counter() - start}


def logged(value: dict) -> dict[str, Any]:
    """One number a piece, of whatever kind."""
    found = value["found"]
    for name in ("chordal", "distance", "rank"):
        if name in found:
            what = found[name]
            what = what[METHODS[0]][-1] if isinstance(what, dict) else what
            return {name: np.mean(what)}
    return {}


def transition(config: ConfigDict, dim: int) -> dict:
    """{"nums", "chordal", "sine"}: the distances {method: (nums, seeds)} at each number."""
    nums = sample_sizes(config, dim)
    one = low_rank_mixtures.recover(config, dim, max(nums))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), dim), config.num_seeds)
    many = jax.jit(lambda num: jax.lax.map(lambda key: one(key, num), keys))
    found = [jax.device_get(many(jnp.int32(num))) for num in nums]
    distances = {
        measure: {method: [f[method][i].tolist() for f in found] for method in METHODS}
        for i, measure in enumerate(("chordal", "sine"))
    }
    return {"nums": nums} | distances


def sample_sizes(config: ConfigDict, dim: int) -> list[int]:
    """Points a cluster: each number about ``dim``, and multiples of it."""
    near = range(max(1, dim - 1), dim + 2 + max(1, dim // 5))
    return sorted({*near, *(max(1, round(ratio * dim)) for ratio in config.ratios)})


def transitions(found: dict, method: str, threshold: float) -> list[float]:
    """The number of each seed from which on all subspaces are found; infinite if never."""
    recovered = np.asarray(found["sine"][method]) <= threshold
    lasting = np.flip(np.logical_and.accumulate(np.flip(recovered, 0)), 0)
    first = np.argmax(lasting, axis=0)
    nums = np.asarray(found["nums"], float)
    return np.where(lasting.any(0), nums[first], np.inf).tolist()


def gate(config: ConfigDict, mixtures: dict) -> dict[str, Any]:
    """{dimension: the median transition, the largest median distance from twice as many on}."""
    told = {}
    for dim, found in mixtures.items():
        far = [num >= 2 * int(dim) for num in found["nums"]]
        told[dim] = {}
        for method in METHODS[:3]:
            median = float(np.median(transitions(found, method, config.threshold)))
            medians = np.median(np.asarray(found["chordal"][method])[far], axis=1)
            low, high = int(dim), int(dim) + max(1, 0.2 * int(dim))
            told[dim][method] = {
                "transition": median if np.isfinite(median) else None,
                "distance": float(medians.max()),
                "worst": float(np.max(np.asarray(found["chordal"][method])[far])),
                "passed": bool(low <= median <= high and medians.max() <= 0.1),
            }
    return told


def networks(config: ConfigDict, name: str, ratio: float) -> dict:
    """Losses and distances of networks trained on ``ratio`` points a dimension, one a seed."""
    num = max(1, round(ratio * config.network.dim))
    keys = jax.random.split(jax.random.key(config.seed + 1), config.network.num_seeds)
    train, test, distance = jax.jit(low_rank_mixtures.learn(config, name, num))(keys)
    return {
        "num": num,
        "train": train.tolist(),
        "test": test.tolist(),
        "distance": distance.tolist(),
    }


def edits(found: dict) -> dict:
    """Means over images and directions, and deviations."""
    return {
        kind: {name: [float(np.mean(x)), float(np.std(x))] for name, x in measures.items()}
        for kind, measures in found.items()
    }


def headline(config: ConfigDict, results: dict) -> str:
    told = []
    for dim, methods in results["gate"].items():
        numbers = (methods[method]["transition"] for method in METHODS[:3])
        told.append(f"d = {dim}: " + ", ".join("none" if n is None else f"{n:g}" for n in numbers))
    passed = sum(methods[METHODS[0]]["passed"] for methods in results["gate"].values())
    parts = [
        "Median number of points a cluster from which on all subspaces are found, by the "
        "diffusion loss, by K-subspaces, by the diffusion loss from random starts: "
        + "; ".join(told)
        + f"; the gate holds for {passed} of {len(results['gate'])} dimensions"
    ]
    for name, kinds in results["edits"].items():
        gains = ", ".join(f"{kind} {m['gain'][0]:.3g}" for kind, m in kinds.items())
        parts.append(f"change per unit of edit, {name}: {gains}")
    for name, kinds in results["inside"].items():
        gains = ", ".join(f"{kind} {m['gain'][0]:.3g}" for kind, m in kinds.items())
        parts.append(f"of the innermost features, {name}: {gains}")
    return ". ".join(parts)


def table(config: ConfigDict, results: dict) -> str:
    lines = ["medians of distances (and largest sines) at points a cluster"]
    for dim, found in results["mixtures"].items():
        lines.append(f"d = {dim}:  " + "".join(f"{num:14}" for num in found["nums"]))
        for method in METHODS:
            pairs = zip(found["chordal"][method], found["sine"][method], strict=True)
            told = (f"{np.median(c):.3f} ({np.median(s):.3f})" for c, s in pairs)
            lines.append(f"  {method:26} " + " ".join(told))
    for name, curve in results["networks"].items():
        for ratio, found in curve.items():
            told = (f"{np.mean(found[k]):.3f}" for k in ("train", "test", "distance"))
            lines.append(
                f"{name}, {ratio} points a dimension: loss, on new, distance " + " ".join(told)
            )
    for name, found in results["directions"].items():
        ranks = (f"{np.mean(r):.1f} +- {np.std(r):.1f}" for r in np.transpose(found["rank"]))
        lines.append(f"{name}: rank at {config.levels}: " + ", ".join(ranks))
        for where in ("edits", "inside"):
            for kind, measures in results[where].get(name, {}).items():
                told = (f"{key} {m:.3f} +- {s:.3f}" for key, (m, s) in measures.items())
                lines.append(f"  {where:6} {kind:16} " + "  ".join(told))
    return "\n".join(lines)


def draw(config: ConfigDict, results: dict, figure: Figure) -> None:
    """Distances against points; below networks, ranks, spectra and gains of edits."""
    top, bottom = figure.subfigures(2, 1)
    axes = top.subplots(1, len(config.dims), sharey=True, squeeze=False)[0]
    for axis, (dim, found) in zip(axes, results["mixtures"].items(), strict=True):
        draw_transition(config, int(dim), found, axis)
        axis.set(title=f"d = {dim}", xlabel="points a cluster / d")
    axes[0].set(ylabel="chordal distance")
    axes[0].legend(fontsize=7, handlelength=3.6)  # long enough to tell dashes from dash-dots
    axes = bottom.subplots(1, 3)
    for (name, curve), colour in zip(results["networks"].items(), COLOURS, strict=False):
        nums = [f["num"] / config.network.dim for f in curve.values()]
        draw_spread(axes[0], nums, [f["distance"] for f in curve.values()], colour, name)
    axes[0].legend(fontsize=7)
    axes[0].axvline(1, color=plots.GREY, ls=":")
    axes[0].set(title=f"networks, d = {config.network.dim}", xscale="log", ylim=(0, 1))
    axes[0].set(xlabel="points a cluster / d", ylabel="chordal distance")
    for (name, f), colour in zip(results["directions"].items(), COLOURS, strict=False):
        draw_spread(axes[1], config.levels, np.transpose(f["rank"]).tolist(), colour, name)
    axes[1].axhline(config.rank, color=plots.GREY, ls=":", lw=1)
    axes[1].set(title=f"rank of {config.share:.0%} of the Jacobian's energy", xscale="log")
    axes[1].set(xlabel="sigma", ylabel=f"rank (at most {config.rank} seen)")
    axes[1].set_yscale("log", base=2)  # whose ticks are few whole numbers
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[1].legend(fontsize=7)
    draw_gains(config, results["edits"], axes[2])


def draw_transition(config: ConfigDict, dim: int, found: dict, axis: Any) -> None:
    nums = np.asarray(found["nums"], float)
    for method, colour in zip(METHODS, COLOURS, strict=True):
        draw_spread(axis, nums / dim, found["chordal"][method], colour, method)
    few = np.linspace(0, dim, 50)
    axis.plot(few / dim, np.sqrt(1 - few / dim), color=plots.GREY, ls="--", label="unseen share")
    many = np.linspace(dim + 0.2, nums[-1], 100)
    noise = config.noise * np.sqrt(config.ambient_dim - dim)
    bound = noise / (np.sqrt(many) - np.sqrt(dim - 1))
    axis.plot(many / dim, bound, color=plots.GREY, ls="-.", label="noise / (root N - root (d - 1))")
    axis.axvline(1, color=plots.GREY, ls=":", lw=1)
    axis.set(yscale="log", ylim=(3e-4, 1.2))  # room for the legend


def draw_spread(axis: Any, x: Any, values: Any, colour: str, label: str) -> None:
    """The median of each list, and the range of all."""
    low, median, high = (np.quantile(values, q, axis=1) for q in (0, 0.5, 1))
    axis.plot(x, median, color=colour, marker="o", ms=3, label=label)
    axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def draw_gains(config: ConfigDict, found: dict, axis: Any) -> None:
    kinds = image_directions.KINDS
    width = 0.8 / max(1, len(found))
    for i, (name, colour) in enumerate(zip(found, COLOURS, strict=False)):
        means, deviations = np.transpose([found[name][kind]["gain"] for kind in kinds])
        at = np.arange(len(kinds)) + (i - (len(found) - 1) / 2) * width
        axis.bar(at, means, width, yerr=deviations, color=colour, label=name, ecolor=plots.GREY)
    axis.set_xticks(np.arange(len(kinds)), kinds, fontsize=7)
    axis.set(title=f"edits at sigma = {config.edit_level}", ylabel="change per unit of edit")
    axis.legend(fontsize=7)


def draw_edits(workdir: Path, priors: list[str], figure: Figure) -> None:
    """Two rows a prior: the image, and what edits along the two leading directions of a kind make.

    Edits of the noisy image, and below of the innermost features.
    """
    kinds = image_directions.KINDS
    axes = figure.subplots(2 * len(priors), 1 + 2 * len(kinds), squeeze=False)
    files = [(name, where) for name in priors for where in ("edits", "inside")]
    for row, (name, where) in zip(axes, files, strict=True):
        with np.load(workdir / "checkpoints" / f"{where}-{name}.npz") as stored:
            start = stored["start"]
            shown = {name if where == "edits" else "inside": start}
            shown |= {f"{kind}, {i + 1}": stored[kind][i] for kind in kinds for i in range(2)}
        for axis, (title, image) in zip(row, shown.items(), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=start.max())
            axis.set_title(title, fontsize=7)
            axis.set_axis_off()


if __name__ == "__main__":
    harness.main(run)
