"""Magnetic resonance: sampled Fourier transforms of an image seen by several coils.

The transform is centred (zero frequency and origin at index n // 2) and orthonormal. In A^H A a
sampled transform between two of them is a circular convolution, which commutes with the shifts:
they drop out, and along an axis on which the sampling does not depend so does the transform.
"""

from collections.abc import Callable

import jax.numpy as jnp

from subspace_jax.diffusion.operators import masks
from subspace_jax.diffusion.operators._operator import LinearOperator, checked
from subspace_jax.typing import Array, Bool, Float, Inexact

_PLANE = (-2, -1)


def multicoil_mri(
    mask: Bool[Array, "h w"] | Bool[Array, " w"] | Float[Array, "h w"] | Float[Array, " w"],
    coil_maps: Inexact[Array, "c h w"],
) -> LinearOperator:
    """The operator M F S: complex image (H, W) to sampled k-space of every coil (C, H, W).

    What is not sampled is zero. Where the coil maps' sum of squares is one, the eigenvalues of
    A^H A are at most one.

    Args:
        mask: what is sampled, (H, W); or which columns are, (W,), the lines of a read-out along H:
            then the Gram operator takes transforms along one axis only. May be weights.
        coil_maps: sensitivities S.

    Raises:
        ValueError: a mask and coil maps that do not fit, a complex mask; from its functions,
            arrays of another shape, a real image or real k-space.

    Reference: Pruessmann, Weiger, Scheidegger & Boesiger (1999), "SENSE: sensitivity encoding for
    fast MRI".
    """
    mask, coil_maps = jnp.asarray(mask), jnp.asarray(coil_maps)
    if coil_maps.ndim != 3:
        raise ValueError(f"coil_maps must have shape (C, H, W), got {coil_maps.shape}")
    shape = coil_maps.shape[1:]
    _check_mask(mask, shape)
    masking, convolve = _sampling(mask)

    def apply(x: Array) -> Array:
        return masking(transform(coil_maps.astype(x.dtype) * x))

    def adjoint(y: Array) -> Array:
        maps = coil_maps.astype(y.dtype)
        return jnp.sum(maps.conj() * inverse_transform(masking(y)), axis=0)

    def gram(x: Array) -> Array:
        maps = coil_maps.astype(x.dtype)
        return jnp.sum(maps.conj() * convolve(maps * x), axis=0)

    return checked(apply, adjoint, gram, shape, coil_maps.shape, dtype=jnp.complex64)


def radial(num_spokes: int, shape: tuple[int, int]) -> LinearOperator:
    """The operator M F of one coil, sampled at the grid points nearest to spokes: `masks.radial`.

    A complex image (H, W) to k-space (H, W), zero where not sampled: radial sampling gridded to
    the Cartesian grid, so its Gram operator is a circular convolution and exact.

    Raises:
        ValueError: fewer than one spoke, a shape that is not (H, W).
    """
    mask = masks.radial(num_spokes, shape)
    masking, convolve = _sampling(mask)
    return checked(
        lambda x: masking(transform(x)),
        lambda y: inverse_transform(masking(y)),
        convolve,
        mask.shape,
        mask.shape,
        dtype=jnp.complex64,
    )


def transform(x: Inexact[Array, "*c h w"]) -> Inexact[Array, "*c h w"]:
    """The centred orthonormal Fourier transform of the last two axes."""
    centred = jnp.fft.ifftshift(x, _PLANE)
    return jnp.fft.fftshift(jnp.fft.fft2(centred, norm="ortho"), _PLANE)


def inverse_transform(y: Inexact[Array, "*c h w"]) -> Inexact[Array, "*c h w"]:
    """The inverse of `transform`, and its adjoint."""
    centred = jnp.fft.ifftshift(y, _PLANE)
    return jnp.fft.fftshift(jnp.fft.ifft2(centred, norm="ortho"), _PLANE)


def _sampling(mask: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """The functions y -> M y and x -> F^H M^H M F x."""
    axes = _PLANE[-mask.ndim :]
    density = jnp.fft.ifftshift(mask, axes)

    def masking(y: Array) -> Array:
        return mask.astype(y.real.dtype) * y

    def convolve(x: Array) -> Array:
        weights = density.astype(x.real.dtype) ** 2
        return jnp.fft.ifftn(weights * jnp.fft.fftn(x, axes=axes), axes=axes)

    return masking, convolve


def _check_mask(mask: Array, shape: tuple[int, ...]) -> None:
    if mask.shape not in (shape, shape[1:]):
        raise ValueError(
            f"mask must have shape {shape} or {shape[1:]} like the coil maps, got {mask.shape}"
        )
    if jnp.iscomplexobj(mask):
        raise ValueError(f"mask must be real, got {mask.dtype}")
