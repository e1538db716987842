"""The sweep, the README's generated part, and the wheel."""

import argparse
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import launchers, sweep, sweep_results
from tests import forked

ROOT = Path(__file__).resolve().parents[1]

CONFIG = """
def sweep():
    for rate in (1, 2):
        yield {"rate": rate}
"""


def fake_run(tmp_path, rate, code):
    return launchers.Run({"rate": rate}, tmp_path / f"rate={rate}", [sys.executable, "-c", code])


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


def scored(tmp_path, rate, score):
    record = json.dumps({"results": {"score": score, "d_int": {"value": 7}, "list": [1]}})
    file = str(tmp_path / f"rate={rate}" / "result.json")
    return fake_run(tmp_path, rate, f"open({file!r}, 'a').write({record!r})")


def carry_out(runs, parallel=2):
    launched = launchers.local(runs, parallel)
    sweep.follow(runs, launched, 0.05)


def test_a_sweep_reports_results_and_failures(tmp_path, capsys):
    runs = [scored(tmp_path, 1, 0.5), fake_run(tmp_path, 2, "raise SystemExit('error: no luck')")]
    runs.append(scored(tmp_path, 3, 0.25))
    carry_out(runs)
    told = sorted(capsys.readouterr().err.splitlines())
    assert [line.split()[:2] for line in told if not line.startswith(("running", "waiting"))] == [
        ["FAILED", "rate=2"], ["done", "rate=1"], ["done", "rate=3"]
    ]  # fmt: skip
    head, first, second, _ = sweep_results.report(runs, "").splitlines()
    assert head.split() == ["rate", "score", "error"]  # of what differs
    assert first.split() == ["1", "0.5"]
    assert second.split() == ["2", "error:", "no", "luck"]
    rows = (tmp_path / "sweep.csv").read_text().splitlines()
    assert rows[0] == "rate,score,d_int.value,error"
    assert rows[1:] == ["1,0.5,7,", "2,,,error: no luck", "3,0.25,7,"]
    assert (tmp_path / "sweep.png").exists()
    assert sweep_results.report(runs, "d_int").splitlines()[0].split()[1] == "d_int.value"


def test_a_sweep_that_is_started_again_does_what_is_missing(tmp_path):
    (tmp_path / "name.py").write_text(CONFIG)
    runs = sweep.runs(str(tmp_path / "name.py"), tmp_path)
    runs = [
        run._replace(command=scored(tmp_path, run.overrides["rate"], 1).command) for run in runs
    ]
    carry_out(runs[:1])
    arguments = argparse.Namespace(launcher="local", parallel=None)
    sweep.carry_out(runs, arguments, {})
    records = [(run.workdir / "result.json").read_text() for run in runs]
    assert all(json.loads(record) for record in records)  # written once each


def test_a_stopped_sweep_starts_nothing_more(tmp_path):
    runs = [fake_run(tmp_path, rate, "import time; time.sleep(1)") for rate in range(3)]
    launched = launchers.local(runs, 1)
    while "running" not in launched.states():
        pass
    assert "goes on" in launched.stop()
    assert launched.states() == ["ended"] * 3
    assert not runs[2].workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=none.py"], "no config file none.py"),
        (["--config=configs/common.py"], "defines no sweep()"),
        (["--config=configs/poisson.py", "--paralel=2"], "unrecognized argument: --paralel=2"),
        (["--config=configs/poisson.py", "--launche=local"], "argument: --launche=local"),
        (
            ["--config=configs/poisson.py", "--launcher=local", "--slurm_partition=gpu"],
            "unrecognized argument: --slurm_partition=gpu",
        ),
        (["--config=configs/poisson.py", "--parallel=0"], "at least 1, got 0"),
        (["--config=configs/poisson.py", "--launcher=slurm"], "there is no SLURM here"),
    ],
)
def test_sweep_names_what_is_wrong(arguments, message):
    done = forked.run("scripts.sweep", *arguments, PATH="")
    assert done.returncode == 2
    assert message in done.stderr


def test_the_readme_holds_the_committed_results():
    done = subprocess.run([sys.executable, "scripts/readme.py", "--check"], cwd=ROOT)
    assert done.returncode == 0


@pytest.mark.slow
def test_what_a_plan_computes_by_hand_is_what_its_program_holds_computes_and_sends():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=256", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench._plan", "ct", "256"],
        cwd=ROOT,
        env=os.environ | flags,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for key, near in (("state", 1e-3), ("flops", 0.05), ("sent", 1e-3)):
        assert found["compiled"][key] == pytest.approx(found["by_hand"][key], rel=near), key


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
