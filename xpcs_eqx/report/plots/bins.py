"""Bins of age and lag: data, fit and residual side by side, and c2 against lag."""

import numpy as np
from matplotlib.figure import Figure

from ..maps import chosen_angles
from ..points import FittedBins
from .canvas import WIDE, degrees, log_scale, panels
from .means import AGES, age_colours, grid_of, name_outside, shown_panels, smooth
from .surfaces import ROWS, limits


def _axis(bins: FittedBins, name: str) -> np.ndarray:
    """Mean age or lag of each bin of it, between its neighbours where there is none."""
    numbers = getattr(bins, f"{name}_bin")
    count = np.bincount(numbers)
    there = np.flatnonzero(count)
    mean = np.bincount(numbers, getattr(bins, name))[there] / count[there]
    return np.interp(np.arange(count.size), there, mean)


def bin_figure(bins: FittedBins, phi: np.ndarray) -> Figure:
    """Measured, fit and difference, a row an angle, over lag and age; of at most four angles."""
    angles = chosen_angles(len(phi), ROWS)
    fig, axes = panels(
        WIDE, 0.5 + 1.8 * len(angles), "", len(angles), 3, left=0.55, right=0.55, top=0.25,
        hspace=0.35, wspace=0.5,
    )  # fmt: skip
    age, lag = _axis(bins, "age"), _axis(bins, "lag")
    low, high = limits(bins.c2)
    _, spread = limits(np.abs(bins.residual))
    cases = (
        ("measured", "c2", "c2", "viridis", low, high),
        ("fit", "fitted", "c2", "viridis", low, high),
        ("measured − fit", "residual", "c2 − fit", "RdBu_r", -spread, spread),
    )
    for row, a in zip(axes, angles, strict=True):
        for axis, (title, name, scale, colours, bottom, top) in zip(row, cases, strict=True):
            image = axis.pcolormesh(
                lag, age, bins.grid(name, a), cmap=colours, vmin=bottom, vmax=top,
                shading="nearest", rasterized=True,
            )  # fmt: skip
            axis.set_title(f"{title}, {degrees(phi[a])}", loc="left", fontsize=7.5)
            log_scale(axis, x=True)
            fig.colorbar(image, ax=axis, label=scale)
        row[0].set_ylabel("age [s]")
    for axis in axes[-1]:
        axis.set_xlabel("lag [s]")
    return fig


def bin_lag_figure(bins: FittedBins, phi: np.ndarray) -> Figure:
    """c2 against lag at several ages, points with the fit as a line; at most six angles."""
    angles = chosen_angles(len(phi))
    rows, columns = grid_of(len(angles))
    fig, axes = panels(
        WIDE if columns > 1 else 4.2, 0.5 + 2.05 * rows, "", rows, columns,
        left=0.55, top=0.25, bottom=0.42, hspace=0.34, wspace=0.24,
    )  # fmt: skip
    shown = shown_panels(axes, len(angles))
    ages = chosen_angles(int(bins.age_bin.max()) + 1, AGES)
    colours = age_colours(len(ages))
    for axis, a in zip(shown, angles, strict=True):
        for age, colour in zip(ages, colours, strict=True):
            mine = np.flatnonzero((bins.angle == a) & (bins.age_bin == age))
            if not mine.size:
                continue
            mine = mine[np.argsort(bins.lag[mine])]
            label = f"age {bins.age[mine].mean():.3g} s"
            axis.plot(bins.lag[mine], bins.c2[mine], "o", ms=2.6, mec="none", color=colour)
            curve = smooth(bins.lag[mine], bins.fitted[mine])
            axis.plot(*curve, color=colour, lw=1.0, label=label)
        log_scale(axis, x=True)
        axis.set_title(degrees(phi[a]), loc="left")
    name_outside(shown, columns, "lag [s]", "mean c2")
    shown[0].legend()
    return fig
