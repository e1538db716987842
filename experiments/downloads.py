"""Archives by pip or apt, unpacked in a folder; the registries are those they are set up for."""

import functools
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path


def pip(requirement: str, folder: Path) -> None:
    """Download a wheel, without what it depends on, and unzip it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)


def pip_source(requirement: str, requires: tuple[str, ...], folder: Path) -> None:
    """In an environment of its own: pip runs the archive's set-up to read its name."""
    run = functools.partial(subprocess.run, check=True, capture_output=True, text=True)
    venv.create(folder / "venv", with_pip=True)
    own_pip = [str(folder / "venv/bin/python"), "-m", "pip"]
    run([*own_pip, "install", "--quiet", *requires])
    options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--dest", str(folder)]
    run([*own_pip, "download", "--quiet", *options, requirement])
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")


def apt(packages: str, folder: Path) -> None:
    """Unpack each package, whose digest apt checks, into the subfolder of its name."""
    run = functools.partial(subprocess.run, cwd=folder, check=True, capture_output=True, text=True)
    run(["apt-get", "download", *packages.split()])
    for deb in folder.glob("*.deb"):
        run(["dpkg-deb", "-x", str(deb), str(folder / deb.name.partition("_")[0])])
