"""Bayesian networks of few weights: how much of one can be zero from the first step on?

Claim (Li, Miao, Qiu & Zhang, 2024, "SSVI"): a normal posterior over a small set of weights, all
others zero, whose members are exchanged in training, keeps accuracy and calibration of a Bayesian
network within 3 % at 10 to 20 times fewer weights, and trains with up to 20 times fewer operations.

    python -m experiments.sparse_bayes                                              Fashion-MNIST
    python -m experiments.sparse_bayes --config=configs/sparse_bayes.py:data=digits

Expected, float32 on a CPU, 3 seeds: on Fashion-MNIST (10,000 images) 85.2, 85.1 and 83.5 % at 10,
5 and 2 % of the weights, dense VI 85.4, calibration error .011 against .032; on digits 97.1, 96.5
and 96.4 %, dense VI 96.5 (of 359 images: 0.3 % is one). So the claim holds against dense VI; a
network trained directly is more accurate (86.7 and 97.5 %), on digits better calibrated too. Images
of another kind are told apart by dense VI, AUROC .86, less well by SSVI, .77 to .79. That the
support moves is what counts: fixed it has 69 and 59 % at 2 %, dense VI pruned to that 44 and 59.

Beside SSVI stand the dense mean-field posterior, that one pruned after training by signal to noise,
the same sparse posterior on a random support that stays, and a network trained directly, dense and
pruned by magnitude. Prior scale or weight decay of each is chosen on a fifth of the training
images, by likelihood, then it trains on all of them. Operations are counted as a sparse program
would make them; ours computes with the zeros. A sparse posterior stores a mean, a deviation and a
place for each weight. Not here: a sparse network without a posterior whose support moves, and
pruned ones that are trained again. The prior scale chosen is often the largest tried: from 0.01
deviations cannot grow beyond one within so many steps, so the prior is hardly felt.
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
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from experiments import data, harness, models, plots, records
from subspace_jax import optim


class Task(NamedTuple):
    """A network, the images it learns and is tested on, and images of another kind."""

    split: data.Split
    init: Callable[[jax.Array], jax.Array]
    """key -> weights (D,)."""
    logits: Callable[[jax.Array, jax.Array], jax.Array]
    """(weights (D,), images) -> (num, classes)."""
    outside: np.ndarray | None


class Belief(NamedTuple):
    """Independent normal weights (D,), those that are always zero included."""

    mean: jax.Array
    scale: jax.Array


def run(config: ConfigDict, workdir: Path) -> dict:
    """Tune and train every method from every seed; print the table, draw, return numbers."""
    for method in config.methods:
        harness.pick("methods", method, METHODS)
    split = data.load(config.data, config.data_path)
    split = split._replace(
        train_x=split.train_x[: config.num_examples], train_y=split.train_y[: config.num_examples]
    )
    outside = data.load(config.outside).test_x if config.outside else None
    task = make_task(config, split, outside)
    tuning = make_task(config, data.hold_out(split.train_x, split.train_y, 0.2), None)
    pieces = [
        (method, density)
        for method in config.methods
        for density in (config.densities if METHODS[method].is_sparse else (1.0,))
    ]
    compute = partial(tuned, config, task, tuning)
    found = records.piecewise(workdir, pieces, compute, told)
    results: dict[str, Any] = {
        "num_weights": len(task.init(jax.random.key(0))),
        "settings": [piece["setting"] for piece in found],
        "methods": {},
    }
    for method, density, scored in (row for piece in found for row in piece["rows"]):
        results["methods"].setdefault(method, {})[f"{density:g}"] = scored
    results["summary"] = headline(config, results)
    records.say(table(results), sys.stdout)
    plots.save(workdir / "sparse_bayes.png", partial(draw, results), size=(11.5, 3.8))
    return results | {"seconds": {"compile": 0.0, "train": sum(p["seconds"] for p in found)}}


def told(piece: dict[str, Any]) -> dict[str, Any]:
    scored = piece["rows"][0][2]
    return {name: scored[name] for name in SCORES if name in scored}


def make_task(config: ConfigDict, split: data.Split, outside: np.ndarray | None) -> Task:
    model = models.MLP((*config.hidden, int(split.train_y.max()) + 1))
    like = jax.eval_shape(model.init, jax.random.key(0), split.train_x[:1])
    unravel = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like))[1]
    return Task(
        split,
        lambda key: ravel_pytree(model.init(key, split.train_x[:1]))[0],
        lambda weights, x: model.apply(unravel(weights), x),
        outside,
    )


def tuned(
    config: ConfigDict, task: Task, tuning: Task, method: str, density: float
) -> dict[str, Any]:
    """One method: the setting of the least validation loss, then every seed on all images."""
    start = time.perf_counter()
    settings, losses = config[METHODS[method].settings], []
    for setting in settings if len(settings) > 1 else ():
        belief = fitter(config, tuning, method, density, setting)(0)
        losses.append(scores(config, tuning, belief)["nll"])
    chosen = settings[int(np.argmin(losses))] if losses else settings[0]
    fit = fitter(config, task, method, density, chosen)
    beliefs = [fit(seed) for seed in range(config.num_seeds)]
    # all derivatives are needed at a swap, a third of the products of a dense step
    swaps = 1 / (3 * config.swap_every) if method == "SSVI" else 0.0
    rows = [(method, density, all_scores(config, task, beliefs, density + swaps))]
    for share in () if METHODS[method].is_sparse else config.densities:
        fewer = [pruned(belief, share) for belief in beliefs]
        rows.append((f"{method}, pruned", share, all_scores(config, task, fewer, 1.0)))
    return {"rows": rows, "setting": chosen, "seconds": time.perf_counter() - start}


def all_scores(
    config: ConfigDict, task: Task, beliefs: list[Belief], operations: float
) -> dict[str, Any]:
    """The scores of every seed; and the products of training as a share of a dense network's."""
    each = [scores(config, task, belief) for belief in beliefs]
    return {name: [found[name] for found in each] for name in each[0]} | {"operations": operations}


def fitter(
    config: ConfigDict, task: Task, method: str, density: float, setting: float
) -> Callable[[int], Belief]:
    """The map from a seed to what was learned, compiled once."""
    train = jax.jit(partial(METHODS[method].train, config, task, density, setting))
    x, y = jnp.asarray(task.split.train_x), jnp.asarray(task.split.train_y)
    return lambda seed: train(jax.random.fold_in(jax.random.key(config.seed), seed), x, y)


def variational(config, task, density, prior_scale, key, x, y, *, swap_fraction=None):
    """SSVI; at density 1 the mean-field posterior."""
    start_key, support_key, key = jax.random.split(key, 3)
    start = task.init(start_key) / density**0.5  # so that sums of few weights are as large
    share = config.swap_fraction if swap_fraction is None else swap_fraction
    method = optim.sparse_vi(
        lambda weights, x, y: cross_entropy(task, weights, x, y),
        start,
        optimizer(config),
        num_active=round(density * len(start)),
        num_examples=len(x),
        prior_scale=prior_scale,
        initial_scale=config.initial_scale,
        swap_every=config.swap_every,
        swap_fraction=optax.cosine_decay_schedule(share, round(0.75 * config.num_steps)),
        criterion=config.criterion,
    )

    def step(state, i):
        batch_key, update_key = jax.random.split(jax.random.fold_in(key, i))
        rows = jax.random.randint(batch_key, (config.batch_size,), 0, len(x))
        return method.update(update_key, state, x[rows], y[rows])[0], None

    state = method.init(support_key, start)
    posterior = jax.lax.scan(step, state, jnp.arange(config.num_steps))[0].posterior
    deviations = posterior._replace(mean=jnp.exp(posterior.log_scale))
    return Belief(method.center(posterior), method.center(deviations))


def direct(config, task, density, weight_decay, key, x, y):
    """One network by AdamW."""
    del density
    start_key, key = jax.random.split(key)
    transform = optimizer(config, weight_decay)

    def step(carry, i):
        weights, memory = carry
        rows = jax.random.randint(jax.random.fold_in(key, i), (config.batch_size,), 0, len(x))
        gradient = jax.grad(partial(cross_entropy, task))(weights, x[rows], y[rows])
        updates, memory = transform.update(gradient, memory, weights)
        return (optax.apply_updates(weights, updates), memory), None

    weights = task.init(start_key)
    steps = jnp.arange(config.num_steps)
    weights = jax.lax.scan(step, (weights, transform.init(weights)), steps)[0][0]
    return Belief(weights, jnp.zeros_like(weights))


class Method(NamedTuple):
    """How to train, and which of the config's lists it is tuned over."""

    train: Callable[..., Belief]
    settings: str
    is_sparse: bool


METHODS = {
    "direct": Method(direct, "weight_decays", False),
    "dense VI": Method(variational, "prior_scales", False),
    "SSVI": Method(variational, "prior_scales", True),
    "SSVI, fixed support": Method(partial(variational, swap_fraction=0.0), "prior_scales", True),
}


def optimizer(config: ConfigDict, weight_decay: float = 0.0) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    return optax.adamw(schedule, weight_decay=weight_decay)


def cross_entropy(task: Task, weights: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = task.logits(weights, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def pruned(belief: Belief, share: float) -> Belief:
    """Only the weights of the largest |mean| / scale; where there is no scale, of the largest."""
    importance = jnp.abs(belief.mean) / jnp.where(belief.scale > 0, belief.scale, 1)
    kept = jax.lax.top_k(importance, round(share * len(importance)))[1]
    zeros = jnp.zeros_like(importance)
    return Belief(*(zeros.at[kept].set(values[kept]) for values in belief))


def scores(config: ConfigDict, task: Task, belief: Belief) -> dict[str, float]:
    """Accuracy, likelihood and calibration of the averaged predictions on the test images."""
    labels = task.split.test_y
    predicted = predictions(config, task, belief, task.split.test_x)
    confidence = predicted.max(-1)
    found = {
        "accuracy": float(np.mean(predicted.argmax(-1) == labels)),
        "nll": float(-np.mean(np.log(predicted[np.arange(len(labels)), labels] + 1e-12))),
        "ece": calibration_error(confidence, predicted.argmax(-1) == labels, config.num_bins),
    }
    if task.outside is not None:
        other = predictions(config, task, belief, task.outside).max(-1)
        is_inside = np.repeat([1, 0], [len(confidence), len(other)])
        found["auroc"] = float(roc_auc_score(is_inside, np.concatenate([confidence, other])))
    return found


def predictions(config: ConfigDict, task: Task, belief: Belief, x: np.ndarray) -> np.ndarray:
    """Class probabilities (num, classes), the mean over networks drawn from the belief."""
    num_draws = config.num_draws if jnp.any(belief.scale) else 1  # or all were the same

    @jax.jit
    def averaged(belief, x):
        def one(key):
            noise = jax.random.normal(key, belief.mean.shape)
            return jax.nn.softmax(task.logits(belief.mean + belief.scale * noise, x))

        keys = jax.random.split(jax.random.key(config.seed), num_draws)
        return jnp.mean(jax.lax.map(one, keys), 0)

    return np.asarray(averaged(belief, x))


def calibration_error(confidence: np.ndarray, is_right: np.ndarray, num_bins: int) -> float:
    """The expected calibration error: |accuracy - confidence| over bins of equal width, weighted.

    Reference: Guo et al. (2017), "On calibration of modern neural networks", eq. 3.
    """
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def headline(config: ConfigDict, results: dict) -> str:
    """Accuracy, likelihood and calibration, means over the seeds."""
    parts = "; ".join(
        f"{method} {float(density):.0%}: {100 * np.mean(r['accuracy']):.1f} %, "
        f"NLL {np.mean(r['nll']):.3f}, ECE {np.mean(r['ece']):.3f}"
        for method, rows in results["methods"].items()
        for density, r in rows.items()
        if density == "1" or method == "SSVI"
    )
    return (
        f"{config.data}, {results['num_weights']:,} weights, {config.num_seeds} seeds, share of "
        f"weights that is not zero: {parts}"
    )


def table(results: dict) -> str:
    """A row a method and density: the mean over the seeds and their range."""
    names = measured(results)
    head = "".join(f"{SCORES[name]:>24}" for name in names)
    lines = [f"{'method':22}{'not zero':>10}{'operations':>12}{head}"]
    for method, rows in results["methods"].items():
        for density, r in rows.items():
            cells = "".join(
                f"{np.mean(r[n]):10.3f} ({min(r[n]):.3f}, {max(r[n]):.3f})".rjust(24) for n in names
            )
            lines.append(f"{method:22}{float(density):10.0%}{r['operations']:12.3f}{cells}")
    return "\n".join(lines)


def measured(results: dict) -> list[str]:
    rows = next(iter(results["methods"].values()))
    return [name for name in SCORES if name in next(iter(rows.values()))]


SCORES = {
    "accuracy": "accuracy",
    "nll": "neg. log-likelihood",
    "ece": "calibration error",
    "auroc": "AUROC, other images",
}
LOOKS = {
    "direct": (plots.GREY, "s"),
    "direct, pruned": (plots.GREY, "v"),
    "dense VI": (plots.ORANGE, "s"),
    "dense VI, pruned": (plots.ORANGE, "v"),
    "SSVI": (plots.BLUE, "o"),
    "SSVI, fixed support": (plots.SKY, "^"),
}


def draw(results: dict, figure: Figure) -> None:
    """Every score against the share of weights that is not zero: means, and the seeds' range."""
    names = measured(results)
    all_axes = figure.subplots(1, len(names))
    for axes, name in zip(all_axes, names, strict=True):
        for method, (colour, marker) in LOOKS.items():
            rows = results["methods"].get(method, {})
            values = np.array([r[name] for r in rows.values()]).reshape(len(rows), -1)
            if not rows:
                continue
            shares, middle = [float(density) for density in rows], values.mean(1)
            spread = [middle - values.min(1), values.max(1) - middle]
            axes.errorbar(shares, middle, spread, color=colour, marker=marker, label=method)
        axes.set(title=SCORES[name], xscale="log", xlabel="share of weights not zero")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)


if __name__ == "__main__":
    harness.main(run)
