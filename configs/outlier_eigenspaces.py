"""Outliers of the Hessian's blocks in mixtures of Gaussians, and how training finds them.

    python -m experiments.outlier_eigenspaces --config=configs/outlier_eigenspaces.py:OPTIONS

Options: ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.num_seeds = 3
    config.dim = 200  # of the data
    config.num_classes = 5  # of the mixture
    config.width = 20  # of the two-layer network on XOR
    config.precision = 20.0  # of the data about their means, whose norm is one
    config.ridge = 0.01  # half of it times |params|^2 is added to the loss
    config.learning_rates = (2.0, 2.0)  # over dim: of SGD on one new example a step; mixture, XOR
    config.num_steps = 20_000
    config.measure_every = 2000
    config.num_examples = 4000  # new ones, which the matrices are means over
    config.widths = (5, 10, 20)  # of networks on mixtures whose whole spectrum is computed
    config.classes = (2, 4, 8)
    config.spectrum_dim = 50
    config.spectrum_steps = 2000
    if options.smoke:
        config.num_seeds, config.dim, config.num_classes, config.width = 1, 30, 3, 6
        config.num_steps, config.measure_every, config.num_examples = 400, 200, 300
        config.widths, config.classes, config.spectrum_dim = (4,), (2, 3), 10
        config.spectrum_steps = 100
    return config


def sweep():
    """The noise of the data."""
    for precision in (2.0, 5.0, 10.0, 20.0, 40.0):
        yield {"precision": precision}
