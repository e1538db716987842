"""Reconstruction of undersampled MR slices with and without a diffusion prior.

    python -m experiments.mri_reconstruction --config=configs/mri_reconstruction.py:OPTIONS

Options: ``quick`` (DDS beside CG-SENSE and TV, two minutes), ``tune`` (find the settings of every
method anew), ``fastmri`` (320 x 320, with --config.scans=FILE.h5, the --config.weights of such a
prior and the --config.settings of an earlier run), ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, quick=False, tune=False, fastmri=False)
    config = ConfigDict()
    config.seed = 0
    config.size = 64
    config.scans = ""  # a file like fastMRI's; without it the slices that come with the code
    config.weights = "experiments/assets/denoiser64_wide.npz"
    config.settings = "experiments/assets/mri_settings.json"  # without a file they are tuned
    if options.tune or options.smoke or options.fastmri:
        config.settings = ""
    config.samplings = (("equispaced", 4), ("random", 4), ("Poisson", 8))  # lines, lines, points
    config.num_coils = 6
    config.sigma_y = 0.01  # of the noise, per real component; tissue is about 1
    config.methods = (
        "zero-filled",
        "CG-SENSE",
        "TV",
        "DDS, normal",
        "DDS, proximal",
        "DDS, calibrated",
        "DDS, local",
        "DDS, pair",
        "DDS, no noise",
        "DiffPIR",
        "DDNM",
        "PiGDM",
        "MMPS",
        "MMPS, pair",
        "DPS",
        "DPS, started",
        "DPS, no noise",
        "RED-diff",
    )
    config.sigma_range = (0.01, 5.0)
    config.levels = ConfigDict(
        {"sample": 20, "pair": 24, "quiet": 20, "jacobian": 20, "dps": 100, "red_diff": 100}
    )
    # With the first sampling these also at other numbers of levels.
    config.curve = ("DDS, pair", "DDS, no noise", "DPS", "DPS, started", "DPS, no noise")
    config.curve_levels = (5, 8, 12, 50)
    config.num_curve_slices = 6
    config.num_tune = 3  # slices, each with a draw of the sampling
    config.num_test = 6  # of each of the three heads
    if options.quick:
        config.methods = ("CG-SENSE", "TV", "DDS, calibrated", "DDS, no noise")
        config.curve = ()
    if options.fastmri:
        config.size, config.weights = 320, "runs/train_denoiser/denoiser.npz"
    if options.smoke:
        config.methods = ("zero-filled", "CG-SENSE", "TV", "DDS, no noise")
        config.samplings, config.num_test = (("equispaced", 4),), 1
        config.num_tune = 1
        config.levels = ConfigDict({"quiet": 4})
        config.curve = ()
    return config


def sweep():
    """Levels of noise in the measurement, each with settings of its own."""
    for sigma_y in (0.0025, 0.01, 0.04):
        yield {"sigma_y": sigma_y, "settings": ""}
