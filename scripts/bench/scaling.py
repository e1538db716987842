"""Training over many devices: what travels, what compiling, checkpoints and the harness take.

    python -m scripts.bench.scaling [--quick] [--output=FILE]

*strong* and *weak*: a step of a network with one hidden layer on 1, 2, 4 and 8 forced CPU devices,
with the batch shared by all or a batch of its own for each; *layouts*: 8 devices as data x model,
the hidden layer over ``model``. Forced devices share the cores of one machine: the times of steps
would say nothing of a cluster, so what is counted is correctness (relative distance of the gradient
to that of one device) and communication (collectives and their bytes on a device, from the compiled
program). *grids*: a step of CG by each library, the grid over rows x columns of devices, counted
likewise. *overhead*: a step of some 10 ms by `harness.train`, logging included and checkpoints
apart, beside the same step in a bare loop, in turns; CPU time of one thread, and wall time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import harness
from scripts.bench import _on_devices, _one_thread, _report


class Measured(NamedTuple):
    """One mesh, or one way to train."""

    case: str
    mesh: str
    found: dict[str, Any]
    """Of `_on_devices.measure` or `_on_grids.measure`, or milliseconds of a step and ratios to the
    bare loop's."""
    library: str = "ours"


def measured(case: str, data: int, model: int, batch: int, width: int) -> Measured:
    """A step of training."""
    found = _on_forced_devices(data * model, "_on_devices", model, batch, width)
    return Measured(f"{case}, {batch} examples, width {width}", f"{data} x {model}", found)


def _on_forced_devices(num_devices: int, module: str, *arguments: int) -> Any:
    """What the module prints, in a process of its own."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.bench.{module}", *map(str, arguments)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def sizes(quick: bool) -> tuple[int, int]:
    """Batch and width."""
    return (64, 128) if quick else (1024, 8192)


def strong(quick: bool) -> Iterator[Measured]:
    """One batch for all devices."""
    for devices in (1, 2, 4, 8):
        yield measured("strong", devices, 1, *sizes(quick))


def weak(quick: bool) -> Iterator[Measured]:
    """A batch for every device."""
    batch, width = sizes(quick)
    for devices in (1, 2, 4, 8):
        yield measured("weak", devices, 1, devices * batch // 8, width)


def layouts(quick: bool) -> Iterator[Measured]:
    """Eight devices, the hidden layer over some of them."""
    for model in (2, 4, 8):
        yield measured("layouts", 8 // model, model, *sizes(quick))


def grids(quick: bool) -> Iterator[Measured]:
    """A step of CG by each library, the grid over eight devices in two axes."""
    size = 64 if quick else 2048
    for library, found in _on_forced_devices(8, "_on_grids", size).items():
        case = f"a step of CG by {library}, grid {size} x {size}"
        yield Measured(case, "4 x 2", found, library)


def overhead(quick: bool) -> Iterator[Measured]:
    """The same steps bare and by the harness, in turns."""
    num_steps, num_turns = (30, 5) if quick else (100, 9)
    width, batch = 512, _batch_of(512, 10e-3)
    fixed = [_on_devices.examples(batch, step) for step in range(4)]  # made once: not measured

    def feed(step):
        return fixed[step % len(fixed)]

    times = {"bare loop": [], "harness": []}
    for _ in range(num_turns):
        times["bare loop"].append(_bare(width, feed, num_steps))
        times["harness"].append(_by_harness(width, feed, num_steps))
    for way, found in times.items():
        ratio, wall = np.median(np.divide(found, times["bare loop"]), axis=0)
        case = f"{way}, {batch} examples, width {width}, {num_turns} turns of {num_steps} steps"
        yield Measured(
            case, "1 x 1", {"ms": 1e3 * np.median(found, axis=0)[0], "ratio": ratio, "wall": wall}
        )


def _batch_of(width: int, seconds: float) -> int:
    """How many examples a step of so many seconds takes."""
    batch = _on_devices.examples(1024, 0)
    return max(1, round(len(batch[0]) * seconds / _bare(width, lambda step: batch, 30)[0]))


def _bare(width: int, feed: Any, num_steps: int) -> np.ndarray:
    """Median seconds of a step, by both clocks, in a loop that awaits the metrics."""
    step = jax.jit(_on_devices.train_step, donate_argnums=0)
    state, batch, moments = _on_devices.initial_state(width), jax.device_put(feed(0)), []
    for i in range(num_steps):
        moments.append(_clocks())
        state, metrics = step(state, batch, jax.random.key(0))
        batch = jax.device_put(feed(i + 1))
        jax.block_until_ready(metrics)
    return np.median(np.diff(moments[1:], axis=0), axis=0)  # without the step that compiles


def _by_harness(width: int, feed: Any, num_steps: int) -> np.ndarray:
    """Likewise, between two of its demands for a batch: each step makes one."""
    moments = []

    def watched(step):
        moments.append(_clocks())
        return feed(step)

    knobs = _on_devices.config(model=1)
    knobs.update(num_steps=num_steps, log_every=10, checkpoint_every=num_steps)
    with tempfile.TemporaryDirectory() as folder:
        state = _on_devices.initial_state(width)
        harness.train(Path(folder), knobs, state, _on_devices.train_step, watched)
    return np.median(np.diff(moments[2:], axis=0), axis=0)


def _clocks() -> tuple[float, float]:
    """CPU time of this process, which others disturb little, and wall time."""
    return time.process_time(), time.perf_counter()


def row(m: Measured) -> dict[str, Any]:
    """One line of the table."""
    found, over_devices, saves = m.found, "sent" in m.found, "save" in m.found
    sent = found.get("sent", {})
    told = ", ".join(f"{count} {kind}" for kind, (count, _) in sent.items())
    return {
        "case": m.case,
        "devices": m.mesh,
        "collectives": told or ("none" if over_devices else ""),
        "kB a device": _told(m) if over_devices else "",
        "off one device": f"{found['error']:.1e}" if over_devices else "",
        "compile, s": f"{found['compile']:.2f}" if over_devices else "",
        "save, s": f"{found['save']:.3f}" if saves else "",
        "restore, s": f"{found['restore']:.3f}" if saves else "",
        "checkpoint, MB": f"{found['num_bytes'] / 1e6:.3g}" if saves else "",
        "CPU ms/step": "" if over_devices else f"{found['ms']:.2f}",
        "/ bare": "" if over_devices else f"{found['ratio']:.3f}",
        "wall / bare": "" if over_devices else f"{found['wall']:.3f}",
    }


def _kilobytes(m: Measured) -> float:
    return sum(num_bytes for _, num_bytes in m.found["sent"].values()) / 1e3


def _told(m: Measured) -> str:
    return f"{_kilobytes(m):,.0f}" if _kilobytes(m) >= 1000 else f"{_kilobytes(m):.4g}"


def summary(measured: dict[str, list[Measured]]) -> str:
    """One sentence out of the counts."""
    eight, one = measured["strong"][-1], measured["strong"][0]
    shared = min(measured["layouts"], key=_kilobytes)
    over_devices = [m for name in ("strong", "weak", "layouts") for m in measured[name]]
    error = max(m.found["error"] for m in over_devices)
    own, *peers = measured["grids"]
    by_peers = ", ".join(f"{_told(m)} kB by {m.library}" for m in peers)
    return (
        f"Eight devices send {_told(eight)} kB a step and device as {eight.mesh}, "
        f"{_told(shared)} kB as {shared.mesh}; no gradient is further than {error:.0e} "
        f"from one device's; compiling takes {eight.found['compile'] / one.found['compile']:.2f} "
        f"times one device's; a step of CG on a grid over {own.mesh} devices sends "
        f"{_told(own)} kB, {by_peers}; the harness costs "
        f"{100 * (measured['overhead'][-1].found['ratio'] - 1):.1f} % of a step of "
        f"{measured['overhead'][0].found['ms']:.0f} ms"
    )


def main() -> None:
    _one_thread.restart("scripts.bench.scaling")
    _report.run(
        "scaling",
        "Training over many devices, and the harness beside a bare loop",
        "counts of one compiled step; checkpoints: median of 3; steps: CPU time of one thread, "
        "median of the turns' medians",
        (strong, weak, layouts, grids, overhead),
        row,
        summary,
    )


if __name__ == "__main__":
    main()
