"""Parameters of several results against the file, a time or a temperature."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ...fitting import Exponent
from ..collection import Result
from ..sections import Drawing
from .canvas import DATA, panels
from .exponent import exponent_figure

_COLUMNS = 3


def series_figure(results: Sequence[Result], against: str | None) -> Figure:
    """Every parameter that has an error, a panel each, against a number or the number of the file.

    Open points are of fits that are not good.
    """
    whole = [one for one in results if one.parameters]
    names = list(dict.fromkeys(n for one in whole for n in one.parameters))
    shown = [
        n
        for n in names
        if any(np.isfinite(one.parameters[n][1]) for one in whole if n in one.parameters)
    ]
    columns = min(_COLUMNS, max(1, len(shown)))
    rows = -(-len(shown) // columns) or 1
    fig, axes = panels(
        1.2 + 2.7 * columns, 0.7 + 2.2 * rows, "Parameters", rows, columns, hspace=0.45, wspace=0.45
    )
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(shown) :]:
        axis.set_axis_off()
    for axis, name in zip(flat, shown, strict=False):
        for good in (True, False):
            points = [
                (k + 1.0 if against is None else one.about.get(against), *one.parameters[name])
                for k, one in enumerate(whole)
                if one.good is good and name in one.parameters
            ]
            points = [p for p in points if p[0] is not None]
            if points:
                x, y, error = np.array(points, dtype=float).T
                error = np.where(np.isfinite(error), error, 0.0)
                axis.errorbar(
                    x, y, error, fmt="o", ms=3, lw=0.8, color=DATA, mfc=DATA if good else "none"
                )
        unit = next((one.units.get(name, "") for one in whole), "")
        axis.set(title=f"{name} [{unit}]" if unit else name, xlabel=against or "file")
    return fig


def series_drawings(
    results: Sequence[Result], against: str | None, exponent: Exponent | None = None
) -> tuple[Drawing, ...]:
    """The plots of a series, with that of q where it has several."""
    drawn = (Drawing("series", lambda: series_figure(results, against)),)
    return drawn if exponent is None else (*drawn, Drawing("q", lambda: exponent_figure(exponent)))
