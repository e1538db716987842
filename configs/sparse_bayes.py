"""Bayesian networks with few weights (Li, Miao, Qiu & Zhang, 2024).

    python -m experiments.sparse_bayes --config=configs/sparse_bayes.py:OPTIONS

Options: ``data=NAME`` (see `experiments.data`), ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, data="fashion_mnist")
    config = ConfigDict()
    config.seed = 0
    config.data = options.data
    config.data_path = ""  # a folder of official IDX files, instead of the named data set
    config.outside = "mnist5k" if options.data == "fashion_mnist" else ""  # images of another kind
    config.num_examples = 10_000  # training images at most, the first ones
    config.hidden = (200, 200)
    config.methods = ("direct", "dense VI", "SSVI", "SSVI, fixed support")
    config.densities = (0.1, 0.05, 0.02)  # share of the weights that is not zero
    config.criterion = "snr"  # of removal
    config.swap_every = 50
    config.swap_fraction = 0.3  # at first; it falls to none at three quarters of the steps
    config.prior_scales = (0.5, 1.5, 5.0)  # of VI, chosen on validation images
    config.weight_decays = (0.0, 0.3, 3.0)  # of AdamW, the same
    config.initial_scale = 0.01  # better than 0.05 on validation images, sparse and dense
    config.learning_rate = 3e-3  # falls to zero as a cosine
    config.batch_size = 128
    config.num_steps = 3000
    config.num_seeds = 3
    config.num_draws = 16  # networks whose predictions are averaged
    config.num_bins = 15  # of the calibration error
    if options.smoke:
        config.data, config.outside, config.hidden = "digits", "", (16,)
        config.densities, config.prior_scales, config.weight_decays = (0.2,), (0.3,), (0.0,)
        config.num_steps, config.num_seeds, config.num_draws = 60, 1, 4
        config.swap_every = 10
    return config


def sweep():
    """What is removed, and how often."""
    for criterion in ("snr", "mean", "mean_abs", "exp_mean_abs", "snr_exp_mean_abs"):
        for every in (20, 50, 200):
            yield {"criterion": criterion, "swap_every": every, "methods": ("SSVI",)}
