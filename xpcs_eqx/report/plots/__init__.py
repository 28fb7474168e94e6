"""Plots of a fit as matplotlib figures; importing this imports matplotlib."""

import os

from ...fitting import Fit
from ..from_file import is_stored, shown_maps
from ..maps import FittedMaps
from ..rates import rate_curves
from .canvas import style
from .corner import covariance_figure as covariance_figure
from .curves import convergence_figure as convergence_figure
from .curves import rate_figure as rate_figure
from .curves import scaling_figure as scaling_figure
from .degeneracy import degeneracy_figure as degeneracy_figure
from .residuals import autocorrelation as autocorrelation
from .residuals import residual_figure as residual_figure
from .surfaces import lag_figure as lag_figure
from .surfaces import map_figure as map_figure


def write_plots(folder: str, fit: Fit, maps: FittedMaps | None) -> tuple[str, ...]:
    """Write every plot of a fit as PNG into a folder, which must exist; returns the file names.

    Without `maps` those that need maps are made for maps in a file, a part of which is read for
    them, and left out for pooled points.
    """
    names, middle = [], None
    if maps is None and is_stored(fit):
        maps, middle = shown_maps(fit)

    def save(name, make, *arguments):
        # The maps are noise: stronger compression takes longer and saves nothing.
        make(*arguments).savefig(
            os.path.join(folder, f"{name}.png"), pil_kwargs={"compress_level": 1}
        )
        names.append(f"{name}.png")

    with style():
        if maps is not None:
            save("maps", map_figure, maps)
            save("c2_against_lag", lag_figure, maps)
            save("residuals", residual_figure, maps, middle)
        save("scaling", scaling_figure, fit)
        save("convergence", convergence_figure, fit)
        rates = rate_curves(fit)
        if rates:
            save("rates", rate_figure, rates)
        if fit.index.size:
            save("covariance", covariance_figure, fit)
    return tuple(names)
