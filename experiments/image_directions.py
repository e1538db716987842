"""The Jacobians of image priors along the noise levels, and edits along their leading directions.

An edit adds a direction to a noisy image at one level and takes the noise off both, edited and not,
by the same deterministic steps; or, inside of a network, it adds one to the innermost features in
every step. What it changed is compared for directions of the image's own Jacobian, of another
image's, principal ones of a set of images (or of their features), and random ones.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import bottlenecks, denoisers, harness, heads, low_rank_mixtures, lungs
from subspace_jax import diffusion, linalg
from subspace_jax.diffusion import jacobian, low_rank_gaussians

KINDS = ("Jacobian", "another image's", "PCA", "random")


class Prior(NamedTuple):
    """A denoiser of one real image, images to look at, and others for principal directions."""

    denoise: Callable
    images: np.ndarray
    others: np.ndarray
    block: str = ""
    """The network's innermost; empty for what is no network."""


def of_heads(config: ConfigDict) -> Prior:
    denoise, about = denoisers.load(config.head_weights)
    images = (heads.committed(kind) for kind in ("test", "train"))
    return Prior(denoisers.of_real(denoise), *images, bottlenecks.name(about))


def of_lungs(config: ConfigDict) -> Prior:
    denoise, about = denoisers.load(config.lung_weights)
    images = (lungs.shrunk(lungs.committed(kind), about["size"]) for kind in ("test", "train"))
    return Prior(denoise, *images, bottlenecks.name(about))


def of_mixture(config: ConfigDict) -> Prior:
    """Points of a low-rank mixture as images of one column; the denoiser is exact."""
    key, dim = jax.random.key(config.seed), config.network.dim
    samples = low_rank_mixtures.draw(config, key, dim, 32, 32)
    weights = jnp.ones(config.num_clusters)

    def denoise(x, sigma):
        return low_rank_gaussians.denoise(samples.U, weights, x[:, 0], sigma)[:, None]

    X = np.asarray(samples.X)[:, :, None]
    return Prior(denoise, X[::2], X[1::2])


PRIORS = {"heads": of_heads, "lungs": of_lungs, "mixture": of_mixture}


def study(config: ConfigDict, workdir: Path, name: str) -> dict[str, Any]:
    """Spectra (images, levels, k), ranks, and measures of edits (images, directions) a kind.

    Edits are "edits" of images and, of networks, "inside" of features. One image's go to files.
    """
    prior = harness.pick("priors", name, PRIORS)(config)
    rows = np.arange(config.num_images) * len(prior.images) // config.num_images
    images = jnp.asarray(prior.images[rows])
    decompose = jax.jit(partial(spectrum, config, prior.denoise))
    key = jax.random.key(config.seed)
    found = [
        [
            decompose(jax.random.fold_in(key, len(config.levels) * i + j), x, jnp.float32(sigma))
            for j, sigma in enumerate(config.levels)
        ]
        for i, x in enumerate(images)
    ]
    at = config.levels.index(config.edit_level)
    V = jnp.stack([of_image[at][1] for of_image in found])[..., : config.num_directions]
    path = workdir / "checkpoints" / f"edits-{name}.npz"
    inside = {}
    if prior.block:
        inside = {"inside": edit_inside(config, prior, images, path.with_stem(f"inside-{name}"))}
    return inside | {
        "values": [[np.asarray(level[0]).tolist() for level in row] for row in found],
        "rest": [[float(level[2]) for level in row] for row in found],
        "rank": [[int(level[3]) for level in row] for row in found],
        "edits": edit_images(config, prior, images, V, path),
    }


def spectrum(
    config: ConfigDict, denoise: Callable, key: jax.Array, x: jax.Array, sigma: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Leading singular values, their right vectors, the energy of the rest, the numerical rank."""
    noise_key, key, rest_key = jax.random.split(key, 3)
    x = x + sigma * jax.random.normal(noise_key, x.shape)

    def f(x):
        return denoise(x, sigma)

    found = jacobian.singular_triplets(
        key, f, x, rank=config.rank, num_oversamples=0, num_power_iterations=config.num_powers
    )
    rest = jacobian.remaining_energy(rest_key, f, x, found.V, num_probes=config.num_probes).mean
    return found.values, found.V, rest, jacobian.numerical_rank(found.values, rest, config.share)


def edit_images(config, prior: Prior, images: jax.Array, V: jax.Array, path: Path) -> dict:
    """Edits of noisy images along ``V`` (images, h, w, k)."""

    def advance(x, change):
        return finished(config, prior.denoise, x + change)

    return edit(config, advance, images, V, prior.others, config.edit_size, path)


def edit_inside(config: ConfigDict, prior: Prior, images: jax.Array, path: Path) -> dict:
    """Edits of a network's innermost features, as large as these differ between images."""
    sigma, key = jnp.float32(config.edit_level), jax.random.key(config.seed + 2)
    denoise = bottlenecks.moved(prior.denoise, prior.block)

    def noisy(key, x):
        return x + sigma * jax.random.normal(key, x.shape)

    @jax.jit
    def seen(key, x):
        return bottlenecks.features(prior.denoise, prior.block, noisy(key, x), sigma)

    others = np.stack([seen(jax.random.fold_in(key, i), x) for i, x in enumerate(prior.others)])
    size = float(np.sqrt(np.mean(np.sum((others - others.mean(0)) ** 2, (1, 2, 3, 4)))))

    @jax.jit
    def leading(key, x):
        noise_key, key = jax.random.split(key)
        x, start = noisy(noise_key, x), jnp.zeros(others.shape[1:])
        return jacobian.singular_triplets(
            key, lambda h: denoise(x, sigma, h), start, rank=config.num_directions
        ).V

    V = jnp.stack([leading(jax.random.fold_in(key, i), x) for i, x in enumerate(images)])

    def advance(x, change):
        return finished(config, lambda x, sigma: denoise(x, sigma, change), x)

    return edit(config, advance, images, V, others, size, path)


def edit(
    config: ConfigDict,
    advance: Callable,
    images: jax.Array,
    V: jax.Array,
    others: np.ndarray,
    size: float,
    path: Path,
) -> dict:
    """{kind: {measure: (images, directions)}} of edits along ``V`` (images, ..., k) and others.

    ``advance(noisy, change)`` is the image from a noisy one; ``others`` give principal directions.
    """
    flat = (others - others.mean(0)).reshape(len(others), -1)
    principal = np.linalg.svd(flat, full_matrices=False)[2][: config.num_directions]
    key = jax.random.key(config.seed + 1)
    random = linalg.orthonormalize(jax.random.normal(key, (flat.shape[1], config.num_directions)))
    shared = {"PCA": jnp.asarray(principal).T, "random": random}
    move = jax.jit(partial(moves, config, advance, size))
    measures: dict[str, list] = {kind: [] for kind in KINDS}
    sheet = {}
    for i, x in enumerate(images):
        directions = {"Jacobian": V[i], "another image's": V[i - 1]}
        directions |= {kind: Q.reshape(V[i].shape) for kind, Q in shared.items()}
        for kind in KINDS:
            base, changes = move(jax.random.fold_in(key, i), x, directions[kind])
            measures[kind].append(measured(size, changes))
            if i == config.num_images // 2:
                sheet["start"] = np.asarray(base)
                sheet[kind] = np.asarray(base + changes["forward"])
    np.savez(path, **sheet)
    return {
        kind: {name: [m[name] for m in found] for name in found[0]}
        for kind, found in measures.items()
    }


def moves(
    config: ConfigDict, advance: Callable, size: float, key: jax.Array, x: jax.Array, V: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The image from a noisy one, and how edits along each of ``V`` (..., k) change it."""
    noisy = x + config.edit_level * jax.random.normal(key, x.shape)
    V = size * jnp.moveaxis(V, -1, 0)
    steps = [jnp.zeros_like(V[:1]), V, -V, 2 * V, V + jnp.roll(V, 1, 0)]
    ends = jax.lax.map(partial(advance, noisy), jnp.concatenate(steps))
    changes = jnp.split(ends[1:] - ends[0], 4)
    return ends[0], dict(zip(("forward", "back", "twice", "pairs"), changes, strict=True))


def finished(config: ConfigDict, denoise: Callable, x: jax.Array) -> jax.Array:
    """The image that Euler steps down from the level of edits end at."""
    sigmas = diffusion.karras_sigmas(
        config.num_edit_steps, sigma_min=0.02, sigma_max=config.edit_level
    )

    def step(x, level):
        sigma, after = level
        x0 = denoise(x, sigma)
        return x0 + after / sigma * (x - x0), None

    return jax.lax.scan(step, x, (sigmas[:-1], sigmas[1:]))[0]


def measured(size: float, changes: dict[str, jax.Array]) -> dict[str, list[float]]:
    """What edits of this size along each direction changed, and how nearly as a linear map would.

    gain: the norm of the change over that of the edit; reversal: the cosine of the change and
    minus that of the opposite edit; doubling, composition: the relative error of predicting twice
    the edit, and the sum of two, by those of one.
    """
    flat = {name: np.asarray(x).reshape(len(x), -1) for name, x in changes.items()}
    forward, back = flat["forward"], flat["back"]
    norm = partial(np.linalg.norm, axis=1)
    pairs = forward + np.roll(forward, 1, 0)
    found = {
        "gain": norm(forward) / size,
        "reversal": -np.sum(forward * back, 1) / (norm(forward) * norm(back)),
        "doubling": norm(flat["twice"] - 2 * forward) / norm(2 * forward),
        "composition": norm(flat["pairs"] - pairs) / norm(pairs),
    }
    return {name: value.tolist() for name, value in found.items()}
