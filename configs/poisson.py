"""Poisson's equation on a photograph: solvers and preconditioners side by side.

    python -m experiments.poisson --config=configs/poisson.py:OPTIONS

Options: ``d3`` (32 layers of 96 x 96 cells), ``size=N`` (N x N cells), ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, d3=False, size=0)
    config = ConfigDict()
    config.seed = 0  # nothing here is random
    config.image = "retina"  # or coins, camera: pictures that come with scikit-image
    config.size = 256  # cells along each side of the image
    config.depth = 0  # layers; 0: the plane
    config.contrast = 1e3  # largest over smallest coefficient
    config.dtype = "float64"
    config.tolerances = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)  # descending
    config.maxiter = 10_000
    config.restart = 40  # gmres
    config.degree = 8  # chebyshev
    config.block = 16  # cells in a row, of the blocks
    config.num_repeats = (
        3  # at most, of solves that take less than 3 s together; the fastest counts
    )
    config.methods = (
        "cg",
        "minres",
        "bicgstab",
        "gmres",
        "lsmr",
        "cgls",
        "cg, one reduction",
        "cg, jacobi",
        "cg, blocks",
        "cg, chebyshev",
        "cg, ssor",
        "cg, multigrid",
        "cg, pyamg",
        "flexible, multigrid",
        "gmres, multigrid",
        "fgmres, multigrid",
        "minres, multigrid",
        "bicgstab, multigrid",
        "jax cg",
        "scipy cg",
        "scipy cg, pyamg",
    )

    if options.d3:
        config.size, config.depth = 96, 32
        config.maxiter = 2000
    if options.smoke:
        config.size = 32
        config.depth = 4 if options.d3 else 0
        config.tolerances = (1e-2, 1e-4, 1e-6)
        config.methods = ("cg", "minres", "cg, jacobi", "cg, multigrid", "scipy cg")
        config.num_repeats = 1
    if options.size:
        config.size = options.size
    return config


def sweep():
    """How steps grow with the contrast, and with the grid."""
    for contrast in (1.0, 10.0, 1e3, 1e6):
        for size in (64, 128, 256):
            yield {"contrast": contrast, "size": size}
