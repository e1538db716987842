"""A diffusion prior of heads, lungs or clothes: a denoiser trained at every level of noise.

Claim (Karras et al., 2022): one network, preconditioned so that its input and target have variance
one at every level of noise, learns from real slices to take noise off; with that it can be sampled.

    python -m experiments.train_denoiser                                              64 x 64
    python -m experiments.train_denoiser --config=configs/train_denoiser.py:size=256  for a GPU
    python -m experiments.train_denoiser --config=configs/train_denoiser.py:ct        lungs
    python -m experiments.train_denoiser --config=configs/train_denoiser.py:fashion   Fashion-MNIST

Expected, 64 x 64, batches of 16, float32 on a CPU, one seed: noise of sigma 0.02, 0.1, 0.5 and 1
falls by 6.6, 11.5, 18.0 and 21.0 dB on the heads' tuning subject after 9,000 steps (75 minutes of
two cores). A network of half the weights, trained by 12,000 steps of Adam, has 4.9, 10.1, 17.0 and
20.3 dB there.

The scans of heads are magnitudes: each training image gets a random smooth phase, which is
simulated. The network sees real and imaginary parts as channels; CT is real. Slices of heads, in
all orientations, are turned, tilted, shifted, mirrored, those of lungs shifted and mirrored, and
their contrast is changed. The weights (a moving average) go to ``denoiser.npz`` together with the
scale of the data and the recipe.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import data, denoisers, harness, plots, records, subjects
from subspace_jax import diffusion

RECIPE = (
    "size", "channels", "num_blocks", "sigma_data", "num_slices", "contrast", "brightness",
    "log_sigma", "learning_rate", "muon_rate", "warmup", "ema", "batch_size", "num_steps", "seed",
)  # fmt: skip
"""What of the config made the weights, and goes with them."""


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train, test on the tuning subject, write the weights and a sheet of samples."""
    subject = harness.pick("subject", config.subject, subjects.SUBJECTS)
    slices = subject.train(config)
    model = denoisers.UNet(tuple(config.channels), config.num_blocks)
    optimizer = muon(config) if config.muon_rate else adam(config)
    split = data.Split(slices, np.zeros(len(slices), np.int32), slices[:0], np.zeros(0, np.int32))
    batch = data.epochs(split, config.batch_size, (config.seed,))
    state, seconds = harness.train(
        workdir,
        config,
        start(config, subject, model, optimizer),
        partial(train_step, config, subject, model, optimizer),
        lambda step: batch(step)[0],
    )
    params = state["average"]
    size = sum(x.size for x in jax.tree.leaves(params))
    recipe = {key: config[key] for key in RECIPE} | subject.about(config) | {"weights": size}
    denoisers.save(workdir / "denoiser.npz", params, recipe)
    denoise = jax.jit(denoisers.load(workdir / "denoiser.npz")[0])  # as rounded
    clean = subject.images(jax.random.key(config.seed + 1), subject.tune(config))
    gains = {str(sigma): gain(config, denoise, clean, sigma) for sigma in config.sigmas}
    results: dict[str, Any] = {"num_weights": size, "num_slices": len(slices), "gain_db": gains}
    results["rms"] = float(np.sqrt(np.mean(slices**2) / channels_of(subject)))
    results["summary"] = headline(config, results)
    records.say(results["summary"], sys.stdout)
    samples = sample(config, denoise, 8, clean.dtype)
    picture = partial(draw, config, denoise, slices, clean, samples)
    plots.save(workdir / "train_denoiser.png", picture, size=(9.6, 5.4))
    return results | {"seconds": seconds}


def adam(config: ConfigDict) -> optax.GradientTransformation:
    """Adam; its rate rises from zero and falls back to it as a cosine."""
    rate = rises_and_falls(config, config.learning_rate)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))


def muon(config: ConfigDict) -> optax.GradientTransformation:
    """Muon for the kernels of convolutions, Adam with Nesterov's momentum for the rest.

    Reference: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks".
    """
    method = optax.contrib.muon(
        rises_and_falls(config, config.muon_rate),
        adam_learning_rate=rises_and_falls(config, config.learning_rate),
        adam_b2=0.99,
        muon_weight_dimension_numbers=kernels,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), method)


def rises_and_falls(config: ConfigDict, rate: float) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(0.0, rate, config.warmup, config.num_steps)


def kernels(params: Any) -> Any:
    """Which parameters are kernels of convolutions: matrices of all inputs of a pixel."""
    matrix = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
    return jax.tree.map(lambda x: matrix if x.ndim == 4 else None, params)


def start(config: ConfigDict, subject: subjects.Subject, model: Any, optimizer: Any) -> dict:
    image = jnp.zeros((1, config.size, config.size, channels_of(subject)))
    params = jax.jit(model.init)(jax.random.key(config.seed), image, jnp.zeros(1))["params"]
    average = jax.tree.map(jnp.copy, params)
    return {
        "params": params,
        "average": average,
        "optimizer": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
    }


def channels_of(subject: subjects.Subject) -> int:
    """Two of complex images, one of real ones."""
    magnitude = jax.ShapeDtypeStruct((1, 1, 1), jnp.float32)
    image = jax.eval_shape(subject.images, jax.random.key(0), magnitude)
    return 2 if jnp.iscomplexobj(image) else 1


def train_step(config, subject, model, optimizer, state, batch, key):
    """One step on the weighted squared error, and the moving average of the weights."""
    image_key, sigma_key, noise_key = jax.random.split(key, 3)
    clean = denoisers.to_channels(augmented(config, subject, image_key, batch))
    sigma = denoisers.draw_levels(config, sigma_key, len(batch))
    noisy = clean + sigma[:, None, None, None] * jax.random.normal(noise_key, clean.shape)

    def loss(params):
        network = partial(model.apply, {"params": params})
        denoised = denoisers.precondition(network, config.sigma_data)(noisy, sigma)
        return denoisers.weighted_error(denoised, clean, sigma, config.sigma_data)

    value, gradient = jax.value_and_grad(loss)(state["params"])
    updates, memory = optimizer.update(gradient, state["optimizer"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    step = state["step"] + 1
    keep = jnp.minimum(config.ema, step / (step + 10.0))
    average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, state["average"], params)
    state = {"params": params, "average": average, "optimizer": memory, "step": step}
    return state, {"loss": value}


def augmented(config, subject, key: jax.Array, magnitudes: jax.Array) -> jax.Array:
    """Images (batch, h, w) of these magnitudes, of another contrast and brightness."""
    gamma_key, scale_key, image_key = jax.random.split(key, 3)
    num = len(magnitudes)
    gamma = jnp.exp(config.contrast * jax.random.normal(gamma_key, (num, 1, 1)))
    scale = jnp.exp(config.brightness * jax.random.normal(scale_key, (num, 1, 1)))
    return subject.images(image_key, scale * jnp.maximum(magnitudes, 1e-6) ** gamma)


def gain(config: ConfigDict, denoise: Any, clean: jax.Array, sigma: float) -> float:
    """By how many dB the denoised images are nearer to the clean ones than the noisy ones."""
    key = jax.random.fold_in(jax.random.key(config.seed + 2), round(1000 * sigma))
    noisy = clean + sigma * diffusion.standard_normal(key, clean.shape, clean.dtype)
    denoised = jnp.stack([denoise(one, jnp.float32(sigma)) for one in noisy])
    before, after = (jnp.linalg.norm(x - clean) for x in (noisy, denoised))
    return float(20 * jnp.log10(before / after))


def sample(config: ConfigDict, denoise: Any, num: int, dtype: Any) -> np.ndarray:
    """Images (num, size, size) of the prior alone."""
    sigmas = diffusion.karras_sigmas(config.num_levels, sigma_min=0.01, sigma_max=10.0)
    step, shape = diffusion.euler(), (config.size, config.size)

    def one(key):
        return diffusion.sample(key, denoise, sigmas, shape, step=step, dtype=dtype).x

    keys = jax.random.split(jax.random.key(config.seed + 3), num)
    return np.asarray(jax.jit(harness.each(one))(keys))


def headline(config: ConfigDict, results: dict[str, Any]) -> str:
    gains = ", ".join(f"{gain:.1f} at {s}" for s, gain in results["gain_db"].items())
    return (
        f"{results['num_weights']:,} weights, {config.size} x {config.size}, {config.num_steps:,} "
        f"steps of {config.batch_size}; on the tuning subject noise falls by {gains} (dB at sigma)"
    )


def draw(config, denoise, slices, clean, samples, figure: Figure) -> None:
    """Training slices, samples, and a slice of the tuning subject at three levels of noise."""
    grid = figure.subplots(3, 8)
    x = clean[len(clean) // 2]
    last = [np.abs(x)]
    names = ["clean"]
    for i, sigma in enumerate((0.1, 0.3, 1.0)):
        key = jax.random.fold_in(jax.random.key(config.seed + 4), i)
        noisy = x + sigma * diffusion.standard_normal(key, x.shape, x.dtype)
        last += [np.abs(noisy), np.abs(denoise(noisy, jnp.float32(sigma)))]
        names += [f"noise {sigma}", "denoised"]
    rows = (slices[:8], np.abs(samples), last)
    for axes_row, images in zip(grid, rows, strict=True):
        for axes, image in zip(axes_row, images, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1.1)
    for axes in grid.flat:
        axes.axis("off")
    grid[0, 0].set_title("images to train on")
    grid[1, 0].set_title("samples of the prior")
    for axes, name in zip(grid[2], names, strict=False):
        axes.set_title(name, fontsize=9)
    if np.iscomplexobj(x):
        grid[2, -1].imshow(np.angle(x), cmap="twilight", vmin=-np.pi, vmax=np.pi)
        grid[2, -1].set_title("its phase", fontsize=9)


if __name__ == "__main__":
    harness.main(run)
