"""A posterior as files, and read back from them."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..errors import DataError, ModelError
from ..files import replacing, to_json
from ..fitting import Fit
from ..objective import CombinedObjective
from .arviz_io import PLOTS, read_netcdf, with_arrays, write_netcdf, write_plots
from .density.likelihood import (
    AbstractScalingTreatment,
    GivenSigma,
    MarginalisedScaling,
    SampledScaling,
    SampledSigma,
)
from .density.log_posterior import Adjustment, LogPosterior, checked_objective, log_posterior
from .diagnostics import Diagnostics
from .marginalised import MARGINALISED, marginalised_scaling
from .modes import bimodality
from .nuts.chains import Draws
from .nuts.starts import recentred
from .posterior import Posterior, coverage, posterior_of, precision, surfaces
from .priors.families import AbstractPrior, TruncatedNormal, prior_from, prior_numbers
from .priors.prior_set import PriorSet, Samplable

# What combined draws show by themselves; the others are of chains.
COMBINED_PLOTS = ("pair", "forest")
# Of the group in posterior.nc from which a posterior is read back; another one is refused.
_FORMAT = 1


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


def shards_document(posterior: Posterior) -> dict[str, Any]:
    """Everything of shards.json in plain types."""
    found = posterior.shards
    assert found is not None
    reasons, comparison = dict(found.dropped), found.comparison
    rows = [
        {
            **one._asdict(),
            "failures": [attempt._asdict() for attempt in one.failures],
            "used": one.number in found.combined.used,
            "reason": reasons.get(one.number, ""),
        }
        for one in found.table
    ]
    return {
        "division": found.division.report(),
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


def plot_posterior(
    folder: str, posterior: Posterior, plots: tuple[str, ...] = PLOTS, form: str = "png"
) -> None:
    """Plots of ArviZ as files of a format, png, svg or pdf, in an existing folder.

    Combined draws of shards are no chains: plots about chains show the shard whose chains agree the
    least.

    **Raises:** `ModelError` for an unknown plot, or when ArviZ is missing.
    """
    tree, names = posterior.to_datatree(), tuple(posterior.variables())
    of_chains = plots
    if posterior.shards is not None:
        combined = tuple(plot for plot in plots if plot in COMBINED_PLOTS)
        of_chains = tuple(plot for plot in plots if plot not in COMBINED_PLOTS)
        write_plots(folder, tree, names, combined, form)
        tree = tree["shards"].sel(shard=posterior.shards.least_converged, drop=True)
    write_plots(folder, tree, names, of_chains, form)


def write_posterior(
    folder: str,
    posterior: Posterior,
    *,
    plots: tuple[str, ...] = PLOTS,
    fitted_data: bool = True,
    predictive_draws: int = 200,
) -> None:
    """Write the draws of a posterior, their summary and plots into an existing folder.

    It becomes `posterior.nc` (ArviZ; `read_posterior` reads it back), `samples.npz`,
    `parameters.json`, `diagnostics.json`, `fitted_data.npz` (mean, sd, 5 % and 95 % of the surface)
    and `plots/*.png`; of shards `shards.json` as well, with what became of every one. The surface
    of each of several data sets is in `fitted_data-1.npz` and so on, in their order.

    **Arguments:**

    - `plots`: names of those to draw; `fitted_data`: whether to write the surface, from
        `predictive_draws` draws.

    **Raises:** `DataError` when the folder does not exist; `ModelError` when ArviZ is missing.
    """
    if not os.path.isdir(folder):
        raise DataError(f"the folder {folder} does not exist; create it first")
    tree = with_arrays(posterior.to_datatree(), _arrays(posterior))
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
    if posterior.shards is not None:
        document("shards.json", shards_document(posterior))
    if fitted_data:
        for k, part in enumerate(posterior.parts.values(), start=1):
            term, after = part.density.term, f"-{k}" if posterior.data_sets else ""
            surface = surfaces(part, predictive_draws)
            place = {"t": np.asarray(term.t), "phi": np.asarray(term.geometry.phi)}
            arrays(f"fitted_data{after}.npz", {**surface._asdict(), **place})
    if plots:
        inside = os.path.join(folder, "plots")
        os.makedirs(inside, exist_ok=True)
        plot_posterior(inside, posterior, plots)


def _arrays(posterior: Posterior) -> dict[str, np.ndarray]:
    """All that is needed to make a posterior again beside its problem; documents are JSON."""
    density = posterior.density
    coordinates = density.coordinates
    said = {
        "format": _FORMAT,
        "names": density.names,
        "pairs": float(density.n_pairs),
        "priors": [prior_numbers(prior) for prior in density.priors],
        "sigma": float(density.noise.value) if isinstance(density.noise, GivenSigma) else None,
        "marginalised": [_marginalised(part) for part in density.parts],
        "step_size": posterior.step_size,
        "whole": _said_of(posterior),
        "parts": [_said_of(part) for part in posterior.data_sets],
    }
    out = {
        "said": np.frombuffer(json.dumps(said, default=_plain).encode(), np.uint8),
        "theta": posterior.theta,
        "per_angle": posterior.per_angle,
        "metric": posterior.metric,
        "centre": np.asarray(coordinates.centre),
        "scale": np.asarray(coordinates.scale),
        "start": np.asarray(coordinates.to_physical(jnp.zeros(len(density.names)))),
    }
    if density.adjustment is not None:
        out |= {f"adjustment_{k}": np.asarray(v) for k, v in vars(density.adjustment).items()}
    out |= {f"reference_{k}": np.asarray(p.term.reference) for k, p in enumerate(density.parts)}
    return out | {f"draws_{name}": np.asarray(v) for name, v in posterior.draws._asdict().items()}


def _plain(value: Any) -> Any:
    """Arrays and NumPy numbers for JSON, which Python writes with NaN and infinite ones."""
    return np.asarray(value).tolist()


def _marginalised(density: LogPosterior) -> list[dict[str, Any]] | None:
    """Priors of the coefficients that were integrated out; None where they are entries."""
    found = density.treatment
    if not isinstance(found, MarginalisedScaling):
        return None
    columns = (np.asarray(v) for v in (found.mean, found.sd, found.lower, found.upper))
    rows = zip(*columns, strict=True)
    return [prior_numbers(TruncatedNormal(*row)) for row in rows]


def read_posterior(
    path: str,
    problem: Samplable | Fit,
    priors: Mapping[str, AbstractPrior] | None = None,
) -> Posterior:
    """A posterior again, from the `posterior.nc` that `write_posterior` made of it.

    Draws, diagnostics, notes, priors and errors of the fit come from the file, data and model from
    the problem. What became of single shards stays in `shards.json`: `shards` is None.

    **Arguments:**

    - `problem`: the fit or the objective that was sampled.
    - `priors`: those by name that are of classes of one's own, which files do not know.

    **Raises:** `DataError` for a file that is no posterior or of another version; `ModelError` for
    one of another problem, and for a prior that has to be given.
    """
    kept = read_netcdf(path)
    if "said" not in kept:
        raise DataError(f"{path}: no posterior that write_posterior made, or one of an old version")
    said = json.loads(kept["said"].tobytes().decode())
    if said["format"] != _FORMAT:
        raise DataError(f"{path}: of format {said['format']}; this version reads {_FORMAT}")
    objective = checked_objective(problem)
    found = {
        name: prior_from(one, name, priors or {})
        for name, one in zip(said["names"], said["priors"], strict=True)
    }
    several = isinstance(objective, CombinedObjective)
    parts = objective.parts if several else (objective,)
    whole = objective.parameters.whole if several else objective.term.parameters
    after = [f"[{label}]" for label in objective.parameters.labels] if several else [""]
    scaling: AbstractScalingTreatment = SampledScaling()
    for part, ending, rows in zip(parts, after, said["marginalised"], strict=True):
        if rows is not None:
            scaling = MarginalisedScaling()
            for name, one in zip(part.term.scaling.names, rows, strict=True):
                found[name + ending] = prior_from(one, name, {})
    density, _ = log_posterior(
        objective,
        PriorSet(tuple(found.values()), tuple(found)),
        start=kept["start"][: whole.n_free],
        scaling_start=[kept[f"reference_{k}"] for k in range(len(parts))],
        scaling=scaling,
        noise=SampledSigma() if said["sigma"] is None else GivenSigma(said["sigma"]),
    )
    if list(density.names) != said["names"] or float(density.n_pairs) != said["pairs"]:
        raise ModelError(
            f"{path} is the posterior of another problem: of {', '.join(said['names'])} from "
            f"{said['pairs']:.0f} pairs, not of {', '.join(density.names)} from "
            f"{float(density.n_pairs):.0f}"
        )
    if "adjustment_matrix" in kept:
        found = Adjustment(kept["adjustment_centre"], kept["adjustment_matrix"])
        density = dataclasses.replace(density, adjustment=found)
    posterior = posterior_of(
        recentred(density, kept["centre"], kept["scale"]),
        kept["theta"],
        kept["per_angle"],
        Draws(*(kept[f"draws_{name}"] for name in Draws._fields)),
        step_size=said["step_size"],
        metric=kept["metric"],
        fit=None,
        diagnostics=_diagnostics(said["whole"]["diagnostics"]),
    )
    each = zip(posterior.data_sets, said["parts"], strict=True)
    return dataclasses.replace(
        _restored(posterior, said["whole"]),
        data_sets=tuple(_restored(part, one) for part, one in each),
    )


# What a file says of a posterior in words and numbers of its own.
_SAID = ("fitted", "quoted", "notes", "timings", "label")


def _said_of(posterior: Posterior) -> dict[str, Any]:
    said = {name: getattr(posterior, name) for name in _SAID}
    return {**said, "diagnostics": posterior.diagnostics._asdict()}


def _diagnostics(said: dict[str, Any]) -> Diagnostics:
    arrays = {name: np.array(said[name]) for name in ("rhat", "ess_bulk", "ess_tail", "bfmi")}
    texts = {name: tuple(said[name]) for name in ("names", "findings", "recommendations")}
    return Diagnostics(**{**said, **arrays, **texts})


def _restored(posterior: Posterior, said: dict[str, Any]) -> Posterior:
    """With what a file says of it."""
    columns = {name: tuple(map(tuple, said[name])) for name in ("fitted", "quoted", "timings")}
    words = {"label": said["label"], "notes": tuple(said["notes"])}
    diagnostics = _diagnostics(said["diagnostics"])
    return dataclasses.replace(posterior, diagnostics=diagnostics, **columns, **words)
