"""Grassmann class representation at the scale of its paper: ResNet50-D on ImageNet.

    python -m experiments.imagenet --config=configs/imagenet.py:OPTIONS --config.data_path=FOLDER

Options: ``rank=N`` (dimension of a class; 0 is softmax), ``synthetic`` (random images of the real
shape, two steps), ``smoke`` (seconds).
"""

from configs.common import parse_arg, training


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, synthetic=False, rank=8)
    config = training()
    config.data_path = ""  # a folder with train/CLASS/* and val/CLASS/*
    config.synthetic = options.synthetic
    config.num_train = 1_281_167
    config.num_classes = 1000
    config.image_size = 224
    config.stages = (3, 4, 6, 3)
    config.width = 64  # 32 times as many features
    config.compute_dtype = "float32"  # of convolutions; or bfloat16
    config.rank = options.rank
    config.gamma = 25.0
    config.batch_size = 256
    config.learning_rate = 0.1
    config.momentum = 0.9
    config.weight_decay = 1e-4
    config.warmup_epochs = 0
    config.decay_epochs = (30, 60, 90)
    config.num_steps = 100 * (config.num_train // config.batch_size)
    config.steps_per_call = 1
    config.checkpoint_every = 5000
    if options.synthetic or options.smoke:
        config.num_steps, config.log_every, config.checkpoint_every = 2, 1, 2
    if options.smoke:
        config.synthetic = True
        config.num_classes, config.image_size, config.batch_size = 10, 32, 8
        config.stages, config.width, config.rank = (1, 1), 8, 2
        config.learning_rate = 0.01
    return config


def sweep():
    """Softmax and the paper's dimensions."""
    for rank in (0, 1, 4, 8, 16, 32):
        yield {"rank": rank}
