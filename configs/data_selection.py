"""Targeted data selection by spectral filtering of gradients (GIST, 2026).

    python -m experiments.data_selection --config=configs/data_selection.py:OPTIONS

Options: ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg

METHODS = ("GIST", "GIST, whole norm", "cosine", "Adam cosine", "sketched cosine")
METHODS += ("gradient norm", "random", "all data", "oracle")


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.settings = ("classes", "rotation")  # what the target is
    config.num_classes = 3  # of the target, where it is some classes
    config.num_targets = 50  # clean examples of the target
    config.noise = 0.4  # share of wrong labels among the examples to choose from
    config.shares = (0.05, 0.1, 0.2)  # of them to train on
    config.hidden = (32,)
    config.methods = METHODS
    config.energies = (0.5, 0.8, 0.95, 0.99)  # of GIST, chosen on validation problems
    config.rank = 150  # the paper's limit; there are never more than num_targets
    config.sketch = 50  # dimensions of random projections, as many as GIST has at most
    config.warmup_steps = 40  # about an epoch
    config.num_steps = 400
    config.batch_size = 32
    config.learning_rate = 3e-3
    config.num_seeds = 20
    config.num_tuning_seeds = 10
    if options.smoke:
        config.hidden, config.num_steps, config.shares = (8,), 60, (0.2,)
        config.settings, config.methods = ("classes",), ("GIST", "cosine", "random")
        config.num_seeds, config.num_tuning_seeds, config.energies = 2, 1, (0.8, 0.95)
    return config


def sweep():
    """How good the network is that the gradients are taken of."""
    for warmup_steps in (10, 40, 160):
        yield {"warmup_steps": warmup_steps}
