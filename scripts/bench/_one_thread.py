"""CPU time of one thread: a measure that other programs on the machine disturb little."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

_SETTINGS = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
}


def restart(module: str) -> None:
    """Run the benchmark anew with one thread, which libraries read when they are loaded."""
    if os.environ.get("XLA_FLAGS") != _SETTINGS["XLA_FLAGS"]:
        arguments = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, arguments, os.environ | _SETTINGS)


def timed(call: Callable[[], Any], repeats: int = 1) -> float:
    """Milliseconds of this process's CPU time."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return 1e3 * (time.process_time() - start) / repeats


def interleaved(
    calls: list[Callable[[], Any]], seconds: float, fewest: int = 7
) -> list[np.ndarray]:
    """CPU time of calls, in turns of at least 5 ms each: ``fewest`` to 60 rounds."""
    once = [min(timed(call) for _ in range(3)) for call in calls]
    repeats = [int(np.ceil(5 / t)) for t in once]
    rounds = 1e3 * seconds / sum(n * t for n, t in zip(repeats, once, strict=True))
    times = [[] for _ in calls]
    for turn in range(int(np.clip(rounds, fewest, 60))):
        for i in np.roll(range(len(calls)), turn):  # nobody always follows the same one
            times[i].append(timed(calls[i], repeats[i]))
    return [np.array(found) for found in times]
