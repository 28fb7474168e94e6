"""A fit as plain numbers: the content of parameters.json and of the arrays beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..compiling import quick_jit
from ..files import strict as strict
from ..files import to_json as to_json
from ..fitting import Fit, ProfileInterval
from ..scaling import AbstractScaling
from .hybrid import hybrid_document
from .maps import FittedMaps

STRONG_CORRELATION = 0.9


def strong_correlations(fit: Fit) -> list[tuple[str, str, float]]:
    """Pairs of entries whose quoted correlation exceeds 0.9, strongest first."""
    matrix, names = fit.uncertainty.correlation(), fit.names
    found = [
        (names[j], names[i], float(matrix[i, j]))
        for i in range(len(names))
        for j in range(i)
        if abs(matrix[i, j]) > STRONG_CORRELATION
    ]
    return sorted(found, key=lambda entry: -abs(entry[2]))


# Compiled as a whole: an eager operation at a time is a compilation at a time.
@quick_jit
def _per_angle(scaling: AbstractScaling, block):
    return scaling.covariance(block)


def scaling_errors(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Quoted errors of contrast and offset at each angle; zero where nothing was fitted."""
    covariance = fit.uncertainty.covariance
    block = covariance[fit.index.scaling, fit.index.scaling]
    n = len(fit.contrast)
    if block.size == 0:
        return np.zeros(n), np.zeros(n)
    matrix = np.asarray(_per_angle(fit.objective.term.scaling, jnp.asarray(block)))
    variance = np.diagonal(matrix)
    error = np.sqrt(np.maximum(variance, 0.0))
    return error[:n], error[n:]


def parameters_document(
    fit: Fit, profiles: Sequence[ProfileInterval] = (), **extra: Any
) -> dict[str, Any]:
    """Everything a script needs of a fit, by name.

    Errors of fixed and tied parameters, and numbers that are not finite, are null in the file.
    """
    intervals = {p.name: {"level": p.level, "low": p.low, "high": p.high} for p in profiles}
    rows = row_entries(fit)
    for name, interval in intervals.items():
        rows[name]["profile"] = interval
    contrast_error, offset_error = scaling_errors(fit)
    return {
        **_verdict(fit),
        "parameters": rows,
        "scaling": {
            "phi_deg": fit.objective.term.geometry.phi,
            "contrast": fit.contrast,
            "contrast_error": contrast_error,
            "offset": fit.offset,
            "offset_error": offset_error,
        },
        **_numbers(fit),
        **({"hybrid": hybrid_document(fit)} if fit.prepared else {}),
        **extra,
    }


def joint_document(fit: Fit, data_sets: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a script needs of a joint fit, by the public names of parameters.

    `data_sets` is what to say of each data set, by label; their parameters, distances and sums of
    squares are added.
    """
    sharing = fit.sharing
    assert sharing is not None
    distances = {d.label: d._asdict() for d in sharing.distances}
    blocks = {}
    for label, one in fit.parts.items():
        blocks[label] = {
            **data_sets[label],
            "parameters": {
                row.name: {"value": row.value, "error": row.error, "role": row.role}
                for row in one.rows
                if row.role != "scaling"
            },
            "chi2": one.chi2,
            "pairs": one.n_pairs,
            "residual_sd": one.residual_sd,
            "distance": distances.get(label),
        }
    return {
        **_verdict(fit),
        "sharing": {
            "agree": sharing.agree,
            "finding": sharing.finding(),
            "statistic": sharing.statistic,
            "degrees_of_freedom": sharing.degrees,
            "probability": sharing.probability,
        },
        "parameters": row_entries(fit),
        "data_sets": blocks,
        **_numbers(fit),
    }


def row_entries(fit: Fit) -> dict[str, dict[str, Any]]:
    """The table of parameters by name."""
    rows = {}
    for row in fit.rows:
        entry = dict(row._asdict())
        entry["bounds"] = [entry.pop("lower"), entry.pop("upper")]
        rows[entry.pop("name")] = entry
    return rows


def _verdict(fit: Fit) -> dict[str, Any]:
    return {
        "status": fit.status.name,
        "converged": fit.success,
        "message": fit.message,
        "quality": {"flag": fit.quality.flag, "findings": fit.quality.findings},
    }


def _numbers(fit: Fit) -> dict[str, Any]:
    uncertainty = fit.uncertainty
    return {
        "quoted_error": uncertainty.chosen,
        "quoted_error_reason": uncertainty.reason,
        "cost": fit.cost,
        "chi2": fit.chi2,
        "pairs": fit.n_pairs,
        "degrees_of_freedom": fit.degrees_of_freedom,
        "reduced_chi2": fit.reduced_chi2,
        "residual_sd": fit.residual_sd,
        "condition_number": uncertainty.condition_number,
        "weak_directions": uncertainty.weak_directions,
        "strong_correlations": strong_correlations(fit),
        "pixels": uncertainty.n_pixels,
        "shot_noise": uncertainty.shot_noise,
        "solver": fit.solver_name,
        "evaluations": fit.evaluations,
        "iterations": fit.iterations,
        "recovery": [action._asdict() for action in fit.recovery],
        "timings_s": dict(fit.timings),
        "history": fit.history.__dict__,
    }


def covariance_arrays(fit: Fit) -> dict[str, np.ndarray]:
    """Arrays of covariance.npz: the three covariances in the order of `names`."""
    uncertainty = fit.uncertainty
    return {
        "names": np.asarray(fit.names, dtype=np.str_),
        "values": np.asarray(fit.values),
        "quoted": np.asarray(uncertainty.chosen, dtype=np.str_),
        "covariance": np.asarray(uncertainty.covariance),
        "correlation": np.asarray(uncertainty.correlation()),
        "classical": np.asarray(uncertainty.classical),
        "speckle": np.asarray(uncertainty.speckle),
        "dyadic": np.asarray(uncertainty.dyadic),
    }


def fitted_arrays(maps: FittedMaps) -> dict[str, np.ndarray]:
    """Arrays of fitted_data.npz: c2, fitted and residual (angle, frame, frame), t, phi, q, gap.

    Pairs that did not count, and the diagonal, are NaN in the residual and false in `used`.
    """
    out = {
        "c2": maps.c2,
        "fitted": maps.fitted,
        "residual": maps.residual,
        "used": maps.used,
        "t": maps.t,
        "phi": maps.phi,
        "q": np.asarray(maps.q),
        "gap": np.asarray(maps.gap),
    }
    if maps.root_weights is not None:
        out["root_weights"] = maps.root_weights
    return out
