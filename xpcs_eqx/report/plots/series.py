"""Parameters of several results against the file, a time or a temperature, and rates against q."""

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
from ..sections import Drawing, by_frame
from .canvas import DATA, FIT, WIDE, few_ticks, log_scale, panels
from .means import age_colours, grid_of, shown_panels

# The least that an axis goes to either side of its middle, as a factor.
_RANGE = 1.25
_PANELS = "Γ [1/s]", "τ = 1/Γ [s]", "D = Γ/q² [Å²/s]"
# Names of files in a line of the legend.
_NAMES = 3


def exponent_figure(found: Mapping[str, Exponent]) -> Figure:
    """Γ(q), τ(q) and D(q) with error bars on logarithmic axes, and the straight line.

    `found`: by the name of the file, where there are several, each in a colour of its own.
    """
    rows = -(-len(found) // _NAMES) if len(found) > 1 else 0
    above = 0.12 + 0.16 * rows
    fig, axes = panels(WIDE, 2.28 + above, "", 1, 3, left=0.6, top=above, wspace=0.5)
    colours = [(DATA, FIT)] if len(found) == 1 else [(c, c) for c in age_colours(len(found))]
    drawn = zip(colours, found.items(), strict=True)
    for (of_points, of_line), (name, one) in drawn:
        q, line, fitted = one.q, *_line(one)
        part = one.error / one.gamma
        cases = (
            (one.gamma, fitted),
            (1 / one.gamma, 1 / fitted),
            (one.gamma / q**2, fitted / line**2),
        )
        for axis, (values, curve) in zip(axes[0], cases, strict=True):
            axis.errorbar(
                q, values, values * part, fmt="o", ms=3.5, lw=0.8, color=of_points, label=name
            )
            axis.plot(line, curve, color=of_line)
    every = list(found.values())
    for axis, name, power, sign in zip(axes[0], _PANELS, (0, 0, 2), (1, -1, 1), strict=True):
        axis.set(xlabel="q [1/Å]", ylabel=name)
        # A scale that is stretched to some percent would make a slope of a scatter. Margins are
        # those of the logarithmic axis: of another one they might reach below zero.
        axis.set(xscale="log", yscale="log")
        low, high = axis.get_ylim()
        values = np.concatenate([one.gamma**sign / one.q**power for one in every])
        middle = np.sqrt(values.min() * values.max())
        axis.set_ylim(min(low, middle / _RANGE), max(high, middle * _RANGE))
        log_scale(axis, x=True, y=True)
    if rows:
        handles, names = axes[0][0].get_legend_handles_labels()
        fig.legend(handles, names, loc="upper left", ncols=_NAMES)
    return fig


def _line(found: Exponent) -> tuple[np.ndarray, np.ndarray]:
    """Places q of the straight line, and its Γ."""
    weight = (found.gamma / found.error) ** 2
    centre = np.exp(np.average(np.log(found.q), weights=weight))
    left = np.log(found.gamma) - found.slope * np.log(found.q / centre)
    line = np.geomspace(found.q.min(), found.q.max(), 50)
    return line, np.exp(np.average(left, weights=weight)) * (line / centre) ** found.slope


_NUMBER = "row of the table"
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
    """Every parameter that has an error, a panel each, against a number or the row of the table.

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
    rows, columns = grid_of(len(shown))
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
    colours = _colours(whole)
    for axis, name in zip(shown_panels(axes, len(shown)), shown, strict=True):
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
        f"Every parameter with its error against {against or 'the row of the table'}; open "
        "points are of fits that are not good."
    )
    drawn = (Drawing("series", lambda: series_figure(results, against), caption),)
    if not exponents:
        return drawn
    of_q = Drawing("q", lambda: exponent_figure(exponents), about_q(exponents))
    return (*drawn, by_frame(of_q) if any(one.counts_frames for one in results) else of_q)
