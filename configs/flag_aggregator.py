"""The flag aggregator (Almasi et al., 2024) among the robust rules, on images.

    python -m experiments.flag_aggregator --config=configs/flag_aggregator.py:OPTIONS

Options: ``data=NAME`` (digits, mnist5k, mnist, fashion_mnist), ``smoke`` (seconds).
"""

from configs.common import parse_arg, training


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, data="digits")
    config = training()
    config.data = options.data
    config.data_path = ""  # a folder of official IDX files, instead of the named data set
    config.validation = 0.2  # share of the training images held out, to choose learning rates
    config.rules = ("mean", "median", "trimmed mean", "Krum", "multi-Krum", "Bulyan", "flag")
    config.attacks = ("random", "sign flip", "scaled flip", "little is enough")
    config.num_workers = 15
    config.num_liars = (0, 1, 2, 3, 4, 6)
    config.liars_to_tune = 3
    config.hidden = (32,)
    config.batch_size = 8  # of a worker
    config.learning_rates = (0.02, 0.05, 0.1, 0.2)
    config.momentum = 0.9
    config.num_seeds = 3
    config.num_steps = 300
    config.steps_per_call = 20
    config.log_every = 300
    config.checkpoint_every = 300

    if options.smoke:
        config.rules = ("mean", "flag")
        config.attacks = ("scaled flip", "little is enough")
        config.num_liars = (0, 3)
        config.hidden = (16,)
        config.learning_rates = (0.1,)
        config.num_seeds = 2
        config.num_steps, config.steps_per_call = 40, 20
        config.log_every = config.checkpoint_every = 40
    return config


def sweep():
    """Other data."""
    for name in ("mnist5k", "digits", "fashion_mnist"):
        yield {"data": name}
