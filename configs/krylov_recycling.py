"""Sequences of similar systems: solvers that recycle, sorted or not, beside honest baselines.

    python -m experiments.krylov_recycling --config=configs/krylov_recycling.py:OPTIONS

Options: ``size=N`` (N x N cells), ``smoke`` (seconds).
"""

from ml_collections import ConfigDict

from configs.common import parse_arg


def get_config(arg=None):
    options = parse_arg(arg, smoke=False, size=0)
    config = ConfigDict()
    config.seed = 0  # the families have seeds of their own
    config.num_systems = 100
    config.size = 50  # cells along a side
    config.dtype = "float64"
    config.rtol = 1e-5
    config.maxiter = 10_000  # steps a system, as in the paper (100,000 there at size 200)
    config.restart = 40
    config.num_recycled = 20
    config.num_directions = 40  # of recycled_cg
    config.families = (
        "Darcy, released matrix, full field",
        "Darcy, released matrix, 3 parameters",
        "Darcy, symmetric, full field",
        "Darcy, symmetric, 3 parameters",
        "Darcy, symmetric, photographs",
        "Helmholtz, indefinite",
        "convection-diffusion",
        "Poisson, one matrix",
        "thermal, one matrix",
    )
    config.baseline = "gmres"  # the method of whose time the others' are told
    config.methods = (
        "gmres",
        "gmres, Jacobi",
        "gmres, deflated",
        "bicgstab",
        "cg",
        "minres",
        "block cg",
        "scipy splu",
        "scipy splu, once",
        "pyamg cg",
        "gcrodr",
        "gcrodr, sorted",
        "gcrodr, sorted, Jacobi",
        "recycled cg",
        "recycled cg, sorted",
    )
    if options.smoke:
        config.num_systems, config.size = 4, 14
        config.families = ("Darcy, released matrix, 3 parameters", "Darcy, symmetric, full field")
        config.methods = (
            "gmres", "cg", "scipy splu", "gcrodr, sorted", "gcrodr, sorted, Jacobi",
            "recycled cg, sorted",
        )  # fmt: skip
    if options.size:
        config.size = options.size
    return config


def sweep():
    """How the gain grows with the grid, and the paper's tolerances."""
    for size in (50, 80, 100, 150, 200):
        yield {"size": size}
    for rtol in (1e-2, 1e-8):
        yield {"size": 80, "rtol": rtol}
    for rtol in (1e-2, 1e-7):
        yield {"size": 100, "rtol": rtol, "families": ("Helmholtz, indefinite",)}
    for rtol in (1e-5, 1e-8, 1e-11):
        yield {"size": 105, "rtol": rtol, "families": ("thermal, one matrix",)}
