"""Curves of a fit: points, scaling, convergence, rates with bands, profiles, mean residuals."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...fitting import Band, DegeneracyReport, Direction, Fit, band
from ...physics.rates import rates_in
from ...uncertainty import Misfit
from ..fit import scaling_errors
from ..method import unit_of
from ..points import FittedPoints, curve_between, fitted_points
from .canvas import DATA, FIT, OTHER, WIDE, few_ticks, figure, log_scale, panels
from .means import grid_of, shown_panels
from .surfaces import ordinal

# What is on the axis; a rate of another name stands there by that name.
LABELS = {
    "transport": ("J(t)", "Å²/s"),
    "shear": ("γ̇(t)", "1/s"),
    "reference": ("J_ref(t)", "Å²/s"),
    "sample": ("J_sample(t)", "Å²/s"),
    "velocity": ("v(t)", "Å/s"),
}
# Rise at which a profile is cut off, so that its bottom can be seen.
_TOP = 9.0
_MOST = 4


def scaling_figure(fit: Fit) -> Figure:
    """Contrast and offset against angle with the quoted errors."""
    fig, (axes,) = panels(WIDE, 2.4, "", columns=2, left=0.65, top=0.12, wspace=0.32)
    phi = np.asarray(fit.objective.term.geometry.phi)
    errors = scaling_errors(fit)
    series = (("contrast", fit.contrast, errors[0]), ("offset", fit.offset, errors[1]))
    for axis, (name, values, error) in zip(axes, series, strict=True):
        shown = np.where(np.isfinite(error), error, 0.0)
        axis.errorbar(phi, np.asarray(values), shown, fmt="o", ms=4, color=DATA, capsize=2)
        axis.set(xlabel="azimuth φ [deg]", ylabel=name)
        axis.margins(x=0.08, y=0.15)
        few_ticks(axis, 6)
        if np.ptp(phi) == 0:
            # Of one angle a scale would show nothing but its roundness.
            axis.set_xlim(phi[0] - 1, phi[0] + 1)
            axis.set_xticks(phi[:1], [f"{phi[0]:.4g}"])
    return fig


def convergence_figure(fit: Fit) -> Figure:
    """Cost and projected gradient against evaluation; rejected points are crosses."""
    fig, ((left, right),) = panels(
        WIDE, 2.6, fit.status.message.capitalize(), columns=2, left=0.8, top=0.36, wspace=0.32
    )
    cost, gradient = np.asarray(fit.history.cost), np.asarray(fit.history.gradient)
    accepted = np.asarray(fit.history.accepted)
    number = np.arange(1, len(cost) + 1)
    finite = np.isfinite(cost)
    best = float(np.min(cost[finite], initial=np.inf))
    above = np.maximum(cost - best, 1e-16 * max(abs(best), 1e-300))
    ok, bad = finite & accepted, finite & ~accepted
    left.plot(number[ok], above[ok], "o-", ms=3.5, color=DATA, label="accepted")
    if bad.any():
        left.plot(number[bad], above[bad], "x", ms=5, color=FIT, label="rejected")
        left.legend()
    left.set(xlabel="evaluation", ylabel=f"cost − {best:.6g}")
    ok = accepted & (gradient > 0)
    right.plot(number[ok], gradient[ok], "o-", ms=3.5, color=DATA)
    right.set(xlabel="evaluation", ylabel="gradient, relative to its parts")
    for axis in (left, right):
        axis.set_xlim(0.5, len(cost) + 0.5)
        log_scale(axis, y=True)
    return fig


def rate_limits(one: Band) -> tuple[float, float, bool]:
    """Limits of the axis of a rate and whether it is logarithmic: with its band, within reason."""
    low, high = float(np.min(one.value)), float(np.max(one.value))
    finite = np.isfinite(one.low) & np.isfinite(one.high)
    below = float(np.min(one.low[finite], initial=low))
    above = float(np.max(one.high[finite], initial=high))
    if low > 0 and high > 3 * low:
        return min(low / 1.5, max(below, low / 5)), max(high * 1.5, min(above, high * 5)), True
    size = max(abs(low), abs(high)) or 1.0
    margin = max(0.5 * (high - low), 0.25 * size)
    top = max(high + margin, min(above, high + size))
    bottom = min(low - margin, max(below, low - size))
    # A rate that is above zero as far as is known is seen against zero.
    return (0.0 if below > 0 else bottom), top, False


def rate_figure(fit: Fit) -> Figure:
    """The rates, J(t), γ̇(t) and others, with bands of one and two quoted errors."""
    names = list(rates_in(fit.model))
    width = min(WIDE, 0.9 + 3.05 * len(names))
    fig, (axes,) = panels(width, 2.4, "", columns=len(names), left=0.7, top=0.22, wspace=0.48)
    for axis, name in zip(axes, names, strict=True):
        wide, narrow = (band(fit, name, level) for level in (0.9545, 0.6827))
        for one, alpha in ((wide, 0.15), (narrow, 0.3)):
            known = np.isfinite(one.low)
            where = known.tolist()
            axis.fill_between(one.t, one.low, one.high, where=where, color=DATA, alpha=alpha, lw=0)
            if not known.any():
                # A line by itself would look like one that is known for certain.
                axis.set_title("no finite error", loc="left", fontsize=7.0, color=FIT)
        axis.plot(wide.t, wide.value, color=DATA)
        if wide.t[0] > 0 and wide.t[-1] > 20 * wide.t[0]:
            log_scale(axis, x=True)
        bottom, top, logarithmic = rate_limits(wide)
        axis.set_ylim(bottom, top)
        if logarithmic:
            log_scale(axis, y=True)
        axis.set_xlabel("age t [s]")
        shown, unit = LABELS.get(name, (f"{name}(t)", ""))
        axis.set_ylabel(f"{shown} [{unit_of(fit, unit)}]" if unit else shown)
    return fig


def degeneracy_figure(report: DegeneracyReport) -> Figure:
    """Profiles with the line of one standard error, and who takes part in the weak directions."""
    shown = [*report.profiles[:_MOST], *([None] if report.directions else [])]
    rows, columns = grid_of(len(shown))
    # Names stand left of their bars.
    room = max((0.07 * len(name) for one in report.directions for name in one.names), default=0.0)
    room = max(0.75, 0.15 + room)
    fig, axes = panels(
        WIDE if columns > 2 else room + 2.6 * columns, 0.1 + 2.5 * rows, "", rows, columns,
        left=room, top=0.36, wspace=0.64 * room, hspace=0.55,
    )  # fmt: skip
    for axis, curve in zip(shown_panels(axes, len(shown)), shown, strict=True):
        if curve is None:
            _directions(axis, report)
            continue
        axis.plot(curve.values, curve.rise, "o-", ms=3.5, color=DATA)
        axis.axhline(1.0, color="0.5", lw=0.8, ls="--")
        axis.axvline(curve.best, color=FIT, lw=0.8)
        axis.set_ylim(-0.15, min(max(float(np.max(curve.rise, initial=0.0)) * 1.1, 1.6), _TOP))
        axis.set_xlabel(f"{curve.name} [{curve.unit}]" if curve.unit else curve.name)
        axis.set_ylabel("rise of χ² [σ²]")
        axis.set_title("flat" if curve.flat else "", loc="right")
        axis.locator_params(axis="x", nbins=4)
    return fig


def _curvature(one: Direction) -> str:
    return "none" if one.open else f"{one.ratio:.0e}"


def _directions(axis, report: DegeneracyReport) -> None:
    shown = report.directions[:3]
    names = list(dict.fromkeys(name for one in shown for name in one.names))
    height = 0.8 / len(shown)
    for k, one in enumerate(shown):
        places = (
            np.array([names.index(name) for name in one.names])
            + (k - (len(shown) - 1) / 2) * height
        )
        color = (DATA, FIT, OTHER)[k]
        axis.barh(places, one.shares, height=0.9 * height, color=color, label=_curvature(one))
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.axvline(0.0, color="0.3", lw=0.6)
    axis.set_xlim(-1.05, 1.05)
    axis.set_xlabel("share in the direction")
    axis.legend(
        title="curvature", loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderpad=0
    )


def misfit_figure(misfit: Misfit) -> Figure:
    """Mean of measured minus fitted c2 by lag and by age, with the errors of a right model."""
    fig, (axes,) = panels(WIDE, 2.5, "", columns=2, left=0.8, top=0.12, wspace=0.36)
    for axis, (low, high), means, name in (
        (axes[0], misfit.lags.T, misfit.by_lag, "lag t2 − t1 [s]"),
        (axes[1], misfit.ages.T, misfit.by_age, "age (t1 + t2)/2 [s]"),
    ):
        # As in all other figures: positive where more was measured than fitted.
        mean, error = -means[:, 0], means[:, 1]
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
        axis.set(xlabel=name, ylabel="mean of c2 − fit")
        axis.margins(x=0.05, y=0.15)
    log_scale(axes[0], x=True)
    return fig


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
