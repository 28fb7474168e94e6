"""What a search for other minima came to, for the report and for parameters.json."""

from typing import Any

from ..search import GlobalFit
from .text import items, table


def search_lines(found: GlobalFit) -> list[str]:
    """A section of the text report: decisions, the table of minima, evaluations."""
    spent = ", ".join(f"{one.what} {one.evaluations}" for one in found.spent)
    lines = ["", "Search for the global minimum"]
    lines += items(
        [*found.decisions, f"{found.evaluations} evaluations: {spent}; kept is {found.method}"]
    )
    if found.search is not None:
        lines += ["", *_minima(found)]
    if found.cma is not None:
        lines += items(found.cma.reasons)
        lines += ["", *(f"  {line}" for line in found.cma.table().splitlines())]
    return lines


def _minima(found: GlobalFit) -> list[str]:
    search = found.search
    assert search is not None
    header = ("minimum", "chi²", "excess", "fits", "distance", *search.names, "")
    rows = []
    for k, basin in enumerate(search.basins, 1):
        remarks = ["flat valley"] * basin.degenerate
        remarks += ["as good as the first"] * (k > 1 and basin in search.equal)
        remarks += ["not refined"] * (not basin.refined)
        numbers = (f"{basin.chi2:.6g}", f"{basin.excess:.3g}", str(len(basin.members)))
        values = (f"{value:.4g}" for value in basin.values)
        rows.append((str(k), *numbers, f"{basin.distance:.3g}", *values, ", ".join(remarks)))
    return table(header, rows)


def search_document(found: GlobalFit) -> dict[str, Any]:
    """The same for a script."""
    search = found.search
    return {
        "method": found.method,
        "decisions": found.decisions,
        "evaluations": found.evaluations,
        "spent": [one._asdict() for one in found.spent],
        "minima": []
        if search is None
        else [
            {**basin._asdict(), "values": dict(zip(search.names, basin.values, strict=True))}
            for basin in search.basins
        ],
        "reason": None if search is None else search.reason,
        "degenerate": None if search is None else search.degenerate,
        "cma_es": None if found.cma is None else [run._asdict() for run in found.cma.runs],
    }
