"""Degeneracy, diagnostics and fits to single angles, as lines and as plain values."""

from collections.abc import Sequence
from typing import Any

from ..fitting import DegeneracyReport, Diagnostics, SequentialFit
from .text import items, number, table


def examined_lines(
    degeneracy: DegeneracyReport | None,
    diagnostics: Diagnostics | None,
    sequential: SequentialFit | None,
    failures: Sequence[str] = (),
) -> list[str]:
    """Sections of the text report for what there is."""
    lines: list[str] = []
    if degeneracy is not None:
        lines += ["", "What the data leave open", *items(degeneracy.sentences())]
        if degeneracy.advice:
            lines += ["", "What to do about it"]
            lines += items([one.sentence() for one in degeneracy.advice])
    if diagnostics is not None:
        lines += ["", "Diagnostics", *(f"  {line}" for line in diagnostics.report().splitlines())]
    if sequential is not None:
        lines += ["", "Each angle by itself", *sequential_lines(sequential)]
    if failures:
        lines += ["", "Not done", *items(failures)]
    return lines


def sequential_lines(fit: SequentialFit) -> list[str]:
    """The combination, then a line for each angle."""
    rows = [
        (row.name, number(row.value), number(row.error, 3), row.unit, str(row.angles))
        for row in fit.rows
    ]
    lines = table(("parameter", fit.combination, "error", "unit", "angles"), rows)
    names = fit.parameters.free_names
    cells = [
        (
            f"{float(fit.phi[a]):.4g}",
            *(f"{number(one[n].value, 5)} ± {number(one[n].error, 2)}" for n in names),
        )
        for a, one in zip(fit.angles, fit.fits, strict=True)
    ]
    return [*lines, "", *table(("phi [deg]", *names), cells), *items(fit.findings)]


def examined_documents(
    degeneracy: DegeneracyReport | None,
    diagnostics: Diagnostics | None,
    sequential: SequentialFit | None,
) -> dict[str, dict[str, Any]]:
    """What there is, by the name of its JSON file."""
    out: dict[str, dict[str, Any]] = {}
    if degeneracy is not None:
        out["degeneracy"] = degeneracy.document()
    if diagnostics is not None:
        out["diagnostics"] = diagnostics._asdict()
    if sequential is not None:
        out["sequential"] = {
            "combination": sequential.combination,
            "success_rate": sequential.success_rate,
            "parameters": {
                row.name: {k: v for k, v in row._asdict().items() if k != "name"}
                for row in sequential.rows
            },
            "covariance": sequential.covariance,
            "heterogeneity": sequential.heterogeneity._asdict(),
            "angles": [
                {
                    "phi_deg": float(sequential.phi[a]),
                    "parameters": {
                        n: {"value": one[n].value, "error": one[n].error}
                        for n in sequential.parameters.free_names
                    },
                    "contrast": one.contrast[0],
                    "offset": one.offset[0],
                    "residual_sd": one.residual_sd,
                }
                for a, one in zip(sequential.angles, sequential.fits, strict=True)
            ],
            "failed": [one._asdict() for one in sequential.failed],
            "findings": sequential.findings,
        }
    return out
