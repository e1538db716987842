"""Undersampled MR slices: samplers with a diffusion prior beside what does without one.

Claim (Chung, Lee & Ye, 2024): decomposed diffusion sampling, a few conjugate gradients on every
denoised estimate, reconstructs better than samplers that differentiate the network, at a part of
their time.

    python -m experiments.mri_reconstruction
    python -m experiments.mri_reconstruction --config=configs/mri_reconstruction.py:tune

Expected, with the prior that comes with the code, 18 slices of three heads: with equispaced lines
at x4 DDS 26.5, 26.4 and 26.9 dB (normal, proximal, calibrated; 20 evaluations of the network),
tuned TV 24.7, CG-SENSE 22.6. A sample is not the estimate of least error. The mean of a pair whose
noises cancel, with a weight a pixel (48 evaluations; `diffusion.sample_mean`,
`diffusion.local_variance`), has 29.1, and the sampler that draws no noise at all and starts where
CG-SENSE ends (20 evaluations; `diffusion.no_noise`) 29.6. With random lines it has 29.0, TV 24.0,
CG-SENSE 22.4; with points at x8 30.5, 27.0 and 23.9: 5.7 to 8.6 dB above CG-SENSE on every head
with every sampling, 3.3 to 5.4 above TV.

The claim holds of DDS without noise. DPS as published (100 levels; its gradient is subtracted after
the sampler's step) has 28.2, 27.0 and 28.7 dB, 1.2 to 2.6 less on every head, in 14 times the time.
On the six slices of the curves DPS's best, 27.9 dB, takes 33 times as long as DDS's 28.1 (8
levels). DPS from DDS's start is no better at its best (28.1, 27.1 and 28.9 dB) but has 27.7 of its
27.8 dB after half the levels, in 17 times DDS's time. One sample of DDS is behind DPS, and behind
MMPS, which differentiates the network: 28.5, 27.6 and 29.3 dB. What helps DDS helps the others: DPS
without noise has 28.8, 27.9 and 29.5 dB with 20 levels at 2.7 times DDS's time, and with 50 levels
29.7 on the six slices, where DDS has no more than 28.8; a pair of MMPS has 30.1, 29.3 and 30.6, the
best of all, at 13 times DDS's time.

The prior has seen none of the four subjects: settings are chosen on three slices of the second
tumour patient (at most twelve combinations a method; where to start without noise, by hand on the
same slices), and tested on the heads of pycortex, Colin
Holmes and ITK, in three orientations, with a draw of the sampling for each slice.
Deviations are over slices. Coils, phases and noise are simulated; the coil maps that reconstruct
are estimated from the calibration data of each scan.
"""

import itertools
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import comparison, denoisers, harness, heads, mri, plots, reconstructions, records
from subspace_jax import diffusion

TESTS = (heads.TEST, *heads.MORE_TESTS)
DDS = "DDS, no noise"
SHOWN = ("zero-filled", "CG-SENSE", "TV", "DDS, calibrated", DDS, "DPS")


def run(config: ConfigDict, workdir: Path) -> dict:
    """Tune if asked to, reconstruct by every method, print, draw, return numbers."""
    denoise, about = denoisers.load(config.weights)
    if about["size"] != config.size:
        raise ValueError(f"{config.weights} is for size {about['size']}, not {config.size}")
    samplings = {f"x{a:g} {pattern}": (pattern, a) for pattern, a in config.samplings}
    scans = {name: test_scans(config, *sampling) for name, sampling in samplings.items()}

    def tuning(name: str) -> mri.Scans:
        return simulated(config, *samplings[name], (heads.TUNE,), config.num_tune)

    methods = reconstructions.METHODS
    rows, images = comparison.compare(config, workdir, methods, denoise, scans, tuning)
    path = workdir / "checkpoints" / "curves.json"
    found = records.kept(path, partial(curves, config, denoise, scans, rows, tuning))
    if not config.settings:
        comparison.keep_settings(workdir, {next(iter(scans)): found["settings"]})
    results: dict[str, Any] = {"methods": rows, "curves": found["points"], "prior": about}
    results["curve_settings"] = found["settings"]
    results["acceleration"] = {
        name: float(diffusion.operators.masks.acceleration(s.mask)) for name, s in scans.items()
    }
    results["psnr"] = comparison.means(rows)
    names = (config.scans,) if config.scans else TESTS
    for score in ("psnr", "ssim", "residual"):
        results[f"{score}_of_heads"] = {s: by_head(names, row, score) for s, row in rows.items()}
    results["summary"] = headline(results)
    records.say(table(results), sys.stdout)
    picture = partial(draw, config, scans, images, results)
    plots.save(workdir / "mri_reconstruction.png", picture, size=(11, 7.6))
    return results | {"seconds": comparison.seconds(rows)}


def test_scans(config: ConfigDict, pattern: str, acceleration: float) -> mri.Scans:
    """Of the file that the config names, or simulated of the heads to test on."""
    if config.scans:
        return mri.load_fastmri(
            config.scans, config.size, pattern, acceleration, config.seed, sigma_y=config.sigma_y
        )
    return simulated(config, pattern, acceleration, TESTS, config.num_test)


def simulated(
    config: ConfigDict, pattern: str, acceleration: float, names: tuple[str, ...], num: int
) -> mri.Scans:
    """Of ``num`` slices of each head, at equal distances, a draw of the sampling for each.

    The one to tune on shares no noise with others. Of equispaced lines there are few draws.
    """
    slices = np.concatenate([evenly(slices_of(config.size, name), num) for name in names])
    seed = config.seed + (1000 if heads.TUNE in names else 0)
    samplings = [
        mri.draw_sampling(pattern, acceleration, config.size, seed + i) for i in range(len(slices))
    ]
    key = jax.random.fold_in(jax.random.key(seed), round(acceleration))
    options = {"num_coils": config.num_coils, "sigma_y": config.sigma_y}
    return mri.simulate(slices, samplings, key, **options)


def slices_of(size: int, name: str) -> np.ndarray:
    """Slices of a head, those that come with the code if they are of that size."""
    if size == 64:
        return heads.committed({heads.TUNE: "tune", heads.TEST: "test"}.get(name, name))
    tune = name == heads.TUNE
    return heads.even_slices(
        name, 16 if tune else 8, size, ("axial",) if tune else heads.ORIENTATIONS
    )


def evenly(slices: np.ndarray, num: int) -> np.ndarray:
    """So many of them, at equal distances."""
    rows = (np.arange(num) + 0.5) * len(slices) / num
    return slices[rows.astype(int)]


def by_head(names: tuple[str, ...], rows: dict, score: str) -> dict[str, dict[str, float]]:
    """The mean score of every method of each head."""
    means = {method: np.reshape(r[score], (len(names), -1)).mean(1) for method, r in rows.items()}
    return {method: dict(zip(names, of.tolist(), strict=True)) for method, of in means.items()}


def curves(config: ConfigDict, denoise: Any, scans: dict, rows: dict, tuning: Any) -> dict:
    """PSNR and seconds of some methods at other numbers of levels, with the first sampling.

    Each number has settings of its own, from the config's file or tuned.
    """
    first, full = next(iter(scans.items()))
    few = np.linspace(0, len(full.y) - 1, min(config.num_curve_slices, len(full.y))).astype(int)
    arrays = {name: getattr(full, name)[few] for name in ("mask", "maps", "y", "truth")}
    part = full._replace(**arrays)
    points: dict[str, list] = {}
    settings: dict[str, dict[str, float]] = {}
    for name in config.curve:
        of = rows[first][name]
        points[name] = [[of["levels"], of["seconds"], float(np.mean(np.take(of["psnr"], few)))]]
        for num_levels in config.curve_levels:
            key = f"{name}, {num_levels} levels"
            records.say(f"{key} ...")
            method = reconstructions.METHODS[name]
            call = comparison.build(config, denoise, method, num_levels, part)
            if config.settings:
                settings[key] = comparison.known(config, first, key)
            else:
                tried = comparison.tune(config, call, tuning(first), method)
                settings[key] = method.choices()[int(np.argmax(tried))]
            jax.block_until_ready(comparison.reconstruct(config, call, part, 0, settings[key]))
            x, seconds = comparison.reconstruct_all(config, call, part, settings[key])
            psnr = float(np.mean(comparison.psnr(part, x)))
            points[name].append([num_levels, seconds, psnr])
        points[name].sort()
    return {"points": points, "settings": settings}


def headline(results: dict[str, Any]) -> str:
    """Means and spreads over slices; DDS less tuned TV and CG-SENSE; how much longer DPS takes."""
    parts = [
        f"{name} (really x{results['acceleration'][name]:.1f}): {comparison.told(rows)}"
        + gains(results["psnr_of_heads"][name])
        for name, rows in results["methods"].items()
    ]
    num = len(next(iter(next(iter(results["methods"].values())).values()))["psnr"])
    num_heads = len(next(iter(next(iter(results["psnr_of_heads"].values())).values())))
    of = f"{num} slices of {num_heads} head" + "s" * (num_heads > 1)
    return f"PSNR in dB, mean and deviation over {of}. " + ". ".join([*parts, *race(results)])


def gains(psnr: dict[str, dict[str, float]]) -> str:
    """What DDS has over CG-SENSE and over TV: mean and deviation over heads, and head by head."""
    text = ""
    for rival in ("CG-SENSE", "TV"):
        if not {DDS, rival} <= set(psnr):
            continue
        less = {head: psnr[DDS][head] - theirs for head, theirs in psnr[rival].items()}
        each = ", ".join(f"{head.removeprefix('head_')} {gain:+.1f}" for head, gain in less.items())
        mean, deviation = np.mean([*less.values()]), np.std([*less.values()])
        text += f"; {DDS}, less {rival} {mean:+.1f} ± {deviation:.1f} over heads: {each}"
    return text


def race(results: dict[str, Any]) -> list[str]:
    """What DPS takes to its best PSNR, and DDS to one no worse, on the slices of the curves."""
    curves = results["curves"]
    parts = []
    for theirs, ours in itertools.product(
        *([name for name in curves if name.startswith(kind)] for kind in ("DPS", "DDS"))
    ):
        levels, seconds, best = max(curves[theirs], key=lambda point: point[2])
        told = (
            f"{theirs} at its best ({best:.1f} dB, {levels} levels) takes {seconds:.2f} s a slice"
        )
        enough = [point for point in curves[ours] if point[2] >= best]
        if enough:
            levels, least, psnr = min(enough, key=lambda point: point[1])
            ratio = f"{seconds / least:.1f} times as long as {ours}"
            parts.append(f"{told}, {ratio} ({psnr:.1f} dB, {levels} levels)")
        else:
            top = max(point[2] for point in curves[ours])
            parts.append(f"{told}, {ours} reaches no more than {top:.1f} dB")
    return parts


def table(results: dict[str, Any]) -> str:
    return "\n".join(
        comparison.table(f"{name}, really x{results['acceleration'][name]:.2f}", rows)
        for name, rows in results["methods"].items()
    )


def draw(config: ConfigDict, scans: dict, images: dict, results: dict, figure: Figure) -> None:
    """One slice by several methods over its errors; PSNR against time with every sampling."""
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.05, 1))
    first, truth = next((name, of.truth) for name, of in scans.items())
    i = len(truth) // 2
    shown = {name: images[first][name][i] for name in SHOWN if name in images[first]}
    grid = top.subplots(2, len(shown) + 1, squeeze=False)
    comparison.gallery(grid, truth[i], shown, first)
    panels = bottom.subplots(1, len(results["methods"]), squeeze=False, sharey=True)[0]
    for axes, (name, rows) in zip(panels, results["methods"].items(), strict=True):
        scatter(axes, rows)
        axes.set(title=name, xlabel="seconds a slice", xscale="log")
    for name, points in results["curves"].items():
        _, seconds, psnr = zip(*points, strict=True)
        look = {"color": comparison.COLOURS[name], "ls": style(name)}
        label = f"{name}, {points[0][0]} to {points[-1][0]} levels"
        panels[0].plot(seconds, psnr, lw=1.2, zorder=0, label=label, **look)
    if results["curves"]:
        num = min(config.num_curve_slices, len(truth))
        panels[0].set_title(f"{first}; lines: {num} slices")
    panels[0].set_ylabel("PSNR, dB")
    bottom.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside right center",
        fontsize=8,
        labelspacing=0.3,
    )


def style(name: str) -> str:
    """Solid without noise, dashed from a start, else dotted."""
    return "-" if "no noise" in name else "--" if "started" in name else ":"


def scatter(axes: Any, rows: dict[str, Any]) -> None:
    """A marker a method: its mean over slices, with the standard deviation."""
    for marker, (name, r) in zip(comparison.MARKERS, rows.items(), strict=False):
        comparison.spread(axes, name, marker, [r["seconds"]], [r["psnr"]])


if __name__ == "__main__":
    harness.main(run)
