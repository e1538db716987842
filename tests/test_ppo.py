"""Proximal policy optimization and its tasks, against sums, formulas and an integrator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from configs import policy_gradient_subspace as configs
from experiments import environments
from experiments.ppo import advantages, ppo

KEY = jax.random.key(0)


def test_an_advantage_is_the_decayed_sum_of_the_episode_s_later_gains():
    rng = np.random.default_rng(0)
    gains, is_over = rng.standard_normal((9, 3)), rng.uniform(size=(9, 3)) < 0.3
    expected = np.zeros((9, 3))
    for t, i in np.ndindex(9, 3):
        for later in range(t, 9):
            expected[t, i] += 0.9 ** (later - t) * gains[later, i]
            if is_over[later, i]:
                break
    found = advantages(jnp.asarray(gains), jnp.asarray(is_over), 0.9)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CartPole", "Pendulum"])
def test_where_steps_were_played_the_surrogate_s_gradient_is_the_policy_gradient(name):
    learner = ppo(configs.get_config("smoke"), environments.ENVIRONMENTS[name]())
    params = learner.init(KEY)
    steps = learner.play(params, learner.start(KEY), KEY, 20)[1]

    def log_probs(actor):  # the surrogate is linear in each ratio while none is clipped
        first = steps._replace(advantage=jnp.ones(1), log_prob=jnp.zeros(1))
        return jax.vmap(
            lambda seen, action: (
                -learner.actor_loss(
                    actor, first._replace(observation=seen[None], action=action[None])
                )
            )
        )(steps.observation, steps.action)

    config = configs.get_config("smoke")
    config.clip = 1e9
    wide = ppo(config, environments.ENVIRONMENTS[name]())
    np.testing.assert_allclose(
        wide.actor_loss(params["actor"], steps._replace(advantage=steps.advantage * 0 + 1)),
        -1.0,
        rtol=1e-5,
    )  # every ratio is one: the stored log-probabilities are the policy's
    learner = wide
    ratios = jax.jacobian(log_probs)(params["actor"])
    scale = jnp.exp(-steps.log_prob) * steps.advantage / len(steps.advantage)
    expected = jax.tree.map(lambda J: -jnp.tensordot(scale, J, 1), ratios)
    found = jax.grad(wide.actor_loss)(params["actor"], steps)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_pendulum_swings_as_the_equation_of_motion_says():
    state, torque = jnp.array([0.3, -0.5]), jnp.float32(1.5)

    def motion(_, y):  # a rod: m l^2 / 3 of inertia, gravity at its middle
        return [y[1], (10.0 * np.sin(y[0]) / 2 + 1.5) * 3]

    exact = solve_ivp(motion, (0, 0.25), [0.3, -0.5], rtol=1e-8).y[:, -1]
    for _ in range(5):
        state = environments.swing(state, torque)
    np.testing.assert_allclose(state, exact, atol=0.1)


def test_the_reward_of_a_pendulum_is_greatest_upright_and_at_rest():
    task = environments.pendulum()
    still = task.step(jnp.zeros(2), jnp.zeros(()))[1]
    assert still == 0
    turned = jnp.array([2 * jnp.pi, 0.0])
    np.testing.assert_allclose(task.step(turned, jnp.zeros(()))[1], 0, atol=1e-9)
    hanging = task.step(jnp.array([jnp.pi, 1.0]), jnp.float32(9.0))[1]
    np.testing.assert_allclose(hanging, -(np.pi**2 + 0.1 + 0.004), rtol=1e-5)


@pytest.mark.slow
def test_it_learns_to_hold_up_a_pole():
    config = configs.get_config()
    learner = ppo(config, environments.cartpole())
    params = learner.init(KEY)
    state = params, learner.optimizer.init(params), learner.start(KEY)

    @jax.jit
    def one_round(state, key):
        params, memory, tasks = state
        tasks, steps, _, ends = learner.play(params, tasks, key, config.num_steps)
        return (*learner.learn(params, memory, steps, key), tasks), ends

    ends = []
    for i in range(40):
        state, share = one_round(state, jax.random.fold_in(KEY, i))
        ends.append(float(share))
    assert np.mean(ends[-5:]) < np.mean(ends[:2]) / 5
