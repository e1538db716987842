"""Data consistency in tomography: the loop on the Gram operator, beside projections both ways.

    python -m scripts.bench.diffusion [--quick] [--output=FILE]

One slice of 256 x 256 from 180 views of 368 detectors in float32: the sampler of DDS with the exact
denoiser of a stationary Gaussian prior, two transforms a step, so that nearly all of the time is
conjugate gradients, five steps in each of five. The same operators with their Toeplitz Gram and
with A, then A^T in its place run in turns in one process; what was measured is made by another
projector on a grid twice as fine, with noise. The error of a Gram operator is that of its product
with the image, relative to A^T A x. The section ``projections`` shows one product with A and A^T,
beside scikit-image's `radon` and unfiltered `iradon`, which are no adjoints of each other.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from skimage import data, transform

from scripts.bench import _report
from scripts.bench._solvers import interleaved
from subspace_jax import diffusion
from subspace_jax.diffusion import operators

NUM_VIEWS, NUM_STEPS, SIGMA_Y = 180, 5, 0.5


class Timed(NamedTuple):
    library: str
    operator: str
    what: str
    milliseconds: np.ndarray
    ratio: float
    """To the first of its section."""
    psnr: float | None
    error: float | None
    """Of the Gram operator."""
    compile_seconds: float | None


class Problem(NamedTuple):
    """A slice, where it was looked at from, and what was seen."""

    image: np.ndarray
    angles: jax.Array
    num_detectors: int
    measured: jax.Array


def head(size: int, num_views: int) -> Problem:
    """The Shepp-Logan head, measured on a grid twice as fine: two of its detectors make one."""
    phantom = data.shepp_logan_phantom()
    fine, image = (
        transform.resize(phantom, (n, n), anti_aliasing=True).astype(np.float32)
        for n in (2 * size, size)
    )
    angles = jnp.arange(num_views, dtype=jnp.float32) * (np.pi / num_views)
    num_detectors = 2 * int(np.ceil(size / np.sqrt(2))) + 4
    project = operators.parallel_beam(angles, fine.shape, 2 * num_detectors)
    seen = jax.jit(project.apply)(jnp.asarray(fine)).reshape(num_views, num_detectors, 2).mean(-1)
    noise = SIGMA_Y * jax.random.normal(jax.random.key(0), seen.shape)
    return Problem(image, angles, num_detectors, seen / 2 + noise)


def stationary_denoiser(image: np.ndarray) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The exact one of Gaussian images whose power falls like that of natural ones."""
    rows, columns = (np.fft.fftfreq(n)[:, None] ** 2 for n in image.shape)
    power = 1 / (rows + columns.T + 1e-4) ** 1.5
    power = jnp.asarray(power * np.var(image) / power.mean(), image.dtype)
    mean = jnp.asarray(image.mean())

    def denoise(x, sigma):
        kept = power / (power + sigma**2)
        return mean + jnp.fft.ifft2(kept * jnp.fft.fft2(x - mean)).real

    return denoise


def contenders(problem: Problem) -> dict[tuple[str, str], operators.LinearOperator]:
    """Each operator with its own Gram, and with A, then A^T."""
    found = {}
    for name in ("parallel_beam", "parallel_beam_fourier"):
        make = getattr(operators, name)
        op = make(problem.angles, problem.image.shape, problem.num_detectors)
        found[name, "Toeplitz Gram"] = op
        both = op._replace(gram=lambda x, op=op: op.adjoint(op.apply(x)))
        found[name, "A, then A^T"] = both
    return found


def loop(quick: bool) -> Iterator[Timed]:
    """DDS on every operator, by either Gram."""
    problem = head(32 if quick else 256, 16 if quick else NUM_VIEWS)
    denoise = stationary_denoiser(problem.image)
    sigmas = diffusion.karras_sigmas(2 if quick else NUM_STEPS, sigma_min=0.01, sigma_max=2.0)
    image, field, calls, compiled = jnp.asarray(problem.image), contenders(problem), {}, {}
    for name, op in field.items():

        def draw(key, y, op=op):
            dc = diffusion.posterior_proximal(op, y, SIGMA_Y, 0.3)
            return diffusion.sample(key, denoise, sigmas, op.in_shape, data_consistency=dc).x

        operands = jax.random.key(1), problem.measured
        start = time.perf_counter()
        call = jax.jit(draw).lower(*operands).compile()
        compiled[name] = time.perf_counter() - start
        calls[name] = lambda call=call, operands=operands: jax.block_until_ready(call(*operands))
    samples = {name: call() for name, call in calls.items()}
    times = _in_turns(calls, _report.share(quick, 60))
    reference = np.median(times["parallel_beam", "Toeplitz Gram"])
    for (operator, gram), op in field.items():
        exact = jax.jit(lambda x, op=op: op.adjoint(op.apply(x)))(image)
        error = jnp.linalg.norm(jax.jit(op.gram)(image) - exact) / jnp.linalg.norm(exact)
        sample = np.asarray(samples[operator, gram])
        psnr = -10 * np.log10(np.mean((sample - problem.image) ** 2) / np.ptp(problem.image) ** 2)
        milliseconds = times[operator, gram]
        yield Timed(
            "ours",
            operator,
            f"DDS, {gram}",
            milliseconds,
            float(np.median(milliseconds) / reference),
            float(psnr),
            float(error),
            compiled[operator, gram],
        )


def projections(quick: bool) -> Iterator[Timed]:
    """One product with each operator, and scikit-image's."""
    problem = head(32 if quick else 256, 16 if quick else NUM_VIEWS)
    image, calls = jnp.asarray(problem.image), {}
    for (name, gram), op in contenders(problem).items():
        if gram == "Toeplitz Gram":
            products = {"A x": (op.apply, image), "A^T y": (op.adjoint, problem.measured)}
            products["A^T A x"] = (op.gram, image)
            for what, (product, operand) in products.items():
                call = jax.jit(product).lower(operand).compile()
                calls["ours", name, what] = lambda call=call, operand=operand: (
                    jax.block_until_ready(call(operand))
                )
    degrees, measured = np.rad2deg(problem.angles), np.asarray(problem.measured).T
    seen = transform.radon(problem.image, degrees, circle=False)
    calls["scikit-image", "radon", "A x"] = lambda: transform.radon(
        problem.image, degrees, circle=False
    )
    calls["scikit-image", "iradon", "back-projection"] = lambda: transform.iradon(
        measured[: len(seen)], degrees, filter_name=None, circle=False
    )
    times = _in_turns(calls, _report.share(quick, 30))
    reference = np.median(next(iter(times.values())))
    for (library, operator, what), milliseconds in times.items():
        ratio = float(np.median(milliseconds) / reference)
        yield Timed(library, operator, what, milliseconds, ratio, None, None, None)


def _in_turns(calls: dict[Any, Callable], seconds: float) -> dict[Any, np.ndarray]:
    once = {}
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        once[name] = 1e3 * (time.perf_counter() - start)
    return interleaved(calls, once, seconds, rounds=10)


def row(m: Timed) -> dict[str, Any]:
    """One line of the table."""
    return {
        "library": m.library,
        "operator": m.operator,
        "what": m.what,
        "time, ms": f"{np.median(m.milliseconds):.4g} ({m.milliseconds.min():.4g})",
        "/ first": f"{m.ratio:.2f}",
        "PSNR, dB": "" if m.psnr is None else f"{m.psnr:.2f}",
        "error of the Gram": "" if m.error is None else f"{m.error:.1e}",
        "compile, s": "" if m.compile_seconds is None else f"{m.compile_seconds:.2f}",
    }


def summary(measured: dict[str, list[Timed]]) -> str:
    """One sentence out of the ratios."""
    parts = []
    found = {(m.operator, m.what): m for m in measured["loop"]}
    for operator in dict.fromkeys(m.operator for m in measured["loop"]):
        gram, both = (found[operator, f"DDS, {w}"] for w in ("Toeplitz Gram", "A, then A^T"))
        parts.append(
            f"{operator}: {both.ratio / gram.ratio:.0f} times faster than A, then A^T, "
            f"PSNR {gram.psnr:.2f} for {both.psnr:.2f} dB"
        )
    return "the loop on the Toeplitz Gram, " + "; ".join(parts)


def main() -> None:
    _report.run(
        "diffusion",
        "Tomography: the Toeplitz Gram beside projections both ways",
        "median (minimum) of 3 to 30 interleaved calls",
        (loop, projections),
        row,
        summary,
    )


if __name__ == "__main__":
    main()
