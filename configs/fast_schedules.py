"""Fast schedules from long trajectories, of priors and of MR reconstructions.

    python -m experiments.fast_schedules --config=configs/fast_schedules.py:OPTIONS

Options: ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.problems = ("prior of heads", "prior of lungs", "prior of clothes", "MRI, x4")
    config.head_weights = "experiments/assets/denoiser64.npz"
    config.lung_weights = "experiments/assets/denoiser_ct64.npz"
    config.fashion_weights = "experiments/assets/denoiser_fashion32.npz"
    config.num_teacher = 100  # steps
    config.num_steps = (5, 10, 20)  # of students, one evaluation each
    config.sigma_range = (0.01, 10.0)
    config.num_calibration = 16  # trajectories
    config.num_test = 32  # other seeds; and slices of MR measurements
    config.num_clothes = 128  # seeds of the prior of clothes
    config.num_features = 512  # test images for the Frechet distance
    config.num_axes = 32  # principal axes of their features in which it is taken
    config.batch_size = 16
    config.acceleration, config.sigma_y = 4, 0.01  # of the MR measurements
    config.gamma = 20.0  # of DDS, proximal, as tuned by experiments.mri_reconstruction
    if options.smoke:
        config.problems = ("MRI, x4",)
        config.num_teacher, config.num_steps = 12, (3,)
        config.num_calibration = config.num_test = config.batch_size = 2
    return config


def sweep():
    """Numbers of calibration trajectories."""
    for num in (1, 4, 16, 64):
        yield {"num_calibration": num}
