"""What was measured, before any fit: maps, c2 against lag, and the level of every frame."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ...data import PooledData, TwoTimeData
from .canvas import log_scale, panels, style
from .surfaces import limits, mean_of, small

# Rows of a figure.
_MOST = 6


def _draw_map(axes, data: TwoTimeData, angle: int) -> None:
    """A map, c2 against lag averaged over ages, and the mean of each frame with all others."""
    c2 = np.array(data.c2[angle])
    if data.root_weights is not None:
        c2 = np.where(np.asarray(data.root_weights[angle]) > 0, c2, np.nan)
    np.fill_diagonal(c2, np.nan)
    t = np.asarray(data.t)
    low, high = limits(c2)
    extent = (t[0], t[-1], t[0], t[-1])
    axes[0].imshow(small(c2), origin="lower", extent=extent, vmin=low, vmax=high)
    axes[0].set(title=f"c2, φ = {data.geometry.phi[angle]:.4g}°", xlabel="t1 [s]", ylabel="t2 [s]")
    lags = np.unique(np.geomspace(1, len(t) - 1, 60).astype(int))
    along = [mean_of(np.diagonal(c2, lag)) for lag in lags]
    axes[1].plot(lags * float(data.dt), along, ".-", ms=3)
    axes[1].set(title="mean over ages", xlabel="lag [s]", ylabel="c2")
    log_scale(axes[1], x=True)
    axes[2].plot(t, mean_of(c2, 1), lw=0.8)
    axes[2].set(title="mean over all other frames", xlabel="t [s]", ylabel="c2")


def _draw_bins(axes, data: PooledData, angle: int) -> None:
    """c2 against lag, each age a line."""
    assert data.bins is not None
    mine = np.asarray(data.angle) == angle
    lag, values = data.lag_frames[mine] * float(data.dt), np.asarray(data.values)[mine]
    age = np.asarray(data.bins.age)[mine]
    for one in np.unique(age):
        axes[0].plot(lag[age == one], values[age == one], ".-", ms=3, lw=0.6)
    axes[0].set(title=f"φ = {data.geometry.phi[angle]:.4g}°", xlabel="lag [s]", ylabel="c2")
    log_scale(axes[0], x=True)
    for rest in axes[1:]:
        rest.set_axis_off()


def data_figure(sets: Sequence[TwoTimeData | PooledData]) -> Figure:
    """The first maps of each q, a row each, of at most six."""
    rows = [(one, a) for one in sets for a in range(one.n_angles)]
    rows = rows[:: -(-len(rows) // _MOST)]
    qs = ", ".join(f"{float(one.geometry.q):.4g}" for one in sets)
    height = 0.7 + 2.3 * len(rows)
    fig, axes = panels(8.5, height, f"q = {qs} 1/Å", len(rows), 3, top=0.6, hspace=0.5, wspace=0.4)
    for line, (data, angle) in zip(axes, rows, strict=True):
        if isinstance(data, PooledData):
            _draw_bins(line, data, angle)
        else:
            _draw_map(line, data, angle)
    return fig


def save_data_figure(path: str, sets: Sequence[TwoTimeData | PooledData]) -> None:
    """Draw what was measured into a PNG."""
    with style():
        data_figure(sets).savefig(path, format="png")
