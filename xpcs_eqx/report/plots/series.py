"""Parameters of several results against the file, a time or a temperature."""

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...fitting import Exponent
from ..collection import Q, Result, number_of
from ..derived import about_q
from ..sections import Drawing
from .canvas import DATA, WIDE, few_ticks, panels
from .exponent import exponent_figure
from .means import age_colours

_COLUMNS = 3
_NUMBER = "number of the file"
# Of more q the colours could not be told apart, nor their names stand in a line.
_MOST_Q = 5


def _places(results: Sequence[Result], against: str | None) -> tuple[list[float | None], str]:
    """Where each result is drawn, None for nowhere, and what that is called.

    Times are hours after the first; without a number there is that of the file.
    """
    values = [one.about.get(against) if against else None for one in results]
    places, first = [number_of(value) for value in values], None
    if not any(place is not None for place in places):
        return [k + 1.0 for k in range(len(results))], _NUMBER
    times = [value for value in values if isinstance(value, datetime)]
    if times:
        first = min(times)
        places = [
            (value - first).total_seconds() / 3600 if isinstance(value, datetime) else None
            for value in values
        ]
    return places, f"{against} [h after {first:%Y-%m-%d %H:%M}]" if first else str(against)


def series_figure(results: Sequence[Result], against: str | None) -> Figure:
    """Every parameter that has an error, a panel each, against a number or the number of the file.

    Open points are of fits that are not good; colours are of q where several files have the same.
    """
    # What failed has no point, and keeps its number.
    places, along = _places(results, against)
    placed = [pair for pair in zip(places, results, strict=True) if pair[1].parameters]
    whole = [one for _, one in placed]
    names = list(dict.fromkeys(n for one in whole for n in one.parameters))
    shown = [
        n
        for n in names
        if any(np.isfinite(one.parameters[n][1]) for one in whole if n in one.parameters)
    ]
    columns = min(_COLUMNS, max(1, len(shown)))
    rows = -(-len(shown) // columns) or 1
    fig, axes = panels(
        WIDE if columns > 1 else 4.2,
        0.35 + 2.0 * rows,
        "",
        rows,
        columns,
        hspace=0.5,
        wspace=0.5,
        left=0.6,
        top=0.3,
    )
    flat, colours = [axis for row in axes for axis in row], _colours(whole)
    for axis in flat[len(shown) :]:
        axis.set_axis_off()
    for axis, name in zip(flat, shown, strict=False):
        for (q, colour), good in itertools.product(colours.items(), (True, False)):
            points = [
                (place, *one.parameters[name])
                for place, one in placed
                if one.good is good and name in one.parameters and place is not None
                if q in (None, one.about.get(Q))
            ]
            if points:
                x, y, error = np.array(points, dtype=float).T
                error = np.where(np.isfinite(error), error, 0.0)
                axis.errorbar(
                    x, y, error, fmt="o", ms=3, lw=0.8, color=colour, mfc=colour if good else "none"
                )  # fmt: skip
        unit = next((one.units[name] for one in whole if one.units.get(name)), "")
        axis.set(ylabel=f"{name} [{unit}]" if unit else name, xlabel=along)
        few_ticks(axis)
        if along == _NUMBER:
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    marks = [(f"q = {q:.4g} 1/Å", colour, colour) for q, colour in colours.items() if q is not None]
    if not all(one.good for one in whole):
        plain = "0.3" if marks else DATA
        marks += [("good", plain, plain), ("not good", plain, "none")]
    handles = [
        Line2D([], [], marker="o", ms=3, ls="", color=colour, mfc=inside, label=name)
        for name, colour, inside in marks
    ]
    if handles:
        fig.legend(handles=handles, loc="upper right", ncols=len(handles))
    return fig


def _colours(results: Sequence[Result]) -> dict[float | None, Any]:
    """A colour for each q that several results have in common; one for all where none has."""
    every = sorted({one.about[Q] for one in results if Q in one.about})
    if not 1 < len(every) <= _MOST_Q or len(every) == len(results):
        return {None: DATA}
    return dict(zip(every, age_colours(len(every)), strict=True))


def series_drawings(
    results: Sequence[Result], against: str | None, exponents: Mapping[str, Exponent] = {}
) -> tuple[Drawing, ...]:
    """The plots of a series, with that of q where it has several."""
    caption = (
        f"Every parameter with its error against {against or 'the number of the file'}; open "
        "points are of fits that are not good."
    )
    drawn = (Drawing("series", lambda: series_figure(results, against), caption),)
    if not exponents:
        return drawn
    return (*drawn, Drawing("q", lambda: exponent_figure(exponents), about_q(exponents)))
