"""The linear systems of the benchmark: each as a JAX operator and as a matrix of numpy or scipy.

The operator is what the JAX contenders multiply by, one and the same for all; the matrix is built
without JAX, in float64, and every residual that is reported is computed with it.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse
from jax.tree_util import Partial
from scipy.sparse.linalg import splu

from subspace_jax.linalg import operators


class System(NamedTuple):
    """A x = b, or min |A x - b|."""

    name: str
    operators: Callable[[str], tuple]
    """dtype -> (A,), for least squares (A, A^T)."""
    matrix: sparse.csr_array | np.ndarray
    b: np.ndarray
    """float64, of numbers that float32 represents; has the shape that A takes."""
    kind: str = "solve"
    """Or least squares, batch (of systems along the first axis of b), gradient."""

    def error(self, x: np.ndarray) -> float:
        """What is reported as accuracy, in float64 without JAX."""
        if self.kind == "gradient":
            exact = self.gradient()
            return float(np.linalg.norm(x.ravel() - exact) / np.linalg.norm(exact))
        b = self.b.ravel()
        r = b - self.matrix @ np.asarray(x, np.float64).ravel()
        if self.kind == "least squares":
            r, b = self.matrix.T @ r, self.matrix.T @ b
        if self.kind == "batch":
            r, b = (v.reshape(len(self.b), -1) for v in (r, b))
        return float(np.max(np.linalg.norm(r, axis=-1) / np.linalg.norm(b, axis=-1)))

    def gradient(self) -> np.ndarray:
        """That of |x|^2 / 2 with respect to the diagonal: -x A^{-1} x, by a sparse LU."""
        lu = splu(self.matrix.tocsc())
        x = lu.solve(self.b.ravel())
        return -x * lu.solve(x)


def poisson(*shape: int, spacing: float = 1.0) -> System:
    """The stencil of -Laplacian, 5 points in the plane and 7 in space."""
    return System(
        name=f"Poisson {'x'.join(map(str, shape))}",
        operators=lambda dtype: (Partial(partial(operators.laplacian, spacing=spacing)),),
        matrix=laplacian_matrix(shape) / spacing**2,
        b=_right_hand_side(shape),
    )


def helmholtz(size: int, *, below: int) -> System:
    """-Laplacian - sigma with sigma amid the spectrum: ``below`` negative eigenvalues."""
    modes = 4 * np.sin(np.pi * np.arange(1, size + 1) / (2 * (size + 1))) ** 2
    spectrum = np.unique(np.round(np.add.outer(modes, modes), 12))
    counts = [(np.add.outer(modes, modes) < value).sum() for value in spectrum[: below + 2]]
    index = int(np.searchsorted(counts, below))
    sigma = (spectrum[index - 1] + spectrum[index]) / 2
    matrix = laplacian_matrix((size, size)) - sigma * sparse.eye_array(size**2)

    def product(sigma, v):
        return operators.laplacian(v) - sigma * v

    return System(
        name=f"Helmholtz {size}x{size}, {counts[index]} negative eigenvalues",
        operators=lambda dtype: (Partial(product, jnp.asarray(sigma, dtype)),),
        matrix=matrix.tocsr(),
        b=_right_hand_side((size, size)),
    )


def convection(size: int, *, peclet: float) -> System:
    """-Laplacian + velocity . grad, central differences; ``peclet`` is that of a cell."""
    angle = np.pi / 6
    slopes = [peclet * np.cos(angle), peclet * np.sin(angle)]
    eye, off = sparse.eye_array(size), np.ones(size - 1)
    second = sparse.diags_array([-off, np.full(size, 2.0), -off], offsets=[-1, 0, 1])
    first = sparse.diags_array([-off, off], offsets=[-1, 1])
    one_way, other_way = (second + slope * first for slope in slopes)
    matrix = (sparse.kron(one_way, eye) + sparse.kron(eye, other_way)).tocsr()

    def product(slopes, v):
        p = jnp.pad(v, 1)
        gradient = slopes[0] * (p[2:, 1:-1] - p[:-2, 1:-1])
        return operators.laplacian(v) + gradient + slopes[1] * (p[1:-1, 2:] - p[1:-1, :-2])

    return System(
        name=f"convection {size}x{size}, cell Peclet {peclet:g}",
        operators=lambda dtype: (Partial(product, jnp.asarray(slopes, dtype)),),
        matrix=matrix,
        b=_right_hand_side((size, size)),
    )


def kernel(num_points: int, *, shift: float) -> System:
    """A Gaussian kernel of random points in the cube, plus ``shift`` times the identity."""
    points = np.random.default_rng(2).uniform(size=(num_points, 3))
    squares = ((points[:, None] - points[None]) ** 2).sum(-1)
    matrix = np.exp(-squares / (2 * 0.3**2)) + shift * np.eye(num_points)
    return System(
        name=f"Gaussian kernel + {shift:g} I, n = {num_points}",
        operators=lambda dtype: (operators.as_callable(jnp.asarray(matrix, dtype)),),
        matrix=matrix,
        b=_right_hand_side((num_points,)),
    )


def regression(rows: int, columns: int, *, condition: float) -> System:
    """A dense tall matrix with singular values from 1 to 1 / ``condition``."""
    rng = np.random.default_rng(3)
    U, V = (np.linalg.qr(rng.standard_normal((n, columns)))[0] for n in (rows, columns))
    matrix = (U * np.geomspace(1, 1 / condition, columns)) @ V.T
    return System(
        name=f"least squares {rows}x{columns}, condition {condition:g}",
        operators=lambda dtype: tuple(
            operators.as_callable(jnp.asarray(M, dtype)) for M in (matrix, matrix.T)
        ),
        matrix=matrix,
        b=_right_hand_side((rows,)),
        kind="least squares",
    )


def dense(n: int, *, condition: float) -> System:
    """Q diag(1 .. 1 / condition) Q^T, rounded to float32 once and for all."""
    Q = np.linalg.qr(np.random.default_rng(4).standard_normal((n, n)))[0]
    matrix = ((Q * np.geomspace(1, 1 / condition, n)) @ Q.T).astype(np.float32)
    return System(
        name=f"dense {n}, condition {condition:.0e}".replace("e+0", "e"),
        operators=lambda dtype: (operators.as_callable(jnp.asarray(matrix, dtype)),),
        matrix=matrix.astype(np.float64),
        b=_right_hand_side((n,)),
    )


def batch(count: int, size: int) -> System:
    """Stencils of size x size, each plus a diagonal that spreads over 1 to 1e1 .. 1e6."""
    rng = np.random.default_rng(6)
    spread = np.geomspace(1e1, 1e6, count)
    diagonals = rng.permutation(spread)[:, None, None] ** rng.uniform(size=(count, size, size))
    blocks = sparse.kron(sparse.eye_array(count), laplacian_matrix((size, size)))
    return System(
        name=f"{count} x (stencil {size}x{size} + diagonal)",
        operators=lambda dtype: (Partial(_stencil_plus, jnp.asarray(diagonals, dtype)),),
        matrix=(blocks + sparse.diags_array(diagonals.ravel())).tocsr(),
        b=_right_hand_side((count, size, size)),
        kind="batch",
    )


def differentiated(size: int) -> System:
    """One stencil plus a diagonal in [0, 0.01]."""
    d = np.random.default_rng(7).uniform(0, 0.01, (size, size))
    matrix = laplacian_matrix((size, size)) + sparse.diags_array(d.ravel())
    return System(
        name=f"gradient, stencil {size}x{size} + diagonal",
        operators=lambda dtype: (plus_diagonal(jnp.asarray(d, dtype)),),
        matrix=matrix.tocsr(),
        b=_right_hand_side((size, size)),
        kind="gradient",
    )


def plus_diagonal(d: jax.Array) -> Partial:
    """The operator v -> -Laplacian v + d v."""
    return Partial(_stencil_plus, d)


def _stencil_plus(d, v):
    return operators.laplacian(v) + d * v


def laplacian_matrix(shape: tuple[int, ...]) -> sparse.csr_array:
    """-Laplacian with zero boundary values, unit spacing, from one-dimensional matrices."""
    total = sparse.csr_array((np.prod(shape), np.prod(shape)))
    for axis, size in enumerate(shape):
        off = -np.ones(size - 1)
        line = sparse.diags_array([off, np.full(size, 2.0), off], offsets=[-1, 0, 1])
        before, after = (int(np.prod(s)) for s in (shape[:axis], shape[axis + 1 :]))
        total += sparse.kron(sparse.kron(sparse.eye_array(before), line), sparse.eye_array(after))
    return total.tocsr()


def check(system: System, dtype: str = "float64") -> None:
    """The operator and the matrix are the same map; ValueError if they are not."""
    matrices = (system.matrix, system.matrix.T)
    for A, matrix in zip(system.operators(dtype), matrices, strict=False):
        rng = np.random.default_rng(5)
        shape = system.b.shape if matrix.shape[0] == matrix.shape[1] else matrix.shape[1:]
        v = rng.standard_normal(shape)
        ours = np.asarray(jax.jit(lambda A, v: A(v))(A, jnp.asarray(v, dtype))).ravel()
        difference = np.linalg.norm(ours - matrix @ v.ravel()) / np.linalg.norm(v)
        if difference > 1e3 * np.finfo(dtype).eps:
            raise ValueError(f"{system.name}: operator and matrix differ by {difference:.1e}")


def _right_hand_side(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, np.float32).astype(np.float64)
