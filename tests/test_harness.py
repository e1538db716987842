"""The training loop: resume, kills, broken checkpoints, bad numbers, many devices."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.common import training
from experiments import checkpoints, harness, records


def config(num_steps=40, **changes):
    knobs = training()
    knobs.update(num_steps=num_steps, steps_per_call=5, log_every=10, checkpoint_every=10)
    knobs.update(changes)
    return knobs


def batches(step):
    return np.random.default_rng(step).normal(size=(8, 3)).astype(np.float32)


def train_step(state, batch, key, *constants):
    noise = jax.random.normal(key, (3,))
    state = {"x": state["x"] * 0.9 + batch.mean(0) + noise, "step": state["step"] + 1}
    return state, {"norm": jnp.linalg.norm(state["x"]), "x": state["x"]}


def train(workdir, knobs, step=train_step, feed=batches, **options):
    state = {"x": jnp.zeros(3), "step": jnp.zeros((), jnp.int32)}
    workdir.mkdir(exist_ok=True)
    final, seconds = harness.train(workdir, knobs, state, step, feed, **options)
    return jax.tree.map(np.asarray, final), seconds


def metrics(workdir):
    return (workdir / "metrics.jsonl").read_text()


def test_resume_is_bit_identical_and_loses_no_metrics(tmp_path):
    whole, _ = train(tmp_path / "whole", config())
    train(tmp_path / "parts", config(num_steps=20))

    def later(step):
        assert step >= 20, "the second half must not train the first again"
        return batches(step)

    parts, _ = train(tmp_path / "parts", config(), feed=later)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert [json.loads(line)["step"] for line in metrics(tmp_path / "whole").splitlines()] == [
        10, 20, 30, 40,
    ]  # fmt: skip


def test_every_step_has_a_key_of_its_own_that_depends_on_the_seed(tmp_path):
    def draw(state, batch, key):
        return state, {"x": jax.random.normal(key)}

    logs = []
    for seed in (0, 1):
        knobs = config(20, seed=seed, steps_per_call=2, log_every=2)
        train(tmp_path / str(seed), knobs, step=draw)
        logs += [json.loads(line)["x"] for line in metrics(tmp_path / str(seed)).splitlines()]
    assert len(set(logs)) == 20


@pytest.mark.parametrize("steps_per_call", [1, 5])
def test_steps_taken_at_once_are_those_taken_singly(tmp_path, steps_per_call):
    def steps(state, batches, keys, *constants):
        assert len(batches) == len(keys) == steps_per_call
        return harness.scan(lambda state, x: train_step(state, *x), state, (batches, keys))

    knobs = config(20, steps_per_call=steps_per_call)
    singly, _ = train(tmp_path / "singly", knobs)
    at_once, _ = train(tmp_path / "at_once", knobs, step=steps, at_once=True)
    jax.tree.map(np.testing.assert_array_equal, singly, at_once)
    assert metrics(tmp_path / "singly") == metrics(tmp_path / "at_once")


def test_a_finished_run_trains_no_more(tmp_path):
    whole, seconds = train(tmp_path, config())

    def fail(step):
        raise AssertionError(f"batch {step} was asked for")

    again, again_seconds = train(tmp_path, config(), feed=fail)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert again_seconds == seconds


def test_checkpoints_hold_what_was_there_when_they_were_saved(tmp_path):
    """The state is donated to the next call while it is being written."""
    state = {"x": jnp.zeros(1_000_000), "step": jnp.zeros((), jnp.int32)}

    def count(state, batch, key):
        return jax.tree.map(lambda x: x + 1, state), {"x": state["x"][0]}

    knobs = config(30, steps_per_call=1, checkpoint_every=1, max_to_keep=100, log_every=30)
    harness.train(tmp_path, knobs, state, count, batches)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 30
    for step in (1, 2, 17, 29):
        like = jax.tree.map(
            lambda x: x, {"x": jnp.zeros(1_000_000), "step": jnp.zeros((), jnp.int32)}
        )
        with harness.ocp.CheckpointManager((tmp_path / "checkpoints").absolute()) as manager:
            restored = manager.restore(step, args=harness.ocp.args.StandardRestore(like))
        assert np.all(np.asarray(restored["x"]) == step)


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_half_written_checkpoint_is_skipped_and_kept_aside(tmp_path, damage, capsys):
    whole, _ = train(tmp_path / "whole", config())
    train(tmp_path / "hurt", config(num_steps=20))
    files = [p for p in (tmp_path / "hurt/checkpoints/20").rglob("*") if p.is_file()]
    for file in files:
        if damage == "truncate":
            os.truncate(file, file.stat().st_size // 2)
        else:
            file.unlink()
    hurt, _ = train(tmp_path / "hurt", config())
    jax.tree.map(np.testing.assert_array_equal, whole, hurt)
    assert metrics(tmp_path / "hurt") == metrics(tmp_path / "whole")
    errors = capsys.readouterr().err
    assert "checkpoint of step 20 cannot be read" in errors
    assert "resumed from step 10" in errors
    assert list((tmp_path / "hurt/checkpoints").glob("unreadable-20-*"))


CUT_SHORT = """
import os, pathlib, shutil
import jax, jax.numpy as jnp, numpy as np, orbax.checkpoint as ocp
from experiments import checkpoints
folder = pathlib.Path({folder!r})
state = {{"large": jnp.arange(3000.0), "small": jnp.zeros((), jnp.int32)}}
with ocp.CheckpointManager(folder / "whole") as whole:
    for step in (1, 2):
        whole.save(step, args=ocp.args.StandardSave(state))
files = [path.relative_to(folder / "whole") for path in folder.glob("whole/2/**/d/*")]
steps = set()
for i, file in enumerate(files):
    hurt = folder / str(i)
    shutil.copytree(folder / "whole", hurt)
    os.truncate(hurt / file, (hurt / file).stat().st_size // 2)
    with ocp.CheckpointManager(hurt) as one:
        found, step = checkpoints.restore(one, state)
    jax.tree.map(np.testing.assert_array_equal, found, state)
    steps.add(step)
assert len(files) > 1 and steps <= {{1, 2}} and 1 in steps, (files, steps)
"""


def test_a_checkpoint_of_which_any_data_file_is_cut_short_is_skipped_or_whole(tmp_path, on_devices):
    # In a process of its own: Orbax leaves tasks behind that end with errors.
    on_devices(1, CUT_SHORT.format(folder=str(tmp_path)))


HANGING = """
import threading
from pathlib import Path
import orbax.checkpoint as ocp
from tests.test_harness import batches, config, train
save = ocp.CheckpointManager.save
def some(manager, step, **options):
    save(manager, step, **options) if step < 20 else threading.Event().wait()
ocp.CheckpointManager.save = some
train(Path({folder!r}), config(checkpoint_limit=3))
"""


def test_a_checkpoint_that_does_not_end_ends_the_run_and_costs_no_more(tmp_path, capsys):
    program = HANGING.format(folder=str(tmp_path / "hung"))
    hung = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert hung.returncode == 1
    last = hung.stderr.splitlines()[-1]
    assert last.startswith("error: a checkpoint took more than 3 s")
    whole, _ = train(tmp_path / "whole", config())
    went_on, _ = train(tmp_path / "hung", config(checkpoint_limit=600))
    assert "resumed from step 10" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, whole, went_on)
    assert metrics(tmp_path / "hung") == metrics(tmp_path / "whole")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_stop_signal_saves_and_exits(tmp_path, signum, status, capsys):
    handler = signal.getsignal(signum)
    whole, _ = train(tmp_path / "whole", config())

    def stopping(step):
        if step == 13:
            os.kill(os.getpid(), signum)
        return batches(step)

    with pytest.raises(SystemExit) as stop:
        train(tmp_path / "stopped", config(), feed=stopping)
    assert stop.value.code == status
    assert "with step 10 of 40 saved" in capsys.readouterr().err
    stopped, _ = train(tmp_path / "stopped", config())
    jax.tree.map(np.testing.assert_array_equal, whole, stopped)
    assert signal.getsignal(signum) == handler


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_metric_that_is_not_finite_stops_the_run_and_is_named(tmp_path, bad):
    def spoiled(state, batch, key):
        state, metrics = train_step(state, batch, key)
        x = jnp.where((state["step"] >= 25) & (jnp.arange(3) == 1), bad, metrics["x"])
        return state, metrics | {"x": x}

    with pytest.raises(FloatingPointError, match=rf"metric x\[1\] is {bad} at step 30"):
        train(tmp_path, config(), step=spoiled)
    assert [json.loads(line)["step"] for line in metrics(tmp_path).splitlines()] == [10, 20]


def test_constants_reach_every_step_and_are_not_saved(tmp_path):
    def step(state, batch, key, shift, scale):
        return {"x": state["x"] * scale + shift, "step": state["step"] + 1}, {"x": state["x"]}

    constants = (jnp.arange(3.0), jnp.asarray(0.5))
    state, _ = train(tmp_path, config(), step=step, constants=constants)
    np.testing.assert_allclose(state["x"], [0, 2, 4], rtol=1e-5)


def test_steps_that_do_not_divide_are_named(tmp_path):
    with pytest.raises(
        ValueError, match="log_every=7 is not a positive multiple of steps_per_call=5"
    ):
        train(tmp_path, config(log_every=7))


def test_too_little_space_for_the_checkpoints_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OSError, match="has 10 bytes free, its checkpoints need 48"):
        train(tmp_path, config())


def test_checkpoints_of_another_state_are_refused_and_left_alone(tmp_path):
    train(tmp_path, config(num_steps=20))
    state = {"x": jnp.zeros(4), "step": jnp.zeros((), jnp.int32)}
    with pytest.raises(ValueError, match=r"state\['x'\]: float32\(3,\) there, float32\(4,\) here"):
        harness.train(tmp_path, config(), state, train_step, batches)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["10", "20"]


def test_another_config_is_refused_once_there_is_something_to_lose(tmp_path):
    records.claim(tmp_path, config())
    records.claim(tmp_path, config(seed=1))
    train(tmp_path, config(seed=1))
    records.claim(tmp_path, config(seed=1))
    with pytest.raises(ValueError, match="seed = 1 there, 2 here"):
        records.claim(tmp_path, config(seed=2))


def test_a_workdir_is_held_by_one_run_until_it_ends(tmp_path):
    with records.held(tmp_path):
        message = f"in use by another run .process {os.getpid()}"
        with pytest.raises(BlockingIOError, match=message), records.held(tmp_path):
            pass
        with records.held(tmp_path / "other"):
            pass
    with records.held(tmp_path):
        pass


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    records.write_json(path, {"x": np.float32(0.5), "y": np.arange(2)})
    assert json.loads(path.read_text()) == {"x": 0.5, "y": [0, 1]}
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular"):
        records.write_json(path, loop)
    assert json.loads(path.read_text())["x"] == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_tensorboard_events_are_written_on_request(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    train(tmp_path, config())
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_provenance_says_where_numbers_come_from():
    found = records.provenance()
    assert found["backend"] == jax.default_backend()
    assert found["versions"]["jax"] == jax.__version__
    json.dumps(found)


def test_pieces_of_a_killed_run_are_not_computed_again(tmp_path):
    computed = []

    def compute(name, number):
        computed.append((name, number))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return {"value": number**2}

    pieces = [("a", 1), ("a", 2), ("b", 3), ("b", 4)]
    with pytest.raises(KeyboardInterrupt):
        records.piecewise(tmp_path, pieces, compute, lambda found: found)
    found = records.piecewise(tmp_path, pieces, compute, lambda found: found)
    assert [f["value"] for f in found] == [1, 4, 9, 16]
    assert computed == [*pieces[:3], *pieces[2:]]
    assert [json.loads(line)["value"] for line in metrics(tmp_path).splitlines()] == [1, 4, 9, 16]
    with pytest.raises(ValueError, match="holds 'a, 1', not 'c, 1'"):
        records.piecewise(tmp_path, [("c", 1)], compute, lambda found: found)
