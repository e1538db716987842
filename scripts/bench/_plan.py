"""Programs for 256 devices, compiled from shapes alone, for `scripts.bench.plan`.

    python -m scripts.bench._plan TARGET DEVICES

prints JSON: what a device holds, computes and sends, by hand and in the compiled program. Nothing
is allocated: the operands are shapes, each with the place where it would lie.
"""

import functools
import json
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from configs import imagenet as imagenet_configs
from experiments import ct, denoisers, harness, imagenet, meshes
from experiments.transformer import Shape, Transformer, next_token_loss
from subspace_jax import diffusion, optim

FLOAT = 4  # bytes


class Costs(NamedTuple):
    """Of one device; of a program, loops' bodies count once."""

    state: float
    """Bytes of what stays: parameters, optimizer, the batch."""
    flops: float
    sent: float
    """Bytes of the results of its collectives."""


class Target(NamedTuple):
    """A program, and what it should cost."""

    program: Any
    """A ``jax.stages.Compiled``."""
    by_hand: Costs


def grassmann_classes(num_devices: int, image_size: int = 224) -> Target:
    """A step of GCR on the 21,841 classes of ImageNet-22k: images and classes over all devices."""
    n, k, batch = 2048, 8, 16 * num_devices
    num_classes = -(-21_841 // num_devices) * num_devices  # some that no image has
    config = imagenet_configs.get_config(f"rank={k}")
    config.update(num_classes=num_classes, batch_size=batch, num_train=14_197_122)
    config.image_size, config.sharding = image_size, (("head/subspaces$", ("data",)),)
    model = imagenet.network(config)

    def init(key):
        images = jnp.zeros((1, image_size, image_size, 3))
        variables = dict(model.init(key, images, train=False))
        return variables | {"optimizer": imagenet.optimizer(config).init(variables["params"])}

    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    step = functools.partial(imagenet.train_step, model, config)
    state, program = compiled(config, init, step, (images, labels))
    backbone, stats = (_size(state[name].get("backbone")) for name in ("params", "batch_stats"))
    classes, features = num_classes // num_devices * n * k, batch * n
    forward = 2 * 4.3e9 * (image_size / 224) ** 2  # He et al. (2019), ResNet-50-D
    own = batch // num_devices
    return Target(
        program,
        Costs(
            FLOAT * (2 * (backbone + classes) + stats) + own * image_size**2 * 3,
            3 * own * forward + 3 * 2 * batch * classes,
            # Gradients; features to where the classes are, and their gradients back.
            FLOAT * (backbone + 2 * features),
        ),
    )


LLAMA_7B = Shape(32, 4096, 32, 11_008, 32_000)


def grass_walk(num_layers: int, num_devices: int, *, moves: bool) -> Target:
    """A step of GrassWalk on so many layers of LLaMA-7B, eight devices a copy of the model.

    Bases move in one step of 200, each in its turn; without ``moves`` that part is left out.
    """
    d, f, vocab = LLAMA_7B.width, LLAMA_7B.ff_width, LLAMA_7B.vocab
    rank, batch, length, model_axis = 1024, 512, 256, 8
    network = Transformer(LLAMA_7B._replace(num_layers=num_layers))
    fixed = {} if moves else {"basis": lambda key, basis, grad: basis, "carry": "keep"}
    optimizer = optim.grasswalk(1e-3, rank=rank, **fixed)
    config = ConfigDict({"mesh_model": model_axis, "steps_per_call": 1, "seed": 0})
    # Kernels by their outputs or, where those are summed, their inputs; moments by columns.
    config.sharding = (
        ("(embedding|out/kernel|down/kernel)$", ("model",)),
        ("(kernel|(embedding|kernel)/inner/(mu|nu))$", (None, "model")),
    )

    def init(key):
        params = network.init(key, jnp.zeros((1, 8), jnp.int32))["params"]
        return {"params": params, "optimizer": optimizer.init(params)}

    def train_step(state, tokens, key):
        def loss(params):
            return next_token_loss(network.apply({"params": params}, tokens[:, :-1]), tokens)

        value, grads = jax.value_and_grad(loss)(state["params"])
        updates, memory = optimizer.update(grads, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "optimizer": memory}, {"loss": value}

    tokens = jax.ShapeDtypeStruct((batch, length + 1), jnp.int32)
    state, program = compiled(config, init, train_step, tokens)
    num_weights = _size(state["params"])
    columns = num_layers * (4 * d + 3 * f) + 2 * vocab  # of all matrices, the shorter side d
    bases, moments = (7 * num_layers + 2) * d * rank, 2 * rank * columns
    num_tokens = batch * length // num_devices
    activations = batch * model_axis // num_devices * length * d
    return Target(
        program,
        Costs(
            FLOAT * ((num_weights + moments) / model_axis + bases),
            num_tokens * (6 * (num_weights - vocab * d) + 12 * length * d * num_layers)
            + 6 * rank * d * columns / model_axis,  # S^T G, S u, S S^T G
            # Gradients; two sums a layer of what the layers hand on, and of its gradients.
            FLOAT * (num_weights / model_axis + 4 * num_layers * activations),
        ),
    )


def tomography(num_devices: int, size: int = 512) -> Target:
    """A 3-D CT reconstruction of 512^3 by DDS with TV across slices, slices over all devices."""
    channels, num_blocks, num_views, num_levels = (96, 192, 256, 256), 2, 180, 50
    model = denoisers.UNet(channels, num_blocks)
    mesh = meshes.data_mesh()
    sigmas = diffusion.karras_sigmas(num_levels, sigma_min=0.01, sigma_max=5.0)
    settings = {"eta": 0.85, "rho": 0.01, "lam": 1e-4}

    def reconstruct(key, params, angles, y):
        network = functools.partial(model.apply, {"params": params})
        denoise = denoisers.image_denoiser(denoisers.precondition(network, 0.35))
        op = ct.volume(ct.projection(angles, size), size)
        return ct.across_slices(key, denoise, op, y, 0.2, sigmas, settings)

    def at(x, *axes):
        return jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes))
        )

    key = jax.eval_shape(jax.random.key, 0)
    image, level = jnp.zeros((1, 64, 64, 1)), jnp.ones(1)
    params = jax.eval_shape(lambda key: model.init(key, image, level)["params"], key)
    y = jax.ShapeDtypeStruct((size, num_views, ct.num_detectors(size)), jnp.float32)
    angles = jax.ShapeDtypeStruct((num_views,), jnp.float32)
    operands = (at(key), jax.tree.map(at, params), at(angles), at(y, "data"))
    program = jax.jit(reconstruct).lower(*operands).compile()
    slices = size // num_devices
    return Target(
        program,
        Costs(
            FLOAT * (_size(params) + slices * y.shape[1] * y.shape[2]),
            _network_flops(channels, num_blocks, (size // 2) ** 2),
            # In the loop over levels: two slices around conjugate gradients' loop, two in it, and
            # one for the jumps and one for their adjoint.
            FLOAT * 6 * size**2,
        ),
    )


def compiled(config: Any, init: Any, train_step: Any, batch: Any) -> tuple[Any, Any]:
    """The shapes of the state, and a step of `harness.train` compiled from them."""
    mesh = meshes.of(config)
    state = jax.eval_shape(init, jax.random.key(0))

    def at(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    def stacked(x):
        shape = (1, *x.shape)
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=meshes.over_examples(mesh, shape))

    state = jax.tree.map(at, state, meshes.shardings(mesh, config.sharding, state))
    first = jax.ShapeDtypeStruct((), jnp.int32)
    stack = jax.tree.map(stacked, batch)
    return state, harness.compiled(mesh, config, train_step, state, first, stack)


def of_program(program: Any) -> Costs:
    """What XLA says of it."""
    sent = meshes.collectives(program.as_text()).values()
    return Costs(
        program.memory_analysis().argument_size_in_bytes,
        program.cost_analysis()["flops"],
        sum(traffic.num_bytes for traffic in sent),
    )


def measure(target: str, num_devices: int) -> dict:
    """All that is told of a target."""
    start = time.perf_counter()
    if target == "grasswalk":
        told = _language_model(num_devices)
    else:
        whole = {"gcr": grassmann_classes, "ct": tomography}[target](num_devices)
        told = {"by_hand": whole.by_hand, "compiled": of_program(whole.program)}
        told["temporary"] = whole.program.memory_analysis().temp_size_in_bytes
    costs = {name: x._asdict() if isinstance(x, Costs) else x for name, x in told.items()}
    return costs | {"compile": time.perf_counter() - start}


def _language_model(num_devices: int) -> dict:
    """Of all layers, by the difference between two and one; ``moves`` in the mean of 200 steps."""

    def in_all(one, two):
        return one + (LLAMA_7B.num_layers - 1) * (two - one)

    usual, moving = (
        [grass_walk(num_layers, num_devices, moves=moves) for num_layers in (1, 2)]
        for moves in (False, True)
    )
    found, with_moves = (
        Costs(*map(in_all, *(of_program(target.program) for target in targets)))
        for targets in (usual, moving)
    )
    sizes = (target.program.memory_analysis().temp_size_in_bytes for target in usual)
    return {
        "by_hand": Costs(*map(in_all, *(target.by_hand for target in usual))),
        "compiled": found,
        "moves": Costs(*((b - a) / 200 for a, b in zip(found, with_moves, strict=True))),
        "temporary": in_all(*sizes),
    }


def _network_flops(channels: tuple[int, ...], num_blocks: int, num_pixels: int) -> float:
    """Of the convolutions of the U-Net on one image, whose first level has so many pixels."""

    def convolution(level: int, before: int, after: int) -> float:
        return 2 * 9 * before * after * num_pixels / 4**level

    def blocks(level: int, before: int) -> float:
        width = channels[level]
        first = convolution(level, before, width) + convolution(level, width, width)
        first += 0 if before == width else 2 * before * width * num_pixels / 4**level
        return first + (num_blocks - 1) * 2 * convolution(level, width, width)

    total = convolution(0, 4, channels[0]) + convolution(0, channels[0], 4)
    for level in range(len(channels)):
        total += blocks(level, channels[max(level - 1, 0)])
    for level in range(len(channels) - 2, -1, -1):
        total += blocks(level, channels[level + 1] + channels[level])
    return total


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
