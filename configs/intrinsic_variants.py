"""Intrinsic dimension over networks and data (Li et al., 2018, sections 3.1 to 3.2 and S5).

    python -m experiments.intrinsic_variants --config=configs/intrinsic_variants.py:OPTIONS

Options: ``mnist`` (all of MNIST and the paper's 100 epochs: for accelerators), ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs import intrinsic_dimension
from configs.common import parse_arg

FINE = (100, 150, 200, 250, 300, 400, 500, 600, 700, 800, 1000, 1250)
LENET = (150, 200, 250, 300, 400, 500, 600)
COARSE = (400, 600, 800, 1000, 1400, 2000)
COARSEST = (600, 1000, 1400, 2000)  # a network of 3.6 million parameters
MEMORY = (500, 1000, 2000, 4000, 8000, 16_000, 32_000)
NO_PAPER = 0  # says the paper in a picture only, or not at all

VARIANTS = (  # name, what differs from config.training, dims, the paper's d_int90 on MNIST
    ("fully connected, 2 x 200", {}, FINE, 525),
    ("... 2 x 50", {"hidden": (50, 50)}, FINE, NO_PAPER),
    ("... 2 x 100", {"hidden": (100, 100)}, FINE, NO_PAPER),
    ("... 2 x 400", {"hidden": (400, 400)}, FINE, NO_PAPER),
    ("... 1 x 200", {"hidden": (200,)}, FINE, NO_PAPER),
    ("... 4 x 200", {"hidden": (200, 200, 200, 200)}, FINE, NO_PAPER),
    ("... pixels shuffled", {"shuffled_pixels": True}, FINE, NO_PAPER),
    ("... Fashion-MNIST", {"data": "fashion_mnist"}, FINE, NO_PAPER),
    ("LeNet", {"problem": "lenet"}, LENET, 275),
    ("... its weights not shared", {"problem": "untied_lenet"}, COARSE, 450),
    ("... its convolutions dense", {"problem": "dense_lenet"}, COARSEST, 1400),
    ("... pixels shuffled", {"problem": "lenet", "shuffled_pixels": True}, COARSE, NO_PAPER),
    ("... Fashion-MNIST", {"problem": "lenet", "data": "fashion_mnist"}, COARSE, NO_PAPER),
    ("2 x 200, 10 % of labels random", {"shuffled_labels": 0.1}, MEMORY, NO_PAPER),
    ("... half of the labels", {"shuffled_labels": 0.5}, MEMORY, NO_PAPER),
    ("... all labels", {"shuffled_labels": 1.0}, MEMORY, NO_PAPER),
)


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, mnist=False)
    config = ConfigDict()
    config.seed = 0
    config.training = intrinsic_dimension.get_config("mnist" if options.mnist else "")
    config.variants = VARIANTS
    if options.smoke:
        config.training = intrinsic_dimension.get_config("smoke")
        config.variants = (
            ("two layers", {"hidden": (32, 32)}, (10, 100), 525),
            ("labels random", {"shuffled_labels": 1.0}, (10, 100), NO_PAPER),
        )
    return config


def sweep():
    """A run each, to be spread over machines."""
    for variant in VARIANTS:
        yield {"variants": (variant,)}
