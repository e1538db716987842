"""Reconstructions side by side: every method tuned on some scans, measured on others, drawn."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from skimage import metrics

from experiments import harness, plots, records
from experiments.reconstructions import Method
from subspace_jax import diffusion


class Scans(Protocol):
    """Slices that were measured alike."""

    @property
    def y(self) -> Any:
        """(num, ...)."""

    @property
    def sigma_y(self) -> float:
        """Standard deviation of the noise, per real number."""

    @property
    def truth(self) -> np.ndarray:
        """(num, H, W), magnitudes."""

    @property
    def num_numbers(self) -> Any:
        """How many real ones were measured of a slice: of all, or of each, (num,)."""

    def setup(self, i: int) -> tuple[jax.Array, ...]:
        """What the operator of slice ``i`` is made of."""

    def operator(self, *setup: jax.Array) -> diffusion.operators.LinearOperator:
        """The operator that reconstructs."""


def compare(
    config: ConfigDict,
    workdir: Path,
    methods: Mapping[str, Method],
    denoise: Any,
    scans: Mapping[str, Scans],
    tuning: Callable[[str], Scans],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, np.ndarray]]]:
    """The rows and the images of all methods, by the scans' names; a killed run goes on.

    Args:
        config: needs seed, methods, settings, levels and sigma_range.
        workdir: of the run; gets ``settings.json`` if they are tuned.
        methods: those among which the config names some.
        denoise: the prior.
        scans: to be reconstructed.
        tuning: from a name to like scans, on which settings are chosen if the config has none.
    """
    chosen = [harness.pick("methods", name, methods) for name in config.methods]
    rows: dict[str, dict[str, Any]] = {of: {} for of in scans}
    images: dict[str, dict[str, np.ndarray]] = {of: {} for of in scans}
    (workdir / "checkpoints").mkdir(exist_ok=True)
    with contextlib.closing(records.MetricsLog(workdir, 0, len(chosen), 1)) as log:
        for done, (name, method) in enumerate(zip(config.methods, chosen, strict=True), 1):
            path = workdir / "checkpoints" / f"{done}.json"
            if not path.exists():
                records.say(f"{name} ...")
                given = {of: known(config, of, name) for of in scans} if config.settings else {}
                row, x = measure(config, denoise, method, scans, tuning, given)
                np.savez(path.with_suffix(".npz"), **x)
                records.write_json(path, row)
            row = records.read_json(path, None)
            with np.load(path.with_suffix(".npz")) as stored:
                for of in scans:
                    rows[of][name], images[of][name] = row[of], stored[of]
            log.update(done, {f"psnr {of}": np.mean(rows[of][name]["psnr"]) for of in scans})
    if not config.settings:
        found = {of: {n: r["settings"] for n, r in row.items()} for of, row in rows.items()}
        keep_settings(workdir, found)
    return rows, images


def keep_settings(workdir: Path, found: Mapping[str, Mapping[str, dict[str, float]]]) -> None:
    """Add settings, by the scans' and the methods' names, to the run's ``settings.json``."""
    path = workdir / "settings.json"
    kept = records.read_json(path, {})
    for of, more in found.items():
        kept[of] = kept.get(of, {}) | dict(more)
    records.write_json(path, kept)


def known(config: ConfigDict, of: str, name: str) -> dict[str, float]:
    """What the config's file has for the method ``name`` on scans ``of``.

    Raises:
        ValueError: nothing.
    """
    try:
        return json.loads(Path(config.settings).read_text())[of][name]
    except KeyError:
        raise ValueError(
            f"{config.settings} has no settings of {name!r} for {of!r}; --config.settings= has "
            "them tuned"
        ) from None


def measure(config, denoise, method: Method, scans, tuning, given) -> tuple[dict, dict]:
    """The rows and the images of a method, for all scans by their names."""
    num_levels = config.levels[method.levels] if method.levels else 0
    call = build(config, denoise, method, num_levels, next(iter(scans.values())))
    rows, images = {}, {}
    for name, test in scans.items():
        start = time.perf_counter()
        jax.block_until_ready(reconstruct(config, call, test, 0, method.choices()[0]))
        built = time.perf_counter()
        tried = [] if given else tune(config, call, tuning(name), method)
        chosen = given[name] if given else method.choices()[int(np.argmax(tried))]
        images[name], seconds = reconstruct_all(config, call, test, chosen)
        rows[name] = {key: x.tolist() for key, x in scores(test, images[name]).items()} | {
            "settings": chosen,
            **method.cost(num_levels),
            "seconds": seconds,
            "compile": built - start,
            "spent": time.perf_counter() - built,
            "tuning": tried,
        }
    return rows, images


def build(config: ConfigDict, denoise: Any, method: Method, num_levels: int, like: Scans) -> Any:
    """(key, setup, y, sigma_y, settings) -> an image: one slice, one program for like scans."""
    low, high = config.sigma_range
    sigmas = diffusion.karras_sigmas(max(num_levels, 1), sigma_min=low, sigma_max=high)

    @jax.jit
    def call(key, setup, y, sigma_y, settings):
        op = like.operator(*setup)
        return method.reconstruct(key, denoise, op, y, sigma_y, sigmas, settings)

    return call


def reconstruct(config: ConfigDict, call: Any, scans: Scans, i: int, chosen: dict) -> Any:
    """Slice ``i``, with its own key."""
    key = jax.random.fold_in(jax.random.key(config.seed), i)
    chosen = {name: jnp.float32(value) for name, value in chosen.items()}
    return call(key, scans.setup(i), scans.y[i], jnp.float32(scans.sigma_y), chosen)


def reconstruct_all(config, call, scans: Scans, chosen: dict) -> tuple[np.ndarray, float]:
    """All slices, and the median of the seconds that one takes."""
    images, seconds = [], []
    for i in range(len(scans.y)):
        start = time.perf_counter()
        images.append(np.asarray(reconstruct(config, call, scans, i, chosen)))
        seconds.append(time.perf_counter() - start)
    return np.stack(images), float(np.median(seconds))


def tune(config: ConfigDict, call: Any, scans: Scans, method: Method) -> list[float]:
    """The mean PSNR on these scans that each choice of settings reaches."""
    tried = []
    for chosen in method.choices():
        x, _ = reconstruct_all(config, call, scans, chosen)
        tried.append(float(np.mean(psnr(scans, np.nan_to_num(x)))))
    return tried


def psnr(scans: Scans, x: np.ndarray) -> np.ndarray:
    """Of magnitudes of (num, H, W), in dB on the scale of each slice's brightest pixel: (num,)."""
    top = scans.truth.max((1, 2))
    error = np.mean((np.abs(x) - scans.truth) ** 2, (1, 2))
    return 10 * np.log10(top**2 / error)


def scores(scans: Scans, x: np.ndarray) -> dict[str, np.ndarray]:
    """Of reconstructions (num, H, W): ``psnr``, ``ssim`` and ``residual``, (num,) each.

    A residual of about 1 is right.
    """
    ssim = [
        metrics.structural_similarity(truth, magnitude, data_range=float(truth.max()))
        for truth, magnitude in zip(scans.truth, np.abs(x), strict=True)
    ]
    return {"psnr": psnr(scans, x), "ssim": np.asarray(ssim), "residual": residuals(scans, x)}


def residuals(scans: Scans, x: np.ndarray) -> np.ndarray:
    """|A x - y| over what noise alone would leave: (num,)."""
    norm = jax.jit(lambda setup, x, y: jnp.linalg.norm(scans.operator(*setup).apply(x) - y))
    norms = [norm(scans.setup(i), jnp.asarray(x[i]), scans.y[i]) for i in range(len(x))]
    return np.asarray(norms) / (scans.sigma_y * scans.num_numbers**0.5)


def seconds(rows: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Of all methods and scans, as a result's "seconds"."""
    spent = [row for of in rows.values() for row in of.values()]
    both = {"compile": "compile", "train": "spent"}
    return {name: sum(row[key] for row in spent) for name, key in both.items()}


def means(rows: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean PSNR of every method, by the scans' names."""
    return {of: {n: float(np.mean(r["psnr"])) for n, r in row.items()} for of, row in rows.items()}


def told(rows: Mapping[str, dict]) -> str:
    """Means and spreads over slices; each form of DDS against the tuned TV that sees as much."""
    text = ", ".join(
        f"{name} {np.mean(r['psnr']):.1f} ± {np.std(r['psnr']):.1f}" for name, r in rows.items()
    )
    for form in (name for name in rows if name.startswith("DDS")):
        rival = "TV, 3-D" if "z-TV" in form else "TV"
        if rival in rows:
            less = np.subtract(rows[form]["psnr"], rows[rival]["psnr"])
            text += f"; {form}, less {rival} {less.mean():+.1f} ± {less.std():.1f}"
    return text


def table(title: str, rows: Mapping[str, dict]) -> str:
    """The numbers as a person reads them."""
    lines = ["", title]
    lines.append(
        f"{'method':<19} {'PSNR, dB':>12} {'SSIM':>14} {'residual':>9} {'network':>7} "
        f"{'J v':>4} {'s/slice':>8}  settings"
    )
    for name, r in rows.items():
        psnr, ssim = (f"{np.mean(r[k]):.3g} ± {np.std(r[k]):.2g}" for k in ("psnr", "ssim"))
        chosen = ", ".join(f"{key} {value:g}" for key, value in r["settings"].items())
        lines.append(
            f"{name:<19} {psnr:>12} {ssim:>14} {np.mean(r['residual']):9.2f} "
            f"{r['evaluations']:7} {r['products']:4} {r['seconds']:8.3f}  {chosen}"
        )
    return "\n".join(lines)


COLOURS = {
    "zero-filled": plots.GREY,
    "FBP": plots.GREY,
    "CG-SENSE": plots.GREY,
    "TV": plots.ORANGE,
    "DDS, normal": plots.BLUE,
    "DDS, proximal": plots.BLUE,
    "DDS, calibrated": plots.BLUE,
    "DDS, local": plots.BLUE,
    "DDS, pair": plots.BLUE,
    "DDS, no noise": plots.BLUE,
    "DDS, z-TV": plots.BLUE,
    "DDS, z-TV, no noise": plots.SKY,
    "TV, 3-D": plots.ORANGE,
    "DiffPIR": plots.SKY,
    "DDNM": plots.SKY,
    "PiGDM": plots.GREEN,
    "MMPS": plots.GREEN,
    "MMPS, pair": plots.GREEN,
    "DPS": plots.VERMILION,
    "DPS, started": plots.VERMILION,
    "DPS, no noise": plots.VERMILION,
    "RED-diff": plots.PURPLE,
}


MARKERS = "xP*os^<>DdvhXp8H1+"


def spread(axes: Any, name: str, marker: str, x: Any, psnr: Any) -> None:
    """A method's means over slices, the last axis, with their standard deviations."""
    middle, deviation = np.mean(psnr, -1), np.std(psnr, -1)
    look = {"color": COLOURS[name], "marker": marker, "ms": 6.5, "lw": 0.8, "ls": ""}
    axes.errorbar(x, middle, deviation, label=name, **look)


def gallery(grid: Any, truth: np.ndarray, images: Mapping[str, np.ndarray], told: str) -> None:
    """A slice in the first of (2, num + 1) axes, its reconstructions by name over their errors."""
    show(grid[0, 0], truth, "the slice")
    grid[1, 0].axis("off")
    grid[1, 0].text(0.5, 0.5, f"{told}: errors\n5 times\nas bright", ha="center", va="center")
    for column, (name, x) in zip(grid[:, 1:].T, images.items(), strict=True):
        error = np.abs(x) - truth
        show(column[0], np.abs(x), name)
        show(column[1], 5 * np.abs(error), "", cmap="inferno")
        psnr = 10 * np.log10(truth.max() ** 2 / np.mean(error**2))
        column[1].set_title(f"{psnr:.1f} dB", fontsize=9, loc="center")


def show(axes: Any, image: np.ndarray, title: str, cmap: str = "gray") -> None:
    axes.imshow(image, cmap=cmap, vmin=0, vmax=1.1)
    axes.set_title(title, fontsize=9, loc="center")
    axes.axis("off")
