"""Subspaces that denoisers learn, and edits along the directions of their Jacobians.

    python -m experiments.diffusion_subspaces --config=configs/diffusion_subspaces.py:OPTIONS

Options: ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.ambient_dim, config.num_clusters = 64, 3
    config.noise = 0.005  # of every coordinate of the samples, whose own deviation is one
    config.dims = (2, 4, 8, 16)
    config.ratios = (0.5, 1.5, 2.0, 3.0)  # points a cluster / d, beside those about one
    config.num_seeds = 6
    config.num_restarts = 6
    config.num_steps, config.learning_rate = 300, 0.1  # of Riemannian Adam
    config.sigma_range = (0.02, 0.2)
    config.threshold = 0.5  # subspaces are found when no principal angle has a larger sine

    net = config.network = ConfigDict()
    net.names = ("dense", "U-Net")
    net.dim, net.width, net.channels = 4, 256, (32, 64)
    net.ratios = (4.0, 15.0, 60.0, 250.0)  # points a cluster / d
    net.num_steps = ConfigDict({"dense": 4000, "U-Net": 1500})  # at ten times the time each
    net.num_seeds, net.batch_size, net.learning_rate = 2, 128, 3e-3
    net.sigma_range = (0.05, 0.5)
    net.sigma = 0.2  # where the Jacobian is taken
    net.num_test = 8  # points a cluster

    config.priors = ("heads", "lungs", "mixture")
    config.head_weights = "experiments/assets/denoiser64.npz"
    config.lung_weights = "experiments/assets/denoiser_ct64.npz"
    config.num_images = 4
    config.levels = (0.1, 0.3, 1.0, 3.0, 10.0)
    config.rank, config.num_powers, config.num_probes = 48, 1, 8
    config.share = 0.9  # of the sum of squared singular values, which the numerical rank holds
    config.num_directions = 3
    config.edit_level = 1.0
    config.edit_size = 3.0  # norm
    config.num_edit_steps = 10
    if options.smoke:
        config.dims, config.ratios, config.num_seeds, config.num_restarts = (2,), (3.0,), 2, 3
        config.num_steps = 60
        net.ratios, net.num_seeds, net.width, net.channels = (20.0,), 2, 32, (8, 8)
        net.num_steps = ConfigDict(dict.fromkeys(net.names, 40))
        config.priors, config.rank, config.levels = ("mixture",), 6, (0.3, 1.0)
        config.num_images = 2
    return config


def sweep():
    """Noise of the samples."""
    for noise in (0.001, 0.005, 0.02, 0.1):
        yield {"noise": noise}
