"""What lets a run be stopped at any moment: checked checkpoints and heeded signals."""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from experiments import records


@contextlib.contextmanager
def opened(workdir: Path, max_to_keep: int, limit: float) -> Iterator[ocp.CheckpointManager]:
    """The manager of the run's checkpoints, which it closes within the `time_limit`."""
    # Orbax measures by the wall clock, which may be set: its own limits are put out of reach.
    patient = ocp.options.AsyncOptions(timeout_secs=10**8)
    options = ocp.CheckpointManagerOptions(max_to_keep=max_to_keep, async_options=patient)
    manager = ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)
    try:
        yield manager
    finally:
        with time_limit(limit):
            manager.close()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End the process with one line on stderr if the block has not ended after so many seconds.

    What reads and writes arrays waits where no exception can reach it: for ever if a file system
    hangs, and where the clock was set back until it is as late again (tensorstore starts no
    threads meanwhile). A checkpoint that is not whole is left out when the run goes on.
    """
    ended = threading.Event()

    def watch():
        if not ended.wait(seconds):
            message = (
                f"a checkpoint took more than {seconds:g} s: does the file system hang, or was the "
                "clock set back? The same command goes on from the one before"
            )
            print(f"error: {message}", file=sys.stderr, flush=True)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def restore(manager: ocp.CheckpointManager, state: Any) -> tuple[Any, int]:
    """The newest checkpoint that can be read, and its step; one that cannot is moved aside."""
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            restored = manager.restore(step, args=ocp.args.StandardRestore(like))
        except Exception as error:
            # Of an array that is cut short Orbax says no more than that: a plain Exception.
            known = isinstance(error, OSError | ValueError | KeyError | TypeError)
            if not known and type(error) is not Exception:
                raise
            folder = Path(manager.directory) / str(step)
            aside = folder.with_name(f"unreadable-{step}-{time.time_ns()}")
            if jax.process_index() == 0:
                folder.rename(aside)
            multihost_utils.sync_global_devices("an unreadable checkpoint was moved aside")
            manager.reload()
            reason = str(error).splitlines()[0]
            records.say(f"checkpoint of step {step} cannot be read, now at {aside}: {reason}")
        else:
            records.say(f"resumed from step {step}")
            return restored, step
    return state, 0


def claim_state(workdir: Path, manager: ocp.CheckpointManager, state: Any) -> None:
    """Say what the checkpoints hold; ValueError if those that are there hold something else."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    ours = {jax.tree_util.keystr(path): f"{leaf.dtype}{leaf.shape}" for path, leaf in leaves}
    file = workdir / "state.json"
    theirs = records.read_json(file, ours) if manager.all_steps() else ours
    for key in ours | theirs:
        if ours.get(key) != theirs.get(key):
            raise ValueError(
                f"the checkpoints in {workdir} are of another version of this experiment "
                f"(state{key}: {theirs.get(key)} there, {ours.get(key)} here)"
            )
    records.write_json(file, ours)


def check_space(workdir: Path, state: Any, num_checkpoints: int) -> None:
    """Return if the workdir has room for so many checkpoints; else raise OSError."""
    need = num_checkpoints * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    free = shutil.disk_usage(workdir).free
    if free < need:
        raise OSError(f"{workdir} has {free:.3g} bytes free, its checkpoints need {need:.3g}")


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], signal.Signals | None]]:
    """A function that tells which of SIGTERM and SIGINT has come, if any; a second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # only the main thread may handle signals
        return
    received = []
    previous = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def receive(signum, _):
        received.append(signal.Signals(signum))
        signal.signal(signum, previous[signum])

    try:
        for signum in previous:
            signal.signal(signum, receive)
        yield lambda: received[0] if received else None
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def agreed(signum: signal.Signals | None) -> signal.Signals | None:
    """The signal that any of the processes has received: they have to stop at one step."""
    if jax.process_count() == 1:
        return signum
    highest = int(multihost_utils.process_allgather(np.int32(signum or 0)).max())
    return signal.Signals(highest) if highest else None
