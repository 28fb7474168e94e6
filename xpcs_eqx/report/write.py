"""Every file of a results folder."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..data import Provenance
from ..fitting import Fit, ProfileInterval
from .maps import fitted_maps, has_maps
from .provenance import provenance_document
from .results import covariance_arrays, fitted_arrays, parameters_document, to_json


def write_results(
    folder: str,
    fit: Fit,
    *,
    report: str,
    provenance: Provenance,
    configuration: Mapping[str, Any],
    profiles: Sequence[ProfileInterval] = (),
    plots: bool = True,
    fitted_data: bool = True,
    started: float | None = None,
) -> dict[str, float]:
    """Write a fit into an empty folder, as `new_results` gives it; returns the seconds by kind.

    It becomes `config.toml`, `provenance.json`, `fit/parameters.json`, `fit/covariance.npz`,
    `fit/fitted_data.npz`, `fit/report.txt` and `plots/*.png`.

    **Arguments:**

    - `report`: from `text_report`; the seconds that writing took are added to it.
    - `configuration`: tables of `config.toml`, in plain types.
    - `started`: `time.perf_counter()` at the start of the work, for the wall time.
    """
    # Of the extra `program`; the rest of this package does without it.
    import tomli_w

    clock = time.perf_counter()
    started = clock if started is None else started
    os.mkdir(os.path.join(folder, "fit"))

    def text(name: str, content: str) -> None:
        with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
            stream.write(content)

    def arrays(name: str, content: dict[str, Any]) -> None:
        np.savez(os.path.join(folder, name), **content)

    text("config.toml", tomli_w.dumps(configuration))
    text("fit/parameters.json", to_json(parameters_document(fit, profiles)))
    arrays("fit/covariance.npz", covariance_arrays(fit))
    maps = fitted_maps(fit) if has_maps(fit) and (plots or fitted_data) else None
    if maps is not None and fitted_data:
        arrays("fit/fitted_data.npz", fitted_arrays(maps))
    spent = {"results": time.perf_counter() - clock}
    if plots:
        # Not at the top: importing matplotlib takes a third of a second.
        from .plots import write_plots

        clock = time.perf_counter()
        os.mkdir(os.path.join(folder, "plots"))
        write_plots(os.path.join(folder, "plots"), fit, maps)
        spent["plots"] = time.perf_counter() - clock
    wall = time.perf_counter() - started
    times = ", ".join(f"{k} {v:.2f} s" for k, v in {**spent, "all": wall}.items())
    text("fit/report.txt", f"{report}  {times}\n")
    document = provenance_document(provenance, configuration, wall)
    text("provenance.json", to_json(document))
    return spent
