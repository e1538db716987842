"""One look for all figures, in a light and a dark edition, at twice the screen's resolution."""

from collections.abc import Callable
from pathlib import Path

import jax
import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito (2008): eight colours that every kind of colour vision tells apart.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#7F7F7F"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
}
_EDITIONS = {"": ("white", "#1A1A1A"), "-dark": ("#0D1117", "#E6EDF3")}


def save(path: Path, draw: Callable[[Figure], None], *, size: tuple[float, float]) -> None:
    """Draw twice: ``path`` on white and ``path`` with "-dark" before its suffix.

    Args:
        path: a ``.png`` file.
        draw: fills an empty figure.
        size: width and height in inches.

    Only process 0 writes.
    """
    if jax.process_index() != 0:
        return
    for suffix, (paper, ink) in _EDITIONS.items():
        colours = dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), paper)
        inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
        with mpl.rc_context(_STYLE | colours | dict.fromkeys(inked, ink)):
            figure = Figure(figsize=size)
            FigureCanvasAgg(figure)
            draw(figure)
            target = path.with_name(path.stem + suffix + path.suffix)
            part = target.with_name(target.name + ".part")
            figure.savefig(part, dpi=200, format="png")
            part.replace(target)
