"""Data consistency in tomography: the loop on the Gram operator, beside projections both ways.

    python -m scripts.bench.diffusion [--quick] [--output=FILE]

One slice of 256 x 256 from 180 views of 368 detectors in float32: the sampler of DDS with the exact
denoiser of a stationary Gaussian prior, two transforms a step, so that nearly all of the time is
conjugate gradients, five steps in each of five. The same operators with their Toeplitz Gram and
with A, then A^T in its place run in turns in one process; what was measured is made by another
projector on a grid twice as fine, with noise. The error of a Gram operator is that of its product
with the image, relative to A^T A x.

The section ``projections`` shows one product with A and one with what stands for A^T, beside astra
on one CPU core (its projectors there are serial) and scikit-image's `radon` and unfiltered
`iradon`. The error of A x is relative to the projections of the finer grid; scikit-image turns
images about a pixel, not the middle, so it has none. The mismatch is
|<A x, y> - <x, A^T y>| / (|A x| |y|), y the measurement.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import astra
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
    """To parallel_beam, doing the same; in the loop, with its Gram."""
    psnr: float | None
    error: float | None
    """Of the Gram operator, or of A x."""
    compile_seconds: float | None = None
    mismatch: float | None = None
    """Of A^T."""


class Problem(NamedTuple):
    """A slice, where it was looked at from, and what was seen."""

    image: np.ndarray
    angles: jax.Array
    num_detectors: int
    seen: jax.Array
    measured: jax.Array
    """With noise."""


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
    halves = jax.jit(project.apply)(jnp.asarray(fine)).reshape(num_views, num_detectors, 2)
    seen = halves.mean(-1) / 2  # two pixels of the finer grid are one long
    noise = SIGMA_Y * jax.random.normal(jax.random.key(0), seen.shape)
    return Problem(image, angles, num_detectors, seen, seen + noise)


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


class Pair(NamedTuple):
    """A, and what stands for A^T, on a library's own arrays."""

    apply: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    image: Any
    measured: Any
    seen: Any
    """What A x should be; None if it turns images otherwise."""


def pairs(problem: Problem) -> dict[tuple[str, str], Pair]:
    """By library and operator."""
    found = {}
    image, measured, seen = jnp.asarray(problem.image), problem.measured, problem.seen
    for name in ("parallel_beam", "parallel_beam_fourier"):
        op = getattr(operators, name)(problem.angles, image.shape, problem.num_detectors)
        apply, adjoint = (_compiled(f, x) for f, x in ((op.apply, image), (op.adjoint, measured)))
        found["ours", name] = Pair(apply, adjoint, image, measured, seen)
    volume = astra.create_vol_geom(*problem.image.shape)
    rays = astra.create_proj_geom(
        "parallel", 1.0, problem.num_detectors, np.asarray(problem.angles, np.float64)
    )
    for kind in ("linear", "strip"):
        op = astra.OpTomo(astra.create_projector(kind, rays, volume))
        arrays = problem.image, np.array(measured), np.array(seen)
        found["astra", kind] = Pair(op.FP, op.BP, *arrays)
    degrees = np.rad2deg(problem.angles)
    radon = partial(transform.radon, theta=degrees, circle=False)
    sums = 2 * len(degrees) / np.pi  # iradon is a mean of views, times pi / 2

    def iradon(y):
        return sums * transform.iradon(y, degrees, filter_name=None, circle=False)

    few = np.asarray(measured).T[: len(radon(problem.image))]
    found["scikit-image", "radon"] = Pair(radon, iradon, problem.image, few, None)
    return found


def projections(quick: bool) -> Iterator[Timed]:
    """One product with each operator, and with its adjoint."""
    problem = head(32 if quick else 256, 16 if quick else NUM_VIEWS)
    field = pairs(problem)
    calls: dict[Any, Callable] = {}
    for name, pair in field.items():
        calls[*name, "A x"] = partial(pair.apply, pair.image)
        calls[*name, "A^T y"] = partial(pair.adjoint, pair.measured)
    times = _in_turns(calls, _report.share(quick, 60))
    reference = {what: np.median(times["ours", "parallel_beam", what]) for what in ("A x", "A^T y")}
    for (library, operator, what), milliseconds in times.items():
        pair = field[library, operator]
        ratio = float(np.median(milliseconds) / reference[what])
        seen, back = (np.float64(calls[library, operator, w]()) for w in ("A x", "A^T y"))
        y, error, mismatch = np.float64(pair.measured), None, None
        if what == "A x" and pair.seen is not None:
            error = float(np.linalg.norm(seen - pair.seen) / np.linalg.norm(pair.seen))
        if what == "A^T y":
            products = np.vdot(seen, y) - np.vdot(problem.image, back)
            mismatch = float(abs(products) / (np.linalg.norm(seen) * np.linalg.norm(y)))
        yield Timed(library, operator, what, milliseconds, ratio, None, error, mismatch=mismatch)


def _compiled(product: Callable, operand: jax.Array) -> Callable:
    call = jax.jit(product).lower(operand).compile()
    return lambda x: jax.block_until_ready(call(x))


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
        "/ parallel_beam": f"{m.ratio:.2f}",
        "PSNR, dB": "" if m.psnr is None else f"{m.psnr:.4f}",
        "error of the Gram or A x": "" if m.error is None else f"{m.error:.1e}",
        "mismatch": "" if m.mismatch is None else f"{m.mismatch:.1e}",
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
            f"PSNR {gram.psnr:.3f} for {both.psnr:.3f} dB"
        )
    for m in measured["projections"]:
        if m.library != "ours":
            parts.append(f"{m.library} ({m.operator}), {m.what}: {m.ratio:.1f} times parallel_beam")
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
