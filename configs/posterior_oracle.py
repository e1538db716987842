"""Samplers of diffusion against an exact posterior.

    python -m experiments.posterior_oracle --config=configs/posterior_oracle.py:OPTIONS

Options: ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg

_ETAS = (0.0, 0.5, 1.0)


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.problem = ConfigDict()
    config.problem.num_components = 4  # of the mixture
    config.problem.n = 64
    config.problem.rank = 6
    config.problem.m = 12
    config.problem.condition = 10.0  # of the measurement
    config.problem.sigma_y = 0.1
    config.num_tuning = 2  # problems to choose parameters on
    config.num_problems = 5  # to score
    config.num_coverage = 20  # at the number of evaluations that is shown
    config.num_samples = 256
    config.num_slices = 64
    config.sigma_min, config.sigma_max = 0.01, 20.0
    config.evaluations = (5, 10, 20, 50)
    config.evaluations_shown = 50
    config.num_cg = 5  # steps of conjugate gradients, of all methods that make them
    config.methods = (
        "exact denoiser",
        "MMPS",
        "PiGDM",
        "DPS",
        "DDS, normal",
        "DDS, proximal",
        "DiffPIR",
        "DDNM",
        "projection",
        "RED-diff",
    )
    config.grids = {  # a method's own parameter, and eta (RED-diff: the learning rate)
        "exact denoiser": ((0.0,), _ETAS),
        "DDS, normal": ((1.0, 2.0, 5.0), _ETAS),  # steps of conjugate gradients
        "DDS, proximal": ((0.003, 0.01, 0.1, 1.0), _ETAS),  # gamma sigma_y^2
        "DiffPIR": ((0.3, 1.0, 3.0, 10.0), _ETAS),  # sigma_data
        "PiGDM": ((0.03, 0.1, 0.3, 1.0), _ETAS),  # sigma_data
        "MMPS": ((0.0,), _ETAS),
        "DPS": ((0.3, 1.0, 3.0, 10.0), _ETAS),  # zeta / (1 + sigma^2)
        "DDNM": ((0.0,), _ETAS),
        "projection": ((0.5, 1.0, 1.5, 1.9), _ETAS),  # the step, below 2; the norm of A is 1
        "RED-diff": ((0.1, 0.25, 1.0, 4.0), (0.02, 0.1, 0.3, 1.0)),  # weight / sigma
    }
    if options.smoke:
        config.problem.n, config.problem.rank, config.problem.m = 16, 3, 4
        config.num_tuning, config.num_problems, config.num_coverage = 1, 2, 4
        config.num_samples, config.num_slices = 64, 16
        config.evaluations, config.evaluations_shown = (5, 10), 10
        config.methods = ("exact denoiser", "DDS, proximal")
    return config


def sweep():
    """How the distance depends on the noise and on the number of measurements."""
    for sigma_y in (0.03, 0.1, 0.3):
        for m in (8, 12, 24):
            yield {"problem.sigma_y": sigma_y, "problem.m": m}
