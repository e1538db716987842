"""Projections: expand and contract, beside one pass over the parameters and beside the peers.

    python -m scripts.bench.projections [--quick] [--output=FILE]

All rows of one size run interleaved in one process, each timed after its result is ready. The
floor is one pass that reads D float32 and writes D. "2018" is the Fastfood of Li et al. as it was
released: one padded block, a stored Gaussian diagonal, two butterfly transforms; "2018, fht-cpu"
is the same in numpy around a C++ transform (PyPI: fht-cpu), where that is installed. The error is
max |P^T P - I| over 32 columns. Rows that would store more than 2 GB or multiply more than 4e9
entries say so and are left out.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import records
from subspace_jax import projections

OUTPUT = Path(__file__).resolve().parents[2] / "experiments/results/bench-projections.json"
SIZES = [(D, d) for D in (200_000, 1_000_000, 10_000_000) for d in (1000, 10_000)]
MAX_BYTES, MAX_ENTRIES = 2e9, 4e9


class Contender(NamedTuple):
    expand: Callable[[Any], Any]
    contract: Callable[[Any], Any]
    num_bytes: int
    """Stored by the projection."""
    compile_seconds: float
    """Building the projection and compiling both directions."""


def ours(scheme: str, D: int, d: int) -> Contender:
    start = time.perf_counter()
    like = jax.ShapeDtypeStruct((D,), jnp.float32)
    projection = jax.block_until_ready(
        jax.jit(lambda key: getattr(projections, scheme)(key, like, d))(jax.random.key(0))
    )
    expand = jax.jit(projections.expand).lower(projection, jnp.zeros(d)).compile()
    contract = jax.jit(projections.contract).lower(projection, jnp.zeros(D)).compile()
    return Contender(
        lambda z: expand(projection, z),
        lambda g: contract(projection, g),
        sum(leaf.nbytes for leaf in jax.tree.leaves(projection)),
        time.perf_counter() - start,
    )


def fastfood_2018(D: int, d: int) -> Contender:
    """Li et al. (2018): y = H(G Pi H(B pad(z)))[:D] / norm, L = the next power of two."""
    start = time.perf_counter()
    L, B, G, Pi = _draws_2018(D)
    norm = jnp.sqrt(D * jnp.sum(G**2))

    def expand(z, B, G, Pi):
        x = _butterflies(B * jnp.pad(z, (0, L - d)))
        return (_butterflies(G * x[Pi]) / norm)[:D]

    def contract(g, B, G, Pi):
        transpose = jax.linear_transpose(lambda z: expand(z, B, G, Pi), jnp.zeros(d))
        return transpose(g)[0]

    constants = tuple(map(jnp.asarray, (B, G, Pi)))
    down = jax.jit(expand).lower(jnp.zeros(d), *constants).compile()
    up = jax.jit(contract).lower(jnp.zeros(D), *constants).compile()
    return Contender(
        lambda z: down(z, *constants),
        lambda g: up(g, *constants),
        sum(x.nbytes for x in constants),
        time.perf_counter() - start,
    )


def fastfood_2018_fht(D: int, d: int) -> Contender:
    """The same in numpy; the transform is the package's, in place."""
    import fht_cpu

    start = time.perf_counter()
    L, B, G, Pi = _draws_2018(D)
    norm = np.sqrt(D * np.sum(G**2))

    def expand(z):
        x = np.zeros(L, np.float32)
        x[:d] = z
        x *= B
        fht_cpu.fht(x)
        x = G * x[Pi]
        fht_cpu.fht(x)
        return x[:D] / norm

    def contract(g):
        x = np.zeros(L, np.float32)
        x[:D] = g / norm
        fht_cpu.fht(x)
        y = np.empty_like(x)
        y[Pi] = G * x
        fht_cpu.fht(y)
        return (B * y)[:d]

    return Contender(expand, contract, 12 * L, time.perf_counter() - start)


def _draws_2018(D: int):
    rng = np.random.default_rng(0)
    L = 1 << (D - 1).bit_length()
    B = rng.choice(np.array([-1, 1], np.float32), L)
    G = rng.standard_normal(L, np.float32)
    return L, B, G, rng.permutation(L).astype(np.int32)


def _butterflies(x: jax.Array) -> jax.Array:
    """The unnormalised Walsh-Hadamard transform as the released code writes it: radix 2."""
    step = 1
    while step < x.size:
        pairs = x.reshape(-1, 2, step)
        low, high = pairs[:, 0], pairs[:, 1]
        x = jax.lax.optimization_barrier(jnp.stack([low + high, low - high], 1).reshape(-1))
        step *= 2
    return x


def contenders(D: int, d: int) -> dict[str, Callable[[], Contender] | str]:
    """By name, what builds each contender, or why it is left out."""
    stored = {"gaussian": 4 * D * d, "sparse": 4 * d * round(D**0.5)}
    found: dict[str, Callable[[], Contender] | str] = {}
    for scheme in ("hashed", "rolled", "fastfood", "sparse", "rademacher", "gaussian"):
        found[scheme] = lambda scheme=scheme: ours(scheme, D, d)
        if stored.get(scheme, 0) > MAX_BYTES:
            found[scheme] = f"would store {stored[scheme] / 1e9:.0f} GB"
        elif scheme in ("rademacher", "gaussian") and D * d > MAX_ENTRIES:
            found[scheme] = f"{D * d:.0e} entries"
    found["2018"] = lambda: fastfood_2018(D, d)
    if importlib.util.find_spec("fht_cpu"):
        found["2018, fht-cpu"] = lambda: fastfood_2018_fht(D, d)
    return found


def timed(function: Callable, operand: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(operand))
    return time.perf_counter() - start


def interleaved(calls: dict[Any, tuple[Callable, Any]], budget: float) -> dict[Any, np.ndarray]:
    """Milliseconds of repeated calls, in turns; each call at least 3 times, at most 300."""
    once = {name: min(timed(*call) for _ in range(2)) for name, call in calls.items()}
    wanted = {name: int(np.clip(budget / t, 3, 300)) for name, t in once.items()}
    times = {name: [] for name in calls}
    for turn in range(max(wanted.values())):
        for name, call in calls.items():
            if turn < wanted[name]:
                times[name].append(1e3 * timed(*call))
    return {name: np.array(values) for name, values in times.items()}


def orthogonality_error(contender: Contender, d: int) -> float:
    columns = []
    for j in np.linspace(0, d - 1, 32).astype(int):
        z = np.zeros(d, np.float32)
        z[j] = 1
        columns.append(np.asarray(contender.expand(jnp.asarray(z))))
    P = np.stack(columns).astype(np.float64)
    return float(np.abs(P @ P.T - np.eye(len(P))).max())


def measure(D: int, d: int, budget: float) -> tuple[list[dict[str, Any]], float, float]:
    """The rows of one size, and how hashed compares with the floor and with 2018."""
    rng = np.random.default_rng(1)
    z, g = (jnp.asarray(rng.standard_normal(n, np.float32)) for n in (d, D))
    built = {
        name: make if isinstance(make, str) else make() for name, make in contenders(D, d).items()
    }
    calls = {("floor", "floor"): (jax.jit(lambda x: x + 1).lower(g).compile(), g)}
    for name, contender in built.items():
        if not isinstance(contender, str):
            numpy = name.endswith("fht-cpu")
            calls[name, "expand"] = contender.expand, np.asarray(z) if numpy else z
            calls[name, "contract"] = contender.contract, np.asarray(g) if numpy else g
    times = interleaved(calls, budget)
    floor = np.median(times["floor", "floor"])
    totals = {
        name: np.median(times[name, "expand"]) + np.median(times[name, "contract"])
        for name, contender in built.items()
        if not isinstance(contender, str)
    }
    rows = [_row(D, d, "floor", floor=f"{floor:.3f}")]
    for name, contender in built.items():
        if isinstance(contender, str):
            rows.append(_row(D, d, name, note=f"left out: {contender}"))
            continue
        expand, contract = times[name, "expand"], times[name, "contract"]
        rows.append(
            _row(
                D, d, name,
                expand=f"{np.median(expand):.3f} ({expand.min():.3f})",
                contract=f"{np.median(contract):.3f} ({contract.min():.3f})",
                ratio=f"{totals[name] / floor:.1f}",
                error=f"{orthogonality_error(contender, d):.1e}",
                stored=f"{contender.num_bytes / 1e6:.2f}",
                compile_=f"{contender.compile_seconds:.1f}",
            )
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows, totals["hashed"] / floor, totals["2018"] / totals["hashed"]


def _row(D, d, name, *, expand="", contract="", ratio="", error="", stored="", compile_="",
         floor="", note=""):  # fmt: skip
    return {
        "D": f"{D:.0e}".replace("e+0", "e"),
        "d": f"{d:.0e}".replace("e+0", "e"),
        "projection": name,
        "expand, ms": expand or floor or note,
        "contract, ms": contract,
        "sum / floor": ratio,
        "max error of P^T P": error,
        "stored, MB": stored,
        "build + compile, s": compile_,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, a second a row")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    sizes = SIZES[:1] if arguments.quick else SIZES
    measured = [measure(D, d, 1.0 if arguments.quick else 5.0) for D, d in sizes]
    floors, gains = ([m[i] for m in measured] for i in (1, 2))
    record = {
        "benchmark": "projections",
        "title": "Projections: expand and contract",
        "protocol": "median (minimum) of 3 to 30 interleaved calls",
        "summary": f"hashed takes {min(floors):.1f} to {max(floors):.1f} times as long as one pass "
        f"over the parameters, and {min(gains):.0f} to {max(gains):.0f} times less than the "
        "Fastfood of 2018",
        "rows": [row for rows, *_ in measured for row in rows],
    }
    records.write_json(arguments.output, record | records.provenance())


if __name__ == "__main__":
    main()
