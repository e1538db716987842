"""CT slices of few views or few angles, reconstructed with and without a diffusion prior.

    python -m experiments.ct_reconstruction --config=configs/ct_reconstruction.py:OPTIONS

Options: ``head`` (64 slices of an MR head, 1 mm apart, as if it were CT, by few methods, tuned on
another head; reads the cache), ``tune`` (find the settings of every method anew), ``aapm``
(256 x 256, with --config.slices=FOLDER of .npy or .npz files in HU, the --config.weights of such a
prior and the --config.settings of an earlier run), ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, tune=False, head=False, aapm=False)
    config = ConfigDict()
    config.seed = 0
    config.size = 64
    config.body = "lungs"  # or head
    config.slices = ""  # a folder to test on; without it the slices that come with the code
    config.weights = "experiments/assets/denoiser_ct64.npz"
    config.settings = "experiments/assets/ct_settings.json"  # without a file they are tuned
    if options.tune or options.smoke or options.aapm:
        config.settings = ""
    config.geometries = ((8, 180), (16, 180), (30, 180), (60, 120))  # views, degrees
    config.sigma_y = 0.2  # of the noise of line integrals in pixels; the longest are about 34
    config.methods = (
        "FBP",
        "TV",
        "DDS, normal",
        "DDS, proximal",
        "DDS, calibrated",
        "DDS, local",
        "DDS, pair",
        "DDS, no noise",
        "DiffPIR",
        "PiGDM",
    )
    config.sigma_range = (0.01, 5.0)
    config.levels = ConfigDict(
        {"sample": 20, "pair": 24, "quiet": 20, "jacobian": 20, "dps": 100, "red_diff": 100}
    )
    config.num_tune = 2  # slices
    config.num_test = 12
    config.volumes = ((8, 180), (60, 120))  # where all slices are also reconstructed at once
    config.volume_methods = ("TV", "DDS, calibrated", "DDS, no noise")  # beside, slice by slice
    config.num_volume = 0  # the middle slices of the patient; 0: all
    config.num_head = 64  # slices
    if options.head:
        config.body, config.weights = "head", "experiments/assets/denoiser64_wide.npz"
        config.settings, config.geometries = "", config.volumes
        config.methods = ("FBP", "TV", "DDS, calibrated", "DDS, no noise")
    if options.aapm:
        config.size, config.weights = 256, "runs/train_denoiser/denoiser.npz"
        config.levels.sample = 50
    if options.smoke:
        config.methods = ("FBP", "TV", "DDS, proximal")
        config.geometries = config.volumes = ((8, 180),)
        config.volume_methods, config.num_volume = (), 6
        config.num_tune, config.num_test = 1, 2
        config.levels = ConfigDict({"sample": 5, "quiet": 5})
    return config


def sweep():
    """Levels of noise in the measurement, each with settings of its own."""
    for sigma_y in (0.05, 0.2, 0.8):
        yield {"sigma_y": sigma_y, "settings": ""}
