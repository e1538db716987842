"""EfficientNet-Lite0, trained on ImageNet, as a frozen extractor of patch features.

The weights are a port of Google's release; `experiments.data` fetches them. Only the first eleven
blocks are run: their outputs on 28 x 28 and 14 x 14 grids describe patches.

Reference: Tan & Le (2019); the lite variant has ReLU6 and no squeeze-and-excitation.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import data

SIZE = 224
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1)
_TAPS = (2, 4, 10)
"""Blocks whose outputs are features: 24 x 56 x 56, 40 x 28 x 28, 112 x 14 x 14."""


def patch_features(images: np.ndarray, *, batch_size: int = 8) -> np.ndarray:
    """Features (num, 28, 28, 176) of grey or colour images (num, H, W[, 3]) with values in [0, 1].

    Images are resized to 224 x 224, the three grids to 28 x 28.

    Raises:
        FileNotFoundError: the weights are not in the cache.
    """
    weights = data.load_arrays("efficientnet_lite0")
    apply = jax.jit(lambda x: _features(weights, x))
    rows = range(0, len(images), batch_size)
    return np.concatenate([np.asarray(apply(images[i : i + batch_size])) for i in rows])


def _features(weights: dict[str, np.ndarray], images: jax.Array) -> jax.Array:
    x = images if images.ndim == 4 else jnp.repeat(images[..., None], 3, axis=-1)
    x = jax.image.resize(x, (len(x), SIZE, SIZE, 3), "linear")
    x = (255 * x - 127) / 128
    x = _normalised(weights, "_bn0", _convolve(x, weights["_conv_stem.weight"], 2))
    taps = []
    for block, stride in enumerate(_STRIDES):
        x = _inverted_residual(weights, f"_blocks.{block}.", x, stride)
        if block in _TAPS:
            taps.append(jax.image.resize(x, (len(x), 28, 28, x.shape[-1]), "linear"))
    return jnp.concatenate(taps, axis=-1)


def _inverted_residual(weights, prefix: str, x: jax.Array, stride: int) -> jax.Array:
    """Expand, convolve each channel, project; the input is added where shapes allow."""
    y = x
    if f"{prefix}_expand_conv.weight" in weights:
        y = _convolve(y, weights[f"{prefix}_expand_conv.weight"], 1)
        y = _normalised(weights, f"{prefix}_bn0", y)
    kernel = weights[f"{prefix}_depthwise_conv.weight"]
    y = _normalised(weights, f"{prefix}_bn1", _convolve(y, kernel, stride, groups=y.shape[-1]))
    y = _convolve(y, weights[f"{prefix}_project_conv.weight"], 1)
    y = _normalised(weights, f"{prefix}_bn2", y, clip=False)
    return x + y if x.shape == y.shape else y


def _convolve(x: jax.Array, kernel: np.ndarray, stride: int, groups: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME",
        dimension_numbers=("NHWC", "OIHW", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


def _normalised(weights, name: str, x: jax.Array, *, clip: bool = True) -> jax.Array:
    """Batch normalisation with the stored moments, then ReLU6."""
    scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}.running_var"] + 1e-3)
    x = (x - weights[f"{name}.running_mean"]) * scale + weights[f"{name}.bias"]
    return jnp.clip(x, 0, 6) if clip else x
