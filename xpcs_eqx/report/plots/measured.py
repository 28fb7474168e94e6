"""What was measured, before any fit: maps, c2 against lag, and the level of every frame."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...data import FrameIntensities, PooledData, TwoTimeData
from ..sections import by_frame
from .canvas import DATA, WIDE, degrees, few_ticks, file_of, log_scale, panels, style, write_figure
from .means import age_colours, mean_by_lag
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
    image = axes[0].imshow(small(c2), origin="lower", extent=extent, vmin=low, vmax=high)
    axes[0].figure.colorbar(image, ax=axes[0], label="c2")
    axes[0].set(xlabel="t1 [s]", ylabel="t2 [s]")
    axes[1].plot(*mean_by_lag(c2, t), "o", ms=2.6, color=DATA)
    axes[1].set_title("over all ages", loc="left")
    axes[1].set(xlabel="lag t2 − t1 [s]", ylabel="mean c2")
    log_scale(axes[1], x=True)
    axes[2].plot(t, mean_of(c2, 1), lw=0.8, color=DATA)
    axes[2].set_title("of each frame", loc="left")
    axes[2].set(xlabel="t [s]", ylabel="mean c2 with all others")
    few_ticks(axes[0], 4, 4)
    few_ticks(axes[2], 4, 5)


def _draw_bins(axis, data: PooledData, angle: int) -> None:
    """c2 against lag, each age in a colour."""
    assert data.bins is not None
    mine = np.asarray(data.angle) == angle
    lag, values = data.lag_frames[mine] * float(data.dt), np.asarray(data.values)[mine]
    age = np.asarray(data.bins.age)[mine]
    every = np.unique(age)
    for one, colour in zip(every, age_colours(every.size), strict=True):
        axis.plot(lag[age == one], values[age == one], "o", ms=2.6, color=colour)
    axis.set(xlabel="lag [s]", ylabel="c2")
    log_scale(axis, x=True)


def _draw_intensities(axes: Sequence[Axes], found: FrameIntensities) -> None:
    """The intensity of every frame, over the whole width."""
    first, *rest = axes
    for one in rest:
        one.remove()
    spec = first.get_subplotspec()
    assert spec is not None
    row = spec.rowspan.start
    first.set_subplotspec(spec.get_gridspec()[row, :])
    first.plot(found.t, found.values, lw=0.8, color=DATA)
    # From zero, so that a dark frame looks dark and a drift as large as it is.
    known = found.values[np.isfinite(found.values)]
    if known.size and known.min() >= 0:
        first.set_ylim(bottom=0.0)
    first.set_title(f"intensity of each frame ({found.name})", loc="left")
    first.set(xlabel="t [s]", ylabel="mean intensity")
    few_ticks(first, 8, 4)


def data_figure(
    sets: Sequence[TwoTimeData | PooledData], intensities: FrameIntensities | None = None
) -> Figure:
    """The first maps of each q, a row each, of at most six; of bins c2 against lag alone.

    `intensities`: of the frames, which get a row of their own below.
    """
    rows = [(one, a) for one in sets for a in range(one.n_angles)]
    rows = rows[:: -(-len(rows) // _MOST)]
    # Where q is not known, 1 stands for it.
    qs = {f"q = {float(one.geometry.q):.4g} 1/Å" for one in sets if one.provenance.has_q}
    several, bins = len(qs) > 1, all(isinstance(one, PooledData) for one in sets)
    title = "" if several else "".join(qs)
    title += ", ages from dark to bright" if bins else ""
    many = len(rows) + (intensities is not None)
    fig, axes = panels(
        4.2 if bins else WIDE, 0.45 + 2.0 * many, title.removeprefix(", "), many, 1 if bins else 3,
        left=0.5, top=0.45, hspace=0.55, wspace=0.75,
    )  # fmt: skip
    if intensities is not None:
        _draw_intensities(axes[-1], intensities)
    for line, (data, angle) in zip(axes, rows, strict=False):
        if isinstance(data, PooledData):
            _draw_bins(line[0], data, angle)
            for rest in line[1:]:
                rest.set_axis_off()
        else:
            _draw_map(line, data, angle)
        place = data.geometry
        named = [f"q = {float(place.q):.4g} 1/Å"] if several else []
        named.append(degrees(float(place.phi[angle])))
        line[0].set_title(", ".join(named), loc="left", fontsize=7.5)
    return fig if any(one.provenance.has_times for one in sets) else by_frame(fig)


def save_data_figure(
    path: str,
    sets: Sequence[TwoTimeData | PooledData],
    intensities: FrameIntensities | None = None,
) -> str:
    """Draw what was measured into a file, whose ending says which format: PNG where it has none.

    Returns its path.

    **Raises:** `ConfigError` for another format.
    """
    stem, ending = os.path.splitext(path)
    form = ending.removeprefix(".").lower() or "png"
    # Before anything is drawn.
    file_of(stem, form)
    with style():
        return write_figure(data_figure(sets, intensities), stem, form)
