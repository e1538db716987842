"""What all benchmarks of solvers share: the command line, the sections, the record."""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments import records
from scripts.bench._solvers import Measured

RESULTS = Path(__file__).resolve().parents[2] / "experiments/results"
Section = Callable[[bool], Iterator[Measured]]


def run(
    name: str,
    title: str,
    protocol: str,
    sections: Sequence[Section],
    row: Callable[[Measured], dict[str, Any]],
    summary: Callable[[dict[str, list[Measured]]], str],
) -> None:
    """Run the sections, printing a row for each measurement, and write ``bench-NAME.json``.

    Args:
        name: of the record.
        title: its heading in the README.
        protocol: how often contenders are called.
        sections: called with whether to be quick.
        row: one line of the table.
        summary: measurements by the section's name -> one sentence.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="small sizes, a second a section")
    parser.add_argument("--output", type=Path, default=RESULTS / f"bench-{name}.json")
    arguments = parser.parse_args()
    load, measured = os.getloadavg()[0], {}
    for section in sections:
        measured[section.__name__] = []
        for m in section(arguments.quick):
            measured[section.__name__].append(m)
            print(row(m), flush=True)
    record = {
        "benchmark": name,
        "title": title,
        "protocol": protocol,
        "summary": summary(measured),
        "rows": [row(m) for found in measured.values() for m in found],
        "load_average": {"before": load, "after": os.getloadavg()[0]},
    }
    records.write_json(arguments.output, record | records.provenance())


def share(quick: bool, seconds: float) -> float:
    """The seconds that a section may take."""
    return 0.3 if quick else seconds
