"""Every run of a config's ``sweep()``: print the commands, or run them and compare the results.

    python -m scripts.sweep --config=configs/NAME.py[:OPTIONS]            one command a line
    python -m scripts.sweep --config=configs/NAME.py[:OPTIONS] --run=2    two at a time, here

``sweep()`` yields dicts of config overrides. Each run has its own workdir under ``runs/NAME/``, so
a sweep that was stopped goes on where it was when it is started again.
"""

import argparse
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple


class Run(NamedTuple):
    overrides: dict[str, Any]
    workdir: Path
    command: list[str]


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


def execute(run: Run) -> str:
    """Run it, its output in ``log.txt`` of its workdir; say what went wrong, or nothing."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    log = run.workdir / "log.txt"
    with log.open("w") as stream:
        status = subprocess.run(run.command, stdout=stream, stderr=subprocess.STDOUT).returncode
    if status == 0 and (run.workdir / "result.json").exists():
        return ""
    lines = log.read_text().strip().splitlines() or [f"exit status {status}"]
    return f"FAILED ({status}): {lines[-1]}"


def table(sweep: list[Run], errors: list[str]) -> str:
    """A row per run: its overrides, then its results' numbers or its error."""
    rows = []
    for run, error in zip(sweep, errors, strict=True):
        row = {key: str(value) for key, value in run.overrides.items()}
        results = {} if error else json.loads((run.workdir / "result.json").read_text())["results"]
        rows.append(row | dict(_numbers(results)) | ({"error": error} if error else {}))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    widths = {c: max(len(c), *(len(row.get(c, "")) for row in rows)) for c in columns}
    lines = ["  ".join(c.ljust(widths[c]) for c in columns)]
    lines += ["  ".join(row.get(c, "").ljust(widths[c]) for c in columns) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _numbers(results: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The scalars of nested results, under dotted names."""
    for key, value in results.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float, str)):
            yield prefix + key, f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configs/NAME.py[:OPTIONS]")
    parser.add_argument("--run", type=int, metavar="N", help="run them here, N at a time")
    parser.add_argument("--workdir", type=Path, help="folder of the runs, default runs/NAME")
    arguments = parser.parse_args()
    try:
        sweep = runs(arguments.config, arguments.workdir)
    except ValueError as error:
        parser.error(str(error))
    if arguments.run is None:
        for run in sweep:
            print(shlex.join(["python", *run.command[1:]]))
        return
    if arguments.run < 1:
        parser.error(f"--run needs at least 1, got {arguments.run}")
    errors = []
    with ThreadPoolExecutor(arguments.run) as pool:
        for run, error in zip(sweep, pool.map(execute, sweep), strict=True):
            errors.append(error)
            print(f"{len(errors)}/{len(sweep)}  {run.workdir}  {error or 'done'}", file=sys.stderr)
    print(table(sweep, errors))
    sys.exit(any(errors))


if __name__ == "__main__":
    main()
