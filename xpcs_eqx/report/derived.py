"""Sections of what follows from the parameters: relaxation times, rates at ages, q."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..fitting import (
    Derived,
    Exponent,
    Fit,
    common_age,
    derived_values,
    q_exponent,
    stated_exponent,
)
from .fit import folders_of
from .maps import chosen_angles
from .method import called, unit_of
from .sections import (
    HEAD,
    TABLES,
    Block,
    Drawing,
    Section,
    Table,
    counted,
    number,
    plotting,
    value_and_error,
    with_error,
)

# What is said of a rate at an age, by its field: name, unit, factor.
RATES = {
    "transport": ("D", "Å²/s", 0.5),
    "relaxation": ("Γ", "1/s", 1.0),
    "spread": ("w", "Å/s", 1.0),
    "shear": ("shear rate", "1/s", 1.0),
    "velocity": ("v", "Å/s", 1.0),
}
_HALF_DECAY = (
    "half-decay: the lag at which |c1|² has fallen to one half, and c2 to its offset and half the "
    "contrast, for pairs that begin at that age"
)
_TAU = "; τ: relaxation time 1/Γ of c1 at that age"

# Angles in a table; the file has all of them.
_ANGLES = 4


def _pairs(values: np.ndarray, errors: np.ndarray) -> list[tuple[str, str]]:
    """Two cells for each value."""
    return [value_and_error(*map(float, pair)) for pair in zip(values, errors, strict=True)]


def _columns(fit: Fit, one: Derived) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """What is the same at all angles: heads of columns, and a value with its error at each age."""
    header, columns = [], []
    if np.all(np.isfinite(one.taus)):
        header, columns = ["τ [s]"], [_pairs(one.taus, one.tau_errors)]
    for name in filter(RATES.__contains__, one.rates):
        symbol, unit, factor = RATES[name]
        header.append(f"{symbol} [{unit_of(fit, unit)}]")
        columns.append(_pairs(factor * one.rates[name], factor * one.rate_errors[name]))
    return header, columns


def _by_age(one: Derived, header: Sequence[str], columns: Sequence[Sequence]) -> Table:
    """A row for each age."""
    head = ["age [s]", *(text for name in header for text in (name, "error"))]
    ages = (number(float(age), 4) for age in one.ages)
    pairs = zip(*columns, strict=True)
    return Table(head, [[age, *sum(row, ())] for age, row in zip(ages, pairs, strict=True)])


def _tables(fit: Fit, one: Derived) -> list[Block]:
    """What there is of each age; by angle only what differs between angles."""
    phi = np.asarray(fit.objective.term.geometry.phi)
    header, columns = _columns(fit, one)
    if phi.size == 1 or np.ptp(one.lags, axis=1).max() <= 1e-6 * one.lags.min():
        lags = _pairs(one.lags[:, 0], one.lag_errors[:, 0])
        said = ["The same at all angles."] if phi.size > 1 else []
        return [_by_age(one, ["half-decay [s]", *header], [lags, *columns]), *said]
    shown = chosen_angles(phi.size, _ANGLES)
    rows = [
        [number(float(age), 4), *(with_error(float(lags[a]), float(errors[a])) for a in shown)]
        for age, lags, errors in zip(one.ages, one.lags, one.lag_errors, strict=True)
    ]
    head = ["age [s]", *(f"{number(float(phi[a]), 4)}°" for a in shown)]
    blocks: list[Block] = ["Half-decay [s] at azimuths:", Table(head, rows)]
    if len(shown) < phi.size:
        blocks.append(f"All {phi.size} angles are in fit/parameters.json.")
    if columns:
        blocks += ["The same at all angles:", _by_age(one, header, columns)]
    return blocks


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
        "gamma_age_s": one.gamma_age,
    }


def derived_sections(fit: Fit, ages: Sequence[float] | None = None) -> list[Section]:
    """Half-decay lags and rates at ages of each data set, and how they depend on q.

    `ages` [s]: as of `derived_values`.
    """
    age = common_age(tuple(fit.parts.values()))
    every = {label: derived_values(part, ages, age) for label, part in fit.parts.items()}
    labels, out = folders_of(fit), []
    for label, one in every.items():
        content = _tables(fit.parts[label], one)
        if "shear" in one.means:
            mean, error = one.means["shear"], one.mean_errors["shear"]
            content.append(f"mean shear rate {with_error(mean, error)} 1/s")
        title = "Derived from the parameters"
        title += f" of {called(fit.parts[label])}" if labels[label] else ""
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
            row += value_and_error(float(value), float(value * error / gamma))
        rows.append(row)
    text = found.finding()
    if found.degrees > 0:
        text += f"; χ² = {found.statistic:.3g} about the line with "
        text += counted(found.degrees, "degree") + " of freedom"
    if found.age is not None:
        text += f"; Γ is that at the age of {number(found.age, 4)} s"
    each = {"": found}
    return Section(
        "How relaxation depends on q",
        [Table(header, rows), text],
        {"q": {**found._asdict(), "deviation": found.deviation, "finding": found.finding()}},
        figures=lambda: (Drawing("q", lambda: plotting().exponent_figure(each), about_q(each)),),
        place=HEAD,
    )


def exponent_sections(found: Mapping[str, Exponent]) -> list[Section]:
    """How relaxation depends on q: of all results by an empty name, or of each file by its own."""
    if set(found) <= {""}:
        return [exponent_section(one) for one in found.values()]
    rows = [
        [
            file,
            *value_and_error(one.slope, one.slope_error),
            number(one.statistic, 3) if one.degrees else "-",
            str(one.degrees),
        ]
        for file, one in found.items()
    ]
    header = ["file", "exponent of q in Γ", "error", "χ² about the line", "degrees of freedom"]
    expected = {one.expected for one in found.values()}
    stated = expected.pop() if len(expected) == 1 else None
    said = "2 is diffusion, 1 ballistic motion" if stated is None else f"the model has {stated:g}"
    bent = [file for file, one in found.items() if not one.straight]
    away = [file for file, one in found.items() if one.straight and not one.as_stated]
    if away:
        said += f"; more than three errors away: {', '.join(away)}"
    if bent:
        said += f"; not on a line, so that no exponent describes them: {', '.join(bent)}"
    content = [Table(header, rows), f"A line for each file; {said}."]
    return [Section("How relaxation depends on q", content, place=HEAD)]


def about_q(found: Mapping[str, Exponent]) -> str:
    """The caption of the figure of Γ(q)."""
    lines = [one.finding() for one in found.values()]
    which = f"the line {lines[0]}" if len(lines) == 1 else "a line for each file"
    return f"Relaxation rate Γ, relaxation time τ and D = Γ/q² of each q, with {which}."


def relaxation_of(document: Mapping) -> tuple[float, float] | None:
    """Γ and its error [1/s] in the document of one data set."""
    found = document.get("derived", {})
    pair = found.get("gamma_per_s"), found.get("gamma_error_per_s")
    return None if None in pair else (float(pair[0]), float(pair[1]))
