"""Weights of memorised images in a denoiser with prompts: located and removed.

    python -m experiments.memorized_subspace --config=configs/memorized_subspace.py:OPTIONS

Options: ``smoke`` (seconds, on the 8 x 8 digits).
"""

from configs.common import parse_arg, training


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = training()
    config.data = "fashion_mnist"
    config.num_seeds = 3  # each with images, captions and networks of its own
    config.num_duplicated = 20
    config.num_ordinary = 5000
    config.copies = 100  # of each duplicated image
    config.caption_size = 32
    config.drop_prompt = 0.1  # share of a batch with the empty prompt
    config.width, config.hidden, config.num_layers = 192, 256, 3
    config.sigma_data = 0.7  # root mean square of a pixel
    config.log_sigma = (-0.5, 1.5)
    config.learning_rate, config.warmup = 1e-3, 100
    config.batch_size = 128
    config.num_steps = 3000
    config.steps_per_call, config.log_every, config.checkpoint_every = 20, 200, 1000
    config.sigma_range = (0.02, 20.0)  # of the sampler
    config.num_levels = 20
    config.num_locating = 10  # duplicated prompts to locate with; the rest is held out
    config.num_probes = 8  # trajectories a prompt
    config.num_first = 5  # levels of the trajectory whose neurons count
    config.shares = (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)  # of each output's weights
    config.counts = (1, 2, 5, 10, 15)  # prompts to locate with, at share_shown
    config.share_shown = 0.1
    config.tolerance = 0.05  # replication of the locating prompts that chooses the share
    config.replica = 1 / 3  # ratio of the nearest to the second nearest training image
    config.num_samples = 4  # generations a duplicated prompt
    config.num_others = 500  # generations of new prompts
    config.num_test = 1000  # images for the loss and the distance
    config.num_shown = 8
    config.num_classifier_steps = 1500
    if options.smoke:
        config.data, config.num_seeds = "digits", 1
        config.num_duplicated, config.num_ordinary, config.num_locating = 4, 100, 2
        config.width, config.hidden, config.num_layers = 32, 48, 2
        config.batch_size, config.num_steps, config.num_levels = 32, 200, 8
        config.log_every = config.checkpoint_every = 100
        config.shares, config.num_probes, config.num_first = (0.05, 0.2), 2, 2
        config.counts = (1, 3)
        config.num_samples, config.num_others, config.num_test = 2, 32, 64
        config.num_shown, config.num_classifier_steps = 4, 100
    return config


def sweep():
    """How often images are repeated, and how many are."""
    for copies in (30, 100):
        for num_duplicated in (20, 50):
            yield {"copies": copies, "num_duplicated": num_duplicated}
