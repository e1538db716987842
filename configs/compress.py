"""Networks as a seed and d numbers (Li et al., 2018).

    python -m experiments.compress --config=configs/compress.py:OPTIONS

Options: ``fashion`` (Fashion-MNIST, from the cache), ``smoke`` (seconds, 8 x 8 digits).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, fashion=False)
    config = ConfigDict()
    config.seed = 0
    config.data = "fashion_mnist" if options.fashion else "mnist5k"
    config.validation = False  # score on held-out training images: for tuning
    config.hidden = (200, 200)
    config.dims = (100, 200, 400, 750, 1500, 3000, 6000, 12_000)
    config.kept = (0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)  # shares of the weights
    # Pixels a side that are averaged, and the width of both hidden layers.
    config.small = (
        *((4, 6), (4, 10), (4, 16), (4, 32)),
        *((2, 4), (2, 8), (2, 16), (2, 32)),
        *((1, 4), (1, 8), (1, 16), (1, 32)),
    )
    config.num_seeds = 3
    config.num_steps = 1200
    config.batch_size = 128
    config.learning_rate = 0.1  # Adam, on z; all rates fall to zero
    config.direct_learning_rate = 1e-2
    config.small_learning_rate = 1e-2
    config.fractions = (0.9, 0.95)  # of the direct accuracy, in the summary

    if options.smoke:
        config.data = "digits"
        config.hidden = (32,)
        config.dims = (20, 200)
        config.kept = (0.2,)
        config.small = ((2, 8),)
        config.num_seeds = 2
        config.num_steps = 60
    return config


def sweep():
    """The rates, scored on held-out training images."""
    for factor in (0.3, 1, 3):
        yield {
            "validation": True,
            "learning_rate": 0.1 * factor,
            "direct_learning_rate": 1e-2 * factor,
            "small_learning_rate": 1e-2 * factor,
        }
