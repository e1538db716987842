"""Confidence regions of principal subspaces (Rabenoro & Pennec, 2022).

    python -m experiments.pca_inference --config=configs/pca_inference.py:OPTIONS

Options: ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.populations = ("normal", "heavy tails", "breast cancer")
    config.eigenvalues = (5.0, 3.0, 1.5, 1.0, 0.8, 0.6, 0.4, 0.2)
    config.k = 2
    config.alpha = 0.05
    config.sizes = (50, 100, 200, 500, 1000, 5000)
    config.num_samples = 4000
    config.batch_size = 50
    config.num_bootstraps = 400  # samples, of which each is resampled
    config.num_resamples = 200
    if options.smoke:
        config.populations = ("normal",)
        config.sizes, config.num_samples = (100, 400), 200
        config.num_bootstraps, config.num_resamples = 20, 20
    return config


def sweep():
    """Other dimensions of the subspace."""
    for k in (1, 2, 3):
        yield {"k": k}
