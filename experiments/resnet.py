"""ResNet-D for images, flax linen: the backbone of Grassmann class representations on ImageNet.

Reference: He et al. (2016); He et al. (2019), "Bag of tricks for image classification", figure 2,
for the variant D: a stem of three convolutions, and averaging before the shortcut's convolution.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class ResNetD(nn.Module):
    """Pooled features (batch, 32 width) of images (batch, height, width, 3).

    ``ResNetD((3, 4, 6, 3))`` is ResNet50-D with 2048 features.
    """

    stages: Sequence[int]
    width: int = 64
    dtype: Any = jnp.float32
    """Of convolutions; parameters and moments stay float32."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Features; with ``train`` the normalisation's moments are the batch's."""
        normalise = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
        )
        convolve = partial(
            nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=nn.initializers.he_normal()
        )
        for channels, stride in ((self.width // 2, 2), (self.width // 2, 1), (self.width, 1)):
            x = nn.relu(normalise()(convolve(channels, (3, 3), (stride, stride))(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, num_blocks in enumerate(self.stages):
            for block in range(num_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = Bottleneck(self.width * 2**stage, stride, convolve, normalise)(x)
        return jnp.mean(x, axis=(1, 2)).astype(jnp.float32)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions around a shortcut; four times as many channels out."""

    channels: int
    stride: int
    convolve: Callable[..., nn.Module]
    normalise: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The block's output, ``stride`` times smaller."""
        strides = (self.stride, self.stride)
        y = nn.relu(self.normalise()(self.convolve(self.channels, (1, 1))(x)))
        y = nn.relu(self.normalise()(self.convolve(self.channels, (3, 3), strides)(y)))
        y = self.convolve(4 * self.channels, (1, 1))(y)
        y = self.normalise(scale_init=nn.initializers.zeros)(y)  # a block begins as its shortcut
        if self.stride > 1:
            x = nn.avg_pool(x, (2, 2), strides, "SAME")
        if x.shape[-1] != y.shape[-1]:
            x = self.normalise()(self.convolve(4 * self.channels, (1, 1))(x))
        return nn.relu(x + y)
