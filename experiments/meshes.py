"""Devices as a mesh, how a state lies on it, and what a compiled program sends over it.

A rule of ``config.sharding`` is a pair: a regular expression that is looked for in a leaf's path,
as ``optimizer/0/mu/Dense_0/kernel``, and for each of the leaf's axes the mesh axis it lies over, or
None. The first rule that fits a leaf holds, leaves without a rule are replicated. An optimizer's
moments have paths that end in their parameter's, so ``kernel$`` moves both.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_SIZES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}


class Traffic(NamedTuple):
    """The collectives of one kind in a program; those of a loop's body count once."""

    count: int
    num_bytes: int
    """Of their results, on one device."""


def of(config: ConfigDict) -> Mesh:
    """All devices: ``config.mesh_model`` along the axis ``model``, the rest along ``data``.

    Raises:
        ValueError: ``mesh_model`` does not divide the number of devices.
    """
    num_devices, model = jax.device_count(), config.mesh_model
    if model < 1 or num_devices % model:
        raise ValueError(f"mesh_model={model} does not divide the number of devices, {num_devices}")
    shape = num_devices // model, model
    return jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def data_mesh() -> Mesh:
    """All devices along one axis, ``data``."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shardings(mesh: Mesh, rules: Sequence[tuple[str, tuple]], state: Any) -> Any:
    """Where each leaf of the state lies, by the rules of ``config.sharding``.

    Raises:
        ValueError: a rule that is no pair or fits no leaf, an axis that the mesh does not have, or
            more axes than the leaf has, or one that does not divide; names the leaf.
    """
    found = [_rule(mesh, rule) for rule in rules]
    used = set()

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, spec in found:
            if pattern.search(name):
                used.add(pattern.pattern)
                _check_fits(mesh, name, leaf.shape, spec)
                return NamedSharding(mesh, spec)
        return replicated(mesh)

    placed = jax.tree_util.tree_map_with_path(place, state)
    for pattern, _ in found:
        if pattern.pattern not in used:
            raise ValueError(f"sharding: no leaf's path has the pattern {pattern.pattern!r}")
    return placed


def over_examples(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Examples (axis 1 of a stack of batches) over ``data`` where they divide, else replicated."""
    divides = len(shape) > 1 and shape[1] % mesh.shape["data"] == 0
    return NamedSharding(mesh, PartitionSpec(None, "data") if divides else PartitionSpec())


def in_parts(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(x, *rest)``, its entries along the first axis shared by all devices.

    The function treats the entries of ``x`` one by one. Where the devices do not divide their
    number, every device treats all of them.
    """

    def call(x, *rest):
        mesh, rows = data_mesh(), PartitionSpec("data")
        if mesh.size == 1 or len(x) % mesh.size:
            return function(x, *rest)
        specs = (rows, *(PartitionSpec() for _ in rest))
        over = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
        return over(x, *rest)

    return call


def collectives(program: str) -> dict[str, Traffic]:
    """What a compiled program (``compiled.as_text()``) sends between devices, kind by kind."""
    found = {}
    operation = rf"= (.*?) ({'|'.join(_COLLECTIVES)})(?:-start)?\("
    for types, kind in re.findall(operation, program):
        before = found.get(kind, Traffic(0, 0))
        found[kind] = Traffic(before.count + 1, before.num_bytes + _num_bytes(types))
    return found


def _rule(mesh: Mesh, rule: tuple[str, tuple]) -> tuple[re.Pattern, PartitionSpec]:
    if len(rule) != 2 or isinstance(rule, str) or isinstance(rule[1], str):
        raise ValueError(
            "sharding needs pairs of a pattern and a tuple of mesh axes or None, "
            f"as (('kernel', (None, 'model')),); got {rule!r}"
        )
    pattern, axes = rule
    for axis in (name for names in axes for name in _names(names)):
        if axis not in mesh.axis_names:
            choices = ", ".join(mesh.axis_names)
            raise ValueError(f"sharding of {pattern!r}: no mesh axis {axis!r}, only {choices}")
    try:
        return re.compile(pattern), PartitionSpec(*axes)
    except re.error as error:
        raise ValueError(f"sharding: {pattern!r} is no regular expression: {error}") from None


def _check_fits(mesh: Mesh, name: str, shape: tuple[int, ...], spec: PartitionSpec) -> None:
    fits = len(spec) <= len(shape)
    for size, names in zip(shape, spec, strict=False):
        fits &= size % math.prod(mesh.shape[axis] for axis in _names(names)) == 0
    if not fits:
        raise ValueError(
            f"sharding: {name} of shape {shape} does not divide over {tuple(spec)} "
            f"on a mesh of {dict(mesh.shape)}"
        )


def _names(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes that one axis of an array lies over."""
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def _num_bytes(types: str) -> int:
    """Of HLO's ``f32[2,3]{1,0}``, or of a tuple of such."""
    total = 0
    for dtype, shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", types):
        size = _SIZES.get(dtype) or int(re.sub(r"\D", "", dtype)) // 8
        total += size * math.prod(int(n) for n in shape.split(",") if n)
    return total
