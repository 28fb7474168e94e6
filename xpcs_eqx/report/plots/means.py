"""c2, g2 and residuals over age and lag: means over many pairs in place of single ones."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...fitting import AgedG2
from ..maps import FittedMaps, chosen_angles
from .canvas import WIDE, degrees, figure, log_scale, panels

# Steps of lag in a decade, and steps of age, of points and of a map of residuals.
_PER_DECADE, AGES = 8, 4
_GRID = 16


class Means(NamedTuple):
    """Means over the pairs of a step of age and a step of lag, NaN where there is none.

    - `age`, `lag`: limits of the steps [s]; `middle`: mean lag of the pairs [s].
    - `c2`, `fitted`: measured and fitted; `pairs`: how many there are.
    """

    age: Float[np.ndarray, "limit"]
    lag: Float[np.ndarray, "limit"]
    middle: Float[np.ndarray, "age lag"]
    c2: Float[np.ndarray, "age lag"]
    fitted: Float[np.ndarray, "age lag"]
    pairs: Int[np.ndarray, "age lag"]


def lag_limits(t: Float[np.ndarray, "frame"], shortest: float) -> Float[np.ndarray, "limit"]:
    """Limits of steps of lag [s] that grow with it, from the shortest, none without a frame."""
    longest = float(t[-1] - t[0])
    decades = np.log10(max(longest / shortest, 1.0))
    steps = max(1, int(np.ceil(_PER_DECADE * decades)))
    edges = np.geomspace(0.75 * shortest, 1.0001 * longest, steps + 1)
    # The first lags are few: a step that holds none of them would be empty at every age.
    inside = np.searchsorted(edges, shortest * np.arange(1, 40), side="right") - 1
    kept = [k for k in range(steps) if edges[k] > 20 * shortest or k in inside]
    return np.append(edges[kept], edges[-1])


def means(
    maps: FittedMaps,
    angle: int,
    ages: Float[np.ndarray, "limit"],
    lags: Float[np.ndarray, "limit"],
    middle: FittedMaps | None = None,
) -> Means:
    """Means of one angle over steps of age and lag.

    `middle`: neighbouring frames, where some are left out of `maps`; their short lags are counted
    as well.
    """
    shape = (len(ages) - 1, len(lags) - 1)
    count, lag, c2, fitted = (np.zeros(np.prod(shape)) for _ in range(4))
    for one in (maps,) if middle is None or maps.step == 1 else (maps, middle):
        first, second = np.nonzero(np.triu(one.used[angle], 1))
        apart = one.t[second] - one.t[first]
        row = np.searchsorted(ages, 0.5 * (one.t[first] + one.t[second]), side="right") - 1
        column = np.searchsorted(lags, apart, side="right") - 1
        good = (column >= 0) & (column < shape[1])
        cell = np.clip(row, 0, shape[0] - 1)[good] * shape[1] + column[good]
        for total, values in (
            (count, np.ones(apart.size)),
            (lag, apart),
            (c2, one.c2[angle][first, second]),
            (fitted, one.fitted[angle][first, second]),
        ):
            total += np.bincount(cell, values[good], total.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        lag, c2, fitted = ((total / count).reshape(shape) for total in (lag, c2, fitted))
    return Means(ages, lags, lag, c2, fitted, count.reshape(shape).astype(int))


def mean_by_lag(
    c2: Float[np.ndarray, "frame frame"], t: Float[np.ndarray, "frame"]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean lag [s] and mean of what is not NaN in steps of lag that grow with it, over all ages."""
    first, second = np.nonzero(np.triu(np.isfinite(c2), 1))
    apart, limits = t[second] - t[first], lag_limits(t, float(np.min(np.diff(t))))
    step = np.clip(np.searchsorted(limits, apart, side="right") - 1, 0, len(limits) - 2)
    count = np.bincount(step, minlength=len(limits) - 1)
    sums = [np.bincount(step, one, count.size) for one in (apart, c2[first, second])]
    known = count > 0
    lag, mean = (one[known] / count[known] for one in sums)
    return lag, mean


def _shortest(maps: FittedMaps, middle: FittedMaps | None) -> float:
    times = maps.t if middle is None or maps.step == 1 else middle.t
    return float(np.min(np.diff(times)))


def smooth(
    lag: Float[np.ndarray, "lag"], fitted: Float[np.ndarray, "lag"]
) -> tuple[np.ndarray, np.ndarray]:
    """Fitted means as a smooth curve over the logarithm of lag, which has no new extrema."""
    from scipy.interpolate import PchipInterpolator

    if lag.size < 3:
        return lag, fitted
    fine = np.geomspace(lag[0], lag[-1], 200)
    return fine, PchipInterpolator(np.log(lag), fitted)(np.log(fine))


def age_colours(many: int) -> list:
    """Colours that go with age, for the colour-blind as well: dark is young."""
    import matplotlib as mpl

    return [mpl.colormaps["viridis"](x) for x in np.linspace(0.0, 0.82, max(many, 1))]


def grid_of(many: int, columns: int = 3) -> tuple[int, int]:
    """Rows and columns for some panels."""
    across = min(columns, max(many, 1))
    return -(-many // across) or 1, across


def shown_panels(axes: Sequence[Sequence[Axes]], many: int) -> list[Axes]:
    """The first panels of a grid as they are read; those behind them are left empty."""
    flat = [axis for row in axes for axis in row]
    for axis in flat[many:]:
        axis.set_axis_off()
    return flat[:many]


def name_outside(shown: Sequence[Axes], columns: int, across: str, up: str) -> None:
    """Names of the axes below the lowest panel of each column and left of each row."""
    for number, axis in enumerate(shown):
        if number >= len(shown) - columns:
            axis.set_xlabel(across)
        if number % columns == 0:
            axis.set_ylabel(up)


def lag_figure(maps: FittedMaps, middle: FittedMaps | None = None) -> Figure:
    """Mean c2 against lag at several ages, points measured, lines fitted; at most six angles.

    Pairs are put together by their age (t1 + t2)/2 in equal steps and by their lag in steps that
    grow with it; both means are over the same pairs. `middle` as in `means`.
    """
    angles = chosen_angles(len(maps.phi))
    rows, columns = grid_of(len(angles))
    # As wide as its panels need, for a single one the column of a journal.
    width = WIDE if columns > 1 else 4.2
    fig, axes = panels(
        width, 0.75 + 2.05 * rows, "", rows, columns,
        left=0.62, top=0.56 if columns > 1 else 0.7, bottom=0.42, hspace=0.34, wspace=0.08,
    )  # fmt: skip
    ages = np.linspace(maps.t[0], maps.t[-1], AGES + 1)
    lags = lag_limits(maps.t, _shortest(maps, middle))
    colours = age_colours(AGES)
    shown = shown_panels(axes, len(angles))
    for axis in shown[1:]:
        # Before anything is drawn, so that the common limits hold all of it.
        axis.sharey(shown[0])
    for number, (axis, a) in enumerate(zip(shown, angles, strict=True)):
        one = means(maps, a, ages, lags, middle)
        for row, colour in enumerate(colours):
            known = one.pairs[row] > 0
            axis.plot(one.middle[row][known], one.c2[row][known], "o", ms=2.6, mec="none", c=colour)
            curve = smooth(one.middle[row][known], one.fitted[row][known])
            axis.plot(*curve, color=colour, lw=1.0)
        log_scale(axis, x=True)
        axis.set_title(degrees(maps.phi[a]), loc="left")
        axis.tick_params(labelleft=number % columns == 0)
    name_outside(shown, columns, "lag t2 − t1 [s]", "mean c2")
    handles = [Line2D([], [], color=c, marker="o", ms=3, lw=1.0) for c in colours]
    labels = [f"{a:.3g} … {b:.3g} s" for a, b in pairwise(ages)]
    fig.legend(
        handles, labels, title="age (t1 + t2)/2", ncols=AGES if columns > 1 else 2,
        loc="upper left", bbox_to_anchor=(0.0, 1.0), fontsize=6.5, title_fontsize=6.5,
        alignment="left", borderaxespad=0.2, columnspacing=1.2,
    )  # fmt: skip
    return fig


def residual_map_figure(maps: FittedMaps, middle: FittedMaps | None = None) -> Figure:
    """Mean residual, measured minus fitted c2, by lag and age; at most six angles."""
    angles = chosen_angles(len(maps.phi))
    rows, columns = grid_of(len(angles))
    ages = np.linspace(maps.t[0], maps.t[-1], min(_GRID, max(2, len(maps.t) // 3)) + 1)
    lags = lag_limits(maps.t, _shortest(maps, middle))
    found = [means(maps, a, ages, lags, middle) for a in angles]
    left = [one.c2 - one.fitted for one in found]
    # Corners hold few pairs, which would set the scale.
    sizes = [np.abs(r[n > 3]) for r, one in zip(left, found, strict=True) for n in [one.pairs]]
    known = np.concatenate([one[np.isfinite(one)] for one in sizes])
    most = float(np.percentile(known, 98)) if known.size else 1.0
    width = WIDE if columns > 1 else 4.2
    height = 0.72 + 1.75 * rows
    fig = figure(width, height)
    cells = fig.add_gridspec(
        rows, columns, left=0.68 / width, right=1 - 0.85 / width, bottom=0.42 / height,
        top=1 - 0.28 / height, hspace=0.34, wspace=0.12,
    )  # fmt: skip
    for number, (a, one, rest) in enumerate(zip(angles, found, left, strict=True)):
        axis = fig.add_subplot(cells[number // columns, number % columns])
        axis.pcolormesh(
            one.lag, one.age, rest, cmap="RdBu_r", vmin=-most or -1.0, vmax=most or 1.0,
            rasterized=True,
        )  # fmt: skip
        log_scale(axis, x=True)
        axis.set_title(degrees(maps.phi[a]), loc="left")
        axis.tick_params(labelleft=number % columns == 0)
    name_outside(fig.axes, columns, "lag t2 − t1 [s]", "age (t1 + t2)/2 [s]")
    bar = fig.add_axes((1 - 0.75 / width, 0.42 / height, 0.1 / width, 1 - 0.7 / height))
    fig.colorbar(fig.axes[0].collections[0], cax=bar, label="mean of c2 − fit")
    return fig


def g2_figure(curves: Sequence[AgedG2]) -> Figure:
    """A panel for each angle, a colour for each age: points, their curve, and the whole fit."""
    angles = list(dict.fromkeys(one.angle for one in curves))
    ages = list(dict.fromkeys(one.between for one in curves))
    colours = dict(zip(ages, age_colours(len(ages)), strict=True))
    rows, columns = grid_of(len(angles), 2)
    width = WIDE if columns > 1 else 4.2
    labels = -(-len(ages) // (4 if columns > 1 else 2))
    fig, axes = panels(
        width, 0.65 + 0.16 * labels + 2.05 * rows, "", rows, columns,
        left=0.62, top=0.42 + 0.16 * labels, bottom=0.42, hspace=0.34, wspace=0.25,
    )  # fmt: skip
    shown = shown_panels(axes, len(angles))
    for axis, angle in zip(shown, angles, strict=True):
        mine = [one for one in curves if one.angle == angle]
        for one in mine:
            colour = colours[one.between]
            axis.errorbar(one.lag, one.g2, one.error, fmt="o", ms=2.6, lw=0.7, color=colour)
            axis.plot(*smooth(one.lag, one.curve), color=colour, lw=1.0)
            if np.all(np.isfinite(one.beside)):
                axis.plot(*smooth(one.lag, one.beside), color=colour, lw=1.0, ls="--")
        log_scale(axis, x=True)
        axis.set_title(degrees(mine[0].phi), loc="left")
    name_outside(shown, columns, "lag t2 − t1 [s]", "g2")
    handles = [Line2D([], [], color=colours[one], marker="o", ms=3, lw=1.0) for one in ages]
    fig.legend(
        handles, [f"{low:.3g} … {high:.3g} s" for low, high in ages], title="age (t1 + t2)/2",
        ncols=4 if columns > 1 else 2, loc="upper left", bbox_to_anchor=(0.0, 1.0),
        fontsize=6.5, title_fontsize=6.5, alignment="left", borderaxespad=0.2, columnspacing=1.2,
    )  # fmt: skip
    return fig
