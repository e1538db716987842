import gzip
import struct

import numpy as np
import pytest

from experiments import formats, heads, volumes


def nifti(volume, *, order="<", rows=None, quaternion=None, sizes=(1, 1, 1, 1), slope=0.0):
    """A NIfTI-1 file in one part, as the standard lays it out."""
    header = bytearray(352)
    codes = {"uint8": 2, "int16": 4, "float32": 16}
    shape = [volume.ndim, *volume.shape] + [1] * (7 - volume.ndim)
    for offset, kind, values in (
        (0, "i", (348,)),
        (40, "8h", shape),
        (70, "h", (codes[str(volume.dtype)],)),
        (76, "4f", sizes),
        (108, "f", (352,)),
        (112, "2f", (slope, 3.0 if slope else 0.0)),
        (252, "2h", (int(quaternion is not None), int(rows is not None))),
        (256, "6f", quaternion if quaternion is not None else (0,) * 6),
        (280, "12f", np.ravel(rows) if rows is not None else (0,) * 12),
    ):
        struct.pack_into(order + kind, header, offset, *values)
    header[344:348] = b"n+1\0"
    return bytes(header) + volume.astype(volume.dtype.newbyteorder(order)).tobytes(order="F")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_nifti_volume_is_read_with_its_map_to_millimetres(order, dtype):
    volume = np.random.default_rng(0).integers(0, 200, (3, 4, 5)).astype(dtype)
    rows = np.arange(12.0).reshape(3, 4)
    content = nifti(volume, order=order, rows=rows)
    for packed in (content, gzip.compress(content)):
        found, affine = formats.read_nifti(packed)
        np.testing.assert_array_equal(found, volume)
        np.testing.assert_array_equal(affine, rows)


def test_the_quaternion_of_a_nifti_header_turns_and_mirrors():
    half = 0.5**0.5  # a quarter turn about the first axis; the third is mirrored
    volume = np.zeros((2, 2, 2), np.uint8)
    content = nifti(volume, quaternion=(half, 0, 0, 7, 8, 9), sizes=(-1, 2, 3, 4))
    _, affine = formats.read_nifti(content)
    expected = [[2, 0, 0, 7], [0, 0, 4, 8], [0, 3, 0, 9]]
    np.testing.assert_allclose(affine, expected, atol=1e-6)


def test_slope_and_intercept_are_applied_and_an_empty_fourth_axis_goes():
    volume = np.arange(8, dtype=np.int16).reshape(2, 2, 2, 1)
    found, affine = formats.read_nifti(nifti(volume, slope=2.0, sizes=(1, 5, 6, 7)))
    np.testing.assert_array_equal(found, 2 * volume[..., 0] + 3)
    np.testing.assert_array_equal(affine, np.diag([5, 6, 7, 0])[:3])


def test_what_is_no_nifti_is_refused():
    with pytest.raises(ValueError, match="not a NIfTI-1 file"):
        formats.read_nifti(b"nothing")
    content = bytearray(nifti(np.zeros((1, 1, 1), np.uint8)))
    struct.pack_into("<h", content, 70, 1024)
    with pytest.raises(ValueError, match="type 1024 are not read"):
        formats.read_nifti(bytes(content))


def test_anatomical_axes_are_where_the_map_says():
    volume = np.random.default_rng(0).normal(size=(3, 4, 5))
    affine = np.array([[0, 0, -2.0, 0], [1.0, 0.1, 0, 0], [0, 3.0, 0, 0]])
    found = volumes.anatomical(volume, affine)
    np.testing.assert_array_equal(found["volume"], volume.transpose(2, 0, 1)[::-1])
    np.testing.assert_allclose(found["spacing"], [2, 1, 3.0017], atol=1e-4)
    with pytest.raises(ValueError, match="too oblique"):
        volumes.anatomical(volume, np.ones((3, 4)))


@pytest.fixture
def head(tmp_path, monkeypatch):
    """A cache that holds one head: bright to the right, brighter in front, brightest above."""
    monkeypatch.setenv("SUBSPACE_JAX_DATA", str(tmp_path))
    x, y, z = np.meshgrid(*(np.arange(n) for n in (40, 50, 60)), indexing="ij")
    volume = (1000 + x + 3 * y + 9 * z).astype(np.float32)
    np.savez(tmp_path / "head_pycortex.npz", volume=volume, spacing=np.full(3, 4.0))
    return heads.load("head_pycortex", 4.0)


@pytest.mark.parametrize(
    ("orientation", "down", "along"),
    [("axial", -3, 1), ("coronal", -9, 1), ("sagittal", -9, 3)],
)
def test_front_and_top_are_at_the_top_of_a_slice_and_right_is_right(head, orientation, down, along):
    one = heads.cut(head, orientation, 20.0, size=8, pixel=4.0)
    step = head.volume[1, 0, 0] - head.volume[0, 0, 0]
    np.testing.assert_allclose(np.diff(one, axis=0), down * step, rtol=1e-2)
    np.testing.assert_allclose(np.diff(one, axis=1), along * step, rtol=1e-2)


def test_a_stack_climbs_by_a_millimetre_a_slice_about_the_middle(head):
    slices = heads.stack("head_pycortex", 4, 16)
    assert slices.shape == (4, 16, 16)
    step = head.volume[0, 0, 1] - head.volume[0, 0, 0]  # of 4 mm
    np.testing.assert_allclose(np.diff(slices, axis=0)[:, 8, 8], step / 4, rtol=1e-2)


def test_a_turn_by_ninety_degrees_turns_the_picture(head):
    straight = heads.cut(head, "axial", 20.0, size=8, pixel=4.0)
    turned = heads.cut(head, "axial", 20.0, size=8, pixel=4.0, turn=90.0)
    assert not np.allclose(turned, straight, atol=1e-3)
    assert any(np.allclose(turned, np.rot90(straight, k), atol=1e-5) for k in (1, 3))


def test_a_warp_shifts_each_pixel_by_its_millimetres(head):
    straight = heads.cut(head, "axial", 20.0, size=8, pixel=4.0)
    warp = np.zeros((2, 8, 8))
    warp[0, :, 0], warp[1, 0, :] = 4.0, -4.0  # the first column downwards, the first row leftwards
    warped = heads.cut(head, "axial", 20.0, size=8, pixel=4.0, warp=warp)
    np.testing.assert_allclose(warped[1:-1, 0], straight[2:, 0], rtol=1e-5)
    np.testing.assert_allclose(warped[0, 2:], straight[0, 1:-1], rtol=1e-5)
    np.testing.assert_array_equal(warped[1:, 1:], straight[1:, 1:])


def test_random_slices_are_a_function_of_the_seed(head):
    one, same, other = (heads.random_slices(("head_pycortex",), 4, 16, s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    warped = heads.random_slices(("head_pycortex",), 4, 16, 0, warp=2.0)
    assert not np.allclose(warped[0], one[0], atol=1e-3)


def test_patients_are_kept_apart():
    assert not {heads.TUNE, heads.TEST, *heads.MORE_TESTS} & set(heads.TRAIN)
    kinds = {"train": 20, "tune": 16, "test": 24} | dict.fromkeys(heads.MORE_TESTS, 24)
    for kind, num in kinds.items():
        slices = heads.committed(kind)
        assert slices.shape == (num, 64, 64)
        assert slices.min() >= 0
        assert 0.9 < slices.max() <= 1.5
