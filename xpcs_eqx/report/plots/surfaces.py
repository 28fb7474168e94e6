"""Maps and cuts: data, fit and residual side by side, and c2 against lag."""

import numpy as np
from matplotlib.figure import Figure

from ..maps import FittedMaps, chosen_angles
from .canvas import figure, grid, log_scale

# A panel has about this many pixels along a side; a larger map is averaged in squares.
_PIXELS = 256


def _small(stack: np.ndarray) -> np.ndarray:
    """A map of at most `_PIXELS` a side, by averaging what is not NaN over squares."""
    n = stack.shape[0]
    step = -(-n // _PIXELS)
    if step == 1:
        return stack
    side = n // step
    cut = stack[: side * step, : side * step].reshape(side, step, side, step)
    known = np.isfinite(cut)
    count = known.sum(axis=(1, 3))
    total = np.where(known, cut, 0).sum(axis=(1, 3))
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
    """Experiment, fit and residual for at most six angles, one row an angle.

    Experiment and fit share one colour scale over all angles, residuals another one around zero.
    """
    angles = chosen_angles(len(maps.phi))
    shown = _shown(maps, angles)
    rows = len(angles)
    height = 0.85 + 2.35 * rows
    fig = figure(8.0, height, f"c2(t1, t2): {shown}q = {maps.q:.4g} 1/Å")
    cells = fig.add_gridspec(
        rows,
        6,
        left=0.08,
        right=0.925,
        bottom=0.42 / height,
        top=1 - 0.6 / height,
        wspace=0.1,
        hspace=0.16,
        width_ratios=(1, 1, 0.05, 0.22, 1, 0.05),
    )
    # No pair is on the diagonal; left in the fit it would look like a difference.
    diagonal = np.eye(len(maps.t), dtype=bool)
    measured = {a: _small(np.where(maps.used[a], maps.c2[a], np.nan)) for a in angles}
    fitted = {a: _small(np.where(diagonal, np.nan, maps.fitted[a])) for a in angles}
    residual = {a: _small(maps.residual[a]) for a in angles}
    low, high = limits(np.stack(list(measured.values())))
    _, spread = limits(np.abs(np.stack(list(residual.values()))))
    extent = (maps.t[0], maps.t[-1], maps.t[0], maps.t[-1])
    for row, a in enumerate(angles):
        panels = (
            (0, "experiment", measured[a], "viridis", low, high),
            (1, "fit", fitted[a], "viridis", low, high),
            (4, "experiment − fit", residual[a], "RdBu_r", -spread, spread),
        )
        for column, name, values, colours, bottom, top in panels:
            axis = fig.add_subplot(cells[row, column])
            image = axis.imshow(
                values, origin="lower", extent=extent, cmap=colours, vmin=bottom, vmax=top
            )
            axis.set_title(f"{name}, φ = {maps.phi[a]:.4g}°")
            axis.spines[:].set_visible(False)
            axis.set_xlabel("t1 [s]")
            axis.set_ylabel("t2 [s]")
            # Ticks are what takes time to draw: only where they are read.
            axis.xaxis.set_visible(row == rows - 1)
            axis.yaxis.set_visible(column == 0)
            if row == 0 and column > 0:
                # One scale for all rows: the bar stands beside the first of them.
                fig.colorbar(image, cax=fig.add_subplot(cells[row, column + 1]))
    return fig


def _cut(values: np.ndarray, start: int, width: int) -> np.ndarray:
    """c2 against lag at the frames from `start` on, averaged over `width` neighbouring ages."""
    n = values.shape[0]
    lags = n - start - width
    rows = np.stack([values[i, i + 1 : i + 1 + lags] for i in range(start, start + width)])
    known = np.isfinite(rows)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, rows, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def lag_figure(maps: FittedMaps) -> Figure:
    """c2 against lag at several ages t1, points with the fit as a line; at most six angles."""
    angles = chosen_angles(len(maps.phi))
    n = len(maps.t)
    width = max(1, n // 25)
    ages = sorted({min(int(f * n), n - width - 2) for f in (0.0, 0.2, 0.45, 0.7)})
    ages = [age for age in ages if age >= 0]
    columns = min(3, len(angles))
    rows = -(-len(angles) // columns)
    height = 0.7 + 2.3 * rows
    fig = figure(
        1.2 + 2.6 * columns,
        height,
        f"c2 against lag: {_shown(maps, angles)}points measured, lines fitted",
    )
    axes = grid(
        fig,
        rows,
        columns,
        left=0.62 / (1.2 + 2.6 * columns),
        right=0.985,
        bottom=0.45 / height,
        top=1 - 0.6 / height,
        wspace=0.25,
        hspace=0.45,
    )
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(angles) :]:
        axis.set_axis_off()
    for axis, a in zip(flat, angles, strict=False):
        measured = np.where(maps.used[a], maps.c2[a], np.nan)
        for number, start in enumerate(ages):
            colour = f"C{number}"
            data, fit = _cut(measured, start, width), _cut(maps.fitted[a], start, width)
            lag = maps.t[start + 1 : start + 1 + len(data)] - maps.t[start]
            thin = np.unique(np.geomspace(1, len(data), 60).astype(int) - 1)
            age = maps.t[start : start + width].mean()
            axis.plot(lag[thin], data[thin], ".", ms=3, color=colour, alpha=0.6)
            axis.plot(lag, fit, color=colour, label=f"t1 = {age:.3g} s")
        log_scale(axis, x=True)
        axis.set_title(f"φ = {maps.phi[a]:.4g}°")
        axis.set_xlabel("lag [s]")
    flat[0].set_ylabel("c2")
    flat[0].legend(title=f"mean of {width} frames" if width > 1 else None)
    return fig
