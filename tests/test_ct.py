import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import ndimage

from configs import ct_reconstruction as configs
from configs import train_denoiser
from experiments import comparison, ct, ct_reconstruction, lungs, subjects

THICKNESS = 5.0  # mm, of a slice


def test_training_and_tuning_slices_are_ten_millimetres_apart():
    parts = lungs.training_parts(48)
    apart = min(abs(i - j) for part in parts for i in part for j in lungs.TUNE)
    assert (apart - 1) * THICKNESS >= 10
    assert sum(map(len, parts)) + len(lungs.TUNE) == 48 - 4
    assert lungs.TRAIN_PATIENT != lungs.TEST_PATIENT


def test_random_slices_come_from_between_neighbours_that_both_may_be_trained_on(monkeypatch):
    heights = np.arange(48, dtype=np.float32)[:, None, None]
    monkeypatch.setattr(lungs, "load", lambda patient: np.tile(heights, (1, 20, 20)))
    slices = lungs.random_slices(200, 8, 0)
    assert slices.shape == (200, 8, 8)
    np.testing.assert_allclose(np.ptp(slices, axis=(1, 2)), 0, atol=1e-4)
    found = slices[:, 0, 0]
    below, above = lungs.training_parts(48)
    inside = (found <= below[-1] + 1e-4) | (found >= above[0] - 1e-4)
    assert inside.all()
    assert found.min() < 2
    assert found.max() > 45


def test_shrunk_slices_are_means_over_pixels():
    x = np.random.default_rng(0).normal(size=(3, 12, 12)).astype(np.float32)
    expected = x.reshape(3, 4, 3, 4, 3).mean((2, 4))
    np.testing.assert_allclose(lungs.shrunk(x, 4), expected, atol=1e-6)


def test_the_mean_of_a_straight_line_over_any_part_is_its_value_in_the_middle():
    area = lungs.overlap(1.3, 8.7, 5, 10)
    np.testing.assert_allclose(area.sum(1), 1, rtol=1e-5)
    edges = np.linspace(1.3, 8.7, 6)
    middle = (edges[:-1] + edges[1:]) / 2
    # Up to what a pixel that is cut differs from the line within itself.
    np.testing.assert_allclose(area @ (np.arange(10) + 0.5), middle, atol=0.25)


def test_the_committed_slices_are_normalised_lungs():
    for kind, num in (("train", 10), ("tune", 6), ("test", 61)):
        slices = lungs.committed(kind)
        assert slices.shape == (num, 128, 128)
        assert slices.min() >= 0
        assert 0.9 < slices.max() <= 1.5
        assert 0.4 < np.median(slices[slices > 0.3]) < 0.6  # soft tissue is like water
    np.testing.assert_allclose(lungs.normalized(np.array([-1024, -1000, 0])), [0, 0, 0.5])


def disc(size, center, radius):
    """On pixels, each the part that lies inside; in units of pixels from the middle."""
    t = (np.arange(8 * size) + 0.5) / 8 - size / 2
    inside = (t - center[0]) ** 2 + (-t[:, None] - center[1]) ** 2 < radius**2
    return inside.reshape(size, 8, size, 8).mean((1, 3)).astype(np.float32)


def test_the_simulated_measurement_of_a_disc_is_its_chords_and_noise():
    """A disc of the fine grid, measured in pixels of the coarse one."""
    size, center, radius, sigma_y = 32, (4.0, -3.0), 9.0, 0.2
    slices = disc(2 * size, (2 * center[0], 2 * center[1]), 2 * radius)[None]
    scans = ct.simulate(slices, 12, 180.0, 0, size=size, sigma_y=sigma_y)
    num = ct.num_detectors(size)
    along = center[0] * np.cos(scans.angles) + center[1] * np.sin(scans.angles)
    t = np.arange(num) - (num - 1) / 2
    chords = 2 * np.sqrt(np.maximum(radius**2 - (t - along[:, None]) ** 2, 0))
    clean = np.asarray(ct.line_integrals(jnp.asarray(slices), scans.angles, size))[0]
    assert np.linalg.norm(clean - chords) < 0.03 * np.linalg.norm(chords)
    noise = np.asarray(scans.y * scans.scale)[0] - clean
    assert np.std(noise) == pytest.approx(sigma_y, rel=0.1)
    assert scans.sigma_y * float(scans.scale) == pytest.approx(sigma_y)
    np.testing.assert_allclose(scans.truth[0], disc(size, center, radius), atol=0.03)


def test_the_operator_has_norm_one_and_its_gram_is_adjoint_after_apply():
    scans = ct.simulate(disc(32, (0, 0), 9.0)[None], 6, 120.0, 0, size=16, sigma_y=0.1)
    op = scans.operator(*scans.setup(0))
    units = jnp.eye(256).reshape(256, 16, 16)
    matrix = jax.vmap(op.apply)(units).reshape(256, -1).T
    gram = jax.vmap(op.gram)(units).reshape(256, 256)
    np.testing.assert_allclose(gram, matrix.T @ matrix, atol=1e-4)
    assert np.linalg.norm(matrix, 2) == pytest.approx(1, abs=1e-3)


def test_filtered_back_projection_of_many_views_is_the_image():
    scans = ct.simulate(disc(64, (4, 3), 20.0)[None], 60, 180.0, 0, size=32, sigma_y=1e-6)
    op = scans.operator(*scans.setup(0))
    chosen = {"cutoff": jnp.float32(1.0)}
    x = ct.filtered_back_projection(None, None, op, scans.y[0], None, None, chosen)
    truth = scans.truth[0]
    assert np.linalg.norm(x - truth) < 0.15 * np.linalg.norm(truth)
    flat = disc(32, (2, 1.5), 7.0) == 1
    assert np.mean(np.asarray(x)[flat]) == pytest.approx(1, abs=0.02)


def test_slices_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"slices must be 32 x 32, got \(16, 16\)"):
        ct.simulate(np.zeros((1, 16, 16), np.float32), 4, 180.0, 0, size=16, sigma_y=0.1)


def test_a_grid_has_at_most_twelve_choices():
    for name, method in (ct.METHODS | ct.ACROSS).items():
        assert 1 <= len(method.choices()) <= 12, name


CONFIG = ConfigDict({"seed": 1, "sigma_range": (0.01, 2.0), "levels": {"sample": 60}})


@pytest.fixture(scope="module")
def noise():
    """Two smooth random images, for what is finer no detector sees, and many views of them."""
    truth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, 8, 8)), (0, 1, 1))
    truth = (0.25 * truth / truth.std()).astype(np.float32)
    angles = jnp.linspace(0, jnp.pi, 24, endpoint=False)
    empty = ct.Scans(angles, ct.largest_singular_value(angles, 8), jnp.zeros(0), 0.003, truth)
    op = empty.operator(*empty.setup(0))
    return empty._replace(y=jnp.stack([op.apply(jnp.asarray(x)) for x in truth]))


def gaussian(x, sigma):
    """The exact denoiser of white noise of deviation 1 / 4."""
    return x / (1 + 16 * sigma**2)


SAMPLERS = [
    *(name for name in ct.METHODS if ct.METHODS[name].levels == "sample"),
    "PiGDM",
    "RED-diff",
]


@pytest.mark.parametrize("name", SAMPLERS)
def test_with_the_prior_of_a_gaussian_each_sampler_comes_near_the_truth(name, noise):
    method, nearest = ct.METHODS[name], []
    call = comparison.build(CONFIG, gaussian, method, 60, noise)
    for chosen in method.choices():
        x = comparison.reconstruct(CONFIG, call, noise, 0, chosen)
        nearest.append(np.linalg.norm(x - noise.truth[0]) / np.linalg.norm(noise.truth[0]))
    assert min(nearest) < (0.4 if name == "RED-diff" else 0.2)


def test_across_slices_without_weight_both_come_near_and_with_much_they_are_alike(noise):
    call = ct_reconstruction.build_across(CONFIG, gaussian, noise, "DDS, z-TV")
    free, tied = (
        ct_reconstruction.reconstruct_across(
            CONFIG, call, noise, {"eta": 1.0, "rho": 1e-3 if not lam else 1.0, "lam": lam}
        )
        for lam in (0.0, 1.0)
    )
    error = np.linalg.norm(free - noise.truth) / np.linalg.norm(noise.truth)
    assert error < 0.3
    assert np.linalg.norm(tied[1] - tied[0]) < 0.2 * np.linalg.norm(free[1] - free[0])


def test_total_variation_of_a_volume_ties_its_slices(noise):
    call = ct_reconstruction.build_across(CONFIG, gaussian, noise, "TV, 3-D")
    free, tied = (
        ct_reconstruction.reconstruct_across(CONFIG, call, noise, {"weight": weight})
        for weight in (1e-7, 0.3)
    )
    error = np.linalg.norm(free - noise.truth) / np.linalg.norm(noise.truth)
    assert error < 0.3
    assert np.linalg.norm(tied[1] - tied[0]) < 0.02 * np.linalg.norm(free[1] - free[0])


def test_a_folder_of_slices_is_read_in_order_and_in_hounsfield_units(tmp_path):
    rng = np.random.default_rng(0)
    one, two = rng.integers(-1000, 1000, (40, 40)), rng.integers(-1000, 1000, (2, 48, 48))
    np.save(tmp_path / "b.npy", one.astype(np.int16))
    np.savez(tmp_path / "a.npz", slices=two.astype(np.float32))
    (tmp_path / "notes.txt").write_text("not a slice")
    config = configs.get_config("aapm")
    config.size, config.slices = 16, str(tmp_path)
    scans = ct_reconstruction.simulated(config, (8, 180), "test", 0)
    assert scans.truth.shape == (3, 16, 16)
    expected = (two / 2000 + 0.5).reshape(2, 16, 3, 16, 3).mean((2, 4))
    np.testing.assert_allclose(scans.truth[:2], expected, atol=1e-5)
    assert scans.truth[2].mean() == pytest.approx(one.mean() / 2000 + 0.5, abs=1e-5)

    prior = train_denoiser.get_config("ct")
    prior.size, prior.scans, prior.tune_scans = 16, str(tmp_path), str(tmp_path)
    subject = subjects.SUBJECTS["lungs"]
    np.testing.assert_allclose(subject.train(prior), scans.truth, rtol=1e-6)
    np.testing.assert_allclose(subject.tune(prior), scans.truth, rtol=1e-6)
    assert "patient" not in subject.about(prior)


def test_a_folder_without_fitting_slices_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no .npy or .npz file is in"):
        ct.load_folder(tmp_path, 32)
    np.save(tmp_path / "a.npy", np.zeros((16, 16)))
    with pytest.raises(ValueError, match=r"a.npy holds \(16, 16\), not square slices of 32"):
        ct.load_folder(tmp_path, 32)
    (tmp_path / "a.npy").unlink()
    np.savez(tmp_path / "a.npz", one=np.zeros((32, 32)), two=np.zeros((32, 32)))
    with pytest.raises(ValueError, match=r"a.npz holds 2 arrays, not one"):
        ct.load_folder(tmp_path, 32)
