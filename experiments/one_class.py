"""One class of normal examples: subspaces against the usual detectors, on vectors and on textures.

Claims: a pair of orthonormal frames encloses a class better than one hyperplane, OC-SVM and the
like (Wang & Cherian, 2019, "GODS"); and the residual of plain PCA on patch features, without any
training, finds defects as well as memory banks do ("SubspaceAD", 2026: AUROC of 97 on MVTec).

    python -m experiments.one_class

Expected (AUROC, means over the normal classes of digits, breast cancer, wine, MNIST-5k and
Fashion-MNIST): GODS 97, 77, 93, 86 and 84 %, PCA above the noise 100, 79, 95, 96 and 91, OC-SVM 99,
91, 93, 93 and 90: no gain from the frames. PCA residuals of network features are the best at
telling images with defects (brick, grass, gravel 95, 85, 88 %; nearest neighbours 79, 71, 59) and
as good as the others at their pixels (92 to 97 %). Tumours, one patient against the other, nothing
finds: pixels 50 to 71 %.

Every class of every set is once the normal one; detectors see its training examples alone, scored
by the area under the ROC curve on the test set. Settings are published defaults or follow from the
normal examples; the best of a grid chosen on the test (``oracle``), which nobody can have, stands
apart. Textures: 4 tiles of a photograph to learn from, 12 to test, half of them with synthetic
defects. Brain tumours: slices of one patient that no mask touches, to find the tumour of another,
both ways (option ``full``). Patch features are those of a network trained on ImageNet, if its
weights are in the cache, or of a bank of Gaussian derivatives.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from sklearn import datasets
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM

from experiments import brains, data, efficientnet, harness, plots, records, textures
from subspace_jax.anomaly import gods, kernel, pca_residual

Score = Callable[[np.ndarray], np.ndarray]
"""Examples -> scores, high where abnormal."""
_fit_gods = jax.jit(gods.fit, static_argnames=("num_directions", "margin", "maxiter"))
_score_map = jax.jit(pca_residual.score_map, static_argnames=("shape", "sigma"))


def run(config: ConfigDict, workdir: Path) -> dict:
    """Score every detector on every class and texture; print, draw, return the numbers."""
    results: dict[str, Any] = {"vectors": {}, "oracle": {}, "images": {}}
    start, pictures = time.perf_counter(), []
    num_steps = len(config.sets) + len(config.images)
    extract, results["features"] = patch_features(config)
    with contextlib.closing(records.MetricsLog(workdir, 0, num_steps, 1)) as log:
        for done, name in enumerate(config.sets, 1):
            records.say(f"{name} ...")
            results["vectors"][name], results["oracle"][name] = on_vectors(config, name)
            log.update(done, results["vectors"][name])
        for done, name in enumerate(config.images, 1 + len(config.sets)):
            records.say(f"{name} ...")
            rounds = on_brains if name == "brain tumours" else partial(on_textures, name)
            results["images"][name], example = on_images(config, rounds(config), extract)
            pictures.append((name, example))
            log.update(done, {m: a["pixel"] for m, a in results["images"][name].items()})
    results["summary"] = headline(results)
    records.say(table(results), sys.stdout)
    plots.save(workdir / "one_class.png", partial(draw, pictures), size=(9.2, 2.5 * len(pictures)))
    return results | {"seconds": {"compile": 0.0, "train": time.perf_counter() - start}}


def on_vectors(config: ConfigDict, name: str) -> tuple[dict, dict]:
    """AUROC (num_classes,) of every detector, and of the oracles."""
    split = vectors(config, name)
    scores: dict[str, list] = {}
    oracles: dict[str, list] = {}
    counts = np.bincount(split.train_y)
    num_train = min(counts[counts > 0].min(), config.max_train)  # one shape: compiled once a set
    for label in np.unique(split.train_y):
        normal = split.train_x[split.train_y == label][:num_train]
        centre, spread = normal.mean(0), normal.std(0).mean() * np.sqrt(normal.shape[1])
        train, test = (normal - centre) / spread, (split.test_x - centre) / spread
        abnormal = split.test_y != label
        for method, fit in DETECTORS.items():
            area = roc_auc_score(abnormal, fit(config, train)(test))
            scores.setdefault(method, []).append(area)
        for method, grid in ORACLES.items():
            areas = [roc_auc_score(abnormal, fit(train)(test)) for fit in grid(config)]
            oracles.setdefault(method, []).append(max(areas))
    return {m: np.asarray(v) for m, v in scores.items()}, {
        m: np.asarray(v) for m, v in oracles.items()
    }


def vectors(config: ConfigDict, name: str) -> data.Split:
    """A set as rows of features; wine has no file of ours, its split is `data.hold_out`'s."""
    if name == "wine":
        bunch = datasets.load_wine()
        split = data.hold_out(bunch.data.astype(np.float32), bunch.target, 0.3)
    else:
        split = data.load(name)
    if split.train_x.ndim == 2:  # units differ from feature to feature
        scale = split.train_x.std(0)
        split = split._replace(train_x=split.train_x / scale, test_x=split.test_x / scale)
    test = np.random.default_rng(config.seed).permutation(len(split.test_x))[: config.max_test]
    return data.Split(
        split.train_x.reshape(len(split.train_x), -1),
        split.train_y,
        split.test_x[test].reshape(len(test), -1),
        split.test_y[test],
    )


def by_gods(config: ConfigDict, train: np.ndarray, *, num_directions: int, margin=0.1) -> Score:
    model = _fit_gods(
        jax.random.key(config.seed),
        jnp.asarray(train),
        num_directions=min(num_directions, train.shape[1]),
        margin=margin,
        maxiter=config.gods_steps,
    )
    return lambda test: np.asarray(gods.score(model, jnp.asarray(test)))


def by_kernel_gods(config: ConfigDict, train: np.ndarray) -> Score:
    """GODS on coordinates of the Gaussian kernel of scikit-learn's default width."""
    gamma = 1 / (train.shape[1] * train.var())
    coordinates = kernel.fit(
        jnp.asarray(train), gamma=gamma, rank=min(config.kernel_rank, len(train))
    )
    embed = partial(kernel.apply, coordinates)
    inner = by_gods(config, embed(jnp.asarray(train)), num_directions=config.num_directions)
    return lambda test: inner(embed(jnp.asarray(test)))


def by_pca(config: ConfigDict, train: np.ndarray, *, energy: float | None = None) -> Score:
    model = jax.jit(partial(pca_residual.fit, energy=energy or config.energy))(train)
    return lambda test: np.asarray(pca_residual.score(model, jnp.asarray(test)))


def by_pca_above_noise(config: ConfigDict, train: np.ndarray) -> Score:
    del config
    model = jax.jit(pca_residual.fit_above_noise)(train)
    return lambda test: np.asarray(pca_residual.score(model, jnp.asarray(test)))


def by_svm(config: ConfigDict, train: np.ndarray, *, gamma: Any = "scale", nu=0.1) -> Score:
    del config
    model = OneClassSVM(gamma=gamma, nu=nu).fit(train)
    return lambda test: -model.score_samples(test)


def by_forest(config: ConfigDict, train: np.ndarray) -> Score:
    model = IsolationForest(random_state=config.seed).fit(train)
    return lambda test: -model.score_samples(test)


def by_neighbour(config: ConfigDict, train: np.ndarray) -> Score:
    del config
    model = NearestNeighbors(n_neighbors=1).fit(train)
    return lambda test: model.kneighbors(test)[0][:, 0]


def by_mahalanobis(config: ConfigDict, train: np.ndarray) -> Score:
    """The covariance shrunk by Ledoit & Wolf's rule."""
    del config
    return LedoitWolf().fit(train).mahalanobis


DETECTORS: dict[str, Callable[[ConfigDict, np.ndarray], Score]] = {
    "GODS": lambda config, train: by_gods(config, train, num_directions=config.num_directions),
    "BODS": partial(by_gods, num_directions=1),
    "kernel GODS": by_kernel_gods,
    "PCA residual": by_pca,
    "PCA above noise": by_pca_above_noise,
    "OC-SVM": by_svm,
    "isolation forest": by_forest,
    "1-NN": by_neighbour,
    "Mahalanobis": by_mahalanobis,
}
ORACLES: dict[str, Callable[[ConfigDict], list[Callable[[np.ndarray], Score]]]] = {
    "GODS": lambda config: [
        partial(by_gods, config, num_directions=k, margin=margin)
        for k in config.oracle_directions
        for margin in config.oracle_margins
    ],
    "PCA residual": lambda config: [
        partial(by_pca, config, energy=energy) for energy in config.oracle_energies
    ],
    "OC-SVM": lambda config: [
        partial(by_svm, config, gamma=gamma, nu=nu)
        for gamma in config.oracle_gammas
        for nu in config.oracle_nus
    ],
}
PATCH_DETECTORS = ("PCA residual", "1-NN", "Mahalanobis")


def patch_features(config: ConfigDict) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """The best extractor at hand, and its name."""
    if config.features in ("auto", "efficientnet"):
        try:
            data.load_arrays("efficientnet_lite0")
        except FileNotFoundError:
            if config.features == "efficientnet":
                raise
        else:
            return efficientnet.patch_features, "EfficientNet-Lite0"
    return textures.filter_bank, "Gaussian derivatives"


class Round(NamedTuple):
    """Images to learn from and to test, masks of what is abnormal, where pixels are scored."""

    train: np.ndarray
    test: np.ndarray
    masks: np.ndarray
    scored: np.ndarray
    shown: list[int]
    """Test images for the figure."""


def on_textures(name: str, config: ConfigDict) -> Iterator[Round]:
    """Tiles with painted defects, a round a seed."""
    for seed in range(config.num_seeds):
        tiles = textures.tiles(name, num_train=config.num_tiles, seed=seed)
        shown = [tiles.kinds.index(kind) for kind in ("splice", "scratch")]
        scored = np.ones_like(tiles.masks)
        yield Round(tiles.train, tiles.test, tiles.masks, scored, shown)


def on_brains(config: ConfigDict) -> Iterator[Round]:
    """One patient's slices without tumour to learn from, the other's to test, both ways."""
    del config
    for patient in (1, 2):
        found = brains.slices(patient)
        largest = np.argsort(found.masks.sum((1, 2)))[::-1]
        yield Round(*found, shown=[int(largest[0]), int(largest[1])])


def on_images(config: ConfigDict, rounds: Iterable[Round], extract) -> tuple[dict, list]:
    """AUROC of images and of pixels (num_rounds,) for every detector, and two maps of the first."""
    areas: dict[str, Any] = {m: {"image": [], "pixel": []} for m in PATCH_DETECTORS}
    example: list = []
    for one in rounds:
        train, test = extract(one.train), extract(one.test)
        scale = train.reshape(-1, train.shape[-1]).std(0) + 1e-6
        train, test = train / scale, test / scale
        abnormal = one.masks.any((1, 2))
        for method in PATCH_DETECTORS:
            score = DETECTORS[method](config, train.reshape(-1, train.shape[-1]))
            grids = score(test.reshape(-1, test.shape[-1])).reshape(test.shape[:3])
            whole = [pca_residual.image_score(jnp.asarray(grid)) for grid in grids]
            shape = one.test.shape[1:]
            maps = np.stack([_score_map(g, shape=shape, sigma=config.smoothing) for g in grids])
            areas[method]["image"].append(roc_auc_score(abnormal, whole))
            pixels = roc_auc_score(one.masks[one.scored], maps[one.scored])
            areas[method]["pixel"].append(pixels)
            if method == PATCH_DETECTORS[0] and not example:
                example = [(one.test[i], one.masks[i], maps[i]) for i in one.shown]
    return jax.tree.map(np.asarray, areas, is_leaf=lambda v: isinstance(v, list)), example


def headline(results: dict[str, Any]) -> str:
    """Mean AUROC over classes, of GODS, the residual and the best rival; then textures."""
    parts = [
        f"{name}: " + _line({m: scores[m] for m in _told(scores)})
        for name, scores in results["vectors"].items()
    ]
    for name, methods in results["images"].items():
        spans = [
            f"{kind} " + _line({method: areas[kind] for method, areas in methods.items()})
            for kind in ("image", "pixel")
        ]
        parts.append(f"{name} ({results['features']}): " + "; ".join(spans))
    return "mean AUROC in % over the normal classes. " + ". ".join(parts)


def _told(scores: dict[str, np.ndarray]) -> list[str]:
    """Our methods, and the best of the others."""
    ours = [method for method in scores if method.endswith("GODS") or method.startswith("PCA")]
    others = [method for method in scores if method not in (*ours, "BODS")]
    return [*ours, max(others, key=lambda method: scores[method].mean())]


def table(results: dict[str, Any]) -> str:
    """A row a detector: the mean and the worst class of every set."""
    names = list(results["vectors"])
    lines = [f"{'AUROC, %':24}" + "".join(f"{name:>20}" for name in names)]
    rows = {method: [results["vectors"][name][method] for name in names] for method in DETECTORS}
    rows |= {
        f"{method}, oracle": [results["oracle"][name][method] for name in names]
        for method in ORACLES
    }
    for method, areas in rows.items():
        cells = [f"{100 * a.mean():.1f} (worst {100 * a.min():.1f})" for a in areas]
        lines.append(f"{method:24}" + "".join(f"{cell:>20}" for cell in cells))
    for name, methods in results["images"].items():
        for method, areas in methods.items():
            spans = [f"{kind} {_span(areas[kind])}" for kind in ("image", "pixel")]
            lines.append(f"{name:15}{method:14}" + "  ".join(spans))
    return "\n".join(lines)


def draw(pictures: list, figure: Figure) -> None:
    """A row a texture: two tiles with defects, each beside the map of its scores."""
    rows = figure.subplots(len(pictures), 4, squeeze=False)
    for row, (name, examples) in zip(rows, pictures, strict=True):
        for column, (tile, mask, scores) in enumerate(examples):
            left, right = row[2 * column], row[2 * column + 1]
            left.imshow(tile, cmap="gray", vmin=0, vmax=1)
            left.contour(mask, [0.5], colors=plots.ORANGE, linewidths=1)
            right.imshow(scores, cmap="magma")
            left.set_title(name if column == 0 else "")
            right.set_title("PCA residual")
            for axes in (left, right):
                axes.set(xticks=[], yticks=[])
                axes.grid(visible=False)


def _line(areas: dict[str, np.ndarray]) -> str:
    order = sorted(areas, key=lambda method: -areas[method].mean())
    return ", ".join(f"{method} {100 * areas[method].mean():.1f}" for method in order)


def _span(areas: np.ndarray) -> str:
    return f"{100 * areas.mean():.1f} ({100 * areas.min():.1f} to {100 * areas.max():.1f})"


if __name__ == "__main__":
    harness.main(run)
