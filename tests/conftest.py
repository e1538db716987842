"""Shape annotations are checked in every test; data sets are never fetched."""

import itertools
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jaxlib
import jaxtyping
import pytest

os.environ.pop("SUBSPACE_JAX_FETCH", None)
# Nearly all the time of a test is XLA's: the code it makes need not be fast here.
FLAGS = {
    "xla_backend_optimization_level": (0, 3),
    "xla_llvm_disable_expensive_passes": (True, False),
}
if jaxlib.version.__version_info__ < (0, 11):  # where XLA is known to have it: others stop it
    FLAGS["xla_cpu_use_fusion_emitters"] = (False, True)
FAST_TO_COMPILE = " ".join(f"--{name}={quick}" for name, (quick, _) in FLAGS.items())
os.environ["XLA_FLAGS"] = f"{FAST_TO_COMPILE} {os.environ.get('XLA_FLAGS', '')}"
jaxtyping.install_import_hook("subspace_jax", "beartype.beartype")

_TESTS = itertools.count()


def pytest_runtest_teardown(item, nextitem):
    """Solvers compile a program a call, and a process may have 65,530 memory maps.

    Their list takes milliseconds to read, so every sixteenth test does.
    """
    if next(_TESTS) % 16:
        return
    maps = Path("/proc/self/maps")  # Linux has it
    if not maps.exists() or maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def x64():
    """In float64, whatever the dtypes of the test do not say."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compiler_options():
    """Of a `jax.jit` whose code is to be that of a user: fast, and with its rounding."""
    return {name: usual for name, (_, usual) in FLAGS.items()}


@pytest.fixture
def on_devices():
    """Runs a program in a process of its own, with so many devices."""

    def run(count, program):
        flags = f"--xla_force_host_platform_device_count={count} {os.environ['XLA_FLAGS']}"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def on_eight_devices(on_devices):
    """Runs a program in a process of its own, with eight devices."""
    return partial(on_devices, 8)


@pytest.fixture
def unchecked():
    """Without the annotations' check, so that the library's own errors are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
