"""A step of Riemannian SGD for many subspaces, beside its peers: time, compile time, accuracy.

    python -m scripts.bench.manifolds [--quick] [--output=FILE]

The step is the whole of it, given the gradient: momentum, projection, geodesic and whatever keeps
the frames orthonormal. The peers are the textbook's geodesic by singular values with a QR, in JAX;
the same geodesic of geojax's, projected momentum on it, the optimizer of Grassmann class
representations (PyTorch, our transcription: that geodesic, a QR every fifth step), geoopt's
RiemannianSGD on its QR-retracted Stiefel manifold, and pymanopt's Grassmann manifold (float64,
without momentum); those that are not installed are left out. One thread, its CPU time, all states
advancing. Accuracy is the largest entry of |Q^T Q - I| after all timed steps, and of the difference
of the projectors from the float64 geodesic's after the first.

The head: forward and backward of a batch of 256 features through `GrassmannHead`, beside the same
with frames that are stored as rows (classes, k, n).

The flag aggregator of 15 gradients with up to 10^6 entries: 20 reweighted steps by their Gram
matrix, beside two by singular values of all the weighted vectors.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.aggregators import flag
from scripts.bench import _one_thread, _report
from subspace_jax import optim
from subspace_jax.manifolds import GrassmannHead, grassmann

SIZES = [(10, 64, 4), (100, 128, 4), (100, 512, 8), (300, 512, 8), (1000, 128, 4), (1000, 512, 8)]
RATE, MOMENTUM, REORTHONORMALIZE = 0.1, 0.9, 5


class Contender(NamedTuple):
    """One library's step; its state is its own."""

    library: str
    method: str
    step: Callable[[], Any]
    frames: Callable[[], np.ndarray] | None
    compile_seconds: float | None


class Timed(NamedTuple):
    """What it did at one size."""

    size: tuple[int, ...]
    contender: Contender
    milliseconds: np.ndarray
    ratio: float
    """Median time over ours."""
    departure: float | None
    error: float | None


def compiled(library, method, function, frames, state, gradient) -> Contender:
    """A JAX step (frames, gradient, state) -> (frames, state)."""
    start = time.perf_counter()
    call = jax.jit(function).lower(frames, gradient, state).compile()
    seconds, now = time.perf_counter() - start, [frames, state]

    def step():
        now[:] = jax.block_until_ready(call(now[0], gradient, now[1]))

    return Contender(library, method, step, lambda: np.asarray(now[0]), seconds)


def ours(frames, gradient, transport, retraction="geodesic") -> Contender:
    manifold = grassmann.with_retraction(retraction)
    optimizer = optim.riemannian_sgd(RATE, MOMENTUM, manifold=manifold, transport=transport)

    def step(frames, gradient, state):
        updates, state = optimizer.update(gradient, state, frames)
        return optax.apply_updates(frames, updates), state

    label = f"{retraction}, {transport}"
    return compiled("ours", label, step, frames, optimizer.init(frames), gradient)


def by_singular_values(frames, gradient) -> Contender:
    def step(Q, gradient, buffer):
        buffer = MOMENTUM * buffer + gradient
        V = buffer - Q @ (Q.mT @ buffer)
        U, angles, Wh = jnp.linalg.svd(-RATE * V, full_matrices=False)
        angles = angles[..., None, :]
        Q = ((Q @ Wh.mT) * jnp.cos(angles) + U * jnp.sin(angles)) @ Wh
        return jnp.linalg.qr(Q)[0], buffer

    return compiled("jax", "SVD geodesic + QR", step, frames, jnp.zeros_like(frames), gradient)


def by_geojax(frames, gradient) -> Contender:
    from geojax.geometry import Grassmann

    geometry = Grassmann(frames.shape[1:])

    def step(Q, gradient, buffer):
        buffer = geometry.tangent_project(Q, MOMENTUM * buffer + gradient)
        return geometry.exp(Q, -RATE * buffer), buffer

    return compiled("geojax", "SVD geodesic, QR", step, frames, jnp.zeros_like(frames), gradient)


def class_representation(frames, gradient) -> Contender:
    import torch

    torch.set_num_threads(1)
    Q, g = torch.tensor(np.asarray(frames)), torch.tensor(np.asarray(gradient))
    now = {"Q": Q, "buffer": torch.zeros_like(Q), "count": 0}

    @torch.no_grad()
    def step():
        Q, buffer = now["Q"], now["buffer"].mul_(MOMENTUM).add_(g)
        V = buffer - Q @ (Q.mT @ buffer)
        U, angles, Wh = torch.linalg.svd(V, full_matrices=False)
        angles = (-RATE * angles).unsqueeze(-2)
        Q = ((Q @ Wh.mT) * torch.cos(angles) + U * torch.sin(angles)) @ Wh
        if now["count"] % REORTHONORMALIZE == 0:
            Q = torch.linalg.qr(Q).Q
        now.update(Q=Q, count=now["count"] + 1)

    return Contender("torch", "SVD geodesic, QR/5", step, lambda: now["Q"].numpy(), None)


def by_geoopt(frames, gradient) -> Contender:
    import geoopt
    import torch

    torch.set_num_threads(1)
    start = torch.tensor(np.asarray(frames))
    Q = geoopt.ManifoldParameter(start, manifold=geoopt.EuclideanStiefel())
    optimizer = geoopt.optim.RiemannianSGD([Q], lr=RATE, momentum=MOMENTUM)
    g = torch.tensor(np.asarray(gradient))

    def step():
        Q.grad = g.clone()  # it works in place
        optimizer.step()

    return Contender("geoopt", "QR Stiefel", step, lambda: Q.detach().numpy(), None)


def by_pymanopt(frames, gradient) -> Contender:
    from pymanopt.manifolds import Grassmann

    num, n, k = frames.shape
    manifold = Grassmann(n, k, k=num)
    now = [np.float64(frames)]
    g = np.float64(gradient)

    def step():
        V = manifold.projection(now[0], g)
        now[0] = manifold.retraction(now[0], -RATE * V)

    return Contender("pymanopt", "polar, float64, no momentum", step, lambda: now[0], None)


def contenders(frames, gradient) -> Iterator[Contender]:
    """Ours first: all that is installed."""
    yield ours(frames, gradient, "projection")
    yield ours(frames, gradient, "ambient")
    yield ours(frames, gradient, "projection", "cayley")
    yield by_singular_values(frames, gradient)
    peers = {
        "geojax": by_geojax,
        "torch": class_representation,
        "geoopt": by_geoopt,
        "pymanopt": by_pymanopt,
    }
    for package, peer in peers.items():
        if importlib.util.find_spec(package):
            yield peer(frames, gradient)


def geodesic(frames, gradient) -> np.ndarray:
    """The first step in float64, by singular values."""
    Q, G = np.float64(frames), np.float64(gradient)
    V = -RATE * (G - Q @ (Q.swapaxes(-1, -2) @ G))
    U, angles, Wh = np.linalg.svd(V, full_matrices=False)
    angles = angles[..., None, :]
    return ((Q @ Wh.swapaxes(-1, -2)) * np.cos(angles) + U * np.sin(angles)) @ Wh


def apart(Q: np.ndarray, R: np.ndarray) -> float:
    """The largest entry of the difference of projectors, of at most ten subspaces."""
    Q, R = np.float64(Q[:10]), np.float64(R[:10])
    return float(np.max(np.abs(Q @ Q.swapaxes(-1, -2) - R @ R.swapaxes(-1, -2))))


def departure(Q: np.ndarray) -> float:
    Q = np.float64(Q)
    return float(np.max(np.abs(Q.swapaxes(-1, -2) @ Q - np.eye(Q.shape[-1]))))


def steps(quick: bool) -> Iterator[Timed]:
    """Momentum, projection, move, drift: everything after the gradient."""
    for num, n, k in SIZES[:2] if quick else SIZES:
        start, noise = jax.random.split(jax.random.key(0))
        frames = jnp.linalg.qr(jax.random.normal(start, (num, n, k)))[0]
        gradient = jax.random.normal(noise, (num, n, k)) / jnp.sqrt(n)
        exact, field = geodesic(frames, gradient), list(contenders(frames, gradient))
        errors = []
        for contender in field:
            contender.step()
            errors.append(apart(contender.frames(), exact))
        times = _one_thread.interleaved([c.step for c in field], _report.share(quick, 12))
        for contender, milliseconds, error in zip(field, times, errors, strict=True):
            ratio = float(np.median(milliseconds) / np.median(times[0]))
            off = departure(contender.frames())
            yield Timed((num, n, k), contender, milliseconds, ratio, off, error)


def aggregators(quick: bool) -> Iterator[Timed]:
    """The paper's objective, with the differences of pairs; the peer's also without."""
    for n in (10_000,) if quick else (100_000, 1_000_000):
        keys = jax.random.split(jax.random.key(2), 3)
        G = jax.random.normal(keys[0], (15, 4)) @ jax.random.normal(keys[1], (4, n))
        G = G + jax.random.normal(keys[2], (15, n))
        columns = jnp.asarray(G.T.copy())  # in which its decompositions are three times faster
        alone, all_pairs = (partial(by_two_decompositions, pairwise=each) for each in (0, 1))
        field = [
            repeated("ours", "flag aggregator, 20 steps", lambda G: flag(G, 0), G),
            repeated("jax", "two steps by SVD, no differences", alone, columns),
            repeated("jax", "two steps by SVD", all_pairs, columns),
        ]
        yield from compared((15, n), quick, *field[: 2 if n > 100_000 else 3])


def by_two_decompositions(G, pairwise):
    """The flag aggregator of columns (n, p), as its paper has it."""
    p = G.shape[1]
    units = G / jnp.linalg.norm(G, axis=0)
    vectors, shares = units, jnp.ones(p)
    if pairwise:
        first, second = jnp.triu_indices(p, 1)
        pairs = units[:, first] - units[:, second]
        vectors = jnp.concatenate([units, pairs / jnp.linalg.norm(pairs, axis=0)], axis=1)
        shares = jnp.concatenate([shares, jnp.full(len(first), 2 * pairwise / (p * (p - 1)))])
    Y, weights = units, shares
    for _ in range(2):
        U, _, _ = jnp.linalg.svd(vectors * jnp.sqrt(weights), full_matrices=False)
        Y = U[:, : (p + 2) // 2]
        weights = shares / jnp.sqrt(1 - jnp.sum((Y.T @ vectors) ** 2, axis=0) + 1e-7)
    return Y @ (Y.T @ jnp.mean(units, axis=1))


def repeated(library, method, function, *operands) -> Contender:
    """The same call again and again."""
    start = time.perf_counter()
    call = jax.jit(function).lower(*operands).compile()
    seconds = time.perf_counter() - start
    step = partial(lambda *xs: jax.block_until_ready(call(*xs)), *operands)
    return Contender(library, method, step, None, seconds)


def compared(size: tuple[int, ...], quick: bool, *field: Contender) -> Iterator[Timed]:
    """Each after a first call that is not timed; ours first."""
    for contender in field:
        contender.step()
    times = _one_thread.interleaved([c.step for c in field], _report.share(quick, 10))
    for contender, milliseconds in zip(field, times, strict=True):
        ratio = float(np.median(milliseconds) / np.median(times[0]))
        yield Timed(size, contender, milliseconds, ratio, None, None)


def head(quick: bool) -> Iterator[Timed]:
    """A batch of 256 through the classifier's layer, with the derivatives of both operands."""
    num, n, k = (10, 64, 4) if quick else (1000, 512, 8)
    keys = jax.random.split(jax.random.key(1), 3)
    frames = GrassmannHead.init(keys[0], num, n, k)
    x, weights = (
        jax.random.normal(key, (256, m)) for key, m in zip(keys[1:], (n, num), strict=True)
    )

    def rows(frames, x):
        x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        z = (x @ frames.reshape(-1, n).T).reshape(-1, num, k)
        return 25 * jnp.sqrt(jnp.sum(z**2, -1) + 1e-12)

    def both(logits):
        return jax.grad(lambda *xs: jnp.sum(weights * logits(*xs)), (0, 1))

    yield from compared(
        (256, num, n, k),
        quick,
        repeated("ours", "head, (classes, n, k)", both(GrassmannHead.logits), frames, x),
        repeated("jax", "head, rows (classes, k, n)", both(rows), frames.mT.copy(), x),
    )


def row(m: Timed) -> dict[str, Any]:
    """One line of the table."""
    return {
        "size": " x ".join(map(str, m.size)),
        "library": m.contender.library,
        "method": m.contender.method,
        "CPU time, ms": f"{np.median(m.milliseconds):.4g} ({m.milliseconds.min():.4g})",
        "/ ours": f"{m.ratio:.2f}",
        "off orthonormal": "" if m.departure is None else f"{m.departure:.1e}",
        "off the geodesic": "" if m.error is None else f"{m.error:.1e}",
        "compile, s": ""
        if m.contender.compile_seconds is None
        else f"{m.contender.compile_seconds:.2f}",
    }


def summary(measured: dict[str, list[Timed]]) -> str:
    """One sentence out of the ratios."""
    peers = {}
    for m in measured["steps"]:
        if m.contender.library != "ours":
            peers.setdefault(f"{m.contender.library}, {m.contender.method}", []).append(m.ratio)
    ratios = (f"{min(r):.1f} to {max(r):.1f} ({name})" for name, r in peers.items())
    drift = max(m.departure for m in measured["steps"] if m.contender.library == "ours")
    decompositions = {m.contender.method: m.ratio for m in measured["aggregators"]}
    return (
        "in times of our step the peers take "
        + ", ".join(ratios)
        + f"; ours is off orthonormal by at most {drift:.0e}, and the head with frames as rows "
        f"takes {measured['head'][1].ratio:.2f} of ours; two steps of the flag aggregator by "
        f"singular values take {decompositions['two steps by SVD']:.0f} times 20 of ours, without "
        f"the differences of gradients {decompositions['two steps by SVD, no differences']:.0f}"
    )


def main() -> None:
    _one_thread.restart("scripts.bench.manifolds")
    with jax.enable_x64(False):  # one of the peers switches it on
        _report.run(
            "manifolds",
            "Riemannian SGD on many subspaces beside its peers",
            "median (minimum) CPU time of one thread, of 7 to 60 turns",
            (steps, head, aggregators),
            row,
            summary,
        )


if __name__ == "__main__":
    main()
