"""A curve through points: measured and fitted, and what is left below."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...fitting import Fit
from ..points import FittedPoints, curve_between, fitted_points
from .canvas import DATA, FIT, few_ticks, figure, log_scale
from .surfaces import ordinal

# Points that are drawn, and how many of them have room for bars.
_MOST, _BARS = 20_000, 400
# Places at which a curve is drawn.
_FINE = 400


def _logarithmic(x: np.ndarray) -> bool:
    """Whether points lie as on a logarithmic axis: over decades, and crowded at its beginning."""
    low, high = float(x.min()), float(x.max())
    return low > 0 and high > 20 * low and np.median(x) - low < 0.25 * (high - low)


def _points(axis: Axes, x: np.ndarray, y: np.ndarray, found: FittedPoints) -> None:
    """Points, with bars where there are any and room for them."""
    if x.size <= _BARS:
        look = {"fmt": "o", "ms": 3.0, "mec": "none", "lw": 0.8}
        axis.errorbar(x, y, found.sigma, color=DATA, label="measured", **look)
        return
    axis.plot(
        x, y, "o", ms=2.0, mec="none", color=DATA, alpha=0.4, label="measured", rasterized=True
    )


def curve_figure(fit: Fit) -> Figure:
    """Points of a curve with the fit as a line; below them what the fit leaves.

    Points of several coordinates stand over their fitted values, on which a good fit puts them.
    """
    found = fitted_points(fit, _MOST)
    title = f"every {ordinal(found.step)} point" if found.step > 1 else ""
    width, height = 4.2, 3.3
    fig = figure(width, height, title)
    cells = fig.add_gridspec(
        2, 1, left=0.75 / width, right=1 - 0.12 / width, bottom=0.44 / height,
        top=1 - 0.3 / height, height_ratios=(2.6, 1), hspace=0.12,
    )  # fmt: skip
    upper = fig.add_subplot(cells[0])
    lower = fig.add_subplot(cells[1], sharex=upper)
    several = found.x.ndim > 1
    along = found.fitted if several else found.x
    for axis, values in ((upper, found.y), (lower, found.residual)):
        _points(axis, along, values, found)
    logarithmic = not several and _logarithmic(along)
    spaced = np.geomspace if logarithmic else np.linspace
    fine = spaced(along.min(), along.max(), _FINE)
    line = fine if several else curve_between(fit, fine)
    if line is None:
        order = np.argsort(along)
        fine, line = along[order], found.fitted[order]
    upper.plot(fine, line, color=FIT, label="fit", zorder=3)
    lower.axhline(0.0, color=FIT, lw=0.8, zorder=3)
    for axis, most in ((upper, 5), (lower, 3)):
        few_ticks(axis, 5, most)
        axis.margins(y=0.1)
    if logarithmic:
        log_scale(upper, x=True)
    upper.tick_params(labelbottom=False)
    upper.set_ylabel("y")
    lower.set_ylabel("y − fit")
    lower.set_xlabel("fitted y" if several else "x")
    fig.align_ylabels([upper, lower])
    drawn = sorted(zip(*upper.get_legend_handles_labels(), strict=True), key=lambda one: one[1])
    handles, labels = zip(*reversed(drawn), strict=True)
    fig.legend(handles, labels, loc="upper right", ncols=2, borderaxespad=0.2)
    return fig
