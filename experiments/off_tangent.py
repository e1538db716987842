"""The premise of DDS: does its update stay in the tangent space of the data?

Claim (Chung et al., 2024, "Decomposed diffusion sampler"): if the tangent space T of the clean data
at the denoised estimate is a Krylov subspace of A^H A, conjugate gradients from the estimate stay
in T, and no Jacobian of the denoiser is needed to keep them on the manifold.

    python -m experiments.off_tangent

Expected: under the premise the theorem holds, 0.00 of the energy is outside T. Generic operators
are far from the premise. Random and cosine rows put 0.83 to 0.88 outside after 1 to 20 steps at
sigma = 0.3 (a random direction: 0.91), 0.92 at small and 0.69 at large sigma. Even an invariant
subspace does not help once y is noisy: 0.34 after one step, 0.71 after twenty, as the noise is
seen outside T too. MMPS stays in T as long as the component is certain (0.00, one component; in the
mixture 0.33 at sigma = 10). It comes within 1 % of the distance to the exact mean at sigma = 0.3;
DDS on normal equations ends 1.5 times as far from it as the estimate was, and at sigma = 0.01
590 times, because it trusts y more than the estimate; its calibrated form 1.1 and 3.4 times.

The clean data are a subspace of rank 6 in 64 dimensions, or a mixture of four, with the exact
denoiser; T, the range of its Jacobian, is the subspace of the component that the point is from.
Measured is the share of the energy of the update, corrected minus denoised estimate, outside of T.
A direction drawn at random has 1 - d/n of it outside. The operators: random singular vectors; rows
of the cosine transform, weighted; and one whose A^H A leaves every component's subspace invariant,
with the measurement noise and without; all of the same singular values. Beside DDS stands moment
matching (MMPS), whose update is a product with the Jacobian, and how much nearer each comes to the
exact posterior mean E[x_0 | x, y].
"""

import contextlib
import itertools
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

from experiments import harness, oracle, plots, records
from subspace_jax import diffusion, linalg

PRIORS = ("one component", "mixture")
OPERATORS = {
    "random": {"color": plots.BLUE},
    "cosine rows": {"color": plots.SKY, "linestyle": "--"},
    "compatible": {"color": plots.ORANGE},
    "compatible, no noise": {"color": plots.GREEN, "linewidth": 5},  # others lie on it
}
METHODS = {
    "DDS, normal": {"color": plots.BLUE},
    "DDS, calibrated": {"color": plots.PURPLE},
    "MMPS": {"color": plots.VERMILION},
}
_DOTTED = {"color": plots.GREY, "linestyle": ":"}


def run(config: ConfigDict, workdir: Path) -> dict:
    """Measure updates for every prior and operator; print the table, draw, return numbers."""
    start = time.perf_counter()
    draw_problem, measure = compiled(config)
    seconds = {"compile": time.perf_counter() - start}
    results: dict[str, Any] = {"random direction": 1 - config.rank / config.n}
    pairs = list(itertools.product(PRIORS, config.operators))
    with contextlib.closing(records.MetricsLog(workdir, 0, len(pairs), 1)) as log:
        for done, (prior, name) in enumerate(pairs, 1):
            kind = jnp.int32(list(OPERATORS).index(name))
            outside, gain = measure(draw_problem(jnp.bool_(prior == PRIORS[0]), kind))
            found = {}
            for i, method in enumerate(METHODS):
                found[method] = {
                    "outside": _spread(outside[:, :, i]),
                    "gain": _spread(gain[:, :, i]),
                }
            results.setdefault(prior, {})[name] = found
            log.update(done, {"outside": outside[:, :, 0].mean((0, 1))})
    results["summary"] = headline(config, results)
    records.say(table(config, results), sys.stdout)
    plots.save(workdir / "off_tangent.png", partial(draw, config, results), size=(12, 7.4))
    seconds["train"] = time.perf_counter() - start - seconds["compile"]
    return results | {"seconds": seconds}


def compiled(config: ConfigDict) -> tuple[Any, Any]:
    """(one component?, operator) -> problems, and problems -> `updates`: a program each."""
    roots = jax.random.split(jax.random.key(config.seed))
    problem_keys, noise_keys = (jax.random.split(root, config.num_draws) for root in roots)

    def problems(one, kind):
        return harness.each(lambda key: make_problem(key, one, kind, config))(problem_keys)

    def measure(stacked):
        each_sigma = jax.vmap(partial(updates, config), (None, None, 0))
        sigmas = jnp.asarray(config.sigmas)
        return harness.each(lambda key, problem: each_sigma(key, problem, sigmas))(
            noise_keys, stacked
        )

    drawn = jax.jit(problems).lower(jnp.bool_(0), jnp.int32(0)).compile()
    example = jax.eval_shape(problems, jnp.bool_(0), jnp.int32(0))
    return drawn, jax.jit(measure).lower(example).compile()


def make_problem(key: jax.Array, one: jax.Array, kind: jax.Array, config: ConfigDict):
    """Orthogonal subspaces, an operator of that kind, a point of the first, and its measurement."""
    K, n, d, m = config.num_components, config.n, config.rank, config.m
    keys = jax.random.split(key, 4)
    E = linalg.orthonormalize(jax.random.normal(keys[0], (n, n)))
    U = E[:, : K * d].reshape(n, K, d).swapaxes(0, 1)
    A = jnp.stack(
        [
            oracle.random_matrix(keys[1], m, n, config.condition),
            cosine_rows(keys[1], m, n, config.condition),
            compatible(keys[1], E, K, d, m, config.condition),
            compatible(keys[1], E, K, d, m, config.condition),
        ]
    )[kind]
    U = jnp.where(one, U[:1], U)
    truth = U[0] @ jax.random.normal(keys[2], (d,))
    noise = jnp.where(kind == list(OPERATORS).index("compatible, no noise"), 0, config.sigma_y)
    y = A @ truth + noise * jax.random.normal(keys[3], (m,))
    weights = jnp.ones(K) / K
    return oracle.Problem(U, weights, A, y, jnp.asarray(config.sigma_y), truth)


def cosine_rows(key: jax.Array, m: int, n: int, condition: float) -> jax.Array:
    """Rows (m, n) of the orthonormal cosine transform, which ones at random, with weights."""
    i = jnp.arange(n)
    rows = jnp.cos(jnp.pi * (2 * i + 1) * i[:, None] / (2 * n)) * jnp.sqrt(2 / n)
    rows = rows.at[0].divide(2**0.5)
    return jnp.geomspace(1.0, 1 / condition, m)[:, None] * rows[jax.random.permutation(key, n)[:m]]


def compatible(key: jax.Array, E: jax.Array, K: int, d: int, m: int, condition: float) -> jax.Array:
    """A matrix (m, n) whose right singular vectors are columns of E, some in every subspace.

    A^H A then leaves the spans of the first K blocks of d columns invariant.
    """
    left, values = jax.random.split(key)
    share = min(m // (K + 1), d)
    inside = (jnp.arange(K)[:, None] * d + jnp.arange(share)).ravel()
    columns = jnp.concatenate([inside, K * d + jnp.arange(m - K * share)])
    scales = jax.random.permutation(values, jnp.geomspace(1.0, 1 / condition, m))
    P = linalg.orthonormalize(jax.random.normal(left, (m, m)))
    return (P * scales) @ E[:, columns].T


def updates(config: ConfigDict, key: jax.Array, problem: oracle.Problem, sigma: jax.Array):
    """What each method (rows) does to the estimate, in each number of steps (columns).

    Returns:
        The share of its energy outside the tangent space, and the distance to the exact posterior
        mean after the update over that before.
    """
    x = problem.truth + sigma * jax.random.normal(key, problem.truth.shape)
    op = oracle.operator(problem)
    x0, product = jax.linearize(lambda x: oracle.denoise(problem, x, sigma), x)
    target = oracle.denoise_posterior(problem, x, sigma)
    T, y, sigma_y = problem.U[0], problem.y, problem.sigma_y

    def outcome(dc):
        corrected, _ = dc.update(x0, lambda mode: product, sigma, dc.init(x))
        step = corrected - x0
        outside = step - T @ (T.T @ step)
        gain = jnp.linalg.norm(corrected - target) / jnp.linalg.norm(x0 - target)
        return jnp.sum(outside**2) / jnp.sum(step**2), gain

    sigma_data = (config.rank / config.n) ** 0.5  # root mean square of an entry of the data
    table = [
        [outcome(diffusion.cg_normal(op, y, k)) for k in config.steps],
        [
            outcome(diffusion.posterior_proximal(op, y, sigma_y, sigma_data, k))
            for k in config.steps
        ],
        [
            outcome(diffusion.moment_matching(op, y, sigma_y, k, jacobian="jvp"))
            for k in config.steps
        ],
    ]
    return tuple(jnp.asarray([[pair[i] for pair in row] for row in table]) for i in (0, 1))


def headline(config: ConfigDict, results: dict[str, Any]) -> str:
    """Medians of the update's share outside of T, at the noise level and steps that are shown."""
    level, step = _shown(config)
    parts = []
    for prior in PRIORS:
        cells = results[prior]
        values = [
            f"{name} {cells[name]['DDS, normal']['outside']['median'][level][step]:.2f}"
            for name in config.operators
        ]
        mmps = cells[config.operators[0]]["MMPS"]["outside"]["median"][level][step]
        parts.append(f"{prior}: {', '.join(values)}; MMPS, {config.operators[0]} {mmps:.2f}")
    return (
        f"share of the energy of the CG update outside the tangent space (n = {config.n}, "
        f"d = {config.rank}, m = {config.m}, sigma = {config.sigma_shown:g}, "
        f"{config.steps_shown} steps; a random direction has {results['random direction']:.2f}), "
        f"median of {config.num_draws} draws, DDS by operator. " + ". ".join(parts)
    )


def table(config: ConfigDict, results: dict[str, Any]) -> str:
    """Quartiles for each operator and method, as shown; the gain beside."""
    level, step = _shown(config)
    lines = [f"sigma = {config.sigma_shown:g}, {config.steps_shown} steps: outside T; gain"]
    for prior, name, method in itertools.product(PRIORS, config.operators, METHODS):
        cells = [
            "{:6.3f} ({:.3f} to {:.3f})".format(
                *(
                    results[prior][name][method][kind][q][level][step]
                    for q in ("median", "low", "high")
                )
            )
            for kind in ("outside", "gain")
        ]
        lines.append(f"{prior:14}{name:22}{method:17}{'   '.join(cells)}")
    return "\n".join(lines)


def draw(config: ConfigDict, results: dict[str, Any], figure: Figure) -> None:
    """A row a prior: the share outside over steps and over sigma, and what the update gains."""
    panels = figure.subplots(2, 3, sharex="col")
    level, step = _shown(config)
    for row, prior in zip(panels, PRIORS, strict=True):
        for axes in row[:2]:
            axes.axhline(results["random direction"], **_DOTTED, label="a random direction")
            axes.set_ylim(-0.03, 1.03)
        for name in config.operators:
            cell = results[prior][name]["DDS, normal"]["outside"]
            _band(row[0], config.steps, cell, np.s_[level], OPERATORS[name], f"DDS, {name}")
            _band(row[1], config.sigmas, cell, np.s_[:, step], OPERATORS[name], f"DDS, {name}")
        first = results[prior][config.operators[0]]
        mmps = first["MMPS"]["outside"]
        _band(row[0], config.steps, mmps, np.s_[level], METHODS["MMPS"], "MMPS, random")
        _band(row[1], config.sigmas, mmps, np.s_[:, step], METHODS["MMPS"], "MMPS, random")
        for method, look in METHODS.items():
            _band(row[2], config.sigmas, first[method]["gain"], np.s_[:, step], look, method)
        row[2].axhline(1, **_DOTTED)
        row[0].set_ylabel(f"{prior}\n\nshare of the update outside T")
        row[2].set(ylabel="after the update / before", yscale="log")
        row[0].set(xscale="log")
        row[0].set_xticks(config.steps, [str(k) for k in config.steps])
        row[0].minorticks_off()
        row[1].set(xscale="log")
        row[2].set(xscale="log")
    panels[0, 0].set_title(f"Outside the tangent space T, sigma = {config.sigma_shown:g}")
    panels[0, 1].set_title(f"... after {config.steps_shown} steps")
    panels[0, 2].set_title("Distance to E[x0 | x, y], random A")
    panels[1, 0].set_xlabel("steps of conjugate gradients")
    panels[1, 1].set_xlabel("noise level sigma")
    panels[1, 2].set_xlabel("noise level sigma")
    panels[0, 2].legend()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)


def _band(axes, x, cell, where, look, label) -> None:
    """The median, and the quartiles around it."""
    low, median, high = (np.asarray(cell[q])[where] for q in ("low", "median", "high"))
    axes.plot(x, median, **look, label=label, marker="o", markersize=4)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _spread(values: jax.Array) -> dict[str, list]:
    """Quartiles over the draws, axis 0."""
    low, median, high = np.quantile(np.asarray(values), (0.25, 0.5, 0.75), axis=0)
    return {"low": low.tolist(), "median": median.tolist(), "high": high.tolist()}


def _shown(config: ConfigDict) -> tuple[int, int]:
    return config.sigmas.index(config.sigma_shown), config.steps.index(config.steps_shown)


if __name__ == "__main__":
    harness.main(run)
