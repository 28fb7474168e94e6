"""Many files by one configuration: a results folder each, and one table of all of them."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..bayes.workers.base import Limits, Outcome, Serial, Task, run_shards
from ..bayes.workers.base import Result as Arrays
from ..bayes.workers.processes import SpawnedProcesses
from ..compiling import compilation_cache
from ..config.read import Configuration, read_configuration
from ..data.layouts.hdf5 import dataset
from ..data.layouts.opened import open_hdf5
from ..errors import ConfigError, XPCSError
from ..files import replacing
from ..report import claimed
from ..report.collection import Result, as_csv, as_page, exponent_of, read_result
from ..report.sections import Section, folder_names
from .ending import told
from .running import fit_into

# What a file of maps may be called, where a folder is followed.
ENDINGS = (".h5", ".hdf", ".hdf5", ".nxs", ".npz", ".npy")
# How often a followed folder is looked at [s].
PAUSE = 1.0
# Each file is tried once and takes as long as it takes; no number of failures ends a series.
_LIMITS = Limits(float("inf"), float("inf"), retries=0, success=0.0, first=2**30)


@dataclass(frozen=True)
class Series:
    """What is fitted, and where the results go.

    - `config`: path of the configuration; `overrides`: as of `read_configuration`.
    - `folder`: for a results folder of each file, named after it, and for the table.
    - `about`: name → HDF5 path of a number in each file that is put into the table.
    """

    config: str
    folder: str
    overrides: tuple[str, ...] = ()
    overwrite: bool = False
    jobs: int = 1
    about: Mapping[str, str] = field(default_factory=dict)

    def configuration(self, file: str) -> Configuration:
        """The configuration for a file.

        **Raises:** `ConfigError` for one of several data sets.
        """
        here = read_configuration(self.config, self.overrides)
        if isinstance(here.settings.data, list):
            raise ConfigError(
                f"{self.config}: a series takes a configuration with one table [data], whose path "
                "is that of each file in turn; this one has several"
            )
        # As TOML, whatever the name is made of.
        path = json.dumps(os.path.abspath(file), ensure_ascii=False)
        return read_configuration(self.config, (*self.overrides, f"data.path={path}"))


def fit_file(series: Series, file: str, target: str) -> str:
    """Fit a file into its results folder; returns what went wrong, or nothing.

    Results that are there already and are those asked for stay as they are.
    """
    try:
        configuration = series.configuration(file)
        if configuration.settings.output.compilation_cache:
            compilation_cache()
        left = os.path.lexists(target) or os.path.lexists(f"{target}.checkpoint")
        with claimed(target), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            fit_into(
                target,
                configuration,
                resume=left and not series.overwrite,
                overwrite=series.overwrite,
            )
    except Exception as error:
        return told(error)[1].removeprefix("error: ")
    return ""


@dataclass(frozen=True)
class _Work:
    """The files of a batch, as work for processes; a failure is a text that comes back."""

    series: Series
    files: tuple[str, ...]
    targets: tuple[str, ...]

    def __call__(self, task: Task, beat: Callable[[], None]) -> Arrays:
        wrong = fit_file(self.series, self.files[task.number], self.targets[task.number])
        return {"wrong": np.frombuffer(wrong.encode(), np.uint8)}


def _metadata(file: str, about: Mapping[str, str]) -> dict[str, Any]:
    """Numbers of a file by name; None where it has none."""
    out: dict[str, Any] = dict.fromkeys(about)
    if about and not file.endswith((".npy", ".npz")):
        try:
            with open_hdf5(file) as opened:
                for name, key in about.items():
                    if key in opened:
                        values = np.ravel(np.asarray(dataset(opened, key)[()], dtype=float))
                        out[name] = float(np.mean(values))
        except (XPCSError, ValueError, TypeError):
            # What is wrong with the file is said where it is fitted.
            pass
    return out


@dataclass
class Table:
    """The results so far, in the order of the files or of the first number asked for."""

    series: Series
    found: dict[str, Result] = field(default_factory=dict)

    def targets(self, files: Sequence[str]) -> list[str]:
        """Results folders of files, named after them, and different from those of earlier ones."""
        every = list(dict.fromkeys([*self.found, *files]))
        names = folder_names([os.path.splitext(os.path.basename(one))[0] for one in every])
        known = dict(zip(every, names, strict=True))
        return [os.path.join(self.series.folder, known[one]) for one in files]

    def add(self, file: str, target: str, wrong: str) -> Result:
        """Take up the results of a file, or why there are none."""
        name, about = os.path.basename(file), _metadata(file, self.series.about)
        if not wrong:
            try:
                self.found[file] = read_result(target, name, about)
            except ConfigError as error:
                wrong = str(error)
        if wrong:
            self.found[file] = Result(name, f"failed: {wrong}", about)
        return self.found[file]

    def results(self) -> list[Result]:
        """In their order."""
        first = next(iter(self.series.about), None)

        def place(file: str) -> tuple[float, str]:
            value = self.found[file].about.get(first) if first else None
            return (np.inf if first and value is None else value or 0.0), file

        return [self.found[file] for file in sorted(self.found, key=place)]

    def write(self, plots: bool = False) -> None:
        """Write `series.csv` and `series.html`, with plots of the parameters if asked for."""
        results, figures = self.results(), ()
        folder = self.series.folder
        os.makedirs(folder, exist_ok=True)
        if plots and any(one.parameters for one in results):
            from ..report.plots import save_figures, series_drawings

            against = next(iter(self.series.about), None)
            found = exponent_of(results)
            names, _ = save_figures(folder, lambda: series_drawings(results, against, found))
            figures = [os.path.join(folder, name) for name in names]
        title = f"Series of {len(results)} files"
        texts = {
            "series.csv": as_csv(results),
            "series.html": as_page(title, results, [(Section("Plots"), figures)]),
        }
        for name, text in texts.items():
            path = os.path.join(folder, name)
            with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
                stream.write(text)


def _batch(series: Series, files: Sequence[str], table: Table, say: Callable[[str], Any]) -> None:
    """Fit some files, and take up what became of each as soon as it has ended."""
    targets = tuple(table.targets(files))
    begun = time.monotonic()

    def ended(outcome: Outcome) -> None:
        k, result = outcome.number, outcome.result
        wrong = outcome.reason if result is None else bytes(result["wrong"]).decode()
        found = table.add(files[k], targets[k], wrong)
        say(f"{found.name}: {found.verdict} ({time.monotonic() - begun:.1f} s)")
        table.write()

    workers = SpawnedProcesses(series.jobs) if series.jobs > 1 and len(files) > 1 else Serial()
    # The largest go first, and of equal ones those that were named first.
    sizes = [os.path.getsize(file) if os.path.isfile(file) else 0 for file in files]
    sizes = [size if series.jobs > 1 else -k for k, size in enumerate(sizes)]
    run_shards(_Work(series, tuple(files), targets), sizes, workers, _LIMITS, callback=ended)


def run_series(
    series: Series, files: Sequence[str], say: Callable[[str], Any], follow: str | None = None
) -> bool:
    """Fit files, one after the other or several at a time; returns whether all of them are good.

    A file that cannot be fitted is a line of the table and stops nothing. What is finished is not
    done again, so that the same call goes on with a series that was interrupted.

    **Arguments:**

    - `files`: paths; `follow`: a folder whose new files are fitted as they come, until interrupted.
    - `say`: called with a line for each file.

    **Raises:** `ConfigError` for a configuration or a folder that cannot be used.
    """
    series.configuration(files[0] if files else os.path.join(follow or "", "any"))
    table = Table(series)
    try:
        if files:
            _batch(series, list(dict.fromkeys(files)), table, say)
        for batch in arrivals(follow) if follow is not None else ():
            _batch(series, batch, table, say)
            table.write(plots=True)
    finally:
        if table.found:
            table.write(plots=True)
    return all(one.good for one in table.found.values())


def arrivals(folder: str, pause: float = PAUSE) -> Iterator[list[str]]:
    """Files of a folder that are whole, as they come: those that no longer change.

    One that is written again comes again. The folder is looked at every `pause` [s].

    **Raises:** `ConfigError` when there is no such folder.
    """
    if not os.path.isdir(folder):
        raise ConfigError(f"--follow {folder}: there is no such folder")
    seen: dict[str, tuple[int, int]] = {}
    taken: dict[str, tuple[int, int]] = {}
    while True:
        now = {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(Path(folder).iterdir())
            if path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith(".")
        }
        ready = [one for one, state in now.items() if seen.get(one) == state != taken.get(one)]
        if ready:
            yield ready
        taken |= {one: now[one] for one in ready}
        seen = now
        time.sleep(pause)
