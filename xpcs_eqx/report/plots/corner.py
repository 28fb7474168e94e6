"""Corner plots of the covariance of a fit and of the draws of a posterior; its shards."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...bayes import Posterior
from ...fitting import Fit
from ..sections import Drawing, with_error
from .canvas import DATA, FIT, ROUND, WIDE, figure, panels

MOST = 8
# Half the side of a panel and the distance of two of them, in standard deviations.
_HALF, _PITCH = 3.5, 7.6
_BINS = 48
# As wide as the title of a plot [inches].
_NARROW = 2.9
# Probability inside the contours: one and two standard deviations of a Gaussian in the plane.
_INSIDE = (0.393, 0.865)


class Scale(NamedTuple):
    """What an axis is of: a name with its unit, and the centre and the width of its panels."""

    name: str
    value: float
    error: float
    unit: str = ""


def _ticks(one: Scale) -> tuple[list[tuple[float, str]], str]:
    """Places of ticks in standard deviations with their labels, and the label of the axis."""
    low, high = one.value - 2.6 * one.error, one.value + 2.6 * one.error
    ticks = [v for v in MaxNLocator(4, steps=ROUND).tick_values(low, high) if low <= v <= high]
    largest = max(abs(low), abs(high))
    size = math.floor(math.log10(largest)) if largest > 0 else 0
    power = 0 if -3 < size < 5 else size
    step = min(np.diff(ticks)) * 10.0**-power if len(ticks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    labels = [
        ((v - one.value) / one.error, f"{v * 10.0**-power:.{digits}f}".replace("-", "−"))
        for v in ticks
    ]
    unit = " ".join(filter(None, (f"$10^{{{power}}}$" if power else "", one.unit)))
    return labels, f"{one.name}\n[{unit}]" if unit else one.name


def _inch(across: float) -> float:
    """Inches of a unit of the axes, of a figure so many units wide."""
    return min(WIDE, 0.17 * across) / (across + 1.0)


def _beside(scales: Sequence[tuple[list[tuple[float, str]], str]], size: float, n: int) -> float:
    """Room for labels of ticks and names of axes beside the panels, in units of the axes."""
    letters = max((len(shown) for ticks, _ in scales for _, shown in ticks), default=0)
    lines = max((label.count("\n") + 1 for _, label in scales), default=0)
    # Width of a letter and height of a line, of letters of this size [inches].
    room = (0.58 * letters + 1.35 * lines) * size / 72
    return 1.3 + room / _inch(5.8 + (n - 1) * _PITCH + 2 * _HALF)


def corner(
    title: str,
    entries: Sequence[Scale],
    correlation: Float[np.ndarray, "entry entry"],
    diagonal: Callable[[Axes, float, float, int], None],
    pair: Callable[[Axes, float, float, int, int], None],
) -> Figure:
    """Panels for all pairs of entries; `diagonal` and `pair` fill them around their centres.

    All panels are in one set of axes, in units of the standard deviations: a grid of axes takes
    many times longer.
    """
    n = len(entries)
    scales, size = [_ticks(one) for one in entries], 6.5 if n < 6 else 5.5
    # A panel and what stands beside them, in units of the axes and in inches; no narrower than its
    # title is.
    beside, over = _beside(scales, size, n), 2.2
    across = beside + (n - 1) * _PITCH + 2 * _HALF
    inch = _inch(across)
    width = max(inch * (across + 1.0), _NARROW)
    height = inch * (across + over) + 0.3
    fig = figure(width, height, title)
    axis = Axes(fig, (0.0, 0.0, inch * (across + 1.0) / width, 1 - 0.3 / height))
    fig.add_axes(axis)
    axis.set_axis_off()
    far = (n - 1) * _PITCH + _HALF
    axis.set_xlim(-_HALF - beside, far + 1.0)
    axis.set_ylim(-far - beside, _HALF + over)
    small: Any = {"fontsize": size}
    for row, (ticks, label) in enumerate(scales):
        y = -row * _PITCH
        for column in range(row + 1):
            x = column * _PITCH
            axis.plot(
                x + _HALF * np.array([-1, 1, 1, -1, -1]),
                y + _HALF * np.array([-1, -1, 1, 1, -1]),
                color="0.6",
                lw=0.6,
            )
            if row == column:
                diagonal(axis, x, y, row)
                value = with_error(*entries[row][1:3])
                axis.text(x, y + _HALF + 0.3, value, ha="center", va="bottom", **small)
                continue
            pair(axis, x, y, row, column)
            corner = {"ha": "right", "va": "top", "fontsize": 6, "color": "0.3"}
            c = float(correlation[row, column])
            said = f"{c:+.2f}".replace("-", "−")
            axis.text(x + _HALF - 0.2, y + _HALF - 0.2, said, **corner)
        # Below the lowest row each entry has its scale, and on the left all but the first.
        x, bottom = row * _PITCH, -far
        for at, shown in ticks:
            axis.plot([x + at] * 2, [bottom, bottom - 0.4], color="0.3", lw=0.6)
            turned = {"rotation": 45, "ha": "right", "va": "top", "rotation_mode": "anchor"}
            axis.text(x + at, bottom - 0.7, shown, **turned, **small)
            if row:
                axis.plot([-_HALF, -_HALF - 0.4], [y + at] * 2, color="0.3", lw=0.6)
                axis.text(-_HALF - 0.7, y + at, shown, ha="right", va="center", **small)
        axis.text(x, bottom - beside + 0.2, label, ha="center", va="bottom", **small)
        if row:
            named = {"rotation": 90, "ha": "left", "va": "center"}
            axis.text(-_HALF - beside + 0.2, y, label, **named, **small)
    return fig


def fitted_entries(fit: Fit) -> list[int]:
    """Free parameters with a finite error, at most `MOST`; scaling coefficients fill up."""
    errors = fit.uncertainty.errors()
    if not fit.parts:
        order, wanted = list(range(len(fit.names))), MOST
    else:
        index = fit.index
        order = [
            *range(index.physical.start, index.physical.stop),
            *range(index.scaling.start, index.scaling.stop),
        ]
        wanted = max(index.physical.stop - index.physical.start, 2)
    good = [i for i in order if np.isfinite(errors[i]) and errors[i] > 0]
    return good[: min(wanted, MOST)]


def covariance_figure(fit: Fit) -> Figure:
    """Ellipses of one and two quoted standard errors for each pair of free parameters."""
    chosen = fitted_entries(fit)
    values, errors = np.asarray(fit.values), fit.uncertainty.errors()
    correlation = np.clip(fit.uncertainty.correlation()[np.ix_(chosen, chosen)], -1, 1)
    angle, curve = np.linspace(0, 2 * np.pi, 80), np.linspace(-3, 3, 80)

    def diagonal(axis: Axes, x: float, y: float, row: int) -> None:
        bell = -_HALF + 5.4 * np.exp(-0.5 * curve**2)
        axis.fill_between(x + curve, y - _HALF, y + bell, color=DATA, alpha=0.3, lw=0)

    def pair(axis: Axes, x: float, y: float, row: int, column: int) -> None:
        c = float(correlation[row, column])
        across = np.cos(angle)
        along = c * np.cos(angle) + math.sqrt(1 - c * c) * np.sin(angle)
        for factor, alpha in ((2, 0.2), (1, 0.4)):
            axis.fill(x + factor * across, y + factor * along, color=DATA, alpha=alpha, lw=0)

    title = "Ellipses of one and two standard errors"
    units = {row.name: row.unit for row in fit.rows}
    entries = [
        Scale(name, float(values[i]), float(errors[i]), units.get(name, ""))
        for i, name in ((i, fit.names[i]) for i in chosen)
    ]
    return corner(title, entries, correlation, diagonal, pair)


def shown_entries(names: tuple[str, ...], n_free: int) -> list[int]:
    """Positions of at most `MOST` entries: physical parameters, filled up to two with others."""
    return list(range(min(max(n_free, 2), MOST, len(names))))


def density_levels(density: Float[np.ndarray, "x y"]) -> list[float]:
    """Densities whose contours hold the probabilities `_INSIDE`, ascending."""
    ordered = np.sort(density.ravel())[::-1]
    share = np.cumsum(ordered) / ordered.sum()
    found = [float(ordered[np.searchsorted(share, inside)]) for inside in _INSIDE]
    return sorted(found)


def corner_figure(posterior: Posterior) -> Figure:
    """Densities of all pairs of physical parameters, with the fit and its classical errors.

    Contours hold 39 and 86 % of the draws.
    """
    from scipy.ndimage import gaussian_filter

    chosen = shown_entries(posterior.names, posterior.density.parameters.n_free)
    draws = posterior.theta.reshape(-1, posterior.theta.shape[-1])[:, chosen]
    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    scaled = (draws - mean) / sd
    # The fit in standard deviations from the mean; NaN without one.
    known = {name: (value, error) for name, value, error in posterior.fitted}
    fitted = np.array([known.get(posterior.names[i], (np.nan, np.nan)) for i in chosen])
    place, error = (fitted[:, 0] - mean) / sd, fitted[:, 1] / sd
    edges = np.linspace(-_HALF, _HALF, _BINS + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    # Few draws make a histogram of few steps, and smoother contours.
    steps = int(np.clip(2.5 * len(scaled) ** (1 / 3), 10, _BINS))
    coarse = np.linspace(-_HALF, _HALF, steps + 1)
    blur = 1.3 * max(1.0, 4000 / len(scaled)) ** 0.25

    def diagonal(axis: Axes, x: float, y: float, row: int) -> None:
        counts = np.histogram(scaled[:, row], coarse)[0]
        top = y - _HALF + 5.6 * counts / max(counts.max(), 1)
        middles = 0.5 * (coarse[1:] + coarse[:-1])
        axis.fill_between(x + middles, y - _HALF, top, step="mid", color=DATA, alpha=0.35, lw=0)
        if abs(place[row]) < _HALF:
            axis.plot([x + place[row]] * 2, [y - _HALF, y + _HALF], color=FIT, lw=0.9)
            ends = np.clip([place[row] - error[row], place[row] + error[row]], -_HALF, _HALF)
            axis.plot(x + ends, [y - _HALF + 0.35] * 2, color=FIT, lw=1.6)

    def pair(axis: Axes, x: float, y: float, row: int, column: int) -> None:
        counts = np.histogram2d(scaled[:, column], scaled[:, row], (edges, edges))[0]
        smooth = gaussian_filter(counts, blur).T
        levels = [*density_levels(smooth), float(smooth.max()) * 1.001]
        colours = [(0.267, 0.467, 0.667, alpha) for alpha in (0.25, 0.6)]
        axis.contourf(x + centres, y + centres, smooth, levels=levels, colors=colours)
        if abs(place[column]) < _HALF and abs(place[row]) < _HALF:
            axis.plot(x + place[column], y + place[row], "+", color=FIT, ms=6, mew=1.0)

    title = "39 and 86 % of the draws; red: fit"
    names, units = [posterior.names[i] for i in chosen], posterior.units
    entries = [
        Scale(name, float(mean[k]), float(sd[k]), units[name]) for k, name in enumerate(names)
    ]
    correlation = np.atleast_2d(np.corrcoef(scaled, rowvar=False))
    return corner(title, entries, correlation, diagonal, pair)


def shards_figure(posterior: Posterior) -> Figure:
    """Mean and standard deviation of each shard, and of the combined draws as a band.

    Shards that were set aside are grey.
    """
    found = posterior.shards
    assert found is not None
    chosen = shown_entries(posterior.names, posterior.density.parameters.n_free)
    theta = posterior.shard_draws()
    mean, sd = theta.mean(axis=1), theta.std(axis=1)
    numbers = np.array(found.draws.numbers)
    used = np.isin(numbers, found.combined.used)
    n_shards = found.division.n_shards
    title = f"{n_shards} shards, {used.sum()} of them used: mean ± sd"
    fig, axes = panels(WIDE, 0.8 + 1.25 * len(chosen), title, len(chosen), left=1.05)
    for row, i in enumerate(chosen):
        axis = axes[row][0]
        whole = posterior.theta[..., i]
        middle, width = float(whole.mean()), float(whole.std())
        axis.axhspan(middle - width, middle + width, color=FIT, alpha=0.25, lw=0)
        axis.axhline(middle, color=FIT, lw=0.9, label="combined ± sd")
        for which, colour, label in ((used, DATA, "shard"), (~used, "0.6", "set aside")):
            if which.any():
                look = {"fmt": "o", "ms": 2.5, "lw": 0.8, "color": colour, "label": label}
                axis.errorbar(numbers[which], mean[which, i], sd[which, i], **look)
        name, unit = posterior.names[i], posterior.units[posterior.names[i]]
        axis.set_ylabel(f"{name}\n[{unit}]" if unit else name)
        axis.set_xlim(-0.5, n_shards - 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if row < len(chosen) - 1:
            axis.tick_params(labelbottom=False)
        else:
            axis.set_xlabel("shard")
    axes[0][0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
    return fig


def posterior_drawings(posterior: Posterior) -> tuple[Drawing, ...]:
    """Plots of a posterior that ArviZ does not have."""
    shards = Drawing(
        "shards",
        lambda: shards_figure(posterior),
        "Each parameter as the shards have it, with the result of all of them as a band: points "
        "should scatter about the band by their own bars.",
    )
    corner = Drawing(
        "corner",
        lambda: corner_figure(posterior),
        "Draws of the parameters and of all pairs of them; in red the least-squares fit, with bars "
        "of its error as of independent noise. Both agree where the posterior is nearly Gaussian "
        "and no prior decides.",
    )
    return (corner,) if posterior.shards is None else (corner, shards)
