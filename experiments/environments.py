"""Small control tasks in JAX, as pure functions of their state."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Environment(NamedTuple):
    """A task whose episodes last ``horizon`` steps, or until it is lost."""

    reset: Callable[[jax.Array], Any]
    """key -> state, a pytree of arrays."""
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array, jax.Array]]
    """(state, action) -> next state, reward, whether it is lost."""
    observe: Callable[[Any], jax.Array]
    """state -> what a policy sees."""
    horizon: int
    num_actions: int
    """Discrete ones; 0: an action is a real number."""
    limit: float = math.inf
    """Of a real action's size."""


class Several(NamedTuple):
    """Environments side by side, each at its own age."""

    states: Any
    ages: jax.Array


def several(environment: Environment, key: jax.Array, number: int) -> Several:
    """Begun, at ages spread as if they had always run."""
    reset_key, age_key = jax.random.split(key)
    states = jax.vmap(environment.reset)(jax.random.split(reset_key, number))
    return Several(states, jax.random.randint(age_key, (number,), 0, environment.horizon))


def step_all(
    environment: Environment, now: Several, actions: jax.Array, key: jax.Array
) -> tuple[Several, jax.Array, jax.Array, jax.Array, jax.Array]:
    """One step of each; those whose episode ends begin anew.

    Returns the environments, the rewards, what is seen after the step and before any new episode,
    whether the episode is lost, and whether it is over, lost or not.
    """
    states, reward, is_lost = jax.vmap(environment.step)(now.states, actions)
    seen = jax.vmap(environment.observe)(states)
    ages = now.ages + 1
    is_over = is_lost | (ages >= environment.horizon)
    fresh = jax.vmap(environment.reset)(jax.random.split(key, len(ages)))
    states = jax.tree.map(
        lambda new, old: jnp.where(jnp.expand_dims(is_over, range(1, old.ndim)), new, old),
        fresh,
        states,
    )
    return Several(states, jnp.where(is_over, 0, ages)), reward, seen, is_lost, is_over


def push(state: jax.Array, right: jax.Array) -> jax.Array:
    """The cart and its pole 20 ms later: position, speed, angle and its speed, in SI units.

    Reference: Barto, Sutton & Anderson (1983), "Neuronlike adaptive elements that can solve
    difficult learning control problems", as in the benchmark CartPole of the field.
    """
    x, speed, angle, spin = state
    pole, total, half, gravity, dt = 0.1, 1.1, 0.5, 9.8, 0.02
    force = jnp.where(right, 10.0, -10.0)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    pulled = (force + pole * half * spin**2 * sin) / total
    turn = (gravity * sin - cos * pulled) / (half * (4 / 3 - pole * cos**2 / total))
    pull = pulled - pole * half * turn * cos / total
    return jnp.stack([x + dt * speed, speed + dt * pull, angle + dt * spin, spin + dt * turn])


def stands(state: jax.Array) -> jax.Array:
    """One while the cart is on its track and the pole within 12 degrees, else zero."""
    inside = (jnp.abs(state[0]) <= 2.4) & (jnp.abs(state[2]) <= math.radians(12))
    return inside.astype(state.dtype)


def cartpole() -> Environment:
    """Hold a pole upright: a reward of one for every step that it stands."""

    def step(state, action):
        state = push(state, action)
        return state, stands(state), stands(state) == 0

    def reset(key):
        return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)

    return Environment(reset, step, lambda state: state, 500, 2)


def swing(state: jax.Array, torque: jax.Array) -> jax.Array:
    """A pendulum of 1 m and 1 kg 50 ms later: its angle from upright and the angle's speed.

    The torque is at most 2 N m and the speed at most 8 rad / s, as in the benchmark Pendulum.
    """
    angle, speed = state
    gravity, dt = 10.0, 0.05
    push = 3 * jnp.clip(torque, -2, 2)
    speed = jnp.clip(speed + dt * (1.5 * gravity * jnp.sin(angle) + push), -8, 8)
    return jnp.stack([angle + dt * speed, speed])


def pendulum() -> Environment:
    """Swing a pendulum up and hold it there: the reward is less for angle, speed and torque."""

    def step(state, action):
        angle = jnp.mod(state[0] + jnp.pi, 2 * jnp.pi) - jnp.pi
        cost = angle**2 + 0.1 * state[1] ** 2 + 0.001 * jnp.clip(action, -2, 2) ** 2
        return swing(state, action), -cost, jnp.array(False)

    def reset(key):
        low = jnp.array([-jnp.pi, -1.0])
        return jax.random.uniform(key, (2,), minval=low, maxval=-low)

    def observe(state):
        return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])

    return Environment(reset, step, observe, 200, 0, limit=2.0)


def from_gymnax(name: str) -> Environment:
    """A task of the package gymnax, such as "Breakout-MinAtar".

    Raises:
        ValueError: gymnax is not installed or does not know the name, or an action is neither one
            of several nor one number.
    """
    try:
        import gymnax
    except ImportError as error:
        raise ValueError(f"{name} needs gymnax ({error}): pip install gymnax six") from None
    if name not in gymnax.registered_envs:
        raise ValueError(f"gymnax has {', '.join(gymnax.registered_envs)}; got {name!r}")
    task, params = gymnax.make(name)
    space = task.action_space(params)
    num_actions = getattr(space, "n", 0)
    if not num_actions and np.size(space.high) != 1:
        raise ValueError(f"{name} has actions of {np.size(space.high)} numbers")

    def reset(key):
        first, key = jax.random.split(key)
        seen, state = task.reset_env(first, params)
        return key, state, seen

    def step(state, action):
        key, inner, _ = state
        now, key = jax.random.split(key)
        action = action if num_actions else jnp.reshape(action, space.shape)
        seen, inner, reward, is_lost, _ = task.step_env(now, inner, action, params)
        return (key, inner, seen), reward, is_lost

    limit = math.inf if num_actions else float(np.max(space.high))
    horizon = params.max_steps_in_episode
    return Environment(reset, step, lambda state: state[2], horizon, num_actions, limit)


def named(name: str) -> Environment:
    """One of `ENVIRONMENTS`, or gymnax's NAME as "gymnax/NAME"; ValueError if there is none."""
    if name.startswith("gymnax/"):
        return from_gymnax(name.removeprefix("gymnax/"))
    if name not in ENVIRONMENTS:
        choices = ", ".join(ENVIRONMENTS)
        raise ValueError(f"environment must be one of {choices} or gymnax/NAME; got {name!r}")
    return ENVIRONMENTS[name]()


ENVIRONMENTS = {"CartPole": cartpole, "Pendulum": pendulum}
