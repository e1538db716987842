"""Faults, tried many times: what is killed, filled, torn or run twice ends with the same result.

    python -m scripts.faults [--times=20] [--fault=NAME] [--output=FILE]

A small run of ``experiments.intrinsic_dimension`` is done once undisturbed. Then each fault comes
at a random moment, the same command is given again, and its results and metrics are compared with
the undisturbed ones, number by number. Two need root (a file system of their own), one Debian's
``faketime``; a fault that cannot be made here is left out, and said so.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments import records

ARGUMENTS = (
    "--config=configs/intrinsic_dimension.py:smoke",
    "--config.num_steps=600",
    "--config.log_every=20",
    "--config.checkpoint_every=20",
    "--config.checkpoint_limit=30",
)


class Whole(NamedTuple):
    """The undisturbed run."""

    outcome: tuple[dict, str]
    seconds: float


class Fault(NamedTuple):
    """Something that happens to a run in its workdir."""

    happen: Callable[[Path, Whole], str]
    """Returns what was wrong with the way it was met, or nothing; the workdir is left to go on."""
    needs: Callable[[], str] = lambda: ""
    """What is missing here, or nothing."""
    mounted: bool = False
    """In a small file system of its own."""


CACHE = tempfile.TemporaryDirectory()
"""Of compiled programs."""
PATIENCE = 600
"""Seconds."""
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": CACHE.name,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def start(workdir: Path, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.intrinsic_dimension", *ARGUMENTS]
    return subprocess.Popen(
        [*command, f"--workdir={workdir / 'run'}"],
        env=os.environ | SETTINGS | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Its exit status, and the last line that it printed; a run that does not end is killed."""
    try:
        said = process.communicate(timeout=PATIENCE)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return -signal.SIGKILL, f"it did not end within {PATIENCE} s"
    return process.returncode, (said.strip().splitlines() or [""])[-1]


def outcome(workdir: Path) -> tuple[dict, str]:
    """Results, and the metrics of all steps."""
    record = json.loads((workdir / "run" / "result.json").read_text())
    return record["results"], (workdir / "run" / "metrics.jsonl").read_text()


def some_time(whole: Whole) -> None:
    time.sleep(random.uniform(0.1, 1.1) * whole.seconds)


def readable(status: int, said: str, wanted: str) -> str:
    """Nothing, if a failed run has said in one line what it must."""
    if status == 0:
        return "it did not fail"
    return "" if said.startswith("error: ") and wanted in said else f"it said {said!r}"


def killed(workdir: Path, whole: Whole) -> str:
    process = start(workdir)
    some_time(whole)
    process.kill()
    process.communicate()
    return ""


def terminated(workdir: Path, whole: Whole) -> str:
    process = start(workdir)
    some_time(whole)
    process.terminate()
    status, said = finish(process)
    # Before it listens, while Python starts, the signal ends it like any program.
    return "" if status in (0, -signal.SIGTERM) else f"exit status {status}: {said}"


def full(workdir: Path, whole: Whole) -> str:
    process = start(workdir)
    some_time(whole)
    hog = workdir / "hog"
    with contextlib.suppress(OSError), hog.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    status, said = finish(process)
    hog.unlink()
    return "" if status == 0 else readable(status, said, "space left")


def read_only(workdir: Path, whole: Whole) -> str:
    process = start(workdir)
    some_time(whole)
    # A forced remount fails while files are open for writing: then the run is ended first.
    if remount(workdir, "ro"):
        process.kill()
        process.communicate()
        remount(workdir, "ro")
        process = start(workdir)
    status, said = finish(process)
    remount(workdir, "rw")
    return "" if status == 0 else readable(status, said, "ead-only")


def torn(workdir: Path, whole: Whole) -> str:
    killed(workdir, whole)
    folders = (workdir / "run" / "checkpoints").glob("[0-9]*")
    steps = [folder for folder in folders if folder.name.isdigit()]  # others were not finished
    newest = max(steps, key=lambda folder: int(folder.name), default=None)
    files = [path for path in newest.rglob("*") if path.is_file()] if newest else []
    if files:
        victim = random.choice(files)
        with victim.open("r+b") as file:
            file.truncate(victim.stat().st_size // 2)
    return ""


def jumped(workdir: Path, whole: Whole) -> str:
    clock = workdir / "clock"
    clock.write_text("+0")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    process = start(
        workdir,
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_CACHE_DURATION="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    some_time(whole)
    clock.write_text(random.choice(("-2d", "+400d")))
    status, said = finish(process)
    # Set back while a checkpoint is written, it may not end before the clock is as late again.
    return "" if status == 0 else readable(status, said, "the clock")


def twice(workdir: Path, whole: Whole) -> str:
    first = start(workdir)
    lock = workdir / "run" / "lock"
    while not (lock.exists() and lock.read_text()):
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3) * whole.seconds)
    second = start(workdir)
    status, said = finish(second)
    ended = first.poll() is not None
    if finish(first)[0]:
        return "the first run failed"
    return "" if status == 0 and ended else readable(status, said, "in use by another run")


def remount(workdir: Path, options: str) -> int:
    command = ["mount", "-o", f"remount,{options}", str(workdir)]
    return subprocess.run(command, capture_output=True).returncode


def needs_root() -> str:
    return "" if os.geteuid() == 0 and shutil.which("mount") else "root"


def needs_faketime() -> str:
    return "" if any(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")) else "faketime"


FAULTS = {
    "kill -9": Fault(killed),
    "SIGTERM": Fault(terminated),
    "full disk": Fault(full, needs_root, mounted=True),
    "read-only workdir": Fault(read_only, needs_root, mounted=True),
    "truncated checkpoint": Fault(torn),
    "clock jump": Fault(jumped, needs_faketime),
    "two runs": Fault(twice),
}


def tried(fault: Fault, whole: Whole) -> str:
    """One trial: what was wrong, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder)
        if fault.mounted:
            mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder]
            subprocess.run(mount, check=True)
        try:
            wrong = fault.happen(workdir, whole)
            status, said = finish(start(workdir))
            if wrong or status:
                return wrong or f"afterwards exit status {status}: {said}"
            return "" if outcome(workdir) == whole.outcome else "other numbers"
        finally:
            if fault.mounted:
                subprocess.run(["umount", folder], check=True)


def undisturbed() -> Whole:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        status, said = finish(start(Path(folder)))
        if status:
            raise SystemExit(f"the undisturbed run failed: {said}")
        return Whole(outcome(Path(folder)), time.monotonic() - begun)


def record(rows: dict[str, dict]) -> dict:
    """As the README's tables want it."""
    good = {name: row["times"] - len(row["wrong"]) for name, row in rows.items()}
    told = ", ".join(f"{name} {good[name]} of {row['times']}" for name, row in rows.items())
    return {
        "benchmark": "faults",
        "title": "Faults",
        "protocol": "each at a random moment of a small training, then the same command again",
        "summary": f"the fault met as it should be and the end that of an undisturbed run: {told}",
        "rows": [
            {"fault": name, "times": row["times"], "as it should be": good[name],
             "otherwise": "; ".join(row["wrong"])}
            for name, row in rows.items()
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--fault", choices=FAULTS, help="this one alone")
    parser.add_argument(
        "--output", type=Path, help="write the counts here, as JSON, for the README"
    )
    arguments = parser.parse_args()
    whole = undisturbed()
    rows = {}
    for name in [arguments.fault] if arguments.fault else FAULTS:
        missing = FAULTS[name].needs()
        if missing:
            print(f"{name:22} left out: needs {missing}")
            continue
        wrongs = list(map(partial(tried, FAULTS[name]), [whole] * arguments.times))
        found = [wrong for wrong in wrongs if wrong]
        rows[name] = {"times": arguments.times, "wrong": found}
        print(f"{name:22} {arguments.times - len(found)} of {arguments.times} as they should")
        for wrong in found:
            print(f"    {wrong}")
    if arguments.output:
        records.write_json(arguments.output, record(rows) | records.provenance())
    sys.exit(any(row["wrong"] for row in rows.values()))


if __name__ == "__main__":
    main()
