"""The house stands: imports only go down, and the library needs little."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "subspace_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = {
    **dict.fromkeys(("typing", "tree"), 0),
    "linalg": 1,
    **dict.fromkeys(("krylov", "manifolds", "projections"), 2),
    **dict.fromkeys(("landscape", "optim", "diffusion"), 3),
}  # every other folder is a family, on floor 4
ALLOWED = {"jax", "optax", "jaxtyping", "numpy", "subspace_jax"} | sys.stdlib_module_names


def imports(path):
    """The modules that a file imports, dotted, absolute."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted):
    """The top folder or module of the package that a dotted name lies in, if any."""
    package, *inside = dotted.split(".")
    return inside[0] if package == "subspace_jax" and inside else None


def floor_violations(own, names):
    for name in names:
        other = room(name)
        if other in (None, own):
            continue
        below = FLOORS.get(other, 4) < FLOORS.get(own, 4)
        if not below and (own, other) != ("tree", "typing"):
            yield f"{own} imports {name}"


FRONT_DOOR = PACKAGE / "__init__.py"  # imports every floor


@pytest.mark.parametrize(
    "path", [f for f in FILES if f != FRONT_DOOR], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_only_go_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert not list(floor_violations(own, imports(path)))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_library_imports_nothing_but_its_dependencies(path):
    assert {name.split(".")[0] for name in imports(path)} <= ALLOWED


def test_a_forbidden_import_is_noticed():
    assert list(floor_violations("linalg", ["subspace_jax.optim"]))
    assert list(floor_violations("krylov", ["subspace_jax.manifolds.stiefel"]))
    assert list(floor_violations("clustering", ["subspace_jax.merging"]))
    assert not list(floor_violations("optim", ["subspace_jax.projections.maps"]))


def test_experiments_do_not_import_scripts_or_tests():
    for path in sorted((ROOT / "experiments").glob("*.py")):
        assert not {name.split(".")[0] for name in imports(path)} & {"scripts", "tests", "configs"}
