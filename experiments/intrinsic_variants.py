"""Intrinsic dimension over networks and data: what makes a problem need more directions?

Claim (Li, Farkhoor, Liu & Yosinski, 2018): fully connected networks of any width and depth need
about the same number of directions for 90 % of their accuracy, though their sizes differ widely;
convolutions need fewer, unless the pixels are shuffled, which dense layers do not notice; labels
at random need many more, but fewer for each the more of them there are.

    python -m experiments.intrinsic_variants

Expected, 2 seeds: 600 to 800 directions for dense networks of 42,000 to 478,000 weights, one to
four layers of 50 to 400 units, for Fashion-MNIST and for shuffled pixels too, which is within the
spread of the seeds. LeNet 400, on Fashion-MNIST 600; without shared weights 800, its convolutions
dense 2,000, on shuffled pixels 1,400 though its accuracy falls from .97 to .89. Labels of 400,
2,000 and all 4,000 images at random: 4,000, 16,000 and 16,000 (on a coarse grid), so 10, 8 and 4
for each. An hour and a half of a CPU, most of it the LeNets'.

Each network trains in random subspaces of many d and directly, as in ``intrinsic_dimension``, on
MNIST-5k (4,000 images to train on, 1,200 steps) or Fashion-MNIST (60,000, the same steps). Numbers
of directions are those of the first d that reaches 90 % of direct training. Labels at random are
scored on the images that were trained on. The paper trained on all 60,000 images, 46,800 steps.
Not here: its dense layers with tied weights, and its five layers for labels at random (two here).
Variants are kept when they are finished.
"""

import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import data, harness, intrinsic_dimension, plots, records


def run(config: ConfigDict, workdir: Path) -> dict:
    """Measure every variant; print and draw how many directions each needs."""
    pieces = [(name, changes, tuple(dims)) for name, changes, dims, _ in config.variants]
    for name in {changes.get("data", config.training.data) for _, changes, _ in pieces}:
        data.load(name, config.training.data_path)  # what is missing is told before the work
    found = records.piecewise(workdir, pieces, partial(measured, config, workdir), told)
    rows = [
        {"variant": name, "paper": paper or None, **row}
        for (name, _, _, paper), row in zip(config.variants, found, strict=True)
    ]
    direct = [float(np.mean(row["direct_score"])) for row in rows]
    results = {"rows": rows, "direct_score": direct, "summary": headline(rows)}
    records.say(table(rows), sys.stdout)
    size = (8, 1.6 + 0.32 * len(rows))
    plots.save(workdir / "intrinsic_variants.png", partial(draw, rows), size=size)
    seconds = [row["seconds"] for row in found]
    return results | {"seconds": {key: sum(s[key] for s in seconds) for key in seconds[0]}}


def measured(config: ConfigDict, workdir: Path, name: str, changes: dict, dims: tuple) -> dict:
    """The results of `intrinsic_dimension` with these changes of its config and these dims."""
    inner = config.training.copy_and_resolve_references()
    inner.update(changes, dims=dims, seed=config.seed)
    folder = workdir / "training"
    folder.mkdir(exist_ok=True)
    records.claim(folder, inner)
    results, seconds = intrinsic_dimension.measure(inner, folder)
    shutil.rmtree(folder)
    commit = records.provenance()["git_commit"]  # rows that are kept may be older than the run
    return results | {"seconds": seconds, "git_commit": commit}


def told(row: dict) -> dict[str, float]:
    """For the log: d_int90, or the largest d where that was too small."""
    return {"d_int": row["d_int"]["individual"]["value"] or row["dims"][-1],
            "direct": float(np.mean(row["direct_score"]))}  # fmt: skip


def beside(row: dict) -> str:
    """The number of directions as text."""
    value = row["d_int"]["individual"]["value"]
    return f"> {row['dims'][-1]:,}" if value is None else f"{value:,}"


def headline(rows: list[dict]) -> str:
    """One line for a table of many experiments."""
    parts = [f"{full_name(rows, i)} {beside(row)}" for i, row in enumerate(rows)]
    return f"directions for 90 % of direct training: {'; '.join(parts)}"


def full_name(rows: list[dict], index: int) -> str:
    """The variant's name, with what an ellipsis stands for."""
    name = rows[index]["variant"]
    if not name.startswith("... "):
        return name
    first = next(row["variant"] for row in rows[index::-1] if not row["variant"].startswith("..."))
    return f"{first.split(',')[0]}, {name.removeprefix('... ')}"


def table(rows: list[dict]) -> str:
    """The numbers as a person reads them."""
    width = max(len(row["variant"]) for row in rows)
    lines = [f"{'':{width}}  {'D':>9}  {'direct':>6}  {'d_int90':>8}  90 % of resamples     paper"]
    for row in rows:
        low, high = row["d_int"]["individual"]["interval"]
        spread = f"{low:,} to {f'{high:,}' if high else 'beyond'}" if low else "beyond"
        direct, paper = np.mean(row["direct_score"]), row["paper"] or ""
        lines.append(
            f"{row['variant']:{width}}  {row['num_parameters']:>9,}  {direct:6.3f}  "
            f"{beside(row):>8}  {spread:<17}  {paper:>8}"
        )
    return "\n".join(lines)


def draw(rows: list[dict], figure: Figure) -> None:
    """A line a variant: d_int90, its interval, and the paper's."""
    axes = figure.subplots()
    for place, row in enumerate(rows):
        last = row["dims"][-1]
        found = row["d_int"]["individual"]
        low, high = (d or last for d in found["interval"])
        axes.plot([low, high], [place] * 2, color=plots.SKY, lw=6, alpha=0.6, solid_capstyle="butt")
        marker = "o" if found["value"] else ">"
        axes.plot(found["value"] or last, place, marker, color=plots.BLUE, zorder=3)
        if row["paper"]:
            axes.plot(row["paper"], place, "D", color=plots.VERMILION, mfc="none", zorder=4)
    axes.plot([], [], "o", color=plots.BLUE, label="here (> beyond the grid)")
    axes.plot([], [], color=plots.SKY, lw=6, alpha=0.6, label="90 % of resamples")
    axes.plot([], [], "D", color=plots.VERMILION, mfc="none", label="the paper, all of MNIST")
    names = [f"{row['variant']}  (D = {row['num_parameters']:,})" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="directions for 90 % of direct training")
    axes.set_title("Training in random subspaces: networks and data")
    figure.legend(loc="outside lower center", ncols=3)


if __name__ == "__main__":
    harness.main(run)
