"""Plots of a posterior that ArviZ does not have: a corner with the fit in it, and the shards."""

import os

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter

from ...bayes import Posterior
from .canvas import DATA, FIT, figure, grid, style
from .corner import value_label

MOST = 8
# Half the side of a panel and the distance of two of them, in standard deviations.
_HALF, _PITCH = 3.5, 7.6
_BINS = 48
# Probability inside the contours: one and two standard deviations of a Gaussian in the plane.
_INSIDE = (0.393, 0.865)


def shown_entries(names: tuple[str, ...], n_free: int) -> list[int]:
    """Positions of at most `MOST` entries: physical parameters, filled up to two with others."""
    return list(range(min(max(n_free, 2), MOST, len(names))))


def density_levels(density: Float[np.ndarray, "x y"]) -> list[float]:
    """Densities whose contours hold the probabilities `_INSIDE`, ascending."""
    ordered = np.sort(density.ravel())[::-1]
    share = np.cumsum(ordered) / ordered.sum()
    found = [float(ordered[np.searchsorted(share, inside)]) for inside in _INSIDE]
    return sorted(found)


def _panel(axis: Axes, x: float, y: float) -> None:
    axis.plot(
        x + _HALF * np.array([-1, 1, 1, -1, -1]),
        y + _HALF * np.array([-1, -1, 1, 1, -1]),
        color="0.8",
        lw=0.7,
    )


def _fit_in_units(posterior: Posterior, chosen: list[int], mean, sd):
    """Value and classical error of the fit in standard deviations from the mean; NaN without."""
    known = {name: (value, error) for name, value, error in posterior.fitted}
    pairs = [known.get(posterior.names[i], (np.nan, np.nan)) for i in chosen]
    values, errors = np.array(pairs).T
    return (values - mean) / sd, errors / sd


def corner_figure(posterior: Posterior) -> Figure:
    """Densities of all pairs of physical parameters, with the fit and its classical errors.

    Contours hold 39 and 86 % of the draws. All panels are in one set of axes, in units of the
    standard deviations: a grid of axes takes many times longer.
    """
    chosen = shown_entries(posterior.names, posterior.density.parameters.n_free)
    draws = posterior.theta.reshape(-1, posterior.theta.shape[-1])[:, chosen]
    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    scaled = (draws - mean) / sd
    place, error = _fit_in_units(posterior, chosen, mean, sd)
    n = len(chosen)
    size = 1.3 + 1.1 * max(n, 2)
    fig = figure(max(size, 4.2), size, "Posterior: 39 and 86 % of the draws; red: fit ± error")
    axis = Axes(fig, (0.02, 0.02, 0.96, 0.90))
    fig.add_axes(axis)
    axis.set_axis_off()
    axis.set_aspect("equal")
    edges = np.linspace(-_HALF, _HALF, _BINS + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    for row in range(n):
        y = -row * _PITCH
        for column in range(row + 1):
            x = column * _PITCH
            _panel(axis, x, y)
            if row == column:
                counts = np.histogram(scaled[:, row], edges)[0]
                top = y - _HALF + 5.6 * counts / max(counts.max(), 1)
                axis.fill_between(
                    x + centres, y - _HALF, top, step="mid", color=DATA, alpha=0.35, lw=0
                )
                _marked(axis, x, y, place[row], error[row])
                axis.text(
                    x,
                    y + _HALF + 0.25,
                    f"{posterior.names[chosen[row]]}\n{value_label(mean[row], sd[row])}",
                    ha="center",
                    va="bottom",
                    fontsize=6.5,
                )
                continue
            counts = np.histogram2d(scaled[:, column], scaled[:, row], (edges, edges))[0]
            smooth = gaussian_filter(counts, 1.3).T
            levels = [*density_levels(smooth), float(smooth.max()) * 1.001]
            colours = [(0.267, 0.467, 0.667, alpha) for alpha in (0.25, 0.6)]
            axis.contourf(x + centres, y + centres, smooth, levels=levels, colors=colours)
            if abs(place[column]) < _HALF and abs(place[row]) < _HALF:
                axis.plot(x + place[column], y + place[row], "+", color=FIT, ms=6, mew=1.0)
            c = float(np.corrcoef(scaled[:, column], scaled[:, row])[0, 1])
            axis.text(
                x + _HALF - 0.2,
                y + _HALF - 0.2,
                f"{c:+.2f}",
                ha="right",
                va="top",
                fontsize=6,
                color="0.3",
            )
    axis.set_xlim(-_HALF - 0.5, max(n - 1, 1) * _PITCH + _HALF + 0.5)
    axis.set_ylim(-max(n - 1, 1) * _PITCH - _HALF - 0.5, _HALF + 2.8)
    return fig


def _marked(axis: Axes, x: float, y: float, place: float, error: float) -> None:
    """The fit in a panel of the diagonal, as far as it lies inside."""
    if not abs(place) < _HALF:
        return
    axis.plot([x + place] * 2, [y - _HALF, y + _HALF], color=FIT, lw=0.9)
    ends = np.clip([place - error, place + error], -_HALF, _HALF)
    axis.plot(x + ends, [y - _HALF + 0.35] * 2, color=FIT, lw=1.6)


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
    height = 0.8 + 1.25 * len(chosen)
    fig = figure(7.0, height, title)
    axes = grid(
        fig, len(chosen), 1, left=0.15, right=0.98, bottom=0.45 / height, top=1 - 0.45 / height
    )
    for row, i in enumerate(chosen):
        axis = axes[row][0]
        whole = posterior.theta[..., i]
        middle, width = float(whole.mean()), float(whole.std())
        axis.axhspan(middle - width, middle + width, color=FIT, alpha=0.25, lw=0)
        axis.axhline(middle, color=FIT, lw=0.9, label="combined ± sd")
        for which, colour, label in ((used, DATA, "shard"), (~used, "0.6", "set aside")):
            if which.any():
                axis.errorbar(
                    numbers[which], mean[which, i], sd[which, i], fmt="o", ms=2.5, lw=0.8,
                    color=colour, label=label,
                )  # fmt: skip
        axis.set_ylabel(posterior.names[i])
        axis.set_xlim(-0.5, n_shards - 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if row < len(chosen) - 1:
            axis.tick_params(labelbottom=False)
        else:
            axis.set_xlabel("shard")
    axes[0][0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
    return fig


def write_posterior_plots(folder: str, posterior: Posterior) -> tuple[str, ...]:
    """Write `corner.png`, and `shards.png` of shards, into an existing folder."""
    with style():
        corner_figure(posterior).savefig(os.path.join(folder, "corner.png"))
        if posterior.shards is None:
            return ("corner.png",)
        shards_figure(posterior).savefig(os.path.join(folder, "shards.png"))
        return ("corner.png", "shards.png")
