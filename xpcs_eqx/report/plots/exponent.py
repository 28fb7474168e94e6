"""Relaxation rate and time, and diffusion coefficient against q."""

import numpy as np
from matplotlib.figure import Figure

from ...fitting import Exponent
from .canvas import DATA, FIT, WIDE, log_scale, panels

# The least that an axis goes to either side of its middle, as a factor.
_RANGE = 1.25


def exponent_figure(found: Exponent) -> Figure:
    """Γ(q), τ(q) and D(q) with error bars on logarithmic axes, and the straight line."""
    fig, axes = panels(WIDE, 2.4, "", 1, 3, left=0.6, top=0.12, wspace=0.5)
    q, gamma, part = found.q, found.gamma, found.error / found.gamma
    weight = 1 / part**2
    centre = np.exp(np.average(np.log(q), weights=weight))
    level = np.exp(np.average(np.log(gamma) - found.slope * np.log(q / centre), weights=weight))
    line = np.geomspace(q.min(), q.max(), 50)
    fitted = level * (line / centre) ** found.slope
    cases = (
        ("Γ [1/s]", gamma, fitted),
        ("τ = 1/Γ [s]", 1 / gamma, 1 / fitted),
        ("D = Γ/q² [Å²/s]", gamma / q**2, fitted / line**2),
    )
    for axis, (name, values, curve) in zip(axes[0], cases, strict=True):
        axis.errorbar(q, values, values * part, fmt="o", ms=3.5, lw=0.8, color=DATA)
        axis.plot(line, curve, color=FIT)
        axis.set(xlabel="q [1/Å]", ylabel=name)
        # A scale that is stretched to some percent would make a slope of a scatter. Margins are
        # those of the logarithmic axis: of another one they might reach below zero.
        axis.set(xscale="log", yscale="log")
        low, high = axis.get_ylim()
        middle = np.sqrt(values.min() * values.max())
        axis.set_ylim(min(low, middle / _RANGE), max(high, middle * _RANGE))
        log_scale(axis, x=True, y=True)
    return fig
