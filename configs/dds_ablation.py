"""Steps of conjugate gradients in DDS, with the right and with the released inner product.

    python -m experiments.dds_ablation --config=configs/dds_ablation.py:OPTIONS

Options: ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.num_components = 4
    config.n = 32  # complex
    config.m = 24  # complex; more than the most steps, which cannot converge then
    config.rank = 6  # of each component, real
    config.condition = 100.0  # of the measurement
    config.sigmas_y = (0.01, 0.05, 0.2)  # a real component
    config.num_tuning = 1  # problems to choose gamma on
    config.num_problems = 8  # to score
    config.gammas = (0.01, 0.1, 1.0)  # times sigma_y^2
    config.eta = 1.0
    config.evaluations = 50
    config.sigma_min, config.sigma_max = 0.01, 20.0
    config.steps = (1, 2, 5, 10, 20)
    config.steps_shown = 5
    config.num_samples = 128
    config.num_slices = 64
    config.interval = 0.8  # the central share of samples that should hold the truth so often
    if options.smoke:
        config.n, config.m, config.rank = 8, 6, 2
        config.sigmas_y = (0.05, 0.2)
        config.num_problems = 2
        config.evaluations = 8
        config.steps, config.steps_shown = (2, 5), 2
        config.num_samples, config.num_slices = 32, 16
    return config


def sweep():
    """Other conditions of the measurement, and the noise of DDIM that DDS recommends."""
    for condition in (10.0, 100.0, 1000.0):
        for eta in (0.5, 0.85, 1.0):
            yield {"condition": condition, "eta": eta}
