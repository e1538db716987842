"""Random integers from integer arithmetic alone.

A subspace saved as a seed must mean the same on every device and in every version of JAX, so
nothing here calls ``jax.random``: only 32-bit integer operations, all exact, none larger than O(1)
memory for each entry. `normal` alone rounds what they give, by each device's ``erf_inv``.
"""

from functools import partial

import jax
import jax.numpy as jnp

from subspace_jax.typing import Array, Float, Key, UInt32

_NUM_ROUNDS = 6


def seed_from_key(key: Key) -> UInt32[Array, "2"]:
    """Two words of seed that depend on every word of a PRNG key."""
    words = jnp.ravel(jax.random.key_data(key))
    seed = jnp.array([0x243F6A88, 0x85A308D3], jnp.uint32)  # the digits of pi
    for word in words:
        seed = _mix(seed ^ word) + jnp.array([0, 0x9E3779B9], jnp.uint32)
    return seed


def fold(seed: UInt32[Array, "2"], stream: UInt32[Array, ""] | int) -> UInt32[Array, "2"]:
    """A new seed for the substream with this number (below 2^31)."""
    counter = jnp.asarray(stream, jnp.uint32) * 2
    return bits(seed, jnp.stack([counter, counter + 1]))


def bits(seed: UInt32[Array, "2"], counter: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """A random word for each counter."""
    return _mix(_mix(counter ^ seed[0]) + seed[1])


def normal(seed: UInt32[Array, "2"], counter: UInt32[Array, "*n"]) -> Float[Array, "*n"]:
    """A standard normal number (float32) for each counter, by inversion."""
    uniform = (bits(seed, counter) >> 9).astype(jnp.float32) + 0.5  # in (0, 2^23)
    return jnp.sqrt(2.0) * jax.lax.erf_inv(uniform * 2.0**-22 - 1.0)


@partial(jax.jit, static_argnums=(1, 2))
def permutation(
    seed: UInt32[Array, "2"], size: int, count: int | None = None
) -> UInt32[Array, " count"]:
    """The first ``count`` (default: all) values of a random permutation of 0, ..., size - 1.

    A Feistel network permutes pairs (left, right) of Z_a x Z_a with a = ceil(sqrt(size)); values
    that fall outside are sent through it again until they are inside ("cycle walking").

    Reference: Black & Rogaway (2002), "Ciphers with arbitrary finite domains", methods 2 and 3.
    """
    side = jnp.uint32(_ceil_sqrt(size))

    def mix_halves(number, halves):
        left, right = halves
        return right, (left + bits(fold(seed, number.astype(jnp.uint32)), right) % side) % side

    def network(x):
        left, right = jax.lax.fori_loop(0, _NUM_ROUNDS, mix_halves, (x // side, x % side))
        return left * side + right

    values = network(jnp.arange(size if count is None else count, dtype=jnp.uint32))
    return jax.lax.while_loop(
        lambda x: jnp.any(x >= size), lambda x: jnp.where(x >= size, network(x), x), values
    )


def _mix(x: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """A bijection of the 32-bit words in which every input bit moves every output bit.

    Reference: Wellons (2018), "Prospecting for hash functions", lowbias32.
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _ceil_sqrt(n: int) -> int:
    root = int(n**0.5)
    while root * root < n:
        root += 1
    return root
