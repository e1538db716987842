"""MR slices reconstructed by this library and by others, with one prior, one scan, one process.

    python -m scripts.bench.reconstruction [--quick] [--output=FILE]

Scans like those of `experiments.mri_reconstruction`, of one head and with one draw of random lines,
x4; all see the same masks, coil maps, noise and U-Net, whose weights torch reads from the same file
(`parity`). What a method leaves open is chosen for each library apart on two
slices of the tuning subject; the time is the median over the test slices of calls in turn, all
threads allowed. A quick run's few levels say nothing of quality.

The section ``jacobians`` has the methods that multiply by the denoiser's Jacobian with J v in place
of the published J^T v, each tuned apart; ``asymmetry`` tells how far the two products are from each
other along random directions, at test slices with noise.
"""

import functools
import itertools
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.mri_reconstruction import get_config
from experiments import (
    comparison,
    denoisers,
    heads,
    mri,
    mri_reconstruction,
    reconstructions,
    records,
)
from scripts.bench import _report
from scripts.bench._reconstructors import Contender, field, in_torch, ours
from subspace_jax.diffusion._consistency import linearized

ACCELERATION = 4


class Timed(NamedTuple):
    contender: Contender
    settings: dict[str, float]
    milliseconds: np.ndarray
    psnr: np.ndarray
    ratio: float
    """To ours of the same method."""
    first_seconds: float
    """Of the first call: for ours its compilation too."""

    def row(self) -> dict[str, Any]:
        """One line of the table."""
        return {
            "method": self.contender.method,
            "library": self.contender.library,
            "levels": self.contender.num_levels or "",
            "PSNR, dB": f"{self.psnr.mean():.2f} ± {self.psnr.std():.2f}",
            "time, ms": f"{np.median(self.milliseconds):.4g} ({self.milliseconds.min():.4g})",
            "/ ours": f"{self.ratio:.2f}",
            "first call, s": f"{self.first_seconds:.2f}",
            "settings": ", ".join(f"{name} {value:g}" for name, value in self.settings.items()),
        }


class Parity(NamedTuple):
    """How far torch's network is from ours, of the largest output."""

    sigma: float
    error: float

    def row(self) -> dict[str, Any]:
        """One line of the table."""
        return {
            "method": f"torch's network less ours at noise {self.sigma:g}",
            "mean (range)": f"{self.error:.1e}",
        }


class Asymmetry(NamedTuple):
    """|J v - J^T v| / |J v| of the denoiser at slices with noise, v random."""

    sigma: float
    ratios: np.ndarray

    def row(self) -> dict[str, Any]:
        """One line of the table."""
        return {
            "method": f"|J v - J^T v| / |J v| at noise {self.sigma:g}",
            "mean (range)": f"{self.ratios.mean():.3f} ({self.ratios.min():.3f}"
            f"-{self.ratios.max():.3f})",
        }


@functools.cache
def scans_of(quick: bool) -> tuple[Any, mri.Scans, mri.Scans]:
    """The experiment's config, the scans of its test, and those that settings are chosen on."""
    config = get_config()
    if quick:
        config.levels.update(sample=4, jacobian=4, dps=4)
    return (
        config,
        simulated(config, "test", 2 if quick else 12, 0),
        simulated(config, "tune", 2, 1000),
    )


def simulated(config: Any, kind: str, num: int, seed: int) -> mri.Scans:
    """Of so many slices, all with one draw of random lines."""
    sampling = mri.draw_sampling("random", ACCELERATION, config.size, seed)
    key = jax.random.fold_in(jax.random.key(seed), ACCELERATION)
    slices = mri_reconstruction.evenly(heads.committed(kind), num)
    options = {"num_coils": config.num_coils, "sigma_y": config.sigma_y}
    return mri.simulate(slices, [sampling] * num, key, **options)


def slices(quick: bool) -> Iterator[Timed]:
    """All contenders in turn, slice after slice."""
    config, test, tuning = scans_of(quick)
    yield from in_turn(field(config, test), test, tuning, quick)


def jacobians(quick: bool) -> Iterator[Timed]:
    """Ours with J^T v and with J v, in turn."""
    config, test, tuning = scans_of(quick)
    prior, _ = denoisers.load(config.weights)
    contenders = [
        ours(config, prior, test, name, jacobian)
        for name, method in reconstructions.by_jacobian().items()
        if method.samples == 1
        for jacobian in ("vjp", "jvp")
    ]
    yield from in_turn(contenders, test, tuning, quick)


def parity(quick: bool) -> Iterator[Parity]:
    """The two networks at a slice with noise."""
    config, test, _ = scans_of(quick)
    prior, _ = denoisers.load(config.weights)
    for sigma in (0.02, 0.1, 0.5, 2.0):
        noise = jax.lax.complex(*jax.random.normal(jax.random.key(0), (2, *test.truth[0].shape)))
        noisy = test.truth[0] + sigma * noise
        mine = np.asarray(prior(noisy, jnp.float32(sigma)))
        error = np.abs(in_torch(config, np.asarray(noisy), sigma) - mine).max()
        yield Parity(sigma, float(error / np.abs(mine).max()))


def asymmetry(quick: bool) -> Iterator[Asymmetry]:
    """How far J v and J^T v of the prior are apart."""
    config, test, _ = scans_of(quick)
    prior, _ = denoisers.load(config.weights)

    @jax.jit
    def ratio(sigma, key, clean):
        noise, v = jax.lax.complex(*jax.random.normal(key, (2, 2, *clean.shape)))
        jacobian = linearized(partial(prior, sigma=sigma), clean + sigma * noise)
        ahead, back = (jacobian(mode)(v) for mode in ("jvp", "vjp"))
        return jnp.linalg.norm(ahead - back) / jnp.linalg.norm(ahead)

    clean = jnp.asarray(test.truth, jnp.complex64)
    keys = jax.random.split(jax.random.key(config.seed), len(clean))
    for sigma in (0.02, 0.1, 0.5, 2.0):
        pairs = zip(keys, clean, strict=True)
        yield Asymmetry(sigma, np.asarray([ratio(sigma, key, x) for key, x in pairs]))


def in_turn(
    contenders: list[Contender], test: mri.Scans, tuning: mri.Scans, quick: bool
) -> Iterator[Timed]:
    """Each with its best settings, all of them on one slice after the other."""
    settings, first = [], []
    for contender in contenders:
        choices = [
            dict(zip(contender.grid, values, strict=True))
            for values in itertools.product(*contender.grid.values())
        ][: 2 if quick else None]
        start = time.perf_counter()
        contender.call(tuning, 0, choices[0])
        first.append(time.perf_counter() - start)
        tried = [
            np.mean(comparison.psnr(tuning, np.nan_to_num(all_slices(contender, tuning, chosen))))
            for chosen in choices
        ]
        settings.append(choices[int(np.argmax(tried))])
        records.say(f"{contender.method}, {contender.library}: {settings[-1]}, {max(tried):.2f} dB")
    images = np.zeros((len(contenders), *test.truth.shape), np.complex64)
    spent = np.zeros((len(contenders), len(test.y)))
    for i in range(len(test.y)):
        for place, (contender, chosen) in enumerate(zip(contenders, settings, strict=True)):
            start = time.perf_counter()
            images[place, i] = contender.call(test, i, chosen)
            spent[place, i] = 1e3 * (time.perf_counter() - start)
    middle = {
        c.method: np.median(t)
        for c, t in zip(contenders, spent, strict=True)
        if c.library == "ours"
    }
    for place, contender in enumerate(contenders):
        yield Timed(
            contender,
            settings[place],
            spent[place],
            comparison.psnr(test, images[place]),
            float(np.median(spent[place]) / middle[contender.method]),
            first[place],
        )


def all_slices(contender: Contender, scans: mri.Scans, settings: dict) -> np.ndarray:
    """(num, H, W)."""
    return np.stack([contender.call(scans, i, settings) for i in range(len(scans.y))])


def summary(measured: dict[str, list]) -> str:
    """Times and PSNR of the others, beside ours; what J v costs and how far it is from J^T v."""
    parts = []
    for section, name in ("slices", "{0.library}"), ("jacobians", "J v"):
        mine = {m.contender.method: m for m in measured[section] if m.contender.library == "ours"}
        for m in measured[section]:
            if m.contender.library != "ours":
                gain = m.psnr.mean() - mine[m.contender.method].psnr.mean()
                parts.append(
                    f"{m.contender.method}: {name.format(m.contender)} {m.ratio:.1f} times the "
                    f"time of ours, {gain:+.1f} dB"
                )
    apart = [f"{m.ratios.mean():.2f} at noise {m.sigma:g}" for m in measured["asymmetry"]]
    return "; ".join(parts) + "; |J v - J^T v| / |J v| " + ", ".join(apart)


def main() -> None:
    warnings.filterwarnings("ignore", module="(azula|deepinv|sigpy|torch).*")
    _report.run(
        "reconstruction",
        "MR reconstruction with one prior, beside other libraries",
        "median (minimum) over slices of calls in turn; PSNR with its deviation over slices",
        (slices, jacobians, parity, asymmetry),
        lambda m: m.row(),
        summary,
    )


if __name__ == "__main__":
    main()
