"""The Fourier neural operator: a network between functions on a grid, of any resolution.

Reference: Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya, Stuart & Anandkumar (2021), "Fourier
neural operator for parametric partial differential equations".
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class SpectralConvolution(nn.Module):
    """Mixes the channels of each low frequency by a matrix of its own; drops the high ones."""

    modes: int
    """Frequencies an axis: 0 .. modes - 1 along the last, both signs along the first."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, s, t, channels) of (batch, s, t, channels)."""
        rows, columns, channels = x.shape[1:]
        if 2 * self.modes > min(rows, columns):
            raise ValueError(f"{self.modes} modes need {2 * self.modes} cells, got {x.shape[1:3]}")
        shape = (2, 2 * self.modes, self.modes, channels, channels)
        real, imag = self.param("kernel", nn.initializers.normal(1 / channels), shape)
        spectrum = jnp.fft.rfft2(x, axes=(1, 2))[:, :, : self.modes]
        low = jnp.concatenate([spectrum[:, : self.modes], spectrum[:, -self.modes :]], axis=1)
        low = jnp.einsum("bijc,ijcd->bijd", low, jax.lax.complex(real, imag))
        gap = jnp.zeros((len(x), rows - 2 * self.modes, self.modes, channels), low.dtype)
        parts = [low[:, : self.modes], gap, low[:, self.modes :]]
        spectrum = jnp.concatenate(parts, axis=1)
        return jnp.fft.irfft2(spectrum, (rows, columns), axes=(1, 2))


class FourierOperator(nn.Module):
    """Layers of a spectral convolution plus a pointwise map, between a lift and a projection.

    It sees the positions beside the values.
    """

    width: int = 16
    modes: int = 8
    num_layers: int = 4
    padding: int = 0
    """Cells of zeros behind each axis: the transform is periodic, the functions need not be."""

    @nn.compact
    def __call__(self, a: jax.Array) -> jax.Array:
        """Functions (batch, s, t) of functions (batch, s, t)."""
        axes = [jnp.linspace(0, 1, n, dtype=a.dtype) for n in a.shape[1:]]
        positions = [jnp.broadcast_to(p, a.shape) for p in jnp.meshgrid(*axes, indexing="ij")]
        x = nn.Dense(self.width)(jnp.stack([a, *positions], axis=-1))
        x = jnp.pad(x, ((0, 0), (0, self.padding), (0, self.padding), (0, 0)))
        for layer in range(self.num_layers):
            x = SpectralConvolution(self.modes)(x) + nn.Dense(self.width)(x)
            x = nn.gelu(x) if layer + 1 < self.num_layers else x
        x = x[:, : a.shape[1], : a.shape[2]]
        return nn.Dense(1)(nn.gelu(nn.Dense(2 * self.width)(x)))[..., 0]
