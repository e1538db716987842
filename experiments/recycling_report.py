"""What is told of sequences of systems solved by several methods: means, gains, tables, curves."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import plots
from experiments.families import SEQUENCES
from subspace_jax import krylov


class Published(NamedTuple):
    """How many times what SKR takes GMRES(40) takes there."""

    family: str
    unknowns: int
    rtol: float
    steps: float
    time: float
    jacobi: tuple[float, float] | None = None
    """Steps and time with that preconditioner."""


PAPER = (
    Published("Darcy, released matrix, full field", 2_500, 1e-5, 3983 / 183, 0.29 / 0.11),
    Published("Darcy, released matrix, full field", 6_400, 1e-2, 19.2, 2.62, (22.6, 2.88)),
    Published("Darcy, released matrix, full field", 6_400, 1e-5, 21.1, 2.92, (24.5, 3.42)),
    Published("Darcy, released matrix, full field", 6_400, 1e-8, 19.1, 2.70, (22.9, 3.09)),
    Published("Darcy, released matrix, full field", 10_000, 1e-5, 9375 / 682, 0.88 / 0.41),
    Published("Darcy, released matrix, full field", 22_500, 1e-5, 9891 / 2367, 6.19 / 3.32),
    Published("Darcy, released matrix, full field", 40_000, 1e-5, 93298 / 27207, 62.9 / 44.2),
    Published("Helmholtz, indefinite", 10_000, 1e-2, 17.3, 7.74, (20.3, 8.44)),
    Published("Helmholtz, indefinite", 10_000, 1e-7, 13.7, 6.47, (18.1, 7.96)),
    Published("thermal, one matrix", 11_063, 1e-5, 20.8, 4.53, (15.0, 3.32)),
    Published("thermal, one matrix", 11_063, 1e-8, 23.6, 5.35, (13.5, 3.06)),
    Published("thermal, one matrix", 11_063, 1e-11, 24.9, 5.47, (12.8, 2.93)),
    Published("Poisson, one matrix", 71_313, 1e-5, 4.69, 1.27, (4.68, 1.28)),
    Published("Poisson, one matrix", 71_313, 1e-11, 6.83, 1.90, (6.82, 1.91)),
)
"""Wang et al. (2024), tables 1 and, for Darcy to 1e-5 at other sizes, those of the appendix: on 72
processes, of the whole command's time; steps without those that prepare the recycled space; at most
10,000 steps a system, 100,000 at 40,000 unknowns. Their Helmholtz systems have wave
numbers below one, and so are definite."""

SKR = "gcrodr, sorted"


def summarize(config: ConfigDict, solved: list[dict[str, Any]]) -> dict:
    """What goes into result.json: per family the methods' means, and the gains of recycling."""
    results: dict[str, Any] = {"systems": config.num_systems, "unknowns": config.size**2}
    results["families"] = families = {
        family: {r["method"]: row(r) for r in solved if r["family"] == family}
        for family in config.families
    }
    results["num_unsolved"] = sum(r["missed"] for r in solved)
    found = {family: gains(config, rows) for family, rows in families.items()}
    results["gains"] = {family: gain for family, gain in found.items() if gain}
    found = {family: beside_the_paper(config, family, rows) for family, rows in families.items()}
    results["paper"] = {family: comparison for family, comparison in found.items() if comparison}
    results["curves"] = {family: curves(config, family, solved) for family in config.families}
    told = [
        f"{family}: {g['steps']:.1f} times fewer steps, {g['time']:.1f} times less time "
        f"({g['baseline']}: {g['time'] / g['honest']:.1f} times less)"
        + (f", {g['missed']} left unsolved" if g["missed"] else "")
        for family, g in results["gains"].items()
    ]
    headline = (
        f"{config.num_systems} systems of {config.size**2:,} unknowns to {config.rtol:g}: "
        f"recycling against {config.baseline} (restart {config.restart}), and in brackets the "
        f"fastest without it"
    )
    return results | {"summary": f"{headline}. {'; '.join(told)}"}


def row(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "steps": float(np.mean(record["steps"])), "matvecs": float(np.mean(record["matvecs"])),
        "ms": 1e3 * record["each"], "residual": record["residual"], "missed": record["missed"],
    }  # fmt: skip


def recycles(method: str) -> bool:
    return "recycled" in method or "gcrodr" in method


def fastest(rows: dict[str, dict], *, recycling: bool) -> str | None:
    """Of those that leave the fewest systems unsolved."""
    names = [name for name in rows if recycles(name) == recycling]
    return min(names, key=lambda name: (rows[name]["missed"], rows[name]["ms"]), default=None)


def gains(config: ConfigDict, rows: dict[str, dict]) -> dict[str, Any] | None:
    """The fastest solver that recycles against the baseline and the fastest that does not."""
    ours, best = fastest(rows, recycling=True), fastest(rows, recycling=False)
    if ours is None or best is None or config.baseline not in rows:
        return None
    return {
        "solver": ours, "missed": rows[ours]["missed"],
        "baseline": best, "honest": rows[best]["ms"] / rows[ours]["ms"],
        "steps": rows[config.baseline]["steps"] / rows[ours]["steps"],
        "time": rows[config.baseline]["ms"] / rows[ours]["ms"],
    }  # fmt: skip


def beside_the_paper(
    config: ConfigDict, family: str, rows: dict[str, dict]
) -> dict[str, dict[str, Any]]:
    """Sorted GCRO-DR against GMRES as the paper compares them, and what a step of either costs.

    By preconditioner: none, Jacobi.
    """
    same = [p for p in PAPER if p.family == family and p.rtol == config.rtol]
    nearest = min(same, key=lambda p: abs(np.log(p.unknowns / config.size**2)), default=None)
    comparisons = {}
    for name, end in (("none", ""), ("Jacobi", ", Jacobi")):
        if not {"gmres" + end, SKR + end} <= rows.keys():
            continue
        theirs, ours = rows["gmres" + end], rows[SKR + end]
        comparisons[name] = found = {
            "steps": theirs["steps"] / ours["steps"], "time": theirs["ms"] / ours["ms"],
            "cost_of_a_step": (ours["ms"] / ours["steps"]) / (theirs["ms"] / theirs["steps"]),
            "missed": [theirs["missed"], ours["missed"]],
        }  # fmt: skip
        if nearest is not None:
            published = nearest.jacobi if end else (nearest.steps, nearest.time)
            if published is not None:
                found["published"] = {
                    "unknowns": nearest.unknowns, "steps": published[0], "time": published[1]
                }  # fmt: skip
    return comparisons


def curves(config: ConfigDict, family: str, solved: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Steps of every system, in the order in which the method solves them."""
    features = SEQUENCES[family](config.num_systems, config.size).features
    order = np.asarray(jax.jit(krylov.sort_systems)(jnp.asarray(features)))
    found = {}
    for record in solved:
        if record["family"] == family:
            steps = np.array(record["steps"])
            steps = steps[order] if "sorted" in record["method"] else steps
            found[record["method"]] = steps.tolist()
    return found


def table(config: ConfigDict, results: dict) -> str:
    """The numbers as a person reads them.

    Each solver's speed is told in that of the baseline and in that of the fastest without
    recycling.
    """
    lines = [f"{config.num_systems} systems of {config.size**2} unknowns, to {config.rtol:g}"]
    for family, rows in results["families"].items():
        best = fastest(rows, recycling=False)
        titles = (
            f"{'steps':>9} {'matvecs':>9} {'ms each':>9} {'x ' + config.baseline:>9} {'x best':>9}"
        )
        lines += ["", f"{family:<38} {titles}"]
        for method, r in rows.items():
            note = f"  {r['missed']} unsolved" if r["missed"] else ""
            numbers = f"{r['steps']:9.1f} {r['matvecs']:9.1f} {r['ms']:9.3f}"
            speeds = " ".join(
                f"{rows[name]['ms'] / r['ms']:9.2f}" if name in rows else " " * 9
                for name in (config.baseline, best)
            )
            lines.append(f"  {method:<36} {numbers} {speeds}{note}")
    if results["paper"]:
        lines += ["", *paper_lines(results["paper"])]
    return "\n".join(lines)


def paper_lines(comparisons: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """GMRES(40) over sorted GCRO-DR: the ratio of times is that of steps over a step's cost."""

    def line(label, steps, time, cost, note=""):
        return f"  {label:<36} {steps:9.2f} {time:9.2f} {cost:9.2f}{note}"

    titles = f"{'steps':>9} {'time':>9} {'a step':>9}  unsolved"
    lines = [f"{'GMRES over sorted GCRO-DR':<38} {titles}"]
    for family, by_preconditioner in comparisons.items():
        for name, found in by_preconditioner.items():
            label = family if name == "none" else f"  with {name}"
            note = "  {} / {}".format(*found["missed"])
            lines.append(line(label, found["steps"], found["time"], found["cost_of_a_step"], note))
            if "published" in found:
                there = found["published"]
                label = f"    published, {there['unknowns']:,} unknowns"
                cost = there["steps"] / there["time"]
                lines.append(line(label, there["steps"], there["time"], cost))
    return lines


LINES = {
    "gmres": (plots.GREY, "-"),
    "gmres, deflated": (plots.ORANGE, "-"),
    "cg": (plots.GREEN, "-"),
    "minres": (plots.GREEN, ":"),
    "gcrodr": (plots.BLUE, ":"),
    SKR: (plots.BLUE, "-"),
    "recycled cg": (plots.VERMILION, ":"),
    "recycled cg, sorted": (plots.VERMILION, "-"),
}


def draw(results: dict, figure: Figure) -> None:
    """Steps per system, along the sequence as each method solves it."""
    panels = results["curves"]
    axes = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).ravel()
    for panel, (family, steps) in zip(axes, panels.items(), strict=False):
        for method, (colour, style) in LINES.items():
            if method in steps:
                panel.semilogy(steps[method], color=colour, ls=style, lw=1.2, label=method)
        panel.set(title=family, xlabel="system, in the order of solution", ylabel="steps")
    for panel in axes[len(panels) :]:
        panel.axis("off")
    lines = {label: line for panel in axes for line, label in
             zip(*panel.get_legend_handles_labels(), strict=True)}  # fmt: skip
    lines = {name: lines[name] for name in LINES if name in lines}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)
