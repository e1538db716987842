"""A prior for images of heads, lungs or clothes: a denoiser at every level of noise.

    python -m experiments.train_denoiser --config=configs/train_denoiser.py:OPTIONS

Options: ``ct`` (lungs instead of heads), ``fashion`` (Fashion-MNIST, 32 x 32), ``size=256`` (pixels
of a side; from 128 on a wider network, for a GPU), ``smoke`` (seconds, on the slices that come with
the code). With --config.scans=FILE.h5 and --config.tune_scans=ANOTHER.h5 (like fastMRI's; for
``ct`` folders of slices like AAPM's) it learns those instead.
"""

from configs.common import parse_arg, training
from experiments import heads


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, ct=False, fashion=False, size=64)
    config = training()
    config.size = options.size
    config.subject = "heads"  # or lungs, fashion
    config.scans = config.tune_scans = ""  # files to learn and to test on instead
    config.heads = heads.TRAIN
    config.warp = 0.0  # mm, of the smooth random shifts that make other heads of them
    config.num_slices = 12_288  # random ones that are cut before training
    config.contrast = 0.2  # deviations of the logarithms of an exponent and of a factor
    config.brightness = 0.15
    config.channels = (48, 96, 128)
    config.num_blocks = 2  # at each resolution, down and up
    config.sigma_data = 0.25  # about the root mean square of a real or imaginary part
    config.log_sigma = (-1.5, 1.4)  # mean and standard deviation, in training
    config.learning_rate = 1e-3  # of Adam
    config.muon_rate = 0.02  # of Muon, for the kernels; 0: Adam for these too
    config.warmup = 100  # steps; then it falls to zero as a cosine
    config.ema = 0.999
    config.batch_size = 16
    config.num_steps = 9_000
    config.steps_per_call = 1  # convolutions in a loop are slow on a CPU
    config.log_every = 100
    config.checkpoint_every = 500
    config.sigmas = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the test on the tuning subject
    config.num_levels = 40  # of the samples on the sheet
    if options.ct or options.fashion:  # as the weights that come with the code were trained
        config.channels, config.muon_rate, config.num_steps = (32, 64, 96), 0.0, 12_000
    if options.ct:
        config.subject, config.sigma_data = "lungs", 0.35
        config.contrast = config.brightness = 0.05  # values in HU mean something
    if options.fashion:
        config.subject, config.size, config.sigma_data = "fashion", 32, 0.4
        config.contrast = config.brightness = 0.0
    if options.size >= 128:
        config.warp = 3.0
        config.channels = (96, 192, 256, 256)
        config.num_steps, config.batch_size = 40_000, 32
        config.learning_rate, config.ema, config.warmup = 3e-4, 0.9995, 1000
        config.muon_rate = 0.0
        config.log_every, config.checkpoint_every = 200, 2000
    if options.smoke:
        config.heads, config.num_slices = (), 0  # what comes with the code
        config.channels, config.num_blocks = (8, 16), 1
        config.batch_size, config.num_steps, config.num_levels = 4, 20, 8
        config.log_every = config.checkpoint_every = 10
        config.warmup = 5
    return config


def sweep():
    """Widths, and levels of noise to train at."""
    for channels in ((32, 64, 96), (48, 96, 128)):
        for mean in (-2.0, -1.5, -1.0):
            yield {"channels": channels, "log_sigma": (mean, 1.4)}
