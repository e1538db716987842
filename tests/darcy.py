"""Sequences of Darcy systems, with the step counts of a reference that solves for all Ritz vectors.

`darcy_sequences.npz`: Gaussian random fields (alpha = 2.5, tau = 7, seeded) on a grid of 52 x 52,
40 independent ones (``log_full``) and 100 that three parameters span, and the Arnoldi steps of
GCRO-DR(40, 20) in float64 with the exact harmonic Ritz vectors, from zero, to rtol = 1e-5.
"""

from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np


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


def random_fields(num, size, alpha=2.5, tau=7.0, seed=0):
    """Coefficients of the same generator on another grid: covariance tau^3 (tau^2 - Lap)^-alpha."""
    waves = 2 * np.pi * np.fft.fftfreq(size, 1 / size)
    power = tau ** (2 * alpha - 2) * (waves[:, None] ** 2 + waves**2 + tau**2) ** -alpha
    power[0, 0] = 0
    noise = np.fft.fft2(np.random.default_rng(seed).standard_normal((num, size, size)))
    return np.exp(size * np.fft.ifft2(np.sqrt(power) * noise).real)


def steps(family, matrix, start):
    """The reference's, ``start`` being "cold" or "recycled"."""
    return data()[f"steps_{start}_{family}_{matrix}"]


def right_hand_side(s=50):
    return jnp.full(s * s, 1.0 / (s - 1) ** 2)


def conservative(w):
    """-div(w grad u), finite volumes, arithmetic means on the faces: symmetric."""
    c = w[1:-1, 1:-1]
    down, up = (c + w[2:, 1:-1]) / 2, (c + w[:-2, 1:-1]) / 2
    right, left = (c + w[1:-1, 2:]) / 2, (c + w[1:-1, :-2]) / 2
    right_inner, down_inner = right[:, :-1], down[:-1]

    def matvec(v):
        u = v.reshape(c.shape)
        out = (down + up + right + left) * u
        out = out.at[:-1].add(-down_inner * u[1:]).at[1:].add(-down_inner * u[:-1])
        out = out.at[:, :-1].add(-right_inner * u[:, 1:]).at[:, 1:].add(-right_inner * u[:, :-1])
        return out.ravel()

    return matvec


def released(w):
    """The matrix of the paper's code as it acts: scaled by columns, one diagonal misplaced."""
    s = w.shape[0] - 2
    n = s * s
    c = w[1:-1, 1:-1]
    to_right = w[1:-1, 2:].at[:, -1].set(0).ravel()
    to_left = w[1:-1, :-2].at[:, 0].set(0).ravel()
    below = w[2:, 1:-1].ravel()
    above = w[:-2, 1:-1].ravel()[s - 2 : n - 2]
    diagonals = jnp.stack(
        [
            4 * c.ravel(),
            jnp.pad(-to_right[:-1], (0, 1)),
            jnp.pad(-to_left[1:], (1, 0)),
            jnp.pad(-below[: n - s], (0, s)),
            jnp.pad(-above, (s, 0)),
        ]
    )

    def matvec(v):
        p = jnp.pad(v, s)
        shifted = (v, p[s + 1 : s + 1 + n], p[s - 1 : s - 1 + n], p[2 * s :], p[:n])
        return sum(d * u for d, u in zip(diagonals, shifted, strict=True))

    return matvec


MATRICES = {"spd": conservative, "paper": released}
