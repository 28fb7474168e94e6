"""The sections of a fit, of one data set or of several: what was fitted, what came out, doubts."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..compiling import quick_jit
from ..data import Provenance
from ..errors import ModelError
from ..fitting import Fit, ProfileInterval
from ..objective import has_bins
from ..objective.combined import is_likelihood
from ..physics import AbstractCorrelation, LaminarFlow, PowerLawRate, Trapezoid
from ..physics.rates import rates_in
from ..scaling import AbstractScaling
from ..uncertainty import loss_of
from .analyses import prepared_section
from .bins import write_fitted_bins
from .maps import has_maps, has_weights, is_stored, write_fitted_data
from .misfit import misfit_section
from .sections import (
    Drawing,
    Section,
    document,
    entry,
    folder_names,
    items,
    number,
    table,
    text,
)

STRONG_CORRELATION = 0.9
_MOST = 12


@dataclass(frozen=True)
class Origin:
    """What is known of a data set beside its fit.

    - `provenance`: where it came from.
    - `scaling`: which scaling ran, and why.
    - `weight`: of its squared residuals, as it was given; chi² contains it, the standard deviation
        of residuals does not.
    """

    provenance: Provenance = field(default_factory=Provenance)
    scaling: str = ""
    weight: float = 1.0


def model_name(model: AbstractCorrelation) -> str:
    """The model, rates other than power laws, and, where it has one, its shear kernel."""
    name = type(model).__name__
    for field_name, rate in rates_in(model).items():
        if not isinstance(rate, PowerLawRate):
            name += f", {field_name} {type(rate).__name__}"
            if isinstance(rate, Trapezoid):
                name += f" of {type(rate.rate).__name__}"
    if isinstance(model, LaminarFlow):
        name += f", shear kernel {type(model.shear_kernel).__name__}"
    return name


def sigma_text(fit: Fit) -> str:
    """Whether sigma is known, and what becomes of errors and chi²."""
    term = fit.objective.term
    if is_likelihood(fit.objective):
        return "not used: the likelihood knows the noise of speckle"
    if term.absolute_sigma:
        return "given: chi² and errors are absolute"
    if has_weights(term.tiles):
        return "relative or estimated: it weighs the pairs, errors are scaled by the residuals"
    return "not given: errors are scaled by the residuals"


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
    error = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    return error[:n], error[n:]


def covariance_arrays(fit: Fit) -> dict[str, np.ndarray]:
    """Arrays of covariance.npz: the three covariances in the order of `names`."""
    uncertainty = fit.uncertainty
    matrices = ("covariance", "classical", "speckle", "dyadic")
    return {
        "names": np.asarray(fit.names, dtype=np.str_),
        "values": np.asarray(fit.values),
        "quoted": np.asarray(uncertainty.chosen, dtype=np.str_),
        "correlation": np.asarray(uncertainty.correlation()),
        **{name: np.asarray(getattr(uncertainty, name)) for name in matrices},
    }


def quality_section(fit: Fit) -> Section:
    """The verdict."""
    findings = items(fit.quality.findings) or ["  nothing to object to"]
    return Section(
        lines=[f"Quality: {fit.quality.flag.upper()}", *findings],
        document={
            "status": fit.status.name,
            "converged": fit.success,
            "message": fit.message,
            "quality": {"flag": fit.quality.flag, "findings": fit.quality.findings},
        },
    )


def data_section(fit: Fit, origins: Sequence[Origin]) -> Section:
    """What was fitted: a line for each property of one data set, or for each of several."""
    if fit.data_sets:
        return Section("Data sets", _several_data(fit, origins))
    (origin,) = (one.provenance for one in origins)
    term = fit.objective.term
    t, phi, lines = term.t, term.geometry.phi, []
    if origin.path or origin.layout:
        name = f"{os.path.basename(origin.path)} ({origin.layout})"
        sha = f", sha256 {origin.sha256[:16]}…" if origin.sha256 else ""
        lines.append(entry("file", name + sha))
    likelihood = is_likelihood(fit.objective)
    diagonal = (
        "with the diagonal where that of the data is known"
        if likelihood
        else "without the diagonal"
    )
    pairs = f"{fit.n_pairs}, each unordered pair once, {diagonal}"
    if has_maps(fit) and not likelihood:
        masked = phi.shape[0] * math.comb(t.shape[0], 2) - fit.n_pairs
        pairs += f"; {masked} masked"
    if has_bins(term.tiles):
        pairs = f"{fit.n_pairs} bins of age and lag, each a mean over its pairs of frames"
    lines += [
        entry(
            "maps",
            f"{phi.shape[0]} angles, {t.shape[0]} frames, {float(t[0]):.6g} … {float(t[-1]):.6g} s",
        ),
        entry("q, gap", f"{float(term.geometry.q):.6g} 1/Å, {float(term.geometry.gap):.6g} Å"),
        entry("pairs", pairs),
        entry("sigma", sigma_text(fit)),
        *(entry("note", note) for note in origin.notes),
    ]
    place = {"q_per_angstrom": term.geometry.q, "gap_angstrom": term.geometry.gap}
    place |= {"phi_deg": phi, "frames": t.shape[0], "first_s": t[0], "last_s": t[-1]}
    return Section("Data", lines, {"data": {"file": os.path.basename(origin.path), **place}})


def _several_data(fit: Fit, origins: Sequence[Origin]) -> list[str]:
    header = ("data set", "file", "q [1/Å]", "angles", "frames", "pairs", "weight", "residual sd")
    rows, notes = [], {}
    for (label, one), origin in zip(fit.parts.items(), origins, strict=True):
        term = one.objective.term
        rows.append(
            (
                label,
                os.path.basename(origin.provenance.path) or origin.provenance.layout,
                number(float(term.geometry.q)),
                str(term.geometry.phi.shape[0]),
                str(term.t.shape[0]),
                str(one.n_pairs),
                number(origin.weight, 4),
                # Residuals of the fit are multiplied by the root of the weight.
                number(one.residual_sd / np.sqrt(origin.weight), 4),
                number(float(one.chi2), 6),
            )
        )
        notes[label] = origin.provenance.notes
    lines = [*table((*header, "chi²"), rows), entry("sigma", sigma_text(fit.data_sets[0]))]
    return lines + _by_value("note", notes)


def model_section(fit: Fit, origins: Sequence[Origin], decisions: Sequence[str]) -> Section:
    """Models and scalings, and what else was decided without the user."""
    lines = _by_value("model", {k: [model_name(one.model)] for k, one in fit.parts.items()})
    scalings = {
        label: [origin.scaling or type(one.objective.term.scaling).__name__]
        for (label, one), origin in zip(fit.parts.items(), origins, strict=True)
    }
    lines += _by_value("scaling", scalings)
    return Section("Model", [*lines, *(entry("decided", one) for one in decisions)])


def _by_value(what: str, said: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each text, with the labels of the data sets that say it where not all do."""
    labels: dict[str, list[str]] = {}
    for label, one in ((label, one) for label, texts in said.items() for one in texts):
        labels.setdefault(one, []).append(label)
    return [
        entry(what, one if len(those) == len(said) else f"{one} ({', '.join(those)})")
        for one, those in labels.items()
    ]


# Of a fit and of its uncertainty, what stands in the document by the same name.
_NUMBERS = ("cost", "chi2", "degrees_of_freedom", "reduced_chi2", "residual_sd")
_NUMBERS += ("evaluations", "iterations")
_DOUBTS = ("condition_number", "weak_directions", "shot_noise")


def solver_section(fit: Fit) -> Section:
    """How the minimum was found, and how good it is."""
    # One loss serves for all data sets.
    loss, uncertainty = loss_of(next(iter(fit.parts.values())).objective), fit.uncertainty
    name = f"loss {type(loss).__name__}"
    likelihood = is_likelihood(fit.objective)
    if likelihood:
        name = "likelihood of speckle"
    if "scale" in vars(loss):
        name += f", bending at {float(vars(loss)['scale']):.4g}"
    lines = [
        entry("status", fit.message),
        entry("solver", f"{fit.solver_name}; {name}"),
        entry("evaluations", f"{fit.evaluations}, {fit.iterations} accepted"),
        entry(
            "deviance" if likelihood else "chi²",
            f"{float(fit.chi2):.8g} with {fit.degrees_of_freedom} degrees of freedom",
        ),
    ]
    if math.isfinite(fit.reduced_chi2):
        lines.append(entry("reduced chi²", f"{fit.reduced_chi2:.6g}"))
    lines += [
        entry("residual sd", f"{fit.residual_sd:.6g}"),
        entry("condition", f"{float(uncertainty.condition_number):.3g} of the normal matrix"),
        entry("error bar", f"{uncertainty.chosen}: {uncertainty.reason}"),
    ]
    return Section(
        "Fit",
        lines,
        {
            "quoted_error": uncertainty.chosen,
            "quoted_error_reason": uncertainty.reason,
            "pairs": fit.n_pairs,
            **{name: getattr(fit, name) for name in _NUMBERS},
            **{name: getattr(uncertainty, name) for name in _DOUBTS},
            "strong_correlations": strong_correlations(fit),
            "pixels": uncertainty.n_pixels,
            "solver": fit.solver_name,
            "recovery": [action._asdict() for action in fit.recovery],
            "timings_s": dict(fit.timings),
            "history": fit.history.__dict__,
        },
    )


def parameter_section(fit: Fit, profiles: Sequence[ProfileInterval] = ()) -> Section:
    """The table of parameters.

    Errors of fixed parameters, and numbers that are not finite, are null in the file; those of tied
    ones follow from what they are tied to.
    """
    header = ("parameter", "value", "error", "classical", "speckle", "dyadic", "unit", "")
    shown, rows = [], {}
    for row in fit.rows:
        values = dict(row._asdict())
        values["bounds"] = [values.pop("lower"), values.pop("upper")]
        rows[values.pop("name")] = values
        if row.role == "scaling":
            continue
        role = "" if row.role == "free" else row.role
        remark = ", ".join(filter(None, (role, "on its bound" if row.at_bound else "")))
        errors = (row.error, row.error_classical, row.error_speckle, row.error_dyadic)
        cells = (number(row.value), *(number(e, 3) for e in errors))
        shown.append((row.name, *cells, row.unit, remark))
    lines = table(header, shown)
    for p in profiles:
        rows[p.name]["profile"] = {"level": p.level, "low": p.low, "high": p.high}
        lines.append(
            f"  {p.name}: {p.low:.6g} … {p.high:.6g} at {p.level:.2%} by profile likelihood"
        )
    return Section("", lines, {"parameters": rows}, {"fit/covariance.npz": covariance_arrays(fit)})


def sharing_section(fit: Fit, origins: Sequence[Origin]) -> Section:
    """Whether several data sets agree, and what there is of each."""
    sharing = fit.sharing
    assert sharing is not None
    distances = {d.label: d._asdict() for d in sharing.distances}
    said = {name: getattr(sharing, name) for name in ("agree", "statistic", "probability")}
    rows = [
        (d.label, number(d.statistic, 4), str(d.degrees), d.name, f"{d.deviation:+.2f}")
        for d in sharing.distances
    ]
    header = ("data set", "distance chi²", "parameters", "furthest", "deviation [errors]")
    blocks = {}
    for (label, name), origin in zip(folders_of(fit).items(), origins, strict=True):
        one = fit.parts[label]
        geometry = one.objective.term.geometry
        blocks[label] = {
            "folder": name,
            "file": os.path.basename(origin.provenance.path),
            "q_per_angstrom": geometry.q,
            "gap_angstrom": geometry.gap,
            "phi_deg": geometry.phi,
            "frames": one.objective.term.t.shape[0],
            "weight": origin.weight,
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
    return Section(
        "Do the data sets agree on what they share?",
        items([sharing.finding()]) + (table(header, rows) if rows else []),
        {
            "sharing": {
                **said,
                "finding": sharing.finding(),
                "degrees_of_freedom": sharing.degrees,
            },
            "data_sets": blocks,
        },
    )


def folders_of(fit: Fit) -> dict[str, str]:
    """The folder of each data set by its label; no name for one data set alone."""
    labels = tuple(fit.parts)
    return dict(zip(labels, folder_names(labels) if fit.data_sets else ("",), strict=True))


def scaling_section(fit: Fit, title: str = "") -> Section:
    """The table of contrast and offset of one data set."""
    contrast_error, offset_error = scaling_errors(fit)
    columns = {
        "phi_deg": fit.objective.term.geometry.phi,
        "contrast": fit.contrast,
        "contrast_error": contrast_error,
        "offset": fit.offset,
        "offset_error": offset_error,
    }
    rows = [
        [number(float(value), n) for value, n in zip(row, (4, 5, 2, 6, 2), strict=True)]
        for row in zip(*columns.values(), strict=True)
    ]
    header = ("phi [deg]", "contrast", "error", "offset", "error")
    return Section(title, table(header, rows), {"scaling": columns})


def doubt_sections(fit: Fit) -> list[Section]:
    """Strong correlations, and what was done about failures."""
    strong, out = strong_correlations(fit), []
    if strong:
        lines = [f"  {a} with {b}: {c:+.4f}" for a, b, c in strong[:_MOST]]
        if len(strong) > _MOST:
            lines.append(f"  and {len(strong) - _MOST} more, in fit/covariance.npz")
        out.append(Section(f"Correlations above {STRONG_CORRELATION}", lines))
    if fit.recovery:
        said = [f"{r.cause}: {r.action}; {r.outcome}" for r in fit.recovery]
        out.append(Section("Recovery", items(said)))
    return out


def time_section(fit: Fit, timings: Mapping[str, float]) -> Section:
    """Seconds by phase, those of the fit and others."""
    spent = {**dict(fit.timings), **timings}
    return Section("Time", ["  " + ", ".join(f"{k} {v:.2f} s" for k, v in spent.items())])


def surface_section(fit: Fit, label: str, name: str, fitted_data: bool | None) -> Section:
    """Plots of one data set, and its fitted maps as a file.

    `name` is that of its folders; empty for one data set alone. Maps in a file are written only
    where `fitted_data` is true, since they make a file of three times their size.
    """
    inside = f"fit/{name}" if name else "fit"
    files = {}
    if has_maps(fit) and (fitted_data or (fitted_data is None and not is_stored(fit))):
        path = f"{inside}/fitted_data.{'h5' if is_stored(fit) else 'npz'}"
        files[path] = lambda target: write_fitted_data(target, fit)
    if has_bins(fit.objective.term.tiles) and fitted_data is not False:
        files[f"{inside}/fitted_bins.npz"] = lambda target: write_fitted_bins(target, fit)

    def figures() -> Sequence[Drawing]:
        # Not at the top: importing matplotlib takes a third of a second.
        from .plots import drawings

        return drawings(fit)

    return Section(f"Plots of {label}" if name else "Plots", (), {}, files, figures, name)


def fit_sections(
    fit: Fit,
    origins: Sequence[Origin] = (),
    *,
    decisions: Sequence[str] = (),
    profiles: Sequence[ProfileInterval] = (),
) -> list[Section]:
    """What there is to say of a fit, of one data set or of several.

    **Arguments:**

    - `origins`: what is known of each data set beside its fit.
    - `decisions`: what was decided without the user, in sentences.
    - `profiles`: profile-likelihood intervals to quote.

    **Raises:** `ModelError` for the fit of a curve, which has neither maps nor models to speak of.
    """
    if not fit.parts:
        raise ModelError(
            "the report is of two-time data sets, and this is the fit of a curve; its table is "
            "fit.rows, its verdict fit.quality, and print(fit) shows both"
        )
    known = origins or [Origin()] * len(fit.parts)
    out = [
        quality_section(fit),
        data_section(fit, known),
        model_section(fit, known, decisions),
        solver_section(fit),
    ]
    if fit.prepared:
        out.append(prepared_section(fit))
    out.append(parameter_section(fit, profiles))
    if not fit.data_sets:
        return [*out, scaling_section(fit), *doubt_sections(fit), misfit_section(fit)]
    out.append(sharing_section(fit, known))
    for label, name in folders_of(fit).items():
        one = fit.parts[label]
        section = scaling_section(one, f"Contrast and offset of {label}")
        files: dict[str, Any] = {
            f"fit/{name}/parameters.json": document(fit_sections(one)),
            f"fit/{name}/covariance.npz": covariance_arrays(one),
        }
        out.append(dataclasses.replace(section, document={}, files=files))
    return [*out, *doubt_sections(fit), misfit_section(fit)]


def parameters_document(fit: Fit, profiles: Sequence[ProfileInterval] = ()) -> dict[str, Any]:
    """Everything a script needs of a fit, by name."""
    return document(fit_sections(fit, profiles=profiles))


def text_report(
    fit: Fit,
    *,
    title: str = "Fit of two-time correlation maps",
    origins: Sequence[Origin] = (),
    decisions: Sequence[str] = (),
    profiles: Sequence[ProfileInterval] = (),
    timings: Mapping[str, float] | None = None,
    sections: Sequence[Section] = (),
) -> str:
    """The report of a fit in words and columns.

    **Arguments:**

    - `origins`, `decisions`, `profiles`: as of `fit_sections`.
    - `timings`: seconds by phase, in addition to those of the fit.
    - `sections`: further ones, such as that of a posterior.
    """
    own = fit_sections(fit, origins, decisions=decisions, profiles=profiles)
    return text(title, [*own, *sections, time_section(fit, timings or {})])
