"""Learned directions for conjugate gradients (DCDM).

    python -m experiments.dcdm --config=configs/dcdm.py:OPTIONS

Options: ``demo`` (a minute: the weights in experiments/results), ``paper`` (the paper's network
in place of ours), ``d3`` (solids), ``smoke`` (seconds).
"""

from configs.common import parse_arg, training


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, demo=False, paper=False, d3=False)
    config = training()
    config.rank = 3 if options.d3 else 2
    config.size = 32 if options.d3 or options.paper else 64  # cells along each side, in training
    config.images = ("box", "coins", "camera")  # obstacles in training; box: none
    config.num_masks = 4  # domains of each image
    config.num_ritz = 300  # Lanczos steps of a training domain
    config.theta = 10  # Ritz vectors above the lower half that count in full
    config.batch_size = 10
    config.num_steps = 3000 if options.paper else 2000
    config.steps_per_call = 1  # XLA convolves slowly inside loops on a CPU
    config.learning_rate = 1e-3 if options.paper else 2e-3  # at the start; falls as a cosine
    config.network = "paper" if options.paper else "gated"
    config.levels = 1 if options.paper else 4  # how often the network halves the grid
    config.width = 16
    config.weights = ""  # a file that a run has written; without it the network is trained

    config.test_sizes = (32, 64, 128, 256)
    config.test_images = ("horse", "page")  # never seen in training
    config.num_test_masks = 2
    config.tolerances = (1e-4, 1e-8)
    config.maxiter = 1000
    config.num_conjugate = 2
    config.num_deflated = 16  # Ritz vectors of the deflated CG, and the rank of Nystrom's
    config.num_repeats = 3
    config.methods = ("cg", "jacobi", "ssor", "nystrom", "deflated", "multigrid", "dcdm")

    if options.d3:
        config.test_sizes = (16, 32, 64)
    if options.demo:
        config.weights = "experiments/results/dcdm.msgpack"
        config.test_sizes, config.num_repeats = (32, 128), 1
        config.methods = ("cg", "multigrid", "dcdm")
    if options.smoke:
        config.size, config.test_sizes = 16, (16,)
        config.num_masks = config.num_test_masks = config.num_repeats = 1
        config.num_ritz, config.theta, config.levels = 60, 3, min(config.levels, 2)
        config.num_steps, config.batch_size = 60, 4
        config.log_every = config.checkpoint_every = 20
        config.methods = ("cg", "deflated", "multigrid", "dcdm")
    return config


def sweep():
    """The network, its levels, and how many directions are kept."""
    for network in ("gated", "paper"):
        for levels in (1, 2, 3):
            for num_conjugate in (0, 2, 8):
                yield {"network": network, "levels": levels, "num_conjugate": num_conjugate}
