"""Training over a mesh of two axes: where the state lies, what travels, what it resumes on."""

import json
import os
import random
import subprocess
import sys
import time

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from experiments import meshes, records
from scripts.bench._on_devices import RULES
from tests.sharded_network import config, initial_state

MESH = AbstractMesh((4, 2), ("data", "model"))


def specs(rules, state):
    return jax.tree.map(lambda sharding: sharding.spec, meshes.shardings(MESH, rules, state))


def test_moments_lie_where_their_parameters_do_and_the_rest_is_replicated():
    found = specs(RULES, jax.eval_shape(initial_state))
    expected = {
        "in": {"kernel": PartitionSpec(None, "model"), "bias": PartitionSpec("model")},
        "out": {"kernel": PartitionSpec("model", None), "bias": PartitionSpec()},
    }
    adam = found["optimizer"][0]
    assert found["params"] == adam.mu == adam.nu == expected
    assert adam.count == PartitionSpec()


def test_the_first_rule_that_fits_holds():
    rules = (("params/in", ()), ("in/kernel", (None, ("data", "model"))))
    found = specs(rules, jax.eval_shape(initial_state))
    assert found["params"]["in"]["kernel"] == PartitionSpec()
    assert found["optimizer"][0].mu["in"]["kernel"] == PartitionSpec(None, ("data", "model"))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("in/kernel", ("rows",)), "'in/kernel': no mesh axis 'rows', only data, model"),
        (("params/in/kernel", ("data",)), r"params/in/kernel of shape \(64, 16\) does not divide"),
        (("params/in/bias", (None, "data")), r"params/in/bias of shape \(16,\) does not divide"),
        (("kernal", ("data",)), "no leaf's path has the pattern 'kernal'"),
        (("(", ("data",)), r"'\(' is no regular expression"),
        (("in/kernel", "model"), r"needs pairs .* got \('in/kernel', 'model'\)"),
        ("in/kernel", "needs pairs .* got 'in/kernel'"),
    ],
)
def test_a_rule_that_does_not_fit_is_named(rule, message):
    with pytest.raises(ValueError, match=message):
        meshes.shardings(
            AbstractMesh((5, 2), MESH.axis_names), (rule,), jax.eval_shape(initial_state)
        )


@pytest.mark.parametrize("model", [0, 7])
def test_a_model_axis_that_does_not_divide_the_devices_is_named(model):
    with pytest.raises(ValueError, match=f"mesh_model={model} does not divide the number"):
        meshes.of(config(model, ()))


def test_collectives_are_counted_by_their_results():
    program = """
  %a = (f32[6,16]{1,0}, f32[]) all-reduce(%x, %y), channel_id=1
  %b = bf16[8]{0} all-reduce-start(%z), channel_id=2
  %c = bf16[8]{0} all-reduce-done(%b)
  %d = pred[4,2]{1,0} all-gather(%w), dimensions={0}
  %all-to-all.1 = f32[3]{0} add(%a, %all-reduce.7)
"""
    found = meshes.collectives(program)
    assert found == {"all-reduce": (2, 4 * 97 + 16), "all-gather": (1, 8)}


def test_a_run_may_go_on_with_another_layout_but_not_with_another_seed(tmp_path):
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    records.claim(tmp_path, config(2, RULES))
    records.claim(tmp_path, config(1, ()))
    with pytest.raises(ValueError, match="seed = 0 there, 3 here"):
        records.claim(tmp_path, config(1, (), seed=3))


TRAINED = """
import jax, tempfile
from pathlib import Path
from experiments import harness, meshes
from scripts.bench._on_devices import IN, OUT, RULES, train_step
from tests.sharded_network import *

jax.config.update("jax_enable_x64", True)
for model, rules in ((1, ()), (2, ()), (1, RULES), (2, RULES), (4, RULES), (8, RULES)):
    knobs = config(model, rules)
    mesh = meshes.of(knobs)
    lies = meshes.shardings(mesh, rules, initial_state())
    with tempfile.TemporaryDirectory() as folder:
        state, _ = harness.train(Path(folder), knobs, initial_state(), train_step, batches)
    assert_as_by_hand(state, 20)
    assert jax.tree.map(lambda x: x.sharding, state) == lies

    state = jax.device_put(initial_state(), lies)
    stack = harness.stacked(mesh, knobs, batches, 0)
    call = harness.compiled(mesh, knobs, train_step, state, 0, stack)
    found = meshes.collectives(call.as_text())
    over_model, over_data = (model if rules else 1), 8 // model
    gradient = (IN + 1 + OUT) * HIDDEN // over_model + OUT + 1  # the last is the loss
    outputs = BATCH // over_data * OUT
    expected = (gradient if over_data > 1 else 0) + (outputs if over_model > 1 else 0)
    count = (over_data > 1) + (over_model > 1)
    assert found == {"all-reduce": (count, 8 * expected)}, (model, rules, found)
"""


@pytest.mark.slow
def test_any_mesh_trains_as_one_device_does_and_sends_gradients_and_outputs_once(on_eight_devices):
    """In float64; one all-reduce of all gradients over data, one of the outputs over model."""
    on_eight_devices(TRAINED)


RESUMED = """
import jax
from pathlib import Path
from experiments import harness
from scripts.bench._on_devices import IN, OUT, RULES, train_step
from tests.sharded_network import *

jax.config.update("jax_enable_x64", True)
knobs = config({model}, {rules}, num_steps={num_steps})

def later(step):
    assert step >= {num_steps} - 10, "what was saved must not be trained again"
    return batches(step)

state, _ = harness.train(Path({folder!r}), knobs, initial_state(), train_step, later)
assert jax.device_count() == {devices}
assert_as_by_hand(state, {num_steps})
kernel = state["params"]["in"]["kernel"]
assert kernel.addressable_shards[0].data.shape == (IN, HIDDEN // {model})
"""


@pytest.mark.slow
def test_a_run_begun_on_eight_devices_goes_on_with_four_and_with_one(on_devices, tmp_path):
    for devices, model, num_steps in ((8, 4, 10), (4, 2, 20), (1, 1, 30), (8, 2, 40)):
        rules = RULES if model > 1 else ()
        program = RESUMED.format(
            folder=str(tmp_path), devices=devices, model=model, rules=rules, num_steps=num_steps
        )
        on_devices(devices, program)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30, 40]


TOGETHER = """
import jax, sys
from pathlib import Path
from jax.experimental import multihost_utils
from experiments import harness
from scripts.bench._on_devices import IN, RULES, train_step
from tests.sharded_network import *

port, index, folder, num_steps = sys.argv[1:]
jax.config.update("jax_enable_x64", True)
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(index))
knobs = config(4, RULES, num_steps=int(num_steps))
state, _ = harness.train(Path(folder), knobs, initial_state(), train_step, batches)
assert jax.device_count() == 4
kernel = state["params"]["in"]["kernel"]
assert kernel.addressable_shards[0].data.shape == (IN, HIDDEN // 4)
assert_as_by_hand(multihost_utils.process_allgather(state, tiled=True), int(num_steps))
"""


def two_processes(folder, num_steps):
    port, flags = str(random.randint(20_000, 60_000)), os.environ["XLA_FLAGS"]
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {flags}"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, port, index, str(folder), str(num_steps)],
            env=os.environ | flags | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in "01"
    ]


@pytest.mark.slow
def test_two_processes_that_share_a_state_are_killed_and_go_on_to_the_result_of_one(
    on_devices, tmp_path
):
    log, checkpoints = tmp_path / "metrics.jsonl", tmp_path / "checkpoints"
    killed = two_processes(tmp_path, 100_000)
    deadline = time.monotonic() + 100
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert time.monotonic() < deadline, "nothing was logged"
        time.sleep(0.05)
    for process in killed:
        process.kill()
        process.communicate()
    saved = max(int(folder.name) for folder in checkpoints.iterdir() if folder.name.isdigit())
    processes = two_processes(tmp_path, saved + 20)
    errors = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert f"resumed from step {saved}" in errors[0]
    assert "step" not in errors[1]  # one of them speaks
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(10, saved + 21, 10))
    on_devices(  # and on one device by one process
        1,
        RESUMED.format(folder=str(tmp_path), devices=1, model=1, rules=(), num_steps=saved + 30),
    )
