"""Spectral Krylov methods beside their peers: time, matvecs, compile time, accuracy reached.

    python -m scripts.bench.spectral [--quick] [--output=FILE]

The peers are scipy (ARPACK, LOBPCG), jax.experimental's LOBPCG and matfree; solvax has no Hermitian
eigensolver, function or trace of a matrix-free operator. Unknowns: 2^16, the 5-point stencil and a
diagonal with decaying entries, in float64. The protocol is that of `scripts.bench.krylov`. Accuracy
of eigenvectors is the largest ||A v - <v, A v> v|| / |A|; of a basis, |Q^T Q - I|; of f(A) b and of
log-determinants the relative error against the exact one, from the known spectrum.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.sparse as sparse
import scipy.sparse.linalg as scipy_linalg
from jax.experimental.sparse.linalg import lobpcg_standard
from jax.tree_util import Partial
from matfree import decomp, stochtrace
from matfree import funm as matfree_funm

from scripts.bench import _report
from scripts.bench import _systems as systems
from scripts.bench._solvers import Entry, Measured, compare
from scripts.bench.krylov import row
from subspace_jax import krylov

SHIFT, TIME = 1e-2, 1.0


class Spectral(systems.System):
    """A Hermitian operator; ``kind`` says what is asked of it."""

    def error(self, x: np.ndarray) -> float:
        """What is reported as accuracy."""
        return {"pairs": _pairs_error, "basis": _basis_error}.get(self.kind, _exact_error)(self, x)


def _pairs_error(task: Spectral, V: np.ndarray) -> float:
    V = V.reshape(-1, V.shape[-1])
    AV = task.matrix @ V
    R = AV - V * np.sum(V * AV, axis=0) / np.sum(V * V, axis=0)
    size = scipy_linalg.norm(task.matrix, np.inf)
    return float(np.max(np.linalg.norm(R, axis=0) / np.linalg.norm(V, axis=0)) / size)


def _basis_error(task: Spectral, Q: np.ndarray) -> float:
    del task
    Q = Q.reshape(-1, Q.shape[-1])
    return float(np.max(np.abs(Q.T @ Q - np.eye(Q.shape[1]))))


def _exact_error(task: Spectral, x: np.ndarray) -> float:
    exact = _heat(task.b) if task.kind == "heat" else _log_det(task.b.shape)
    return float(np.linalg.norm((x - exact).ravel()) / np.linalg.norm(np.ravel(exact)))


def _heat(b: np.ndarray) -> np.ndarray:
    """exp(-t (-Laplacian)) b by sine transforms."""
    decay = np.exp(-TIME * _modes(b.shape))
    return scipy.fft.idstn(decay * scipy.fft.dstn(b, type=1), type=1)


def _log_det(shape: tuple[int, ...]) -> np.ndarray:
    return np.log(_modes(shape) + SHIFT).sum()


def _modes(shape: tuple[int, ...]) -> np.ndarray:
    lines = [2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) for n in shape]
    return np.add.outer(*lines)


def stencil(size: int, kind: str) -> Spectral:
    return Spectral(*systems.poisson(size, size)[:-1], kind)


def decaying(n: int) -> Spectral:
    """A diagonal: eigenvalues 1, 1/2, 1/3 ..., in no order."""
    values = np.random.default_rng(8).permutation(1.0 / np.arange(1, n + 1))
    return Spectral(
        name=f"diagonal 1/i, n = {n}",
        operators=lambda dtype: (Partial(jnp.multiply, jnp.asarray(values, dtype)),),
        matrix=sparse.diags_array(values).tocsr(),
        b=np.random.default_rng(1).standard_normal(n),
        kind="pairs",
    )


def restarted(quick: bool) -> Iterator[Measured]:
    """Extreme pairs, both with 20 vectors and one tolerance."""
    k, tol = 6, 1e-6

    def ours(which):
        def solve(A, v0):
            V = krylov.eigsh(A, v0, k=k, which=which, num_basis=20, rtol=tol)[0].vectors
            return V

        return Entry(f"eigsh, {which}", "ours", solve, batches=True)

    def arpack(which, name):
        def solve(A, v0):
            return scipy_linalg.eigsh(A, k, which=name, ncv=20, tol=tol, v0=v0)[1]

        return Entry(f"eigsh, {which}", "scipy", solve, on_host=True)

    size = 32 if quick else 256
    for task in (stencil(size, "pairs"), decaying(size**2)):
        entries = [ours("largest"), arpack("largest", "LA")]
        yield from compare(task, "float64", entries, seconds=_report.share(quick, 25))
    smallest = [ours("smallest"), arpack("smallest", "SA")]
    task = stencil(16 if quick else 64, "pairs")
    yield from compare(task, "float64", smallest, seconds=_report.share(quick, 10))


def blocks(quick: bool) -> Iterator[Measured]:
    """LOBPCG on 8 vectors."""
    k, tol, steps = 8, 1e-6, 40

    def block(v0):
        key = jax.random.key(0)
        return jnp.concatenate(
            [v0[..., None], jax.random.normal(key, (*v0.shape, k - 1), v0.dtype)], -1
        )

    def ours(**options):
        return lambda A, v0: krylov.lobpcg(A, block(v0), **options)[0].vectors

    def from_jax(**options):
        def solve(A, v0):
            def product(X):
                return jax.vmap(lambda x: A(x.reshape(v0.shape)).ravel(), 1, 1)(X)

            return lobpcg_standard(product, block(v0).reshape(-1, k), **options)[1]

        return solve

    size = 32 if quick else 256
    entries = [
        Entry(f"lobpcg, {steps} steps", "ours", ours(rtol=0.0, maxiter=steps), batches=True),
        Entry(f"lobpcg, {steps} steps", "jax", from_jax(m=steps, tol=0.0), batches=True),
    ]
    yield from compare(stencil(size, "pairs"), "float64", entries, seconds=_report.share(quick, 25))
    entries = [
        Entry("lobpcg", "ours", ours(rtol=tol), batches=True),
        Entry("lobpcg", "jax", from_jax(m=200, tol=1e-12), batches=True),
    ]
    yield from compare(decaying(size**2), "float64", entries, seconds=_report.share(quick, 25))


def fixed_steps(quick: bool) -> Iterator[Measured]:
    """A basis of 100, exp(-A) b by 30 steps, a log-determinant by 10 probes of 30."""
    size, steps, probes = (32 if quick else 256), 30, 10
    key = jax.random.key(0)

    def flat(A, v0):
        return lambda v: A(v.reshape(v0.shape)).ravel()

    def tridiagonal(num):
        return decomp.tridiag_sym(num, reortho="full")

    def matfree_basis(A, v0):
        return tridiagonal(100)(flat(A, v0), v0.ravel()).Q_tall.T  # rows, despite the name

    def matfree_heat(A, v0):
        f = matfree_funm.dense_funm_sym_eigh(lambda x: jnp.exp(-TIME * x))
        solve = matfree_funm.funm_lanczos_sym(f, tridiagonal(steps))
        return solve(flat(A, v0), v0.ravel()).reshape(v0.shape)

    def matfree_log_det(A, v0):
        integrand = matfree_funm.monte_carlo_funm_sym_logdet(tridiagonal(steps))
        sampler = stochtrace.sampler_signs(v0.ravel(), num=probes)
        estimate = stochtrace.estimator_monte_carlo(integrand, sampler)
        return estimate(lambda v: flat(A, v0)(v) + SHIFT * v, key)

    def our_log_det(A, v0):
        def shifted(v):
            return A(v) + SHIFT * v

        return krylov.logdet(key, shifted, v0, num_probes=probes, num_steps=steps).mean

    contests = {
        "basis": ("lanczos, 100 steps", lambda A, v0: krylov.lanczos(A, v0, 100).Q, matfree_basis),
        "heat": (f"exp(-A) b, {steps} steps", _our_heat(steps), matfree_heat),
        "log det": (f"log det, {probes} x {steps}", our_log_det, matfree_log_det),
    }
    for kind, (label, mine, theirs) in contests.items():
        entries = [
            Entry(label, "ours", mine, batches=True),
            Entry(label, "matfree", theirs, batches=True),
        ]
        task = stencil(size, kind)
        yield from compare(task, "float64", entries, seconds=_report.share(quick, 20), counts=False)


def _our_heat(steps: int) -> Callable:
    def solve(A, v0):
        return krylov.funm_hermitian(lambda x: jnp.exp(-TIME * x), A, v0, num_steps=steps)

    return solve


SECTIONS = (restarted, blocks, fixed_steps)


def summary(measured: dict[str, list[Measured]]) -> str:
    """One sentence out of the ratios."""
    rivals = [
        f"{m.ratio:.2f} ({m.entry.solver}, {m.system.name}: {m.entry.library})"
        for found in measured.values()
        for m in found
        if m.entry.library != "ours"
    ]
    return "in times of ours the peers take " + ", ".join(rivals)


def main() -> None:
    with jax.enable_x64(True):
        _report.run(
            "spectral",
            "Spectral Krylov methods beside their peers",
            "median (minimum) of 3 to 30 interleaved calls",
            SECTIONS,
            row,
            summary,
        )


if __name__ == "__main__":
    main()
