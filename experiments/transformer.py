"""A small decoder-only transformer in the manner of LLaMA (flax linen: pure ``init``, ``apply``).

All its kernels are matrices, heads side by side: what low-rank optimizers work on.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class Shape(NamedTuple):
    """Sizes of a transformer."""

    num_layers: int
    width: int
    num_heads: int
    ff_width: int
    vocab: int = 256


LLAMA_60M = Shape(8, 512, 8, 1376, 32_000)
LLAMA_130M = Shape(12, 768, 12, 2048, 32_000)
"""The shapes that GaLore (2024) trains on C4, with contexts of 256 tokens."""


class Transformer(nn.Module):
    """Pre-norm blocks of attention with rotary positions and SwiGLU; a head of its own."""

    shape: Shape

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits (batch, length, vocab) of the token after each of (batch, length)."""
        shape = self.shape
        embed = nn.Embed(shape.vocab, shape.width, embedding_init=nn.initializers.normal(0.02))
        x = embed(tokens.astype(jnp.int32))
        for i in range(shape.num_layers):
            x = x + Attention(shape, name=f"attention_{i}")(nn.RMSNorm()(x))
            x = x + SwiGLU(shape, name=f"feed_forward_{i}")(nn.RMSNorm()(x))
        return _dense(shape.vocab, "head")(nn.RMSNorm()(x))


class Attention(nn.Module):
    """Causal attention of several heads."""

    shape: Shape

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, length, width) to the same."""
        heads = (*x.shape[:2], self.shape.num_heads, -1)
        q, k, v = (_dense(self.shape.width, name)(x).reshape(heads) for name in "qkv")
        mixed = jax.nn.dot_product_attention(rotary(q), rotary(k), v, is_causal=True)
        return _dense(self.shape.width, "out")(mixed.reshape(x.shape))


class SwiGLU(nn.Module):
    """A layer whose width is gated by another (Shazeer, 2020)."""

    shape: Shape

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, length, width) to the same."""
        gate, up = (_dense(self.shape.ff_width, name)(x) for name in ("gate", "up"))
        return _dense(self.shape.width, "down")(nn.silu(gate) * up)


def rotary(x: jax.Array, base: float = 10_000.0) -> jax.Array:
    """Pairs of features (batch, length, heads, d) turned by angles that grow with the position.

    Reference: Su et al. (2021), "RoFormer", eq. 34; feature i is paired with i + d / 2.
    """
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * base ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angles)[:, None].astype(x.dtype), jnp.sin(angles)[:, None].astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def next_token_loss(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Mean cross entropy in nats per token, of logits (..., length, vocab) for (..., length + 1).

    The first token is predicted by nothing and not counted.
    """
    targets = tokens[..., 1:].astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def _dense(width: int, name: str) -> nn.Dense:
    return nn.Dense(width, use_bias=False, name=name)
