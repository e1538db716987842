"""Samplers against an exact posterior: how far are they from it, and are they calibrated?

Claim (of the field, as papers on diffusion samplers for inverse problems put it): they draw from
the posterior p(x | y). Where it is known in closed form, that can be measured.

    python -m experiments.posterior_oracle

Expected, at 50 evaluations, mean distance over the floor of 5 problems: on one component the exact
conditional denoiser and MMPS are at the floor (1.1), PiGDM 1.9, projection 2.3, DPS 2.6, DDS on
normal equations 2.6 and proximal 3.1, RED-diff 3.3, DiffPIR 4.9, DDNM 7.3; on the mixture only the
exact denoiser is (1.0), then PiGDM 1.9, MMPS 3.0, all others 3.1 to 5.2. On normal equations DDS
wants one or two steps of conjugate gradients: stopped so early they regularize, more of them fit
the noise in y (`dds_ablation`), as DDNM does, which gets worse from 10 to 50 evaluations; its 80 %
intervals hold the truth in 33 % of cases (one component). Those of the others do so in 61 to 78 %,
on the mixture all in 65 to 79 %: better than their distances.

The prior is a Gaussian of rank 6 in 64 dimensions, or a mixture of four, its denoiser exact: what
is left is the sampler's error. Distances are sliced 2-Wasserstein to exact samples; the floor is
what two independent sets of exact samples have, and the ceiling of the loop is the exact
denoiser given y. The parameters of every method (its own, and eta of DDIM) are the best of a grid
on other draws of the problem, for each number of denoiser evaluations. Products with the denoiser's
Jacobian are not counted in that number: DPS and PiGDM make one an evaluation, moment matching one
more than it makes steps of conjugate gradients. RED-diff seeks a point, not a sample.
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
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from ml_collections import ConfigDict

from experiments import harness, oracle, plots, records, samplers
from subspace_jax import diffusion

PRIORS = ("one component", "mixture")
LEVELS = np.linspace(0.1, 0.9, 9)


def run(config: ConfigDict, workdir: Path) -> dict:
    """Tune and score every method at every number of evaluations; print, draw, return numbers."""
    problems = draw_problems(config)
    results: dict[str, Any] = {"floor": floor(config, problems), "methods": {}}
    pairs = list(itertools.product(config.methods, config.evaluations))
    cells = score_all(config, workdir, problems, pairs)
    for (name, _), cell in zip(pairs, cells, strict=True):
        method = results["methods"].setdefault(name, {prior: [] for prior in PRIORS})
        for prior in PRIORS:
            method[prior].append(cell[prior])
    results["summary"] = headline(config, results)
    records.say(table(config, results), sys.stdout)
    plots.save(workdir / "posterior_oracle.png", partial(draw, config, results), size=(14, 8))
    return results | {"seconds": {k: sum(c[k] for c in cells) for k in ("compile", "train")}}


def score_all(
    config: ConfigDict, workdir: Path, problems: dict, pairs: list[tuple[str, int]]
) -> list[dict]:
    """A record per method and number of evaluations, each kept when it is finished."""

    def score(name, count):
        start = time.perf_counter()
        draw_samples = compiled(config, name, count, problems)
        built = time.perf_counter()
        found: dict[str, Any] = {
            prior: tune_and_score(config, name, count, problems[prior], draw_samples)
            for prior in PRIORS
        }
        return found | {"compile": built - start, "train": time.perf_counter() - built}

    def told(cell):
        return {p.replace(" ", "_"): np.asarray(cell[p]["distance"]) for p in PRIORS}

    return records.piecewise(workdir, pairs, score, told)


def draw_problems(config: ConfigDict) -> dict[str, oracle.Problem]:
    """Stacked problems of each prior: those to tune on, to score, and to count coverage."""
    num = config.num_tuning + max(config.num_problems, config.num_coverage)
    keys = jax.random.split(_roots(config)[0], num)
    make = jax.jit(jax.vmap(partial(oracle.make_problem, **config.problem), (0, None)))
    return {prior: jax.device_get(make(keys, prior == PRIORS[0])) for prior in PRIORS}


def floor(config: ConfigDict, problems: dict[str, oracle.Problem]) -> dict[str, Any]:
    """What exact samples score against other exact samples, a problem each."""

    def score(i, problem):
        sample_key, key = _keys(config, i)
        X = oracle.posterior_samples(sample_key, problem, config.num_samples)
        return oracle.errors(key, problem, X, num_slices=config.num_slices)

    scored = range(config.num_tuning, config.num_tuning + config.num_problems)
    return {prior: _lists([score(i, one(problems[prior], i)) for i in scored]) for prior in PRIORS}


def one(problems: oracle.Problem, i: int) -> oracle.Problem:
    """The i-th of stacked problems."""
    return jax.tree.map(lambda leaf: leaf[i], problems)


def compiled(config: ConfigDict, name: str, count: int, problems: dict) -> Callable:
    """(keys, problem, setting) -> samples: one program for all problems and settings."""
    sampler = harness.pick("methods", name, samplers.METHODS)
    sigmas = diffusion.karras_sigmas(count, sigma_min=config.sigma_min, sigma_max=config.sigma_max)

    def draw_samples(key, problem, setting):
        keys = jax.random.split(key, config.num_samples)
        return jax.vmap(lambda key: sampler(config, problem, sigmas, key, setting))(keys)

    example = (jax.random.key(0), one(problems[PRIORS[0]], 0), jnp.zeros(2))
    return jax.jit(draw_samples).lower(*example).compile()


def tune_and_score(
    config: ConfigDict, name: str, count: int, problems: oracle.Problem, draw_samples: Callable
) -> dict[str, Any]:
    """The errors on the problems to score, with the setting that is best on those to tune on."""

    def outcome(i, setting):
        sample_key, key = _keys(config, i)
        X = draw_samples(sample_key, one(problems, i), jnp.asarray(setting))
        return oracle.errors(key, one(problems, i), X, num_slices=config.num_slices)

    grid = list(itertools.product(*config.grids[name]))
    tuned = [
        np.mean([outcome(i, setting).distance for i in range(config.num_tuning)])
        for setting in grid[: len(grid) * (len(grid) > 1)]
    ]
    best = grid[int(np.argmin(tuned))] if tuned else grid[0]
    shown = count == config.evaluations_shown
    num = max(config.num_problems, config.num_coverage * shown)
    outcomes = [outcome(config.num_tuning + i, best) for i in range(num)]
    found = _lists(outcomes[: config.num_problems]) | {"setting": list(best)}
    if shown:
        ranks = jnp.stack([o.ranks for o in outcomes[: config.num_coverage]])
        found["coverage"] = oracle.coverage(ranks, jnp.asarray(LEVELS)).tolist()
    return found


def headline(config: ConfigDict, results: dict[str, Any]) -> str:
    """Distances at the number of evaluations that is shown, over the floor, mean and range."""
    at = config.evaluations.index(config.evaluations_shown)
    parts = []
    for prior in PRIORS:
        base = np.asarray(results["floor"][prior]["distance"])
        values = {
            name: np.asarray(method[prior][at]["distance"]) / base
            for name, method in results["methods"].items()
        }
        text = ", ".join(
            f"{name} {v.mean():.1f} ({v.min():.1f}-{v.max():.1f})" for name, v in values.items()
        )
        parts.append(f"{prior}: {text}")
    return (
        f"sliced W2 to the exact posterior over the Monte-Carlo floor at "
        f"{config.evaluations_shown} evaluations, mean (range) of {config.num_problems} problems, "
        f"parameters tuned on {config.num_tuning} others. " + "; ".join(parts)
    )


def table(config: ConfigDict, results: dict[str, Any]) -> str:
    """Means over the problems of every error, a line for each method and number of evaluations."""
    lines = [f"{'':32}  distance      mean  covariance  80 % covers  setting"]
    for prior in PRIORS:
        base = results["floor"][prior]
        cells = f"{np.mean(base['distance']):10.3f}{np.mean(base['mean']):10.3f}"
        lines.append(f"{prior + ', floor':32}{cells}{np.mean(base['covariance']):12.3f}")
        for name, method in results["methods"].items():
            for count, cell in zip(config.evaluations, method[prior], strict=True):
                numbers = f"{np.mean(cell['distance']):10.3f}{np.mean(cell['mean']):10.3f}"
                covers = f"{100 * cell['coverage'][7]:13.0f}" if "coverage" in cell else " " * 13
                setting = ", ".join(f"{v:g}" for v in cell["setting"])
                if min(cell["finite"]) < 1:
                    setting += f"; diverged: {100 * (1 - np.mean(cell['finite'])):.0f} % of samples"
                lines.append(
                    f"  {name + ',':18}{count:4} steps  {numbers}"
                    f"{np.mean(cell['covariance']):12.3f}{covers}  {setting}"
                )
    return "\n".join(lines)


ERRORS = {
    "distance": "Sliced 2-Wasserstein over floor",
    "mean": "Error of the mean, in sd",
    "covariance": "Error of the covariance, relative",
}
"""What is drawn over the number of evaluations, and its title."""


def draw(config: ConfigDict, results: dict[str, Any], figure: Figure) -> None:
    """A row a prior: each error over the number of evaluations, and coverage."""
    panels = figure.subplots(2, len(ERRORS) + 1)
    for row, prior in zip(panels, PRIORS, strict=True):
        for axes, error in zip(row, ERRORS, strict=False):
            _draw_error(config, results, prior, error, axes)
        _draw_coverage(config, results, prior, row[-1])
        row[0].set_ylabel(prior)
    for axes, title in zip(panels[0], ERRORS.values(), strict=False):
        axes.set_title(title)
    panels[0, -1].set_title(f"Coverage, {config.evaluations_shown} evaluations")
    for axes in panels[1, :-1]:
        axes.set_xlabel("denoiser evaluations")
    panels[1, -1].set_xlabel("nominal")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)


def _draw_error(
    config: ConfigDict, results: dict[str, Any], prior: str, error: str, axes: Any
) -> None:
    base = np.asarray(results["floor"][prior][error])
    unit = base if error == "distance" else np.ones_like(base)
    label = "Monte-Carlo floor"
    axes.axhline(np.mean(base / unit), color=plots.GREY, alpha=0.5, linewidth=4, label=label)
    for name, method in results["methods"].items():
        values = [np.mean(np.asarray(cell[error]) / unit) for cell in method[prior]]
        axes.plot(config.evaluations, values, **samplers.LOOKS[name], markersize=5, label=name)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(config.evaluations, [str(count) for count in config.evaluations])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")


def _draw_coverage(config: ConfigDict, results: dict[str, Any], prior: str, axes: Any) -> None:
    at = config.evaluations.index(config.evaluations_shown)
    axes.plot((0, 1), (0, 1), color=plots.GREY, alpha=0.5, linewidth=4)
    for name, method in results["methods"].items():
        axes.plot(LEVELS, method[prior][at]["coverage"], **samplers.LOOKS[name], markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="found")


def _keys(config: ConfigDict, i: int) -> jax.Array:
    """Two keys for a problem, the same for all methods: of its samples, and to judge them."""
    return jax.random.split(jax.random.fold_in(_roots(config)[1], i))


def _roots(config: ConfigDict) -> jax.Array:
    """The key of the problems, and that of the samples: no draw may depend on another."""
    return jax.random.split(jax.random.key(config.seed))


def _lists(outcomes: list[oracle.Errors]) -> dict[str, list[float]]:
    """Every error but the ranks, a number a problem."""
    kept = ("distance", "mean", "covariance", "finite")
    return {name: [float(getattr(o, name)) for o in outcomes] for name in kept}


if __name__ == "__main__":
    harness.main(run)
