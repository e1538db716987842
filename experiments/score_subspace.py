"""The score of data on a subspace, learned with the subspace in the network and without.

Claim ("Score approximation, estimation and distribution recovery of diffusion models on
low-dimensional data", arXiv 2302.07194): for x = A z the score has a part on the support, that of
z, and off it is -x / h(t), known; a network V f(V^T x, t) - x / h(t) recovers the span of A, and
what it learns depends on the dimension d of z and not on that of x, D.

    python -m experiments.score_subspace

Expected (float32 on a CPU, 3 seeds, 2,000 steps, 19 minutes of a busy machine): at N = 1024 the
score's error on the support is .31 at D = 16 and .30 at D = 512 with the subspace in the network,
.32 and .42 with "full", .57 and 1.27 with "full, clean"; off it .001 and .006, .09 and 2.17, .29
and .53. The coefficient off the support is -1 / sigma^2 to three digits with the subspace; "full"
has .40 of it at sigma = .1, D = 512. The sine of the angle to A is .0003 and .002 (.028 at N = 64,
.0008 at N = 4096, D = 64); one seed of three had not arrived at D = 256 (.45). Samples: .096 and
.089 from the data on the support (two sets of data: .073), .0002 and .001 off it; "full" .10 and
.12, .05 and .98. So the claim holds, for a network that is given the subspace's dimension; PCA of
64 examples has the span exactly, as no noise is on them. Beyond N = 1024 the steps limit.

In the variable x = x_0 + sigma n, h is sigma^2, and the claim is of the denoiser V f(V^T x, sigma);
V is trained on the Stiefel manifold. Beside it stand networks of the same hidden layers on all of
x: preconditioned as usual ("full"), and predicting x_0 itself ("full, clean"). The codes z are 8
principal components of the digits, of variance one, with a Gaussian around each: a population of
which any number can be drawn and the score is known. Errors: see `measured`.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from ml_collections import ConfigDict
from sklearn import datasets

from experiments import denoisers, harness, models, oracle, plots, records
from subspace_jax import diffusion, linalg, optim
from subspace_jax.manifolds import stiefel

STYLES = {
    "subspace": {"color": plots.BLUE, "marker": "s"},
    "full": {"color": plots.ORANGE, "marker": "o"},
    "full, clean": {"color": plots.GREEN, "marker": "^"},
}
KINDS = ("on", "off", "coefficient", "angle", "pca", "distance", "floor", "outside")
_DOTTED = {"color": plots.GREY, "linestyle": ":"}


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train all networks at every D and N; print the table, draw, return numbers."""
    sizes = [(D, config.num_examples) for D in config.dims]
    sizes += [(config.dim, N) for N in config.nums if (config.dim, N) not in sizes]
    pieces = [(network, D, N) for D, N in sizes for network in STYLES]
    call = jax.jit(partial(all_seeds, config), static_argnums=(0, 1))  # one program for all N
    found = records.piecewise(
        workdir, pieces, partial(studied, call), lambda c: {k: np.mean(c[k]) for k in KINDS}
    )
    cells = dict(zip(pieces, found, strict=True))
    results: dict[str, Any] = {
        kind: {", ".join(map(str, piece)): cell[kind] for piece, cell in cells.items()}
        for kind in KINDS
    }
    results["summary"] = headline(config, cells)
    records.say(table(cells), sys.stdout)
    plots.save(workdir / "score_subspace.png", partial(draw, config, cells), size=(12, 7))
    return results | {"seconds": {"compile": 0.0, "train": sum(c["seconds"] for c in found)}}


def codes(config: ConfigDict) -> np.ndarray:
    """Principal components of the digits, each of variance one."""
    X = datasets.load_digits().data
    U = np.linalg.svd(X - X.mean(0), full_matrices=False)[0][:, : config.rank]
    return (U * len(X) ** 0.5).astype(np.float32)


def studied(call: Callable, network: str, D: int, N: int) -> dict:
    """One network at one D and N, an entry or a row a seed."""
    start = time.perf_counter()
    found = jax.tree.map(lambda x: np.asarray(x).tolist(), call(network, D, N))
    return found | {"seconds": time.perf_counter() - start}


def all_seeds(config: ConfigDict, network: str, D: int, N: jax.Array) -> dict:
    """Train and measure, seed by seed."""
    make = harness.pick("network", network, NETWORKS)(config, D)

    def one(key):
        keys = jax.random.split(key, 5)
        A = linalg.orthonormalize(jax.random.normal(keys[0], (D, config.rank)))
        population = oracle.Population(A, jnp.asarray(codes(config)), config.bandwidth)
        X = population.sample(keys[1], max(config.num_examples, *config.nums)) @ A.T
        X = jnp.where(jnp.arange(len(X))[:, None] < N, X, 0)
        params = trained(config, make, X, N, keys[2:4])
        return measured(config, make, params, population, X, keys[4])

    return harness.each(one)(jax.random.split(jax.random.key(config.seed), config.num_seeds))


class Network(NamedTuple):
    """A family of denoisers of points (batch, D)."""

    init: Callable[[jax.Array], Any]
    denoise: Callable[[Any, jax.Array, jax.Array], jax.Array]
    """(params, x (batch, D), sigma (batch,)) -> x_0."""
    optimizer: optax.GradientTransformation


def multilayer(config: ConfigDict, size: int, parametrise: Callable) -> tuple[Callable, Callable]:
    """Parameters and denoiser of an MLP on points of so many numbers."""
    network = models.MLP((*config.hidden, size), nn.silu)

    def init(key):
        return network.init(key, jnp.zeros((1, size + 16)))

    def denoise(params, x, sigma):
        def apply(x, noise):
            waves = noise[:, None] * 2.0 ** jnp.arange(-2, 6)
            return network.apply(params, jnp.concatenate([x, jnp.sin(waves), jnp.cos(waves)], -1))

        return parametrise(apply, (config.rank / size) ** 0.5)(x, sigma)

    return init, denoise


def clean(network: Callable, sigma_data: float) -> Callable:
    """A network that predicts x_0 itself, where `denoisers.precondition` adds a share of x."""

    def denoise(x, sigma):
        total = jnp.sqrt(sigma**2 + sigma_data**2)[:, None]
        return sigma_data * network(x / total, jnp.log(sigma) / 4)

    return denoise


def on_all(parametrise: Callable, config: ConfigDict, D: int) -> Network:
    """An MLP on all of x."""
    optimizer = optax.adam(rate(config, config.learning_rate))
    return Network(*multilayer(config, D, parametrise), optimizer)


def on_subspace(config: ConfigDict, D: int) -> Network:
    """V f(V^T x, sigma) for a frame V: the score is (V f(V^T x, sigma) - x) / sigma^2."""
    init, inside = multilayer(config, config.rank, denoisers.precondition)
    rules = {
        "f": optax.adam(rate(config, config.learning_rate)),
        "V": optim.riemannian_adam(rate(config, config.angle_rate), manifold=stiefel),
    }

    def start(key):
        f_key, V_key = jax.random.split(key)
        return {"f": init(f_key), "V": stiefel.random_point(V_key, D, config.rank)}

    def denoise(params, x, sigma):
        return inside(params["f"], x @ params["V"], sigma) @ params["V"].T

    return Network(start, denoise, optax.partition(rules, {"f": "f", "V": "V"}))


def rate(config: ConfigDict, peak: float) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, config.num_steps)


NETWORKS = {
    "subspace": on_subspace,
    "full": partial(on_all, denoisers.precondition),
    "full, clean": partial(on_all, clean),
}


def trained(config: ConfigDict, network: Network, X: jax.Array, N: jax.Array, keys) -> Any:
    """The parameters after all steps on the first N rows of X."""

    def step(state, key):
        params, memory = state
        row_key, sigma_key, noise_key = jax.random.split(key, 3)
        clean = X[jax.random.randint(row_key, (config.batch_size,), 0, N)]
        sigma = denoisers.draw_levels(config, sigma_key, len(clean))
        noisy = clean + sigma[:, None] * jax.random.normal(noise_key, clean.shape)

        def loss(params):
            denoised = network.denoise(params, noisy, sigma)
            error = denoisers.weighted_error(denoised, clean, sigma, 1.0)
            return error * X.shape[1] / config.rank  # a number of z, not of x

        updates, memory = network.optimizer.update(jax.grad(loss)(params), memory, params)
        return (optax.apply_updates(params, updates), memory), None

    params = network.init(keys[0])
    steps = jax.random.split(keys[1], config.num_steps)
    (params, _), _ = jax.lax.scan(step, (params, network.optimizer.init(params)), steps)
    return params


def measured(config, network: Network, params, population: oracle.Population, X, key) -> dict:
    """Errors of the score at every level, of the subspace, and of the samples.

    Those of the score are times sigma and over the root of d: of a predicted noise, on the support
    and off it. The coefficient is that of the score's part off the support along x's, times
    sigma^2: -1 by the theory.
    """
    A, d = population.A, config.rank
    z_key, noise_key, sample_key, slice_key, floor_key = jax.random.split(key, 5)
    z = population.sample(z_key, config.num_test)
    n = jax.random.normal(noise_key, (config.num_test, len(A)))

    def at_level(sigma):
        x = z @ A.T + sigma * n
        denoised = network.denoise(params, x, jnp.full(len(x), sigma))
        truth = jax.vmap(population.denoise, (0, None))(x @ A, sigma)
        on, off, away = denoised @ A - truth, outside(A, denoised), outside(A, x)
        coefficient = jnp.sum((off - away) * away) / jnp.sum(away**2)
        return size(on, d) / sigma, size(off, d) / sigma, coefficient, denoised

    on, off, coefficient, denoised = jax.lax.map(at_level, jnp.asarray(config.sigmas))
    x = samples(config, network, params, sample_key, len(A))
    others = population.sample(floor_key, config.num_test)
    basis = (
        params["V"]
        if "V" in params
        else principal(denoised[config.sigmas.index(config.sigma_shown)], d)
    )
    return {
        "on": on,
        "off": off,
        "coefficient": coefficient,
        "angle": linalg.projection_distance(basis, A),
        "pca": linalg.projection_distance(principal(X[: 8 * d], d), A),
        "distance": oracle.sliced_wasserstein(slice_key, x @ A, z),
        "floor": oracle.sliced_wasserstein(slice_key, others, z),
        "outside": size(outside(A, x), d),
    }


def samples(config: ConfigDict, network: Network, params, key: jax.Array, D: int) -> jax.Array:
    low, high = config.sigma_range
    levels = diffusion.karras_sigmas(config.num_levels, sigma_min=low, sigma_max=high)

    def denoise(x, sigma):
        return network.denoise(params, x[None], sigma[None])[0]

    def one(key):
        return diffusion.sample(key, denoise, levels, (D,), step=diffusion.dpmpp_2m()).x

    return jax.vmap(one)(jax.random.split(key, config.num_test))


def outside(A: jax.Array, x: jax.Array) -> jax.Array:
    """The part of points (num, D) in rows that is off the support."""
    return linalg.project_out(A, x.T).T


def size(e: jax.Array, d: int) -> jax.Array:
    """The root of the mean squared norm of rows, over the root of d."""
    return jnp.sqrt(jnp.mean(jnp.sum(e**2, 1)) / d)


def principal(X: jax.Array, d: int) -> jax.Array:
    """The basis (D, d) of the leading right singular vectors of points in rows."""
    return jnp.linalg.svd(X, full_matrices=False)[2][:d].T


def total(cell: dict, name: str) -> np.ndarray:
    """A number a seed: the root mean square over levels of an error of the score."""
    return np.sqrt(np.mean(np.square(cell[name]), axis=-1))


def headline(config: ConfigDict, cells: dict) -> str:
    N, ends = config.num_examples, (config.dims[0], config.dims[-1])
    parts = [f"D = {ends[0]}, {ends[1]} and N = {N}"]
    for name in STYLES:
        pair = [cells[name, D, N] for D in ends]
        row = [f"{np.mean(total(c, k)):.3f}" for k in ("on", "off") for c in pair]
        row += [f"{np.mean(c[k]):.3f}" for k in ("angle", "distance") for c in pair]
        parts.append(
            f"{name}: score error on the support {row[0]}, {row[1]}, off it {row[2]}, {row[3]}, "
            f"sine of the angle {row[4]}, {row[5]}, distance of samples {row[6]}, {row[7]}"
        )
    return ". ".join(parts)


def table(cells: dict) -> str:
    names = [kind for kind in KINDS if kind != "coefficient"]
    lines = [" " * 24 + "".join(f"{name:>20}" for name in names)]
    for (network, D, N), cell in cells.items():
        told = [total(cell, k) if k in ("on", "off") else np.asarray(cell[k]) for k in names]
        row = "".join(f"{np.mean(x):11.4f} +- {np.std(x):.4f}" for x in told)
        lines.append(f"{network:12}{D:5} {N:5} {row}")
    return "\n".join(lines)


def draw(config: ConfigDict, cells: dict, figure: Figure) -> None:
    """The coefficient off the support; the errors over D and over N; samples over D."""
    (coefficient, error_D, error_N), (angle_D, angle_N, distance) = figure.subplots(2, 3)
    sigmas, D, N = np.asarray(config.sigmas), config.dims[-1], config.num_examples
    nums = sorted({N for _, D, N in cells if config.dim == D})
    for name, style in STYLES.items():
        over_D = [cells[name, D, N] for D in config.dims]
        over_N = [cells[name, config.dim, N] for N in nums]
        value = -np.mean(cells[name, D, N]["coefficient"], 0) / sigmas**2
        coefficient.plot(sigmas, value, ms=4, label=name, **style)
        plot_seeds(error_D, config.dims, [whole(c) for c in over_D], style)
        plot_seeds(error_N, nums, [whole(c) for c in over_N], style)
        plot_seeds(angle_D, config.dims, [c["angle"] for c in over_D], style)
        plot_seeds(angle_N, nums, [c["angle"] for c in over_N], style)
        plot_seeds(distance, config.dims, [c["distance"] for c in over_D], style)
    coefficient.plot(sigmas, 1 / sigmas**2, label="1 / sigma^2", **_DOTTED)
    guide = (np.asarray(nums) / nums[0]) ** (-1 / (config.rank + 5))
    guide = np.median(whole(cells["subspace", config.dim, nums[0]])) * guide
    error_N.plot(nums, guide, label="N^(-1 / (d + 5))", **_DOTTED)
    floor = np.mean([cell["floor"] for cell in cells.values()])
    distance.axhline(floor, label="two sets of data", **_DOTTED)
    titles = {
        coefficient: ("sigma", f"- score / x off the support, D = {D}"),
        error_D: ("D", f"error of the score, N = {N}"),
        error_N: ("N", f"error of the score, D = {config.dim}"),
        angle_D: ("D", f"sine of the angle to A, N = {N}"),
        angle_N: ("N", f"sine of the angle to A, D = {config.dim}"),
        distance: ("D", f"distance of samples on the support, N = {N}"),
    }
    for axes, (label, title) in titles.items():
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.set_title(title, fontsize=10)
    for axes in (error_D, angle_D, distance):
        axes.set_xticks(config.dims, config.dims)
        axes.xaxis.set_minor_locator(NullLocator())
    for axes in (coefficient, error_N, distance):
        axes.legend(fontsize=8)


def plot_seeds(axes: Any, xs: Any, values: Any, style: dict[str, Any]) -> None:
    """The median as a line, and a dot a seed."""
    axes.plot(xs, np.median(values, 1), ms=4, **style)
    axes.plot(xs, values, ".", ms=3, color=style["color"])


def whole(cell: dict) -> np.ndarray:
    """The error of the score, on and off the support, a number a seed."""
    return np.hypot(total(cell, "on"), total(cell, "off"))


if __name__ == "__main__":
    harness.main(run)
