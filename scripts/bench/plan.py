"""Three runs that these machines cannot do, on 256 devices: by hand and as compiled programs.

    python -m scripts.bench.plan [--quick] [--output=FILE]

*gcr*: a step of Grassmann class representation on the 21,841 classes of ImageNet-22k; *grasswalk*:
one of GrassWalk on LLaMA-7B; *ct*: a reconstruction of 512^3 by DDS with TV across slices. Each is
compiled ahead of time from shapes, by XLA's partitioner for forced CPU devices in a process of its
own, from the functions that the experiments run; what a device holds, computes and sends is taken
from the program and stands beside the arithmetic in `_plan`. Loops' bodies count once. Temporaries
are those of the CPU's compiler: other devices' differ. ``--quick``: 8 devices, without *gcr*.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.bench import _report


class Measured(NamedTuple):
    """One quantity of a target, of one device."""

    target: str
    what: str
    by_hand: float | None
    compiled: float


QUANTITIES = {"state": ("state, MB", 1e6), "flops": ("TFLOP", 1e12), "sent": ("sent, MB", 1e6)}


def planned(name: str, title: str, num_devices: int) -> Iterator[Measured]:
    """In a process of its own, whose devices are forced."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench._plan", name, str(num_devices)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    title = f"{title}, {num_devices} devices"
    for key, (what, unit) in QUANTITIES.items():
        yield Measured(title, what, found["by_hand"][key] / unit, found["compiled"][key] / unit)
    for key in ("flops", "sent") if "moves" in found else ():
        what, unit = QUANTITIES[key]
        moves = found["moves"][key] / unit
        yield Measured(title, f"{what}, in moves of bases, a step's mean", None, moves)
    yield Measured(title, "temporaries, MB", None, found["temporary"] / 1e6)
    yield Measured(title, "seconds to compile", None, found["compile"])


def gcr(quick: bool) -> Iterator[Measured]:
    """Images and classes lie over all devices."""
    if not quick:
        yield from planned("gcr", "GCR, ResNet50-D, 21,841 classes, k = 8, 4,096 images", 256)


def grasswalk(quick: bool) -> Iterator[Measured]:
    """Eight devices hold one copy of the model."""
    title = "GrassWalk, LLaMA-7B, rank 1024, 512 x 256 tokens"
    yield from planned("grasswalk", title, 8 if quick else 256)


def ct(quick: bool) -> Iterator[Measured]:
    """Slices lie over all devices."""
    title = "CT, 512^3, 180 views, a level and slice of the network"
    yield from planned("ct", title, 8 if quick else 256)


def row(m: Measured) -> dict[str, Any]:
    """One line of the table."""
    return {
        "run": m.target,
        "of one device": m.what,
        "by hand": "" if m.by_hand is None else f"{m.by_hand:.4g}",
        "compiled": f"{m.compiled:.4g}",
    }


def summary(measured: dict[str, list[Measured]]) -> str:
    """What each target takes, and how far the arithmetic is from the program."""
    parts = []
    for name, found in measured.items():
        both = {m.what.split(",")[0]: m for m in found if m.by_hand is not None}
        if both:
            ratios = ", ".join(f"{what} {m.compiled / m.by_hand:.2f}" for what, m in both.items())
            state, sent = (both[what].compiled for what in ("state", "sent"))
            parts.append(f"{name} holds {state:.4g} MB and sends {sent:.4g} MB ({ratios})")
    return f"A device of {'; '.join(parts)}; in brackets the program over the arithmetic"


def main() -> None:
    _report.run(
        "plan",
        "Plans for 256 devices",
        "programs compiled from shapes, one process each",
        (gcr, grasswalk, ct),
        row,
        summary,
    )


if __name__ == "__main__":
    main()
