"""Soft actor-critic against formulas, an integral, and the task that it has to learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import policy_gradient_subspace as configs
from experiments import environments, models
from experiments.sac import beside, sac, squashed

KEY = jax.random.key(0)


def smoke():
    config = configs.get_config("smoke")
    return config, sac(config, environments.pendulum())


def test_the_density_of_actions_integrates_to_one_and_stays_finite():
    noise = jnp.linspace(-6, 6, 20_001)
    action, log_density = squashed(jnp.float32(0.3), jnp.log(0.7), noise, 2.0)
    assert np.all(np.abs(action) <= 2)
    np.testing.assert_allclose(np.trapezoid(np.exp(log_density), action), 1, rtol=1e-3)
    assert np.all(np.isfinite(squashed(jnp.float32(80.0), jnp.float32(0.0), noise, 2.0)[1]))


def test_a_lost_step_is_worth_its_reward_alone():
    config, learner = smoke()
    state = jax.jit(learner.init)(KEY)
    batch = learner.draw(state, KEY, 4)[0]
    steps = batch.steps._replace(is_lost=jnp.ones(16, bool))
    critics = learner.weights(state)["critic"]
    net = models.MLP((*config.hidden, 1))
    seen = beside(steps.observation, steps.action)
    wrong = [net.apply(w, seen)[:, 0] - config.reward_scale * steps.reward for w in critics]
    found = learner.losses(state)["critic"](critics, batch._replace(steps=steps))
    np.testing.assert_allclose(found, np.mean(np.sum(np.square(wrong), 0)) / 2, rtol=1e-5)


def test_a_step_that_is_not_lost_is_worth_the_smaller_target_and_the_entropy_after_it():
    config, learner = smoke()
    state = jax.jit(learner.init)(KEY)
    state = state._replace(target=jax.tree.map(lambda w: 2 * w, state.target))
    batch = learner.draw(state, KEY, 4)[0]
    steps, weights = batch.steps, learner.weights(state)
    mean, log_scale = models.MLP((*config.hidden, 2)).apply(weights["actor"], steps.later).T
    action, log_density = squashed(mean, log_scale, batch.later_noise, 2.0)
    net = models.MLP((*config.hidden, 1))
    later = [net.apply(w, beside(steps.later, action))[:, 0] for w in state.target]
    wanted = config.reward_scale * steps.reward
    wanted += config.discount * (np.minimum(*later) - log_density)
    seen = beside(steps.observation, steps.action)
    wrong = [net.apply(w, seen)[:, 0] - wanted for w in weights["critic"]]
    found = learner.losses(state)["critic"](weights["critic"], batch)
    np.testing.assert_allclose(found, np.mean(np.sum(np.square(wrong), 0)) / 2, rtol=1e-5)


def test_what_was_played_is_remembered_and_the_oldest_overwritten():
    config, learner = smoke()
    config.sac.capacity = 40
    learner = sac(config, environments.pendulum())
    state = jax.jit(learner.init)(KEY)
    before = jax.tree.map(np.asarray, state.replay.steps)
    assert int(state.replay.num_seen) == 16
    assert np.all(before.reward[16:] == 0)
    after, num_seen = jax.tree.map(np.asarray, jax.jit(learner.advance)(state, KEY).replay)
    assert num_seen == 48
    assert np.all(after.reward != 0)
    oldest = after.observation == before.observation
    assert not oldest[:8].any()
    assert oldest[8:16].all()
    angle = np.arctan2(*after.observation[:, 1::-1].T)
    states = jnp.stack([angle, after.observation[:, 2]], 1)
    moved = jax.vmap(environments.swing)(states, after.action)
    np.testing.assert_allclose(after.later[:, 2], moved[:, 1], atol=1e-5)


def test_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="real numbers of bounded size"):
        sac(configs.get_config("smoke"), environments.cartpole())


@pytest.mark.slow
def test_it_learns_to_swing_a_pendulum_up():
    learner = sac(configs.get_config(), environments.pendulum())
    state = jax.jit(learner.init)(KEY)

    @jax.jit
    def rounds(state, key):
        keys = jax.random.split(key, 50)
        return jax.lax.scan(lambda s, k: (learner.advance(s, k), None), state, keys)[0]

    reward = jax.jit(lambda state: learner.draw(state, KEY, 400)[1])
    before, after = reward(state), reward(rounds(state, KEY))
    assert 200 * before < -900
    assert 200 * after > -250
