"""Gradients of an actor and a critic in the Hessian's leading eigenspace (Schneider et al., 2024).

python -m experiments.policy_gradient_subspace --config=configs/policy_gradient_subspace.py:smoke
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.tasks = (("PPO", "CartPole"), ("PPO", "Pendulum"), ("SAC", "Pendulum"))
    config.num_seeds = 3
    config.hidden = (64, 64)
    config.num_envs = 16
    config.num_steps = 128  # of every environment between two rounds of learning
    config.num_rounds = 300
    config.num_epochs = 10
    config.batch_size = 64
    config.learning_rate = 3e-4
    config.discount = 0.98
    config.trace = 0.95  # of generalized advantages
    config.clip = 0.2
    config.entropy = 0.0
    config.reward_scale = 0.1  # values of the order of one
    config.sac = sac()
    config.k = 20  # eigenvectors
    config.measure_every = 30  # rounds
    config.measure_steps = 512  # of every environment: what the Hessian is of
    config.rtol = 1e-3  # of an eigenpair
    config.num_minibatches = 20
    if options.smoke:
        config.num_seeds, config.hidden, config.k, config.num_envs = 1, (8,), 4, 4
        config.num_steps, config.num_rounds, config.measure_every = 16, 4, 2
        config.num_epochs, config.batch_size, config.measure_steps = 2, 16, 32
        config.num_minibatches = 2
        config.sac.update(warm_up=4, num_steps=8, num_updates=1, batch_size=16, capacity=100)
    return config


def sac():
    config = ConfigDict()
    config.warm_up = 64  # steps of every environment before it learns
    config.num_steps = 32  # of every environment in a round
    config.num_updates = 4  # after each of them
    config.batch_size = 256
    config.learning_rate = 1e-3
    config.capacity = 50_000  # steps that are remembered
    config.follow = 0.005  # of the way to the critic, for the one that sets its aims
    return config


def sweep():
    """The size of the subspace."""
    for k in (5, 10, 20, 50, 100):
        yield {"k": k}
