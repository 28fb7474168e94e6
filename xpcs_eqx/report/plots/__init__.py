"""Plots of a fit as matplotlib figures; importing this imports matplotlib."""

import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...fitting import Fit
from ...objective import has_bins
from ..bins import fitted_bins
from ..maps import has_maps, shown_maps
from ..sections import Drawing
from .bins import bin_figure as bin_figure
from .bins import bin_lag_figure as bin_lag_figure
from .canvas import style
from .corner import covariance_figure as covariance_figure
from .corner import posterior_drawings as posterior_drawings
from .curves import convergence_figure as convergence_figure
from .curves import degeneracy_figure as degeneracy_figure
from .curves import rate_figure as rate_figure
from .curves import rates_of
from .curves import scaling_figure as scaling_figure
from .exponent import exponent_figure as exponent_figure
from .measured import data_figure as data_figure
from .measured import save_data_figure as save_data_figure
from .series import series_drawings as series_drawings
from .surfaces import autocorrelation as autocorrelation
from .surfaces import lag_figure as lag_figure
from .surfaces import map_figure as map_figure
from .surfaces import residual_figure as residual_figure

log = logging.getLogger(__name__)


def drawings(fit: Fit) -> tuple[Drawing, ...]:
    """Every plot of the fit of a data set; bins have plots of their own, points none of maps."""

    @cache
    def maps():
        """A part of the maps, whatever their size, once for all plots."""
        return shown_maps(fit)

    @cache
    def bins():
        return fitted_bins(fit), np.asarray(fit.objective.term.geometry.phi)

    out = []
    if has_bins(fit.objective.term.tiles):
        out += [
            Drawing("bins", lambda: bin_figure(*bins())),
            Drawing("c2_against_lag", lambda: bin_lag_figure(*bins())),
        ]
    if has_maps(fit):
        out += [
            Drawing("maps", lambda: map_figure(maps()[0])),
            Drawing("c2_against_lag", lambda: lag_figure(maps()[0])),
            Drawing("residuals", lambda: residual_figure(*maps())),
        ]
    out += [
        Drawing("scaling", lambda: scaling_figure(fit)),
        Drawing("convergence", lambda: convergence_figure(fit)),
    ]
    if rates_of(fit):
        out.append(Drawing("rates", lambda: rate_figure(fit)))
    if fit.index.size:
        out.append(Drawing("covariance", lambda: covariance_figure(fit)))
    return tuple(out)


def save_figures(
    folder: str, figures: Callable[[], Sequence[Drawing]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Draw figures as PNG into a folder, which is made if needed.

    Returns the names of the files, and a sentence for each plot that could not be drawn: no plot
    may cost a result.
    """
    names, missing = [], []

    def attempt(name: str, make: Callable[..., Any], *given: Any) -> Any:
        try:
            return make(*given)
        except Exception as error:
            log.exception("the plot %s is missing", name)
            missing.append(f"the plot {name} is missing: {type(error).__name__}: {error}")
            return None

    with style():
        for name, draw in attempt("list", figures) or ():
            path = os.path.join(folder, f"{name}.png")
            if attempt(name, _saved, draw, path):
                names.append(f"{name}.png")
    return tuple(names), tuple(missing)


def _saved(draw: Callable[[], Figure], path: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # The maps are noise: stronger compression takes longer and saves nothing.
    draw().savefig(path, pil_kwargs={"compress_level": 1})
    return path


def write_plots(folder: str, fit: Fit) -> tuple[str, ...]:
    """Draw every plot of a fit into a folder; returns the file names."""
    return save_figures(folder, lambda: drawings(fit))[0]
