"""Hermitian matrices of many kinds, small enough for a dense solver."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from pyamg import gallery

from tests.problems import normal, unitary

GALLERY = ("airfoil", "bar", "knot", "unit_square", "unit_cube", "local_disc_galerkin_diffusion")


def with_values(values, dtype="float64", seed=0):
    U = unitary(np.random.default_rng(seed), len(values), dtype)
    return (U * np.asarray(values)) @ U.conj().T


def from_gallery(name):
    if name == "elasticity":
        return gallery.linear_elasticity((12, 12))[0].toarray()
    return gallery.load_example(name)["A"].toarray()


def graph_laplacian(W):
    return np.diag(np.abs(W).sum(axis=1)) - W


def neighbours(n=300, k=6):
    """The graph of nearest neighbours of random points in the plane."""
    X = np.random.default_rng(0).random((n, 2))
    distances = np.linalg.norm(X[:, None] - X[None], axis=-1)
    W = (distances < np.sort(distances, axis=1)[:, k, None]) & ~np.eye(n, dtype=bool)
    return graph_laplacian(np.maximum(W, W.T).astype(float))


def random_graph(n=250, dtype="float64"):
    """Random edges; with complex entries, of random phases: a magnetic Laplacian."""
    rng = np.random.default_rng(1)
    W = np.triu((rng.random((n, n)) < 0.05) * normal(rng, (n, n), dtype), 1)
    W = np.divide(W, np.abs(W), out=np.zeros_like(W), where=W != 0)
    W = np.abs(W) if dtype == "float64" else W
    return graph_laplacian(W + W.conj().T)


def grid_graph(*shape):
    total = 0
    for axis, size in enumerate(shape):
        path = graph_laplacian(np.eye(size, k=1) + np.eye(size, k=-1))
        before, after = (int(np.prod(s)) for s in (shape[:axis], shape[axis + 1 :]))
        total = total + sp.kron(sp.kron(sp.eye(before), path), sp.eye(after))
    return np.asarray(total.todense())


def ring(n=200):
    return graph_laplacian(np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0))


def net_hessian(width, seed=0):
    """Of the cross-entropy of a small network on random points of three classes."""
    rng = np.random.default_rng(seed)
    X, labels = jnp.asarray(rng.normal(size=(60, 5))), jnp.asarray(rng.integers(3, size=60))
    sizes = [(5, width), (width,), (width, 3), (3,)]
    params = [0.5 * rng.normal(size=size) for size in sizes]
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def loss(w):
        W, b, V, c = unravel(w)
        scores = jnp.tanh(X @ W + b) @ V + c
        return -jnp.mean(jax.nn.log_softmax(scores)[jnp.arange(60), labels])

    return np.asarray(jax.hessian(loss)(flat))


MATRICES = {
    **{name: lambda name=name: from_gallery(name) for name in (*GALLERY, "elasticity")},
    "neighbours": neighbours,
    "random graph": random_graph,
    "magnetic graph": lambda: random_graph(dtype="complex128"),
    "rectangle": lambda: grid_graph(17, 23),
    "square": lambda: grid_graph(18, 18),
    "ring": ring,
    "net of 12": lambda: net_hessian(12),
    "net of 30": lambda: net_hessian(30, seed=1),
    "clustered": lambda: with_values(np.r_[np.linspace(0, 1, 290), 2 + 1e-3 * np.arange(10)]),
    "multiple": lambda: with_values(np.r_[np.linspace(0, 1, 290), [2.0] * 3, [3.0] * 4, 4, 5, 6]),
    "decaying": lambda: with_values(np.geomspace(1e-4, 1, 300)),
    "indefinite": lambda: with_values(np.r_[-np.geomspace(1, 2, 150), np.geomspace(1, 2, 150)]),
    "complex": lambda: with_values(np.linspace(-1, 1, 300) ** 3, "complex128"),
}
