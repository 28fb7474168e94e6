"""Figures without pyplot: nothing global, nothing interactive, quick to draw."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

DPI = 110
STYLE: Any = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "lines.linewidth": 1.2,
    "image.interpolation": "nearest",
}
DATA, FIT = "#4477aa", "#cc3311"


def figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of a size in inches, with its canvas."""
    fig = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(fig)
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize=9.5)
    return fig


def panels(
    width: float,
    height: float,
    title: str,
    rows: int = 1,
    columns: int = 1,
    *,
    left: float = 0.75,
    bottom: float = 0.46,
    top: float = 0.42,
    **gaps: float,
) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """A figure with axes in rows and columns; its size and its margins are in inches.

    The margins are fixed: a layout engine would draw everything twice.
    """
    fig = figure(width, height, title)
    places = {"left": left / width, "right": 1 - 0.12 / width}
    places |= {"bottom": bottom / height, "top": 1 - top / height, "wspace": 0.3, **gaps}
    return fig, fig.subplots(rows, columns, squeeze=False, gridspec_kw=places)  # pyright: ignore[reportReturnType]


def log_scale(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Logarithmic axes with plain labels: mathematical ones take most of the drawing time."""
    for wanted, axis, scale in ((x, axes.xaxis, axes.set_xscale), (y, axes.yaxis, axes.set_yscale)):
        if not wanted:
            continue
        scale("log")
        low, high = axis.get_view_interval()
        # Within one decade or two, powers of ten alone would leave an axis almost bare.
        short = low > 0 and high < 100 * low
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,), numticks=8))
        axis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
        axis.set_minor_locator(NullLocator())


def style() -> Any:
    """A context in which figures are made and drawn."""
    return mpl.rc_context(STYLE)
