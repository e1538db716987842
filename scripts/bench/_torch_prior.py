"""The U-Net of `experiments.denoisers` in torch, from the same file of weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def load(path: Path | str) -> Callable[[Tensor, Tensor], Tensor]:
    """``denoise(x, sigma)``: images (batch, channels, h, w) and noise levels (batch,) -> clean."""
    with np.load(path) as stored:
        about = json.loads(str(stored["about"]))
        w = {name: _tensor(stored[name]) for name in stored.files if name != "about"}
    sigma_data = about["sigma_data"]

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.reshape(-1, 1, 1, 1)
        total = (s**2 + sigma_data**2).sqrt()
        out = _unet(w, about["channels"], about["num_blocks"], x / total, sigma.log() / 4)
        return (sigma_data / total) ** 2 * x + s * sigma_data / total * out

    return denoise


def _tensor(x: np.ndarray) -> Tensor:
    """Kernels as torch has them: outputs first."""
    order = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[x.ndim]
    return torch.from_numpy(np.ascontiguousarray(x.astype(np.float32).transpose(order)))


def _unet(w: Weights, channels: list[int], num_blocks: int, x: Tensor, noise: Tensor) -> Tensor:
    waves = noise[:, None] * 2.0 ** torch.arange(-2, 6)
    features = F.silu(_dense(w, "Dense_0", torch.cat([waves.sin(), waves.cos()], -1)))
    h, across, number = _conv(w, "Conv_0", _merge(x)), [], 0
    for level in range(len(channels)):
        h = F.avg_pool2d(h, 2) if level else h
        for _ in range(num_blocks):
            h, number = _block(w, f"Block_{number}", h, features), number + 1
        across.append(h)
    for skip in across[-2::-1]:
        h = torch.cat([F.interpolate(h, scale_factor=2.0, mode="nearest"), skip], 1)
        for _ in range(num_blocks):
            h, number = _block(w, f"Block_{number}", h, features), number + 1
    return _split(_conv(w, "Conv_1", F.silu(_normalised(w, "GroupNorm_0", h))))


def _block(w: Weights, name: str, x: Tensor, features: Tensor) -> Tensor:
    h = _conv(w, f"{name}/Conv_0", F.silu(_normalised(w, f"{name}/GroupNorm_0", x)))
    scale, shift = _dense(w, f"{name}/Dense_0", features)[:, :, None, None].chunk(2, 1)
    h = _normalised(w, f"{name}/GroupNorm_1", h) * (1 + scale) + shift
    h = _conv(w, f"{name}/Conv_1", F.silu(h))
    if f"{name}/Dense_1/kernel" in w:  # the width changes
        x = _dense(w, f"{name}/Dense_1", x.movedim(1, -1)).movedim(-1, 1)
    return h + x


def _conv(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, w[f"{name}/kernel"], w[f"{name}/bias"], padding=1)


def _dense(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}/kernel"], w[f"{name}/bias"])


def _normalised(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 8, w[f"{name}/scale"], w[f"{name}/bias"], eps=1e-6)


def _merge(x: Tensor) -> Tensor:
    """2 x 2 pixels to one of four times the channels."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(b, 4 * c, h // 2, w // 2)


def _split(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    x = x.reshape(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(b, c // 4, 2 * h, 2 * w)
