"""One-class detectors: GODS and PCA residuals beside the usual ones.

    python -m experiments.one_class --config=configs/one_class.py:OPTIONS

Options: ``full`` (also what is fetched once: Fashion-MNIST, brain tumours), ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, full=False)
    config = ConfigDict()
    config.seed = 0
    config.sets = ("digits", "breast_cancer", "wine", "mnist5k")
    config.max_train = 300  # normal examples
    config.max_test = 2000
    config.num_directions = 8  # of each frame of GODS
    config.gods_steps = 200
    config.kernel_rank = 100
    config.energy = 0.99  # of the PCA residual: the paper's
    config.oracle_directions = (2, 4, 8)
    config.oracle_margins = (0.0, 0.1, 0.3)
    config.oracle_energies = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
    config.oracle_gammas = (0.1, 0.3, 1.0, 3.0, 10.0)
    config.oracle_nus = (0.01, 0.1, 0.5)
    config.images = ("brick", "grass", "gravel")
    config.features = "auto"  # or efficientnet, or gaussian
    config.num_tiles = 4
    config.smoothing = 4.0  # of score maps, in pixels
    config.num_seeds = 3  # of the choice of tiles and of defects
    if options.full:
        config.sets = (*config.sets, "fashion_mnist")
        config.images = (*config.images, "brain tumours")
    if options.smoke:
        config.sets = ("wine",)
        config.gods_steps, config.kernel_rank = 20, 10
        config.oracle_directions, config.oracle_margins = (2,), (0.3,)
        config.oracle_energies, config.oracle_gammas, config.oracle_nus = (0.9,), (1.0,), (0.1,)
        config.images, config.features, config.num_seeds = ("brick",), "gaussian", 1
    return config


def sweep():
    """More directions; fewer normal tiles."""
    for num_directions in (2, 8):
        for num_tiles in (1, 2, 4):
            yield {"num_directions": num_directions, "num_tiles": num_tiles}
