import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import train_denoiser
from experiments import comparison, heads, mri, mri_reconstruction, reconstructions, subjects
from subspace_jax import diffusion

SIGMA = 0.01


@pytest.fixture(scope="module")
def scans():
    return simulate(heads.committed("test")[4:6], SIGMA)


def simulate(slices, sigma_y):
    samplings = [mri.draw_sampling("random", 4, 64, seed) for seed in range(len(slices))]
    return mri.simulate(slices, samplings, jax.random.key(0), num_coils=4, sigma_y=sigma_y)


def operator(scans, i=0):
    return diffusion.operators.multicoil_mri(scans.mask[i], scans.maps[i])


def test_only_what_the_mask_says_is_measured_and_so_much_of_it(scans):
    assert diffusion.operators.masks.acceleration(scans.mask) == pytest.approx(4)
    assert np.all(np.asarray(scans.y) * ~np.asarray(scans.mask)[:, None] == 0)
    assert not np.array_equal(*scans.mask)
    for pattern, acceleration in (("equispaced", 4), ("random", 4), ("Poisson", 8)):
        mask, center = mri.draw_sampling(pattern, acceleration, 64, 0)
        found = diffusion.operators.masks.acceleration(mask)
        assert found == pytest.approx(acceleration, rel=0.05)
        middle = mask[32 - center[0] // 2 :, 32 - center[1] // 2 :]
        assert middle[: center[0], : center[1]].all()
    with pytest.raises(ValueError, match="pattern must be one of equispaced, random, Poisson"):
        mri.draw_sampling("lines", 4, 64, 0)


def test_maps_from_the_calibration_lines_explain_the_scan_without_having_seen_the_coils(scans):
    """Up to each pixel's phase the true image, seen through the true coils, is left."""
    true = diffusion.operators.coils.birdcage(4, (64, 64), dtype=jnp.complex64)
    inside = scans.truth[0] > 0.1
    alignment = jnp.abs(jnp.sum(true.conj() * scans.maps[0], 0))[inside]
    assert jnp.mean(alignment) > 0.97


def test_the_noise_has_the_level_that_it_says():
    quiet, noisy = (simulate(heads.committed("test")[:1], s) for s in (1e-6, SIGMA))
    noise = (noisy.y - quiet.y)[:, :, quiet.mask[0]]
    for part in (noise.real, noise.imag):
        assert jnp.std(part) == pytest.approx(SIGMA, rel=0.03)


def test_scores_of_the_truth_and_of_nothing(scans):
    truth = scans.truth.astype(complex)
    found = comparison.scores(scans, (1 + 1e-4) * truth)
    assert np.all(found["psnr"] > 80)
    assert found["ssim"] == pytest.approx(1, abs=1e-4)
    nothing = comparison.scores(scans, 0 * truth)
    expected = [-10 * np.log10(np.mean((t / t.max()) ** 2)) for t in scans.truth]
    assert nothing["psnr"] == pytest.approx(expected, rel=1e-4)


def objective(op, y, weight, x):
    u = reconstructions.gradient(x)
    size = jnp.sqrt(jnp.sum(jnp.abs(u) ** 2, 0))
    return float(jnp.sum(jnp.abs(op.apply(x) - y) ** 2) / 2 + weight * jnp.sum(size))


def test_total_variation_has_converged_to_a_minimum(scans):
    op, y, weight = operator(scans), scans.y[0], 0.01

    def solve(num_steps):
        arguments = (None, None, op, y, SIGMA, None, {"weight": weight})
        solver = reconstructions.total_variation
        return jax.jit(lambda: solver(*arguments, num_steps=num_steps))()

    x, better = solve(600), solve(6000)
    least = objective(op, y, weight, better)
    assert objective(op, y, weight, x) < 1.001 * least
    for seed in range(3):
        step = jax.lax.complex(*jax.random.normal(jax.random.key(seed), (2, 64, 64)))
        for size in (1e-3, 1e-2):
            assert objective(op, y, weight, better + size * step) > least
    assert jnp.linalg.norm(x - better) < 0.02 * jnp.linalg.norm(better)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_the_divergence_is_the_adjoint_of_the_gradient(shape):
    x = jax.lax.complex(*jax.random.normal(jax.random.key(0), (2, *shape)))
    u = jax.lax.complex(*jax.random.normal(jax.random.key(1), (2, len(shape), *shape)))
    left, right = (
        jnp.sum(reconstructions.gradient(x) * u),
        jnp.sum(x * reconstructions.divergence(u)),
    )
    assert complex(left) == pytest.approx(complex(right), rel=1e-4)


def test_cg_sense_solves_its_normal_equations(scans):
    op, y = operator(scans), scans.y[0]
    x = reconstructions.cg_sense(None, None, op, y, SIGMA, None, {"l2": jnp.float32(0.05)})
    b = op.adjoint(y)
    assert jnp.linalg.norm(op.gram(x) + 0.05 * x - b) < 1e-4 * jnp.linalg.norm(b)


def test_a_grid_has_at_most_twelve_choices():
    for name, method in reconstructions.METHODS.items():
        assert 1 <= len(method.choices()) <= 12, name


SAMPLERS = [name for name, method in reconstructions.METHODS.items() if method.levels]


@pytest.mark.parametrize("name", SAMPLERS)
def test_with_the_prior_of_a_gaussian_each_sampler_comes_near_the_measurement(name):
    """All of k-space is measured: what is there is to be found, whatever the prior says."""
    truth = 0.25 * jax.lax.complex(*jax.random.normal(jax.random.key(0), (2, 8, 8)))
    maps = diffusion.operators.coils.birdcage(2, (8, 8), dtype=jnp.complex64)
    mask = jnp.ones((8, 8), bool)
    y = diffusion.operators.multicoil_mri(mask, maps).apply(truth)
    scans = mri.Scans(mask[None], maps[None], y[None], SIGMA, np.abs(truth)[None])
    config = ConfigDict({"seed": 1, "sigma_range": (0.01, 2.0)})
    method = reconstructions.METHODS[name]
    call = comparison.build(config, lambda x, s: x / (1 + 16 * s**2), method, 60, scans)
    nearest = []
    for chosen in method.choices():
        x = comparison.reconstruct(config, call, scans, 0, chosen)
        nearest.append(float(jnp.linalg.norm(x - truth) / jnp.linalg.norm(truth)))
    assert min(nearest) < (0.35 if name in ("DPS", "RED-diff") else 0.15)


def test_a_file_of_measurements_is_scaled_masked_and_its_truth_is_what_all_of_it_gives(tmp_path):
    """Coil images by hand: the centre of a larger field of view, of which the file has k-space."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 3, 40, 36)) + 1j * rng.normal(size=(2, 3, 40, 36))
    axes = (-2, -1)
    kspace = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(images, axes), norm="ortho"), axes
    ).astype(np.complex64)
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as stored:
        stored["kspace"] = kspace
    scans = mri.load_fastmri(path, 32, "equispaced", 4, 0, sigma_y=SIGMA)
    middle = images[:, :, 4:36, 2:34]
    truth = np.sqrt(np.sum(np.abs(middle) ** 2, 1))
    scale = np.quantile(truth, 0.995, axis=(1, 2))[:, None, None]
    np.testing.assert_allclose(scans.truth, truth / scale, rtol=1e-4)
    full = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(middle / scale[:, None], axes), norm="ortho"), axes
    )
    mask = np.asarray(scans.mask)[:, None]
    np.testing.assert_allclose(scans.y, np.where(mask, full, 0), atol=1e-4)
    assert scans.maps.shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="size 64 exceeds the images of 40 x 36"):
        mri.load_fastmri(path, 64, "equispaced", 4, 0, sigma_y=SIGMA)

    config = train_denoiser.get_config("smoke")
    config.size, config.scans, config.tune_scans = 32, str(path), str(path)
    subject = subjects.SUBJECTS["heads"]
    np.testing.assert_array_equal(subject.train(config), scans.truth)
    np.testing.assert_array_equal(subject.tune(config), scans.truth)
    assert subject.about(config)["scans"] == str(path)


def test_gains_are_told_head_by_head_and_the_race_by_the_fastest_that_is_good_enough():
    rows = {
        "CG-SENSE": {"psnr": [20.0, 22.0, 23.0, 25.0]},
        mri_reconstruction.DDS: {"psnr": [24.0, 26.0, 26.0, 26.0]},
    }
    psnr = mri_reconstruction.by_head(("head_a", "b"), rows, "psnr")
    assert psnr["CG-SENSE"] == {"head_a": 21.0, "b": 24.0}
    told = mri_reconstruction.gains(psnr)
    assert told.endswith("less CG-SENSE +3.0 ± 1.0 over heads: a +4.0, b +2.0")
    assert mri_reconstruction.gains({}) == ""
    curves = {
        "DDS": [[5, 0.1, 24.9], [10, 0.2, 25.1], [20, 0.4, 26.0]],
        "DDS, mean": [[5, 0.3, 26.0]],
        "DPS": [[10, 1, 20.0], [100, 4, 25.0]],
    }
    told, of_mean = mri_reconstruction.race({"curves": curves})
    assert "25.0 dB, 100 levels" in told
    assert "20.0 times as long as DDS (25.1 dB, 10 levels)" in told
    assert "13.3 times as long as DDS, mean (26.0 dB, 5 levels)" in of_mean
    curves = {"DDS": curves["DDS"][:1], "DPS": curves["DPS"]}
    assert "no more than 24.9 dB" in mri_reconstruction.race({"curves": curves})[0]
    assert mri_reconstruction.race({"curves": {}}) == []


def test_settings_that_are_missing_are_named(tmp_path):
    config = ConfigDict({"settings": str(tmp_path / "settings.json")})
    comparison.keep_settings(tmp_path, {"x4 random": {"DPS": {"zeta": 8.0}}})
    comparison.keep_settings(tmp_path, {"x4 random": {"DPS, 300 levels": {"zeta": 16.0}}, "4": {}})
    assert comparison.known(config, "x4 random", "DPS") == {"zeta": 8.0}
    assert comparison.known(config, "x4 random", "DPS, 300 levels") == {"zeta": 16.0}
    with pytest.raises(ValueError, match=r"settings\.json has no settings of 'TV' for 'x4 random'"):
        comparison.known(config, "x4 random", "TV")
