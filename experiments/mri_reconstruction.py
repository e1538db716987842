"""Undersampled MR slices: samplers with a diffusion prior beside what does without one.

Claim (Chung, Lee & Ye, 2024): decomposed diffusion sampling, a few conjugate gradients on every
denoised estimate, reconstructs better than samplers that differentiate the network, at a part of
their time.

    python -m experiments.mri_reconstruction
    python -m experiments.mri_reconstruction --config=configs/mri_reconstruction.py:tune

Expected, with the small prior that comes with the code, 18 slices of three heads (eleven minutes,
most of one CPU core): with equispaced lines at x4 DDS 25.5, 25.5 and 25.9 dB (normal, proximal,
calibrated; 20 evaluations of the network) and 26.9 as the mean of three samples (48), tuned TV
24.7, CG-SENSE 22.6; with random lines 26.2, 24.0 and 22.4; with points at x8 28.1, 27.0 and 23.9.
So the mean of three is 4.3, 3.8 and 4.3 dB above CG-SENSE, 3.5, 3.5 and 5.8 on the three heads at
x4. More levels make DDS worse (18.4 dB at 300), more samples better: 1 to 5 of them in about 50
evaluations have 27.3, 28.9, 29.1, 29.0 and 28.7 dB on the tuning subject, which chose three.

The claim on time holds: with equispaced lines DPS has 25.6 dB at its best in 8.6 s a slice, DDS
25.8 in 0.27, 32 times faster. That on quality holds for DPS, PiGDM and DiffPIR; MMPS (27.0, 26.3
and 28.2), which differentiates the network, and RED-diff, which does not, are level with the mean
of three at two times its time.

The prior has seen none of the four subjects: settings are chosen on three slices of the second
tumour patient (at most twelve combinations a method), and tested on the heads of pycortex, Colin
Holmes and ITK, in three orientations, with a draw of the sampling for each slice. One draw of
random lines for all says little: of six, the mean of two samples was 2.4 to 4.4 dB above CG-SENSE.
Deviations are over slices. Coils, phases and noise are simulated; the coil maps that reconstruct
are estimated from the calibration data of each scan.
"""

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
DDS = "DDS, mean of 3"
SHOWN = ("zero-filled", "CG-SENSE", "TV", DDS, "PiGDM", "DPS")


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
    curve = records.kept(path, partial(curves, config, denoise, scans, rows))
    results: dict[str, Any] = {"methods": rows, "curves": curve, "prior": about}
    results["acceleration"] = {
        name: float(diffusion.operators.masks.acceleration(s.mask)) for name, s in scans.items()
    }
    results["psnr"] = comparison.means(rows)
    names = (config.scans,) if config.scans else TESTS
    results["psnr_of_heads"] = {scan: by_head(names, row) for scan, row in rows.items()}
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


def by_head(names: tuple[str, ...], rows: dict) -> dict[str, dict[str, float]]:
    """The mean PSNR of every method of each head."""
    psnr = {method: np.reshape(r["psnr"], (len(names), -1)).mean(1) for method, r in rows.items()}
    return {method: dict(zip(names, of.tolist(), strict=True)) for method, of in psnr.items()}


def curves(config: ConfigDict, denoise: Any, scans: dict, rows: dict) -> dict:
    """PSNR and seconds of some methods at other numbers of levels, with the first sampling."""
    first, full = next(iter(scans.items()))
    few = np.linspace(0, len(full.y) - 1, min(config.num_curve_slices, len(full.y))).astype(int)
    arrays = {name: getattr(full, name)[few] for name in ("mask", "maps", "y", "truth")}
    part = full._replace(**arrays)
    points: dict[str, list] = {}
    for name in config.curve:
        of = rows[first][name]
        points[name] = [[of["levels"], of["seconds"], float(np.mean(np.take(of["psnr"], few)))]]
        for num_levels in config.curve_levels:
            records.say(f"{name}, {num_levels} levels ...")
            method = reconstructions.METHODS[name]
            call = comparison.build(config, denoise, method, num_levels, part)
            jax.block_until_ready(comparison.reconstruct(config, call, part, 0, of["settings"]))
            x, seconds = comparison.reconstruct_all(config, call, part, of["settings"])
            psnr = float(np.mean(comparison.psnr(part, x)))
            points[name].append([num_levels, seconds, psnr])
        points[name].sort()
    return points


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
    """What DDS has over CG-SENSE, head by head."""
    if not {DDS, "CG-SENSE"} <= set(psnr):
        return ""
    less = {head: psnr[DDS][head] - sense for head, sense in psnr["CG-SENSE"].items()}
    each = ", ".join(f"{head.removeprefix('head_')} {gain:+.1f}" for head, gain in less.items())
    return f"; {DDS}, less CG-SENSE {np.mean([*less.values()]):+.1f}: {each}"


def race(results: dict[str, Any]) -> list[str]:
    """What DPS takes to its best PSNR, and DDS to one no worse, on the slices of the curves."""
    curves = results["curves"]
    ours = [(*p, name) for name in curves if name.startswith("DDS") for p in curves[name]]
    if not ours or "DPS" not in curves:
        return []
    levels, seconds, best = max(curves["DPS"], key=lambda point: point[2])
    enough = [point for point in ours if point[2] >= best]
    told = f"DPS at its best ({best:.1f} dB, {levels} levels) takes {seconds:.2f} s a slice"
    if not enough:
        return [f"{told}, DDS reaches no more than {max(point[2] for point in ours):.1f} dB"]
    levels, least, psnr, form = min(enough, key=lambda point: point[1])
    return [
        f"{told}, {seconds / least:.0f} times as long as {form} ({psnr:.1f} dB, {levels} levels)"
    ]


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
        label = f"{name}, {points[0][0]} to {points[-1][0]} levels"
        panels[0].plot(
            seconds, psnr, ":", color=comparison.COLOURS[name], lw=1.2, zorder=0, label=label
        )
    panels[0].set_ylabel("PSNR, dB")
    bottom.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")


def scatter(axes: Any, rows: dict[str, Any]) -> None:
    """A marker a method: its mean over slices, with the standard deviation."""
    for marker, (name, r) in zip(comparison.MARKERS, rows.items(), strict=False):
        comparison.spread(axes, name, marker, [r["seconds"]], [r["psnr"]])


if __name__ == "__main__":
    harness.main(run)
