"""What a run leaves in its workdir: its config, its metrics, its result."""

import contextlib
import fcntl
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tqdm import tqdm

_MEANS = ("mesh_model", "sharding", "checkpoint_limit")  # how a run is done, not what it is
_PACKAGES = ("jax", "jaxlib", "optax", "flax", "orbax-checkpoint", "numpy", "subspace-jax")


def write_json(path: Path, value: Any) -> None:
    """Write the whole file or nothing of it, whatever happens meanwhile; only process 0 does."""
    text = json.dumps(value, indent=2, default=_plain) + "\n"
    if jax.process_index() == 0:
        _write_atomically(path, text)


def read_json(path: Path, default: Any) -> Any:
    """The file's value, or the default if there is no file."""
    return json.loads(path.read_text()) if path.exists() else default


def kept(path: Path, compute: Callable[[], Any]) -> Any:
    """The value in the file, or if there is no file what ``compute`` gives, written there."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_json(path, compute())
    return read_json(path, None)


def piecewise(
    workdir: Path,
    pieces: Sequence[tuple],
    compute: Callable[..., dict],
    metrics: Callable[[dict], dict[str, Any]],
) -> list[dict]:
    """``compute(*piece)`` of every piece, kept when it is finished: a killed run goes on there.

    After each a line of its metrics is logged.

    Raises:
        FloatingPointError: a metric is NaN or infinite; the piece is not kept.
        ValueError: what is kept is another piece.
    """
    found = []
    (workdir / "checkpoints").mkdir(exist_ok=True)
    with contextlib.closing(MetricsLog(workdir, 0, len(pieces), 1)) as log:
        for done, piece in enumerate(pieces, 1):
            name = ", ".join(map(str, piece))
            say(f"{name} ...")
            path = workdir / "checkpoints" / f"{done}.json"
            stored = read_json(path, None) or {"piece": name, "value": compute(*piece)}
            if stored["piece"] != name:
                raise ValueError(f"{path} holds {stored['piece']!r}, not {name!r}")
            log.update(done, metrics(stored["value"]))  # raises before a NaN is kept
            if not path.exists():
                write_json(path, stored)
            found.append(read_json(path, None)["value"])
    return found


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """The workdir for this run alone, for as long as it lives, however it ends.

    Raises:
        BlockingIOError: another run has it.
    """
    if jax.process_index() > 0:  # one of the same run
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            message = f"{workdir} is in use by another run ({file.read()})"
            raise BlockingIOError(message) from None
        except OSError as error:  # not all network file systems know locks
            say(f"{workdir} is not protected from a second run: {error}")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def claim(workdir: Path, config: ConfigDict) -> None:
    """Make the workdir this config's own; ValueError if it holds results of another config."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "config.json"
    ours = json.loads(json.dumps(config.to_dict(), default=_plain))
    begun = (workdir / "result.json").exists() or any(workdir.glob("checkpoints/[0-9]*"))
    theirs = read_json(path, ours) if begun else ours
    keys = [key for key in ours | theirs if key not in _MEANS]
    changed = [key for key in keys if ours.get(key) != theirs.get(key)]
    if changed:
        changes = [f"{key} = {theirs.get(key)} there, {ours.get(key)} here" for key in changed[:3]]
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ValueError(
            f"{workdir} holds a run of another config ({'; '.join(changes)}{more}). "
            "Name another --workdir, or delete that one"
        )
    write_json(path, ours)


def provenance() -> dict[str, Any]:
    """Where the numbers come from: device, dtype, versions, git commit."""
    device = jax.devices()[0]
    return {
        "device_kind": device.device_kind,
        "device_count": jax.device_count(),
        "backend": device.platform,
        "cpu_count": os.cpu_count(),
        "dtype": str(jnp.zeros(()).dtype),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
        "git_commit": _git_commit(),
    }


def peak_gigabytes() -> float:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(OSError):  # on Linux that is not less than what its parent held
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        size = int(found[1]) if found else size
    return round(unit * size / 1e9, 2)


class MetricsLog:
    """Metrics as a line of JSON per logged step, and progress for the person who waits.

    On a terminal progress is a bar, elsewhere a line per ``log_every``. A folder ``tensorboard``
    in the workdir asks for TensorBoard events as well. Only process 0 writes.
    """

    def __init__(self, workdir: Path, first: int, num_steps: int, log_every: int):
        """Continue the log at step ``first``: later lines, of a run that was killed, go."""
        self._first, self._num_steps, self._log_every = first, num_steps, log_every
        self._path = workdir / "metrics.jsonl"
        self._writes = jax.process_index() == 0
        self._events = None
        if self._writes:
            lines = self._path.read_text().splitlines(True) if self._path.exists() else []
            kept = [
                line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= first
            ]
            _write_atomically(self._path, "".join(kept))
            if (workdir / "tensorboard").is_dir():
                self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=first)
        self._start = time.perf_counter()
        self._bar = tqdm(
            total=num_steps,
            initial=first,
            unit="step",
            disable=not sys.stderr.isatty() or not self._writes,
        )

    def update(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Move to ``step``; if it is one to log, check and write the metrics.

        Raises:
            FloatingPointError: a value is NaN or infinite; names the metric, the entry, the step.
        """
        self._bar.update(step - self._bar.n)
        if step % self._log_every and step != self._num_steps:
            return
        values = {name: np.asarray(value) for name, value in metrics.items()}
        for name, value in values.items():
            bad = np.argwhere(~np.isfinite(value))
            if len(bad):
                entry = f"{bad[0].tolist()}" if value.ndim else ""
                found = value[tuple(bad[0])]
                raise FloatingPointError(f"metric {name}{entry} is {found} at step {step}")
        if not self._writes:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}, default=_plain) + "\n")
        means = {name: float(value.mean()) for name, value in values.items()}
        text = "  ".join(f"{name} {mean:.4g}" for name, mean in means.items())
        self._bar.set_postfix_str(text, refresh=False)
        if self._bar.disable:
            rate = (step - self._first) / (time.perf_counter() - self._start)
            left = (self._num_steps - step) / rate
            say(f"step {step}/{self._num_steps}  {text}  {rate:.3g} steps/s  {left:.0f} s left")
        if self._events:
            for name, mean in means.items():
                self._events.add_scalar(name, mean, step)

    def close(self) -> None:
        """Finish the bar and flush the events."""
        self._bar.close()
        if self._events:
            self._events.close()


def say(text: str, stream: TextIO | None = None) -> None:
    """Text for the person who waits, on stderr unless told otherwise, from process 0 only."""
    if jax.process_index() == 0:
        tqdm.write(text, file=stream or sys.stderr)


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _plain(value: Any) -> Any:
    """JSON's form of an array, a number of numpy or a path."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _git_commit() -> str | None:
    command = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        run = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()
