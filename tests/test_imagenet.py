"""The ImageNet-sized step on eight devices, and the folders it would read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import imagenet as configs
from experiments import imagenet, resnet

ROOT = Path(__file__).resolve().parents[1]


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_backbone_is_resnet50_d():
    model, x = resnet.ResNetD((3, 4, 6, 3)), jnp.zeros((1, 224, 224, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    features = jax.eval_shape(lambda v: model.apply(v, x, train=False), shapes)
    assert features.shape == (1, 2048)
    # As timm's resnet50d counts them, without its head.
    assert count(shapes["params"]) == 25_576_264 - 2_049_000


def test_shorter_and_other_ways_from_folders_to_batches(tmp_path):
    rng = np.random.default_rng(0)
    for part, num in (("train", 4), ("val", 3)):
        for name in ("cat", "dog"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(num):
                image = np.full((40 + 8 * i, 50, 3), 200 if name == "dog" else 20, np.uint8)
                Image.fromarray(image + rng.integers(5, size=image.shape, dtype=np.uint8)).save(
                    folder / f"{i}.png"
                )
    config = configs.get_config("smoke")
    config.data_path, config.batch_size = str(tmp_path), 4
    source = imagenet.from_folder(config)
    seen = [source["train"](step) for step in range(2)]  # an epoch
    for images, labels in seen:
        assert images.shape == (4, 32, 32, 3)
        np.testing.assert_array_equal(labels, images.mean((1, 2, 3)) > 100)
    np.testing.assert_array_equal(source["train"](0)[0], seen[0][0])
    assert sorted(np.concatenate([labels for _, labels in seen])) == [0] * 4 + [1] * 4
    validation = list(source["validation"])
    assert [len(labels) for _, labels in validation] == [4, 2]


def test_a_folder_without_classes_is_named(tmp_path):
    config = configs.get_config("smoke")
    config.data_path = str(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folders of classes in .*train"):
        imagenet.from_folder(config)


@pytest.mark.slow
def test_the_step_of_the_papers_size_runs_on_eight_devices(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "experiments.imagenet", f"--workdir={tmp_path}"]
    command += ["--config=configs/imagenet.py:synthetic", "--config.batch_size=8"]
    command += ["--config.num_steps=1", "--config.checkpoint_every=1"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | flags, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["device_count"] == 8
    assert "(8, 224, 224, 3)" in record["results"]["summary"]
    assert record["results"]["constraint_violation"] < 1e-6
