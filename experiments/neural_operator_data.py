"""Data for a neural operator: Darcy systems solved in sequence, each recycling from the last.

Claim (Wang, Hao, Wang, Geng, Wang, Li & Wu, 2024): systems sorted by similarity and solved with
Krylov subspace recycling ("SKR") give a data set several times sooner than GMRES(40) does, and a
Fourier neural operator learns the same from it: test error 0.02 on either.

    python -m experiments.neural_operator_data
    python -m experiments.neural_operator_data --config=configs/neural_operator_data.py:released
    python -m experiments.neural_operator_data --config=configs/neural_operator_data.py:paper

Expected, on two quiet CPU cores, 480 conservative systems of 48^2 to 1e-5 (1.5 minutes in all):
GMRES(40) takes 204 steps and 7.3 ms a system, recycled CG 75 and 1.3 ms in one chain, 86 and 1.7 ms
in four. So recycling saves time against the paper's baseline, but none against plain CG: 139 steps
and 0.9 ms. Sorting saves 1 % of the steps of these independent fields. The two
data sets differ by at most 1.5e-6, and the test error is 0.0053 (0.0052 to 0.0055 over two seeds)
on both; the mean of the training solutions has 0.056. The contrast of these fields is low, so the
problem is easier than one with an error of 0.02. Each of four chains starts without a space, in
every portion: more steps, and more seconds on a CPU.

Solves are in float64, training in float32. Seconds are of the solves alone, without compilation.
Test errors are measured on systems of their own, solved one by one to a tolerance of 1e-10. A run
that is killed goes on from the last portion, and then from the last checkpoint.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import families, fourier, generation, harness, plots, records
from subspace_jax import krylov, tree

MATRICES = {"conservative": families.CONSERVATIVE, "released": families.RELEASED}
FIELDS = {"full": families.full_coefficients, "few": families.few_parameters}
SOURCES = ("recycled", "independent")
"""The data sets that are learned from."""


def run(config: ConfigDict, workdir: Path) -> dict:
    """Solve in several ways, train on two of the results, compare; print the table, draw."""
    check(config)
    with jax.enable_x64(True):
        solved = {name: solve(config, workdir, name) for name in (*ways(config), "test")}
    data = gather(config, solved)
    model, seconds = fourier.train(config, workdir, data)
    predictions = fourier.predict(config, model, data.w_test)
    results = summarize(config, solved, data, predictions, tree.size(model.params))
    records.say(table(config, results), sys.stdout)
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    figure = partial(draw, data, predictions, steps_in_order(config, solved), log)
    plots.save(workdir / "neural_operator_data.png", figure, size=(12, 6.6))
    seconds["compile"] += sum(float(found.compile) for found in solved.values())
    return results | {"seconds": seconds}


def check(config: ConfigDict) -> None:
    for name in ("num_train", "num_test", "portion", "num_seeds", "num_chains"):
        if config[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {config[name]}")
    if not 1 <= config.batch_size <= config.num_train:
        raise ValueError(f"batch_size must lie in 1..{config.num_train}, got {config.batch_size}")
    harness.pick("matrix", config.matrix, MATRICES)
    for name in (config.recycling, config.independent, *config.baselines):
        harness.pick("solver", name, SOLVERS)


SOLVERS: dict[str, Callable[[ConfigDict], Callable]] = {
    "recycled_cg": lambda config: partial(
        krylov.recycled_cg,
        num_recycled=config.num_recycled,
        num_directions=config.num_directions,
    ),
    "gcrodr": lambda config: partial(krylov.gcrodr, num_recycled=config.num_recycled),
    "cg": lambda config: generation.independently(krylov.cg),
    "gmres": lambda config: generation.independently(partial(krylov.gmres, restart=40)),
    "bicgstab": lambda config: generation.independently(krylov.bicgstab),
}


class Way(NamedTuple):
    """One way to solve the training systems."""

    solver: str
    sorts: bool = False
    num_chains: int = 1


def ways(config: ConfigDict) -> dict[str, Way]:
    """The ways by name; the first two are the sources of data."""
    return {
        "recycled": Way(config.recycling, True, config.num_chains),
        "independent": Way(config.independent),
        "one chain": Way(config.recycling, True),
        "unsorted": Way(config.recycling),
        **{name: Way(name) for name in config.baselines},
    }


def fields(config: ConfigDict) -> np.ndarray:
    """(num_train + num_test, s + 2, s + 2): those of the test come last."""
    coefficients = harness.pick("field", config.field, FIELDS)
    return coefficients(config.num_train + config.num_test, config.size + 2, seed=config.seed)


def order(way: Way, w: np.ndarray) -> np.ndarray:
    if not way.sorts:
        return np.arange(len(w))
    return np.asarray(jax.jit(krylov.sort_systems)(jnp.asarray(w, jnp.float32)))


def solve(config: ConfigDict, workdir: Path, name: str) -> generation.Solved:
    """The training systems solved in the way of this name; or, tightly, those of the test."""
    train, test = np.split(fields(config), [config.num_train])
    way, w, rtol = Way(config.independent), test, config.test_rtol
    if name != "test":
        way, w, rtol = ways(config)[name], train, config.rtol
    records.say(f"{name}: {len(w)} systems by {way.solver}")
    sequence = generation.Sequence(
        partial(SOLVERS[way.solver](config), rtol=rtol, maxiter=config.maxiter),
        lambda w: partial(MATRICES[config.matrix].apply, w),
        w,
        families.right_hand_side(config.size),
        order(way, w),
        way.num_chains,
        config.portion,
    )
    knobs = ("seed", "matrix", "field", "size", "num_train", "num_test", "maxiter", "portion")
    recipe = {knob: config[knob] for knob in (*knobs, "num_recycled", "num_directions")}
    recipe |= way._asdict() | {"rtol": rtol}
    return generation.generate(workdir / "data" / name, sequence, recipe)


def gather(config: ConfigDict, solved: dict[str, generation.Solved]) -> fourier.Data:
    """The systems that both sources have solved."""
    both = np.intersect1d(*(solved[name].index for name in SOURCES))
    if len(both) < config.batch_size or len(solved["test"].index) == 0:
        raise ValueError(f"only {len(both)} systems are solved: raise maxiter, or rtol")
    w, grid = fields(config), (config.size,) * 2
    train, test = w[: config.num_train], w[config.num_train :]
    u = [by_index(solved[name])[both].reshape(-1, *grid) for name in SOURCES]
    u_test = solved["test"].x.reshape(-1, *grid)
    return fourier.Data(train[both], np.array(u), test[solved["test"].index], u_test)


def by_index(found: generation.Solved) -> np.ndarray:
    """(N, n) solutions, NaN where there is none."""
    x = np.full((found.index.max() + 1, found.x.shape[1]), np.nan)
    x[found.index] = found.x
    return x


def summarize(
    config, solved, data: fourier.Data, predictions: np.ndarray, num_weights: int
) -> dict:
    """The costs of the data, how far the two sets differ, and the test errors."""
    errors = np.asarray(fourier.relative_error(predictions, data.u_test)).mean(axis=-1)
    difference = np.asarray(fourier.relative_error(*data.u))
    results = {
        "num_weights": num_weights // (2 * config.num_seeds),
        "num_systems": len(data.w),
        "costs": {name: cost(config, solved[name], way) for name, way in ways(config).items()},
        "error_of_mean": float(fourier.relative_error(data.u[1].mean(axis=0), data.u_test).mean()),
        "largest_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "test_error": {
            name: [float(error) for error in row] for name, row in zip(SOURCES, errors, strict=True)
        },
    }
    return results | {"summary": headline(config, results)}


def cost(config: ConfigDict, found: generation.Solved, way: Way) -> dict[str, Any]:
    """Means over the systems that were solved; the seconds are those of all."""
    return {
        "solver": way.solver,
        "num_chains": way.num_chains,
        "steps": float(found.steps.sum() / max(len(found.steps), 1)),
        "matvecs": float(found.matvecs.sum() / max(len(found.steps), 1)),
        "seconds": float(found.seconds),
        "failed": config.num_train - len(found.index),
    }


def headline(config: ConfigDict, results: dict[str, Any]) -> str:
    """One line for a table of many experiments."""
    costs, errors = results["costs"], results["test_error"]
    fastest = min((n for n in costs if n in ("recycled", "one chain")), key=seconds_of(costs))
    told = "; ".join(
        f"{row['solver']} takes {row['steps']:.0f} steps, {row['seconds']:.2f} s in all, "
        f"{row['seconds'] / costs[fastest]['seconds']:.2g} times recycling's"
        for name, row in costs.items()
        if name not in ("recycled", "one chain", "unsorted")
    )
    row = costs[fastest]
    return (
        f"{config.num_train} Darcy systems of {config.size}^2 by {row['solver']}, sorted, "
        f"chains: {row['num_chains']}: {row['steps']:.0f} steps each, {row['seconds']:.2f} s "
        f"in all; {told}. "
        f"Test error of the neural operator {spread(errors['recycled'])} on recycled and "
        f"{spread(errors['independent'])} on independent data; "
        f"the mean solution's {results['error_of_mean']:.3f}"
    )


def seconds_of(costs: dict[str, Any]) -> Callable[[str], float]:
    return lambda name: costs[name]["seconds"]


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})"


def table(config: ConfigDict, results: dict[str, Any]) -> str:
    """The numbers as a person reads them."""
    lines = [
        f"{config.num_train} systems of {config.size}^2, {config.matrix} matrix, "
        f"{config.field} fields, to {config.rtol:g}",
        f"{'':<14}{'solver':<13}   steps  matvecs  seconds  ms each  failed",
    ]
    for name, row in results["costs"].items():
        lines.append(
            f"{name:<14}{row['solver']:<13}{row['steps']:8.1f}{row['matvecs']:9.1f}"
            f"{row['seconds']:9.3f}{1e3 * row['seconds'] / config.num_train:9.2f}{row['failed']:8}"
        )
    lines += [
        f"largest difference of the two data sets {results['largest_difference']:.2g}, "
        f"{results['largest_difference'] / config.rtol:.2g} times the tolerance",
        f"test error ({results['num_weights']:,} weights, {config.num_seeds} seeds): "
        + ", ".join(f"{name} {spread(row)}" for name, row in results["test_error"].items()),
        f"test error of the training solutions' mean {results['error_of_mean']:.4f}",
    ]
    return "\n".join(lines)


def steps_in_order(config: ConfigDict, solved: dict[str, generation.Solved]) -> dict:
    """Steps of each system along the sequence that it was solved in; NaN where it failed."""
    w, curves = fields(config)[: config.num_train], {}
    for name, way in ways(config).items():
        steps = np.full(config.num_train, np.nan)
        steps[solved[name].index] = solved[name].steps
        curves[name] = steps[order(way, w)]
    return curves


COLOURS = (plots.BLUE, plots.ORANGE, plots.SKY, plots.GREEN, plots.GREY, plots.PURPLE)


def draw(data: fourier.Data, predictions: np.ndarray, steps: dict, log: list[dict], figure: Figure):
    """A test system and its prediction; steps along the sequences; the errors in training."""
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    draw_example(data, predictions, top)
    left, right = bottom.subplots(1, 2)
    for (name, curve), colour in zip(steps.items(), COLOURS, strict=False):
        left.semilogy(curve, color=colour, linewidth=0.9, label=name)
    left.set(xlabel="system, in the order of solution", ylabel="steps")
    left.legend(ncols=3, fontsize=8)
    numbers, training = (np.array([line[key] for line in log]) for key in ("step", "error"))
    test = np.asarray(fourier.relative_error(predictions, data.u_test)).mean(axis=-1)
    for i, (name, style, marker) in enumerate(zip(SOURCES, ("-", "--"), "ox", strict=True)):
        right.semilogy(numbers, training[:, i], style, color=COLOURS[i])
        right.plot([1.03 * numbers[-1]] * len(test[i]), test[i], marker, color=COLOURS[i])
        right.plot([], [], style + marker, color=COLOURS[i], label=f"{name} ({marker}: test)")
    right.set(xlabel="steps of training", ylabel="relative L2 error")
    right.legend()


def draw_example(data: fourier.Data, predictions: np.ndarray, figure: Any):
    """The first test system: permeability, solution, prediction, error."""
    exact, predicted = data.u_test[0], predictions[0, 0, 0]
    images = (np.log10(data.w_test[0, 1:-1, 1:-1]), exact, predicted, predicted - exact)
    names = ("log10 permeability, not seen", "solution", "prediction", "error")
    for axes, image, name in zip(figure.subplots(1, 4), images, names, strict=True):
        limit = np.abs(image).max()
        limits = (-limit, limit) if name == "error" else (image.min(), image.max())
        how = {"cmap": "RdBu_r" if name == "error" else "magma", "interpolation": "nearest"}
        shown = axes.imshow(image, vmin=limits[0], vmax=limits[1], **how)
        axes.set_title(name)
        axes.axis("off")
        figure.colorbar(shown, ax=axes, shrink=0.75, pad=0.02).outline.set_visible(False)


if __name__ == "__main__":
    harness.main(run)
