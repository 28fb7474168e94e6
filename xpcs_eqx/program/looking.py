"""What is in a file, before anything is fitted: `xpcs-eqx show`."""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data import (
    PooledData,
    TwoTimeData,
    frame_intensities,
    load_each,
    noise_by_angle,
)
from ..report.method import Origin
from ..report.sections import Block, Entry, Table, by_frame, counted, number, text_lines
from ..scaling import half_decays, quantile_scaling

DataSets = Sequence[TwoTimeData | PooledData]


def given_reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said of how to read a file, by the keywords of `load`."""
    asked = {name: getattr(arguments, name) for name in ("layout", "analysis", "dt", "q", "phi")}
    return {name: value for name, value in asked.items() if value is not None}


def data_of(path: str, how: dict[str, Any]) -> DataSets:
    """The data of a file, one for each q.

    **Raises:** `DataError` for everything that makes them unusable.
    """
    return load_each(path, checksum=False, **_one_azimuth(how))


def _one_azimuth(how: dict[str, Any]) -> dict[str, Any]:
    """One azimuth that was given is that of all maps."""
    phi = how.get("phi")
    return {**how, "phi": phi[0]} if isinstance(phi, list) and len(phi) == 1 else how


def _lines(data: TwoTimeData | PooledData) -> list[str]:
    origin, t = data.provenance, np.asarray(data.t)
    binned = isinstance(data, PooledData)
    frames = f"{t.size}, {t[0]:.6g} … {t[-1]:.6g}"
    if origin.has_times:
        frames += f" s, {float(data.dt):.6g} s apart"
    pairs = f"{data.n_pairs} bins of age and lag" if binned else f"{data.n_pairs} pairs"
    content: list[Block] = [
        *([Entry("q", f"{float(data.geometry.q):.6g} 1/Å")] if Origin(origin).has_q else []),
        Entry("gap", f"{float(data.geometry.gap):.6g} Å, for models with shear"),
        Entry("frames", frames),
        Entry("pairs", f"{pairs}, {data.masked_pairs} masked"),
        Entry("sigma", "given" if data.absolute_sigma else "not in the file"),
        *(Entry("doubt", one) for one in origin.doubts),
        *(Entry("note", one) for one in origin.notes),
    ]
    scaling, half = quantile_scaling(data), half_decays(data)
    header = ["phi [deg]", "contrast", "baseline", "half-decay [s]"]
    columns = [np.asarray(data.geometry.phi), *scaling.T, half]
    if isinstance(data, TwoTimeData):
        header += ["noise", "diagonal"]
        diagonal = np.ma.masked_invalid(data.diagonal)
        columns += [noise_by_angle(data), diagonal.mean(axis=1).filled(np.nan)]
    rows = [[number(float(value), 4) for value in row] for row in zip(*columns, strict=True)]
    guess = "contrast, baseline and half-decay are first guesses; a fit knows them better"
    content += [Table(header, rows), guess]
    return text_lines(content if origin.has_times else by_frame(content))


def show(arguments: argparse.Namespace) -> str:
    """What is in a file, in lines; contrast and baseline are first guesses.

    **Raises:** `DataError` for a file that cannot be used, with what to do.
    """
    sets = data_of(arguments.file, given_reading(arguments))
    first = sets[0].provenance
    known = f"{len(sets)} q" if Origin(first).has_q else "q not known"
    lines = [f"{arguments.file}: {first.layout}, {known}, {counted(sets[0].n_angles, 'angle')}"]
    for data in sets:
        lines += _lines(data)
    if arguments.plot:
        # Not at the top: importing matplotlib takes a third of a second.
        from ..report.plots import save_data_figure

        how = _one_azimuth(given_reading(arguments))
        frames = frame_intensities(arguments.file, **how)
        lines.append(f"plot: {save_data_figure(arguments.plot, sets, frames)}")
    return "\n".join(lines)
