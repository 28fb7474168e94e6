"""The report in words and columns: what was fitted, what came out, what to doubt."""

import dataclasses
import math
import os
import textwrap
from collections.abc import Mapping, Sequence

from ..data import Provenance, is_mask
from ..fitting import Fit, ProfileInterval
from ..objective import (
    Arctan,
    Cauchy,
    Huber,
    MapTiles,
    PackedMaps,
    SoftL1,
    StoredTiles,
    TwoTimeTerm,
)
from ..physics import AbstractCorrelation, AbstractRate, LaminarFlow, PowerLawRate, Trapezoid
from ..uncertainty import loss_of
from .hybrid import hybrid_entries
from .results import STRONG_CORRELATION, scaling_errors, strong_correlations

WIDTH = 100
_MOST = 12


def number(value: float, digits: int = 6) -> str:
    """A number in a table; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns wide enough for their entries; the first to the left, the rest to the right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells):
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  " + "  ".join([first, *rest]).rstrip()

    return [line(header), "  " + "-" * (sum(widths) + 2 * len(widths) - 2), *map(line, rows)]


def entry(name: str, text: str) -> str:
    """A name with what is said of it."""
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:<16} ", subsequent_indent=" " * 19)


def items(texts: Sequence[str]) -> list[str]:
    """A list of sentences."""
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
    if not isinstance(term.tiles, MapTiles | PackedMaps | StoredTiles):
        return None
    n_angles, n = term.reference.shape[0], term.t.shape[0]
    return n_angles * (n * (n - 1) // 2) - n_pairs


def sigma_text(fit: Fit) -> str:
    """Whether sigma is known, and what becomes of errors and chi²."""
    term = fit.objective.term
    weights = getattr(term.tiles, "root_weights", None)
    relative = weights is not None and not is_mask(weights)
    if isinstance(term.tiles, StoredTiles):
        # Estimated noise weighs whole maps, where no sigma is stored for each pair.
        tiles = term.tiles
        relative = tiles.source.sigma_halves is not None or tiles.largest_root_weight != 1
    return (
        "given: chi² and errors are absolute"
        if term.absolute_sigma
        else "relative or estimated: it weighs the pairs, errors are scaled by the residuals"
        if relative
        else "not given: errors are scaled by the residuals"
    )


def _data_lines(fit: Fit, provenance: Provenance | None) -> list[str]:
    term = fit.objective.term
    t, phi = term.t, term.geometry.phi
    lines = []
    if provenance is not None:
        name = f"{os.path.basename(provenance.path)} ({provenance.layout})"
        sha = f", sha256 {provenance.sha256[:16]}…" if provenance.sha256 else ""
        lines.append(entry("file", name + sha))
    lines += [
        entry(
            "maps",
            f"{phi.shape[0]} angles, {t.shape[0]} frames, {float(t[0]):.6g} … {float(t[-1]):.6g} s",
        ),
        entry("q, gap", f"{float(term.geometry.q):.6g} 1/Å, {float(term.geometry.gap):.6g} Å"),
    ]
    pairs = f"{fit.n_pairs}, each unordered pair once, without the diagonal"
    masked = masked_pairs(term, fit.n_pairs)
    lines.append(entry("pairs", pairs + ("" if masked is None else f"; {masked} masked")))
    lines.append(entry("sigma", sigma_text(fit)))
    if provenance is not None:
        lines += [entry("note", note) for note in provenance.notes]
    return lines


def parameter_lines(fit: Fit, profiles: Sequence[ProfileInterval] = ()) -> list[str]:
    """The table of parameters."""
    header = ("parameter", "value", "error", "classical", "speckle", "dyadic", "unit", "")
    rows = []
    for row in fit.rows:
        if row.role == "scaling":
            continue
        role = "" if row.role == "free" else row.role
        remark = ", ".join(filter(None, (role, "on its bound" if row.at_bound else "")))
        errors = (row.error, row.error_classical, row.error_speckle, row.error_dyadic)
        rows.append(
            (row.name, number(row.value), *(number(e, 3) for e in errors), row.unit, remark)
        )
    lines = table(header, rows)
    for p in profiles:
        lines.append(
            f"  {p.name}: {p.low:.6g} … {p.high:.6g} at {p.level:.2%} by profile likelihood"
        )
    return lines


def scaling_lines(fit: Fit) -> list[str]:
    """The table of contrast and offset."""
    contrast_error, offset_error = scaling_errors(fit)
    phi = fit.objective.term.geometry.phi
    rows = [
        (
            f"{float(phi[a]):.4g}",
            number(float(fit.contrast[a]), 5),
            number(float(contrast_error[a]), 2),
            number(float(fit.offset[a]), 6),
            number(float(offset_error[a]), 2),
        )
        for a in range(len(phi))
    ]
    return table(("phi [deg]", "contrast", "error", "offset", "error"), rows)


def fit_lines(fit: Fit) -> list[str]:
    """How the minimum was found, and how good it is."""
    # One loss serves for all data sets.
    loss = loss_of(next(iter(fit.parts.values())).objective)
    name = type(loss).__name__
    if isinstance(loss, SoftL1 | Huber | Cauchy | Arctan):
        name += f", bending at {float(loss.scale):.4g}"
    lines = [
        entry("status", fit.message),
        entry("solver", f"{fit.solver_name}; loss {name}"),
        entry("evaluations", f"{fit.evaluations}, {fit.iterations} accepted"),
        entry("chi²", f"{float(fit.chi2):.8g} with {fit.degrees_of_freedom} degrees of freedom"),
    ]
    if math.isfinite(fit.reduced_chi2):
        lines.append(entry("reduced chi²", f"{fit.reduced_chi2:.6g}"))
    lines += [
        entry("residual sd", f"{fit.residual_sd:.6g}"),
        entry("condition", f"{float(fit.uncertainty.condition_number):.3g} of the normal matrix"),
        entry("error bar", f"{fit.uncertainty.chosen}: {fit.uncertainty.reason}"),
    ]
    return lines


def doubts(fit: Fit) -> list[str]:
    """Strong correlations, and what was done about failures."""
    lines = []
    strong = strong_correlations(fit)
    if strong:
        lines += ["", f"Correlations above {STRONG_CORRELATION}"]
        lines += [f"  {a} with {b}: {c:+.4f}" for a, b, c in strong[:_MOST]]
        if len(strong) > _MOST:
            lines.append(f"  and {len(strong) - _MOST} more, in fit/covariance.npz")
    if fit.recovery:
        lines += ["", "Recovery"]
        lines += items([f"{r.cause}: {r.action}; {r.outcome}" for r in fit.recovery])
    return lines


def time_lines(fit: Fit, timings: Mapping[str, float] | None) -> list[str]:
    """Seconds by phase."""
    spent = {**dict(fit.timings), **(timings or {})}
    return ["", "Time", "  " + ", ".join(f"{k} {v:.2f} s" for k, v in spent.items())]


def text_report(
    fit: Fit,
    *,
    title: str = "Fit of two-time correlation maps",
    provenance: Provenance | None = None,
    scaling: str = "",
    decisions: Sequence[str] = (),
    profiles: Sequence[ProfileInterval] = (),
    timings: Mapping[str, float] | None = None,
    sections: Sequence[str] = (),
) -> str:
    """The report of a fit.

    **Arguments:**

    - `provenance`: origin of the data.
    - `scaling`: which scaling ran and why.
    - `decisions`: what else was decided without the user, in sentences.
    - `profiles`: profile-likelihood intervals to quote.
    - `timings`: seconds by phase, in addition to those of the fit.
    - `sections`: further lines, such as those of a posterior.
    """
    lines = [title, "=" * len(title), "", f"Quality: {fit.quality.flag.upper()}"]
    lines += items(fit.quality.findings) or ["  nothing to object to"]
    lines += ["", "Data", *_data_lines(fit, provenance)]
    lines += ["", "Model", entry("model", model_name(fit.model))]
    lines.append(entry("scaling", scaling or type(fit.objective.term.scaling).__name__))
    lines += [entry("decided", text) for text in decisions]
    lines += ["", "Fit", *fit_lines(fit)]
    if fit.prepared:
        lines += [entry(name, text) for name, text in hybrid_entries(fit)]
    lines += ["", *parameter_lines(fit, profiles)]
    lines += ["", *scaling_lines(fit)]
    lines += [*doubts(fit), *sections]
    lines += time_lines(fit, timings)
    return "\n".join(lines) + "\n"
