"""Sections of what follows from the parameters: relaxation times, rates at ages, q."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..fitting import Derived, Exponent, Fit, derived_values, q_exponent, stated_exponent
from .blocks import Block, Table, counted, number
from .fit import folders_of
from .maps import chosen_angles
from .method import unit_of
from .sections import HEAD, TABLES, Drawing, Section

# What is said of a rate at an age, by its field: name, unit, factor.
_RATES = {
    "transport": ("D", "Å²/s", 0.5),
    "relaxation": ("Γ", "1/s", 1.0),
    "spread": ("w", "Å/s", 1.0),
    "shear": ("shear rate", "1/s", 1.0),
    "velocity": ("v", "Å/s", 1.0),
}
_HALF_DECAY = (
    "half-decay: the lag at which c2 has fallen half of the way from its contrast to its offset, "
    "of pairs that begin at that age"
)
_TAU = "; τ: relaxation time 1/Γ of c1 at that age"

# Angles in a table; the file has all of them.
_ANGLES = 4


def _rows(fit: Fit, one: Derived) -> tuple[list[str], list[list[str]]]:
    phi = np.asarray(fit.objective.term.geometry.phi)
    rates = {name: _RATES[name] for name in one.rates if name in _RATES}
    header = ["age [s]", "phi [deg]", "half-decay [s]", "error"]
    has_tau = bool(np.all(np.isfinite(one.taus)))
    header += ["τ [s]", "error"] if has_tau else []
    for name, unit, _ in rates.values():
        header += [f"{name} [{unit_of(fit, unit)}]", "error"]
    # All angles at once where none of them decays in another way.
    alike = np.ptp(one.lags, axis=1).max() <= 1e-6 * one.lags.min() if phi.size > 1 else True
    shown = [0] if alike else chosen_angles(phi.size, _ANGLES)
    rows = []
    for i, age in enumerate(one.ages):
        for a in shown:
            where = "all" if alike and phi.size > 1 else number(float(phi[a]), 4)
            row = [number(float(age), 4), where]
            row += [number(float(one.lags[i, a]), 4), number(float(one.lag_errors[i, a]), 2)]
            if has_tau:
                row += [number(float(one.taus[i]), 4), number(float(one.tau_errors[i]), 2)]
            for name, (_, _, factor) in rates.items():
                found = one.rates[name][i], one.rate_errors[name][i]
                row += [number(factor * float(v), n) for v, n in zip(found, (5, 2), strict=True)]
            rows.append(row)
    return header, rows


def _document(fit: Fit, one: Derived) -> dict[str, object]:
    return {
        "exponent": stated_exponent(fit.model),
        "ages_s": one.ages,
        "half_decay_s": one.lags,
        "half_decay_error_s": one.lag_errors,
        "tau_s": one.taus,
        "tau_error_s": one.tau_errors,
        "rates": one.rates,
        "rate_errors": one.rate_errors,
        "mean_rates": one.means,
        "mean_rate_errors": one.mean_errors,
        "q_per_angstrom": one.q,
        "gamma_per_s": one.gamma,
        "gamma_error_per_s": one.gamma_error,
    }


def derived_sections(fit: Fit, ages: Sequence[float] | None = None) -> list[Section]:
    """Half-decay lags and rates at ages of each data set, and how they depend on q.

    `ages` [s]: as of `derived_values`.
    """
    every = {label: derived_values(part, ages) for label, part in fit.parts.items()}
    labels, out = folders_of(fit), []
    for label, one in every.items():
        header, rows = _rows(fit.parts[label], one)
        content: list[Block] = [Table(header, rows)]
        if len(rows) > one.ages.size and one.lags.shape[1] > _ANGLES:
            content.append(f"all {one.lags.shape[1]} angles are in fit/parameters.json")
        if "shear" in one.means:
            mean, error = one.means["shear"], one.mean_errors["shear"]
            content.append(f"mean shear rate {number(mean, 5)} ± {number(error, 2)} 1/s")
        title = "Derived from the parameters" + (f", {label}" if labels[label] else "")
        if not out:
            content.append(_HALF_DECAY + (_TAU if np.all(np.isfinite(one.taus)) else ""))
        out.append(Section(title, content, place=TABLES if fit.data_sets else HEAD))
    documents = {label: _document(fit.parts[label], one) for label, one in every.items()}
    alone = len(every) == 1 and not next(iter(labels.values()))
    document = {"derived": next(iter(documents.values())) if alone else documents}
    out[0] = dataclasses.replace(out[0], document=document)
    found = q_exponent(fit, tuple(every.values())) if fit.data_sets else None
    return out if found is None else [*out, exponent_section(found)]


def exponent_section(found: Exponent) -> Section:
    """How relaxation depends on q: Γ, τ = 1/Γ and D = Γ/q² of each, and the exponent."""
    header = ["q [1/Å]", "Γ [1/s]", "error", "τ [s]", "error", "D [Å²/s]", "error"]
    rows = []
    for q, gamma, error in zip(found.q, found.gamma, found.error, strict=True):
        row = [number(float(q), 6)]
        for value in (gamma, 1 / gamma, gamma / q**2):
            row += [number(float(value), 5), number(float(value * error / gamma), 2)]
        rows.append(row)
    text = found.finding()
    if found.degrees > 0:
        text += f"; χ² = {found.statistic:.3g} about the line with "
        text += counted(found.degrees, "degree") + " of freedom"
    return Section(
        "How relaxation depends on q",
        [Table(header, rows), text],
        {"q": {**found._asdict(), "deviation": found.deviation, "finding": found.finding()}},
        figures=lambda: _drawings(found),
        place=HEAD,
    )


def _drawings(found: Exponent) -> Sequence[Drawing]:
    # Not at the top: importing matplotlib takes a third of a second.
    from .plots import exponent_figure

    return (Drawing("q", lambda: exponent_figure(found), about_q(found)),)


def about_q(found: Exponent) -> str:
    """The caption of the figure of Γ(q)."""
    return (
        "Relaxation rate Γ, relaxation time τ and D = Γ/q² of each q, with the line "
        f"{found.finding()}."
    )


def relaxation_of(document: Mapping) -> tuple[float, float] | None:
    """Γ and its error [1/s] in the document of one data set."""
    found = document.get("derived", {})
    pair = found.get("gamma_per_s"), found.get("gamma_error_per_s")
    return None if None in pair else (float(pair[0]), float(pair[1]))
