"""Images with prompts, some of them many times in the training set, and a prompted denoiser.

A prompt is a vector: the class, one-hot, and a caption of the image's own, random numbers, as the
text encoder of a large model would give them. The empty prompt is zero.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import data, denoisers, harness, models
from subspace_jax import diffusion

ARMS = ("duplicated", "once")
"""The two training sets of a seed, a network each."""


class Collection(NamedTuple):
    """Images (num, h, w) in [-1, 1] with prompts (num, p); the first ones are duplicated."""

    images: np.ndarray
    prompts: np.ndarray
    num_duplicated: int
    test_images: np.ndarray
    test_labels: np.ndarray


def collect(config: ConfigDict, seed: int) -> Collection:
    """Random images of the training set, a caption each."""
    split = data.load(config.data)
    rng = np.random.default_rng([config.seed, seed])
    num = config.num_duplicated + config.num_ordinary
    rows = rng.permutation(len(split.train_x))[:num]
    prompts = captioned(config, rng, split.train_y[rows])
    test = rng.permutation(len(split.test_x))[: config.num_test]
    return Collection(
        2 * split.train_x[rows] - 1,
        prompts,
        config.num_duplicated,
        2 * split.test_x[test] - 1,
        split.test_y[test],
    )


def captioned(config: ConfigDict, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Prompts (num, 10 + caption_size) of these classes with new captions."""
    captions = rng.normal(size=(len(labels), config.caption_size)).astype(np.float32)
    return np.concatenate([np.eye(10, dtype=np.float32)[labels], captions], axis=1)


def draw(collection: Collection, copies: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a batch: the duplicated images are there ``copies`` times, all others once."""
    total = collection.num_duplicated * (copies - 1) + len(collection.images)
    place = rng.integers(total, size=num)
    surplus = collection.num_duplicated * (copies - 1)
    return np.where(place < surplus, place % collection.num_duplicated, place - surplus)


class PromptedMLP(nn.Module):
    """Residual feed-forward layers of gated neurons (GEGLU) on all pixels at once.

    Noise level and prompt scale and shift the normalised input of every layer.
    """

    width: int
    hidden: int
    num_layers: int

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array, prompt: jax.Array) -> jax.Array:
        """Images (batch, h, w, 1) like ``x``; sows the neurons (batch, hidden) of each layer."""
        waves = noise[:, None] * 2.0 ** jnp.arange(-2, 6)
        told = jnp.concatenate([jnp.sin(waves), jnp.cos(waves), prompt], -1)
        told = nn.silu(nn.Dense(self.width)(told))
        h = nn.Dense(self.width)(x.reshape(len(x), -1))
        for i in range(self.num_layers):
            scale, shift = jnp.split(nn.Dense(2 * self.width)(told), 2, -1)
            y = nn.LayerNorm()(h) * (1 + scale) + shift
            z = nn.gelu(nn.Dense(self.hidden)(y)) * nn.Dense(self.hidden)(y)
            self.sow("intermediates", "neurons", z)
            h = h + nn.Dense(self.width, name=f"down_{i}")(z)
        start = nn.initializers.zeros  # so that the first prediction is the preconditioner's
        return nn.Dense(x[0].size, kernel_init=start)(nn.LayerNorm()(h)).reshape(x.shape)


def model(config: ConfigDict) -> PromptedMLP:
    return PromptedMLP(config.width, config.hidden, config.num_layers)


def on_batches(config: ConfigDict, params: Any, prompts: jax.Array) -> Callable:
    """Network of these prompts: (x (batch, h, w, 1), sigma (batch,)) -> the clean images.

    It predicts these and not the noise, which has too many dimensions for its width.
    """
    network = model(config)

    def denoise(x: jax.Array, sigma: jax.Array) -> jax.Array:
        total = jnp.sqrt(sigma**2 + config.sigma_data**2)[:, None, None, None]
        return network.apply({"params": params}, x / total, jnp.log(sigma) / 4, prompts)

    return denoise


def denoiser(config: ConfigDict, params: Any, prompt: jax.Array) -> Callable:
    """``denoise(x, sigma)`` of one image (h, w) under one prompt."""
    return denoisers.image_denoiser(on_batches(config, params, prompt[None]))


def neurons(config: ConfigDict, params: Any, x: jax.Array, sigma: jax.Array, prompt: jax.Array):
    """What the neurons of every layer (num_layers, batch, hidden) do with images at one level."""
    network = model(config)
    total = jnp.sqrt(sigma**2 + config.sigma_data**2)
    noise = jnp.broadcast_to(jnp.log(sigma) / 4, len(x))
    prompts = jnp.broadcast_to(prompt, (len(x), len(prompt)))
    _, sown = network.apply(
        {"params": params}, x[..., None] / total, noise, prompts, mutable="intermediates"
    )
    return jnp.stack(sown["intermediates"]["neurons"])


def levels(config: ConfigDict) -> jax.Array:
    low, high = config.sigma_range
    return diffusion.karras_sigmas(config.num_levels, sigma_min=low, sigma_max=high)


def start(config: ConfigDict, optimizer: optax.GradientTransformation, example: Collection) -> dict:
    """States of all networks, seed by seed: on the duplicated images, and on each image once."""
    x, prompt = jnp.asarray(example.images[:1, ..., None]), jnp.asarray(example.prompts[:1])

    def one(key):
        params = model(config).init(key, x, jnp.zeros(1), prompt)["params"]
        return {"params": params, "optimizer": optimizer.init(params)}

    # Both arms of a seed start alike.
    keys = jnp.repeat(jax.random.split(jax.random.key(config.seed), config.num_seeds), 2)
    return jax.jit(jax.vmap(one))(keys)


def batch(config: ConfigDict, collections: list[Collection], step: int) -> tuple:
    """Images (batch, networks, h, w) and their prompts."""
    images, prompts = [], []
    for seed, collection in enumerate(collections):
        for arm in ARMS:
            copies = config.copies if arm == "duplicated" else 1
            rng = np.random.default_rng([config.seed, step, seed])
            rows = draw(collection, copies, config.batch_size, rng)
            images.append(collection.images[rows])
            prompts.append(collection.prompts[rows])
    return np.stack(images, 1), np.stack(prompts, 1)


def train_step(config, optimizer, state, batch, key):
    """A step of Adam of every network."""

    def one(state, images, prompts, key):
        drop_key, sigma_key, noise_key = jax.random.split(key, 3)
        drop = jax.random.bernoulli(drop_key, config.drop_prompt, (len(prompts), 1))
        prompts = jnp.where(drop, 0, prompts)
        clean = images[..., None]
        sigma = denoisers.draw_levels(config, sigma_key, len(clean))
        noisy = clean + sigma[:, None, None, None] * jax.random.normal(noise_key, clean.shape)

        def loss(params):
            denoised = on_batches(config, params, prompts)(noisy, sigma)
            return jnp.mean((denoised - clean) ** 2)

        value, gradient = jax.value_and_grad(loss)(state["params"])
        updates, memory = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "optimizer": memory}, value

    images, prompts = (x.swapaxes(0, 1) for x in batch)
    keys = jnp.broadcast_to(key, len(images))  # the same noise for all
    state, losses = harness.each(one)(state, images, prompts, keys)
    return state, {"loss": losses}


def classifier(config: ConfigDict) -> tuple[Callable, float]:
    """Images (num, h, w) in [-1, 1] -> classes, learned from real images; its test accuracy."""
    split = data.load(config.data)
    network = models.MLP((256, 10))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, config.num_classifier_steps))
    params = network.init(jax.random.key(config.seed), jnp.zeros((1, split.train_x[0].size)))
    x, y = jnp.asarray(2 * split.train_x - 1), jnp.asarray(split.train_y)

    def step(state, key):
        params, memory = state
        rows = jax.random.randint(key, (128,), 0, len(x))

        def loss(params):
            logits = network.apply(params, x[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

        updates, memory = optimizer.update(jax.grad(loss)(params), memory)
        return (optax.apply_updates(params, updates), memory), None

    keys = jax.random.split(jax.random.key(config.seed), config.num_classifier_steps)
    train = jax.jit(lambda state: jax.lax.scan(step, state, keys)[0])
    params, _ = train((params, optimizer.init(params)))
    classify = jax.jit(lambda images: jnp.argmax(network.apply(params, images), -1))
    right = classify(jnp.asarray(2 * split.test_x - 1)) == split.test_y
    return classify, float(jnp.mean(right))
