"""Grassmann class representation (Wang, Li & Zhang, 2023) against softmax.

    python -m experiments.grassmann_class_representation \\
        --config=configs/grassmann_class_representation.py:data=glyphs,OPTIONS

Options: ``data=NAME`` (mnist5k, mnist, fashion_mnist, glyphs, digits), ``conv`` (a convolutional
backbone), ``smoke`` (seconds).
"""

from configs.common import parse_arg, training

TRANSFER = {
    "mnist5k": ("digits",),
    "mnist": ("digits", "fashion_mnist"),
    "fashion_mnist": ("digits", "mnist"),
    "glyphs": ("glyph_digits", "glyph_greek", "glyph_cyrillic"),
    "digits": ("mnist5k",),
}


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, conv=False, data="mnist5k")
    if options.data not in TRANSFER:
        raise ValueError(f"data must be one of {', '.join(TRANSFER)}; got {options.data!r}")
    config = training()
    config.data = options.data
    config.data_path = ""  # a folder of official IDX files, instead of the named data set
    config.transfer = TRANSFER[options.data]  # sets that the frozen features are tried on
    config.num_train = 10_000
    config.num_test = 10_000
    config.num_probe = 5000  # training images of a linear probe
    config.validation = 0.2  # share of the training images held out, to choose the learning rate
    config.baselines = ("softmax", "cosine softmax", "label smoothing")
    config.ranks = (1, 4, 8, 16, 32)
    config.gamma = 25.0  # the paper's scale of the logits
    config.label_smoothing = 0.1
    config.backbone = "mlp"
    config.hidden = (256,)
    config.channels = (32, 64)  # of the convolutional backbone
    config.num_features = 128
    config.num_seeds = 5
    config.learning_rates = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
    config.momentum = 0.9
    config.transport = "ambient"  # of the momentum; the paper's code
    config.weight_decay = 1e-4  # not on subspaces
    config.batch_size = 128
    config.num_steps = 600
    config.steps_per_call = 20
    config.log_every = 300
    config.checkpoint_every = 300

    if options.conv:
        config.backbone = "conv"
        config.num_seeds = 3
        config.learning_rates = (0.025, 0.05, 0.1, 0.2, 0.4)
    if options.smoke:
        config.data, config.transfer = "digits", ("mnist5k",)
        config.num_probe = config.num_test = 300
        config.baselines, config.ranks = ("softmax",), (1, 4)
        config.hidden, config.num_features, config.channels = (32,), 32, (4, 8)
        config.num_seeds, config.learning_rates = 2, (0.05, 0.2)
        config.num_steps, config.steps_per_call = 40, 10
        config.log_every = config.checkpoint_every = 20
    return config


def sweep():
    """All data sets; the ambient momentum of the paper's code and the projected one."""
    for name in TRANSFER:
        for transport in ("ambient", "projection"):
            transfer = TRANSFER[name]
            yield {"data": name, "transfer": transfer, "transport": transport}
