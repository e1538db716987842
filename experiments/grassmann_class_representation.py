"""Classes as subspaces: a Grassmann head against softmax, each at its own best learning rate.

Claim (Wang, Li & Zhang, 2023, "GCR"): let a class be a k-dimensional subspace S_c of
feature space, its logit 25 |S_c^T x / |x||, and train the S_c by Riemannian SGD. ImageNet accuracy
then rises (ResNet50-D: 78.04 to 79.26 % at k = 8), features of a class vary more (60 to 68 degrees
at k = 32), and from k = 16 on linear transfer beats softmax (77.98 to 79.70 %).

    python -m experiments.grassmann_class_representation                              MNIST-5k
    python -m scripts.sweep --config=configs/grassmann_class_representation.py        every set

Expected: on 52 letters of typefaces that training has not seen the trend within subspaces holds,
13.1, 12.9, 12.7, 12.4 and 12.3 % error for k = 1, 4, 8, 16 and 32; softmax at its best rate has
12.2, with label smoothing 11.6. So there is no gain over a tuned softmax, and none in transfer:
84 % for softmax, 80 to 81 for subspaces of any k. On Fashion-MNIST it is the other way round: 15.3,
15.0, 14.7, 14.6 and 14.4 %, softmax 14.6, label smoothing 14.4, and transfer rises from 86 % to 88.
With a small convolutional backbone there (``data=fashion_mnist,conv``) it is 14.2, 13.9, 14.0, 13.6
and 13.8 %, softmax 12.9, label smoothing 12.5, transfer 85 to 87 % for softmax's 82. On MNIST-5k
the trend is 5.9, 5.6, 5.5, 5.4 and 5.1 %, softmax 4.9, label smoothing 4.5; transfer to
digits 92 to 94 %, softmax 92. On digits 4.9, 4.2, 4.3, 3.8 and 4.2 %, softmax 3.8, label smoothing
2.9; transfer to MNIST-5k 83 to 87 %, softmax 78, label smoothing 87.

Every head trains at every learning rate and seed in one program; the learning rate is chosen by
the mean error on held-out training images, and the test is looked at there alone. Variability is
the mean angle between test features of one class, R^2 the class separation of Kornblith et al.
(2021), transfer the accuracy of a ridge classifier on the frozen features of other sets.
"""

import contextlib
import operator
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from ml_collections import ConfigDict
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments import data, harness, models, plots, records
from subspace_jax import optim
from subspace_jax.manifolds import grassmann


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train all heads, choose each one's learning rate, print the table, draw, return numbers."""
    split, test = examples(config)
    transfer = {name: probe_sets(config, name, split) for name in config.transfer}
    seconds = {"compile": 0.0, "train": 0.0}
    results: dict[str, Any] = {"test_error": {}, "heads": {}, "num_train": len(split.train_x)}
    log = records.MetricsLog(workdir, 0, len(heads(config)), 1)
    with contextlib.closing(log):
        for done, name in enumerate(heads(config), 1):
            records.say(f"{name} ...")
            folder = workdir / name.replace(" ", "_")
            folder.mkdir(exist_ok=True)
            model = classifier(config, name, int(split.train_y.max()) + 1)
            params, spent = train(config, folder, name, model, split)
            head = assess(config, model, params, split, test, transfer)
            results["heads"][name] = head
            seconds = {phase: seconds[phase] + spent[phase] for phase in seconds}
            results["test_error"][name] = head["test_error"].mean()
            log.update(done, {"test error": head["test_error"]})
    results["summary"] = headline(config, results["heads"])
    records.say(table(config, results["heads"]), sys.stdout)
    picture = workdir / "grassmann_class_representation.png"
    plots.save(picture, partial(draw, config, results["heads"]), size=(9.6, 6.8))
    return results | {"seconds": seconds}


def examples(config: ConfigDict) -> tuple[data.Split, tuple[np.ndarray, np.ndarray]]:
    """Training images with validation images as their test; the final test apart."""
    whole = data.load(config.data, config.data_path)
    split = data.hold_out_last(whole, config.validation)
    keep = np.random.default_rng(config.seed).permutation(len(split.train_x))[: config.num_train]
    split = split._replace(train_x=split.train_x[keep], train_y=split.train_y[keep])
    return split, (whole.test_x[: config.num_test], whole.test_y[: config.num_test])


def probe_sets(config: ConfigDict, name: str, like: data.Split) -> data.Split:
    """Another data set, its images in the size of ours, at most ``num_probe`` to train on."""
    split = data.load(name)

    def resized(x):
        return np.asarray(jax.image.resize(x, (len(x), *like.train_x.shape[1:]), "linear"))

    keep = np.random.default_rng(config.seed).permutation(len(split.train_x))[: config.num_probe]
    test = slice(config.num_test)
    return data.Split(
        resized(split.train_x[keep]),
        split.train_y[keep],
        resized(split.test_x[test]),
        split.test_y[test],
    )


def heads(config: ConfigDict) -> tuple[str, ...]:
    """The class representations to compare, by name."""
    return (*config.baselines, *(f"GCR {k}" for k in config.ranks))


def classifier(config: ConfigDict, name: str, num_classes: int) -> models.Classifier:
    """The backbone with one of the heads."""
    heads = {
        "softmax": nn.Dense(num_classes),
        "label smoothing": nn.Dense(num_classes),
        "cosine softmax": models.CosineHead(num_classes, config.gamma),
        **{f"GCR {k}": models.GrassmannHead(num_classes, k, config.gamma) for k in config.ranks},
    }
    backbones = {
        "mlp": models.MLP((*config.hidden, config.num_features)),
        "conv": models.ConvNet(config.channels, config.num_features),
    }
    backbone = harness.pick("backbone", config.backbone, backbones)
    return models.Classifier(backbone, harness.pick("baselines", name, heads))


def train(config, folder, name, model, split) -> tuple[Any, dict[str, float]]:
    """Parameters (num_rates, num_seeds, ...) of all runs of one head."""
    smoothing = config.label_smoothing if name == "label smoothing" else 0.0
    rates = jnp.asarray(config.learning_rates)

    def start(rate, seed):
        key = jax.random.fold_in(jax.random.key(config.seed), seed)
        params = model.init(key, split.train_x[:1])["params"]
        return {"params": params, "optimizer": optimizer(config, rate).init(params)}

    streams = [
        data.epochs(split, config.batch_size, (config.seed, s)) for s in range(config.num_seeds)
    ]

    def batches(step):
        xs, ys = zip(*(stream(step) for stream in streams), strict=True)
        return np.stack(xs, 1), np.stack(ys, 1)

    over_runs = jax.vmap(jax.vmap(start, (None, 0)), (0, None))
    state, seconds = harness.train(
        folder,
        config,
        jax.jit(over_runs)(rates, jnp.arange(config.num_seeds)),
        partial(train_step, model, config, smoothing),
        batches,
        constants=(rates,),
    )
    return state["params"], seconds


def train_step(model, config, smoothing, state, batch, key, rates):
    """One step of all runs; seeds see different batches, learning rates the same."""
    del key  # nothing here is random but the batches

    def loss(params, x, y):
        logits = model.apply({"params": params}, x)
        targets = optax.smooth_labels(jax.nn.one_hot(y, logits.shape[-1]), smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    def one_run(rate, state, x, y):
        value, grads = jax.value_and_grad(loss)(state["params"], x, y)
        updates, memory = optimizer(config, rate).update(grads, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "optimizer": memory}, value

    x, y = (jnp.moveaxis(leaf, 1, 0) for leaf in batch)

    def one_rate(rate, state):
        return harness.each(partial(one_run, rate))(state, x, y)

    state, losses = harness.each(one_rate)(rates, state)
    return state, {"loss": losses}


def optimizer(config: ConfigDict, rate: jax.Array) -> optax.GradientTransformation:
    """SGD with momentum, Riemannian for the subspaces, on one cosine schedule."""

    def schedule(step):
        return rate * (1 + jnp.cos(jnp.pi * step / config.num_steps)) / 2

    euclidean = optax.chain(
        optax.add_decayed_weights(config.weight_decay), optax.sgd(schedule, config.momentum)
    )
    riemannian = optim.riemannian_sgd(
        schedule, config.momentum, manifold=grassmann, transport=config.transport
    )

    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "subspaces" if path[-1].key == "subspaces" else "euclidean", params
        )

    return optax.partition({"subspaces": riemannian, "euclidean": euclidean}, labels)


def assess(config, model, params, split, test, transfer) -> dict[str, Any]:
    """Errors of all runs on validation images; everything else at the best learning rate."""

    @jax.jit
    def error(params, x, y):
        return jnp.mean(model.apply({"params": params}, x).argmax(-1) != y)

    @jax.jit
    def features(params, x):
        return model.apply({"params": params}, x, method="features")

    def runs(of):
        seeds = range(config.num_seeds)
        return [jax.tree.map(operator.itemgetter((of, seed)), params) for seed in seeds]

    validation = np.asarray(
        [
            [error(run, split.test_x, split.test_y) for run in runs(rate)]
            for rate in range(len(config.learning_rates))
        ]
    )
    best = int(validation.mean(1).argmin())
    chosen = runs(best)
    assessed = {
        "learning_rate": config.learning_rates[best],
        "validation_error": validation,
        "test_error": [error(run, *test) for run in chosen],
        "variability": [variability(features(run, test[0]), test[1]) for run in chosen],
        "separation": [separation(features(run, test[0]), test[1]) for run in chosen],
        "transfer": {
            name: [probe(partial(features, run), other) for run in chosen]
            for name, other in transfer.items()
        },
    }
    if "subspaces" in params["head"]:
        assessed["constraint_violation"] = jnp.max(grassmann.check(params["head"]["subspaces"]))
    return jax.tree.map(np.asarray, assessed, is_leaf=lambda value: isinstance(value, list))


def variability(features: jax.Array, labels: np.ndarray) -> float:
    """The mean angle, in degrees, between two features of one class, over the classes."""
    means = []
    for label in np.unique(labels):
        x = _unit(np.asarray(features)[labels == label])
        pairs = np.triu_indices(len(x), 1)
        means.append(np.degrees(np.arccos(np.clip((x @ x.T)[pairs], -1, 1))).mean())
    return float(np.mean(means))


def separation(features: jax.Array, labels: np.ndarray) -> float:
    """R^2: one minus the mean cosine distance within classes over that between all.

    Reference: Kornblith et al. (2021), "Why do better loss functions lead to less transferable
    features?", section 3.2; classes weigh the same.
    """
    x = _unit(np.asarray(features))
    means = np.stack([x[labels == label].mean(0) for label in np.unique(labels)])
    within, total = 1 - np.mean(np.sum(means**2, 1)), 1 - np.sum(means.mean(0) ** 2)
    return float(1 - within / total)


def probe(features: Callable[[np.ndarray], jax.Array], split: data.Split) -> float:
    """The accuracy of a ridge classifier on frozen features, its penalty by leave-one-out."""
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-2, 4, 13)))
    model.fit(np.asarray(features(split.train_x), np.float64), split.train_y)
    return model.score(np.asarray(features(split.test_x), np.float64), split.test_y)


def headline(config: ConfigDict, heads: dict[str, Any]) -> str:
    """One sentence: the best subspaces beside softmax, in error and in transfer."""
    grassmann_heads = [f"GCR {k}" for k in config.ranks]
    chosen = min(grassmann_heads, key=lambda name: heads[name]["validation_error"].mean(1).min())
    error = ", ".join(
        f"{name} {_percent(heads[name]['test_error'])}" for name in (*config.baselines, chosen)
    )
    transfer = ", ".join(
        f"{name} {100 * _transfer(heads[name]).mean():.1f}"
        for name in dict.fromkeys((*config.baselines, grassmann_heads[0], grassmann_heads[-1]))
    )
    return (
        f"{config.data}, {config.backbone}, {config.num_seeds} seeds: test error in % {error} (k by"
        f" validation); accuracy in % of linear transfer {transfer}"
    )


def table(config: ConfigDict, heads: dict[str, Any]) -> str:
    """A row for each head: mean and standard deviation over seeds."""
    columns = ("rate", "error, %", "angle", "R^2", *config.transfer)
    lines = [f"{'':16}" + "".join(f"{column:>16}" for column in columns)]
    for name, head in heads.items():
        cells = [
            f"{head['learning_rate']:g}",
            _percent(head["test_error"]),
            f"{head['variability'].mean():.1f}",
            f"{head['separation'].mean():.3f}",
            *(_percent(scores) for scores in head["transfer"].values()),
        ]
        lines.append(f"{name:16}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def draw(config: ConfigDict, heads: dict[str, Any], figure: Figure) -> None:
    """Error, transfer and geometry against k beside the vectors; error against learning rate."""
    error, transfer, geometry, rates = figure.subplots(2, 2).flat
    ranks = [str(k) for k in config.ranks]
    colours = (plots.GREY, plots.ORANGE, plots.GREEN)
    baselines = dict(zip(config.baselines, colours, strict=False))
    panels = (
        (error, "test error, %", lambda head: 100 * head["test_error"]),
        (transfer, "linear transfer, %", lambda head: 100 * _transfer(head)),
        (geometry, "angle within a class, degrees", lambda head: head["variability"]),
    )
    for axes, title, values in panels:
        ours = [values(heads[f"GCR {k}"]) for k in config.ranks]
        axes.errorbar(
            ranks, [v.mean() for v in ours], [v.std() for v in ours],
            color=plots.BLUE, marker="o", capsize=3, label="GCR",
        )  # fmt: skip
        for name, colour in baselines.items():
            axes.axhline(values(heads[name]).mean(), color=colour, label=name)
        axes.set(title=title, xlabel="dimension k of a class")
    for name, colour in {**baselines, f"GCR {config.ranks[-1]}": plots.BLUE}.items():
        errors = 100 * heads[name]["validation_error"].mean(1)
        rates.plot(config.learning_rates, errors, color=colour, marker="o")
    title = f"validation error, %, GCR of k = {config.ranks[-1]}"
    rates.set(title=title, xlabel="learning rate", xscale="log", yscale="log")
    rates.set_xticks(config.learning_rates, [f"{rate:g}" for rate in config.learning_rates])
    rates.set_xticks([], minor=True)
    rates.yaxis.set_major_formatter("{x:g}")
    fewer = LogFormatter(minor_thresholds=(2, 0.5))  # of the ticks within a decade
    rates.yaxis.set_minor_formatter(fewer)
    handles, labels = error.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _transfer(head: dict[str, Any]) -> np.ndarray:
    """The mean over the other sets, for each seed."""
    return np.mean(list(head["transfer"].values()), axis=0)


def _percent(values: np.ndarray) -> str:
    return f"{100 * values.mean():.2f} ± {100 * values.std():.2f}"


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


if __name__ == "__main__":
    harness.main(run)
