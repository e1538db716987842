"""Letters drawn from a typeface, splits by family, and the files that data sets come in."""

import io
import pickle
import shutil
import sys
import types
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest

from experiments import data, formats, glyphs, models, textures

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
TYPEFACES = ("DejaVuSans.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono.ttf")


@pytest.fixture
def packages(tmp_path):
    """Three packages of one typeface each; one holds it twice, and a symbol font."""
    for package, file in zip(glyphs.PACKAGES, TYPEFACES, strict=False):
        (tmp_path / package).mkdir()
        shutil.copy(FONTS / file, tmp_path / package)
    shutil.copy(FONTS / TYPEFACES[0], tmp_path / glyphs.PACKAGES[0] / "copy.ttf")
    shutil.copy(FONTS / "STIXSizFiveSymReg.ttf", tmp_path / glyphs.PACKAGES[0])
    (tmp_path / glyphs.PACKAGES[1] / "broken.otf").write_bytes(b"no font")
    return tmp_path


def test_every_typeface_gives_every_letter_once(packages):
    images, labels, families = glyphs.read(packages, "latin")
    assert images.shape == (3 * 52, 28, 28)
    np.testing.assert_array_equal(labels, np.tile(np.arange(52), 3))
    np.testing.assert_array_equal(families, np.repeat([0, 1, 2], 52))


def test_letters_stand_on_one_line_in_one_size_within_the_box(packages):
    images, _, _ = glyphs.read(packages, "latin")
    face = dict(zip(glyphs.SCRIPTS["latin"], images[:52] > 127, strict=True))
    rows = {letter: np.flatnonzero(image.any(1)) for letter, image in face.items()}
    assert rows["C"][-1] == rows["c"][-1]
    assert len(rows["C"]) > len(rows["c"]) + 2
    assert rows["p"][-1] > rows["c"][-1] + 2
    drawn = (images > 127).any(0)
    assert not drawn[:1].any()
    assert not drawn[-1:].any()


def test_no_family_lies_on_both_sides_of_the_split(packages, monkeypatch):
    num = len(glyphs.PACKAGES)
    families = np.repeat(np.arange(num), 3)
    images = np.broadcast_to(families[:, None, None].astype(np.uint8), (3 * num, 28, 28))
    monkeypatch.setattr(glyphs, "read", lambda *_: (images, families % 7, families))
    split = data._read_glyphs("latin", packages)
    train, test = (set(np.unique(x)) for x in (split.train_x, split.test_x))
    assert train | test == set(range(num))
    assert not train & test
    assert 0.15 < len(test) / num < 0.25
    changes = np.count_nonzero(np.diff(split.train_x[:, 0, 0].astype(int)))
    assert changes == len(train) - 1  # neighbours stay together


def test_the_last_part_is_held_out_for_tuning():
    split = data.Split(np.arange(10), np.arange(10) % 2, np.zeros(3), np.zeros(3))
    held = data.hold_out_last(split, 0.3)
    np.testing.assert_array_equal(held.train_x, np.arange(7))
    np.testing.assert_array_equal(held.test_x, [7, 8, 9])


def test_of_a_set_that_is_sorted_by_class_a_part_of_every_class_is_held_out():
    split = data.Split(np.arange(20), np.arange(20) // 10, np.zeros(3), np.zeros(3))
    held = data.hold_out_last(split, 0.3)
    np.testing.assert_array_equal(np.bincount(held.train_y), [7, 7])
    np.testing.assert_array_equal(np.bincount(held.test_y), [3, 3])
    assert set(held.train_x) | set(held.test_x) == set(range(20))


def old_torch_file(tensors, monkeypatch):
    """A state dict as torch 1.5 writes it, by hand."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    rebuild = types.FunctionType((lambda *_: None).__code__, {}, "_rebuild_tensor_v2")
    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Storage:
        def __init__(self, key, array):
            kind = "FloatStorage" if array.dtype == np.float32 else "LongStorage"
            self.id = ("storage", getattr(torch, kind), key, "cpu", array.size, None)

    class Tensor:
        def __init__(self, key, array):
            self.storage, self.shape = Storage(key, array), array.shape
            self.strides = tuple(s // array.itemsize for s in array.strides)

        def __reduce__(self):
            return rebuild, (self.storage, 0, self.shape, self.strides, False, {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return obj.id if isinstance(obj, Storage) else None

    stream = io.BytesIO()
    named = {name: Tensor(str(i), array) for i, (name, array) in enumerate(tensors.items())}
    keys = [str(i) for i in range(len(tensors))]
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, named, keys):
        Pickler(stream, 2).dump(part)
    for array in tensors.values():
        stream.write(array.size.to_bytes(8, "little") + array.tobytes(order="A"))
    return stream.getvalue()


def test_weights_of_an_old_torch_file_are_read_without_torch(monkeypatch):
    rng = np.random.default_rng(0)
    tensors = {
        "kernel": rng.normal(size=(4, 3, 2)).astype(np.float32),
        "transposed": rng.normal(size=(5, 6)).astype(np.float32).T,
        "count": np.arange(3),
    }
    content = old_torch_file(tensors, monkeypatch)
    found = formats.read_torch(content)
    assert set(found) == {"kernel", "transposed"}  # counters are no weights
    for name, array in found.items():
        np.testing.assert_array_equal(array, tensors[name])


def test_a_torch_file_that_asks_for_anything_else_is_refused():
    with pytest.raises(pickle.UnpicklingError, match=r"asks for (posix|nt)\.system"):
        formats.read_torch(pickle.dumps(__import__("os").system, 2))


def test_patches_and_dense_make_a_convolution():
    x = np.random.default_rng(1).normal(size=(2, 8, 10, 3)).astype(np.float32)
    kernel = np.random.default_rng(2).normal(size=(3, 3, 3, 5)).astype(np.float32)
    found = np.asarray(models._patches(x)) @ kernel.reshape(27, 5)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(found, expected[:, :4, :5], atol=1e-4)


@pytest.mark.parametrize("texture", textures.TEXTURES)
def test_defects_change_what_their_mask_says(texture):
    tiles = textures.tiles(texture, num_train=4, seed=0)
    whole = textures._cut(texture)
    assert tiles.train.shape == (4, 128, 128)
    assert tiles.test.shape == tiles.masks.shape == (12, 128, 128)
    assert sum(kind == "none" for kind in tiles.kinds) == 6
    assert set(tiles.kinds) == {"none", *textures.DEFECTS}
    for tile, mask in zip(tiles.test, tiles.masks, strict=True):
        origin = min(whole, key=lambda one, tile=tile: np.abs(one - tile).sum())
        np.testing.assert_array_equal(tile[~mask], origin[~mask])
        assert 0 < mask.mean() < 0.08 or not mask.any()
