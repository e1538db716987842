"""Measuring the intrinsic dimension of objective landscapes (Li et al., 2018).

    python -m experiments.intrinsic_dimension --config=configs/intrinsic_dimension.py:OPTIONS

Options: ``mnist`` (all 60,000 images, the paper's 100 epochs, 3 seeds), ``paper`` (with ``mnist``:
30 d and the authors' Adam and weight decay, for an accelerator), ``toy`` (the paper's
1000-parameter problem with intrinsic dimension 10), ``cartpole`` and ``pendulum`` (by evolution
strategies), ``q_learning`` (of the pole, as in the paper), ``game=NAME`` (a task of the package
gymnax, by evolution strategies; such as ``Breakout-MinAtar``), ``fashion`` (Fashion-MNIST, to go
with ``mnist`` or alone), ``lenet`` (that network instead),
``untied_lenet`` and ``dense_lenet`` (its convolutions without shared weights, or dense),
``width=N`` and ``depth=N`` (of the hidden layers), ``shuffled_pixels``, ``shuffled_labels=SHARE``
(of the training labels; scored on training images), ``smoke`` (seconds), ``d=N`` (that d alone).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg, training

DIMS = (50, 100, 200, 300, 400, 500, 625, 750, 875, 1000, 1250, 1500)
FINE = (
    10, 50, 100, 150, *range(200, 625, 25), 650, 700, 750, 800, 850, 900, 1000, 1250, 1500
)  # fmt: skip


def get_config(arg=None):
    options = parse_arg(
        arg, smoke=False, mnist=False, paper=False, toy=False, cartpole=False, pendulum=False,
        q_learning=False, game="", fashion=False, lenet=False, untied_lenet=False,
        dense_lenet=False, width=200, depth=2, shuffled_pixels=False, shuffled_labels=0.0, d=0,
    )  # fmt: skip
    lenets = [name for name in ("lenet", "untied_lenet", "dense_lenet") if vars(options)[name]]
    if len(lenets) > 1:
        raise ValueError(f"choose one of {', '.join(lenets)}")
    images = options.mnist or options.fashion or bool(lenets)
    control = [options.cartpole, options.pendulum, options.q_learning, bool(options.game)]
    if images + options.toy + sum(control) > 1:
        choices = "toy, cartpole, pendulum, q_learning and a game"
        raise ValueError(f"choose one of images (mnist, fashion, lenet), {choices}")
    config = training()
    config.problem = "mlp"
    config.data = "mnist5k"
    config.data_path = ""  # a folder of official IDX files, instead of the named data set
    config.validation = False  # score on held-out training images: for tuning
    config.shuffled_pixels = options.shuffled_pixels  # by one permutation for all images
    config.shuffled_labels = options.shuffled_labels  # share of the training labels
    config.hidden = (options.width,) * options.depth
    config.dims = DIMS
    config.num_seeds = 2
    config.average = "mean"  # of the seeds' scores; or median
    config.projection = "hashed"
    config.fraction = 0.9  # d_int90: the smallest d that reaches this share of the baseline
    config.batch_size = 128
    config.learning_rate = 1e-2  # Adam, on z
    config.direct_learning_rate = 1e-3  # Adam, on all parameters
    config.beta2 = 0.999  # of Adam
    config.l2 = 0.0  # times the squared norm of all parameters, in the loss
    config.environment = ""  # of evolution and q_learning
    config.returns = (0.0, 500.0)  # of an episode: which scores nothing, which all
    config.population = 32  # of evolution: policies in a step, in antithetic pairs
    config.sigma = 1.0  # noise of every entry of z; the projection is isometric
    config.direct_sigma = 0.05  # noise of every parameter
    config.horizon = 500  # of an episode, in steps
    config.q_learning = ConfigDict()
    config.decay = False  # cosine decay of both to zero
    config.num_bootstrap = 1000
    config.max_gigabytes = 8.0  # of all projections
    config.num_steps = 1200
    config.steps_per_call = 20
    config.checkpoint_every = 200

    if options.mnist:
        config.data = "mnist"
        config.num_seeds = 3
        config.num_steps = 46_800
        config.log_every = 400
        config.checkpoint_every = 2000
    if options.paper:
        if not options.mnist:
            raise ValueError("paper goes with mnist")
        config.dims, config.beta2, config.l2 = FINE, 0.99, 1e-5
    if options.fashion:
        config.data = "fashion_mnist"
    if lenets:
        config.problem = lenets[0]
        config.dims = (50, 100, 150, 200, 250, 275, 300, 350, 400, 500, 600, 750)
    if options.shuffled_labels:
        config.dims = (500, 1000, 2000, 4000, 8000, 12_000, 16_000, 24_000, 32_000)
    if any(control):
        config.environment, config.returns = "CartPole", (0.0, 500.0)
        evolution(config)
    if options.pendulum:
        pendulum(config)
    if options.game:
        config.environment, config.returns = f"gymnax/{options.game}", (0.0, 10.0)
    if options.q_learning:
        q_learning(config)
    if options.toy:
        toy(config)
    if options.smoke:
        if config.data == "mnist5k" and not lenets:  # for which 8 x 8 pixels are too few
            config.data = "digits"
        config.hidden = (32,)
        config.population, config.horizon = 8, 50
        config.dims = (5, 20) if options.toy else (10, 100)
        config.num_seeds = 2
        config.num_steps, config.steps_per_call = 40, 10
        config.log_every = config.checkpoint_every = 20
    if options.d:
        config.dims = (options.d,)
    return config


def q_learning(config):
    config.problem = "q_learning"
    config.hidden = (200, 200)
    config.dims = (32, 64, 128, 256, 512, 1024, 2048)
    config.num_seeds = 3
    config.batch_size = 64
    config.learning_rate, config.direct_learning_rate = 1e-2, 1e-3
    config.decay = True
    config.num_steps = 40_000
    config.steps_per_call, config.log_every, config.checkpoint_every = 100, 500, 2500
    config.q_learning.num_envs = 8
    config.q_learning.capacity = 32_768  # steps that are remembered
    config.q_learning.target_rate = 0.005  # of the running mean that values what comes later
    config.q_learning.explore = 0.3  # share of the steps in which chance falls
    config.q_learning.least_chance = 0.05
    config.q_learning.discount = 0.99
    config.q_learning.reward_offset = 1.0  # what standing gives: only a lost pole counts
    config.q_learning.reward_scale = 1.0  # of what is more or less than that


def evolution(config):
    config.problem = "evolution"
    config.hidden = (64, 64)
    config.dims = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 64)
    config.num_seeds = 10
    config.batch_size = 1  # episodes of each policy
    config.learning_rate = 1.0
    config.direct_learning_rate = 0.03
    config.num_steps = config.checkpoint_every = config.log_every = 40
    config.steps_per_call = 10


def pendulum(config):
    config.environment, config.returns = "Pendulum", (-1600.0, -150.0)  # the best known: about -150
    config.dims = (1, 2, 4, 8, 16, 32, 64)
    config.num_seeds = 4
    config.population, config.batch_size = 128, 4
    config.decay = True
    config.num_steps, config.log_every, config.checkpoint_every = 300, 20, 100


def toy(config):
    config.problem = "toy"
    config.dims = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20)
    config.num_seeds = 20
    config.average = "median"  # at d = 10 a few seeds draw an ill-conditioned 10 x 10 system
    config.learning_rate = config.direct_learning_rate = 0.1
    config.decay = True
    config.num_steps = 4000
    config.steps_per_call = 100
    config.log_every = 1000
    config.checkpoint_every = 1000


def sweep():
    """Both learning rates, held and decayed, scored on held-out training images."""
    for decay in (False, True):
        for z_rate, direct_rate in ((3e-3, 3e-4), (1e-2, 1e-3), (3e-2, 3e-3)):
            rates = {"learning_rate": z_rate, "direct_learning_rate": direct_rate}
            yield {"validation": True, "decay": decay, **rates}
