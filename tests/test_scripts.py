"""The sweep, the README's generated part, and the wheel."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import sweep

ROOT = Path(__file__).resolve().parents[1]

CONFIG = """
def sweep():
    for rate in (1, 2):
        yield {"rate": rate}
"""


def fake_run(tmp_path, rate, code):
    return sweep.Run({"rate": rate}, tmp_path / f"rate={rate}", [sys.executable, "-c", code])


def test_sweep_names_a_command_and_a_workdir_per_run(tmp_path):
    file = tmp_path / "name.py"
    file.write_text(CONFIG)
    runs = sweep.runs(f"{file}:smoke")
    assert [run.overrides for run in runs] == [{"rate": 1}, {"rate": 2}]
    assert runs[0].workdir == Path("runs/name/smoke,rate=1")
    assert runs[0].command[1:] == [
        "-m", "experiments.name", f"--config={file}:smoke", "--config.rate=1",
        "--workdir=runs/name/smoke,rate=1",
    ]  # fmt: skip


def test_sweep_reports_results_and_failures_in_one_table(tmp_path):
    write = "open({!r}, 'w').write({!r})"
    record = json.dumps({"results": {"score": 0.5, "d_int": {"value": 7}, "list": [1]}})
    good = fake_run(tmp_path, 1, write.format(str(tmp_path / "rate=1/result.json"), record))
    bad = fake_run(tmp_path, 2, "raise SystemExit('error: no luck')")
    errors = [sweep.execute(run) for run in (good, bad)]
    assert errors == ["", "FAILED (1): error: no luck"]
    head, first, second = sweep.table([good, bad], errors).splitlines()
    assert head.split() == ["rate", "score", "d_int.value", "error"]
    assert first.split() == ["1", "0.5", "7"]
    assert second.endswith("FAILED (1): error: no luck")


@pytest.mark.parametrize(
    ("argument", "message"),
    [("none.py", "no config file none.py"), ("configs/common.py", "defines no sweep()")],
)
def test_sweep_names_what_is_missing(argument, message):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.sweep", f"--config={argument}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_the_readme_holds_the_committed_results():
    done = subprocess.run([sys.executable, "scripts/readme.py", "--check"], cwd=ROOT)
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_run_sh_lists_the_experiments(arguments):
    done = subprocess.run(
        ["bash", "scripts/run.sh", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "intrinsic_dimension" in done.stderr


@pytest.mark.slow
def test_the_wheel_holds_the_library_alone_and_imports_alone(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"subspace_jax"}
    assert "subspace_jax/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    check = """
import sys, subspace_jax
assert subspace_jax.__file__.startswith(sys.argv[1])
heavy = {"flax", "ml_collections", "orbax", "matplotlib", "sklearn", "experiments"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", check, str(tmp_path / "site")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        check=True,
    )
