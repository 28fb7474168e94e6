"""The report in words and columns: what was fitted, what came out, what to doubt."""

import dataclasses
import math
import os
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from ..data import Provenance
from ..fitting import Fit, ProfileInterval
from ..objective import Arctan, Cauchy, Huber, MapTiles, SoftL1, StoredTiles, TwoTimeTerm
from ..physics import AbstractCorrelation, AbstractRate, LaminarFlow, PowerLawRate, Trapezoid
from ..uncertainty import loss_of
from .results import STRONG_CORRELATION, scaling_errors, strong_correlations

WIDTH = 100
_MOST = 12


def _number(value: float, digits: int = 6) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns wide enough for their entries; the first to the left, the rest to the right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells):
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  " + "  ".join([first, *rest]).rstrip()

    return [line(header), "  " + "-" * (sum(widths) + 2 * len(widths) - 2), *map(line, rows)]


def _entry(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:<16} ", subsequent_indent=" " * 19)


def _items(texts: Sequence[str]) -> list[str]:
    return [
        textwrap.fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
        for text in texts
    ]


def model_name(model: AbstractCorrelation) -> str:
    """The model, rates other than power laws, and, where it has one, its shear kernel."""
    name = type(model).__name__
    for field in dataclasses.fields(model):
        rate = getattr(model, field.name)
        if isinstance(rate, AbstractRate) and not isinstance(rate, PowerLawRate):
            name += f", {field.name} {type(rate).__name__}"
            if isinstance(rate, Trapezoid):
                name += f" of {type(rate.rate).__name__}"
    if isinstance(model, LaminarFlow):
        name += f", shear kernel {type(model.shear_kernel).__name__}"
    return name


def masked_pairs(term: TwoTimeTerm, n_pairs: int) -> int | None:
    """Pairs of the maps that counted for nothing; None for pooled points."""
    if not isinstance(term.tiles, MapTiles | StoredTiles):
        return None
    n_angles, n = term.reference.shape[0], term.t.shape[0]
    return n_angles * (n * (n - 1) // 2) - n_pairs


def _data_lines(fit: Fit, provenance: Provenance | None) -> list[str]:
    term = fit.objective.term
    t, phi = term.t, term.geometry.phi
    lines = []
    if provenance is not None:
        name = f"{os.path.basename(provenance.path)} ({provenance.layout})"
        sha = f", sha256 {provenance.sha256[:16]}…" if provenance.sha256 else ""
        lines.append(_entry("file", name + sha))
    lines += [
        _entry(
            "maps",
            f"{phi.shape[0]} angles, {t.shape[0]} frames, {float(t[0]):.6g} … {float(t[-1]):.6g} s",
        ),
        _entry("q, gap", f"{float(term.geometry.q):.6g} 1/Å, {float(term.geometry.gap):.6g} Å"),
    ]
    pairs = f"{fit.n_pairs}, each unordered pair once, without the diagonal"
    masked = masked_pairs(term, fit.n_pairs)
    lines.append(_entry("pairs", pairs + ("" if masked is None else f"; {masked} masked")))
    weights = getattr(term.tiles, "root_weights", None)
    relative = weights is not None and np.unique(np.asarray(weights[0])).size > 2
    if isinstance(term.tiles, StoredTiles):
        relative = term.tiles.source.sigma_halves is not None
    sigma = (
        "given: chi² and errors are absolute"
        if term.absolute_sigma
        else "relative or estimated: it weighs the pairs, errors are scaled by the residuals"
        if relative
        else "not given: errors are scaled by the residuals"
    )
    lines.append(_entry("sigma", sigma))
    if provenance is not None:
        lines += [_entry("note", note) for note in provenance.notes]
    return lines


def _parameter_lines(fit: Fit, profiles: Sequence[ProfileInterval]) -> list[str]:
    header = ("parameter", "value", "error", "classical", "speckle", "dyadic", "unit", "")
    rows = []
    for row in fit.rows:
        if row.role == "scaling":
            continue
        remark = "on its bound" if row.at_bound else "" if row.role == "free" else row.role
        errors = (row.error, row.error_classical, row.error_speckle, row.error_dyadic)
        rows.append(
            (row.name, _number(row.value), *(_number(e, 3) for e in errors), row.unit, remark)
        )
    lines = _table(header, rows)
    for p in profiles:
        lines.append(
            f"  {p.name}: {p.low:.6g} … {p.high:.6g} at {p.level:.2%} by profile likelihood"
        )
    return lines


def _scaling_lines(fit: Fit) -> list[str]:
    contrast_error, offset_error = scaling_errors(fit)
    phi = fit.objective.term.geometry.phi
    rows = [
        (
            f"{float(phi[a]):.4g}",
            _number(float(fit.contrast[a]), 5),
            _number(float(contrast_error[a]), 2),
            _number(float(fit.offset[a]), 6),
            _number(float(offset_error[a]), 2),
        )
        for a in range(len(phi))
    ]
    return _table(("phi [deg]", "contrast", "error", "offset", "error"), rows)


def _fit_lines(fit: Fit) -> list[str]:
    objective = fit.objective
    loss = loss_of(objective)
    name = type(loss).__name__
    if isinstance(loss, SoftL1 | Huber | Cauchy | Arctan):
        name += f", bending at {float(loss.scale):.4g}"
    lines = [
        _entry("status", fit.message),
        _entry("solver", f"{fit.solver_name}; loss {name}"),
        _entry("evaluations", f"{fit.evaluations}, {fit.iterations} accepted"),
        _entry("chi²", f"{float(fit.chi2):.8g} with {fit.degrees_of_freedom} degrees of freedom"),
    ]
    if math.isfinite(fit.reduced_chi2):
        lines.append(_entry("reduced chi²", f"{fit.reduced_chi2:.6g}"))
    lines += [
        _entry("residual sd", f"{fit.residual_sd:.6g}"),
        _entry("condition", f"{float(fit.uncertainty.condition_number):.3g} of the normal matrix"),
        _entry("error bar", f"{fit.uncertainty.chosen}: {fit.uncertainty.reason}"),
    ]
    return lines


def _doubts(fit: Fit) -> list[str]:
    lines = []
    strong = strong_correlations(fit)
    if strong:
        lines += ["", f"Correlations above {STRONG_CORRELATION}"]
        lines += [f"  {a} with {b}: {c:+.4f}" for a, b, c in strong[:_MOST]]
        if len(strong) > _MOST:
            lines.append(f"  and {len(strong) - _MOST} more, in fit/covariance.npz")
    if fit.recovery:
        lines += ["", "Recovery"]
        lines += _items([f"{r.cause}: {r.action}; {r.outcome}" for r in fit.recovery])
    return lines


def text_report(
    fit: Fit,
    *,
    title: str = "Fit of two-time correlation maps",
    provenance: Provenance | None = None,
    scaling: str = "",
    decisions: Sequence[str] = (),
    profiles: Sequence[ProfileInterval] = (),
    timings: Mapping[str, float] | None = None,
) -> str:
    """The report of a fit.

    **Arguments:**

    - `provenance`: origin of the data.
    - `scaling`: which scaling ran and why.
    - `decisions`: what else was decided without the user, in sentences.
    - `profiles`: profile-likelihood intervals to quote.
    - `timings`: seconds by phase, in addition to those of the fit.
    """
    lines = [title, "=" * len(title), "", f"Quality: {fit.quality.flag.upper()}"]
    lines += _items(fit.quality.findings) or ["  nothing to object to"]
    lines += ["", "Data", *_data_lines(fit, provenance)]
    lines += ["", "Model", _entry("model", model_name(fit.model))]
    lines.append(_entry("scaling", scaling or type(fit.objective.term.scaling).__name__))
    lines += [_entry("decided", text) for text in decisions]
    lines += ["", "Fit", *_fit_lines(fit), ""]
    lines += _parameter_lines(fit, profiles)
    lines += ["", *_scaling_lines(fit)]
    lines += _doubts(fit)
    spent = {**dict(fit.timings), **(timings or {})}
    lines += ["", "Time", "  " + ", ".join(f"{k} {v:.2f} s" for k, v in spent.items())]
    return "\n".join(lines) + "\n"
