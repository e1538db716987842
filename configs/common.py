"""What all configs share: the argument after the colon, and the knobs of `harness.train`."""

import difflib
from types import SimpleNamespace

from ml_collections import ConfigDict


def parse_arg(arg: str | None, **defaults: bool | int | float | str) -> SimpleNamespace:
    """The options of ``configs/NAME.py:smoke,d=20``, with a default and hence a type each.

    A bare name switches a boolean on. Raises ValueError for an unknown name or a wrong type.
    """
    options = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, equals, text = item.partition("=")
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(defaults)}"
            raise ValueError(f"unknown option {name!r} after the config file's colon: {hint}")
        kind = type(defaults[name])
        if bool(equals) == (kind is bool):
            form = name if kind is bool else f"{name}=VALUE"
            raise ValueError(f"write the config option as {form!r}, got {item!r}")
        try:
            options[name] = kind(text) if equals else True
        except ValueError:
            raise ValueError(f"option {name} needs {kind.__name__}, got {text!r}") from None
    return SimpleNamespace(**options)


def training() -> ConfigDict:
    """The knobs that `harness.train` reads."""
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 1000
    config.steps_per_call = 10  # optimizer steps in one compiled call
    config.log_every = 100  # a multiple of steps_per_call, like the next one
    config.checkpoint_every = 500
    config.max_to_keep = 2  # checkpoints
    config.checkpoint_limit = 600  # seconds; reading or writing one for longer ends the run
    config.mesh_model = 1  # devices along the mesh axis ``model``; the rest are along ``data``
    config.sharding = ()  # of the state, as (("kernel$", (None, "model")),): `experiments.meshes`
    return config
