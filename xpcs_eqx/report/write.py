"""Every file of a results folder."""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..data import Provenance
from ..fitting import Fit, ProfileInterval
from ..objective import Strategy
from .from_file import is_stored, write_fitted_data
from .maps import fitted_maps, has_maps
from .provenance import provenance_document
from .results import covariance_arrays, fitted_arrays, parameters_document, to_json


class Results:
    """The files of a results folder, and the seconds that writing them took.

    - `started`: `time.perf_counter()` at the start of the work, for the wall time.
    """

    def __init__(self, folder: str, started: float | None, plots: bool, fitted_data: bool | None):
        self.folder, self.plots = folder, plots
        self.fitted_data, self.forced = fitted_data is not False, fitted_data is True
        self.started = time.perf_counter() if started is None else started
        self.spent = {"results": 0.0}

    def text(self, name: str, content: str) -> None:
        """Write a text into a file of the folder."""
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as stream:
            stream.write(content)

    def arrays(self, name: str, content: dict[str, Any]) -> None:
        """Write arrays into a file of the folder."""
        np.savez(os.path.join(self.folder, name), **content)

    def maps_and_plots(self, fit: Fit, fit_folder: str, plot_folder: str) -> None:
        """The fitted maps of one data set and all its plots, as far as they are wanted."""
        clock = time.perf_counter()
        wanted = has_maps(fit) and (self.plots or self.fitted_data)
        maps = fitted_maps(fit) if wanted else None
        if maps is not None and self.fitted_data:
            self.arrays(f"{fit_folder}/fitted_data.npz", fitted_arrays(maps))
        if is_stored(fit) and self.forced:
            path = os.path.join(self.folder, fit_folder, "fitted_data.h5")
            write_fitted_data(path, fit)
        self.spent["results"] += time.perf_counter() - clock
        if self.plots:
            # Not at the top: importing matplotlib takes a third of a second.
            from .plots import write_plots

            clock = time.perf_counter()
            path = os.path.join(self.folder, plot_folder)
            os.makedirs(path)
            write_plots(path, fit, maps)
            self.spent["plots"] = self.spent.get("plots", 0.0) + time.perf_counter() - clock

    def report_and_origin(
        self,
        report: str,
        provenance: Provenance | Mapping[str, Provenance],
        configuration: Mapping[str, Any],
    ) -> None:
        """What stands for the whole: configuration, report with times, provenance."""
        # Of the extra `program`; the rest of this package does without it.
        import tomli_w

        clock = time.perf_counter()
        self.text("config.toml", tomli_w.dumps(configuration))
        self.spent["results"] += time.perf_counter() - clock
        wall = time.perf_counter() - self.started
        times = ", ".join(f"{k} {v:.2f} s" for k, v in {**self.spent, "all": wall}.items())
        self.text("fit/report.txt", f"{report}  {times}\n")
        document = provenance_document(provenance, configuration, wall)
        self.text("provenance.json", to_json(document))


def write_results(
    folder: str,
    fit: Fit,
    *,
    report: str,
    provenance: Provenance,
    configuration: Mapping[str, Any],
    profiles: Sequence[ProfileInterval] = (),
    plots: bool = True,
    fitted_data: bool | None = None,
    strategy: Strategy | None = None,
    search: Mapping[str, Any] | None = None,
    defences: Mapping[str, Any] | None = None,
    started: float | None = None,
) -> dict[str, float]:
    """Write a fit into an empty folder, as `new_results` gives it; returns the seconds by kind.

    It becomes `config.toml`, `provenance.json`, `fit/parameters.json`, `fit/covariance.npz`,
    `fit/fitted_data.npz`, `fit/report.txt` and `plots/*.png`.

    **Arguments:**

    - `report`: from `text_report`; the seconds that writing took are added to it.
    - `configuration`: tables of `config.toml`, in plain types.
    - `fitted_data`: whether to write it; by default of maps in memory only, since those in a file
        make a file of three times their size, `fit/fitted_data.h5`.
    - `strategy`: where the data were kept, for `parameters.json`.
    - `search`: what a search for other minima came to, for `parameters.json`.
    - `defences`: what the layers of defence did, for `parameters.json`.
    - `started`: `time.perf_counter()` at the start of the work, for the wall time.
    """
    results = Results(folder, started, plots, fitted_data)
    os.mkdir(os.path.join(folder, "fit"))
    extra = {} if strategy is None else {"strategy": dataclasses.asdict(strategy)}
    extra |= {} if search is None else {"global": search}
    extra |= {} if defences is None else {"defences": defences}
    results.text("fit/parameters.json", to_json(parameters_document(fit, profiles, **extra)))
    results.arrays("fit/covariance.npz", covariance_arrays(fit))
    results.maps_and_plots(fit, "fit", "plots")
    results.report_and_origin(report, provenance, configuration)
    return results.spent
