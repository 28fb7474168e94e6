"""A posterior as files."""

import os
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import replacing, to_json
from .arviz_io import PLOTS, write_netcdf, write_plots
from .modes import bimodality
from .posterior import Posterior
from .precision import coverage, precision
from .predictive import predictive
from .write_marginalised import MARGINALISED, marginalised_scaling


def diagnostics_document(posterior: Posterior) -> dict:
    """Everything of diagnostics.json in plain types."""
    found = posterior.diagnostics
    document = dict(found._asdict())
    each = ("rhat", "ess_bulk", "ess_tail")
    for name in each:
        document[name] = dict(zip(found.names, document[name], strict=True))
    del document["names"]
    compared = precision(posterior)
    return {
        **document,
        "chains": posterior.theta.shape[0],
        "draws": posterior.theta.shape[1],
        "step_size": posterior.step_size,
        "gradients": int(np.sum(posterior.draws.steps)),
        "timings_s": dict(posterior.timings),
        "notes": posterior.notes,
        "precision": {one.name: one._asdict() for one in compared},
        "coverage_of_fit": coverage(compared),
        "bimodality": {
            name: bimodality(name, posterior[name])._asdict() for name in posterior.names
        },
    }


def parameters_document(posterior: Posterior) -> dict:
    """Everything of parameters.json in plain types, marginalised contrast and offset included."""
    integrated = {one.name: one.summary() for one in marginalised_scaling(posterior)}
    document = {
        "status": posterior.status,
        "parameters": {**posterior.summary(), **integrated},
    }
    return {**document, "note": MARGINALISED} if integrated else document


def write_posterior(
    folder: str,
    posterior: Posterior,
    *,
    plots: tuple[str, ...] = PLOTS,
    fitted_data: bool = True,
    predictive_draws: int = 200,
    tree: Any = None,
) -> None:
    """Write a posterior into an existing folder.

    It becomes `posterior.nc` (ArviZ), `samples.npz`, `parameters.json`, `diagnostics.json`,
    `fitted_data.npz` (mean, sd, 5 % and 95 % of the surface) and `plots/*.png`.

    **Arguments:**

    - `plots`: names of those to draw; `fitted_data`: whether to write the surface, from
        `predictive_draws` draws.
    - `tree`: the DataTree to write, `posterior.to_datatree()` by default.

    **Raises:** `DataError` when the folder does not exist; `ModelError` when ArviZ is missing.
    """
    if not os.path.isdir(folder):
        raise DataError(f"the folder {folder} does not exist; create it first")
    tree = posterior.to_datatree() if tree is None else tree
    write_netcdf(tree, os.path.join(folder, "posterior.nc"))

    def arrays(name, content):
        with replacing(os.path.join(folder, name)) as path, open(path, "wb") as stream:
            np.savez(stream, **content)

    def document(name, content):
        with (
            replacing(os.path.join(folder, name)) as path,
            open(path, "w", encoding="utf-8") as stream,
        ):
            stream.write(to_json(content))

    arrays("samples.npz", posterior.variables())
    document("parameters.json", parameters_document(posterior))
    document("diagnostics.json", diagnostics_document(posterior))
    if fitted_data:
        term = posterior.density.term
        surface = predictive(posterior, predictive_draws)._asdict()
        geometry = {"t": np.asarray(term.t), "phi": np.asarray(term.geometry.phi)}
        arrays("fitted_data.npz", {**surface, **geometry})
    if plots:
        inside = os.path.join(folder, "plots")
        os.makedirs(inside, exist_ok=True)
        write_plots(inside, tree, tuple(posterior.variables()), plots)
