"""Gradients of an actor and a critic in the Hessian's leading eigenspace (Schneider et al., 2024).

python -m experiments.policy_gradient_subspace --config=configs/policy_gradient_subspace.py:smoke
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False)
    config = ConfigDict()
    config.seed = 0
    config.environments = ("CartPole", "Pendulum")
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
    return config


def sweep():
    """The size of the subspace."""
    for k in (5, 10, 20, 50, 100):
        yield {"k": k}
