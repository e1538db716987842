"""A sweep on a real SLURM of one node: what fails, what is stopped, what is started again."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import launchers, sweep, sweep_results

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0,
        reason="needs Debian's slurm-wlm and munge, and root to start them",
    ),
]
CONFIG = """
from configs import train_denoiser

def get_config(arg=None):
    config = train_denoiser.get_config("smoke")
    config.num_steps, config.checkpoint_every = 400, 400
    return config
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    script = ["bash", str(ROOT / "scripts" / "slurm.sh")]
    subprocess.run([*script, "start", str(folder)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.chdir(ROOT)
        yield
    subprocess.run([*script, "stop", str(folder)], check=True)


def program(base, name, code):
    workdir = base / name
    return launchers.Run({"name": name}, workdir, [sys.executable, "-c", code])


def writes(base, name):
    result = json.dumps({"results": {"score": 1}})
    return f"open({str(base / name / 'result.json')!r}, 'w').write({result!r})"


def launch(runs, base, parallel=2):
    return launchers.slurm(runs, base, parallel, {"timeout_min": 20, "slurm_signal_delay_s": 30})


def wait(condition, seconds=240):
    for _ in range(2 * seconds):
        # A job that is queued again waits two minutes, to let its processes end.
        told = ["squeue", "--noheader", "--array", "--states=PENDING", "--format=%i"]
        for job in subprocess.run(told, capture_output=True, text=True).stdout.split():
            start = ["scontrol", "update", f"jobid={job}", "StartTime=now"]
            subprocess.run(start, capture_output=True)
        if condition():
            return
        time.sleep(0.5)
    raise AssertionError("it did not come to this in time")


def test_a_run_that_fails_leaves_the_others_alone_and_is_done_again(cluster, tmp_path):
    del cluster
    second_try = f"import os; ok = os.path.exists({str(tmp_path / 'mended')!r}); ok or 1 / 0; "
    runs = [
        program(tmp_path, "good", writes(tmp_path, "good")),
        program(tmp_path, "bad", second_try + writes(tmp_path, "bad")),
        program(tmp_path, "fine", writes(tmp_path, "fine")),
    ]
    launched = launch(runs, tmp_path)
    wait(lambda: set(launched.states()) == {"ended"})
    assert [run.done for run in runs] == [True, False, True]
    assert sweep_results.status(runs[1], "ended") == (
        "FAILED   bad  ZeroDivisionError: division by zero"
    )
    (tmp_path / "mended").touch()
    jobs = json.loads((tmp_path / "slurm.json").read_text())
    missing = [run for run in runs if not run.done]
    again = launch(missing, tmp_path)
    wait(lambda: again.states() == ["ended"])
    assert all(run.done for run in runs)
    after = json.loads((tmp_path / "slurm.json").read_text())
    assert [jobs[run.workdir.name] == after[run.workdir.name] for run in runs] == [
        True,
        False,
        True,
    ]


def test_jobs_that_are_queued_are_not_submitted_twice(cluster, tmp_path):
    del cluster
    release = tmp_path / "go"
    patient = f"import os, time\nwhile not os.path.exists({str(release)!r}): time.sleep(0.1)\n"
    runs = [program(tmp_path, name, patient + writes(tmp_path, name)) for name in "ab"]
    first = launch(runs, tmp_path, parallel=1)
    wait(lambda: sorted(first.states()) == ["running", "waiting"])
    jobs = (tmp_path / "slurm.json").read_text()
    second = launch(runs, tmp_path)
    assert (tmp_path / "slurm.json").read_text() == jobs
    release.touch()
    wait(lambda: second.states() == ["ended", "ended"])
    assert all(run.done for run in runs)


@pytest.mark.parametrize("stop", ["before its limit", "for another job"])
def test_a_stopped_run_is_queued_again_and_ends_with_the_same_numbers(cluster, tmp_path, stop):
    del cluster
    file = tmp_path / "train_denoiser.py"
    file.write_text(CONFIG + "def sweep():\n    yield {'seed': 0}\n")
    (whole,) = sweep.runs(str(file), tmp_path / "here")
    assert launchers.start(whole).wait() == 0
    (run,) = sweep.runs(str(file), tmp_path / "jobs")
    launched = launch([run], tmp_path / "jobs")
    wait(lambda: run.log.exists() and "step 10/" in run.log.read_text())
    job = json.loads((tmp_path / "jobs" / "slurm.json").read_text())[run.workdir.name]
    if stop == "before its limit":
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
    else:
        subprocess.run(["scontrol", "requeue", job], check=True)
    wait(lambda: launched.states() == ["ended"])
    log = run.log.read_text()
    assert "stopped by SIGTERM" in log
    assert "resumed from step" in log
    expected, found = (
        json.loads((one.workdir / "result.json").read_text())["results"] for one in (whole, run)
    )
    assert found == expected
