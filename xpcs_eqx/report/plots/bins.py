"""Bins of age and lag: data, fit and residual side by side, and c2 against lag."""

import numpy as np
from matplotlib.figure import Figure

from ..bins import FittedBins
from ..maps import chosen_angles
from .canvas import log_scale, panels
from .surfaces import limits


def _axis(bins: FittedBins, name: str) -> np.ndarray:
    """Mean age or lag of each bin of it, between its neighbours where there is none."""
    numbers = getattr(bins, f"{name}_bin")
    count = np.bincount(numbers)
    there = np.flatnonzero(count)
    mean = np.bincount(numbers, getattr(bins, name))[there] / count[there]
    return np.interp(np.arange(count.size), there, mean)


def bin_figure(bins: FittedBins, phi: np.ndarray) -> Figure:
    """Experiment, fit and residual for at most six angles, a row an angle, over lag and age."""
    angles = chosen_angles(len(phi))
    fig, axes = panels(
        8.0, 0.8 + 2.0 * len(angles), "c2 by age and lag: means over bins", len(angles), 3,
        hspace=0.3, top=0.6, right=0.93,
    )  # fmt: skip
    age, lag = _axis(bins, "age"), _axis(bins, "lag")
    low, high = limits(bins.c2)
    _, spread = limits(np.abs(bins.residual))
    cases = (
        ("experiment", "c2", "viridis", low, high),
        ("fit", "fitted", "viridis", low, high),
        ("experiment − fit", "residual", "RdBu_r", -spread, spread),
    )
    for row, a in zip(axes, angles, strict=True):
        for axis, (title, name, colours, bottom, top) in zip(row, cases, strict=True):
            image = axis.pcolormesh(
                lag, age, bins.grid(name, a), cmap=colours, vmin=bottom, vmax=top,
                shading="nearest", rasterized=True,
            )  # fmt: skip
            axis.set_title(f"{title}, φ = {phi[a]:.4g}°")
            log_scale(axis, x=True)
            fig.colorbar(image, ax=axis)
        row[0].set_ylabel("age [s]")
    for axis in axes[-1]:
        axis.set_xlabel("lag [s]")
    return fig


def bin_lag_figure(bins: FittedBins, phi: np.ndarray) -> Figure:
    """c2 against lag at several ages, points with the fit as a line; at most six angles."""
    angles = chosen_angles(len(phi))
    columns = min(3, len(angles))
    rows = -(-len(angles) // columns)
    fig, axes = panels(
        1.2 + 2.6 * columns, 0.7 + 2.3 * rows, "c2 against lag: points measured, lines fitted",
        rows, columns, left=0.62, top=0.6, hspace=0.45,
    )  # fmt: skip
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(angles) :]:
        axis.set_axis_off()
    ages = chosen_angles(int(bins.age_bin.max()) + 1, 4)
    for axis, a in zip(flat, angles, strict=False):
        for number, age in enumerate(ages):
            mine = np.flatnonzero((bins.angle == a) & (bins.age_bin == age))
            if not mine.size:
                continue
            mine = mine[np.argsort(bins.lag[mine])]
            colour, label = f"C{number}", f"age {bins.age[mine].mean():.3g} s"
            axis.plot(bins.lag[mine], bins.c2[mine], ".", ms=3, color=colour, alpha=0.6)
            axis.plot(bins.lag[mine], bins.fitted[mine], color=colour, label=label)
        log_scale(axis, x=True)
        axis.set_title(f"φ = {phi[a]:.4g}°")
        axis.set_xlabel("lag [s]")
    flat[0].set_ylabel("c2")
    flat[0].legend()
    return fig
