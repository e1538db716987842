"""Measurements in the image's own domain: parts of it, blocks of it, a blurred one."""

import math

import jax.numpy as jnp

from subspace_jax.diffusion.operators._operator import LinearOperator, checked
from subspace_jax.typing import Array, Bool, Float, Inexact


def inpaint(mask: Bool[Array, "..."] | Float[Array, "..."]) -> LinearOperator:
    """The operator that keeps the pixels of a mask, the others zero; real or complex images.

    Args:
        mask: of the image's shape, any; may be weights.

    Raises:
        ValueError: a complex mask; from its functions, arrays of another shape.
    """
    mask = jnp.asarray(mask)
    if jnp.iscomplexobj(mask):
        raise ValueError(f"mask must be real, got {mask.dtype}")

    def masking(x: Array) -> Array:
        return mask.astype(x.real.dtype) * x

    def gram(x: Array) -> Array:
        return mask.astype(x.real.dtype) ** 2 * x

    return checked(masking, masking, gram, mask.shape, mask.shape)


def downsample(shape: tuple[int, ...], factor: int) -> LinearOperator:
    """The operator that takes means over blocks of ``factor`` pixels along every axis.

    A A^H is the identity over the number of pixels of a block.

    Args:
        shape: of the image, of any rank.
        factor: divides every length.

    Raises:
        ValueError: a factor that does not divide the shape; from its functions, arrays of another
            shape.
    """
    if factor < 1 or any(n % factor for n in shape):
        raise ValueError(f"factor must divide the shape {tuple(shape)}, got {factor}")
    coarse = tuple(n // factor for n in shape)
    blocks = tuple(length for n in coarse for length in (n, factor))
    within = tuple(range(1, 2 * len(shape), 2))
    size = factor ** len(shape)

    def apply(x: Array) -> Array:
        return jnp.mean(x.reshape(blocks), axis=within)

    def spread(y: Array) -> Array:
        return jnp.broadcast_to(jnp.expand_dims(y, within), blocks).reshape(shape)

    return checked(
        apply, lambda y: spread(y / size), lambda x: spread(apply(x) / size), tuple(shape), coarse
    )


def blur(shape: tuple[int, ...], kernel: Inexact[Array, "..."]) -> LinearOperator:
    """The circular convolution with a kernel whose origin is its pixel of index n // 2.

    Args:
        shape: of the image, of any rank.
        kernel: of that rank, at most as long in every axis. A real one takes real and complex
            images, a complex one complex images only.

    Raises:
        ValueError: a kernel that does not fit into the shape; from its functions, arrays of
            another shape, a real image for a complex kernel.
    """
    kernel = jnp.asarray(kernel)
    lengths = kernel.shape
    if len(lengths) != len(shape) or any(k > n for k, n in zip(lengths, shape, strict=True)):
        raise ValueError(f"kernel must fit into the shape {tuple(shape)}, got {lengths}")
    if not math.prod(lengths):
        raise ValueError(f"kernel must not be empty, got {lengths}")
    axes = tuple(range(len(shape)))
    padded = jnp.pad(kernel, [(0, n - k) for k, n in zip(lengths, shape, strict=True)])
    rolled = jnp.roll(padded, [-(k // 2) for k in lengths], axes)

    def multiply(x: Array, response: Array) -> Array:
        """Multiplication of the image's transform, of the half that a real image has."""
        if jnp.iscomplexobj(x):
            return jnp.fft.ifftn(response.astype(x.dtype) * jnp.fft.fftn(x))
        half = jnp.fft.rfftn(x)
        return jnp.fft.irfftn(
            response[..., : half.shape[-1]].astype(half.dtype) * half, shape, axes=axes
        )

    response = jnp.fft.fftn(rolled)
    power = jnp.abs(response) ** 2
    return checked(
        lambda x: multiply(x, response),
        lambda y: multiply(y, response.conj()),
        lambda x: multiply(x, power),
        tuple(shape),
        tuple(shape),
        dtype=kernel.dtype if jnp.iscomplexobj(kernel) else None,
    )
