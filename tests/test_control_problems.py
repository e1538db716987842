"""Policies in random subspaces: tasks, evolution strategies, Q-learning, against their formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.intrinsic_dimension import get_config
from experiments import control_problems as control
from experiments import environments, models
from subspace_jax import tree

KEY = jax.random.key(0)


@pytest.mark.parametrize("right", [False, True])
def test_a_push_solves_the_equations_of_motion(right):
    """Of a cart and a rod on it: their mass matrix times the accelerations is the force."""
    _, speed, angle, spin = state = np.array([0.3, -0.8, 0.15, 1.1])
    inertia = np.array([[1.1, 0.05 * np.cos(angle)], [0.05 * np.cos(angle), 0.1 * 0.25 * 4 / 3]])
    force = np.array([20 * right - 10 + 0.05 * spin**2 * np.sin(angle), 0.49 * np.sin(angle)])
    acceleration, turn = np.linalg.solve(inertia, force)
    expected = state + 0.02 * np.array([speed, acceleration, spin, turn])
    found = environments.push(jnp.asarray(state), jnp.asarray(right))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_pole_or_a_cart_too_far_is_down():
    states = np.array([[0, 0, 0, 0], [2.5, 0, 0, 0], [0, 0, -0.22, 0], [2.3, 9, 0.2, 9]])
    assert [int(environments.stands(jnp.asarray(state))) for state in states] == [1, 0, 0, 1]


def test_the_score_is_the_share_of_the_time_before_the_fall():
    config = get_config("cartpole")
    config.update(hidden=(3,), horizon=60, num_seeds=1, returns=(0.0, 60.0))
    problem = control.evolution(config)
    params = problem.init(KEY)
    params["params"]["Dense_1"]["bias"] += jnp.array([0, 100.0])  # pushes right for ever
    seeds = problem.examples[0][:2]
    for seed, score in zip(seeds, problem.scores(params, seeds), strict=True):
        state, steps = environments.cartpole().reset(jax.random.key(seed)), 0
        while abs(state := environments.push(state, jnp.array(1)))[2] <= np.radians(12):
            steps += 1
        assert score == pytest.approx(steps / 60)
        assert 5 < steps < 20


def test_the_score_of_a_pendulum_that_is_let_alone_is_its_return_between_the_bounds():
    config = get_config("pendulum")
    config.update(hidden=(3,), horizon=40, returns=(-300.0, 0.0))
    problem = control.evolution(config)
    still = jax.tree.map(jnp.zeros_like, problem.init(KEY))
    seed = problem.examples[0][:1]
    task = environments.pendulum()
    state, total = task.reset(jax.random.key(seed[0])), 0.0
    for _ in range(40):
        state, reward, _ = task.step(state, jnp.zeros(()))
        total += float(reward)
    np.testing.assert_allclose(problem.scores(still, seed), [1 + total / 300], rtol=1e-4)


def test_evolution_estimates_the_gradient_of_a_linear_function_from_its_samples():
    slope, x = (
        {"w": jnp.array([1.0, -2]), "b": jnp.array([3.0])},
        {"w": jnp.ones(2), "b": jnp.ones(1)},
    )
    key, sigma = jax.random.key(1), 0.3
    value, grads = control.by_evolution(
        partial(tree.vdot, slope), x, key, population=8, sigma=sigma
    )
    noise = jax.random.normal(key, (4, 3))
    expected = noise.T @ (noise @ tree.ravel(slope)) / 4
    np.testing.assert_allclose(tree.ravel(grads), expected, rtol=1e-4)
    assert value == pytest.approx(float(tree.vdot(slope, x)), rel=1e-5)


def test_evolution_with_many_samples_finds_the_gradient():
    x = jnp.array([0.5, -1, 2])

    def function(x):
        return jnp.sum(x**2) + jnp.sin(x[0])

    _, grads = control.by_evolution(function, x, jax.random.key(0), population=200_000, sigma=0.01)
    np.testing.assert_allclose(grads, jax.grad(function)(x), atol=0.05)


def q_problem(**changes):
    config = get_config("smoke,q_learning")
    config.batch_size = 8
    config.q_learning.update(num_envs=4, capacity=12, target_rate=0.3, explore=1.0)
    config.q_learning.update(reward_scale=0.1, reward_offset=2.0)
    config.q_learning.update(changes)
    return config, control.q_learning(config)


def followed(problem, num_steps):
    """Memories and batches of so many steps with parameters that change at each."""
    params = problem.init(KEY)
    memory, found = problem.remember(KEY, params), []
    for i in range(num_steps):
        now = jax.tree.map(lambda x, i=i: x * (1 - 0.5 * (i % 7)), params)
        memory, batch = jax.jit(problem.gather)(now, memory, (), jax.random.fold_in(KEY, i))
        found.append((now, memory, batch))
    return found


def test_a_q_learner_aims_at_the_worth_to_the_running_mean_of_the_action_it_would_take_later():
    config, problem = q_problem()
    network = models.MLP((*config.hidden, 2))
    mean, differ, lost = problem.init(KEY), 0, 0
    for now, memory, (seen, action, wanted) in followed(problem, 40):
        mean = jax.tree.map(lambda old, new: 0.7 * old + 0.3 * new, mean, now)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), memory.target, mean)
        steps = jax.tree.map(np.asarray, memory.replay.steps)
        for row, choice, aim in zip(*map(np.asarray, (seen, action, wanted)), strict=True):
            (place,) = np.flatnonzero(np.all(steps.observation == row, axis=1))
            assert steps.action[place] == choice
            later = steps.later[place][None]
            chosen, worths = network.apply(now, later).argmax(), network.apply(mean, later)[0]
            gained = 0.1 * (steps.reward[place] - 2.0)
            worth = gained + 0.99 * worths[chosen] * ~steps.is_lost[place]
            np.testing.assert_allclose(aim, worth, rtol=1e-5)
            differ += chosen != worths.argmax()
            lost += steps.is_lost[place]
    assert differ  # where the two networks disagree the test can tell them apart
    assert lost  # after which nothing comes


def test_a_q_learner_plays_on_and_remembers_the_last_steps():
    _, problem = q_problem()
    found = followed(problem, 5)
    memory = jax.tree.map(np.asarray, found[-1][1])
    assert memory.replay.num_seen == 20
    played = memory.replay.steps
    for before, action, after in zip(played.observation, played.action, played.later, strict=True):
        np.testing.assert_allclose(environments.push(before, action), after, rtol=1e-5)
    # Four environments a step and room for three steps: the newest two begin the second round.
    goes_on = np.all(played.later[:4] == played.observation[4:8], axis=1)
    assert 2 <= goes_on.sum() <= 4  # others have begun anew


@pytest.mark.parametrize(("explore", "share"), [(1e-9, 0.0), (1e9, 0.5)])
def test_at_first_a_q_learner_tries_actions_by_chance(explore, share):
    config, problem = q_problem(explore=explore, num_envs=400, capacity=400, least_chance=0.0)
    params = problem.init(KEY)
    memory = problem.remember(KEY, params)
    for key in jax.random.split(KEY):
        memory = problem.gather(params, memory, (), key)[0]
    steps = memory.replay.steps
    best = models.MLP((*config.hidden, 2)).apply(params, steps.observation).argmax(-1)
    assert np.mean(best != steps.action) == pytest.approx(share, abs=0.1)


def test_the_loss_of_a_q_learner_is_of_the_actions_that_were_taken():
    config, problem = q_problem()
    params, (seen, action, wanted) = followed(problem, 2)[-1][0::2]
    out = np.asarray(models.MLP((*config.hidden, 2)).apply(params, seen))
    expected = optax.huber_loss(out[np.arange(len(out)), action], wanted).mean()
    np.testing.assert_allclose(problem.loss(params, seen, action, wanted), expected, rtol=1e-6)


def test_a_q_learner_needs_discrete_actions():
    config = get_config("q_learning")
    config.environment = "Pendulum"
    with pytest.raises(ValueError, match="Pendulum has no discrete actions"):
        control.q_learning(config)


def test_an_unknown_environment_is_a_mistake():
    with pytest.raises(ValueError, match=r"CartPole, Pendulum or gymnax/NAME; got 'Chess'"):
        environments.named("Chess")


def test_gymnax_s_pendulum_is_ours():
    pytest.importorskip("gymnax")
    ours, theirs = environments.named("Pendulum"), environments.named("gymnax/Pendulum-v1")
    assert (ours.horizon, ours.num_actions, ours.limit) == theirs[3:]
    state = theirs.reset(KEY)
    for torque in (0.5, -3.0, 1.7):
        mine = jnp.stack([state[1].theta, state[1].theta_dot])
        state, reward, is_lost = theirs.step(state, jnp.float32(torque))
        mine, expected, _ = ours.step(mine, jnp.float32(torque))
        np.testing.assert_allclose(theirs.observe(state), ours.observe(mine), atol=1e-5)
        np.testing.assert_allclose(reward, expected, rtol=1e-4)
        assert not is_lost


def test_a_game_of_gymnax_is_played_to_its_end():
    pytest.importorskip("gymnax")
    task = environments.named("gymnax/Breakout-MinAtar")
    several = environments.several(task, KEY, 6)
    lost = 0
    for key in jax.random.split(KEY, 30):
        action = jax.random.randint(key, (6,), 0, task.num_actions)
        several, _, seen, is_lost, is_over = environments.step_all(task, several, action, key)
        assert seen.shape == (6, 10, 10, 4)
        assert np.all(several.ages[is_over] == 0)
        lost += int(is_lost.sum())
    assert lost > 0
