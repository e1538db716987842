"""Conjugate gradient steps in DDS: semi-convergence, and the released code's inner product.

Claim (Chung et al., 2024, "Decomposed diffusion sampler"): a handful of steps of conjugate
gradients (five) suffices for data consistency, and more are worse. Two causes are possible, and
separated here: early stopping regularises normal equations that see noise; and the released code
takes r^T r for r^H r, which on complex images is not conjugate gradients.

    python -m experiments.dds_ablation

Expected: both causes are real, and the second is by far the larger. Distances over the floor from 5
to 20 steps: at noise 0.01 the normal equations go from 12 to 52, the proximal step from 12 to 13,
both with the released product from 1,600 and 2,000 to 240,000 and more; at noise 0.2 14 to 63, 3.1
to 3.1, and 500 to 17,000 and 3.1 to 2,200. At noise 0.01 fewer than five steps are farther, at 0.2
one is best. Intervals of 80 % hold the truth in 58 to 72 % of cases after one step, in 1 to 21 %
after 20 (normal equations; the proximal step 9, 12 and, at noise 0.2, 62 %): what steps gain in
distance at little noise they lose in spread.

A complex signal whose real and imaginary parts follow a mixture of low-rank Gaussians is measured
by a complex matrix with noise; the posterior is exact, and so is the denoiser. Normal equations
and the proximal step, each with the Hermitian inner product and with the released one, take 1 to
20 steps in each of 50 evaluations; gamma of the proximal step is the best of a grid on another draw
of the problem for each level of noise, found with the Hermitian product and most steps. Released
means its iteration: also its absolute tolerance of 1e-5.
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
from ml_collections import ConfigDict

from experiments import harness, oracle, plots, records
from subspace_jax import diffusion, linalg
from subspace_jax.typing import Array

KINDS = ("distance", "coverage")
LOOKS = {
    "normal": {"color": plots.BLUE, "linestyle": "-"},
    "proximal": {"color": plots.VERMILION, "linestyle": "-"},
    "normal, released": {"color": plots.SKY, "linestyle": "--"},
    "proximal, released": {"color": plots.ORANGE, "linestyle": "--"},
}


def run(config: ConfigDict, workdir: Path) -> dict:
    """Score every variant, number of steps and noise; print the table, draw, return numbers."""
    problems = draw_problems(config)
    results: dict[str, Any] = {"exact": exact(config, problems)}
    start = time.perf_counter()
    results["gamma"] = tune(config, problems)
    tuned = time.perf_counter() - start
    pairs = list(itertools.product(LOOKS, config.steps))
    cells = score_all(config, workdir, problems, pairs, results["gamma"])
    for (variant, _), cell in zip(pairs, cells, strict=True):
        found = results.setdefault(variant, {kind: [] for kind in KINDS})
        for kind in KINDS:
            found[kind].append(cell[kind])
    results["summary"] = headline(config, results)
    records.say(table(config, results), sys.stdout)
    plots.save(workdir / "dds_ablation.png", partial(draw, config, results), size=(12, 7.6))
    seconds = {k: sum(cell[k] for cell in cells) for k in ("compile", "train")}
    return results | {"seconds": seconds | {"train": seconds["train"] + tuned}}


def score_all(
    config: ConfigDict, workdir: Path, problems: list, pairs: list[tuple[str, int]], gammas: list
) -> list[dict]:
    """A record per variant and number of steps, each kept when it is finished."""

    def score(*pair):
        start = time.perf_counter()
        judge = compiled(config, *pair, problems)
        built = time.perf_counter()
        found = [
            [judge(problem, gamma) for problem in row[config.num_tuning :]]
            for row, gamma in zip(problems, gammas, strict=True)
        ]
        times = {"compile": built - start, "train": time.perf_counter() - built}
        return by_kind(found) | times

    return records.piecewise(
        workdir, pairs, score, lambda cell: {kind: np.asarray(cell[kind]) for kind in KINDS}
    )


def by_kind(found: list[list[dict[str, float]]]) -> dict[str, list[list[float]]]:
    """For each level of noise and problem, one kind after the other."""
    return {kind: [[one[kind] for one in row] for row in found] for kind in KINDS}


def judged(config: ConfigDict, problem: oracle.Problem, X: Array) -> dict[str, float]:
    """How far samples (num, n) are from the posterior, and where the truth lies among them."""
    errors = oracle.errors(_keys(config)[2], problem, X, num_slices=config.num_slices)
    covered = oracle.coverage(errors.ranks, jnp.asarray([config.interval]))[0]
    return {"distance": float(errors.distance), "coverage": float(covered)}


def draw_problems(config: ConfigDict) -> list[list[oracle.Problem]]:
    """For each level of noise the problems to tune on and to score: the same but for the noise."""
    num = config.num_tuning + config.num_problems
    keys = jax.random.split(_keys(config)[0], num)
    make = jax.jit(partial(make_problem, config=config))
    return [[jax.device_get(make(key, sigma_y)) for key in keys] for sigma_y in config.sigmas_y]


def make_problem(key: Array, sigma_y: Array, config: ConfigDict) -> oracle.Problem:
    """The complex problem as one of real and imaginary parts, twice as long."""
    keys = jax.random.split(key, 4)
    shape = config.num_components, 2 * config.n, config.rank
    U = linalg.orthonormalize(jax.random.normal(keys[0], shape))
    A = oracle.random_matrix(keys[1], config.m, config.n, config.condition, jnp.complex64)
    parts = jnp.block([[A.real, -A.imag], [A.imag, A.real]])
    weights = jnp.ones(config.num_components) / config.num_components
    return oracle.measure(keys[2:], U, weights, parts, sigma_y)


def to_complex(parts: Array) -> Array:
    """Real parts in the first half, imaginary ones in the second."""
    real, imag = jnp.split(parts, 2)
    return real + 1j * imag


def to_parts(x: Array) -> Array:
    """The inverse of `to_complex`."""
    return jnp.concatenate([x.real, x.imag])


def data_consistency(variant: str, op: Any, y: Array, gamma: Any, num_steps: int) -> Any:
    """One of the four: the library's, or the released iteration on the same equations."""
    if variant == "normal":
        return diffusion.cg_normal(op, y, num_steps)
    if variant == "proximal":
        return diffusion.cg_proximal(op, y, gamma, num_steps)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize, sigma
        if variant == "normal, released":
            return steps_without_conjugation(op.gram, b, x0, num_steps), state
        return (
            steps_without_conjugation(
                lambda v: v + gamma * op.gram(v), x0 + gamma * b, x0, num_steps
            ),
            state,
        )

    return diffusion.DataConsistency(update, direction="prior")


def steps_without_conjugation(
    A: Callable[[Array], Array], b: Array, x: Array, num_steps: int, *, tolerance: float = 1e-5
) -> Array:
    """The iterate of conjugate gradients with r^T r in place of r^H r, as released with DDS.

    Args:
        A: a Hermitian map.
        b: the right-hand side.
        x: where to start.
        num_steps: most steps.
        tolerance: stop once |r^T r| is below its square.
    """

    def step(carry, _):
        x, r, p, square = carry
        q = A(p)
        goes_on = jnp.abs(square) >= tolerance**2
        alpha = jnp.where(goes_on, square / jnp.where(goes_on, jnp.sum(p * q), 1), 0)
        x, r = x + alpha * p, r - alpha * q
        after = jnp.sum(r * r)
        beta = jnp.where(goes_on, after / jnp.where(goes_on, square, 1), 0)
        return (x, r, r + beta * p, after), None

    r = b - A(x)
    return jax.lax.scan(step, (x, r, r, jnp.sum(r * r)), None, length=num_steps)[0][0]


def compiled(config: ConfigDict, variant: str, num_steps: int, problems: Any) -> Callable:
    """(problem, gamma) -> what many samples are like: one program for all of them."""
    sigmas = diffusion.karras_sigmas(
        config.evaluations, sigma_min=config.sigma_min, sigma_max=config.sigma_max
    )
    step = diffusion.ddim(config.eta)

    def samples(key, problem, gamma):
        m, n = config.m, config.n
        A = problem.A[:m, :n] + 1j * problem.A[m:, :n]
        op = diffusion.operators.linear(lambda x: A @ x, (n,), dtype=A.dtype)
        dc = data_consistency(variant, op, to_complex(problem.y), gamma, num_steps)

        def denoise(x, sigma):
            return to_complex(oracle.denoise(problem, to_parts(x), sigma))

        def draw_sample(key):
            found = diffusion.sample(
                key, denoise, sigmas, (n,), data_consistency=dc, step=step, dtype=A.dtype
            )
            return to_parts(found.x)

        return jax.vmap(draw_sample)(jax.random.split(key, config.num_samples))

    example = (jax.random.key(0), problems[0][0], jnp.ones(()))
    draw_samples = jax.jit(samples).lower(*example).compile()

    def judge(problem, gamma):
        return judged(config, problem, draw_samples(_keys(config)[1], problem, jnp.float32(gamma)))

    return judge


def tune(config: ConfigDict, problems: list[list[oracle.Problem]]) -> list[float]:
    """The best gamma of a grid for each level of noise."""
    judge = compiled(config, "proximal", config.steps[-1], problems)
    best = []
    for row in problems:
        grid = [share / float(row[0].sigma_y) ** 2 for share in config.gammas]
        found = [
            np.mean([judge(problem, gamma)["distance"] for problem in row[: config.num_tuning]])
            for gamma in grid
        ]
        best.append(grid[int(np.argmin(found))])
    return best


def exact(config: ConfigDict, problems: list[list[oracle.Problem]]) -> dict[str, Any]:
    """Of exact samples, for each level of noise and problem; their distance is the floor."""

    def judge(problem):
        X = oracle.posterior_samples(_keys(config)[1], problem, config.num_samples)
        return judged(config, problem, X)

    return by_kind([[judge(problem) for problem in row[config.num_tuning :]] for row in problems])


def headline(config: ConfigDict, results: dict[str, Any]) -> str:
    """Distances over the floor and coverage at few and at most steps, for each level of noise."""
    few = config.steps.index(config.steps_shown)
    over, covered = _over_floor(results), _covered(results)
    parts = []
    for i, sigma_y in enumerate(config.sigmas_y):
        cells = ", ".join(
            f"{name} {over[name][few, i].mean():.1f} to {over[name][-1, i].mean():.1f} "
            f"(covers {covered[name][few, i].mean():.0%} to {covered[name][-1, i].mean():.0%})"
            for name in LOOKS
        )
        parts.append(f"noise {sigma_y:g}: {cells}")
    return (
        f"sliced W2 to the exact posterior over the Monte-Carlo floor (what intervals of "
        f"{config.interval:.0%} cover), from {config.steps_shown} to {config.steps[-1]} steps of "
        f"CG, {config.evaluations} evaluations, mean of {config.num_problems} problems. "
        + "; ".join(parts)
    )


def table(config: ConfigDict, results: dict[str, Any]) -> str:
    """Distances over the floor, mean and range, and coverage; a line a variant and a number."""
    over, covered = _over_floor(results), _covered(results)
    lines = [
        f"distance over the floor, what intervals of {config.interval:.0%} cover; noise "
        + ", ".join(f"{s:g}" for s in config.sigmas_y)
    ]
    for name, values in over.items():
        for num_steps, row in zip(config.steps, values, strict=True):
            shares = covered[name][config.steps.index(num_steps)]
            cells = [
                f"{v.mean():8.2f} ({v.min():.2f}-{v.max():.2f}) {share.mean():4.0%}"
                for v, share in zip(row, shares, strict=True)
            ]
            lines.append(f"{name:20}{num_steps:3} steps {' '.join(cells)}")
    return "\n".join(lines)


def draw(config: ConfigDict, results: dict[str, Any], figure: Figure) -> None:
    """A column a level of noise: distance and coverage over the number of steps."""
    panels = figure.subplots(2, len(config.sigmas_y), sharey="row", squeeze=False)
    of_exact = np.asarray(results["exact"]["coverage"]).mean(1)
    for i, sigma_y in enumerate(config.sigmas_y):
        distance, coverage = panels[:, i]
        for values, axes in ((_over_floor(results), distance), (_covered(results), coverage)):
            for name, of in values.items():
                cells, look = of[:, i], LOOKS[name]
                axes.plot(config.steps, cells.mean(1), **look, marker="o", ms=4, label=name)
                low, high = cells.min(1), cells.max(1)
                axes.fill_between(config.steps, low, high, color=look["color"], alpha=0.15)
            axes.set(xscale="log")
            axes.set_xticks(config.steps, [str(k) for k in config.steps])
            axes.minorticks_off()
        distance.axhline(1, color=plots.GREY, linestyle=":", label="exact samples")
        coverage.axhline(of_exact[i], color=plots.GREY, linestyle=":")
        distance.set(yscale="log", title=f"measurement noise {sigma_y:g}")
        coverage.set(ylim=(0, 1), xlabel="steps of conjugate gradients")
    panels[0, 0].set_ylabel("sliced W2 to the exact posterior / floor")
    panels[1, 0].set_ylabel(f"{config.interval:.0%} intervals cover")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)


def _keys(config: ConfigDict) -> jax.Array:
    """Of the problems, of the samples, and to judge them."""
    return jax.random.split(jax.random.key(config.seed), 3)


def _over_floor(results: dict[str, Any]) -> dict[str, np.ndarray]:
    """(steps, noise levels, problems) for each variant."""
    base = np.asarray(results["exact"]["distance"])
    return {name: np.asarray(results[name]["distance"]) / base for name in LOOKS}


def _covered(results: dict[str, Any]) -> dict[str, np.ndarray]:
    """(steps, noise levels, problems) for each variant."""
    return {name: np.asarray(results[name]["coverage"]) for name in LOOKS}


if __name__ == "__main__":
    harness.main(run)
