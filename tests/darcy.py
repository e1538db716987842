"""Sequences of Darcy systems, with the step counts of a reference that solves for all Ritz vectors.

`darcy_sequences.npz`: Gaussian random fields (alpha = 2.5, tau = 7, seeded) on a grid of 52 x 52,
40 independent ones (``log_full``) and 100 that three parameters span, and the Arnoldi steps of
GCRO-DR(40, 20) in float64 with the exact harmonic Ritz vectors, from zero, to rtol = 1e-5.
"""

from functools import cache, partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments import families


@cache
def data():
    with np.load(Path(__file__).parent / "darcy_sequences.npz") as file:
        return dict(file)


def fields(family):
    """(N, 52, 52) coefficients w."""
    d = data()
    if family == "full":
        return np.exp(d["log_full"].astype(np.float64))
    return np.exp(d["log_base"] + np.tensordot(d["parameters"], d["log_modes"], 1))


def steps(family, matrix, start):
    """The reference's, ``start`` being "cold" or "recycled"."""
    return data()[f"steps_{start}_{family}_{matrix}"]


def right_hand_side(s=50):
    return jnp.asarray(families.right_hand_side(s))


OPERATORS = {
    "spd": lambda w: partial(families.conservative, w),
    "paper": lambda w: partial(families.released, w),
}
