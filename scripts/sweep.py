"""Every run of a config's ``sweep()``: print the commands, or run them and compare the results.

    python -m scripts.sweep --config=configs/NAME.py[:OPTIONS]                   a command a line
    python -m scripts.sweep --config=... --launcher=local --parallel=2           two at a time, here
    python -m scripts.sweep --config=... --launcher=slurm --slurm_partition=gpu  jobs of SLURM

``sweep()`` yields dicts of config overrides. Each run has its own workdir under ``runs/NAME/``. A
sweep that is started again carries out only what has no result yet, and what was stopped goes on
where it was; a run that fails leaves the others alone. In the end ``sweep.csv`` has a row a run and
``sweep.png`` a panel a number. ``--slurm_NAME=VALUE`` sets submitit's ``slurm_NAME``.
"""

import argparse
import re
import runpy
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from scripts import launchers, sweep_results
from scripts.launchers import Run


def runs(config: str, base: Path | None = None) -> list[Run]:
    """The runs that ``sweep()`` of this config file names."""
    file, _, options = config.partition(":")
    if not Path(file).is_file():
        raise ValueError(f"no config file {file}")
    sweep = runpy.run_path(file).get("sweep")
    if sweep is None:
        raise ValueError(f"{file} defines no sweep()")
    name = Path(file).stem
    base = base or Path("runs") / name
    found = []
    for overrides in sweep():
        label = ",".join(filter(None, [options, *(f"{k}={v}" for k, v in overrides.items())]))
        workdir = base / re.sub(r"[^\w.,=+-]", "_", label)
        command = [sys.executable, "-m", f"experiments.{name}", f"--config={config}"]
        command += [f"--config.{key}={value}" for key, value in overrides.items()]
        found.append(Run(overrides, workdir, [*command, f"--workdir={workdir}"]))
    return found


def follow(runs: list[Run], launched: launchers.Launched, every: float) -> None:
    """Show how it goes until all have ended: on a terminal one table, else a line a change."""
    shown: list[str] = []
    while True:
        states = launched.states()
        now = [sweep_results.status(run, state) for run, state in zip(runs, states, strict=True)]
        if sys.stderr.isatty():
            up = f"\033[{len(shown)}A" if shown else ""
            lines = [f"\033[K{line[:110]}" for line in now]
            print(up + "\n".join(lines), file=sys.stderr, flush=True)
        else:
            for before, line in zip(shown or ["waiting"] * len(now), now, strict=True):
                if line.split()[0] != before.split()[0]:
                    print(line, file=sys.stderr, flush=True)
        shown = now
        if set(states) == {"ended"}:
            return
        time.sleep(every)


def carry_out(sweep: list[Run], arguments: argparse.Namespace, slurm: dict[str, Any]) -> None:
    """Run what is missing."""
    missing = [run for run in sweep if not run.done]
    print(f"{len(missing)} of {len(sweep)} runs to do", file=sys.stderr)
    if not missing:
        return
    if arguments.launcher == "local":
        launched, every = launchers.local(missing, arguments.parallel or 1), 0.5
    else:
        base = sweep[0].workdir.parent
        launched = launchers.slurm(missing, base, arguments.parallel or 256, slurm)
        every = 5.0
    try:
        follow(missing, launched, every)
    except KeyboardInterrupt:
        sys.exit(launched.stop())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --launche=local is a mistake
    )
    parser.add_argument("--config", required=True, help="configs/NAME.py[:OPTIONS]")
    parser.add_argument("--launcher", choices=("local", "slurm"), help="without: print commands")
    parser.add_argument("--parallel", type=int, metavar="N", help="runs at a time; here 1")
    parser.add_argument("--workdir", type=Path, help="folder of the runs, default runs/NAME")
    parser.add_argument("--show", default="", metavar="REGEX", help="numbers to draw and print")
    parser.add_argument("--timeout_min", type=int, default=24 * 60, help="of a job of SLURM")
    arguments, others = parser.parse_known_args()
    slurm: dict[str, Any] = {"timeout_min": arguments.timeout_min}
    for other in others:
        found = re.fullmatch(r"--(slurm_\w+)=(.+)", other)
        if not found or arguments.launcher != "slurm":
            parser.error(f"unrecognized argument: {other}")
        name, value = found.groups()
        slurm[name] = int(value) if value.isdigit() else value
    if arguments.parallel is not None and arguments.parallel < 1:
        parser.error(f"--parallel needs at least 1, got {arguments.parallel}")
    try:
        sweep = runs(arguments.config, arguments.workdir)
    except ValueError as error:
        parser.error(str(error))
    if arguments.launcher is None:
        for run in sweep:
            print(shlex.join(["python", *run.command[1:]]))
        return
    try:
        carry_out(sweep, arguments, slurm)
    except ValueError as error:
        parser.error(str(error))
    print(sweep_results.report(sweep, arguments.show))
    sys.exit(not all(run.done for run in sweep))


if __name__ == "__main__":
    main()
