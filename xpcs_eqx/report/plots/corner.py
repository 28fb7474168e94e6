"""The covariance as a corner plot of ellipses."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...fitting import Fit
from .canvas import DATA, figure

MOST = 8


def _names(fit: Fit) -> list[int]:
    """Free parameters with a finite error, at most `MOST`; scaling coefficients fill up."""
    errors = fit.uncertainty.errors()
    index = fit.index
    order = [
        *range(index.physical.start, index.physical.stop),
        *range(index.scaling.start, index.scaling.stop),
    ]
    wanted = max(index.physical.stop - index.physical.start, 2)
    good = [i for i in order if np.isfinite(errors[i]) and errors[i] > 0]
    return good[: min(wanted, MOST)]


def value_label(value: float, error: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 3
    if digits > 6 or abs(value) >= 1e6:
        return f"{value:.4g} ± {error:.2g}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def corner_figure(fit: Fit) -> Figure:
    """Ellipses of one and two quoted standard errors for each pair of free parameters.

    Everything is drawn into one set of axes, in units of the standard errors: a grid of axes
    takes many times longer.
    """
    chosen = _names(fit)
    n = len(chosen)
    size = 1.3 + 1.05 * max(n, 2)
    fig = figure(size, size, f"Covariance ({fit.uncertainty.chosen}): one and two standard errors")
    axis = Axes(fig, (0.02, 0.02, 0.96, 0.90))
    fig.add_axes(axis)
    axis.set_axis_off()
    axis.set_aspect("equal")
    values, errors = np.asarray(fit.values), fit.uncertainty.errors()
    correlation = fit.uncertainty.correlation()
    angle = np.linspace(0, 2 * np.pi, 80)
    curve = np.linspace(-3, 3, 80)
    half, pitch = 3.0, 6.6
    for row, i in enumerate(chosen):
        y = -row * pitch
        for column, j in enumerate(chosen[: row + 1]):
            x = column * pitch
            axis.plot(
                x + half * np.array([-1, 1, 1, -1, -1]),
                y + half * np.array([-1, -1, 1, 1, -1]),
                color="0.8",
                lw=0.7,
            )
            if row == column:
                bell = -half + 4.6 * np.exp(-0.5 * curve**2)
                axis.fill_between(x + curve, y - half, y + bell, color=DATA, alpha=0.3, lw=0)
                axis.text(
                    x,
                    y + half + 0.25,
                    f"{fit.index.names[i]}\n{value_label(values[i], errors[i])}",
                    ha="center",
                    va="bottom",
                    fontsize=6.5,
                )
                continue
            c = float(np.clip(correlation[i, j], -1, 1))
            across = np.cos(angle)
            along = c * np.cos(angle) + math.sqrt(1 - c * c) * np.sin(angle)
            for factor, alpha in ((2, 0.2), (1, 0.4)):
                axis.fill(x + factor * across, y + factor * along, color=DATA, alpha=alpha, lw=0)
            axis.text(
                x + half - 0.2,
                y + half - 0.2,
                f"{c:+.2f}",
                ha="right",
                va="top",
                fontsize=6,
                color="0.3",
            )
    axis.set_xlim(-half - 0.5, max(n - 1, 1) * pitch + half + 0.5)
    axis.set_ylim(-max(n - 1, 1) * pitch - half - 0.5, half + 2.6)
    return fig
