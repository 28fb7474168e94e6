"""The sections of a fit, of one data set or of several: what was found, how sure, what to doubt."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..compiling import quick_jit
from ..data import Provenance
from ..errors import ModelError
from ..fitting import Fit, ProfileInterval
from ..objective import has_bins
from ..objective.combined import is_likelihood
from ..parameters.shared import base_of
from ..scaling import AbstractScaling
from .analyses import prepared_section
from .maps import has_maps, is_stored, write_fitted_data
from .method import (
    STRONG_CORRELATION,
    Origin,
    called,
    data_section,
    every_pair,
    model_section,
    solver_section,
    strong_correlations,
    told,
)
from .misfit import misfit_section
from .points import write_fitted_bins
from .sections import (
    APPENDIX,
    FIGURES,
    HEAD,
    Block,
    Entry,
    Section,
    Table,
    by_frame,
    counted,
    document,
    folder_names,
    items,
    number,
    plotting,
    text,
    value_and_error,
)

_MOST = 12


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
    matrix = np.asarray(_per_angle(fit.objective.term.scaling, block))
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


def verdict_section(fit: Fit, origins: Sequence[Origin]) -> Section:
    """The verdict, and what was fitted by what in a sentence."""
    names = list(dict.fromkeys(told(one.model) for one in fit.parts.values()))
    if fit.data_sets:
        q = [float(one.objective.term.geometry.q) for one in fit.parts.values()]
        at = f"{min(q):.6g} … {max(q):.6g}" if max(q) > min(q) else f"{q[0]:.6g}"
        known = f" at q = {at} 1/Å" if all(one.has_q for one in origins) else ""
        what = f"{len(q)} data sets{known} together"
    else:
        ((origin,), term) = origins, fit.objective.term
        path = origin.provenance.path
        file = "the data" if path in ("", Provenance().path) else os.path.basename(path)
        known = f", q = {float(term.geometry.q):.6g} 1/Å" if origin.has_q else ""
        frames = f"{term.t.shape[0]} frames"
        if origin.provenance.has_times:
            frames += f" in {float(np.ptp(np.asarray(term.t))):.6g} s"
        what = f"{file}, {counted(term.geometry.phi.shape[0], 'angle')}, {frames}{known}"
        # What was not measured is no detail of the method.
        if has_maps(fit) and not is_likelihood(fit.objective) and fit.n_pairs < every_pair(fit):
            what += f"; {every_pair(fit) - fit.n_pairs} of {every_pair(fit)} pairs masked"
    return Section(
        content=[f"Quality: {fit.quality.flag.upper()}", f"{what}. {'; '.join(names)}."],
        document={
            "status": fit.status.name,
            "converged": fit.success,
            "message": fit.message,
            "quality": {"flag": fit.quality.flag, "findings": fit.quality.findings},
        },
        place=HEAD,
    )


# How each kind of error is made, in a line.
_ERRORS = {
    "speckle": "from the fluctuations of speckle and photon counts, by which entries of a map that "
    "share a frame are not independent",
    "dyadic": "from the scatter of the residuals, where entries that share a frame are not "
    "independent",
    "classical": "as of independent noise",
}
# A reason that warns of errors is said beside them.
_WARNS = re.compile("too small|infinite|a guess|only the sigma")


def _ends(interval: ProfileInterval) -> str:
    """The ends of an interval, to the digits of half its width."""
    half = 0.5 * (interval.high - interval.low)
    return " … ".join(value_and_error(end, half)[0] for end in (interval.low, interval.high))


def sure_section(fit: Fit, profiles: Sequence[ProfileInterval] = ()) -> Section:
    """How the error was made, and how the residuals compare with the noise."""
    uncertainty, likelihood = fit.uncertainty, is_likelihood(fit.objective)
    term = next(iter(fit.parts.values())).objective.term
    made = "by the likelihood of speckle" if likelihood else _ERRORS[uncertainty.chosen]
    scaled = "" if term.absolute_sigma or likelihood else ", scaled by the residuals"
    told = uncertainty.chosen != "speckle" or _WARNS.search(uncertainty.reason)
    reason = f" ({uncertainty.chosen}: {uncertainty.reason})" if told else ""
    content: list[Block] = [Entry("error", f"one standard error, {made}{scaled}{reason}")]
    if math.isfinite(fit.reduced_chi2):
        of = counted(fit.degrees_of_freedom, "degree") + " of freedom"
        content.append(Entry("reduced χ²", f"{fit.reduced_chi2:.4g} with {of}"))
    noise = [one.misfit.excess for one in fit.parts.values() if one.misfit is not None]
    # A likelihood has a deviance in place of it.
    spread = [] if likelihood else [f"standard deviation {fit.residual_sd:.3g}"]
    if term.absolute_sigma and spread:
        spread[0] += " times sigma"
    if noise:
        most = f"at most {max(noise):.3g}" if len(noise) > 1 else f"{noise[0]:.3g}"
        spread.append(
            f"their variance is {most} times that of the noise, which neighbouring entries of c2 "
            "show by their differences"
        )
    content += [Entry("residuals", "; ".join(spread))] if spread else []
    none = "" if fit.doubts else "; none is as good"
    looked = fit.looked + none if fit.looked else "not looked for: a fit from one start"
    content.append(Entry("other minima", looked))
    content += [
        Entry(p.name, f"{_ends(p)} at {p.level:.2%} by profile likelihood") for p in profiles
    ]
    return Section("How sure", content, place=HEAD)


def doubt_section(fit: Fit) -> Section:
    """What speaks against the fit."""
    found = items(fit.quality.findings) or ["Nothing was found that speaks against this fit."]
    return Section("What to doubt", found, place=HEAD)


def parameter_section(fit: Fit, profiles: Sequence[ProfileInterval] = ()) -> Section:
    """The table of parameters.

    Errors of fixed parameters, and numbers that are not finite, are null in the file; those of tied
    ones follow from what they are tied to.
    """
    shown, rows = [], {}
    # What several data sets have of a parameter stands together.
    families = list(dict.fromkeys(base_of(row.name) for row in fit.rows))
    for row in sorted(fit.rows, key=lambda one: families.index(base_of(one.name))):
        values = dict(row._asdict())
        values["bounds"] = [values.pop("lower"), values.pop("upper")]
        rows[values.pop("name")] = values
        if row.role == "scaling":
            continue
        role = "" if row.role == "free" else row.role
        remark = ", ".join(filter(None, (role, "on its bound" if row.at_bound else "")))
        shown.append((row.name, *value_and_error(row.value, row.error), row.unit, remark))
    for p in profiles:
        rows[p.name]["profile"] = {"level": p.level, "low": p.low, "high": p.high}
    header = ("parameter", "value", "error", "unit", "")
    kept = [k for k in range(5) if k < 3 or any(row[k] for row in shown)]
    table = Table([header[k] for k in kept], [[row[k] for k in kept] for row in shown])
    files = {"fit/covariance.npz": covariance_arrays(fit)}
    return Section("What was found", [table], {"parameters": rows}, files, place=HEAD)


def errors_section(fit: Fit) -> Section:
    """The quoted error beside those of other assumptions about the noise."""
    rows = [
        (
            row.name,
            *(
                number(one, 3)
                for one in (row.error, row.error_classical, row.error_dyadic, row.error_speckle)
            ),
        )
        for row in fit.rows
        if row.role not in ("scaling", "fixed")
    ]
    header = ("parameter", "error", "classical", "dyadic", "speckle")
    kinds = [Entry(name, said) for name, said in _ERRORS.items()]
    return Section("Errors by other assumptions", [Table(header, rows), *kinds], place=APPENDIX)


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
    header = ("data set", "χ²", "parameters", "furthest", "deviation [errors]")
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
        [sharing.finding(), *([Table(header, rows)] if sharing.degrees else [])],
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
        "phi_deg": np.asarray(fit.objective.term.geometry.phi),
        "contrast": fit.contrast,
        "contrast_error": contrast_error,
        "offset": fit.offset,
        "offset_error": offset_error,
    }

    def cells(value: float, error: float) -> tuple[str, str]:
        """What is fixed has no error."""
        return value_and_error(float(value), float(error) or math.nan)

    rows = [
        [number(float(phi), 4), *cells(*pairs[:2]), *cells(*pairs[2:])]
        for phi, *pairs in zip(*columns.values(), strict=True)
    ]
    header = ("phi [deg]", "contrast", "error", "offset", "error")
    return Section(title, [Table(header, rows)], {"scaling": columns})


def more_sections(fit: Fit) -> list[Section]:
    """Strong correlations, and what was done about failures."""
    strong, out = strong_correlations(fit), []
    if strong:
        rows = [(a, b, f"{c:+.4f}") for a, b, c in strong[:_MOST]]
        content: list[Block] = [Table(("one", "with another", "correlation"), rows)]
        if len(strong) > _MOST:
            content.append(f"and {len(strong) - _MOST} more, in fit/covariance.npz")
        out.append(Section(f"Correlations above {STRONG_CORRELATION}", content))
    if fit.recovery:
        said = [f"{r.cause}: {r.action}; {r.outcome}" for r in fit.recovery]
        out.append(Section("Recovery", items(said), place=APPENDIX))
    return out


def time_section(fit: Fit, timings: Mapping[str, float]) -> Section:
    """Seconds by phase, those of the fit and others."""
    spent = {**dict(fit.timings), **timings}
    return Section("Time", [", ".join(f"{k} {v:.2f} s" for k, v in spent.items())], place=APPENDIX)


def surface_section(fit: Fit, name: str, fitted_data: bool | None) -> Section:
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

    title = f"Figures of {called(fit)}" if name else "Figures"
    return Section(title, (), {}, files, lambda: plotting().drawings(fit), name, FIGURES)


def fit_sections(
    fit: Fit,
    origins: Sequence[Origin] = (),
    *,
    decisions: Sequence[str] = (),
    profiles: Sequence[ProfileInterval] = (),
    all_errors: bool = False,
) -> list[Section]:
    """What there is to say of a fit, of one data set or of several.

    **Arguments:**

    - `origins`: what is known of each data set beside its fit.
    - `decisions`: what was chosen without the user, in sentences.
    - `profiles`: profile-likelihood intervals to quote.
    - `all_errors`: whether errors by other assumptions about the noise stand beside the quoted one.

    **Raises:** `ModelError` for the fit of a curve, which has neither maps nor models to speak of.
    """
    if not fit.parts:
        raise ModelError(
            "the report is of two-time data sets, and this is the fit of a curve; its table is "
            "fit.rows, its verdict fit.quality, and print(fit) shows both"
        )
    known = origins or [Origin()] * len(fit.parts)
    out = [
        verdict_section(fit, known),
        parameter_section(fit, profiles),
        sure_section(fit, profiles),
        doubt_section(fit),
        data_section(fit, known),
        model_section(fit, known, decisions),
        solver_section(fit),
        *([prepared_section(fit)] if fit.prepared else []),
        *([errors_section(fit)] if all_errors else []),
    ]
    if not fit.data_sets:
        scaling = scaling_section(fit, "Contrast and offset")
        return [*out, scaling, *more_sections(fit), misfit_section(fit)]
    out.append(sharing_section(fit, known))
    for label, name in folders_of(fit).items():
        one = fit.parts[label]
        section = scaling_section(one, f"Contrast and offset of {called(one)}")
        files: dict[str, Any] = {
            f"fit/{name}/parameters.json": document(fit_sections(one)),
            f"fit/{name}/covariance.npz": covariance_arrays(one),
        }
        out.append(dataclasses.replace(section, document={}, files=files))
    return [*out, *more_sections(fit), misfit_section(fit)]


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
    all_errors: bool = False,
    appendix: bool = True,
) -> str:
    """The report of a fit in words and columns.

    **Arguments:**

    - `origins`, `decisions`, `profiles`, `all_errors`: as of `fit_sections`.
    - `timings`: seconds by phase, in addition to those of the fit.
    - `sections`: further ones, such as that of a posterior.
    - `appendix`: whether it says how it was done.
    """
    own = fit_sections(fit, origins, decisions=decisions, profiles=profiles, all_errors=all_errors)
    said = [*own, *sections]
    if fit.counts_frames:
        said = by_frame(said)
    return text(title, [*said, time_section(fit, timings or {})], appendix)
