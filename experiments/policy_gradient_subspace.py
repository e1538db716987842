"""Policy gradients in a tiny subspace: an actor's and a critic's gradients.

Claim (Schneider, Schumacher, Guist, Chen, Haeufle, Schoelkopf & Buechler, 2024): though the data
change with the policy, gradients of policy-gradient methods lie in a slowly changing space of few
leading eigenvectors of the Hessian; the critic's more so than the actor's, and more steadily.

    python -m experiments.policy_gradient_subspace

Expected, 20 eigenvectors of some 4,500 weights, 3 seeds, second half of training, on a CPU: the
critic's gradient has 1.00, .96 and .97 of its square in the space (PPO on cart-pole and on the
pendulum, SAC on the pendulum), the actor's .88, .45 and .49 (by chance .004). Overlap with the
space thirty rounds before: critic .55, .79 and .93, actor .47, .23 and .26. So the claim holds, the
actor's space but for its slowness; SAC's critic is the steadiest. On the steps that the Hessian is
of PPO's actors' shares were .90 and .59: other steps have to tell.

PPO on cart-pole and on a pendulum that is swung up, SAC on the latter, environments, networks and
algorithm in one compiled program. The eigenspaces, of the algebraically largest eigenvalues, are
those of the actor's and of the critic's own loss on steps that are played for that alone; the
"true" gradient and those of minibatches are of other such steps. A part of what the spaces move is
the noise of so many steps, which is not told apart. SAC's batches come from what was played before.
Tasks of gymnax are named gymnax/NAME. Not here: physics engines.
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

from experiments import environments, harness, plots, records
from experiments.actor_critic import ActorCritic, by_ppo
from experiments.sac import sac
from subspace_jax import krylov, landscape, tree

PARTS = ("actor", "critic")
MEASURED = ("fraction", "minibatch_fraction", "overlap")


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train on every environment from every seed; what was in the leading spaces; draw."""
    if config.num_rounds % config.measure_every:
        raise ValueError(
            f"num_rounds={config.num_rounds} is no multiple of measure_every={config.measure_every}"
        )
    for algorithm, name in config.tasks:
        harness.pick("algorithm", algorithm, ALGORITHMS)
        environments.named(name)
    pieces = [(*task, seed) for task in config.tasks for seed in range(config.num_seeds)]
    found = records.piecewise(workdir, pieces, partial(follow, config), told)
    results: dict[str, Any] = {
        "rounds": list(range(0, config.num_rounds + 1, config.measure_every)),
        "num_weights": {},
    }
    for algorithm, environment in config.tasks:
        name = f"{algorithm}, {environment}"
        several = [
            row for row, piece in zip(found, pieces, strict=True)
            if piece[:2] == (algorithm, environment)
        ]  # fmt: skip
        results[name] = {key: [row["curves"][key] for row in several] for key in KEYS}
        results["num_weights"][name] = several[0]["num_weights"]
    results["summary"] = headline(config, results)
    records.say(results["summary"], sys.stdout)
    picture = partial(draw, config, results)
    size = (11, 1 + 2.9 * len(config.tasks))
    plots.save(workdir / "policy_gradient_subspace.png", picture, size=size)
    return results | {"seconds": {"compile": 0.0, "train": sum(row["seconds"] for row in found)}}


ALGORITHMS = {"PPO": by_ppo, "SAC": sac}
KEYS = ("return", *(f"{part} {name}" for part in PARTS for name in MEASURED))


def follow(config: ConfigDict, algorithm: str, name: str, seed: int) -> dict[str, Any]:
    """One training; everything measured, in lists over the rounds of measurement."""
    start = time.perf_counter()
    environment = environments.named(name)
    learner = ALGORITHMS[algorithm](config, environment)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), seed), 3)
    state = learner.init(keys[0])
    advance = jax.jit(partial(trained, config, learner))
    measure = jax.jit(partial(measured, config, learner, environment.horizon))
    curves: dict[str, list] = {key: [] for key in KEYS}
    spaces = None
    for done in range(0, config.num_rounds + 1, config.measure_every):
        before, (spaces, values) = spaces, measure(state, jax.random.fold_in(keys[2], done))
        for part in PARTS if before is not None else ():
            values[f"{part} overlap"] = landscape.overlap(before[part], spaces[part])
        for key, value in values.items():
            curves[key].append(float(value))
        if done < config.num_rounds:
            state = advance(state, keys[1], done)
    sizes = {part: tree.size(learner.weights(state)[part]) for part in PARTS}
    return {"curves": curves, "num_weights": sizes, "seconds": time.perf_counter() - start}


def told(piece: dict[str, Any]) -> dict[str, float]:
    return {key.replace(" ", "_"): values[-1] for key, values in piece["curves"].items()}


def trained(config: ConfigDict, learner: ActorCritic, state: Any, key: jax.Array, first: int):
    """As many rounds as lie between measurements."""

    def round_(state, i):
        return learner.advance(state, jax.random.fold_in(key, i)), None

    return jax.lax.scan(round_, state, first + jnp.arange(config.measure_every))[0]


def measured(
    config: ConfigDict, learner: ActorCritic, horizon: int, state: Any, key: jax.Array
) -> tuple:
    """The leading eigenspaces of both losses, and what of other steps' gradients lies in them."""
    *draw_keys, key = jax.random.split(key, 3)
    (steps, reward, ends), (others, *_) = (
        learner.draw(state, key, config.measure_steps) for key in draw_keys
    )
    number = config.measure_steps * config.num_envs
    rows = jax.random.permutation(key, number)[: config.num_minibatches * config.batch_size]
    batches = jax.tree.map(
        lambda x: x[rows].reshape(config.num_minibatches, config.batch_size, *x.shape[1:]), others
    )
    spaces, values = {}, {"return": reward / jnp.maximum(ends, 1 / horizon)}
    for part, loss in learner.losses(state).items():
        weights = learner.weights(state)[part]
        hvp = landscape.hessian(lambda p, loss=loss: loss(p, steps), weights)
        ritz, info = landscape.top_eigenspace(hvp, weights, k=config.k, rtol=config.rtol)

        def fraction(batch, loss=loss, weights=weights, basis=ritz.vectors):
            return landscape.gradient_fraction(basis, jax.grad(loss)(weights, batch))

        spaces[part] = ritz.vectors
        found = info.status == krylov.Status.CONVERGED
        values[f"{part} fraction"] = jnp.where(found, fraction(others), jnp.nan)
        values[f"{part} minibatch_fraction"] = jnp.mean(jax.lax.map(fraction, batches))
    return spaces, values


def headline(config: ConfigDict, results: dict) -> str:
    """Means over the second half of training, with the seeds' range."""
    parts = []
    for name in results["num_weights"]:
        found = results[name]
        gains = np.asarray(found["return"])
        cells = []
        for part in PARTS:
            shares = second_half(found[f"{part} fraction"])
            cells.append(
                f"{part} {shares.mean():.2f} ({shares.min():.2f} to {shares.max():.2f}), of a "
                f"minibatch's {second_half(found[f'{part} minibatch_fraction']).mean():.2f}, "
                f"overlap {second_half(found[f'{part} overlap']).mean():.2f}"
            )
        parts.append(
            f"{name} (return of an episode {gains[:, 0].mean():.0f} to "
            f"{gains[:, -1].mean():.0f}): {'; '.join(cells)}"
        )
    chance = config.k / next(iter(results["num_weights"].values()))["actor"]
    return (
        f"share of the gradient in the {config.k} leading eigenvectors (by chance "
        f"{chance:.3f}), {config.num_seeds} seeds, second half. {'. '.join(parts)}"
    )


def second_half(values: list) -> np.ndarray:
    """The mean over the second half of the run, one number a seed."""
    array = np.asarray(values)
    return array[:, array.shape[1] // 2 :].mean(axis=1)


def draw(config: ConfigDict, results: dict, figure: Figure) -> None:
    """A row an environment: rewards, shares of gradients, overlap of successive spaces."""
    names = list(results["num_weights"])
    grid = figure.subplots(len(names), 3, squeeze=False)
    rounds = np.asarray(results["rounds"])
    for (returns, shares, overlaps), name in zip(grid, names, strict=True):
        found = results[name]
        curve(returns, rounds, found["return"], plots.GREEN, "-", "")
        for part, colour in zip(PARTS, (plots.BLUE, plots.VERMILION), strict=True):
            curve(shares, rounds, found[f"{part} fraction"], colour, "-", part)
            batch = found[f"{part} minibatch_fraction"]
            curve(shares, rounds, batch, colour, ":", f"{part}, a minibatch's")
            curve(overlaps, rounds[1:], found[f"{part} overlap"], colour, "-", part)
        returns.set(title=f"{name}: return of an episode", xlabel="round")
        title = f"gradient in {config.k} leading eigenvectors"
        shares.set(title=title, xlabel="round", ylabel="share of its square", ylim=(-0.02, 1.02))
        title = f"the space {config.measure_every} rounds later"
        overlaps.set(title=title, xlabel="round", ylabel="overlap", ylim=(-0.02, 1.02))
    grid[0, 1].legend(fontsize="small")
    grid[0, 2].legend(fontsize="small")


def curve(axes, x: np.ndarray, values: list, colour: str, line: str, label: str) -> None:
    """The mean over seeds, and their range."""
    array = np.asarray(values)
    axes.plot(x, array.mean(axis=0), line, color=colour, label=label)
    axes.fill_between(x, array.min(axis=0), array.max(axis=0), color=colour, alpha=0.15, lw=0)


if __name__ == "__main__":
    harness.main(run)
