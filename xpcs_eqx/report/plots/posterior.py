"""Plots of a posterior that ArviZ does not have: a corner with the fit in it, and the shards."""

import os

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...bayes import Posterior
from .canvas import DATA, FIT, figure, grid, style
from .corner import corner_figure, shown_entries


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
