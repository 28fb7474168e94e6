"""Plots of a fit as matplotlib figures; importing this imports matplotlib."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...fitting import Fit
from ...objective import has_bins
from ...physics.rates import rates_in
from ..maps import FittedMaps, has_maps, sheet_maps, shown_maps
from ..page import Picture
from ..points import fitted_bins
from ..sections import Drawing, by_frame
from .bins import bin_figure as bin_figure
from .bins import bin_lag_figure as bin_lag_figure
from .canvas import FORMATS as FORMATS
from .canvas import picture_of as picture_of
from .canvas import save_figure, style
from .corner import covariance_figure as covariance_figure
from .corner import fitted_entries
from .corner import posterior_drawings as posterior_drawings
from .curves import convergence_figure as convergence_figure
from .curves import curve_figure as curve_figure
from .curves import degeneracy_figure as degeneracy_figure
from .curves import rate_figure as rate_figure
from .curves import scaling_figure as scaling_figure
from .means import g2_figure as g2_figure
from .means import lag_figure as lag_figure
from .means import residual_map_figure as residual_map_figure
from .measured import data_figure as data_figure
from .measured import save_data_figure as save_data_figure
from .series import exponent_figure as exponent_figure
from .series import series_drawings as series_drawings
from .surfaces import ROWS, small
from .surfaces import autocorrelation as autocorrelation
from .surfaces import map_figure as map_figure
from .surfaces import residual_figure as residual_figure
from .surfaces import sheet_figure as sheet_figure

# What to see in each plot of a fit.
_CAPTIONS = {
    "maps": "c2 as measured, as fitted, and the difference. Where the fit is good both show the "
    "same colours, and the difference is noise, without stripes, spots or a ridge on the diagonal.",
    "angles": "Every angle in small: measured below the diagonal, the fit above it. Both halves of "
    "a panel mirror each other where the fit is good; a map unlike its neighbours stands out.",
    "curve": "Points as measured, with their standard deviations where these are known, and the "
    "fitted curve. Below: measured minus fitted, which scatters about zero where the fit is good.",
    "bins": "Means over bins of age and lag: measured, fitted, and the difference, which should "
    "have no pattern.",
    "c2_against_lag": "Mean c2 against lag: points measured, lines fitted, colours the age. Lines "
    "run through their points, and lines that spread apart show ageing.",
    "rates": "Rates over the age of the sample, with bands of one and two standard errors.",
    "residuals_by_lag_and_age": "Mean of what the fit leaves, by lag and age: blue where it is too "
    "high, red where it is too low. Patches of one colour are what the model does not describe.",
    "residuals": "Left: residuals in units of their standard deviation, with the normal "
    "distribution. Right: how residuals of pairs that share a frame, and of pairs of one lag, are "
    "correlated, which is what makes errors larger than those of independent noise.",
    "scaling": "Contrast and offset of each angle with one standard error: smooth over the angle, "
    "the offset near 1.",
    "covariance": "Which parameters go together: ellipses of one and two standard errors, with the "
    "correlation in their corners. Narrow, tilted ones belong to parameters that the data hardly "
    "tell apart.",
    "convergence": "How the fit came to its end: cost above its lowest value, and gradient.",
}

log = logging.getLogger(__name__)


def drawings(fit: Fit) -> tuple[Drawing, ...]:
    """Every plot of the fit of a data set or of a curve, but for how its minimum was found.

    Bins have plots of their own, points none of maps.
    """
    if not fit.parts:
        return (_drawing("curve", lambda: curve_figure(fit)), *_of_errors(fit))

    @cache
    def maps():
        """A part of the maps, whatever their size, once for all plots."""
        return shown_maps(fit)

    @cache
    def bins():
        return fitted_bins(fit), np.asarray(fit.objective.term.geometry.phi)

    @cache
    def sheet():
        step = [(float(one.phi[0]), *_small(one)) for one in sheet_maps(fit)]
        return sheet_figure(step, n_angles)

    out, n_angles = [], len(fit.contrast)
    if has_bins(fit.objective.term.tiles):
        out += [
            _drawing("bins", lambda: bin_figure(*bins())),
            _drawing("c2_against_lag", lambda: bin_lag_figure(*bins())),
        ]
    if has_maps(fit):
        out.append(_drawing("maps", lambda: map_figure(maps()[0])))
        if n_angles > ROWS:
            out.append(_drawing("angles", sheet))
        out.append(_drawing("c2_against_lag", lambda: lag_figure(*maps())))
    if rates_in(fit.model):
        out.append(_drawing("rates", lambda: rate_figure(fit)))
    if has_maps(fit):
        out += [
            _drawing("residuals_by_lag_and_age", lambda: residual_map_figure(*maps())),
            _drawing("residuals", lambda: residual_figure(*maps())),
        ]
    if n_angles > 1:
        out.append(_drawing("scaling", lambda: scaling_figure(fit)))
    if fit.counts_frames:
        out = by_frame(out)
    return (*out, *_of_errors(fit))


def _drawing(name: str, draw: Callable[[], Figure]) -> Drawing:
    return Drawing(name, draw, _CAPTIONS[name])


def _of_errors(fit: Fit) -> tuple[Drawing, ...]:
    """The plot of the errors of parameters, where any has one."""
    if not fitted_entries(fit):
        return ()
    return (_drawing("covariance", lambda: covariance_figure(fit)),)


def solver_drawings(fit: Fit) -> tuple[Drawing, ...]:
    """The plot of how the minimum was found, by all data sets together."""
    return (_drawing("convergence", lambda: convergence_figure(fit)),)


def _small(maps: FittedMaps) -> tuple[np.ndarray, np.ndarray]:
    """Measured and fitted c2 of one angle, as small as on a contact sheet."""
    measured = np.where(maps.used[0], maps.c2[0], np.nan)
    return small(measured, 100), small(maps.fitted[0], 100)


def save_figures(
    folder: str, figures: Callable[[], Sequence[Drawing]], form: str = "png"
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """Draw figures into a folder, which is made if needed, as png, svg or pdf.

    Returns them as pictures of a page, and a sentence for each plot that could not be drawn: no
    plot may cost a result.
    """
    pictures, missing = [], []

    def attempt(name: str, make: Callable[..., Any], *given: Any) -> Any:
        try:
            return make(*given)
        except Exception as error:
            log.exception("the plot %s is missing", name)
            missing.append(f"the plot {name} is missing: {type(error).__name__}: {error}")
            return None

    def drawn(one: Drawing) -> Future[Picture]:
        rest = save_figure(one.draw(), os.path.join(folder, one.name), one.caption, form)
        return thread.submit(rest)

    with style(), ThreadPoolExecutor(1, "pictures") as thread:
        every = [(one, attempt(one.name, drawn, one)) for one in attempt("list", figures) or ()]
        for one, future in every:
            picture = None if future is None else attempt(one.name, future.result)
            if picture is not None:
                # The name may be that of a folder and a file in it.
                pictures.append(picture._replace(file=f"{one.name}.{form}"))
    return tuple(pictures), tuple(missing)


def write_plots(folder: str, fit: Fit, form: str = "png") -> tuple[str, ...]:
    """Draw every plot of a fit into a folder, as png, svg or pdf; returns the file names."""
    every = save_figures(folder, lambda: (*drawings(fit), *solver_drawings(fit)), form)
    return tuple(one.file for one in every[0])
