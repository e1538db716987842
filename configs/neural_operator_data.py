"""Data for a neural operator by recycling (SKR).

    python -m experiments.neural_operator_data --config=configs/neural_operator_data.py:OPTIONS

Options: ``released`` (the matrix of the paper's code, slightly nonsymmetric), ``few`` (fields of
three parameters, where sorting pays), ``paper`` (a grid and a network of the paper's size: for a
GPU), ``smoke`` (seconds).
"""

from configs.common import parse_arg, training


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, released=False, few=False, paper=False)
    config = training()
    config.matrix = "released" if options.released else "conservative"
    config.field = "few" if options.few else "full"
    config.size = 48  # cells along each side
    config.num_train = 480
    config.num_test = 96
    config.rtol = 1e-5
    config.test_rtol = 1e-10  # of the systems that errors are measured on
    config.maxiter = 10_000
    config.recycling = "gcrodr" if options.released else "recycled_cg"
    config.num_recycled = 20 if options.released else 8  # the paper's, of a basis of 40
    config.num_directions = 24  # of recycled_cg
    config.independent = "gmres" if options.released else "cg"  # the control data
    config.baselines = ("bicgstab",) if options.released else ("gmres",)  # timed, not learned from
    config.num_chains = 4  # sequences side by side
    config.portion = 120  # systems between two files

    config.width = 16
    config.modes = 8
    config.num_layers = 4
    config.padding = 0  # cells
    config.num_seeds = 2
    config.batch_size = 8
    config.learning_rate = 2e-3  # at the start; falls as a cosine
    config.num_steps = 1200

    if options.paper:
        config.size, config.num_train, config.num_test, config.portion = 100, 1000, 200, 1000
        config.num_chains, config.width, config.modes = 50, 32, 12
        config.num_steps = 25_000
    if options.smoke:
        config.size, config.num_train, config.num_test, config.portion = 16, 24, 8, 12
        config.num_chains, config.width, config.modes, config.num_layers = 2, 8, 4, 2
        config.batch_size, config.num_steps = 8, 40
        config.log_every = config.checkpoint_every = 20
    return config


def sweep():
    """Solver, fields, tolerance."""
    for recycling in ("gcrodr", "recycled_cg"):
        for field in ("full", "few"):
            for rtol in (1e-2, 1e-5):
                yield {"recycling": recycling, "field": field, "rtol": rtol}
