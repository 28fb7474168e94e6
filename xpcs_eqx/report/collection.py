"""Several results folders side by side: one row each, as text, CSV and page."""

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from ..fitting import Exponent, line_of_logarithms
from .blocks import Block, Table, number, text_lines, with_error
from .derived import exponent_sections, relaxation_of
from .folder import no_results
from .page import Picture, page
from .sections import FIGURES, HEAD, Section

# The derived number that stands among the parameters: relaxation rate of c1.
GAMMA = "Γ"
Q = "q [1/Å]"
# Verdicts, the best first.
VERDICTS = ("good", "marginal", "poor")
# So many results stand side by side on a page.
_COLUMNS = 5


@dataclass(frozen=True)
class Result:
    """What stands in a results folder, or why there is none.

    - `name`: of the folder or the file; `verdict`: of the fit, or what went wrong.
    - `about`: what is known beside the parameters by name: q, metadata (numbers, times, texts).
    - `parameters`: value and error by name, NaN where there is none; `units` of them.
    - `exponent`: of q in Γ, as the model states it; `file`: with the maps.
    """

    name: str
    verdict: str
    about: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    exponent: float | None = None
    file: str = ""

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
    """The parameters of a results folder, all but contrasts and offsets.

    **Raises:** `ConfigError` when it is no results folder.
    """
    path = os.path.join(folder, "fit", "parameters.json")
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
        rows = {n: row for n, row in found["parameters"].items() if row["role"] != "scaling"}
        data, flag = found.get("data", {}), found["quality"]["flag"]
        known = {Q: data["q_per_angstrom"]} if "q_per_angstrom" in data else {}
        parameters = {n: (_plain(row["value"]), _plain(row["error"])) for n, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise no_results(folder, path, error) from error
    units = {n: row.get("unit", "") for n, row in rows.items()}
    if gamma := relaxation_of(found):
        parameters[GAMMA], units[GAMMA] = gamma, "1/s"
    name = name or os.path.basename(os.path.normpath(folder))
    exponent = found.get("derived", {}).get("exponent")
    file = str(data.get("file", ""))
    return Result(name, flag, {**known, **about}, parameters, units, exponent, file)


def exponents_of(results: Sequence[Result]) -> dict[str, Exponent]:
    """How Γ of results at several q depends on q, each fitted by itself.

    Of all of them, by an empty name; where a q occurs twice, which then is of another sample or
    another time, of each file by its name. Fewer than two q have no exponent.
    """
    known = [one for one in results if Q in one.about and GAMMA in one.parameters]
    places = [one.about[Q] for one in known]
    twice = len(set(places)) < len(places)
    files = dict.fromkeys(one.file for one in known) if twice else ("",)
    found = {
        file: _exponent_of([one for one in known if one.file == file or not twice])
        for file in files
    }
    return {file: one for file, one in found.items() if one is not None}


def _exponent_of(results: Sequence[Result]) -> Exponent | None:
    known = [(one.about[Q], *one.parameters[GAMMA]) for one in results]
    if len(known) < 2:
        return None
    q, gamma, error = np.array(known, dtype=float).T
    # What the models of all state, where that is one thing.
    stated = {one.exponent for one in results}
    expected = stated.pop() if len(stated) == 1 else None
    with np.errstate(divide="ignore", invalid="ignore"):
        return line_of_logarithms(q, gamma, np.diag((error / gamma) ** 2), expected)


def _names(results: Iterable[Result], what: str) -> list[str]:
    return list(dict.fromkeys(name for one in results for name in getattr(one, what)))


def _units(results: Iterable[Result]) -> dict[str, str]:
    """Every parameter with its unit, empty where it has none."""
    known = {n: unit for one in results for n, unit in one.units.items()}
    return {name: known.get(name, "") for name in _names(results, "parameters")}


def rows_of(results: Sequence[Result]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of a table with a row for each result; None where something is missing."""
    about, parameters = _names(results, "about"), _units(results)
    header = ["name", "verdict", *about]
    for name, unit in parameters.items():
        header += [f"{name} [{unit}]" if unit else name, f"error of {name}"]
    rows = []
    for one in results:
        row = [one.name, one.verdict, *(_known(one.about.get(name)) for name in about)]
        for name in parameters:
            row += one.parameters.get(name, (None, None))
        rows.append([None if isinstance(v, float) and math.isnan(v) else v for v in row])
    return header, rows


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

    What is the same number in all of them, and has no error, is said once.
    """
    columns = {
        name: [_cell(one.about.get(name)) for one in results] for name in _names(results, "about")
    }
    alike = [Q] if Q in columns else []
    for name, unit in _units(results).items():
        pairs = [one.parameters.get(name, (math.nan, math.nan)) for one in results]
        head = f"{name} [{unit}]" if unit else name
        columns[head] = [with_error(*pair) for pair in pairs]
        alike += [] if any(math.isfinite(error) for _, error in pairs) else [head]
    once = {
        head: columns.pop(head)[0]
        for head in alike
        if len(results) > 1 and len(set(columns[head])) == 1
    }
    cells = zip(*columns.values(), strict=True) if columns else [()] * len(results)
    rows = [[one.name, one.verdict, *row] for one, row in zip(results, cells, strict=True)]
    table = Table(["name", "verdict", *columns], rows)
    said = []
    for head, cell in once.items():
        name, _, unit = head.rstrip("]").partition(" [")
        said.append(f"{name} = {cell} {unit}".rstrip())
    return [table, *([f"the same in all of them: {', '.join(said)}"] if said else [])]


def as_page(
    title: str, results: Sequence[Result], pictures: Sequence[Picture] = (), beside: bool = False
) -> str:
    """A page with a row for each result, what they say of q, and figures.

    `beside`: a column for each result instead, where they are few.
    """
    about_q = [(one, ()) for one in exponent_sections(exponents_of(results))]
    few = beside and len(results) <= _COLUMNS
    content = [_beside(results)] if few else [_verdicts(results), *_pairs(results)]
    table = Section("Parameters", [*content, "value ± one standard error"], place=HEAD)
    return page(title, [(table, ()), *about_q, (Section("Figures", place=FIGURES), pictures)])


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
    for name, unit in _units(results).items():
        pairs = [one.parameters.get(name) for one in results]
        cells = ["-" if p is None else with_error(*p) for p in pairs]
        known = [p for p in pairs if p is not None and math.isfinite(p[0] + p[1])]
        apart = [
            abs(a[0] - b[0]) / math.hypot(a[1], b[1])
            for i, a in enumerate(known)
            for b in known[:i]
            if math.hypot(a[1], b[1]) > 0
        ]
        named = f"{name} [{unit}]" if unit else name
        rows.append([named, *cells, number(max(apart), 3) if apart else ""])
    return Table(["", *(one.name for one in results), "apart [errors]"], rows)


def comparison(results: Sequence[Result]) -> str:
    """A row for each parameter, a column for each result, and how far apart they are, as text."""
    lines = text_lines([_beside(results)])
    for section in exponent_sections(exponents_of(results)):
        lines += ["", section.title, *text_lines(section.content)]
    return "\n".join(lines)
