"""Fast schedules: of diffusion samplers, learned from one long trajectory (OLSS).

Claim ("Optimal linear subspace search: learning to construct fast and high-quality schedulers for
diffusion models", arXiv 2305.14677): the points of a long deterministic trajectory lie nearly in
the span of its start and of a few of its predictions, so least squares on calibration samples give
a sampler of 5, 10 or 20 steps that is nearer to the long one than any fixed schedule, and samples
of better quality. Ours: the same in posterior sampling, where corrected estimates join the span.

    python -m experiments.fast_schedules --config=configs/fast_schedules.py

The teacher takes 100 Euler steps on Karras' levels. Students of 5, 10, 20 evaluations: Euler and
DPM-Solver++ (2M) on Karras' levels (rho = 7), nearly even ones (rho = 2), and geometric ones; OLSS
on evenly chosen levels of the teacher and on searched ones, both calibrated on other seeds (and, of
posteriors, another patient), with the paper's weights and with ours ("refit": for what the student
predicts of its own points). Priors: ours of heads and of lungs, 64 x 64, and of Fashion-MNIST with
zeros around, 32 x 32. Errors are relative to the norm of the teacher's samples, one number a
held-out seed; quality is the sliced Wasserstein distance to slices of a person whom the prior has
never seen, for Fashion-MNIST the Frechet distance to 512 test images in 32 principal axes of
EfficientNet's features, and PSNR in MR reconstruction (x4, data consistency of DDS, proximal).

Expected (float32 on a CPU, 32 seeds, of clothes 128): error at 5 steps of heads, lungs, clothes,
MRI: OLSS, even, refit .080, .144, .096, .206; OLSS, even .124, .184, .200, .226; OLSS .173, .233,
.242, .233; the best fixed schedule .126, .213, .180, .229. At 10 steps .020, .036, .017, .116;
.031, .044, .035, .168; .048, .065, .049, .163; .047, .073, .046, .194. So the claim holds for the
weights, refit everywhere, and not for the searched levels: the smallest largest error of a step is
not the smallest error at the end. Nearer to the teacher is not better by itself. By features the
clothes of 5 steps are farther from the data (227 refit, 677 as published; DPM-Solver++ 72, the
teacher 71; the black around them has 3 and 8 times the teacher's noise, DPM-Solver++'s 2, on one
image); at 20 steps all are as the teacher. In MR reconstruction the teacher's hundred
deterministic steps amplify what the data leave open (20.8 dB), fewer steps by any method have
more, OLSS, even, the most (24.3 at 10; Euler 23.8).
"""

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

from experiments import harness, plots, records
from experiments.schedule_problems import PROBLEMS, Problem, flat
from subspace_jax import diffusion
from subspace_jax.diffusion import olss

STYLES = {
    "Euler, Karras": {"color": plots.GREY, "marker": "o"},
    "Euler, even": {"color": plots.GREY, "marker": "v", "ls": ":"},
    "Euler, geometric": {"color": plots.GREY, "marker": "^", "ls": "--"},
    "DPM++, Karras": {"color": plots.ORANGE, "marker": "o"},
    "DPM++, even": {"color": plots.ORANGE, "marker": "v", "ls": ":"},
    "DPM++, geometric": {"color": plots.ORANGE, "marker": "^", "ls": "--"},
    "OLSS, even": {"color": plots.SKY, "marker": "s", "ls": ":"},
    "OLSS": {"color": plots.BLUE, "marker": "s"},
    "OLSS, even, refit": {"color": plots.GREEN, "marker": "D", "ls": ":"},
    "OLSS, refit": {"color": plots.GREEN, "marker": "D"},
}
LEARNED = tuple(name for name in STYLES if name.startswith("OLSS"))
FIXED = tuple(name for name in STYLES if name not in LEARNED)


def run(config: ConfigDict, workdir: Path) -> dict:
    """All students on every problem; print the table, draw, return numbers."""
    # All at the start: what is missing is said before an hour's work.
    given = {name: harness.pick("problems", name, PROBLEMS)(config) for name in config.problems}
    pieces = [(name,) for name in given]
    found = records.piecewise(workdir, pieces, partial(compare, config, workdir, given), logged)
    problems = dict(zip(config.problems, found, strict=True))
    results: dict[str, Any] = {"num_steps": list(config.num_steps), "problems": problems}
    results["error"] = {
        name: {method: np.mean(rows["error"], 1).tolist() for method, rows in p["methods"].items()}
        for name, p in problems.items()
    }
    results["summary"] = headline(config, problems)
    records.say(table(config, problems), sys.stdout)
    picture = partial(draw, config, workdir, problems)
    plots.save(workdir / "fast_schedules.png", picture, size=(4 * len(problems) + 1, 8.5))
    return results | {"seconds": {"compile": 0.0, "train": sum(p["seconds"] for p in found)}}


def compare(config: ConfigDict, workdir: Path, given: dict[str, Problem], name: str) -> dict:
    """Errors and qualities (steps, num) of every student on one problem; images to a file."""
    start = time.perf_counter()
    problem = given[name]
    low, high = config.sigma_range
    levels = diffusion.karras_sigmas(config.num_teacher, sigma_min=low, sigma_max=high)
    calibrate, test = (jax.random.key(config.seed + i) for i in (1, 2))
    trajectories = teach(config, problem, levels, calibrate, problem.calibration)
    factor = olss.factorize(trajectories, levels)
    teacher = np.asarray(teach(config, problem, levels, test, problem.test).points[:, -1])
    predict = predictor(config, problem)
    methods = {method: {"error": [], "quality": []} for method in STYLES}
    images = {"teacher": np.abs(teacher[0])}
    for num_steps in config.num_steps:
        calls = {kind: student(config, problem, step, test) for kind, step in STEPS.items()}
        given = schedules(config, problem, factor, num_steps)
        again = {learned: given[learned] for learned in ("OLSS, even", "OLSS")}
        for learned, schedule in again.items():
            given[f"{learned}, refit"] = olss.refit(
                predict, schedule, trajectories, sigma_data=problem.sigma_data
            )
        for method, schedule in given.items():
            x = np.asarray(calls[method.split(",")[0]](schedule))
            error = np.linalg.norm(flat(x - teacher), axis=1)
            error = error / np.linalg.norm(flat(teacher), axis=1)
            methods[method]["error"].append(error.tolist())
            methods[method]["quality"].append(problem.quality(x))
            images[f"{method}, {num_steps}"] = np.abs(x[0])
    np.savez(workdir / "checkpoints" / f"{name}.npz", **images)
    of_teacher = problem.quality(teacher)
    seconds = time.perf_counter() - start
    return {"methods": methods, "teacher": of_teacher, "seconds": seconds}


def logged(found: dict) -> dict[str, Any]:
    """Mean errors in the fewest steps."""
    return {f"error, {m}": np.mean(rows["error"][0]) for m, rows in found["methods"].items()}


def schedules(
    config: ConfigDict, problem: Problem, factor: olss.TriangularFactor, num_steps: int
) -> dict:
    """{method: levels, or a learned schedule}."""
    low, high = config.sigma_range
    fixed = {
        "Karras": diffusion.karras_sigmas(num_steps, sigma_min=low, sigma_max=high),
        "even": diffusion.karras_sigmas(num_steps, sigma_min=low, sigma_max=high, rho=2.0),
        "geometric": diffusion.ve_sigmas(num_steps, sigma_min=low, sigma_max=high),
    }
    found = {f"{kind}, {name}": x for kind in ("Euler", "DPM++") for name, x in fixed.items()}
    even = np.linspace(0, config.num_teacher, num_steps + 1).astype(int)
    learned = {
        "OLSS, even": olss.fit(factor, even, sigma_data=problem.sigma_data),
        "OLSS": olss.search(factor, num_steps, sigma_data=problem.sigma_data),
    }
    return found | learned


STEPS = {
    "Euler": lambda sigmas: (sigmas, diffusion.euler()),
    "DPM++": lambda sigmas: (sigmas, diffusion.dpmpp_2m()),
    "OLSS": lambda schedule: (schedule.sigmas, olss.replay(schedule)),
}


def teach(config, problem: Problem, levels: jax.Array, key: jax.Array, data: Any):
    """The teacher's trajectories, one for each row of ``data``."""

    def one(key, data):
        return olss.record(
            key,
            problem.denoise,
            levels,
            problem.shape,
            data_consistency=problem.consistency(data),
            dtype=problem.dtype,
        )

    return jax.jit(partial(in_batches, config, one))(key, data)


def student(config, problem: Problem, make: Callable, key: jax.Array) -> Callable:
    """Schedule -> samples from the same noise as the teacher's; one program for a number of steps.

    ``make`` turns a schedule into levels and a step.
    """

    def one(schedule, key, data):
        sigmas, step = make(schedule)
        return diffusion.sample(
            key,
            problem.denoise,
            sigmas,
            problem.shape,
            data_consistency=problem.consistency(data),
            step=step,
            dtype=problem.dtype,
        ).x

    return jax.jit(lambda schedule: in_batches(config, partial(one, schedule), key, problem.test))


def predictor(config: ConfigDict, problem: Problem) -> Callable:
    """(points of the calibration samples, sigma) -> their noise, and what the data make of x_0."""

    def one(sigma, key, given):
        x, data = given
        x0 = problem.denoise(x, sigma)
        dc = problem.consistency(data)
        # Its update asks for no Jacobian, and its state is empty.
        corrected = None if dc is None else dc.update(x0, jax.linearize, sigma, dc.init(x))[0]
        return (x - x0) / sigma, corrected

    @jax.jit
    def predict(x, sigma):
        key = jax.random.key(0)
        return in_batches(config, partial(one, sigma), key, (x, problem.calibration))

    return predict


def in_batches(config: ConfigDict, one: Any, key: jax.Array, data: Any) -> Any:
    """``one(key, data)`` for each row of ``data``, several at a time."""
    num = len(jax.tree.leaves(data)[0])
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num))
    return jax.lax.map(lambda x: one(*x), (keys, data), batch_size=config.batch_size)


def headline(config: ConfigDict, problems: dict) -> str:
    """OLSS against the best fixed schedule, by the distance to the teacher and by quality."""
    parts = []
    for name, found in problems.items():
        told = []
        for i, num_steps in enumerate(config.num_steps):
            mean = {m: np.mean(rows["error"][i]) for m, rows in found["methods"].items()}
            best = min(FIXED, key=mean.__getitem__)
            ours = ", ".join(f"{mean[m]:.3f}" for m in LEARNED)
            told.append(f"{num_steps}: {ours}; {mean[best]:.3f} ({best})")
        parts.append(f"{name}, {', '.join(told)}")
    return (
        "Relative distance to a teacher of "
        f"{config.num_teacher} steps: {'; '.join(LEARNED)}; the best fixed schedule. "
        + ". ".join(parts)
    )


def table(config: ConfigDict, problems: dict) -> str:
    lines = []
    for name, found in problems.items():
        of_teacher = np.mean(found["teacher"])
        lines.append(f"{name}: error and quality at {config.num_steps} (teacher {of_teacher:.4g})")
        for method, rows in found["methods"].items():
            pairs = zip(rows["error"], rows["quality"], strict=True)
            told = (f"{np.mean(e):6.3f} +- {np.std(e):5.3f}, {np.mean(q):6.4g}" for e, q in pairs)
            lines.append(f"  {method:18} " + "   ".join(told))
    return "\n".join(lines)


def draw(config: ConfigDict, workdir: Path, problems: dict, figure: Figure) -> None:
    """Errors and qualities against steps; below, one sample in the fewest steps."""
    columns = figure.subfigures(1, len(problems), squeeze=False)[0]
    for column, (name, found) in zip(columns, problems.items(), strict=True):
        top, bottom = column.subfigures(2, 1, height_ratios=(1.5, 1))
        upper, lower = top.subplots(2, 1, sharex=True)
        for method, style in STYLES.items():
            rows = found["methods"][method]
            mean, deviation = np.mean(rows["error"], 1), np.std(rows["error"], 1)
            upper.errorbar(config.num_steps, mean, deviation, label=method, ms=4, **style)
            quality = [np.mean(q) for q in rows["quality"]]
            lower.plot(config.num_steps, quality, ms=4, **style)
        lower.axhline(np.mean(found["teacher"]), color=plots.GREY, lw=0.8)
        upper.set(title=name, yscale="log", ylabel="error to the teacher")
        if column is columns[0]:
            upper.legend(fontsize=6, ncols=2, loc="lower left")
            upper.set_ylim(bottom=upper.get_ylim()[0] / 12)
        lower.set(xlabel="evaluations", ylabel="PSNR, dB" if "MRI" in name else "distance to data")
        lower.set_xticks(config.num_steps)
        with np.load(workdir / "checkpoints" / f"{name}.npz") as images:
            shown = ["teacher"] + [
                f"{method}, {config.num_steps[0]}"
                for method in ("OLSS, even, refit", "Euler, Karras", "DPM++, Karras")
            ]
            for axes, key in zip(bottom.subplots(2, 2).flat, shown, strict=True):
                axes.imshow(images[key], cmap="gray", vmin=0, vmax=images["teacher"].max())
                axes.set_title(key, fontsize=8)
                axes.set_axis_off()


if __name__ == "__main__":
    harness.main(run)
