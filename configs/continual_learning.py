"""Continual learning on streams of tasks (CoSO, GPM, EASE, SPARC).

    python -m experiments.continual_learning --config=configs/continual_learning.py:OPTIONS

Options: ``data=mnist5k`` (instead of 8 x 8 digits), ``smoke`` (seconds).
"""

import itertools

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, data="digits")
    config = ConfigDict()
    config.seed = 0
    config.data = options.data
    config.validation = False  # held-out training images and other permutations: for tuning
    config.streams = ("permuted", "split", "recurring")
    config.methods = ("joint", "naive SGD", "naive Adam", "GPM", "CoSO")
    config.methods += ("EASE", "first adapter", "frozen means")  # on split alone
    config.methods += ("SPARC", "full prompt", "no prompt")  # on recurring alone
    config.methods += ("iGSP variant", "own expert")
    config.num_tasks = 8  # of the permuted and the recurring stream
    config.classes_per_task = 2
    config.num_seeds = 3
    config.hidden = (128, 128)
    config.num_epochs = 10  # of every task
    config.batch_size = 32
    config.naive_sgd = ConfigDict({"learning_rate": 0.01})
    config.naive_adam = ConfigDict({"learning_rate": 1e-4})
    config.joint = ConfigDict({"learning_rate": 3e-3})  # Adam; also of networks before the stream
    config.gpm = ConfigDict({"learning_rate": 0.6, "threshold": 0.97, "num_inputs": 300})
    config.coso = ConfigDict({"learning_rate": 3e-3, "threshold": 0.97, "refresh_every": 10})
    config.coso.rank, config.coso.sketch_size = 15, 32
    config.ease = ConfigDict({"learning_rate": 1e-3, "bottleneck": 16, "alpha": 0.1})
    config.ease.gamma = 30.0  # of the logits gamma cos while an adapter is trained
    config.sparc = ConfigDict({"learning_rate": 0.03, "rank": 6, "threshold": 0.5})
    config.igsp = ConfigDict({"learning_rate": 1e-2, "rank": 24, "num_candidates": 1})
    config.igsp.penalty, config.igsp.threshold = 0.1, 0.1

    if options.smoke:
        config.streams = ("split", "recurring")
        config.methods = ("naive SGD", "GPM", "CoSO", "EASE", "SPARC", "iGSP variant")
        config.num_tasks, config.classes_per_task = 2, 5
        config.num_seeds, config.num_epochs = 2, 2
        config.hidden = (16,)
        config.coso.rank, config.coso.sketch_size = 4, 8
        config.ease.bottleneck = config.igsp.rank = 4
    return config


def sweep():
    """On held-out training images and other permutations: the settings of CoSO, GPM, EASE, iGSP."""
    tuning = {"validation": True, "num_seeds": 2}
    grids = {
        ("CoSO", "coso", "permuted"): ((1e-3, 3e-3, 1e-2), "threshold", (0.85, 0.93, 0.97)),
        ("GPM", "gpm", "permuted"): ((0.1, 0.3, 0.6, 1.0), "threshold", (0.93, 0.97, 0.98)),
        ("EASE", "ease", "split"): ((3e-4, 1e-3, 3e-3), "gamma", (3.0, 10.0, 30.0)),
        ("iGSP variant", "igsp", "recurring"): ((3e-3, 1e-2), "penalty", (0.03, 0.1, 0.3)),
    }
    for (method, name, stream), (rates, knob, values) in grids.items():
        for rate, value in itertools.product(rates, values):
            chosen = {f"{name}.learning_rate": rate, f"{name}.{knob}": value}
            yield tuning | {"methods": (method,), "streams": (stream,)} | chosen
