"""Language models trained by optimizers whose state has a low rank (GaLore, 2024, and others).

    python -m experiments.low_rank_training --config=configs/low_rank_training.py:OPTIONS

Options: ``small`` (a tenth of the parameters), ``llama60m`` and ``llama130m`` (the shapes and the
schedule of GaLore's paper, on bytes; for accelerators), ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg
from experiments.transformer import LLAMA_60M, LLAMA_130M

METHODS = (
    "Adam",
    "GaLore",
    "GaLore, recovered",
    "OSD",
    "SARA",
    "GrassWalk",
    "GrassJump",
    "SN-SM",
)


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, small=False, llama60m=False, llama130m=False)
    config = ConfigDict()
    config.seed = 0
    config.path = ""  # a text file or a folder, instead of Python's standard library
    config.num_bytes = 4_000_000
    config.shape = (4, 128, 4, 352, 256)  # layers, width, heads, feed-forward width, vocabulary
    config.context = 128
    config.batch_size = 16
    config.num_steps = 600
    config.num_tuning_steps = 200  # of the runs that choose learning rates
    config.warmup = 0.1  # share of the steps; then a cosine down to a tenth
    config.log_every = 50
    config.num_windows = 128  # to evaluate on
    config.methods = METHODS
    config.rank = 32
    config.ranks = (8, 16, 64)  # besides, with the learning rate of ``rank`` and one seed
    config.rank_methods = METHODS[1:]  # for which other ranks are tried
    config.refresh_every = 50  # steps; 200 in the papers' runs of 10,000 and more. OSD: 1
    config.learning_rates = (3e-3, 1e-2, 3e-2, 1e-1)  # chosen on a part of the text for tuning
    config.num_seeds = 2
    if options.small:
        config.shape, config.context, config.batch_size = (2, 64, 4, 176, 256), 64, 8
        config.rank, config.ranks, config.num_windows = 16, (4, 32), 256
        config.num_steps, config.num_tuning_steps = 400, 100
    if options.llama60m or options.llama130m:
        config.shape = tuple(LLAMA_130M if options.llama130m else LLAMA_60M)
        config.context, config.batch_size, config.refresh_every = 256, 512, 200
        config.num_steps = 20_000 if options.llama130m else 10_000
        config.num_tuning_steps, config.log_every = 1000, 200
        config.rank, config.ranks = 256 if options.llama130m else 128, ()
        config.learning_rates, config.num_seeds = (1e-3, 5e-3, 1e-2), 1
        config.num_bytes = 100_000_000
    if options.smoke:
        config.shape, config.context, config.batch_size = (1, 16, 2, 24, 256), 16, 4
        config.num_bytes, config.num_steps, config.num_tuning_steps = 200_000, 20, 10
        config.log_every, config.num_windows, config.rank, config.ranks = 10, 16, 4, ()
        config.methods, config.num_seeds = ("Adam", "GaLore", "GrassWalk"), 1
        config.learning_rates = (1e-2,)
    return config


def sweep():
    """How often the bases move."""
    for refresh_every in (10, 50, 200):
        yield {"refresh_every": refresh_every, "ranks": ()}
