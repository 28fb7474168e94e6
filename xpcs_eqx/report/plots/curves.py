"""Curves of a fit: scaling by angle, convergence, rates with their error bands."""

import numpy as np
from matplotlib.figure import Figure

from ...fitting import Fit
from ..fit import scaling_errors
from ..rates import RateCurve
from .canvas import DATA, FIT, figure, grid, log_scale


def scaling_figure(fit: Fit) -> Figure:
    """Contrast and offset against angle with the quoted errors."""
    fig = figure(7.6, 2.8, "Contrast and offset")
    axes = grid(fig, 1, 2, left=0.095, right=0.985, bottom=0.165, top=0.86, wspace=0.3)[0]
    phi = np.asarray(fit.objective.term.geometry.phi)
    errors = scaling_errors(fit)
    series = (("contrast", fit.contrast, errors[0]), ("offset", fit.offset, errors[1]))
    for axis, (name, values, error) in zip(axes, series, strict=True):
        shown = np.where(np.isfinite(error), error, 0.0)
        axis.errorbar(phi, np.asarray(values), shown, fmt="o", ms=4, color=DATA, capsize=2)
        axis.set_xlabel("φ [deg]")
        axis.set_ylabel(name)
        axis.margins(x=0.08, y=0.15)
    return fig


def convergence_figure(fit: Fit) -> Figure:
    """Cost and projected gradient against evaluation; rejected points are crosses."""
    fig = figure(7.6, 2.8, fit.message.capitalize())
    left, right = grid(fig, 1, 2, left=0.095, right=0.985, bottom=0.165, top=0.86, wspace=0.3)[0]
    cost, gradient = np.asarray(fit.history.cost), np.asarray(fit.history.gradient)
    accepted = np.asarray(fit.history.accepted)
    number = np.arange(1, len(cost) + 1)
    finite = np.isfinite(cost)
    best = float(fit.cost)
    above = np.maximum(cost - best, 1e-16 * max(abs(best), 1e-300))
    ok, bad = finite & accepted, finite & ~accepted
    left.plot(number[ok], above[ok], "o-", ms=3.5, color=DATA, label="accepted")
    if bad.any():
        left.plot(number[bad], above[bad], "x", ms=5, color=FIT, label="rejected")
        left.legend()
    left.set_xlabel("evaluation")
    left.set_ylabel(f"cost − {best:.6g}")
    ok = accepted & (gradient > 0)
    right.plot(number[ok], gradient[ok], "o-", ms=3.5, color=DATA)
    right.set_xlabel("evaluation")
    right.set_ylabel("projected gradient (cosine)")
    for axis in (left, right):
        axis.set_xlim(0.5, len(cost) + 0.5)
        log_scale(axis, y=True)
    return fig


def rate_figure(rates: tuple[RateCurve, ...]) -> Figure:
    """The rates, J(t), γ̇(t) and others, with bands of one and two quoted errors."""
    columns = len(rates)
    width = 1.0 + 3.3 * columns
    fig = figure(width, 2.8, "Rates with one and two standard errors")
    axes = grid(
        fig,
        1,
        columns,
        left=0.75 / width,
        right=1 - 0.1 / width,
        bottom=0.165,
        top=0.86,
        wspace=0.3,
    )[0]
    for axis, rate in zip(axes, rates, strict=True):
        known = np.isfinite(rate.error)
        for level, alpha in ((0.9545, 0.15), (0.6827, 0.3)):
            low, high = rate.band(level)
            axis.fill_between(
                rate.t, low, high, where=known.tolist(), color=DATA, alpha=alpha, lw=0
            )
        axis.plot(rate.t, rate.value, color=DATA)
        if rate.t[0] > 0 and rate.t[-1] > 20 * rate.t[0]:
            log_scale(axis, x=True)
        low, high = float(np.min(rate.value)), float(np.max(rate.value))
        if low > 0 and high > 3 * low:
            axis.set_ylim(low / 1.5, high * 1.5)
            log_scale(axis, y=True)
        elif high > low:
            axis.set_ylim(
                min(low - 0.5 * (high - low), 0 if low > 0 else np.inf), high + 0.5 * (high - low)
            )
        axis.set_xlabel("t [s]")
        axis.set_ylabel(rate.label)
    return fig
