"""Maps: data, fit and residual side by side, all angles on a sheet, and what is left over."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..maps import FittedMaps, chosen_angles
from .canvas import DATA, FIT, ROUND, WIDE, degrees, few_ticks, figure, log_scale, panels
from .means import grid_of

# Frames and shifts of an autocorrelation.
_FRAMES = 400
_SHIFTS = 25
# A panel has about this many pixels along a side; a larger map is averaged in squares.
_PIXELS = 400
# Rows of maps that a page holds, and columns of a contact sheet.
ROWS, _COLUMNS = 4, 6


def small(stack: np.ndarray, pixels: int = _PIXELS) -> np.ndarray:
    """A map of at most some pixels a side, by averaging what is not NaN over squares."""
    n = stack.shape[0]
    step = -(-n // pixels)
    if step == 1:
        return stack
    side = n // step
    cut = stack[: side * step, : side * step].reshape(side, step, side, step)
    return mean_of(cut, (1, 3))


def mean_of(values: np.ndarray, axis: int | tuple[int, ...] = 0) -> np.ndarray:
    """The mean of what is not NaN along some axes; NaN where nothing is."""
    known = np.isfinite(values)
    count, total = known.sum(axis), np.where(known, values, 0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def limits(values: np.ndarray) -> tuple[float, float]:
    """0.5 and 99.5 percentile of what is not NaN, from at most some 2e5 values."""
    flat = values[np.isfinite(values)]
    flat = flat[:: max(1, flat.size // 200_000)]
    if flat.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(flat, [0.5, 99.5]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _shown(maps: FittedMaps, angles: list[int]) -> str:
    """How many angles and frames a figure shows when it does not show all."""
    some = f"{len(angles)} of {maps.n_angles} angles, " if len(angles) < maps.n_angles else ""
    return some + (f"every {ordinal(maps.step)} frame, " if maps.step > 1 else "")


def ordinal(number: int) -> str:
    """A number as it counts: 2nd, 3rd, 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'}"


def map_figure(maps: FittedMaps) -> Figure:
    """Experiment, fit and residual, one row an angle: of all where they are few, else of three.

    Experiment and fit share one colour scale over all angles, residuals another one around zero.
    """
    few = len(maps.phi) <= ROWS and maps.n_angles == len(maps.phi)
    angles = chosen_angles(len(maps.phi), ROWS if few else 3)
    rows, width = len(angles), WIDE
    height = 0.85 + 1.95 * rows
    fig = figure(width, height, f"c2(t1, t2): {_shown(maps, angles)}".rstrip(", :"))
    cells = fig.add_gridspec(
        rows,
        6,
        left=0.62 / width,
        right=1 - 0.65 / width,
        bottom=0.42 / height,
        top=1 - 0.45 / height,
        wspace=0.1,
        hspace=0.2,
        width_ratios=(1, 1, 0.05, 0.36, 1, 0.05),
    )
    # No pair is on the diagonal; left in the fit it would look like a difference.
    diagonal = np.eye(len(maps.t), dtype=bool)
    measured = {a: small(np.where(maps.used[a], maps.c2[a], np.nan)) for a in angles}
    fitted = {a: small(np.where(diagonal, np.nan, maps.fitted[a])) for a in angles}
    residual = {a: small(maps.residual[a]) for a in angles}
    low, high = limits(np.stack(list(measured.values())))
    _, spread = limits(np.abs(np.stack(list(residual.values()))))
    extent = (maps.t[0], maps.t[-1], maps.t[0], maps.t[-1])
    for row, a in enumerate(angles):
        cases = (
            (0, "measured", "c2", measured[a], "viridis", low, high),
            (1, "fit", "c2", fitted[a], "viridis", low, high),
            (4, "measured − fit", "c2 − fit", residual[a], "RdBu_r", -spread, spread),
        )
        for column, name, scale, values, colours, bottom, top in cases:
            axis = fig.add_subplot(cells[row, column])
            image = axis.imshow(
                values, origin="lower", extent=extent, cmap=colours, vmin=bottom, vmax=top
            )
            axis.set_title(f"{name}, {degrees(maps.phi[a])}", loc="left", fontsize=7.5)
            axis.spines[:].set_visible(False)
            axis.set(xlabel="t1 [s]", ylabel="t2 [s]")
            few_ticks(axis, 4, 4)
            # The last label would meet the first one of the next panel.
            axis.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND, prune="upper"))
            # Ticks are what takes time to draw: only where they are read.
            axis.xaxis.set_visible(row == rows - 1)
            axis.yaxis.set_visible(column == 0)
            if row == 0 and column > 0:
                # One scale for all rows: the bar stands beside the first of them.
                fig.colorbar(image, cax=fig.add_subplot(cells[row, column + 1]), label=scale)
    return fig


def sheet_figure(maps: Sequence[tuple[float, np.ndarray, np.ndarray]], n_angles: int) -> Figure:
    """A small panel for each angle: measured below the diagonal, the fit above it.

    `maps`: azimuth [deg], measured and fitted c2 of each; `n_angles`: how many there are.
    """
    rows, columns = grid_of(len(maps), _COLUMNS)
    width, side = WIDE, (WIDE - 0.75) / _COLUMNS
    height = 0.45 + (side + 0.16) * rows
    some = "" if len(maps) == n_angles else f"{len(maps)} of {n_angles} angles; "
    title = f"{some}c2(t1, t2), measured below the diagonal, fit above it"
    fig = figure(width, height, title)
    low, high = limits(np.stack([one for _, one, _ in maps]))
    for number, (phi, measured, fitted) in enumerate(maps):
        row, column = divmod(number, columns)
        at = 1 - (0.3 + (side + 0.16) * row + 0.16 + side) / height
        place = ((0.05 + side * column) / width, at, 0.93 * side / width, 0.93 * side / height)
        axis = fig.add_axes(place)
        above = np.tri(len(measured), dtype=bool)
        axis.imshow(
            np.where(above, fitted, measured), origin="lower", cmap="viridis", vmin=low, vmax=high
        )
        axis.plot([-0.5, len(measured) - 0.5], [-0.5, len(measured) - 0.5], color="w", lw=0.5)
        axis.set_axis_off()
        axis.set_title(degrees(phi), fontsize=7.0, pad=2)
    bar = fig.add_axes((1 - 0.6 / width, 1 - (0.5 + side) / height, 0.1 / width, side / height))
    fig.colorbar(fig.axes[0].images[0], cax=bar, label="c2")
    return fig


def autocorrelation(
    residual: Float[np.ndarray, "angle frame frame"], shifts: int = _SHIFTS
) -> tuple[Float[np.ndarray, "shift"], Float[np.ndarray, "shift"]]:
    """Correlation of residuals whose pairs share a frame, and of pairs shifted along their lag.

    The first moves t2 alone by 0, 1, … frames, the second moves t1 and t2 together. NaN entries
    are left out.
    """
    n = residual.shape[1]
    shifts = min(shifts, n - 2)
    upper = np.triu(np.ones((n, n), bool), 1)
    r = np.where(upper & np.isfinite(residual), residual, 0).astype(float)
    known = (upper & np.isfinite(residual)).astype(float)
    variance = (r * r).sum() / max(known.sum(), 1.0)

    def correlation(k: int, rows: slice, moved: slice) -> float:
        """Of pairs, and of those whose t2 is `k` frames later and whose t1 is `moved`."""
        here, there = np.s_[:, rows, : n - k], np.s_[:, moved, k:]
        pairs, total = (known[here] * known[there]).sum(), (r[here] * r[there]).sum()
        return total / max(pairs, 1.0) / variance if variance > 0 else 0.0

    every = slice(None)
    sharing = [correlation(k, every, every) for k in range(shifts)]
    along = [correlation(k, slice(n - k), slice(k, None)) for k in range(shifts)]
    return np.asarray(sharing), np.asarray(along)


def _weighted(maps: FittedMaps, angle: int, frames: slice = slice(None)) -> np.ndarray:
    """Residuals times root weights of some frames of one angle, NaN where no pair counted."""
    residual = maps.residual[angle, frames, frames]
    weights = maps.root_weights
    return residual if weights is None else residual * weights[angle, frames, frames]


def _sampled(maps: FittedMaps) -> Float[np.ndarray, "pair"]:
    """At most some 400 000 weighted residuals, evenly drawn; no more than a map is made of them."""
    step = max(1, int(np.count_nonzero(maps.used)) // 2 // 400_000)
    upper = np.triu(np.ones(maps.used.shape[1:], bool), 1)
    parts = []
    for angle in range(len(maps.residual)):
        flat = _weighted(maps, angle)[upper]
        parts.append(flat[np.isfinite(flat)][::step])
    return np.concatenate(parts)


def residual_figure(maps: FittedMaps, middle: FittedMaps | None = None) -> Figure:
    """Histogram in units of the standard deviation with the normal curve, and autocorrelation.

    Of the autocorrelation at most six angles and the middle 400 frames are used, or those of
    `middle` where frames are left out of `maps`.
    """
    fig, ((left, right),) = panels(WIDE, 2.6, "", columns=2, left=0.7, top=0.15, wspace=0.27)
    flat = _sampled(maps)
    spread = float(flat.std()) or 1.0
    edges = np.linspace(-5, 5, 81)
    counts, _ = np.histogram(np.clip(flat / spread, -5, 5), edges)
    density = counts / max(counts.sum(), 1) / np.diff(edges)
    left.stairs(np.maximum(density, 1e-12), edges, fill=True, color=DATA, alpha=0.5)
    x = np.linspace(-5, 5, 200)
    left.plot(x, np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi), color=FIT, label="normal")
    left.set_ylim(1e-5, 1)
    log_scale(left, y=True)
    unit = "" if maps.root_weights is None else ", weighted"
    left.set_xlabel(f"residual of c2{unit}, in its standard deviation {spread:.3g}")
    left.set_ylabel("probability density")
    left.legend()
    near = maps if middle is None else middle
    n = near.residual.shape[1]
    margin = max(0, (n - _FRAMES) // 2)
    frames = slice(margin, n - margin)
    chosen = [_weighted(near, angle, frames) for angle in chosen_angles(len(near.residual))]
    sharing, along = autocorrelation(np.stack(chosen))
    shift = np.arange(len(sharing))
    right.axhline(0, color="0.7", lw=0.8)
    right.plot(shift, sharing, ".-", color=DATA, label="pairs that share a frame")
    right.plot(shift, along, ".-", color=FIT, label="pairs of one lag")
    right.set(xlabel="shift [frames]", ylabel="correlation of residuals")
    right.legend()
    return fig
