"""g2(τ) at chosen ages with its stretched exponentials."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...fitting import AgedG2
from .canvas import WIDE, degrees, log_scale, panels
from .means import age_colours, grid_of, smooth


def g2_figure(curves: Sequence[AgedG2]) -> Figure:
    """A panel for each angle, a colour for each age: points, their curve, and the whole fit."""
    angles = list(dict.fromkeys(one.angle for one in curves))
    ages = list(dict.fromkeys(one.between for one in curves))
    colours = dict(zip(ages, age_colours(len(ages)), strict=True))
    rows, columns = grid_of(len(angles), 2)
    width = WIDE if columns > 1 else 4.2
    labels = -(-len(ages) // (4 if columns > 1 else 2))
    fig, axes = panels(
        width, 0.65 + 0.16 * labels + 2.05 * rows, "", rows, columns,
        left=0.62, top=0.42 + 0.16 * labels, bottom=0.42, hspace=0.34, wspace=0.25,
    )  # fmt: skip
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(angles) :]:
        axis.set_axis_off()
    for number, (axis, angle) in enumerate(zip(flat, angles, strict=False)):
        mine = [one for one in curves if one.angle == angle]
        for one in mine:
            colour = colours[one.between]
            axis.errorbar(one.lag, one.g2, one.error, fmt="o", ms=2.6, lw=0.7, color=colour)
            axis.plot(*smooth(one.lag, one.curve), color=colour, lw=1.0)
            if np.all(np.isfinite(one.beside)):
                axis.plot(*smooth(one.lag, one.beside), color=colour, lw=1.0, ls="--")
        log_scale(axis, x=True)
        axis.set_title(degrees(mine[0].phi), loc="left")
        if number >= len(angles) - columns:
            axis.set_xlabel("lag t2 − t1 [s]")
        if number % columns == 0:
            axis.set_ylabel("g2")
    handles = [Line2D([], [], color=colours[one], marker="o", ms=3, lw=1.0) for one in ages]
    fig.legend(
        handles, [f"{low:.3g} … {high:.3g} s" for low, high in ages], title="age (t1 + t2)/2",
        ncols=4 if columns > 1 else 2, loc="upper left", bbox_to_anchor=(0.0, 1.0),
        fontsize=6.5, title_fontsize=6.5, alignment="left", borderaxespad=0.2, columnspacing=1.2,
    )  # fmt: skip
    return fig
