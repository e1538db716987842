"""Fast schedules by optimal linear subspace search (OLSS): a long trajectory in a few steps.

A teacher takes many deterministic steps x_0, ..., x_T down the noise levels and predicts the noise
e_i = (x_i - x_0hat) / sigma_i in each. A student visits n of the levels, and its next point is the
linear combination of its start and of its own predictions that was closest to the teacher's point
on calibration samples:

    x_{k+1} = a_k x_0 + sum_{j <= k} (b_kj e_j + c_kj x_0hat'_j)

(the corrected estimates x_0hat' only with a data consistency: without one they are in the span of
the others). `record` the teacher, `factorize` its samples, `search` or `fit` a schedule, and
`replay` it in `diffusion.sample`. Those weights suit the teacher's predictions; `refit` makes them
suit the student's own.

Reference: Duan et al. (2023), "Optimal linear subspace search: learning to construct fast and high-
quality schedulers for diffusion models", arXiv 2305.14677; the form for posteriors is ours.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax.diffusion._consistency import DataConsistency, none
from subspace_jax.diffusion.denoisers import Denoiser
from subspace_jax.diffusion.sampler import guide
from subspace_jax.diffusion.steps import Step, standard_normal
from subspace_jax.typing import Array, Float, Inexact, Integer, Key

__all__ = [
    "FastSchedule",
    "Trajectory",
    "TriangularFactor",
    "factorize",
    "fit",
    "record",
    "refit",
    "replay",
    "search",
]


class Trajectory(NamedTuple):
    """What a teacher did on one sample."""

    points: Inexact[Array, "t_and_1 *shape"]
    """x_0 (noise) to x_T."""
    noise: Inexact[Array, "t *shape"]
    """e_0 to e_{T-1}."""
    corrected: Inexact[Array, "t *shape"] | None
    """x_0hat' of every step; None without a data consistency."""


class TriangularFactor(NamedTuple):
    """R of the QR of all trajectories, float64: every least-squares problem in their span.

    Its columns are the points, the noises and the corrected estimates, in this order.
    """

    R: np.ndarray
    sigmas: np.ndarray
    """The teacher's T + 1 levels."""
    num_entries: int
    """Real numbers in all samples of one level."""
    with_corrected: bool


class FastSchedule(NamedTuple):
    """A few steps in place of many: data for `replay`."""

    sigmas: Float[Array, " n_and_1"]
    """The levels visited."""
    indices: Integer[Array, " n_and_1"]
    """Which of the teacher's they are."""
    start: Float[Array, " n"]
    """a_k: weight of the first point in each step."""
    noise: Float[Array, "n n"]
    """b_kj: weight of the j-th noise in step k."""
    corrected: Float[Array, "n n"] | None
    """c_kj: weight of the j-th corrected estimate in step k; None without data consistency."""
    errors: Float[Array, " n"]
    """Root mean square distance to the teacher's points, over sqrt(sigma_data^2 + sigma^2), on
    the predictions that the weights were fitted to."""


def record(
    key: Key,
    denoise: Denoiser,
    sigmas: Float[Array, " t_and_1"],
    shape: tuple[int, ...],
    *,
    data_consistency: DataConsistency | None = None,
    dtype: Any = None,
) -> Trajectory:
    """The trajectory of one sample by `diffusion.euler`; ``vmap`` over keys gives many.

    Its end is what `diffusion.sample` returns with that step for the same arguments.

    Raises:
        ValueError: a denoiser that changes the shape, or real into complex.
    """
    dtype = sigmas.dtype if dtype is None else jnp.zeros((), dtype).dtype
    sigmas = sigmas.astype(jnp.zeros((), dtype).real.dtype)
    consistency = DataConsistency(none) if data_consistency is None else data_consistency
    guided = guide(denoise, consistency)
    first, _ = jax.random.split(key)
    start = sigmas[0] * standard_normal(first, tuple(shape), dtype)

    def advance(carry, level):
        (x, state), (sigma, next_sigma) = carry, level
        x0, corrected, state = guided.predict(x, sigma, state)
        towards = x0 if guided.direction == "prior" else corrected
        after = corrected + next_sigma * ((x - towards) / sigma)
        kept = corrected if data_consistency is not None else None
        return (after, state), (after, (x - x0) / sigma, kept)

    carry = (start, consistency.init(start))
    _, (points, noise, corrected) = jax.lax.scan(advance, carry, (sigmas[:-1], sigmas[1:]))
    return Trajectory(jnp.concatenate([start[None], points]), noise, corrected)


def factorize(trajectories: Trajectory, sigmas: Any) -> TriangularFactor:
    """The triangular factor of trajectories with a leading axis of samples, on the host.

    It is updated sample by sample: one sample's trajectory is all that is held in float64. A Gram
    matrix would be cheaper, and square the condition number of columns that are nearly collinear.

    Args:
        trajectories: of `record` under ``vmap``.
        sigmas: the teacher's levels.

    Raises:
        ValueError: another number of levels than points.
    """
    sigmas = np.asarray(sigmas, np.float64)
    if len(sigmas) != trajectories.points.shape[1]:
        raise ValueError(f"{len(sigmas)} levels for {trajectories.points.shape[1]} points")
    parts = [part for part in trajectories if part is not None]
    R, num_entries = np.zeros((0, sum(part.shape[1] for part in parts))), 0
    for i in range(len(trajectories.points)):
        columns = np.concatenate([_real_rows(part[i]) for part in parts]).T
        num_entries += len(columns)
        R = np.asarray(np.linalg.qr(np.concatenate([R, columns]), mode="r"))
    return TriangularFactor(R, sigmas, num_entries, trajectories.corrected is not None)


def fit(factor: TriangularFactor, indices: Any, *, sigma_data: float = 1.0) -> FastSchedule:
    """The schedule that visits given levels of the teacher, its weights by least squares.

    Args:
        factor: of the calibration samples.
        indices: integers that ascend from 0 to T.
        sigma_data: of the data, which scales the errors.

    Raises:
        ValueError: indices that do not ascend from 0 to T.
    """
    last, indices = len(factor.sigmas) - 1, [int(i) for i in indices]
    if len(indices) < 2 or indices[0] != 0 or indices[-1] != last or min(np.diff(indices)) < 1:
        raise ValueError(f"indices must ascend from 0 to {last}, got {tuple(indices)}")
    num = len(indices) - 1
    start, noise, corrected = np.zeros(num), np.zeros((num, num)), np.zeros((num, num))
    errors = np.zeros(num)
    for k in range(num):
        weights, errors[k] = _solve(factor, 0, indices[: k + 1], indices[k + 1], sigma_data)
        start[k], noise[k, : k + 1] = weights[0], weights[1 : k + 2]
        if factor.with_corrected:
            corrected[k, : k + 1] = weights[k + 2 :]
    return FastSchedule(
        jnp.asarray(factor.sigmas[indices], float),
        jnp.asarray(indices),
        jnp.asarray(start, float),
        jnp.asarray(noise, float),
        jnp.asarray(corrected, float) if factor.with_corrected else None,
        jnp.asarray(errors, float),
    )


def search(
    factor: TriangularFactor, num_steps: int, *, sigma_data: float = 1.0, num_rounds: int = 30
) -> FastSchedule:
    """The schedule of at most ``num_steps`` steps whose largest error of a step is smallest.

    For a tolerance, every step goes as far as it can, by bisection; the tolerance is bisected until
    the end is just reached. A step's span here begins at the point where it starts; the weights are
    then those of `fit`.

    Args:
        factor: of the calibration samples.
        num_steps: 1 to T.
        sigma_data: of the data: errors at a level are over sqrt(sigma_data^2 + sigma^2).
        num_rounds: bisections of the tolerance.

    Raises:
        ValueError: ``num_steps`` out of bounds.

    Reference: Duan et al. (2023), section 3.3.
    """
    last = len(factor.sigmas) - 1
    if not 1 <= num_steps <= last:
        raise ValueError(f"num_steps must lie in 1..{last}, got {num_steps}")
    _, high = _solve(factor, 0, [0], last, sigma_data)
    low, path = 0.0, [0, last]
    for _ in range(num_rounds):
        tolerance = (low + high) / 2
        found = _path(factor, num_steps, tolerance, sigma_data)
        if found is None:
            low = tolerance
        else:
            high, path = tolerance, found
    return fit(factor, path, sigma_data=sigma_data)


def refit(
    predict: Callable[[Array, Array], tuple[Array, Array | None]],
    schedule: FastSchedule,
    trajectories: Trajectory,
    *,
    sigma_data: float = 1.0,
) -> FastSchedule:
    """The schedule with weights for what the student predicts of its own points, step by step.

    A student leaves the teacher's trajectory with its first step, and weights that were fitted to
    the teacher's predictions do not bring it back; these do, as far as the span allows. Costs one
    prediction of all calibration samples for each step.

    Args:
        predict: (points (samples, *shape), sigma) -> (noise e, corrected estimates or None).
        schedule: of `fit` or `search`.
        trajectories: of `record` under ``vmap``, from which the student starts.
        sigma_data: of the data, which scales the errors.

    Ours: not in the paper.
    """
    num = len(schedule.start)
    points, noises, estimates = trajectories.points, [], []
    x: Array = points[:, 0]
    start, noise, corrected = np.zeros(num), np.zeros((num, num)), np.zeros((num, num))
    errors = np.zeros(num)
    for k in range(num):
        e, x0 = predict(x, schedule.sigmas[k])
        noises.append(e)
        estimates += [] if x0 is None else [x0]
        columns = [points[:, 0], *noises, *estimates]
        target = points[:, int(schedule.indices[k + 1])]
        A = np.stack([_real_rows(column).ravel() for column in columns], axis=1)
        weights, distance = _least_squares(A, _real_rows(target).ravel())
        start[k], noise[k, : k + 1] = weights[0], weights[1 : k + 2]
        corrected[k, : len(estimates)] = weights[k + 2 :]
        errors[k] = distance / np.sqrt(len(A)) / np.hypot(sigma_data, schedule.sigmas[k + 1])
        x = jnp.tensordot(jnp.asarray(weights, x.real.dtype), jnp.stack(columns), 1)
    return schedule._replace(
        start=jnp.asarray(start, float),
        noise=jnp.asarray(noise, float),
        corrected=jnp.asarray(corrected, float) if estimates else None,
        errors=jnp.asarray(errors, float),
    )


def replay(schedule: FastSchedule) -> Step:
    """The step of `diffusion.sample` that replays a schedule, with ``schedule.sigmas``.

    It is deterministic. The memory holds the predictions of all steps.
    """
    num = len(schedule.start)

    def init(x):
        kept = jnp.zeros((num, *x.shape), x.dtype)
        return jnp.int32(0), x, kept, None if schedule.corrected is None else kept

    def update(draw, guided, x, sigma, next_sigma, memory, state):
        del draw, next_sigma
        i, start, noises, estimates = memory
        x0, corrected, state = guided.predict(x, sigma, state)
        noises = noises.at[i].set((x - x0) / sigma)
        dtype = x.real.dtype
        x = schedule.start.astype(dtype)[i] * start
        x = x + jnp.tensordot(schedule.noise.astype(dtype)[i], noises, 1)
        if schedule.corrected is not None:
            estimates = estimates.at[i].set(corrected)
            x = x + jnp.tensordot(schedule.corrected.astype(dtype)[i], estimates, 1)
        return x, corrected, (i + 1, start, noises, estimates), state

    return Step(init, update)


def _real_rows(part: Array) -> np.ndarray:
    """A sample's part (steps, *shape) as rows of real numbers, in float64."""
    rows = np.asarray(part).reshape(len(part), -1)
    if np.iscomplexobj(rows):
        rows = np.concatenate([np.real(rows), np.imag(rows)], axis=1)
    return rows.astype(np.float64)


def _solve(
    factor: TriangularFactor, start: int, visited: Sequence[int], target: int, sigma_data: float
) -> tuple[np.ndarray, float]:
    """Weights of the point ``start`` and of what was predicted at ``visited``; their error."""
    last = len(factor.sigmas) - 1
    columns = [start, *(last + 1 + i for i in visited)]
    if factor.with_corrected:
        columns += [2 * last + 1 + i for i in visited]
    weights, distance = _least_squares(factor.R[:, columns], factor.R[:, target])
    rms = distance / np.sqrt(factor.num_entries)
    return weights, float(rms / np.hypot(sigma_data, factor.sigmas[target]))


def _least_squares(A: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """The shortest solution for columns of norm one, in terms of A's own, and its residual."""
    sizes = np.linalg.norm(A, axis=0)
    sizes = np.where(sizes > 0, sizes, 1)
    weights = np.linalg.lstsq(A / sizes, b, rcond=None)[0] / sizes
    return weights, float(np.linalg.norm(A @ weights - b))


def _path(
    factor: TriangularFactor, num_steps: int, tolerance: float, sigma_data: float
) -> list[int] | None:
    """The greedy path within a tolerance, or None if it takes more steps."""
    last, path = len(factor.sigmas) - 1, [0]
    while path[-1] < last and len(path) <= num_steps:
        near, far = path[-1], last + 1  # what is reached, what is not
        if _solve(factor, path[-1], path, last, sigma_data)[1] <= tolerance:
            near = last
        while far - near > 1 and near < last:
            middle = (near + far) // 2
            within = _solve(factor, path[-1], path, middle, sigma_data)[1] <= tolerance
            near, far = (middle, far) if within else (near, middle)
        if near == path[-1]:
            return None
        path.append(near)
    return path if path[-1] == last else None
