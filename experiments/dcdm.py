"""Learned directions: a network that sees the residual replaces the preconditioner of CG.

Claim (Kaneda, Akar, Chen, Kala, Hyde & Teran, 2023): a convolutional network f, trained without
solutions to make ||r - a A f(r)|| small, gives conjugate directions with which Poisson's equation
takes a handful of steps, however large the grid and whatever obstacles stand in it. "DCDM".

    python -m experiments.dcdm                                       train, then compare
    python -m experiments.dcdm --config=configs/dcdm.py:demo         with the weights we trained
    python -m experiments.dcdm --config=configs/dcdm.py:paper        the paper's network, on planes
    python -m experiments.dcdm --config=configs/dcdm.py:paper,d3     and on solids: for a GPU

Expected: on 32^2, 64^2, 128^2 and 256^2 cells, trained on 64^2, the learned directions take 3.8,
3.8, 3.8 and 5.4 steps to 1e-4 in the mean of 20 systems, at most 8; plain CG 44, 84, 164 and 321,
with multigrid 5.0 to 5.7. In time multigrid is far ahead on a CPU: 12 ms against 310 on 256^2,
where plain CG takes 75: a step with the network costs as much as two hundred without. The paper's
network, trained on 32^2, takes 9.3 steps there, 16 on 64^2 and 46 on 128^2.

The test grids are up to twice as wide as the training grid and have obstacles from pictures that
training has not seen. Every method solves the same systems in float64 and stops on the true
residual; seconds are of the solve alone, the least of a few, without setting a method up.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import directions, harness, obstacles, photograph, plots, records
from subspace_jax import krylov, tree
from subspace_jax.krylov import precondition
from subspace_jax.linalg.operators import Stencil


class System(NamedTuple):
    """Poisson's equation on one domain with one right-hand side."""

    domain: str
    mask: np.ndarray
    b: np.ndarray


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train, or load; solve every test system with every method; print the table, draw."""
    if len(config.test_sizes) < 1 or list(config.test_sizes) != sorted({*config.test_sizes}):
        raise ValueError(f"test_sizes must ascend, got {tuple(config.test_sizes)}")
    directions.network(config)
    seconds = {"compile": 0.0, "train": 0.0}
    if config.weights:
        params = directions.load(Path(config.weights), config)
    else:
        params, seconds = directions.train(config, workdir)
        directions.save(workdir / "weights.msgpack", params)
    with jax.enable_x64(True):
        solved = [row for size in config.test_sizes for row in compare(config, params, size)]
        example = show(config, params)
    results = summarize(config, params, solved)
    records.say(table(config, results), sys.stdout)
    figure = partial(draw, config, example, results)
    plots.save(workdir / "dcdm.png", figure, size=(11, 9.2))
    return results | {"seconds": seconds}


def systems(config: ConfigDict, size: int) -> list[System]:
    """The test systems of one size: an empty box, and obstacles of the unseen images."""
    shape, found = (size,) * config.rank, []
    for image in ("box", *config.test_images):
        count = 1 if image == "box" else config.num_test_masks
        for mask in obstacles.domains(image, count, shape, config.seed + 1):
            found += [System(image, mask, b * mask) for b in sources(mask, config.seed)]
    return found


def sources(mask: np.ndarray, seed: int) -> list[np.ndarray]:
    """Right-hand sides: constant, noise, a wave, and a point."""
    grid = np.stack(np.meshgrid(*(np.arange(n) / n for n in mask.shape), indexing="ij"))
    point = np.zeros(mask.shape)
    point.flat[np.flatnonzero(mask)[mask.sum() // 3]] = 1
    noise = np.random.default_rng(seed).standard_normal(mask.shape)
    return [np.ones(mask.shape), noise, np.sin(3 * grid[0]) * np.cos(5 * grid[1]), point]


def deflation(config: ConfigDict, A: Stencil, params: Any) -> Callable:
    """Moves the lowest Ritz values of A to the top of its spectrum; as many as are kept."""
    del params
    v = A(jax.random.normal(jax.random.key(config.seed), A.diagonal.shape, A.diagonal.dtype))
    basis = krylov.lanczos(A, v, config.num_ritz)
    values, Y = jnp.linalg.eigh(basis.H)
    k = config.num_deflated
    return Partial(_deflate, basis.Q @ Y[:, :k], values[-1] / values[:k] - 1)


def _deflate(W, gains, r):
    grid = tuple(range(r.ndim))
    return r + W @ (gains * jnp.tensordot(W, r, axes=(grid, grid)))


def nystrom(config: ConfigDict, A: Stencil, params: Any) -> Callable:
    del params
    key, like = jax.random.key(config.seed), A.diagonal
    return precondition.nystrom(key, A, like, rank=config.num_deflated, shift=1e-3)


METHODS: dict[str, Callable[[ConfigDict, Stencil, Any], Any]] = {
    "cg": lambda config, A, params: None,
    "jacobi": lambda config, A, params: precondition.jacobi(A.diagonal),
    "ssor": lambda config, A, params: precondition.ssor(A),
    "nystrom": nystrom,
    "deflated": deflation,
    "multigrid": lambda config, A, params: precondition.multigrid(A),
    "dcdm": lambda config, A, params: params,
}
"""What CG is given beside the operator; to ``dcdm`` the weights."""


def solver(config: ConfigDict, method: str, *, history: bool = False) -> Callable:
    """(A, what `METHODS` gives, b, rtol) -> Solution, jitted."""
    net = directions.network(config)

    @jax.jit
    def solve(A, M, b, rtol):
        how = {"rtol": rtol, "maxiter": config.maxiter, "history": history}
        if method != "dcdm":
            return krylov.cg(A, b, preconditioner=M, **how)
        propose = directions.direction(net, M, A)
        return krylov.flexible_cg(
            A, b, direction=propose, num_conjugate=config.num_conjugate, **how
        )

    return solve


def compare(config: ConfigDict, params: Any, size: int) -> list[dict[str, Any]]:
    """A record of every method, test system of this size and tolerance."""
    rows = []
    for method in config.methods:
        solve, tests = solver(config, method), systems(config, size)
        build = jax.jit(partial(METHODS[method], config))
        for index, system in enumerate(tests):
            A, b = directions.poisson(system.mask, jnp.float64), jnp.asarray(system.b)
            M = build(A, params)
            for rtol in config.tolerances:
                if index == 0:
                    jax.block_until_ready(solve(A, M, b, rtol))
                (x, info), seconds = timed(config, solve, A, M, b, rtol)
                rows.append(
                    {
                        "size": size, "method": method, "domain": system.domain, "rtol": rtol,
                        "steps": int(info.num_steps), "seconds": seconds,
                        "residual": true_residual(system, x),
                    }
                )  # fmt: skip
        records.say(f"{method} on {size}^{config.rank}: {len(tests)} systems")
    return rows


def timed(config: ConfigDict, solve: Callable, *operands: Any) -> tuple[Any, float]:
    """The solution, and the least seconds of a few solves."""
    seconds = []
    for _ in range(config.num_repeats):
        start = time.perf_counter()
        solution = jax.block_until_ready(solve(*operands))
        seconds.append(time.perf_counter() - start)
    return solution, min(seconds)


def true_residual(system: System, x: jax.Array) -> float:
    """|b - A x| / |b| by a matrix that was assembled without JAX."""
    matrix = photograph.assemble(np.ones(system.mask.shape), system.mask, 1.0)
    b = system.b[system.mask]
    return float(np.linalg.norm(b - matrix @ np.asarray(x)[system.mask]) / np.linalg.norm(b))


def show(config: ConfigDict, params: Any) -> dict[str, Any]:
    """The solution and every method's residuals on one domain of the largest grid."""
    of_image = [s for s in systems(config, config.test_sizes[-1]) if s.domain != "box"]
    system = of_image[0]
    A, b = directions.poisson(system.mask, jnp.float64), jnp.asarray(system.b)
    curves = {}
    for method in config.methods:
        M = jax.jit(partial(METHODS[method], config))(A, params)
        x, info = solver(config, method, history=True)(A, M, b, config.tolerances[-1])
        curve = np.asarray(info.history[: int(info.num_steps)]) / np.linalg.norm(system.b)
        curves[method] = np.concatenate([[1.0], curve])
    return {"solution": np.where(system.mask, x, np.nan), "curves": curves}


def summarize(config: ConfigDict, params: Any, solved: list[dict[str, Any]]) -> dict[str, Any]:
    """Steps and seconds over the test systems, by tolerance, method and size."""
    rows = {
        f"{rtol:g}": {
            method: {
                str(size): statistics([r for r in solved if key(r) == (rtol, method, size)], rtol)
                for size in config.test_sizes
            }
            for method in config.methods
        }
        for rtol in config.tolerances
    }
    results = {
        "num_weights": tree.size(params),
        "num_systems": len(systems(config, config.test_sizes[0])),
        "rows": rows,
        "mean_steps": {
            method: [by_size[str(size)]["steps"] for size in config.test_sizes]
            for method, by_size in rows[f"{config.tolerances[0]:g}"].items()
        },
    }
    return results | {"summary": headline(config, results)}


def key(row: dict[str, Any]) -> tuple[float, str, int]:
    return row["rtol"], row["method"], row["size"]


def statistics(rows: list[dict[str, Any]], rtol: float) -> dict[str, float]:
    steps = [row["steps"] for row in rows]
    return {
        "steps": float(np.mean(steps)),
        "fewest": min(steps),
        "most": max(steps),
        "seconds": float(np.mean([row["seconds"] for row in rows])),
        "missed": sum(row["residual"] > 1.01 * rtol for row in rows),
    }


def headline(config: ConfigDict, results: dict[str, Any]) -> str:
    """One line for a table of many experiments."""
    sizes = [f"{size}^{config.rank}" for size in config.test_sizes]
    last, rows = str(config.test_sizes[-1]), results["rows"][f"{config.tolerances[0]:g}"]
    told = [
        f"{method} {', '.join(f'{mean:.1f}' for mean in means)}"
        for method, means in results["mean_steps"].items()
        if method in ("cg", "deflated", "multigrid", "dcdm")
    ]
    seconds = ", ".join(
        f"{method} {1e3 * rows[method][last]['seconds']:.3g} ms"
        for method in ("cg", "multigrid", "dcdm")
        if method in rows
    )
    return (
        f"mean steps to {config.tolerances[0]:g} on {', '.join(sizes)}, trained on "
        f"{config.size}^{config.rank}: {'; '.join(told)}. On {sizes[-1]} they take {seconds}"
    )


def table(config: ConfigDict, results: dict[str, Any]) -> str:
    """The numbers as a person reads them."""
    lines = [f"{results['num_weights']:,} weights; {results['num_systems']} systems of each size"]
    for rtol, methods in results["rows"].items():
        sizes = "".join(f"{f'{size}^{config.rank}':>28}" for size in config.test_sizes)
        lines += ["", f"to {rtol:<10} {sizes}"]
        for method, by_size in methods.items():
            cells = (cell(numbers) for numbers in by_size.values())
            lines.append(f"{method:<13} {''.join(cells)}")
    return "\n".join(lines)


def cell(numbers: dict[str, float]) -> str:
    spread = f"({numbers['fewest']}-{numbers['most']})"
    text = f"{numbers['steps']:.1f} {spread}{1e3 * numbers['seconds']:8.1f} ms"
    return f"{text:>28}" + (f" {numbers['missed']} missed" if numbers["missed"] else "")


COLOURS = {
    "cg": plots.GREY,
    "jacobi": plots.ORANGE,
    "ssor": plots.VERMILION,
    "nystrom": plots.YELLOW,
    "deflated": plots.PURPLE,
    "multigrid": plots.GREEN,
    "dcdm": plots.BLUE,
}


def look(method: str) -> dict[str, Any]:
    """On constant diagonals jacobi, and nystrom at its rank, are cg: drawn over its broad line."""
    return {"color": COLOURS[method], "lw": 5 if method == "cg" else 1.8}


def draw(config: ConfigDict, example: dict[str, Any], results: dict[str, Any], figure: Figure):
    """A solution, the residuals on its way, steps and seconds against the grid."""
    (top, right), bottom = figure.subplots(2, 2)
    u = example["solution"][(config.test_sizes[-1] // 4,) * (config.rank - 2)]
    image = top.imshow(u, interpolation="nearest", cmap="magma")
    top.set_title("solution among obstacles never seen", loc="center")
    top.axis("off")
    figure.colorbar(image, ax=top, shrink=0.8, pad=0.02).outline.set_visible(False)
    for method, curve in example["curves"].items():
        right.loglog(np.arange(len(curve)) + 1, curve, label=method, **look(method))
    right.set(xlabel="steps + 1", ylabel="residual |r| / |b|, same domain")
    for axes, name, factor in zip(bottom, ("steps", "seconds"), (1, 1e3), strict=True):
        for method, by_size in results["rows"][f"{config.tolerances[0]:g}"].items():
            means = [factor * by_size[str(size)][name] for size in config.test_sizes]
            axes.loglog(config.test_sizes, means, marker="o", **look(method))
        axes.set_xticks(config.test_sizes, [str(size) for size in config.test_sizes])
        axes.minorticks_off()
        axes.set_xlabel("cells along each side")
    bottom[0].set_ylabel(f"mean steps to {config.tolerances[0]:g}")
    bottom[1].set_ylabel("mean milliseconds of a solve")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=7)


if __name__ == "__main__":
    harness.main(run)
