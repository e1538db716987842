"""Low-rank optimizers beside optax's GaLore and beside full Adam: a refresh, a vmap, a step.

    python -m scripts.bench.low_rank [--quick] [--output=FILE]

*refreshes*: the new basis alone, from that of the gradient with as much noise; of a gradient whose
singular values fall as 1 / i, and of a Gaussian one, where no subspace stands out; beside LAPACK's
SVD, which `optax.contrib.galore` calls. Accuracy is the energy of the gradient that the basis
keeps, over what the SVD keeps.
*lanes*: one step of eight models under ``vmap`` between refreshes: a peer that decides by a
batched counter computes its SVD in every step. *training*: a step of a 4-layer byte transformer
(batch 16, context 128) with full Adam, and with a basis that moves by the power method in every
step, and every 200. One thread, its CPU time.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import transformer
from scripts.bench import _one_thread, _report
from subspace_jax import optim
from subspace_jax.linalg import orthonormalize


class Timed(NamedTuple):
    """What a contender did."""

    case: str
    library: str
    method: str
    milliseconds: np.ndarray
    ratio: float
    """Median time over the first contender's of the case."""
    kept: float | None
    """Energy kept over the SVD's."""
    compile_seconds: float


class Contender(NamedTuple):
    """A function and its operands, compiled."""

    library: str
    method: str
    call: Callable[[], Any]
    compile_seconds: float


def compiled(library: str, method: str, function: Callable, *operands: Any) -> Contender:
    jax.clear_caches()
    start = time.perf_counter()
    program = jax.jit(function).lower(*operands).compile()
    seconds = time.perf_counter() - start
    return Contender(library, method, lambda: jax.block_until_ready(program(*operands)), seconds)


def measured(case: str, field: list[Contender], seconds: float, kept=None) -> Iterator[Timed]:
    times = _one_thread.interleaved([c.call for c in field], seconds, fewest=3)
    for i, (contender, milliseconds) in enumerate(zip(field, times, strict=True)):
        ratio = float(np.median(milliseconds) / np.median(times[0]))
        yield Timed(
            case,
            contender.library,
            contender.method,
            milliseconds,
            ratio,
            kept[i] if kept else None,
            contender.compile_seconds,
        )


def falling(key: jax.Array, n: int) -> jax.Array:
    """A matrix whose i-th singular value is 1 / i."""
    keys = jax.random.split(key)
    U, V = (orthonormalize(jax.random.normal(k, (n, n))) for k in keys)
    return U / jnp.arange(1, n + 1) @ V.T


def refreshes(quick: bool) -> Iterator[Timed]:
    """The new basis (n, rank) of a gradient (n, n), by LAPACK's SVD first."""
    key = jax.random.key(0)
    policies = {
        "range": optim.singular(),
        "power": optim.singular("power"),
        "sampled": optim.sampled(),
        "online": optim.online(optax.adam(5e-3)),
        "walk": optim.walk(0.1),
        "jump": optim.jump(),
        "track": optim.track(1.0),
    }
    for n, rank in ((128, 16),) if quick else ((512, 64), (1024, 128)):
        spectra = {"1 / i": falling(key, n), "Gaussian": jax.random.normal(key, (n, n))}
        for spectrum, grad in spectra.items():
            noise = jnp.std(grad) * jax.random.normal(jax.random.key(1), (n, n))
            old = optim.singular()(key, jnp.eye(n)[:, :rank], grad + noise)
            field = [compiled("lapack", "SVD", optim.singular("svd"), key, old, grad)]
            field += [compiled("ours", name, p, key, old, grad) for name, p in policies.items()]
            energy = [float(jnp.sum((c.call().T @ grad) ** 2)) for c in field]
            kept = [e / energy[0] for e in energy]
            case = f"{n} x {n}, rank {rank}, {spectrum}"
            yield from measured(case, field, _report.share(quick, 20), kept)


def lanes(quick: bool) -> Iterator[Timed]:
    """A step of eight models under ``vmap``, none of which is due."""
    n, rank, num = (64, 8, 4) if quick else (256, 32, 8)
    grads = {
        name: jax.random.normal(jax.random.key(i), (num, n, n)) for i, name in enumerate("abcd")
    }
    peer = optax.contrib.scale_by_galore(rank=rank, update_proj_gap=200)
    field = []
    for library, optimizer in (("ours", optim.low_rank(rank=rank)), ("optax", peer)):
        update = jax.vmap(optimizer.update)
        _, state = jax.jit(update)(grads, jax.vmap(optimizer.init)(grads))
        field.append(compiled(library, "GaLore", update, grads, state))
    yield from measured(f"{num} models of 4 x {n} x {n}", field, _report.share(quick, 10))


def training(quick: bool) -> Iterator[Timed]:
    """A whole training step: gradient, update, new parameters."""
    shape = transformer.Shape(4, 128, 4, 352) if not quick else transformer.Shape(4, 32, 2, 64)
    rank = shape.width // 4
    model = transformer.Transformer(shape)
    tokens = jax.random.randint(jax.random.key(0), (16, 129), 0, 256)
    params = model.init(jax.random.key(1), tokens[:, :-1])

    def loss(params):
        return transformer.next_token_loss(model.apply(params, tokens[:, :-1]), tokens)

    power = optim.low_rank(rank=rank, basis=optim.singular("power"), refresh_every=1)
    optimizers = {
        "full Adam": ("optax", optax.scale_by_adam()),
        "power, every step": ("ours", power),
        "range, every 200": ("ours", optim.low_rank(rank=rank)),
        "GaLore, every 200": ("optax", optax.contrib.scale_by_galore(rank=rank)),
    }
    field = []
    for method, (library, optimizer) in optimizers.items():

        def step(params, state, optimizer=optimizer):
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return jax.tree.map(lambda p, u: p - 1e-3 * u, params, updates), state

        _, state = jax.jit(step)(params, optimizer.init(params))  # the bases of the first step
        field.append(compiled(library, method, step, params, state))
    yield from measured(f"4 layers of {shape.width}, rank {rank}", field, _report.share(quick, 60))


def row(m: Timed) -> dict[str, Any]:
    """One line of the table."""
    return {
        "case": m.case,
        "library": m.library,
        "method": m.method,
        "CPU time, ms": f"{np.median(m.milliseconds):.4g} ({m.milliseconds.min():.4g})",
        "/ first": f"{m.ratio:.3g}",
        "energy / SVD's": "" if m.kept is None else f"{m.kept:.3f}",
        "compile, s": f"{m.compile_seconds:.2f}",
    }


def summary(measured: dict[str, list[Timed]]) -> str:
    """One sentence out of the ratios."""
    told = []
    largest = measured["refreshes"][-1].case.rsplit(",", 1)[0]
    for m in measured["refreshes"]:
        if m.method in ("range", "power") and m.case.startswith(largest):
            told.append(
                f"{m.method} {1 / m.ratio:.0f} times less than the SVD with {100 * m.kept:.1f} % "
                f"of its energy ({m.case})"
            )
    step = {m.method: m.ratio for m in measured["training"]}
    return (
        "A refresh takes "
        + ", ".join(told)
        + f"; under vmap a step of optax's GaLore takes {measured['lanes'][1].ratio:.0f} of ours; "
        f"a training step takes {step['power, every step']:.2f} of full Adam's with a power step "
        f"in every one, {step['range, every 200']:.2f} with a refresh in 200"
    )


def main() -> None:
    _one_thread.restart("scripts.bench.low_rank")
    _report.run(
        "low_rank",
        "Low-rank optimizers beside optax's GaLore and full Adam",
        "median (minimum) CPU time of one thread, of 3 to 60 turns",
        (refreshes, lanes, training),
        row,
        summary,
    )


if __name__ == "__main__":
    main()
