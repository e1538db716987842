"""What fast schedules sample: priors of heads, lungs and clothes, and an MR reconstruction."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import data, denoisers, efficientnet, heads, lungs, mri, oracle, subjects
from subspace_jax import diffusion


class Problem(NamedTuple):
    """What is sampled, with which data, and how good samples are."""

    denoise: Callable
    dtype: Any
    shape: tuple[int, ...]
    """Of a sample."""
    sigma_data: float
    consistency: Callable
    """data -> the data consistency of one sample, or None."""
    calibration: Any
    """Data of each calibration sample; zeros without measurements."""
    test: Any
    quality: Callable[[np.ndarray], list[float]]
    """Samples -> PSNR in dB of each, or one distance to images that the prior has not seen."""


def of_heads(config: ConfigDict) -> Problem:
    """The prior of heads, against slices of another head."""
    quality = partial(_distance, config, heads.committed("test"))
    return _prior(config, config.head_weights, jnp.complex64, config.num_test, quality)


def of_lungs(config: ConfigDict) -> Problem:
    """The prior of lungs, against slices of another patient."""
    quality = partial(_distance, config, lungs.committed("test"))
    return _prior(config, config.lung_weights, jnp.float32, config.num_test, quality)


def of_clothes(config: ConfigDict) -> Problem:
    """The prior of Fashion-MNIST, against test images, by features of a network for photographs."""
    images = data.load("fashion_mnist").test_x[: config.num_features]
    data.load_arrays("efficientnet_lite0")  # or say at once that it is missing

    @functools.cache
    def judge(size):
        real = features(subjects.padded(images, size))
        centre = real.mean(0)
        axes = np.linalg.svd(real - centre, full_matrices=False)[2][: config.num_axes].T
        return (real - centre) @ axes, centre, axes

    def quality(x):
        real, centre, axes = judge(x.shape[-1])
        return [frechet_distance(real, (features(np.clip(x, 0, 1)) - centre) @ axes)]

    return _prior(config, config.fashion_weights, jnp.float32, config.num_clothes, quality)


def of_scans(config: ConfigDict) -> Problem:
    """MR measurements of two people: the settings were tuned on the one that calibrates."""
    denoise, about = denoisers.load(config.head_weights)

    def scans(kind: str, num: int, seed: int) -> mri.Scans:
        slices = heads.committed(kind)
        rows = np.arange(num) * len(slices) // num
        one = mri.draw_sampling("random", config.acceleration, slices.shape[-1], seed)
        key = jax.random.fold_in(jax.random.key(seed), config.acceleration)
        options = {"num_coils": 6, "sigma_y": config.sigma_y}
        return mri.simulate(slices[rows], [one] * num, key, **options)

    calibration = scans("tune", config.num_calibration, config.seed)
    test = scans("test", config.num_test, config.seed + 1)

    def consistency(measured):
        mask, maps, y = measured
        op = diffusion.operators.multicoil_mri(mask, maps)
        return diffusion.cg_proximal(op, y, config.gamma)

    def quality(x):
        error = np.mean((np.abs(x) - test.truth) ** 2, (1, 2))
        return (10 * np.log10(test.truth.max((1, 2)) ** 2 / error)).tolist()

    return Problem(
        denoise,
        jnp.complex64,
        test.truth.shape[1:],
        about["sigma_data"],
        consistency,
        (calibration.mask, calibration.maps, calibration.y),
        (test.mask, test.maps, test.y),
        quality,
    )


PROBLEMS = {
    "prior of heads": of_heads,
    "prior of lungs": of_lungs,
    "prior of clothes": of_clothes,
    "MRI, x4": of_scans,
}


def _prior(
    config: ConfigDict, weights: str, dtype: Any, num_test: int, quality: Callable
) -> Problem:
    denoise, about = denoisers.load(weights)
    shape, nothing = (about["size"],) * 2, (np.zeros(config.num_calibration), np.zeros(num_test))
    return Problem(denoise, dtype, shape, about["sigma_data"], lambda data: None, *nothing, quality)


def _distance(config: ConfigDict, truth: np.ndarray, x: np.ndarray) -> list[float]:
    """Sliced Wasserstein to as many of the true images, per root of pixels."""
    rows = np.random.default_rng(config.seed).permutation(len(truth))[: len(x)]
    seen = lungs.shrunk(truth[rows], x.shape[-1])
    X, Y = (jnp.asarray(flat(np.abs(a))) for a in (x[: len(rows)], seen))
    return [float(oracle.sliced_wasserstein(jax.random.key(0), X, Y)) / X.shape[1] ** 0.5]


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def features(images: np.ndarray) -> np.ndarray:
    """Means (num, 176) over the patches of an image, of EfficientNet-Lite0."""
    return efficientnet.patch_features(images).mean((1, 2))


def frechet_distance(X: np.ndarray, Y: np.ndarray) -> float:
    """Between the normal distributions of the moments of rows: |m - n|^2 + tr(C + D - 2 (C D)^.5).

    With C = A^T A and D = B^T B the trace of the root is the nuclear norm of A B^T.
    """
    A, B = ((Z - Z.mean(0)) / np.sqrt(len(Z) - 1) for Z in (X, Y))
    across = np.linalg.svd(A @ B.T, compute_uv=False).sum()
    means = np.sum((X.mean(0) - Y.mean(0)) ** 2)
    return float(means + np.sum(A**2) + np.sum(B**2) - 2 * across)
