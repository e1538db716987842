"""Scores of data on a subspace, learned with and without the subspace in the network.

    python -m experiments.score_subspace --config=configs/score_subspace.py:OPTIONS

Options: ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.num_seeds = 3
    config.rank = 8  # d, of the codes
    config.bandwidth = 0.2  # of the Gaussian around each code
    config.dims = (16, 64, 256, 512)  # D, at num_examples
    config.num_examples = 1024
    config.nums = (64, 256, 4096)  # N, at dim
    config.dim = 64
    config.hidden = (128, 128)
    config.log_sigma = (-0.5, 1.2)  # mean and standard deviation, in training
    config.batch_size = 128
    config.num_steps = 2000
    config.learning_rate = 2e-3  # then a cosine to zero
    config.angle_rate = 0.03  # of V, an angle a step
    config.sigmas = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # of the test
    config.sigma_shown = 0.5
    config.num_test = 1000
    config.num_levels = 30
    config.sigma_range = (0.02, 20.0)  # of the sampler
    if options.smoke:
        config.num_seeds, config.dims, config.nums = 1, (16,), (64,)
        config.dim, config.num_examples, config.hidden = 16, 128, (32,)
        config.num_steps, config.num_test, config.num_levels = 200, 100, 10
        config.sigmas = (0.2, 0.5, 2.0)
    return config


def sweep():
    """Codes of other dimensions."""
    for rank in (4, 8, 16):
        yield {"rank": rank}
