"""Ways to choose the weights that a prompted denoiser loses: located by prompts, or blindly."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import prompted
from subspace_jax import diffusion
from subspace_jax.concepts import wanda


class Neurons(NamedTuple):
    """Norms (prompts, levels, layers, hidden) of the neurons on the way to samples."""

    locating: jax.Array
    held_out: jax.Array
    ordinary: jax.Array
    empty: jax.Array


def probe(config: ConfigDict, params, key: jax.Array, prompts, like) -> jax.Array:
    """Norms of the neurons at the first levels of trajectories of images like ``like``."""
    sigmas, first = prompted.levels(config), config.num_first

    def of_prompt(prompt):
        denoise = prompted.denoiser(config, params, prompt)

        def trajectory(key):
            return diffusion.olss.record(key, denoise, sigmas, like.shape).points[:first]

        def at_level(x, sigma):
            return jax.vmap(wanda.norms)(prompted.neurons(config, params, x, sigma, prompt))

        points = jax.vmap(trajectory)(jax.random.split(key, config.num_probes))
        return jax.vmap(at_level)(points.swapaxes(0, 1), sigmas[:first])

    return jax.lax.map(of_prompt, prompts)


def kernels(params) -> list[jax.Array]:
    """Of the second linear map of every feed-forward layer."""
    return [params[f"down_{i}"]["kernel"] for i in range(sum("down" in name for name in params))]


def without(params, masks: list[jax.Array]) -> dict:
    """The network without the weights in the masks."""
    layers = {
        f"down_{i}": params[f"down_{i}"] | {"kernel": wanda.remove(W, mask)}
        for i, (W, mask) in enumerate(zip(kernels(params), masks, strict=True))
    }
    return params | layers


def pooled(norms: jax.Array) -> jax.Array:
    """Over all prompts and levels (layers, hidden)."""
    return jnp.sqrt(jnp.mean(norms**2, (0, 1)))


def between(Ws, norms: jax.Array, empty: jax.Array, share: float) -> list[jax.Array]:
    """A mask a layer: among the best under these prompts together, not under the empty one."""
    pairs = zip(Ws, pooled(norms), pooled(empty), strict=True)
    return [wanda.located(wanda.scores(W, a), wanda.scores(W, b), share) for W, a, b in pairs]


@partial(jax.jit, static_argnames="share")
def one_by_one(Ws, norms: jax.Array, empty: jax.Array, share: float) -> list[jax.Array]:
    """The union of what is located for each prompt at each level."""

    def layer(W, norms, empty):
        def at(norms, empty):
            return wanda.located(wanda.scores(W, norms), wanda.scores(W, empty), share)

        def of_prompt(norms):
            return wanda.shared(jax.vmap(at)(norms, empty), 1)

        return wanda.shared(jax.lax.map(of_prompt, norms), 1)

    return [layer(W, norms[:, :, i], empty[0, :, i]) for i, W in enumerate(Ws)]


def without_reference(config, neurons: Neurons, Ws, share: float) -> list[jax.Array]:
    pairs = zip(Ws, pooled(neurons.locating), strict=True)
    return [wanda.top(wanda.scores(W, norms), share) for W, norms in pairs]


def at_random(config, neurons: Neurons, Ws, share: float) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(config.seed), len(Ws))
    return [
        wanda.top(jax.random.uniform(key, W.shape), share) for key, W in zip(keys, Ws, strict=True)
    ]


METHODS: dict[str, Callable[..., list[jax.Array]]] = {
    "located": lambda c, n, Ws, share: between(Ws, n.locating, n.empty, share),
    "located, prompt by prompt": lambda c, n, Ws, share: one_by_one(Ws, n.locating, n.empty, share),
    "without reference": without_reference,
    "of ordinary prompts": lambda c, n, Ws, share: between(Ws, n.ordinary, n.empty, share),
    "smallest": lambda c, n, Ws, share: [wanda.top(-jnp.abs(W), share) for W in Ws],
    "random": at_random,
}
