"""Figures without pyplot: nothing global, nothing interactive, quick to draw."""

import os
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from PIL import Image

from ...errors import ConfigError
from ..page import Picture

# Width of a page of a journal [inches], and of one of its columns.
WIDE, COLUMN = 7.0, 3.4
DPI = 200
STYLE: Any = {
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "lines.linewidth": 1.2,
    "image.interpolation": "nearest",
    # Letters stay letters, so that text of vector graphics can be read and changed.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}
# Of the palette of Paul Tol, which the colour-blind can tell apart.
DATA, FIT, OTHER = "#4477aa", "#cc3311", "#ddaa33"
# Steps between ticks, times a power of ten.
ROUND = [1, 2, 5, 10]
# Formats of files of plots.
FORMATS = ("png", "svg", "pdf")
# A picture in a page that is larger as PNG [bytes] is noise, which WebP makes smaller.
_LARGE = 250_000


def figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of a size in inches, with its canvas."""
    fig = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(fig)
    if title:
        fig.suptitle(title, x=0.01, ha="left", y=1 - 0.06 / height, va="top", fontsize=9.0)
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
    right: float = 0.12,
    **gaps: float,
) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """A figure with axes in rows and columns; its size and its margins are in inches.

    The margins are fixed: a layout engine would draw everything twice.
    """
    fig = figure(width, height, title)
    places = {"left": left / width, "right": 1 - right / width}
    places |= {"bottom": bottom / height, "top": 1 - top / height, "wspace": 0.3, **gaps}
    return fig, fig.subplots(rows, columns, squeeze=False, gridspec_kw=places)  # pyright: ignore[reportReturnType]


def degrees(phi: float) -> str:
    """An azimuth as the title of a panel."""
    return f"φ = {phi:.4g}°".replace("-", "−")


def few_ticks(axes: Axes, x: int = 4, y: int = 5) -> None:
    """No more ticks than there is room for their labels."""
    axes.xaxis.set_major_locator(MaxNLocator(x, steps=ROUND))
    axes.yaxis.set_major_locator(MaxNLocator(y, steps=ROUND))


def _places(low: float, high: float) -> Locator:
    """Ticks of a logarithmic axis: powers of ten alone would leave a short one almost bare."""
    if not 0 < low < high < 100 * low:
        return LogLocator(subs=(1.0,), numticks=8)
    power = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    found = np.outer((1, 2, 5), power)
    if np.count_nonzero((found >= low) & (found <= high)) > 2:
        return LogLocator(subs=(1.0, 2.0, 5.0), numticks=8)
    return MaxNLocator(3, steps=ROUND)


def log_scale(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Logarithmic axes with plain labels: mathematical ones take most of the drawing time."""
    for wanted, axis, scale in ((x, axes.xaxis, axes.set_xscale), (y, axes.yaxis, axes.set_yscale)):
        if not wanted:
            continue
        scale("log")
        low, high = axis.get_view_interval()
        axis.set_major_locator(_places(low, high))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())


def style() -> Any:
    """A context in which figures are made and drawn."""
    return mpl.rc_context(STYLE)


def file_of(stem: str, form: str) -> str:
    """The file of a plot. **Raises:** `ConfigError` for another format than `FORMATS`."""
    if form not in FORMATS:
        raise ConfigError(
            f"{stem}.{form}: plots are written as {', '.join(FORMATS)}; give one of them"
        )
    return f"{stem}.{form}"


def write_figure(fig: Figure, stem: str, form: str = "png") -> str:
    """Write a figure into a file, in a folder that is made if needed; returns its path.

    **Raises:** as `file_of`; `OSError` when there is no room.
    """
    if form == "png":
        return _write_pixels(drawn(fig), stem)
    path = _new_file(stem, form)
    fig.savefig(path, format=form)
    return path


def _new_file(stem: str, form: str) -> str:
    """The file of a plot, in a folder that there is."""
    path = file_of(stem, form)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    return path


def _write_pixels(pixels: Image.Image, stem: str) -> str:
    path = _new_file(stem, "png")
    pixels.save(path, compress_level=6, dpi=(DPI, DPI))
    return path


def drawn(fig: Figure) -> Image.Image:
    """A figure as pixels."""
    canvas = fig.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def save_figure(
    fig: Figure, stem: str, caption: str = "", form: str = "png"
) -> Callable[[], Picture]:
    """Write a figure into a file, without its ending: draws it, and returns what does the rest.

    That is compression, for a thread beside the one that draws; it gives a picture of a page.
    """
    pixels = drawn(fig)
    if form == "png":
        return lambda: _picture(pixels, _write_pixels(pixels, stem), caption)
    path = write_figure(fig, stem, form)
    return lambda: _picture(pixels, path, caption)


def picture_of(path: str, caption: str = "") -> Picture:
    """The file of a figure as a picture of a page; of a PDF, which pages do not show, its name."""
    stem, ending = os.path.splitext(os.path.basename(path))
    if ending == ".png":
        with Image.open(path) as image:
            picture = _picture(image.convert("RGB"), path, caption)
            # Pages take pictures as drawn with `DPI`; ArviZ draws with fewer.
            across, down = (round(n * DPI / image.info.get("dpi", (DPI,))[0]) for n in image.size)
            return picture._replace(size=(across, down))
    content = b""
    if ending == ".svg":
        with open(path, "rb") as stream:
            content = stream.read()
    return Picture(stem, caption, content, "image/svg+xml", file=os.path.basename(path))


def _picture(image: Image.Image, path: str, caption: str) -> Picture:
    file, kind = os.path.basename(path), "image/png"
    stem, ending = os.path.splitext(file)
    stream = BytesIO()
    if ending == ".png":
        with open(path, "rb") as written:
            stream.write(written.read())
    else:
        image.save(stream, "PNG", compress_level=6)
    if stream.tell() > _LARGE:
        stream, kind = BytesIO(), "image/webp"
        image.save(stream, "WEBP", quality=85, method=2)
    return Picture(stem, caption, stream.getvalue(), kind, image.size, file)
