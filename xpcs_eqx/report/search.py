"""What a search for other minima came to, for the report and for parameters.json."""

from typing import Any

from ..search import GlobalFit
from .text import items


def search_lines(found: GlobalFit) -> list[str]:
    """A section of the text report: decisions, evaluations, the tables of minima and of runs."""
    lines = ["", "Search for the global minimum", *items(found.sentences())]
    for table in found.tables():
        lines += ["", *(f"  {line}" for line in table.splitlines())]
    return lines


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
        "multi_start": None
        if search is None
        else {
            "spent": [one._asdict() for one in search.spent],
            "noise": search.noise,
            "unfinished": search.unfinished,
            "starts": [dict(zip(search.names, row, strict=True)) for row in search.starts.tolist()],
            "costs": search.costs.tolist(),
        },
        "reason": None if search is None else search.reason,
        "degenerate": None if search is None else search.degenerate,
        "cma_es": None if found.cma is None else [run._asdict() for run in found.cma.runs],
    }
