"""Intrinsic dimension: how few directions does it take to train a network?

Claim (Li, Farkhoor, Liu & Yosinski, 2018): train z in params = params0 + P z, with P a fixed
random projection from d to all D parameters. A d far below D reaches 90 % of the accuracy of
direct training; the smallest such d, d_int90, measures how hard the problem is. The paper's
784-200-200-10 network (D = 199,210) on MNIST needs d of about 750.

    python -m experiments.intrinsic_dimension                                      MNIST-5k, CPU
    python -m experiments.intrinsic_dimension --config=configs/intrinsic_dimension.py:mnist
    python -m experiments.intrinsic_dimension --config=configs/intrinsic_dimension.py:toy
    python -m experiments.intrinsic_dimension --config=configs/intrinsic_dimension.py:cartpole
    python -m experiments.intrinsic_dimension --config=configs/intrinsic_dimension.py:q_learning

Expected: d_int90 = 750 on MNIST-5k, 500 against direct training and 625 against a perfect score on
all of MNIST (the paper: 525 and 750, on its own grid), 10 on the toy problem. With
``--config.projection=rolled``, of which nothing is stored, 750 on MNIST-5k too.
On a pole that evolution strategies balance, 12 against direct training and 28 against a perfect
score, with 12 to 28 in 90 % of the resamples; seeds decide, with others it was 16 and 32. By
Q-learning, as in the paper, 256, with 256 to 1024 in 90 % of the resamples (the paper: 25): in the
mean of three seeds .93 of the return there and .96 directly, but a seed of three stays at .4 for
d = 512 and 2048. Its settings were chosen on the same poles, and one learning rate serves all d.
A pendulum that evolution strategies swing up: 8, with 8 to 64 in 90 % of the resamples, but seeds
differ by far: all parameters reach .50 to .97 of the return in four seeds, .76 in the mean.

Other options are LeNets, Fashion-MNIST, widths and depths, shuffled pixels and labels (side by side
in ``intrinsic_variants``), and the games of gymnax. Not here, for want of the data or
the simulator: the paper's CIFAR-10, ImageNet, Humanoid and Pong. Every d and seed trains in one
compiled program: d is a traced number, the runs an axis of ``vmap`` on accelerators, one after
another on a CPU.
"""

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import harness, plots, records
from experiments.control_problems import evolution, q_learning
from experiments.intrinsic_problems import IMAGES_AND_SUMS, Problem, authors
from subspace_jax import landscape, projections, tree


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train every (seed, d) and directly; print the table, draw the figure, return the numbers."""
    results, seconds = measure(config, workdir)
    records.say(table(config, results), sys.stdout)
    plots.save(workdir / "intrinsic_dimension.png", partial(draw, config, results), size=(7.2, 4.6))
    return results | {"seconds": seconds}


def measure(config: ConfigDict, workdir: Path) -> tuple[dict, dict[str, float]]:
    """The numbers of all runs with their one-line summary, and the seconds that they took."""
    for knob in ("num_seeds", "batch_size", "num_bootstrap"):
        if config[knob] < 1:
            raise ValueError(f"{knob} must be at least 1, got {config[knob]}")
    problem = harness.pick("problem", config.problem, PROBLEMS)(config)
    params0, bases = start(problem, config)
    size = tree.size(params0) // config.num_seeds
    state, seconds = harness.train(
        workdir,
        config,
        initial_state(problem, params0, config),
        partial(train_steps, problem, config),
        problem.batches,
        constants=(params0, bases),
        at_once=True,
    )
    direct, subspace = evaluate(problem, state, params0, bases)
    results = summarize(config, size, direct, subspace)
    results["summary"] = headline(config, results)
    return results, seconds


PROBLEMS = IMAGES_AND_SUMS | {"evolution": evolution, "q_learning": q_learning}
PROJECTIONS = {
    name: getattr(projections, name)
    for name in (
        "hashed",
        "rolled",
        "fastfood",
        "gaussian",
        "gaussian_orthonormal",
        "sparse",
        "rademacher",
    )
}


def start(problem: Problem, config: ConfigDict) -> tuple[Any, Any]:
    """Initial parameters (num_seeds, ...) and projections (num_seeds, num_dims, ...)."""
    scheme = harness.pick("projection", config.projection, PROJECTIONS)
    if not config.dims or min(config.dims) < 1 or list(config.dims) != sorted({*config.dims}):
        raise ValueError(f"dims must ascend and be at least 1, got {tuple(config.dims)}")
    dims, length = jnp.array(config.dims), max(config.dims)

    def one_seed(seed):
        key = jax.random.fold_in(jax.random.key(config.seed), seed)
        params0 = problem.init(jax.random.fold_in(key, 0))
        keys = jax.random.split(jax.random.fold_in(key, 1), len(config.dims))
        basis = jax.vmap(lambda key, dim: scheme(key, params0, dim, max_dim=length))
        return params0, basis(keys, dims)

    build, seeds = jax.jit(jax.vmap(one_seed)), jnp.arange(config.num_seeds)
    leaves = jax.tree.leaves(jax.eval_shape(build, seeds))
    gigabytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / 1e9
    if gigabytes > config.max_gigabytes:
        raise ValueError(
            f"projections {config.projection!r} of {config.num_seeds} x {len(dims)} runs take "
            f"{gigabytes:.1f} GB, more than max_gigabytes={config.max_gigabytes:g}: have fewer "
            "seeds or dims, or a projection that stores less"
        )
    return build(seeds)


def initial_state(problem: Problem, params0: Any, config: ConfigDict) -> dict[str, Any]:
    """Direct parameters and z of every run, each with its optimizer's state and its memory."""
    direct = jax.tree.map(jnp.copy, params0)
    z = jnp.zeros((config.num_seeds, len(config.dims), max(config.dims)))
    over_seeds, over_runs = jax.vmap, lambda f: jax.vmap(jax.vmap(f))
    key = jax.random.fold_in(jax.random.key(config.seed), config.num_seeds + 1)
    keys = jax.random.split(key, (config.num_seeds, 1 + len(config.dims)))
    memory = over_seeds(lambda params, keys: jax.vmap(problem.remember, (0, None))(keys, params))
    return {
        "direct_memory": over_seeds(problem.remember)(keys[:, 0], jax.tree.map(jnp.copy, params0)),
        "memory": memory(params0, keys[:, 1:]),
        "direct": direct,
        "direct_optimizer": over_seeds(optimizer(config, config.direct_learning_rate).init)(direct),
        "z": z,
        "z_optimizer": over_runs(optimizer(config, config.learning_rate).init)(z),
    }


def train_steps(problem, config, state, batches, keys, params0, bases):
    """All steps of one run after the other, whose arrays a CPU's caches then hold.

    The seeds see different batches.
    """

    def train(rate, value_and_grad, params, run, batches, keys):
        def step(run, x):
            variables, optimizer_state, memory = run
            batch, key = x
            memory, examples = problem.gather(params(variables), memory, batch, key)

            def loss(variables):
                theta = params(variables)
                decay = config.l2 * tree.norm(theta) ** 2 if config.l2 else 0.0
                return problem.loss(theta, *examples) + decay

            value, grads = value_and_grad(loss, variables, key)
            updates, optimizer_state = optimizer(config, rate).update(
                grads, optimizer_state, variables
            )
            return (optax.apply_updates(variables, updates), optimizer_state, memory), value

        return harness.scan(step, run, (batches, keys))

    def one_seed(state, batches, keys, params0, bases):
        def one_dim(run, keys, basis):
            params = projections.restrict(lambda params: params, basis, params0)
            rate = config.learning_rate
            return train(rate, problem.value_and_grad, params, run, batches, keys)

        keys = jax.vmap(partial(jax.random.split, num=1 + len(config.dims)), out_axes=1)(keys)
        direct, direct_loss = train(
            config.direct_learning_rate,
            problem.direct_value_and_grad,
            lambda params: params,
            (state["direct"], state["direct_optimizer"], state["direct_memory"]),
            batches,
            keys[0],
        )
        runs = state["z"], state["z_optimizer"], state["memory"]
        runs, loss = harness.each(one_dim)(runs, keys[1:], bases)
        state = dict(zip(("direct", "direct_optimizer", "direct_memory"), direct, strict=True))
        state |= dict(zip(("z", "z_optimizer", "memory"), runs, strict=True))
        return state, {"direct_loss": direct_loss, "loss": loss}

    batches = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), batches)
    keys = jax.vmap(partial(jax.random.split, num=config.num_seeds), out_axes=1)(keys)
    return harness.each(one_seed)(state, batches, keys, params0, bases)


def optimizer(config: ConfigDict, rate: float) -> optax.GradientTransformation:
    """Adam, with the learning rate held or decayed."""
    schedule = optax.cosine_decay_schedule(rate, config.num_steps) if config.decay else rate
    return optax.adam(schedule, b2=config.beta2)


def evaluate(problem, state, params0, bases) -> tuple[np.ndarray, np.ndarray]:
    """Scores (num_seeds, num_examples) of direct training, (num_seeds, num_dims, ...) of all d."""

    def one_seed(direct, z, params0, bases):
        def one_dim(z, basis):
            return projections.restrict(problem.scores, basis, params0)(z, *problem.examples)

        return problem.scores(direct, *problem.examples), harness.each(one_dim)(z, bases)

    scores = jax.jit(harness.each(one_seed))(state["direct"], state["z"], params0, bases)
    return jax.tree.map(np.asarray, scores)


def summarize(config, size, direct, subspace) -> dict:
    """Scores, and d_int90 against the individual baseline (direct training) and the global one."""
    individual = float(average(config)(direct.mean(-1)))
    return {
        "num_parameters": size,
        "num_test_examples": direct.shape[-1],
        "dims": list(config.dims),
        "score": subspace.mean(-1).T.tolist(),
        "direct_score": direct.mean(-1).tolist(),
        "threshold": {"individual": config.fraction * individual, "global": config.fraction},
        "d_int": {
            "individual": smallest_dim(config, direct, subspace),
            "global": smallest_dim(config, np.ones_like(direct), subspace),
        },
    }


def smallest_dim(config, baseline, subspace) -> dict[str, int | float | list | None]:
    """`landscape.smallest_dimension` of scores (num_seeds, num_dims, num_examples), for JSON.

    None stands for a dim beyond the grid.
    """
    found = landscape.smallest_dimension(
        jax.random.fold_in(jax.random.key(config.seed), config.num_seeds),
        jnp.array(config.dims),
        jnp.asarray(subspace).swapaxes(0, 1),
        jnp.asarray(baseline),
        fraction=config.fraction,
        average=getattr(jnp, config.average),
        num_bootstrap=config.num_bootstrap,
    )
    value, *interval = (int(d) if d < math.inf else None for d in (found.value, *found.interval))
    mean, std = (float(d) if d < math.inf else None for d in (found.mean, found.std))
    return {"value": value, "interval": interval, "mean": mean, "std": std}


def average(config: ConfigDict) -> Callable[..., np.ndarray]:
    """How the scores of several seeds become one."""
    return harness.pick("average", config.average, {"mean": np.mean, "median": np.median})


def table(config: ConfigDict, results: dict) -> str:
    """The numbers as a person reads them."""
    direct = np.array(results["direct_score"])
    lines = [
        data_name(config) if config.environment else f"{config.problem} on {data_name(config)}",
        f"D = {results['num_parameters']:,} parameters, projection {config.projection}, "
        f"{len(direct)} seeds, {results['num_test_examples']} examples scored",
        "",
        f"{'d':>8}  {config.average:>6}  {'min':>6}  {'max':>6}  of direct"
        + ("   authors' mean, all of MNIST" if authors(config) else ""),
    ]
    for d, scores in (*zip(results["dims"], results["score"], strict=True), ("direct", direct)):
        middle, low, high = average(config)(scores), np.min(scores), np.max(scores)
        share = middle / average(config)(direct)
        theirs = f"   {np.mean(authors(config)[d]):.3f}" if d in authors(config) else ""
        lines.append(f"{d:>8}  {middle:6.4f}  {low:6.4f}  {high:6.4f}  {share:8.1%}{theirs}")
    lines.append("")
    for name, found in results["d_int"].items():
        value, low, high = (_or_beyond(d, config) for d in (found["value"], *found["interval"]))
        lines.append(
            f"d_int{100 * config.fraction:.0f}, {name} baseline "
            f"(score {results['threshold'][name]:.4f}): {value}"
            f"  (90 % of resamples: {low} to {high})"
        )
    return "\n".join(lines)


def data_name(config: ConfigDict) -> str:
    """What was learned, as a person says it."""
    if config.problem == "toy":
        return "ten sums"
    if config.environment:
        by = {"evolution": "evolution strategies", "q_learning": "Q-learning"}[config.problem]
        return f"{config.environment} by {by}"
    pixels = ", pixels shuffled" if config.shuffled_pixels else ""
    labels = f", {config.shuffled_labels:.0%} of labels random" if config.shuffled_labels else ""
    return f"{config.data_path or config.data}{pixels}{labels}"


def headline(config: ConfigDict, results: dict) -> str:
    """One line for a table of many experiments."""
    found = [
        f"{_or_beyond(d_int['value'], config)} against the {name} baseline"
        for name, d_int in results["d_int"].items()
    ]
    direct = average(config)(results["direct_score"])
    return (
        f"{data_name(config)}: d_int{100 * config.fraction:.0f} = {', '.join(found)}; "
        f"D = {results['num_parameters']:,}, direct {direct:.3f}, {config.num_seeds} seeds"
    )


def draw(config: ConfigDict, results: dict, figure: Figure) -> None:
    """Score against d, the thresholds, and d_int90: figure 2 of the paper."""
    axes = figure.subplots()
    dims, scores = np.array(results["dims"]), np.array(results["score"])
    middle = average(config)(scores, axis=1)
    label = f"in a random subspace: {config.average} and each seed"
    axes.plot(dims, middle, color=plots.BLUE, label=label, zorder=3)
    axes.plot(dims, scores, "o", color=plots.SKY, ms=4, alpha=0.8, zorder=2)
    if authors(config):
        points = np.array([(d, score) for d, seeds in authors(config).items() for score in seeds]).T
        axes.plot(*points, "x", color=plots.GREEN, ms=5, label="the authors', on all of MNIST")
    direct = average(config)(results["direct_score"])
    label = f"direct training, D = {results['num_parameters']:,}"
    axes.axhline(direct, color=plots.GREY, lw=1.4, label=label)
    marks = {"individual": (plots.VERMILION, "*"), "global": (plots.ORANGE, "D")}
    for name, (colour, marker) in marks.items():
        threshold, found = results["threshold"][name], results["d_int"][name]["value"]
        text = f"{config.fraction:.0%} of {'direct' if name == 'individual' else 'perfect'}"
        text += f": d = {found}" if found else f": beyond d = {dims[-1]}"
        axes.axhline(threshold, color=colour, ls=":", lw=1.4)
        point = ([found], [threshold]) if found else ([], [])
        axes.plot(*point, marker, color=colour, ms=9, label=text, zorder=4, ls=":")
        low, high = (d or dims[-1] for d in results["d_int"][name]["interval"])
        axes.plot([low, high], [threshold] * 2, color=colour, lw=5, alpha=0.35)
    score = "exp(-loss)" if config.problem == "toy" else "accuracy"
    score = "return" if config.environment else score
    label = f"{score} on {data_name(config)}"
    axes.set(xlabel="subspace dimension d", ylabel=label, ylim=(0, 1.02))
    axes.locator_params(axis="x", integer=True)
    axes.set_title("Training in random subspaces")
    figure.legend(loc="outside lower center", ncols=2)


def _or_beyond(dim: int | None, config: ConfigDict) -> str:
    return f"> {max(config.dims)}" if dim is None else str(dim)


if __name__ == "__main__":
    harness.main(run)
