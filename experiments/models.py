"""The small networks that several experiments share (flax linen: pure ``init`` and ``apply``)."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from subspace_jax.manifolds import head as grassmann_head


class MLP(nn.Module):
    """Fully connected network on flattened inputs; He-normal kernels, zero biases.

    ``MLP((200, 200, 10))`` on 784 inputs is the 199,210-parameter network of Li et al. (2018).
    """

    features: Sequence[int]
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (..., features[-1]) of inputs (batch, ...)."""
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.features):
            x = nn.Dense(width, kernel_init=nn.initializers.he_normal())(x)
            if i + 1 < len(self.features):
                x = self.activation(x)
        return x


class ConvNet(nn.Module):
    """Strided 3 x 3 convolutions, each a matrix product, and one dense layer.

    As products they also run at full speed inside ``lax.scan`` on a CPU, where convolutions do not.
    """

    channels: Sequence[int]
    num_features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs (batch, num_features) of images (batch, height, width)."""
        x = x[..., None]
        for width in self.channels:
            x = nn.relu(nn.Dense(width, kernel_init=nn.initializers.he_normal())(_patches(x)))
        x = x.reshape(len(x), -1)
        return nn.Dense(self.num_features, kernel_init=nn.initializers.he_normal())(x)


class LeNet(nn.Module):
    """Two 5 x 5 convolutions, each with pooling, and three dense layers; He-normal kernels.

    On 28 x 28 images with ten classes it is the 44,426-parameter network of Li et al. (2018). Its
    convolutions are matrix products, for the reason of `ConvNet`.
    """

    num_classes: int
    filters: Literal["shared", "untied", "dense"] = "shared"
    """The same at every place; its own at every place; of the whole image at every place."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (batch, num_classes) of images (batch, height, width)."""
        x = x[..., None]
        for width in (6, 16):
            x = nn.relu(self._filtered(x, width))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return MLP((120, 84, self.num_classes))(x)

    def _filtered(self, x, width):
        he_normal, local = nn.initializers.he_normal(), windows(x, 5)
        if self.filters == "shared":
            return nn.Dense(width, kernel_init=he_normal)(local)
        places, each = local.shape[1:3], local.shape[-1]
        if self.filters == "dense":
            out = nn.Dense(math.prod(places) * width, kernel_init=he_normal)
            return out(x.reshape(len(x), -1)).reshape(len(x), *places, width)
        init = nn.initializers.he_normal(in_axis=-2, out_axis=-1, batch_axis=(0, 1))
        name = f"untied_{width}"
        kernel = self.param(f"{name}_kernel", init, (*places, each, width))
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (*places, width))
        return jnp.einsum("bhwi,hwio->bhwo", local, kernel) + bias


class CosineHead(nn.Module):
    """Logits gamma cos(features, class vector)."""

    num_classes: int
    gamma: float

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Logits (batch, num_classes) of features (batch, n)."""
        shape = (features.shape[-1], self.num_classes)
        vectors = self.param("vectors", nn.initializers.lecun_normal(), shape)
        return self.gamma * _unit(features, axis=-1) @ _unit(vectors, axis=0)


class GrassmannHead(nn.Module):
    """Logits gamma |S_c^T features / |features|| with a k-dimensional subspace S_c a class."""

    num_classes: int
    k: int
    gamma: float

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Logits (batch, num_classes) of features (batch, n)."""
        sizes = self.num_classes, features.shape[-1], self.k
        subspaces = self.param("subspaces", lambda key: grassmann_head.init(key, *sizes))
        return grassmann_head.logits(subspaces, features, self.gamma)


class Classifier(nn.Module):
    """A head on the rectified outputs of a backbone."""

    backbone: nn.Module
    head: nn.Module

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of inputs."""
        return self.head(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """What the head sees of inputs."""
        return nn.relu(self.backbone(x))


def windows(x: jax.Array, side: int) -> jax.Array:
    """The neighbourhoods that lie inside, (batch, h - side + 1, w - side + 1, side^2 channels)."""
    height, width = (n - side + 1 for n in x.shape[1:3])
    shifts = [x[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]
    return jnp.concatenate(shifts, axis=-1)


def _patches(x: jax.Array) -> jax.Array:
    """The 3 x 3 neighbourhoods of every second pixel, (batch, h/2, w/2, 9 channels)."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifts, axis=-1)


def _unit(x: jax.Array, axis: int) -> jax.Array:
    return x / jnp.sqrt(jnp.sum(x**2, axis=axis, keepdims=True) + 1e-12)
