"""What a sweep came to: a status a run while it goes on, then a table, a CSV file and a picture."""

import csv
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import plots
from scripts.launchers import Run

MOST = 6
"""Panels, and columns of results in the table."""


def status(run: Run, state: str) -> str:
    """One line: the run, what it does, and the last line that it printed."""
    if run.done:
        return f"done     {run.workdir.name}"
    said = last_line(run)
    if state == "ended":
        return f"FAILED   {run.workdir.name}  {said}"
    return f"{state:8} {run.workdir.name}" + (f"  {said}" if state == "running" else "")


def last_line(run: Run) -> str:
    lines = run.log.read_text().strip().splitlines() if run.log.exists() else []
    return lines[-1] if lines else "no output"


def report(sweep: list[Run], show: str) -> str:
    """The table; writes ``sweep.csv`` and ``sweep.png`` beside the runs.

    Args:
        sweep: all runs; what has no result has its last line instead.
        show: a regular expression of the results to draw and to print; empty: the first few that
            differ between runs. The file has all.
    """
    rows = [row(run) for run in sweep]
    keys = list(dict.fromkeys(key for run in sweep for key in run.overrides))
    results = [name for name in names(rows) if name not in [*keys, "error"]]
    if show:
        chosen = [name for name in results if re.search(show, name)]
    else:
        finished = [row for row in rows if "error" not in row]
        chosen = [name for name in results if len({row.get(name) for row in finished}) > 1]
    chosen = chosen[:MOST]
    base = sweep[0].workdir.parent
    write_csv(base / "sweep.csv", rows)
    drawn = [name for name in chosen if any(isinstance(r.get(name), int | float) for r in rows)]
    if drawn:
        size = (3.2 * min(3, len(drawn)) + 1.5, 2.8 * -(-len(drawn) // 3))
        plots.save(base / "sweep.png", partial(draw, rows, keys, drawn), size=size)
    errors = ["error"] if any("error" in row for row in rows) else []
    return table(rows, [*keys, *chosen, *errors])


def row(run: Run) -> dict[str, Any]:
    """Its overrides, then the numbers of its results, or what went wrong."""
    if not run.done:
        return run.overrides | {"error": last_line(run)}
    results = json.loads((run.workdir / "result.json").read_text())["results"]
    return run.overrides | dict(numbers(results))


def numbers(results: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The scalars of nested results, under dotted names."""
    for key, value in results.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float | str):
            yield prefix + key, value


def names(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    cells = [[told(row.get(c, "")) for c in columns] for row in rows]
    widths = [
        max(map(len, (c, *column)))
        for c, column in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in (columns, *cells)
    )
    return "\n".join(line.rstrip() for line in lines)


def told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names(rows))
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: list[dict[str, Any]], keys: list[str], drawn: list[str], figure: Figure) -> None:
    """A panel a number: against the first override that varies, a line for each of the others."""
    varied = [key for key in keys if len({told(row.get(key)) for row in rows}) > 1] or keys[:1]
    first, others = varied[0], varied[1:]
    values: list[Any] = list(dict.fromkeys(row.get(first) for row in rows))
    numeric = all(isinstance(value, int | float) for value in values)
    lines: dict[str, list[dict[str, Any]]] = {}
    for one in rows:
        label = ", ".join(f"{key}={told(one.get(key))}" for key in others)
        lines.setdefault(label, []).append(one)
    grid = figure.subplots(-(-len(drawn) // 3), min(3, len(drawn)), squeeze=False)
    for axes in grid.flat[len(drawn) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, drawn, strict=False):
        for label, members in lines.items():
            found = [m for m in members if isinstance(m.get(name), int | float)]
            x = [m[first] if numeric else values.index(m[first]) for m in found]
            order = np.argsort(x, kind="stable")
            y = [found[i][name] for i in order]
            axes.plot([x[i] for i in order], y, "o-", ms=4, label=label or None)
        if numeric and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_xscale("log")
        if not numeric:
            axes.set_xticks(range(len(values)), [told(v) for v in values], rotation=30, ha="right")
        axes.set(title=name, xlabel=first)
    if others:
        handles = grid[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=7)
