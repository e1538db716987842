"""Language models by optimizers whose moments have a low rank: what is lost, and what is gained?

Claim (Zhao et al., 2024, "GaLore"; Liang et al., 2024, "Online Subspace Descent"; SARA; GrassWalk
and GrassJump; Nguyen & Nguyen, 2025, "SN-SM"): moments in a subspace of each gradient take a
fraction of Adam's memory at about its loss; each later method has a lower loss than GaLore.

    python -m experiments.low_rank_training                                     1M parameters
    python -m experiments.low_rank_training --config=configs/low_rank_training.py:small

Expected of ``small`` (133,440 parameters, 400 steps, rank 16 of 64), float32 on a CPU, 2 seeds,
nats per byte: Adam 1.91, GaLore 1.91, OSD 1.91, SARA 1.93, SN-SM 1.89, GrassJump 1.82, GrassWalk
1.79; the optimizer's state is 1.07 MB, .52 (OSD .64, SN-SM .30). So the claim on memory holds, and
that on the loss for the two that recover the residual: GaLore with that alone has 1.84, so the walk
itself gives the smaller part (what is recovered is not scaled by .25, as all else is). At rank 4,
16, 32: GaLore 2.01, 1.91, 1.88, with the residual 1.87, 1.84, 1.86, OSD 2.01, 1.91, 1.88, SARA
1.97, 1.93, 1.95, GrassWalk 1.85, 1.79, 1.80, GrassJump 1.90, 1.82, 1.80, SN-SM 1.87, 1.89, 1.89
(other ranks: one seed, the rate of rank 16). SARA and SN-SM chose the largest rate tried. Times are
those of each method's fastest 50 steps: the cores are shared. The default, of 1M parameters, was
not run.

As in GaLore the matrices of attention and of feed-forward layers have subspaces; embeddings, head
and vectors are trained by full Adam (SN-SM: momentum over subset norms). Learning rates are chosen
for every method on a part of the text that is neither trained nor reported on, in shorter runs.
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
import optax
from jax.sharding import NamedSharding, PartitionSpec
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import harness, meshes, plots, records, text, transformer
from subspace_jax import optim


class Trainer(NamedTuple):
    """Compiled functions of one optimizer; states are (parameters, the optimizer's)."""

    init: Callable[[jax.Array], Any]
    advance: Callable[..., tuple[Any, jax.Array]]
    """(state, first step, learning rate, key) -> the state ``log_every`` steps later."""
    peak_bytes: int
    """Of ``advance``: arguments, results and what it needs meanwhile."""


def run(config: ConfigDict, workdir: Path) -> dict:
    """Tune and train by every method; print the table, draw, return numbers."""
    for method in config.methods:
        harness.pick("methods", method, METHODS)
    corpus = text.load(config.path, num_bytes=config.num_bytes)
    pieces = [(method,) for method in config.methods]
    evaluate = jax.jit(partial(mean_loss, config))  # compiled once for all
    found = records.piecewise(workdir, pieces, partial(studied, config, corpus, evaluate), told)
    rows = dict(zip(config.methods, found, strict=True))
    results: dict[str, Any] = {
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(shapes(config))),
        "state_bytes": {method: row["state_bytes"] for method, row in rows.items()},
        "text": {"digest": corpus.digest, "train_bytes": len(corpus.train)},
        "methods": rows,
    }
    results["summary"] = headline(config, results)
    records.say(table(rows), sys.stdout)
    plots.save(workdir / "low_rank_training.png", partial(draw, config, rows), size=(12, 4.2))
    seconds = {name: sum(row["spent"][name] for row in found) for name in ("compile", "train")}
    return results | {"seconds": seconds}


def told(piece: dict[str, Any]) -> dict[str, Any]:
    return {"loss": float(np.mean(piece["loss"], axis=0)[-1]), "rate": piece["learning_rate"]}


def studied(
    config: ConfigDict, corpus: text.Text, evaluate: Callable, method: str
) -> dict[str, Any]:
    """One method: its learning rate, curves of all seeds, its costs, and other ranks."""
    start = time.perf_counter()
    tune, test = (partial(mean_over, config, evaluate, part) for part in (corpus.tune, corpus.test))
    tuning = {}
    if len(config.learning_rates) > 1:
        steps = config.num_tuning_steps
        one = trainer(config, corpus, method, config.rank, steps)
        for rate in config.learning_rates:
            tuning[f"{rate:g}"] = trained(config, one, tune, rate, 1000, steps)[0][-1]
    rate = config.learning_rates[int(np.argmin(list(tuning.values()))) if tuning else 0]
    before = time.perf_counter()
    full = trainer(config, corpus, method, config.rank, config.num_steps)
    compiled = time.perf_counter() - before
    runs = [
        trained(config, full, test, rate, seed, config.num_steps)
        for seed in range(config.num_seeds)
    ]
    ranks = {}
    for rank in config.ranks if method in config.rank_methods else ():
        other = trainer(config, corpus, method, rank, config.num_steps)
        losses, _ = trained(config, other, test, rate, 0, config.num_steps)
        ranks[str(rank)] = {"loss": losses[-1], "state_bytes": state_bytes(other)}
    return {
        "learning_rate": rate,
        "tuning": tuning,
        "loss": [losses for losses, _ in runs],
        "seconds": [seconds for _, seconds in runs],
        # Of the fastest stretch: others may use the cores.
        "step_seconds": float(np.diff([s for _, s in runs], prepend=0, axis=1).min())
        / config.log_every,
        "state_bytes": state_bytes(full),
        "peak_bytes": full.peak_bytes,
        "ranks": ranks,
        "spent": {"compile": compiled, "train": time.perf_counter() - start - compiled},
    }


def blocks_only(path: Any, leaf: Any) -> optim.MatrixAxes | None:
    """Matrices of all but the embeddings and the head, as in GaLore."""
    name = jax.tree_util.keystr(path)
    return None if "Embed" in name or "head" in name else optim.matrix_axes(path, leaf)


def low_rank(preset: Callable, rate: Any, rank: int, **options: Any) -> Any:
    return preset(rate, rank=rank, axes=blocks_only, **options)


METHODS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "Adam": lambda rate, rank, refresh_every: optax.adam(rate),
    "GaLore": partial(low_rank, optim.galore),
    # A control: is it the walk, or that something of the residual is kept?
    "GaLore, recovered": partial(low_rank, optim.galore, residual=optim.recover()),
    # Its basis moves in every step.
    "OSD": lambda rate, rank, refresh_every: low_rank(optim.online_subspace_descent, rate, rank),
    "SARA": partial(low_rank, optim.sara),
    "GrassWalk": partial(low_rank, optim.grasswalk),
    "GrassJump": partial(low_rank, optim.grassjump),
    "SN-SM": partial(low_rank, optim.subspace_momentum),
}


def shapes(config: ConfigDict) -> Any:
    """Of the parameters."""
    return jax.eval_shape(partial(first_params, config), jax.random.key(0))


def first_params(config: ConfigDict, key: jax.Array) -> Any:
    return network(config).init(key, jnp.zeros((1, config.context), jnp.uint8))


def network(config: ConfigDict) -> transformer.Transformer:
    return transformer.Transformer(transformer.Shape(*config.shape))


def loss(config: ConfigDict, params: Any, windows: jax.Array) -> jax.Array:
    """Nats per byte of windows (num, context + 1)."""
    return transformer.next_token_loss(network(config).apply(params, windows[:, :-1]), windows)


def mean_loss(config: ConfigDict, params: Any, windows: jax.Array) -> jax.Array:
    """Of windows (num, size, context + 1), some at a time."""
    return jax.lax.map(partial(loss, config, params), windows).mean()


def mean_over(config: ConfigDict, evaluate: Callable, held_out: np.ndarray, params: Any) -> float:
    windows = text.spread_windows(held_out, config.num_windows, config.context + 1)
    return float(evaluate(params, windows.reshape(-1, config.num_windows // 8, windows.shape[1])))


def make_step(config: ConfigDict, method: str, rank: int, num_steps: int) -> tuple:
    """``init(key)`` and ``step(state, i, rate, key, text)``; batches lie over all devices."""
    over_devices = NamedSharding(meshes.data_mesh(), PartitionSpec("data"))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, 1.0, round(config.warmup * num_steps), num_steps, 0.1
    )

    def optimizer(rate):
        return METHODS[method](
            lambda count: rate * schedule(count), rank=rank, refresh_every=config.refresh_every
        )

    def init(key):
        params = first_params(config, key)
        return params, optimizer(1.0).init(params)

    def step(state, i, rate, key, corpus):
        params, memory = state
        size = config.batch_size, config.context + 1
        windows = text.windows(jax.random.fold_in(key, i), corpus, *size)
        if config.batch_size % over_devices.mesh.size == 0:
            windows = jax.lax.with_sharding_constraint(windows, over_devices)
        value, grads = jax.value_and_grad(partial(loss, config))(params, windows)
        updates, memory = optimizer(rate).update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    return init, step


def trainer(
    config: ConfigDict, corpus: text.Text, method: str, rank: int, num_steps: int
) -> Trainer:
    """Everything compiled, so that training can be timed."""
    init, step = make_step(config, method, rank, num_steps)
    train = jnp.asarray(corpus.train)

    def advance(state, first, rate, key, train):
        def body(state, i):
            return step(state, i, rate, key, train)

        state, losses = jax.lax.scan(body, state, first + jnp.arange(config.log_every))
        return state, losses.mean()

    key = jax.random.key(0)
    like = jax.eval_shape(init, key)
    call = jax.jit(advance, donate_argnums=0).lower(like, 0, 1.0, key, train).compile()
    sizes: Any = call.memory_analysis()
    peak = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    peak += sizes.temp_size_in_bytes - sizes.alias_size_in_bytes
    return Trainer(jax.jit(init), lambda *given: call(*given, train), int(peak))


def trained(
    config: ConfigDict, one: Trainer, judge: Callable, rate: float, seed: int, num_steps: int
) -> tuple[list[float], list[float]]:
    """What the judge says, and seconds of training, after every ``log_every`` steps."""
    key = jax.random.fold_in(jax.random.key(config.seed), seed)
    state = one.init(jax.random.fold_in(key, 0))
    losses, seconds, spent = [], [], 0.0
    for first in range(0, num_steps, config.log_every):
        start = time.perf_counter()
        state, _ = one.advance(state, first, rate, key)
        jax.block_until_ready(state)
        spent += time.perf_counter() - start
        losses.append(judge(state[0]))
        seconds.append(spent)
    return losses, seconds


def state_bytes(one: Trainer) -> int:
    """Of the arrays of the optimizer's state."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(one.init(jax.random.key(0))[1]))


def headline(config: ConfigDict, results: dict) -> str:
    """Final losses, and what the state takes."""
    rows = results["methods"]
    parts = ", ".join(
        f"{method} {np.mean(row['loss'], axis=0)[-1]:.3f} ({row['state_bytes'] / 1e6:.2f} MB)"
        for method, row in rows.items()
    )
    return (
        f"{results['num_params']:,} parameters, rank {config.rank}, {config.num_steps} steps, "
        f"{config.num_seeds} seeds: nats per byte (optimizer state): {parts}"
    )


def table(rows: dict[str, Any]) -> str:
    """Loss of every seed, state, peak memory, time of a step against Adam's."""
    base = next(iter(rows.values()))["step_seconds"]
    lines = [
        f"{'method':18}{'loss of each seed':>24}{'rate':>8}{'state':>9}{'peak':>9}{'ms/step':>9}"
        f"{'ratio':>7}  loss at other ranks"
    ]
    for method, row in rows.items():
        losses = " ".join(f"{curve[-1]:.3f}" for curve in row["loss"])
        ranks = "  ".join(f"{rank}: {r['loss']:.3f}" for rank, r in row["ranks"].items())
        lines.append(
            f"{method:18}{losses:>24}{row['learning_rate']:8g}{row['state_bytes'] / 1e6:6.2f} MB"
            f"{row['peak_bytes'] / 1e6:6.1f} MB{1e3 * row['step_seconds']:9.2f}"
            f"{row['step_seconds'] / base:7.2f}  {ranks}"
        )
    return "\n".join(lines)


COLOURS = {
    "Adam": plots.GREY,
    "GaLore": plots.BLUE,
    "GaLore, recovered": "#808000",
    "OSD": plots.ORANGE,
    "SARA": plots.GREEN,
    "GrassWalk": plots.VERMILION,
    "GrassJump": plots.PURPLE,
    "SN-SM": plots.SKY,
}


def draw(config: ConfigDict, rows: dict[str, Any], figure: Figure) -> None:
    """Loss against steps, against time, and at the end against the bytes of the state."""
    by_step, by_time, by_bytes = figure.subplots(1, 3, sharey=True)
    steps = config.log_every * (1 + np.arange(len(next(iter(rows.values()))["loss"][0])))
    for method, row in rows.items():
        curve, colour = np.mean(row["loss"], axis=0), COLOURS[method]
        by_step.plot(steps, curve, color=colour, label=method)
        by_time.plot(steps * row["step_seconds"], curve, color=colour)
        points = [(r["state_bytes"], r["loss"]) for r in row["ranks"].values()]
        points = sorted([*points, (row["state_bytes"], curve[-1])])
        sizes, losses = zip(*points, strict=True)
        by_bytes.plot(np.array(sizes) / 1e6, losses, color=colour, marker="o")
    lowest = min(np.mean(row["loss"], axis=0)[-1] for row in rows.values())
    by_step.set(xlabel="step", ylabel="nats per byte, other files", ylim=(lowest - 0.1, lowest + 1))
    by_time.set(xlabel="seconds, at the pace of the fastest stretch")
    by_bytes.set(xlabel="optimizer state, MB (other ranks: one seed)")
    figure.legend(*by_step.get_legend_handles_labels(), loc="outside lower center", ncols=8)


if __name__ == "__main__":
    harness.main(run)
