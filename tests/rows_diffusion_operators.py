"""Rows of the contract's table: measurement operators, masks, coil maps."""

import jax.numpy as jnp

from subspace_jax.diffusion import operators
from subspace_jax.diffusion.operators import coils, masks
from tests.rows import FIELD, Row, arrays, normal

COMPLEX = ("complex64",)
ANGLES = (0.0, 0.7, 2.0)


def all_of(op, x):
    """What an operator does to one image."""
    y = op.apply(x)
    return y, op.adjoint(y), op.gram(x)


def parallel(build):
    def function(x):
        angles = jnp.asarray(ANGLES, x.real.dtype)
        return all_of(build(angles, (4, 5), 8), x)

    return Row(function, arrays((4, 5)), FIELD)


def masked(draw):
    """A host function's mask, applied: a constant of the program."""
    return Row(lambda x: jnp.where(draw(), x, 0), arrays((6, 8)), FIELD)


def calibrated(k):
    maps = coils.espirit(k, calibration_width=6, kernel_width=2, num_steps=30)
    return jnp.abs(maps)


OPTIONS = {"acceleration": 2.0}
MASK = masks.uniform(0, 8, **OPTIONS)
DIFFUSION_OPERATOR_ROWS = {
    "operators.linear": Row(
        lambda x: all_of(operators.linear(jnp.cumsum, (6,), dtype=x.dtype), x), arrays((6,)), FIELD
    ),
    "operators.stack3d": Row(
        lambda x: all_of(operators.stack3d(operators.downsample((4, 2), 2), 3), x),
        arrays((3, 4, 2)),
        FIELD,
    ),
    "operators.multicoil_mri": Row(
        lambda maps, x: all_of(operators.multicoil_mri(jnp.arange(5) % 2 == 0, maps), x),
        arrays((2, 4, 5), (4, 5)),
        COMPLEX,
        grad=False,  # complex only: its derivative has a test of its own
    ),
    "operators.radial": Row(
        lambda x: all_of(operators.radial(2, (4, 5)), x), arrays((4, 5)), COMPLEX, grad=False
    ),
    "operators.parallel_beam": parallel(operators.parallel_beam),
    "operators.parallel_beam_fourier": parallel(operators.parallel_beam_fourier),
    "operators.inpaint": Row(
        lambda mask, x: all_of(operators.inpaint(mask.real), x), arrays((4, 5), (4, 5)), FIELD
    ),
    "operators.downsample": Row(
        lambda x: all_of(operators.downsample((4, 6), 2), x), arrays((4, 6)), FIELD
    ),
    "operators.blur": Row(
        lambda kernel, x: all_of(operators.blur((4, 5), kernel), x), arrays((3, 2), (4, 5)), FIELD
    ),
    "masks.acceleration": Row(lambda x: x / masks.acceleration(MASK), arrays((8,)), FIELD),
    "masks.uniform": masked(lambda: masks.uniform(0, 8, **OPTIONS)),
    "masks.equispaced": masked(lambda: masks.equispaced(0, 8, **OPTIONS)),
    "masks.gaussian": masked(lambda: masks.gaussian(0, 8, **OPTIONS)),
    "masks.gaussian2d": masked(lambda: masks.gaussian2d(0, (6, 8), **OPTIONS)),
    "masks.poisson_disc": masked(lambda: masks.poisson_disc(0, (6, 8), **OPTIONS)),
    "masks.radial": masked(lambda: masks.radial(2, (6, 8))),
    "coils.birdcage": Row(
        lambda x: coils.birdcage(2, (4, 5), dtype=x.dtype) * x, arrays((4, 5)), COMPLEX, grad=False
    ),
    "coils.espirit": Row(
        calibrated,
        lambda rng, dtype: (normal(rng, (2, 8, 8), dtype),),
        COMPLEX,
        grad=False,  # a threshold cuts the subspace
    ),
}
