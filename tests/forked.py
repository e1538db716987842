"""Programs run as their user runs them, without the seconds that their imports take.

Each has a process of its own, forked from one that has imported what is slow.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

ROOT = Path(__file__).resolve().parents[1]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["experiments.harness", "experiments.intrinsic_problems"])


def run(module, *arguments, **environment):
    """``python -m module arguments`` from the project's root, on the CPU: its status and output."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("out", "err")]
        process = _CONTEXT.Process(target=_main, args=(files, module, arguments, environment))
        process.start()
        process.join(300)
        process.kill()
        process.join()
        texts = [file.read_text() for file in files]
    return subprocess.CompletedProcess((module, *arguments), process.exitcode, *texts)


def _main(files, module, arguments, environment):
    for stream, file in zip((sys.stdout, sys.stderr), files, strict=True):
        with file.open("w") as opened:
            os.dup2(opened.fileno(), stream.fileno())
    os.chdir(ROOT)
    os.environ.update(environment)
    sys.path.insert(0, "")
    sys.argv[1:] = arguments
    jax.config.update("jax_platforms", "cpu")
    runpy.run_module(module, run_name="__main__", alter_sys=True)
