"""Reports and results of joint fits: the whole first, then each data set by its label."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..data import Provenance
from ..fitting import Fit
from .provenance import file_name
from .results import covariance_arrays, joint_document, parameters_document, to_json
from .text import (
    doubts,
    entry,
    fit_lines,
    items,
    model_name,
    number,
    parameter_lines,
    scaling_lines,
    sigma_text,
    table,
    time_lines,
)
from .write import Results

# Names that some file systems keep for devices.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def folder_names(labels: Sequence[str]) -> tuple[str, ...]:
    """A folder name for each label: legal everywhere, and different even where case is not."""
    out: list[str] = []
    for label in labels:
        name = re.sub(r"[^\w.\-+=, ]", "_", label).strip(" ").rstrip(".").lstrip(".") or "_"
        name = f"{name}_" if _RESERVED.fullmatch(name) else name
        known, chosen, i = {one.casefold() for one in out}, name, 2
        while chosen.casefold() in known:
            chosen, i = f"{name}-{i}", i + 1
        out.append(chosen)
    return tuple(out)


def _data_lines(fit: Fit, provenance: Sequence[Provenance], weights: Sequence[float]) -> list[str]:
    header = ("data set", "file", "q [1/Å]", "angles", "frames", "pairs")
    header = (*header, "weight", "residual sd", "chi²")
    rows = []
    for k, (one, origin) in enumerate(zip(fit.parts.values(), provenance, strict=True)):
        term, weight = one.objective.term, weights[k]
        rows.append(
            (
                one.label,
                file_name(origin) or origin.layout,
                number(float(term.geometry.q)),
                str(term.geometry.phi.shape[0]),
                str(term.t.shape[0]),
                str(one.n_pairs),
                number(weight, 4),
                # Residuals of the fit are multiplied by the root of the weight.
                number(one.residual_sd / np.sqrt(weight), 4),
                number(float(one.chi2), 6),
            )
        )
    lines = table(header, rows)
    lines.append(entry("sigma", sigma_text(next(iter(fit.parts.values())))))
    notes: dict[str, list[str]] = {}
    for label, origin in zip(fit.parts, provenance, strict=True):
        for note in origin.notes:
            notes.setdefault(note, []).append(label)
    for note, labels in notes.items():
        whose = "" if len(labels) == len(fit.parts) else f" ({', '.join(labels)})"
        lines.append(entry("note", f"{note}{whose}"))
    return lines


def _sharing_lines(fit: Fit) -> list[str]:
    assert fit.sharing is not None
    lines = items([fit.sharing.finding()])
    header = ("data set", "distance chi²", "parameters", "furthest", "deviation [errors]")
    rows = [
        (d.label, number(d.statistic, 4), str(d.degrees), d.name, f"{d.deviation:+.2f}")
        for d in fit.sharing.distances
    ]
    return lines + (table(header, rows) if rows else [])


def joint_report(
    fit: Fit,
    *,
    title: str = "Joint fit of two-time correlation maps",
    provenance: Sequence[Provenance] | None = None,
    weights: Sequence[float] | None = None,
    scaling: Sequence[str] = (),
    decisions: Sequence[str] = (),
    timings: Mapping[str, float] | None = None,
) -> str:
    """The report of a joint fit.

    **Arguments:**

    - `provenance`: origin of each data set.
    - `weights`: of the squared residuals of each data set, as they were given; chi² contains them,
        the standard deviation of residuals does not.
    - `scaling`: which scaling ran for each, and why.
    - `decisions`: what else was decided without the user, in sentences.
    - `timings`: seconds by phase, in addition to those of the fit.
    """
    origins = [Provenance()] * len(fit.parts) if provenance is None else provenance
    known = [1.0] * len(fit.parts) if weights is None else weights
    lines = [title, "=" * len(title), "", f"Quality: {fit.quality.flag.upper()}"]
    lines += items(fit.quality.findings) or ["  nothing to object to"]
    lines += ["", "Data sets", *_data_lines(fit, origins, known)]
    lines += ["", "Model"]
    models = {label: model_name(one.model) for label, one in fit.parts.items()}
    lines += _by_value("model", models)
    lines += _by_value("scaling", dict(zip(fit.parts, scaling, strict=bool(scaling))))
    lines += [entry("decided", text) for text in decisions]
    lines += ["", "Fit", *fit_lines(fit), ""]
    lines += parameter_lines(fit)
    lines += ["", "Do the data sets agree on what they share?", *_sharing_lines(fit)]
    for label, one in fit.parts.items():
        lines += ["", f"Contrast and offset of {label}", *scaling_lines(one)]
    lines += doubts(fit)
    lines += time_lines(fit, timings)
    return "\n".join(lines) + "\n"


def _by_value(what: str, values: Mapping[str, str]) -> list[str]:
    """One line when all data sets say the same, else one for each that is different."""
    different = dict.fromkeys(values.values())
    if len(different) == 1:
        return [entry(what, text) for text in different]
    return [
        entry(what, f"{text} ({', '.join(k for k, v in values.items() if v == text)})")
        for text in different
    ]


def write_joint_results(
    folder: str,
    fit: Fit,
    *,
    report: str,
    provenance: Sequence[Provenance],
    weights: Sequence[float],
    configuration: Mapping[str, Any],
    plots: bool = True,
    fitted_data: bool | None = None,
    started: float | None = None,
) -> dict[str, float]:
    """Write a joint fit into an empty folder, as `new_results` gives it; returns seconds by kind.

    Arguments and files as in `write_results` and `joint_report`. `fit/parameters.json` and
    `fit/covariance.npz` are of the whole; `fit/LABEL/` holds those of each data set and its maps,
    `plots/LABEL/` its plots.
    """
    results = Results(folder, started, plots, fitted_data)
    blocks = {}
    names = folder_names(tuple(fit.parts))
    for k, ((label, one), name) in enumerate(zip(fit.parts.items(), names, strict=True)):
        origin = provenance[k]
        os.makedirs(os.path.join(folder, "fit", name))
        geometry = one.objective.term.geometry
        blocks[label] = {
            "folder": name,
            "file": file_name(origin),
            "q_per_angstrom": geometry.q,
            "gap_angstrom": geometry.gap,
            "phi_deg": geometry.phi,
            "frames": one.objective.term.t.shape[0],
            "weight": weights[k],
        }
        results.text(f"fit/{name}/parameters.json", to_json(parameters_document(one)))
        results.arrays(f"fit/{name}/covariance.npz", covariance_arrays(one))
        results.maps_and_plots(one, f"fit/{name}", f"plots/{name}")
    results.text("fit/parameters.json", to_json(joint_document(fit, blocks)))
    results.arrays("fit/covariance.npz", covariance_arrays(fit))
    origins = dict(zip(fit.parts, provenance, strict=True))
    results.report_and_origin(report, origins, configuration)
    return results.spent
