"""The share of a conjugate gradient update outside the tangent space.

    python -m experiments.off_tangent --config=configs/off_tangent.py:OPTIONS

Options: ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.num_components = 4  # of the mixture; their subspaces are orthogonal
    config.n = 64
    config.rank = 6
    config.m = 24
    config.condition = 10.0  # of every operator
    config.sigma_y = 0.05
    config.operators = ("random", "cosine rows", "compatible", "compatible, no noise")
    config.num_draws = 100  # of prior, operator, point and noise
    config.sigmas = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    config.sigma_shown = 0.3
    config.steps = (1, 2, 3, 5, 10, 20)
    config.steps_shown = 5
    if options.smoke:
        config.n, config.rank, config.m, config.num_components = 16, 2, 6, 2
        config.num_draws = 10
        config.sigmas, config.steps = (0.1, 0.3, 1.0), (1, 5)
    return config


def sweep():
    """More measurements, and subspaces of other dimensions."""
    for m in (8, 24, 48):
        for rank in (2, 6, 12):
            yield {"m": m, "rank": rank}
