"""Where the runs of a sweep are carried out: on this machine, or by SLURM through submitit.

A launcher gets the runs that are missing and says of each whether it waits, runs or has ended; what
came of it stands in its workdir. `SlurmTask` is what a job of SLURM executes: shortly before its
time limit, or when it is told to, the run saves its state and the job is queued again.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from submitit.helpers import DelayedSubmission

from experiments import records


class Run(NamedTuple):
    """One configuration of a sweep."""

    overrides: dict[str, Any]
    workdir: Path
    command: list[str]

    @property
    def log(self) -> Path:
        """What it prints, of all attempts."""
        return self.workdir / "log.txt"

    @property
    def done(self) -> bool:
        return (self.workdir / "result.json").exists()


class Launched(NamedTuple):
    """Runs under way."""

    states: Callable[[], list[str]]
    """"waiting", "running" or "ended" of each."""
    stop: Callable[[], str]
    """After Ctrl-C; tells what becomes of the runs."""


def local(runs: list[Run], parallel: int) -> Launched:
    """``parallel`` at a time, here; a Ctrl-C reaches them too, and they save their states."""
    pool = ThreadPoolExecutor(parallel)
    begun = [False] * len(runs)

    def work(i: int) -> None:
        begun[i] = True
        start(runs[i]).wait()

    futures = [pool.submit(work, i) for i in range(len(runs))]

    def states() -> list[str]:
        return [
            "ended" if future.done() else "running" if started else "waiting"
            for future, started in zip(futures, begun, strict=True)
        ]

    def stop() -> str:
        pool.shutdown(cancel_futures=True)
        return "stopped; the same command goes on from here"

    return Launched(states, stop)


def start(run: Run) -> subprocess.Popen:
    """The run's process, its output appended to its log."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    with run.log.open("a") as stream:
        return subprocess.Popen(run.command, stdout=stream, stderr=subprocess.STDOUT)


class SlurmTask:
    """A run as a job of SLURM."""

    def __init__(self, run: Run):
        self.run = run
        self.process: subprocess.Popen | None = None

    def __call__(self) -> None:
        """Carry it out; RuntimeError if it has no result in the end."""
        # The run is told to save by `checkpoint`, not by the signal to this process, which SLURM
        # sends to its children as well; what is ignored here stays so in a child.
        name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
        warning = getattr(signal, f"SIG{name}")
        handler = signal.signal(warning, signal.SIG_IGN)
        self.process = start(self.run)
        signal.signal(warning, handler)
        self._wait()
        if not self.run.done:
            raise RuntimeError(f"{self.run.workdir} has no result: see {self.run.log}")

    def checkpoint(self) -> DelayedSubmission:
        """Let the run save its state; what submitit queues again."""
        if self.process:
            self.process.terminate()
            self._wait()
        return DelayedSubmission(SlurmTask(self.run))

    def _wait(self) -> None:
        # Not `Popen.wait`, which would lock out the call in a signal's handler.
        while self.process and self.process.poll() is None:
            time.sleep(0.2)


def slurm(runs: list[Run], base: Path, parallel: int, options: dict[str, Any]) -> Launched:
    """An array of jobs, ``parallel`` of them at a time; those that are queued already are kept.

    Args:
        runs: what is missing.
        base: folder of the sweep; ``slurm.json`` in it knows the jobs.
        parallel: jobs that may run at the same time.
        options: of submitit's executor: ``timeout_min``, ``slurm_partition`` ...

    Raises:
        ValueError: there is no SLURM here, or it does not answer.
    """
    file = base / "slurm.json"
    jobs = records.read_json(file, {})
    queued = queue()
    missing = [run for run in runs if jobs.get(run.workdir.name) not in queued]
    if missing:
        executor = submitit.AutoExecutor(folder=base / "slurm", cluster="slurm")
        executor.update_parameters(
            name=base.name,
            slurm_array_parallelism=parallel,
            slurm_additional_parameters={"requeue": True},
            **options,
        )
        with executor.batch():
            submitted = [executor.submit(SlurmTask(run)) for run in missing]
        for run, job in zip(missing, submitted, strict=True):
            jobs[run.workdir.name] = job.job_id
        records.write_json(file, jobs)

    last = ["waiting"] * len(runs)

    def states() -> list[str]:
        # A controller that does not answer for once is no end of the jobs.
        with contextlib.suppress(ValueError):
            found = queue()
            last[:] = [found.get(jobs[run.workdir.name], "ended") for run in runs]
        return list(last)

    return Launched(states, lambda: "the jobs go on; the same command watches them again")


def queue() -> dict[str, str]:
    """{job: "waiting" or "running"} of this user's jobs; without the accounting, which few have.

    Raises:
        ValueError: there is no SLURM here, or it does not answer.
    """
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i %T"]
    try:
        told = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError("there is no SLURM here: squeue is not found") from None
    if told.returncode:
        raise ValueError(f"SLURM does not answer: {told.stderr.strip()}")
    rows = (line.split() for line in told.stdout.splitlines())
    ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
    return {
        job: "running" if state == "RUNNING" else "waiting"
        for job, state in rows
        if state not in ended
    }
