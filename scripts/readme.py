"""Writes the results in the README from ``experiments/results``, so that no number is typed.

python scripts/readme.py            rewrite them
python scripts/readme.py --check    exit 1 if they are out of date
"""

import argparse
import ast
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "experiments" / "results"
BEGIN, END = "<!-- results: written by scripts/readme.py -->", "<!-- end of results -->"


def generated() -> str:
    """The results section: a table of experiments, then a table per benchmark."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    experiments = {stem: r for stem, r in records.items() if "experiment" in r}
    lines = ["| experiment | measured | where |", "| --- | --- | --- |"]
    for stem, record in experiments.items():
        source = f"experiments/{record['experiment']}.py"
        docstring = ast.get_docstring(ast.parse((ROOT / source).read_text()))
        title = docstring.splitlines()[0].partition(":")[0]
        seconds = record["seconds"]["compile"] + record["seconds"]["train"]
        where = f"{_device(record)}, {seconds:.0f} s"
        link = f"[{title}]({source}) ([numbers](experiments/results/{stem}.json))"
        lines.append(f"| {link} | {record['results']['summary']} | {where} |")
    for record in (r for r in records.values() if "benchmark" in r):
        lines += ["", f"**{record['title']}**: {record['summary']} ({_device(record)}).", ""]
        lines += ["<details>", f"<summary>All rows, {record['protocol']}</summary>", ""]
        columns = list(dict.fromkeys(column for row in record["rows"] for column in row))
        lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        for row in record["rows"]:
            cells = (str(row.get(c, "")).replace("|", r"\|") for c in columns)
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", "</details>"]
    return "\n".join(lines)


def _device(record: dict) -> str:
    cores = f", {record['cpu_count']} cores" if record["backend"] == "cpu" else ""
    return f"{record['device_kind']}{cores}, {record['dtype']}, jax {record['versions']['jax']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    text = README.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    fresh = f"{head}{BEGIN}\n{generated()}\n{END}{tail}"
    if check:
        sys.exit(0 if fresh == text else "README.md is out of date: run python scripts/readme.py")
    README.write_text(fresh)


if __name__ == "__main__":
    main()
