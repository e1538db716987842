"""Sequences of linear systems that differ in their coefficients, as JAX operators and as matrices.

The Darcy families are those of the recycling paper (Wang et al., 2024): -div(w grad u) = 1 with
w the exponential of a Gaussian random field, on the s x s inner cells of a grid with a ring of
ghost cells around. An operator is (w, v) -> A v for one w (s + 2, s + 2), a matrix is assembled
from the same w without JAX.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from skimage import data


class Family(NamedTuple):
    """One kind of matrix."""

    name: str
    apply: Callable[[Any, jax.Array], jax.Array]
    """(parameters of one system, v (n,)) -> A v."""
    assemble: Callable[[Any], sparse.csr_array]
    diagonal: Callable[[Any], jax.Array]
    """Of the matrix, (n,)."""
    kind: str = "definite"
    """Or symmetric (indefinite), general: what a solver may rely on."""


class Systems(NamedTuple):
    """A sequence: N systems of one family."""

    family: Family
    params: Any
    """Arrays with a leading axis of N."""
    bs: np.ndarray
    """(N, n)."""
    features: np.ndarray
    """(N, ...) what they are sorted by."""


def gaussian_fields(
    num: int, size: int, *, alpha: float = 2.5, tau: float = 7.0, seed: int = 0
) -> np.ndarray:
    """(num, size, size) fields of covariance tau^(2 alpha - 2) (tau^2 - Laplacian)^(-alpha).

    Periodic, without their mean.
    """
    waves = 2 * np.pi * np.fft.fftfreq(size, 1 / size)
    power = tau ** (2 * alpha - 2) * (waves[:, None] ** 2 + waves**2 + tau**2) ** -alpha
    power[0, 0] = 0
    noise = np.fft.fft2(np.random.default_rng(seed).standard_normal((num, size, size)))
    return size * np.fft.ifft2(np.sqrt(power) * noise).real


def full_coefficients(num: int, size: int, seed: int = 0) -> np.ndarray:
    """Independent fields: as many dimensions as cells."""
    return np.exp(gaussian_fields(num, size, seed=seed))


def few_parameters(num: int, size: int, dimension: int = 3, seed: int = 0) -> np.ndarray:
    """Fields in a space of few dimensions: one base and a random combination of three modes."""
    base, *modes = gaussian_fields(1 + dimension, size, seed=seed)
    weights = np.random.default_rng(seed + 1).uniform(-1, 1, (num, dimension))
    return np.exp(base + np.tensordot(weights, np.array(modes), 1))


def photographs(num: int, size: int, seed: int = 0) -> np.ndarray:
    """Pieces of a photograph of grass, of contrast 100: a measured permeability, as it were."""
    image = data.grass() / 255
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, np.array(image.shape) - size, (num, 2))
    return 100.0 ** np.array([image[i : i + size, j : j + size] for i, j in corners])


def right_hand_side(size: int) -> np.ndarray:
    """The source 1 on s x s cells, times the square of their width 1 / (s - 1)."""
    return np.full(size * size, 1.0 / (size - 1) ** 2)


def conservative(w: jax.Array, v: jax.Array) -> jax.Array:
    """Finite volumes with arithmetic means on the faces, zero outside: symmetric, definite."""
    c, (down, up, right, left) = w[1:-1, 1:-1], _faces(w)
    u = jnp.pad(v.reshape(c.shape), 1)
    out = (down + up + right + left) * u[1:-1, 1:-1] - down * u[2:, 1:-1] - up * u[:-2, 1:-1]
    return (out - right * u[1:-1, 2:] - left * u[1:-1, :-2]).ravel()


def conservative_matrix(w: np.ndarray) -> sparse.csr_array:
    """The matrix of `conservative`."""
    s = w.shape[0] - 2
    down, up, right, left = (np.array(face) for face in _faces(w))
    diagonal = (down + up + right + left).ravel()
    right[:, -1] = 0
    across, along = right.ravel()[:-1], down.ravel()[:-s]
    return sparse.diags_array(
        [diagonal, -across, -across, -along, -along], offsets=[0, 1, -1, s, -s]
    ).tocsr()


def released(w: jax.Array, v: jax.Array) -> jax.Array:
    """The released code's matrix as it acts: scaled by columns, its lowest diagonal misplaced.

    Slightly nonsymmetric: see `released_matrix`.
    """
    s, n = w.shape[0] - 2, v.size
    right = w[1:-1, 2:].at[:, -1].set(0).ravel()
    left = w[1:-1, :-2].at[:, 0].set(0).ravel()
    above = jnp.pad(w[:-2, 1:-1].ravel()[s - 2 : n - 2], (s, 0))
    below = jnp.pad(w[2:, 1:-1].ravel()[: n - s], (0, s))
    right, left = jnp.pad(right[:-1], (0, 1)), jnp.pad(left[1:], (1, 0))
    u = jnp.pad(v, s)
    out = 4 * w[1:-1, 1:-1].ravel() * v - right * u[s + 1 : s + 1 + n] - left * u[s - 1 : s - 1 + n]
    return out - below * u[2 * s :] - above * u[:n]


def released_matrix(w: np.ndarray) -> sparse.csr_array:
    """The matrix that ``scipy.sparse.diags`` makes of the released code's diagonals.

    The one below the main block starts two entries late, since it is two entries too long.
    """
    s = w.shape[0] - 2
    c, n = w[1:-1, 1:-1], s * s
    before, after = np.array(w[1:-1, :-2]), np.array(w[1:-1, 2:])
    before[:, 0] = after[:, -1] = 0
    above, below = w[:-2, 1:-1].ravel()[s - 2 :][: n - s], w[2:, 1:-1].ravel()[: n - s]
    diagonals = [4 * c.ravel(), -after.ravel()[:-1], -before.ravel()[1:], -below, -above]
    return sparse.diags_array(diagonals, offsets=[0, 1, -1, s, -s]).tocsr()


def helmholtz(params: tuple, v: jax.Array) -> jax.Array:
    """-div(grad u) - k^2 w u, k h a parameter of its own: indefinite for k above sqrt(2) pi."""
    w, k = params
    return conservative(jnp.ones_like(w), v) - k**2 * w[1:-1, 1:-1].ravel() * v


def helmholtz_matrix(params: tuple) -> sparse.csr_array:
    """The matrix of `helmholtz`."""
    w, k = params
    shift = sparse.diags_array(k**2 * w[1:-1, 1:-1].ravel())
    return (conservative_matrix(np.ones_like(w)) - shift).tocsr()


def convection(params: tuple, v: jax.Array) -> jax.Array:
    """-div(w grad u) + p . grad u by central differences, p the Peclet numbers of a cell."""
    w, p = params
    s = w.shape[0] - 2
    u = jnp.pad(v.reshape(s, s), 1)
    flow = p[0] * (u[2:, 1:-1] - u[:-2, 1:-1]) + p[1] * (u[1:-1, 2:] - u[1:-1, :-2])
    return conservative(w, v) + flow.ravel()


def convection_matrix(params: tuple) -> sparse.csr_array:
    """The matrix of `convection`."""
    w, p = params
    s = w.shape[0] - 2
    line = sparse.diags_array([np.ones(s - 1), -np.ones(s - 1)], offsets=[1, -1])
    eye = sparse.eye_array(s)
    flow = p[0] * sparse.kron(line, eye) + p[1] * sparse.kron(eye, line)
    return (conservative_matrix(w) + flow).tocsr()


def _sum_of_faces(w):
    return sum(_faces(w)).ravel()


CONSERVATIVE = Family("Darcy, symmetric", conservative, conservative_matrix, _sum_of_faces)
RELEASED = Family(
    "Darcy, released matrix", released, released_matrix,
    lambda w: 4 * w[1:-1, 1:-1].ravel(), "general",
)  # fmt: skip
HELMHOLTZ = Family(
    "Helmholtz", helmholtz, helmholtz_matrix,
    lambda params: 4 - params[1] ** 2 * params[0][1:-1, 1:-1].ravel(), "symmetric",
)  # fmt: skip
CONVECTION = Family(
    "convection", convection, convection_matrix,
    lambda params: _sum_of_faces(params[0]), "general",
)  # fmt: skip


def _darcy(family: Family, coefficients: Callable) -> Callable[[int, int], Systems]:
    def build(num, size):
        ws = coefficients(num, size + 2)
        return Systems(family, ws, np.tile(right_hand_side(size), (num, 1)), ws)

    return build


def _helmholtz(num: int, size: int) -> Systems:
    """Wave numbers of a few to some ten negative eigenvalues, in slightly varying media."""
    ws = few_parameters(num, size + 2) ** 0.1
    ks = np.random.default_rng(7).uniform(10, 20, num) / (size + 1)
    features = np.concatenate([ws.reshape(num, -1), size * ks[:, None]], axis=1)
    return Systems(HELMHOLTZ, (ws, ks), np.tile(right_hand_side(size), (num, 1)), features)


def _convection(num: int, size: int) -> Systems:
    ws = few_parameters(num, size + 2)
    ps = np.random.default_rng(8).uniform(-0.5, 0.5, (num, 2))
    features = np.concatenate([ws.reshape(num, -1), size * ps], axis=1)
    return Systems(CONVECTION, (ws, ps), np.tile(right_hand_side(size), (num, 1)), features)


def _one_matrix(num: int, size: int) -> Systems:
    """Poisson: only the right-hand side varies, and a factorisation serves all."""
    ws = np.ones((num, size + 2, size + 2))
    bs = gaussian_fields(num, size, seed=9).reshape(num, -1) / (size - 1) ** 2
    return Systems(CONSERVATIVE, ws, bs, bs)


def _thermal(num: int, size: int) -> Systems:
    """A plate of one material whose left and right edges have temperatures, 0 on the others.

    Only the two temperatures vary, and with them b: all solutions lie in a plane.
    """
    w = photographs(1, size + 2, seed=3)[0]
    _, _, right, left = _faces(w)
    temperatures = np.random.default_rng(10).uniform((-100, 0), (0, 100), (num, 2))
    bs = np.zeros((num, size, size))
    bs[:, :, 0] += temperatures[:, :1] * left[:, 0]
    bs[:, :, -1] += temperatures[:, 1:] * right[:, -1]
    return Systems(CONSERVATIVE, np.tile(w, (num, 1, 1)), bs.reshape(num, -1), temperatures)


SEQUENCES = {
    "Darcy, released matrix, full field": _darcy(RELEASED, full_coefficients),
    "Darcy, released matrix, 3 parameters": _darcy(RELEASED, few_parameters),
    "Darcy, symmetric, full field": _darcy(CONSERVATIVE, full_coefficients),
    "Darcy, symmetric, 3 parameters": _darcy(CONSERVATIVE, few_parameters),
    "Darcy, symmetric, photographs": _darcy(CONSERVATIVE, photographs),
    "Helmholtz, indefinite": _helmholtz,
    "convection-diffusion": _convection,
    "Poisson, one matrix": _one_matrix,
    "thermal, one matrix": _thermal,
}
"""(number of systems, cells along a side) -> `Systems`."""


def _faces(w):
    c = w[1:-1, 1:-1]
    return tuple((c + f) / 2 for f in (w[2:, 1:-1], w[:-2, 1:-1], w[1:-1, 2:], w[1:-1, :-2]))
