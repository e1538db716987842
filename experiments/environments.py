"""Small control tasks in JAX, as pure functions of their state."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Environment(NamedTuple):
    """A task whose episodes last ``horizon`` steps, or until it is lost."""

    reset: Callable[[jax.Array], jax.Array]
    """key -> state."""
    step: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
    """(state, action) -> next state, reward, whether it is lost."""
    observe: Callable[[jax.Array], jax.Array]
    """state -> what a policy sees."""
    horizon: int
    num_actions: int
    """Discrete ones; 0: an action is a real number."""
    limit: float = math.inf
    """Of a real action's size."""


class Several(NamedTuple):
    """Environments side by side, each at its own age."""

    states: jax.Array
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
    states = jnp.where(is_over[:, None], fresh, states)
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


ENVIRONMENTS = {"CartPole": cartpole, "Pendulum": pendulum}
