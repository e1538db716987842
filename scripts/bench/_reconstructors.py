"""Reconstructors of MR slices: ours, azula's, deepinv's and sigpy's, with one prior.

azula samples at our levels of noise, deepinv at its own, on images that are shifted into [0, 1],
where it clips.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import azula.guidance.diffpir
import azula.guidance.dps
import azula.guidance.mmps
import azula.guidance.pgdm
import azula.linalg.covariance
import azula.linalg.solve
import azula.noise
import azula.sample
import deepinv
import numpy as np
import sigpy.mri.app
import torch
from azula.denoise import Denoiser, DiracPosterior
from torch import Tensor

from experiments import comparison, denoisers, mri, reconstructions
from scripts.bench import _torch_prior
from subspace_jax import diffusion

Call = Callable[[mri.Scans, int, Mapping[str, float]], np.ndarray]
"""(scans, slice, settings) -> a complex image."""
SPAN = 2.4  # of the range that deepinv maps to [0, 1]; real and imaginary parts lie well inside


class Contender(NamedTuple):
    method: str
    library: str
    call: Call
    grid: Mapping[str, tuple[float, ...]]
    num_levels: int
    """Of noise; 0: no network."""


def ours(
    config: Any, denoise: Any, scans: mri.Scans, name: str, jacobian: str = "vjp"
) -> Contender:
    """A method of the experiment, one program for all slices and settings."""
    method = (reconstructions.METHODS | reconstructions.by_jacobian(jacobian))[name]
    num_levels = config.levels[method.levels] if method.levels else 0
    program = comparison.build(config, denoise, method, num_levels, scans)

    def call(scans, i, settings):
        return np.asarray(comparison.reconstruct(config, program, scans, i, dict(settings)))

    library = "ours" if jacobian == "vjp" else "ours, J v"
    return Contender(name, library, call, method.grid, num_levels)


class Karras(azula.noise.Schedule):
    """Our levels: that of time i / n is the i-th from the end, and 0 the last."""

    def __init__(self, sigmas: np.ndarray):
        self.levels = torch.from_numpy(np.asarray(sigmas)[::-1].copy())

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        place = torch.round(t * (len(self.levels) - 1)).long()
        return torch.ones_like(t), self.levels[place]


class Prior(Denoiser):
    """The U-Net in azula's terms, for flat images (1, length)."""

    def __init__(self, denoise: Callable[[Tensor, Tensor], Tensor], schedule: Karras, length: int):
        super().__init__()
        self.denoise, self.schedule, self.length = denoise, schedule, length

    def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
        """Of flat images: azula's solvers take inner products along the last axis."""
        sigma = self.schedule(t)[1].reshape(1)
        return DiracPosterior(mean=self.denoise(as_image(x_t), sigma).reshape(x_t.shape))


def measurement(scans: mri.Scans, i: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A of flat real channels (1, 2 H W) to real numbers (1, n), and a slice's measurement."""
    maps = torch.from_numpy(np.array(scans.maps[i]))
    seen = torch.from_numpy(np.array(scans.mask[i])).bool().expand(maps.shape)

    def A(x: Tensor) -> Tensor:
        x = as_image(x)
        shifted = torch.fft.ifftshift(maps * torch.complex(x[:, 0], x[:, 1]), dim=(-2, -1))
        k = torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))
        return torch.view_as_real(k[seen]).reshape(1, -1)

    y = torch.from_numpy(np.array(scans.y[i]))
    return A, torch.view_as_real(y[seen]).reshape(1, -1)


def of_azula(config: Any, denoise: Any, name: str, build: Callable, grid: Mapping) -> Contender:
    """``build(prior, A, y, sigma_y, settings, **of samplers)`` is the sampler."""
    num_levels = config.levels[reconstructions.METHODS[name].levels]
    low, high = config.sigma_range
    sigmas = diffusion.karras_sigmas(num_levels, sigma_min=low, sigma_max=high)
    prior = Prior(denoise, Karras(np.asarray(sigmas)), 2 * config.size**2)

    def call(scans, i, settings):
        torch.manual_seed(i)
        A, y = measurement(scans, i)
        sampler = build(prior, A, y, scans.sigma_y, settings, steps=num_levels, silent=True)
        return complex_image(as_image(sampler(sampler.init((1, prior.length)))))

    return Contender(name, "azula", call, grid, num_levels)


def azula_mmps(prior, A, y, sigma_y, s, **options):
    noise = azula.linalg.covariance.IsotropicCovariance((s["noise"] * sigma_y) ** 2)
    guided = azula.guidance.mmps.MMPSDenoiser(prior, y, A, noise, solver="cg", iterations=3)
    return azula.sample.DDIMSampler(guided, eta=s["eta"], **options)


def azula_diffpir(prior, A, y, sigma_y, s, **options):
    guided = azula.guidance.diffpir.DiffPIRDenoiser(
        prior, y, A, sigma_y**2, lmbda=s["lambda"], solver="cg", iterations=5
    )
    return azula.sample.DDIMSampler(guided, eta=s["eta"], **options)


def azula_pigdm(prior, A, y, sigma_y, s, **options):
    """The pseudo-inverse, for which the library asks, with the weight ``l2``: there is noise."""
    del sigma_y
    _, adjoint = torch.func.vjp(A, torch.zeros(1, prior.length))

    def pseudo_inverse(v: Tensor) -> Tensor:
        def gram(x: Tensor) -> Tensor:
            return adjoint(A(x))[0] + s["l2"] * x

        return azula.linalg.solve.cg(gram, adjoint(v)[0], iterations=10, dtype=torch.float32)

    return azula.guidance.pgdm.PGDMSampler(prior, y, A, pseudo_inverse, eta=s["eta"], **options)


def azula_dps(prior, A, y, sigma_y, s, **options):
    del sigma_y
    return azula.guidance.dps.DPSSampler(prior, y, A, zeta=s["zeta"], **options)


class Shifted(torch.nn.Module):
    """The U-Net on images in [0, 1], as deepinv calls it.

    Its first levels of noise are 40 times our highest; there the image is scaled down to that.
    """

    def __init__(self, denoise: Callable[[Tensor, Tensor], Tensor], highest: float):
        super().__init__()
        self.denoise, self.highest = denoise, highest

    def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
        level = SPAN * torch.as_tensor(sigma, dtype=torch.float32).reshape(-1)[:1]
        less = (self.highest / level).clamp(max=1)
        clean = self.denoise((x.float() - 0.5) * SPAN * less, level * less)
        return clean / SPAN + 0.5


def of_deepinv(config: Any, denoise: Any, name: str, build: Callable, grid: Mapping) -> Contender:
    """``build(model, sigma_y, num_levels, settings)`` is the reconstructor."""
    model = Shifted(denoise, config.sigma_range[1])
    num_levels = config.levels[reconstructions.METHODS[name].levels]

    def call(scans, i, settings):
        torch.manual_seed(i)
        maps = SPAN * torch.from_numpy(np.array(scans.maps[i]))[None]
        mask = torch.from_numpy(np.array(scans.mask[i])).float()
        noise = deepinv.physics.GaussianNoise(scans.sigma_y)
        physics = deepinv.physics.MultiCoilMRI(mask, maps, noise_model=noise)
        y = torch.from_numpy(np.array(scans.y[i]))
        middle = torch.full((1, 2, *mask.shape[-2:]), 0.5)
        y = torch.stack([y.real, y.imag])[None] + physics.A(middle)
        x = build(model, scans.sigma_y, num_levels, settings)(y, physics)
        return complex_image((x - 0.5) * SPAN)

    return Contender(name, "deepinv", call, grid, num_levels)


def deepinv_diffpir(model, sigma_y, num_levels, s):
    return deepinv.sampling.DiffPIR(
        model,
        deepinv.optim.data_fidelity.L2(),  # the class divides by the noise itself
        sigma=sigma_y,
        max_iter=num_levels,
        zeta=s["zeta"],
        lambda_=s["lambda"],
    )


def deepinv_dps(model, sigma_y, num_levels, s):
    del sigma_y
    return deepinv.sampling.DPS(model, num_steps=num_levels, weight=s["weight"])


def sigpy_sense(scans, i, s):
    y, maps = np.array(scans.y[i]), np.array(scans.maps[i])
    app = sigpy.mri.app.SenseRecon(y, maps, lamda=s["l2"], max_iter=30, show_pbar=False)
    return app.run()


def sigpy_tv(scans, i, s):
    y, maps = np.array(scans.y[i]), np.array(scans.maps[i])
    app = sigpy.mri.app.TotalVariationRecon(
        y, maps, lamda=s["weight"], max_iter=600, show_pbar=False
    )
    return app.run()


def as_image(x: Tensor) -> Tensor:
    """(1, 2 n^2) to (1, 2, n, n)."""
    size = math.isqrt(x.shape[-1] // 2)
    return x.reshape(1, 2, size, size)


def complex_image(x: Tensor) -> np.ndarray:
    """Of real channels (1, 2, H, W)."""
    real, imaginary = x[0].detach().numpy().astype(np.float32)
    return real + 1j * imaginary


def in_torch(config: Any, x: np.ndarray, sigma: float) -> np.ndarray:
    """The prior in torch, of a complex image."""
    channels = np.stack([x.real, x.imag])[None].astype(np.float32)
    with torch.no_grad():
        denoise = _torch_prior.load(config.weights)
        return complex_image(denoise(torch.from_numpy(channels), torch.tensor([sigma])))


def field(config: Any, scans: mri.Scans) -> list[Contender]:
    """All of them, ours before those that do the same."""
    prior, _ = denoisers.load(config.weights)
    same = _torch_prior.load(config.weights)
    etas = {"eta": (0.5, 0.85, 1.0)}
    return [
        ours(config, prior, scans, "CG-SENSE"),
        Contender("CG-SENSE", "sigpy", sigpy_sense, reconstructions.METHODS["CG-SENSE"].grid, 0),
        ours(config, prior, scans, "TV"),
        Contender("TV", "sigpy", sigpy_tv, reconstructions.METHODS["TV"].grid, 0),
        ours(config, prior, scans, "DDS, proximal"),
        ours(config, prior, scans, "DDS, pair"),
        ours(config, prior, scans, "DDS, no noise"),
        ours(config, prior, scans, "DiffPIR"),
        of_azula(config, same, "DiffPIR", azula_diffpir, etas | {"lambda": (0.03, 0.1, 0.3, 1.0)}),
        of_deepinv(
            config,
            same,
            "DiffPIR",
            deepinv_diffpir,
            {"zeta": (0.3, 0.7, 1.0), "lambda": (1.0, 3.0, 7.0, 15.0)},
        ),
        ours(config, prior, scans, "PiGDM"),
        of_azula(config, same, "PiGDM", azula_pigdm, etas | {"l2": (0.003, 0.01, 0.03, 0.1)}),
        ours(config, prior, scans, "MMPS"),
        of_azula(config, same, "MMPS", azula_mmps, etas | {"noise": (0.3, 1.0, 3.0)}),
        ours(config, prior, scans, "DPS"),
        of_azula(config, same, "DPS", azula_dps, reconstructions.METHODS["DPS"].grid),
        of_deepinv(
            config, same, "DPS", deepinv_dps, {"weight": (30.0, 100.0, 200.0, 300.0, 500.0)}
        ),
    ]
