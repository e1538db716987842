"""CT of few views: samplers with a diffusion prior beside what does without one.

Claim (Chung, Lee & Ye, 2024): decomposed diffusion sampling reconstructs CT of few views and of few
angles, and with total variation across the slices whole volumes.

    python -m experiments.ct_reconstruction
    python -m experiments.ct_reconstruction --config=configs/ct_reconstruction.py:tune
    python -m experiments.ct_reconstruction --config=configs/ct_reconstruction.py:head

Expected, with the small prior that comes with the code (12,000 steps on a CPU, float32, one seed):
slice by slice tuned TV has 24.4, 27.4, 30.4 dB at 8, 16, 30 views and 25.7 where a third of the
angles is missing; DDS with one sample at best 24.7, 27.6, 30.4 and 26.7; without noise
(`diffusion.no_noise`, a weight a pixel, 20 evaluations of the network) 25.8, 28.6, 31.2 and 27.6:
ahead of TV on 11, 10, 12 and 10 of 12 slices; the mean of a pair of samples whose noises cancel
(`diffusion.sample_mean`, 48 evaluations) 25.3, 28.5, 31.2 and 27.2. All 61 slices: TV in 3-D has
25.1 at 8 views and 26.3 at 120 degrees, DDS, z-TV 25.2 and 27.3, without noise 25.7 and 27.6, and
DDS without noise, which sees one slice at a time, 25.9 and 27.8.
A head as if it were CT (``:head``, the prior of heads, tuned on another head), 64 slices at once:
DDS, z-TV 22.1 and 23.0, without noise 22.5 and 23.6, TV in 3-D 18.7 and 21.0; one by one DDS
without noise 22.4 and 24.0, with one sample 21.2 and 21.3, TV 18.4 and 20.9.

The prior has seen slices of one patient alone; settings are chosen on a slab of that patient which
it has not seen (at most twelve combinations a method), and tested on the other patient, so the
spread is one over slices. Measurements are simulated on a grid twice as fine by another projector,
with noise. At twelve slices each method by itself; at all slices of the patient the forms that see
one slice beside the one that sees their neighbours.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import comparison, ct, denoisers, harness, heads, lungs, plots, records
from subspace_jax import diffusion


def run(config: ConfigDict, workdir: Path) -> dict:
    """Tune if asked to, reconstruct slices and volumes, print, draw, return numbers."""
    denoise, about = denoisers.load(config.weights)
    if config.body == "head":  # whose prior is one of complex images
        denoise = denoisers.of_real(denoise)
    if about["size"] != config.size:
        raise ValueError(f"{config.weights} is for size {about['size']}, not {config.size}")
    geometries = {label(*geometry): geometry for geometry in config.geometries}
    scans = {name: simulated(config, g, "test", config.num_test) for name, g in geometries.items()}

    def tuning(name: str) -> ct.Scans:
        return simulated(config, geometries[name], "tune", config.num_tune)

    rows, images = comparison.compare(config, workdir, ct.METHODS, denoise, scans, tuning)
    volumes, sections = {}, {}
    for geometry in config.volumes:
        name = label(*geometry)
        harness.pick("volumes", name, geometries)
        records.say(f"all slices, {name} ...")
        path = workdir / "checkpoints" / f"volume of {name}.json"
        compute = partial(volume, config, denoise, geometry, rows[name], path.with_suffix(".npz"))
        volumes[name] = records.kept(path, compute)
        with np.load(path.with_suffix(".npz")) as stored:
            sections[name] = dict(stored)
    if not config.settings:
        across = {
            name: {method: rows[method]["settings"] for method in ct.ACROSS}
            for name, rows in volumes.items()
        }
        comparison.keep_settings(workdir, across)
    results: dict[str, Any] = {"methods": rows, "volumes": volumes, "prior": about}
    results["largest_singular_value"] = {name: float(of.scale) for name, of in scans.items()}
    # Above 1: the projector that reconstructs is not the one that measured.
    results["residual_of_truth"] = {
        name: float(comparison.residuals(of, of.truth).mean()) for name, of in scans.items()
    }
    results["psnr"] = comparison.means(rows)
    results["volume_psnr"] = comparison.means(volumes)
    results["summary"] = headline(results)
    records.say(table(results), sys.stdout)
    picture = partial(draw, config, scans, images, results, sections)
    plots.save(workdir / "ct_reconstruction.png", picture, size=(11, 9.6))
    both = [comparison.seconds(rows), comparison.seconds(volumes)]
    return results | {"seconds": {key: sum(of[key] for of in both) for key in both[0]}}


def label(num_views: int, degrees: float) -> str:
    return f"{num_views} views" if degrees == 180 else f"{num_views} views of {degrees} degrees"


def simulated(config: ConfigDict, geometry: Any, kind: str, num: int) -> ct.Scans:
    """Of ``num`` slices at equal distances, or 0: all; "tune" and "test" share no noise."""
    slices = slices_of(config, kind)
    rows = np.arange(len(slices))
    if num:
        rows = ((np.arange(num) + 0.5) * len(slices) / num).astype(int)
    return scanned(config, geometry, kind, slices[rows])


def scanned(config: ConfigDict, geometry: Any, kind: str, slices: np.ndarray) -> ct.Scans:
    seed = config.seed + (1000 if kind == "tune" else 0)
    return ct.simulate(slices, *geometry, seed, size=config.size, sigma_y=config.sigma_y)


def slices_of(config: ConfigDict, kind: str) -> np.ndarray:
    """At twice the resolution: of the user's folder, of the code, or of the cache."""
    if config.slices and kind == "test":
        return ct.load_folder(config.slices, 2 * config.size)
    return harness.pick("body", config.body, BODIES)(config, kind)


def lung_slices(config: ConfigDict, kind: str) -> np.ndarray:
    if config.size == 64:
        return lungs.committed(kind)
    patient = lungs.load(lungs.TRAIN_PATIENT if kind == "tune" else lungs.TEST_PATIENT)
    part = patient[list(lungs.TUNE)] if kind == "tune" else patient
    return lungs.shrunk(part, 2 * config.size)


def head_slices(config: ConfigDict, kind: str) -> np.ndarray:
    """Of MR, as if its brightness were attenuation."""
    if kind == "tune":
        return heads.even_slices(heads.TUNE, 6, 2 * config.size, ("axial",))
    return heads.stack(heads.TEST, config.num_head, 2 * config.size)


BODIES = {"lungs": lung_slices, "head": head_slices}


def volume(config: ConfigDict, denoise: Any, geometry: Any, rows: dict, path: Path) -> dict:
    """Rows of all slices by some methods, one by one or all at once; images to ``path``.

    Each method has the settings that its row of single slices has.
    """
    slices = slices_of(config, "test")
    num = config.num_volume or len(slices)
    first = (len(slices) - num) // 2
    scans = scanned(config, geometry, "test", slices[first : first + num])
    found = {
        name: one_by_one(config, denoise, scans, ct.METHODS[name], rows[name])
        for name in config.volume_methods
    }
    for name in ct.ACROSS:
        found[name] = at_once(config, denoise, scans, geometry, name)
    np.savez(path, truth=scans.truth, **{name: x for name, (_, x) in found.items()})
    return {name: row for name, (row, _) in found.items()}


def one_by_one(config, denoise, scans: ct.Scans, method: Any, told: dict) -> tuple[dict, Any]:
    """The row and the images of a method that sees one slice, with what ``told`` says of it."""
    start = time.perf_counter()
    call = comparison.build(config, denoise, method, told["levels"], scans)
    jax.block_until_ready(comparison.reconstruct(config, call, scans, 0, told["settings"]))
    built = time.perf_counter()
    x, seconds = comparison.reconstruct_all(config, call, scans, told["settings"])
    return row(scans, x, told, start, built, seconds), x


def at_once(config, denoise, scans: ct.Scans, geometry: Any, name: str) -> tuple[dict, np.ndarray]:
    """The row and the volume of a method that sees all slices."""
    start = time.perf_counter()
    call, choices = build_across(config, denoise, scans, name), ct.ACROSS[name].choices()
    jax.block_until_ready(reconstruct_across(config, call, scans, choices[0]))
    built = time.perf_counter()
    given = comparison.known(config, label(*geometry), name) if config.settings else {}
    tried = [] if given else tune_across(config, call, geometry, choices)
    chosen = given or choices[int(np.argmax(tried))]
    tuned = time.perf_counter()
    x = np.asarray(reconstruct_across(config, call, scans, chosen))
    seconds = (time.perf_counter() - tuned) / len(x)
    told = {"settings": chosen, "tuning": tried}
    told |= ct.ACROSS[name].cost(num_levels(config, name))
    return row(scans, x, told, start, built, seconds), x


def row(scans: ct.Scans, x: np.ndarray, told: dict, start: float, built: float, seconds: float):
    """Scores of all slices, what ``told`` says of the method, and what it took."""
    spent = time.perf_counter() - built
    kept = ("settings", "levels", "evaluations", "products", "tuning")
    return {key: values.tolist() for key, values in comparison.scores(scans, x).items()} | {
        **{key: told[key] for key in kept},
        "seconds": seconds,
        "compile": built - start,
        "spent": spent,
    }


def num_levels(config: ConfigDict, name: str) -> int:
    levels = ct.ACROSS[name].levels
    return config.levels[levels] if levels else 0


def build_across(config: ConfigDict, denoise: Any, scans: ct.Scans, name: str) -> Any:
    """(key, setup, y, settings) -> a volume."""
    low, high = config.sigma_range
    num = max(num_levels(config, name), 1)
    sigmas = diffusion.karras_sigmas(num, sigma_min=low, sigma_max=high)

    @jax.jit
    def call(key, setup, y, settings):
        op = ct.volume(scans.operator(*setup), len(y))
        method = ct.ACROSS[name]
        return method.reconstruct(key, denoise, op, y, scans.sigma_y, sigmas, settings)

    return call


def reconstruct_across(config: ConfigDict, call: Any, scans: ct.Scans, chosen: dict) -> Any:
    chosen = {name: jnp.float32(value) for name, value in chosen.items()}
    return call(jax.random.key(config.seed), scans.setup(0), scans.y, chosen)


def tune_across(config: ConfigDict, call: Any, geometry: Any, choices: list) -> list[float]:
    """The mean PSNR of each choice on the whole slab."""
    scans = simulated(config, geometry, "tune", 0)
    tried = []
    for chosen in choices:
        x = np.asarray(reconstruct_across(config, call, scans, chosen))
        tried.append(float(np.mean(comparison.psnr(scans, np.nan_to_num(x)))))
    return tried


def headline(results: dict[str, Any]) -> str:
    """Means and spreads over slices; each form of DDS against tuned TV, slice by slice."""
    parts = [f"{name}: {comparison.told(rows)}" for name, rows in results["methods"].items()]
    for name, rows in results["volumes"].items():
        num = len(next(iter(rows.values()))["psnr"])
        parts.append(f"{name}, all {num} slices: {comparison.told(rows)}")
    num = len(next(iter(next(iter(results["methods"].values())).values()))["psnr"])
    return f"PSNR in dB, mean and deviation over {num} slices of one person. " + ". ".join(parts)


def table(results: dict[str, Any]) -> str:
    tables = [comparison.table(name, rows) for name, rows in results["methods"].items()]
    tables += [
        comparison.table(f"{name}, all slices", rows) for name, rows in results["volumes"].items()
    ]
    return "\n".join(tables)


SHOWN = ("FBP", "TV", "DDS, calibrated", "DDS, no noise", "DiffPIR", "PiGDM")


def draw(config, scans, images, results, sections, figure: Figure) -> None:
    """A slice over its errors; a section across all slices; PSNR against views and along z."""
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(1.1, 0.45, 1))
    name = next(iter(scans))
    truth = scans[name].truth
    i = len(truth) // 2
    shown = {method: images[name][method][i] for method in SHOWN if method in images[name]}
    comparison.gallery(top.subplots(2, len(shown) + 1), truth[i], shown, name)
    volumes = next(iter(sections.values()))
    row = config.size // 2
    for axes, (method, x) in zip(middle.subplots(1, len(volumes)), volumes.items(), strict=True):
        title = "across the slices" if method == "truth" else method
        comparison.show(axes, x[::-1, row], title)
        axes.set_aspect("auto")
    left, right = bottom.subplots(1, 2, width_ratios=(1.3, 1))
    against_views(left, results["methods"])
    name, rows = next(iter(results["volumes"].items()))
    for method, r in rows.items():
        style = {"DDS, calibrated": ":", "DDS, no noise": "-."}.get(method, "--")
        style = "-" if method in ct.ACROSS else style
        look = {"color": comparison.COLOURS[method], "lw": 2.2 if style == "-" else 1.3}
        right.plot(r["psnr"], style, label=method, **look)
    right.set(title=f"all slices, {name}", xlabel="slice, upwards", ylabel="PSNR, dB")
    right.legend(fontsize=8)


def against_views(axes: Any, methods: dict[str, dict]) -> None:
    """The mean over slices of each method at each geometry, with the standard deviation."""
    names = list(next(iter(methods.values())))
    for k, (marker, method) in enumerate(zip(comparison.MARKERS, names, strict=False)):
        at = np.arange(len(methods)) + 0.08 * (k - len(names) / 2)
        psnr = [rows[method]["psnr"] for rows in methods.values()]
        comparison.spread(axes, method, marker, at, psnr)
    axes.set_xticks(range(len(methods)), [name.replace(" of ", "\nof ") for name in methods])
    axes.set(title="PSNR and its deviation over slices", ylabel="dB")
    axes.legend(fontsize=8, ncols=2, loc="lower center")


if __name__ == "__main__":
    harness.main(run)
