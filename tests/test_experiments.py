"""Every experiment as its user runs it: smoke config, help, mistakes, kills, many devices."""

import ast
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import forked

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if (ROOT / "configs" / path.name).exists()
)
OFFLINE = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}


def command(name, *arguments, options="smoke"):
    config = f"--config=configs/{name}.py:{options}"
    return [sys.executable, "-m", f"experiments.{name}", config, *arguments]


def run(name, *arguments, options="smoke", **environment):
    return subprocess.run(
        command(name, *arguments, options=options),
        cwd=ROOT,
        env=os.environ | OFFLINE | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def numbers(value):
    """All numbers of nested results, in order; NaN for none."""
    if isinstance(value, (dict, list)):
        values = value.values() if isinstance(value, dict) else value
        return [x for inner in values for x in numbers(inner)]
    return [np.nan if value is None else float(value)]


def test_the_record_tells_the_memory_and_the_precision_of_the_run(tmp_path):
    script = tmp_path / "large.py"
    script.write_text(
        "import numpy as np\n"
        "from experiments import harness, records\n"
        "def run(config, workdir):\n"
        "    before = records.peak_gigabytes()\n"
        "    return {'sum': np.ones(50_000_000).sum(), 'before': before}\n"
        "harness.main(run)\n"
    )
    done = subprocess.run(
        [sys.executable, script, f"--config={ROOT}/configs/poisson.py", f"--workdir={tmp_path}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = result(tmp_path)
    assert record["peak_gigabytes"] > record["results"]["before"] + 0.3
    assert record["dtype"] == "float64"


def test_there_are_experiments():
    assert "intrinsic_dimension" in NAMES


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "pca_inference" else pytest.mark.slow) for n in NAMES],
)
def test_smoke_runs_offline_and_leaves_its_result_and_figure(name, tmp_path):
    done = run(name, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    record = result(tmp_path)
    assert record["experiment"] == name
    assert record["results"]["summary"]
    golden = json.loads((ROOT / "tests" / "golden" / f"{name}.json").read_text())
    for key, value in golden.items():  # other processors round otherwise: a few images may tip
        wanted = np.array(numbers(value))  # none: the compiler's flags alone move it by more
        found = np.where(np.isnan(wanted), np.nan, numbers(record["results"][key]))
        assert found == pytest.approx(wanted, abs=0.01, nan_ok=True), key
    assert {"compile", "train", "last_process"} <= set(record["seconds"])
    assert {"device_kind", "device_count", "dtype", "versions", "git_commit"} <= set(record)
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert (tmp_path / f"{name}-dark.png").exists()
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(set(steps))
    assert not list(tmp_path.rglob("*.part"))
    assert "INFO" not in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_its_docstring_holds_claim_command_and_expectation(name):
    text = ast.get_docstring(ast.parse((ROOT / "experiments" / f"{name}.py").read_text()))
    assert all(word in text for word in ("Claim", f"python -m experiments.{name}", "Expected"))


MISTAKES = {
    "--config.steps_per_call=0": "steps_per_call must be at least 1, got 0",
    "--config.batch_size=0": "batch_size must be at least 1, got 0",
    "--config.max_gigabytes=0": "of 2 x 2 runs take 0.0 GB, more than max_gigabytes=0",
    "--config.dims=(3,2)": "dims must ascend and be at least 1, got (3, 2)",
    "--config.dims[0]=3": "cannot set the config",
    "--config.learning_rat=1": "unknown config key learning_rat: did you mean learning_rate?",
    "--config.num_steps=many": "flag --config.num_steps=many: invalid literal",
    "--workdirr=x": "Unknown command line flag 'workdirr'. Did you mean: workdir",
    "--config=configs/intrinsic_dimension.py:smok": "did you mean 'smoke'?",
    "--config=configs/none.py": "no config file configs/none.py",
    "--config.data=imagenet": "unknown data set 'imagenet': choose from digits",
    "--config.dims=(10,9999)": "max_dim must lie in 1..D = 2410, got 9999",
    "--config.data=mnist": "fill it once with 'python -m experiments.data mnist'",
    "--process_id=1": "several processes need --coordinator and --num_processes too",
    "--workdir=/dev/null/x": "Not a directory: '/dev/null/x'",
    "--config.projection=dense": "projection must be one of hashed, rolled",
    "--config.learning_rate=1e30": "metric loss[0, 0] is nan at step 20",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_readable_line(mistake, tmp_path):
    arguments = command("intrinsic_dimension", f"--workdir={tmp_path / 'run'}", mistake)[2:]
    cache = {"SUBSPACE_JAX_DATA": str(tmp_path / "cache")}
    done = forked.run(*arguments, **OFFLINE, **cache)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert MISTAKES[mistake] in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_the_claim_and_the_flags():
    done = forked.run(*command("intrinsic_dimension", "--help")[2:])
    for text in ("Claim", "--config", "--workdir", "--seed", "--[no]tensorboard"):
        assert text in done.stdout


def kill_while_running(workdir, arguments, moments):
    """Start the run and kill it without warning, at each of these seconds after its start."""
    for moment in moments:
        process = subprocess.Popen(
            command("intrinsic_dimension", f"--workdir={workdir}", *arguments),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_kill_9_at_three_random_moments_changes_nothing(tmp_path):
    arguments = (
        "--config.num_steps=8000",
        "--config.checkpoint_every=200",
        "--config.log_every=200",
    )
    start = time.monotonic()
    assert run("intrinsic_dimension", f"--workdir={tmp_path / 'whole'}", *arguments).returncode == 0
    whole_time = time.monotonic() - start
    moments = [random.uniform(0.3, 0.95) * whole_time for _ in range(3)]
    kill_while_running(tmp_path / "killed", arguments, moments)
    done = run("intrinsic_dimension", f"--workdir={tmp_path / 'killed'}", *arguments)
    assert done.returncode == 0, (moments, done.stderr)
    assert result(tmp_path / "killed")["results"] == result(tmp_path / "whole")["results"], moments
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("killed", "whole")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_a_run_that_was_cut_short_ends_with_the_identical_result(tmp_path):
    arguments = ("--config.num_steps=40",)
    assert run("intrinsic_dimension", f"--workdir={tmp_path / 'whole'}", *arguments).returncode == 0
    part, whole = tmp_path / "part", tmp_path / "whole"
    assert run("intrinsic_dimension", f"--workdir={part}", *arguments).returncode == 0
    # As a kill after step 20 would have left it.
    (part / "result.json").unlink()
    for path in sorted((part / "checkpoints" / "40").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (part / "checkpoints" / "40").rmdir()
    done = run("intrinsic_dimension", f"--workdir={part}", *arguments)
    assert "resumed from step 20" in done.stderr
    assert result(part)["results"] == result(whole)["results"]


@pytest.mark.slow
def test_eight_devices_give_the_result_of_one(tmp_path):
    """The batch of 128 is shared by 8 devices; sums over it are taken in another order."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    assert run("intrinsic_dimension", f"--workdir={tmp_path / '8'}", **flags).returncode == 0
    assert run("intrinsic_dimension", f"--workdir={tmp_path / '1'}").returncode == 0
    many, one = (result(tmp_path / name) for name in ("8", "1"))
    assert (many["device_count"], one["device_count"]) == (8, 1)
    for key in ("score", "direct_score"):  # one test image of 359 may tip over
        assert numbers(many["results"][key]) == pytest.approx(
            numbers(one["results"][key]), abs=1.5 / 359
        )


def by_environment(address, index):
    known = {"COORDINATOR_ADDRESS": address, "NUM_PROCESSES": "2", "PROCESS_ID": str(index)}
    return (), {f"JAX_{name}": value for name, value in known.items()}


def by_flags(address, index):
    return (f"--coordinator={address}", "--num_processes=2", f"--process_id={index}"), {}


def two_processes(told, workdir, *arguments):
    """Told of each other by flags or by the environment."""
    address = f"127.0.0.1:{random.randint(20_000, 60_000)}"
    return [
        subprocess.Popen(
            command("intrinsic_dimension", f"--workdir={workdir}", *arguments, *flags),
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for flags, environment in (told(address, index) for index in range(2))
    ]


def finish(processes):
    try:
        errors = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors


@pytest.mark.slow
def test_two_processes_give_the_result_of_one_and_stop_together(tmp_path):
    arguments = ("--config.num_steps=400", "--config.log_every=10")
    processes = two_processes(by_flags, tmp_path / "2", *arguments)
    log = tmp_path / "2" / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while not (log.exists() and log.read_text()):
        assert time.monotonic() < deadline, "nothing was logged"
        time.sleep(0.1)
    processes[0].send_signal(signal.SIGTERM)
    finish(processes)
    assert not (tmp_path / "2" / "result.json").exists()
    assert list((tmp_path / "2" / "checkpoints").glob("[0-9]*"))
    finish(two_processes(by_environment, tmp_path / "2", *arguments))
    assert run("intrinsic_dimension", f"--workdir={tmp_path / '1'}", *arguments).returncode == 0
    many, one = (result(tmp_path / name) for name in ("2", "1"))
    assert many["device_count"] == 2
    # Sums over a batch are taken in another order: some of 359 test images tip over.
    assert numbers(many["results"]["direct_score"]) == pytest.approx(
        numbers(one["results"]["direct_score"]), abs=8 / 359
    )
