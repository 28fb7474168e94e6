"""Several results folders side by side: one row each, as text, CSV and page."""

import csv
import dataclasses
import io
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..fitting import Exponent, line_of_logarithms
from ..showing import counts_frames, per_frame, without_q
from .derived import RATES, exponent_sections, relaxation_of
from .folder import checksums_of, stored
from .page import Picture, page
from .sections import (
    FIGURES,
    HEAD,
    Block,
    Section,
    Table,
    by_frame,
    items,
    number,
    text_lines,
    with_error,
)

# The derived number that stands among the parameters: relaxation rate of c1.
GAMMA = "Γ"
Q = "q [1/Å]"
# That at which Γ is taken, since rates may depend on it.
AGE = "age of Γ [s]"
_AGES = AGE, per_frame(AGE)
# Verdicts, the best first.
POOR = "poor"
VERDICTS = ("good", "marginal", POOR)
# So many results stand side by side on a page.
_COLUMNS = 5


@dataclass(frozen=True)
class Result:
    """What stands in a results folder, or why there is none.

    - `name`: of the folder or the file; `verdict`: of the fit, or what went wrong.
    - `about`: what is known beside the parameters by name: q, metadata (numbers, times, texts).
    - `parameters`: value and error by name, NaN where there is none; `units` of them.
    - `more`: as `parameters`, of contrasts, offsets and what follows from the parameters; for files
        alone, since there are many.
    - `exponent`: of q in Γ, as the model states it; `file`: with the maps; `sha256` of it.
    """

    name: str
    verdict: str
    about: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    exponent: float | None = None
    file: str = ""
    sha256: str = ""

    @property
    def counts_frames(self) -> bool:
        """Whether its times are numbers of frames, as no frame time is known."""
        return counts_frames(self.units.values())

    @property
    def good(self) -> bool:
        """Whether there is a fit to rely on."""
        return self.verdict == "good"


def number_of(value: Any) -> float | None:
    """A number by which results are sorted and drawn: of a time, seconds; None for a text."""
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, float | int) else None


def _plain(value: Any) -> float:
    return math.nan if value is None else float(value)


def read_result(folder: str, name: str = "", about: Mapping[str, Any] = {}) -> Result:
    """What stands in a results folder.

    **Raises:** `ConfigError` when it is no results folder.
    """
    with stored(folder, "fit", "parameters.json") as found:
        data, flag = found.get("data", {}), found["quality"]["flag"]
        known = {Q: data["q_per_angstrom"]} if "q_per_angstrom" in data else {}
        rows, parameters, more = found["parameters"], {}, {}
        for key, row in rows.items():
            of = more if row["role"] == "scaling" else parameters
            of[key] = (_plain(row["value"]), _plain(row["error"]))
        more |= _derived(found.get("derived", {}), data)
    units = {n: row.get("unit", "") for n, row in rows.items()}
    # Of data whose frame time is not known seconds are frames.
    said = per_frame if counts_frames(units.values()) else str
    more = {said(name): pair for name, pair in more.items()}
    if gamma := relaxation_of(found):
        parameters[GAMMA], units[GAMMA] = gamma, said("1/s")
        age = found["derived"].get("gamma_age_s")
        known |= {} if age is None else {said(AGE): float(f"{age:.6g}")}
    name = name or os.path.basename(os.path.normpath(folder))
    exponent = found.get("derived", {}).get("exponent")
    file, sha256 = str(data.get("file", "")), _checksum(folder)
    return Result(name, flag, {**known, **about}, parameters, units, more, exponent, file, sha256)


def _checksum(folder: str) -> str:
    """That of the maps behind a results folder, empty where it does not say, or of several sets."""
    try:
        return checksums_of(folder, 1)[0]
    except ConfigError:
        return ""


def _derived(found: Mapping[str, Any], data: Mapping) -> dict[str, tuple[float, float]]:
    """Half-decay lags and relaxation times at ages, and mean rates, by what they are called."""
    if "ages_s" not in found:
        return {}
    out: dict[str, Sequence[Any]] = {}
    lags = zip(found["half_decay_s"], found["half_decay_error_s"], strict=True)
    times = zip(found["tau_s"], found["tau_error_s"], strict=True)
    for age, pairs, tau in zip(found["ages_s"], lags, times, strict=True):
        for angle, lag in zip(data["phi_deg"], zip(*pairs, strict=True), strict=True):
            out[f"half-decay at {age:.6g} s and {angle:.6g}° [s]"] = lag
        out[f"τ at {age:.6g} s [s]"] = tau
    for name, (symbol, unit, factor) in RATES.items():
        if name not in found["mean_rates"]:
            continue
        pair = [_plain(found[key][name]) for key in ("mean_rates", "mean_rate_errors")]
        unit = unit if "q_per_angstrom" in data else without_q(unit)
        out[f"mean {symbol} [{unit}]"] = [factor * one for one in pair]
    pairs = {name: (_plain(value), _plain(error)) for name, (value, error) in out.items()}
    return {name: pair for name, pair in pairs.items() if not math.isnan(pair[0])}


def exponents_of(results: Sequence[Result]) -> dict[str, Exponent]:
    """How Γ of results at several q depends on q, each fitted by itself.

    Of all of them, by an empty name; of each file by its name where one of several has several q,
    for another file is of another sample or another time. Poor fits do not count. Fewer than two q
    have no exponent, and neither several results at a q of a file nor Γ of different ages belong to
    one line.
    """
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for one in results:
        if _on_line(one):
            groups[one.file, one.sha256].append(one)
    if all(len(group) == 1 for group in groups.values()) or len(groups) == 1:
        named = {"": [one for group in groups.values() for one in group]}
    else:
        times = Counter(file for file, _ in groups)
        named = {
            file if times[file] == 1 else f"{file} (sha256 {sha256[:8]}…)": group
            for (file, sha256), group in groups.items()
        }
    return {name: found for name, group in named.items() if (found := _exponent_of(group))}


def _of_one_age(results: Sequence[Result]) -> bool:
    return len({_age(one) for one in results}) < 2


def _age(one: Result) -> Any:
    """That of Γ, where it is known."""
    return next((one.about[name] for name in _AGES if name in one.about), None)


def _has_gamma(one: Result) -> bool:
    return Q in one.about and GAMMA in one.parameters


def _on_line(one: Result) -> bool:
    """Whether a result says something of how Γ depends on q."""
    return _has_gamma(one) and one.verdict != POOR


def _about_q(results: Sequence[Result]) -> list[Section]:
    """How relaxation depends on q, and what was left out."""
    sections = exponent_sections(exponents_of(results))
    poor = [one for one in results if _has_gamma(one) and not _on_line(one)]
    shown = [one for one in results if _on_line(one)]
    if not sections and len({one.about[Q] for one in shown}) > 1 and not _of_one_age(shown):
        said = f"No exponent: {AGE.partition(' [')[0]} differs, and rates may depend on it."
        return [Section("How relaxation depends on q", [said], place=HEAD)]
    if sections and poor:
        names = ", ".join(f"{one.name} at q = {one.about[Q]:.6g} 1/Å" for one in poor)
        said = [*sections[0].content, f"Without poor fits: {names}."]
        sections[0] = dataclasses.replace(sections[0], content=said)
    return by_frame(sections) if any(one.counts_frames for one in results) else sections


def _exponent_of(results: Sequence[Result]) -> Exponent | None:
    known = [(one.about[Q], *one.parameters[GAMMA]) for one in results]
    if len(known) < 2 or len({q for q, *_ in known}) < len(known) or not _of_one_age(results):
        return None
    q, gamma, error = np.array(known, dtype=float).T
    # What the models of all state, where that is one thing.
    stated = {one.exponent for one in results}
    expected = stated.pop() if len(stated) == 1 else None
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = np.diag((error / gamma) ** 2)
        return line_of_logarithms(q, gamma, covariance, expected, _age(results[0]))


def _names(results: Iterable[Result], what: str) -> list[str]:
    return list(dict.fromkeys(name for one in results for name in getattr(one, what)))


def _pairs_by_unit(
    results: Sequence[Result],
) -> dict[tuple[str, str], list[tuple[float, float] | None]]:
    """What each result has of every parameter, by its name and unit: in another it is another."""
    every = dict.fromkeys((n, one.units.get(n, "")) for one in results for n in one.parameters)
    return {
        (name, unit): [
            one.parameters.get(name) if one.units.get(name, "") == unit else None for one in results
        ]
        for name, unit in every
    }


def _head(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def rows_of(results: Sequence[Result]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of a table with a row for each result; None where something is missing."""
    about, parameters = _names(results, "about"), _pairs_by_unit(results)
    more = _in_common(results)
    header = ["name", "verdict", *about]
    for name, unit in parameters:
        header += [_head(name, unit), f"error of {name}"]
    header += [text for name in more for text in (name, f"error of {name}")]
    rows = []
    for k, one in enumerate(results):
        row = [one.name, one.verdict, *(_known(one.about.get(name)) for name in about)]
        for pairs in parameters.values():
            row += pairs[k] or (None, None)
        for name in more:
            row += one.more.get(name, (None, None))
        rows.append([None if isinstance(v, float) and math.isnan(v) else v for v in row])
    return header, rows


def _in_common(results: Sequence[Result]) -> list[str]:
    """What more is known of all results that have parameters: ages may be others in each."""
    fitted = [one for one in results if one.parameters]
    return [name for name in _names(fitted[:1], "more") if all(name in one.more for one in fitted)]


def _known(value: Any) -> Any:
    """What is known of a result; a time as text, as in files."""
    return value.isoformat() if isinstance(value, datetime) else value


def as_csv(results: Sequence[Result]) -> str:
    """A row for each result, numbers in full."""
    header, rows = rows_of(results)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return out.getvalue()


def _cell(value: Any, digits: int = 6) -> str:
    if value is None:
        return "-"
    return number(value, digits) if isinstance(value, float) else str(_known(value))


def _pairs(results: Sequence[Result]) -> list[Block]:
    """A row for each result with value and error as one, for people.

    What is the same number in all fits, and has no error, is said once; why there is no fit stands
    below.
    """
    columns = {
        name: [_cell(one.about.get(name)) for one in results] for name in _names(results, "about")
    }
    alike = [name for name in (Q, *_AGES) if name in columns]
    for named, found in _pairs_by_unit(results).items():
        pairs, head = [pair or (math.nan, math.nan) for pair in found], _head(*named)
        columns[head] = [with_error(*pair) for pair in pairs]
        alike += [] if any(math.isfinite(error) for _, error in pairs) else [head]
    fitted = [k for k, one in enumerate(results) if one.parameters]
    once = {
        head: columns.pop(head)[fitted[0]]
        for head in alike
        if len(fitted) > 1 and len({columns[head][k] for k in fitted}) == 1
    }
    cells = zip(*columns.values(), strict=True) if columns else [()] * len(results)
    verdicts = [one.verdict.partition(": ") for one in results]
    named = zip(results, verdicts, cells, strict=True)
    rows = [[one.name, verdict[0], *row] for one, verdict, row in named]
    table = Table(["name", "verdict", *columns], rows)
    # Why there is none would be the widest column.
    whys = zip(results, verdicts, strict=True)
    reasons = items([f"{one.name}: {why}" for one, (_, _, why) in whys if why])
    said = []
    for head, cell in once.items():
        name, _, unit = head.rstrip("]").partition(" [")
        said.append(f"{name} = {cell} {unit}".rstrip())
    return [
        table,
        *([f"the same in all fits: {', '.join(said)}"] if said else []),
        *reasons,
    ]


def as_page(
    title: str, results: Sequence[Result], pictures: Sequence[Picture] = (), beside: bool = False
) -> str:
    """A page with a row for each result, what they say of q, and figures.

    `beside`: a column for each result instead, where they are few.
    """
    about_q = [(one, ()) for one in _about_q(results)]
    few = beside and len(results) <= _COLUMNS
    table = [_beside(results)] if few else [_verdicts(results), *_pairs(results)]
    content: list[Block] = [*table, "value ± one standard error"]
    if not beside and _in_common(results):
        content.append(
            "Contrasts, offsets, half-decay lags and relaxation times are in the CSV file."
        )
    head = Section("Parameters", content, place=HEAD)
    return page(title, [(head, ()), *about_q, (Section("Figures", place=FIGURES), pictures)])


def _verdicts(results: Sequence[Result]) -> str:
    """How many are good, and how many are not."""
    words = Counter(one.verdict.partition(":")[0] for one in results)
    first = [word for word in VERDICTS if word in words]
    rest = [word for word in words if word not in VERDICTS]
    return ", ".join(f"{words[word]} {word}" for word in [*first, *rest])


def _beside(results: Sequence[Result]) -> Table:
    """A row for each parameter, a column for each result, and how far apart they are."""
    rows = [["verdict", *(one.verdict for one in results), ""]]
    for name in _names(results, "about"):
        rows.append([name, *(_cell(one.about.get(name)) for one in results), ""])
    for (name, unit), pairs in _pairs_by_unit(results).items():
        cells = ["-" if p is None else with_error(*p) for p in pairs]
        known = [p for p in pairs if p is not None and math.isfinite(p[0] + p[1])]
        # Rates of different ages may differ by right.
        known = [] if name == GAMMA and not _of_one_age(results) else known
        apart = [
            abs(a[0] - b[0]) / math.hypot(a[1], b[1])
            for i, a in enumerate(known)
            for b in known[:i]
            if math.hypot(a[1], b[1]) > 0
        ]
        rows.append([_head(name, unit), *cells, number(max(apart), 3) if apart else ""])
    return Table(["", *(one.name for one in results), "apart [errors]"], rows)


def comparison(results: Sequence[Result]) -> str:
    """A row for each parameter, a column for each result, and how far apart they are, as text."""
    lines = text_lines([_beside(results)])
    for section in _about_q(results):
        lines += ["", section.title, *text_lines(section.content)]
    return "\n".join(lines)
