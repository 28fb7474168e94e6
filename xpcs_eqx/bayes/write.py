"""A posterior as files."""

import dataclasses
import os
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import replacing, to_json
from .arviz_io import PLOTS, datatree, write_netcdf, write_plots
from .consensus.run import ConsensusPosterior, from_unconstrained
from .modes import bimodality
from .nuts.chains import Draws
from .nuts.sample import physical_draws
from .posterior import ANGLE_DIMS, Posterior, transition_stats
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


# What combined draws show by themselves; the others are of chains.
COMBINED_PLOTS = ("pair", "forest")


def shards_document(found: ConsensusPosterior) -> dict[str, Any]:
    """Everything of shards.json in plain types."""
    reasons = dict(found.dropped)
    rows = [
        {
            **one._asdict(),
            "failures": [attempt._asdict() for attempt in one.failures],
            "used": one.number in found.combined.used,
            "reason": reasons.get(one.number, ""),
        }
        for one in found.table
    ]
    comparison = found.comparison
    return {
        "division": found.shards.report(),
        "plan": found.plan._asdict(),
        "used": found.combined.used,
        "dropped": [{"shard": number, "reason": reason} for number, reason in found.dropped],
        "combiner_log": found.combined.log,
        "pareto_k": found.pareto_k,
        "heterogeneity": {one.name: one._asdict() for one in comparison.heterogeneity},
        "bimodal": [one._asdict() for one in comparison.bimodal],
        "together": [one._asdict() for one in comparison.together],
        "findings": comparison.findings,
        "shards": rows,
    }


def least_converged(found: ConsensusPosterior) -> int:
    """Number of the shard in the result whose chains agree the least."""
    rhat = {one.number: one.rhat for one in found.table}
    return max(found.subposteriors.numbers, key=lambda number: rhat[number])


_ABOUT = (
    "posterior: combined draws, which are no chains; shards: posterior and sample_stats of the "
    "chains of every shard. What needs chains takes a shard: tree['shards'].sel(shard=0)"
)


def consensus_tree(found: ConsensusPosterior) -> Any:
    """An ArviZ DataTree of the combined draws, with the chains of all shards in it.

    The group `posterior` has the combined draws as one chain, without statistics of transitions,
    which they have none of. Under `shards` there are `posterior` and `sample_stats` of the shards
    in the result, with dimensions (shard, chain, draw): `tree["shards"].sel(shard=0)` is what ArviZ
    takes for one run.

    **Raises:** `ModelError` when ArviZ is missing.
    """
    whole, density = found.posterior, found.posterior.density
    u, numbers = found.subposteriors.draws, found.subposteriors.numbers
    rows, n_draws = np.shape(whole.draws.energy)
    shape = (len(numbers), rows // len(numbers), n_draws)
    theta = np.asarray(physical_draws(density, from_unconstrained(density, u)))
    p = density.parameters.n_free
    scaling = density.term.scaling
    # In shards contrast and offset are never marginalised.
    coefficients = theta[..., p : p + scaling.size]
    per_angle = np.einsum("ask,...k->...as", np.asarray(scaling.basis), coefficients)
    per_angle = per_angle + np.asarray(scaling.constant)
    each = dataclasses.replace(
        whole,
        theta=theta.reshape(*shape, -1),
        per_angle=per_angle.reshape(*shape, -1, 2),
        draws=Draws(*(np.reshape(one, (*shape, *np.shape(one)[2:])) for one in whole.draws)),
    )
    tree = whole.to_datatree()
    tree.attrs["about"] = _ABOUT
    tree["shards"] = datatree(
        each.variables(),
        transition_stats(each.draws),
        {**whole.angle_labels(), "shard": np.asarray(numbers)},
        ANGLE_DIMS,
        {},
        ("shard", "chain", "draw"),
    )
    return tree


def shard_tree(found: ConsensusPosterior, number: int) -> Any:
    """The chains of one shard as an ArviZ DataTree, in physical units.

    **Raises:** `ModelError` when ArviZ is missing.
    """
    return consensus_tree(found)["shards"].sel(shard=number, drop=True)


def plot_consensus(folder: str, found: ConsensusPosterior, plots: tuple[str, ...] = PLOTS) -> None:
    """Plots of a posterior from shards as PNG files in an existing folder.

    Combined draws are no chains: plots about chains show the shard whose chains agree the least.

    **Raises:** `ModelError` for an unknown plot, or when ArviZ is missing.
    """
    combined = tuple(plot for plot in plots if plot in COMBINED_PLOTS)
    rest = tuple(plot for plot in plots if plot not in COMBINED_PLOTS)
    if combined:
        tree = found.posterior.to_datatree()
        write_plots(folder, tree, tuple(found.posterior.variables()), combined)
    if rest:
        tree = shard_tree(found, least_converged(found))
        write_plots(folder, tree, tuple(found.posterior.variables()), rest)


def write_consensus(
    folder: str,
    found: ConsensusPosterior,
    *,
    plots: tuple[str, ...] = PLOTS,
    fitted_data: bool = True,
    predictive_draws: int = 200,
) -> None:
    """Write a posterior from shards into an existing folder.

    As `write_posterior`, and `shards.json` with what became of every shard. `posterior.nc` holds
    `consensus_tree`; plots are those of `plot_consensus`.

    **Raises:** what `write_posterior` raises.
    """
    chosen: dict[str, Any] = {"fitted_data": fitted_data, "predictive_draws": predictive_draws}
    write_posterior(folder, found.posterior, plots=(), tree=consensus_tree(found), **chosen)
    path = os.path.join(folder, "shards.json")
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(to_json(shards_document(found)))
    if plots:
        inside = os.path.join(folder, "plots")
        os.makedirs(inside, exist_ok=True)
        plot_consensus(inside, found, plots)
