"""The section on g2(τ) at chosen ages, and its file."""

import csv
from collections.abc import Sequence

import numpy as np

from ..fitting import AgedG2
from .blocks import Block, Table, number, value_and_error
from .sections import Drawing, Section

# Angles of which curves are cut out.
G2_ANGLES = 4
_HEADER = ("age [s]", "phi [deg]", "τ0 [s]", "error", "stretch", "error", "half-decay [s]", "error")
_MEANING = (
    "The usual practice, for comparison: c2 of pairs of an age (t1 + t2)/2, averaged in steps of "
    "lag, and offset + contrast · exp(−2 (τ/τ0)^stretch) fitted to each angle by itself as if "
    "nothing aged within the window. The last column but one is the half-decay of the fit of the "
    "whole maps over the same pairs; the curves are in {}."
)
_CAPTION = (
    "g2(τ) at chosen ages: points with one standard error, solid lines the stretched exponential "
    "of each window, dashed ones the fit of the whole maps over the same pairs. Where dashed lines "
    "miss their points the ageing of the model is not that of the sample."
)


def _row(one: AgedG2) -> tuple[str, ...]:
    found = [(one.tau, one.tau_error), (one.stretch, one.stretch_error)]
    found.append((one.half_decay, one.half_decay_error))
    cells = [text for value, error in found for text in value_and_error(value, error)]
    age = f"{number(one.between[0], 4)} … {number(one.between[1], 4)}"
    return (age, number(one.phi, 4), *cells, number(one.half_decay_beside, 4), one.fit.quality.flag)


def _write(path: str, curves: Sequence[AgedG2]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ("age_s", "phi_deg", "lag_s", "g2", "error", "pairs", "stretched", "fit_of_maps")
        )
        for one in curves:
            columns = (one.lag, one.g2, one.error, one.pairs, one.curve, one.beside)
            for row in zip(*columns, strict=True):
                cells = ("" if np.isnan(cell) else cell.item() for cell in row)
                writer.writerow((one.age, one.phi, *cells))


def g2_section(curves: Sequence[AgedG2], label: str = "", name: str = "") -> Section:
    """A line for each age and angle, their curves as a file, and a figure.

    `label`, `name`: of one of several data sets, and of its folder.
    """
    inside = f"fit/{name}" if name else "fit"
    header = (*_HEADER, "of the maps [s]", "verdict")
    content: list[Block] = [
        _MEANING.format(f"{inside}/g2.csv"),
        Table(header, [_row(one) for one in curves]),
    ]
    kept = ("age", "between", "phi", "tau", "tau_error", "stretch", "stretch_error")
    kept += ("half_decay", "half_decay_error", "half_decay_beside")
    units = {"age": "age_s", "between": "between_s", "phi": "phi_deg", "tau": "tau_s"}
    units |= {n: f"{n}_s" for n in kept if n.startswith("half") or n == "tau_error"}
    found = [
        {
            **{units.get(n, n): getattr(one, n) for n in kept},
            "contrast": one.fit.contrast[0],
            "offset": one.fit.offset[0],
            "verdict": one.fit.quality.flag,
            "findings": one.fit.quality.findings,
        }
        for one in curves
    ]
    return Section(
        "g2(τ) at chosen ages" + (f", {label}" if name else ""),
        content,
        {},
        {
            f"{inside}/g2.csv": lambda path: _write(path, curves),
            f"{inside}/g2.json": {"curves": found},
        },
        figures=lambda: _drawings(curves),
        folder=name,
    )


def _drawings(curves: Sequence[AgedG2]) -> Sequence[Drawing]:
    # Not at the top: importing matplotlib takes a third of a second.
    from .plots import g2_figure

    return (Drawing("g2", lambda: g2_figure(curves), _CAPTION),)
