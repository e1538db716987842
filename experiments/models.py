"""The small networks that several experiments share (flax linen: pure ``init`` and ``apply``)."""

from collections.abc import Sequence

import flax.linen as nn
import jax


class MLP(nn.Module):
    """Fully connected ReLU network on flattened inputs; He-normal kernels, zero biases.

    ``MLP((200, 200, 10))`` on 784 inputs is the 199,210-parameter network of Li et al. (2018).
    """

    features: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (..., features[-1]) of inputs (batch, ...)."""
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.features):
            x = nn.Dense(width, kernel_init=nn.initializers.he_normal())(x)
            if i + 1 < len(self.features):
                x = nn.relu(x)
        return x
