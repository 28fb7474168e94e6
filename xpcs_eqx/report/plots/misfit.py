"""Mean residuals by lag and by age, which a right model leaves at zero."""

import numpy as np
from matplotlib.figure import Figure

from ...uncertainty import Misfit
from .canvas import DATA, FIT, log_scale, panels


def misfit_figure(misfit: Misfit) -> Figure:
    """Mean of fitted minus measured c2 by lag and by age, with the errors of a right model."""
    title = "Mean residual, fitted minus measured c2"
    fig, (axes,) = panels(7.6, 2.8, title, columns=2, left=0.85)
    for axis, (low, high), means, name in (
        (axes[0], misfit.lags.T, misfit.by_lag, "lag τ [s]"),
        (axes[1], misfit.ages.T, misfit.by_age, "age (t₁ + t₂)/2 [s]"),
    ):
        mean, error = means.T
        middle = np.sqrt(low * high) if axis is axes[0] else 0.5 * (low + high)
        across = np.stack([middle - low, high - middle])
        away = np.abs(mean) > 3 * error
        for which, colour in ((~away, DATA), (away, FIT)):
            if which.any():
                axis.errorbar(
                    middle[which],
                    mean[which],
                    error[which],
                    across[:, which],
                    fmt="o",
                    ms=3.5,
                    color=colour,
                    capsize=2,
                )
        axis.axhline(0.0, color="0.5", lw=0.8)
        axis.set_xlabel(name)
        axis.set_ylabel("mean residual")
        axis.margins(x=0.05, y=0.15)
    log_scale(axes[0], x=True)
    return fig
