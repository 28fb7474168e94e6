"""Relaxation rate and time, and diffusion coefficient against q."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ...fitting import Exponent
from .canvas import DATA, FIT, WIDE, log_scale, panels
from .means import age_colours

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
