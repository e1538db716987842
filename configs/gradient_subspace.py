"""Gradients in the leading eigenspace of the Hessian (Gur-Ari, Roberts & Dyer, 2018).

    python -m experiments.gradient_subspace --config=configs/gradient_subspace.py:OPTIONS

Options: ``smoke`` (seconds), ``data=NAME`` (see `experiments.data`).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, data="mnist5k")
    config = ConfigDict()
    config.seed = 0
    config.data = options.data
    config.data_path = ""  # a folder of official IDX files, instead of the named data set
    config.hidden = (200, 200)
    config.k = 0  # of the eigenspace; 0: the number of classes
    config.methods = ("SGD", "full batch", "SGD, top part", "SGD, rest")
    config.num_seeds = 3
    config.batch_size = 64
    config.learning_rate = 0.1
    config.num_steps = 800
    config.measure_every = 50  # steps; the eigenspace that parts project on is renewed as often
    config.num_examples = 2000  # training images that the Hessian is of
    config.rtol = 1e-3  # of an eigenpair
    config.num_minibatches = 20  # whose own gradients are measured
    if options.smoke:
        config.data = "digits" if options.data == "mnist5k" else options.data
        config.hidden = (16,)
        config.num_seeds, config.num_steps, config.measure_every = 2, 40, 20
        config.num_examples, config.num_minibatches = 200, 2
    return config


def sweep():
    """Learning rates and sizes of a batch: what keeps gradients in the leading space."""
    for rate in (0.02, 0.1, 0.5):
        for size in (16, 64, 256):
            yield {"learning_rate": rate, "batch_size": size, "methods": ("SGD",)}
