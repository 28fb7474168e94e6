"""What the layers of defence did, for the report and for parameters.json."""

from typing import Any

from ..defences import DefenceReport
from ..fitting import Fit
from .text import entry


def defence_lines(report: DefenceReport, fit: Fit) -> list[str]:
    """A section of the text report: one entry a layer, and the outer iterations."""
    lines = ["", "Defences", *(entry(name, text) for name, text in report.entries())]
    if fit.outer is not None:
        lines += ["", *(f"  {line}" for line in fit.outer.report().splitlines())]
    return lines


def defence_document(report: DefenceReport, fit: Fit) -> dict[str, Any]:
    """The same as plain numbers."""
    out = report.document()
    if fit.outer is not None:
        out["outer"] = dict(fit.outer.__dict__)
    return out
