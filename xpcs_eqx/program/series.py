"""Many files by one configuration: a results folder each, and one table of all of them."""

import contextlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..bayes.workers.base import Limits, Outcome, Serial, Task, run_shards
from ..bayes.workers.base import Result as Arrays
from ..bayes.workers.processes import SpawnedProcesses
from ..compiling import compilation_cache
from ..config.read import Configuration, read_configuration
from ..config.tables.data import reading_of
from ..config.tables.search import search_settings
from ..config.tables.solver import is_hybrid
from ..data import q_values
from ..data.layouts.hdf5 import dataset
from ..data.layouts.opened import open_hdf5
from ..errors import ConfigError, XPCSError
from ..files import write_text
from ..parameters import saved_values
from ..report import claimed
from ..report.collection import Result, as_csv, as_page, exponents_of, number_of, read_result
from ..report.folder import SERIES
from ..report.sections import folder_names
from ..showing import counted
from .ending import told
from .running import fit_into

# What a file of maps may be called, where a folder is followed.
ENDINGS = (".h5", ".hdf", ".hdf5", ".nxs", ".npz", ".npy")
# How often a followed folder is looked at, and the table written while files are fitted [s].
PAUSE = 1.0
# Each file is tried once and takes as long as it takes; no number of failures ends a series.
_LIMITS = Limits(float("inf"), float("inf"), retries=0, success=0.0, first=2**30)


class Item(NamedTuple):
    """A file, or one q [1/Å] of it."""

    file: str
    q: float | None = None

    @property
    def stem(self) -> str:
        """What its results folder is called."""
        stem = os.path.splitext(os.path.basename(self.file))[0]
        return stem if self.q is None else f"{stem}_q{self.q:.6g}"


@dataclass(frozen=True)
class Series:
    """What is fitted, and where the results go.

    - `config`: path of the configuration; `overrides`: as of `read_configuration`.
    - `folder`: for a results folder of each file, named after it, and for the table.
    - `about`: name → HDF5 path of a number, a time or a text in each file, put into the table.
    - `each_q`: each q of a file by itself.
    - `from_first`: fits begin where the first good one ended, and look for no other minimum.
    """

    config: str
    folder: str
    overrides: tuple[str, ...] = ()
    overwrite: bool = False
    jobs: int = 1
    about: Mapping[str, str] = field(default_factory=dict)
    each_q: bool = False
    from_first: bool = False

    def begun_at(self, folder: str) -> "Series":
        """The series with the results of a folder as starts, and no search beside them."""
        found = saved_values(os.path.join(folder, "fit", "parameters.json"))
        starts = tuple(
            f'parameters."{name}".start={one.value!r}'
            for name, one in found.items()
            if one.role == "free"
        )
        settings = read_configuration(self.config, self.overrides).settings
        # A search that was asked for is carried out from there.
        alone = search_settings(settings).asked or is_hybrid(settings)
        more = () if alone else ("global.method=local",)
        return replace(self, overrides=(*self.overrides, *starts, *more))

    def items(self, file: str) -> list[Item]:
        """What is fitted of a file: the whole, or each q by itself."""
        if self.each_q:
            try:
                how = {**reading_of(self.configuration(Item(file)).data), "q": None}
                return [Item(file, q) for q in q_values(file, **how)]
            except (XPCSError, OSError):
                # What is wrong with it is said where it is fitted.
                pass
        return [Item(file)]

    def configuration(self, item: Item) -> Configuration:
        """The configuration for a file.

        **Raises:** `ConfigError` for one of several data sets.
        """
        here = read_configuration(self.config, self.overrides)
        if here.settings.several:
            raise ConfigError(
                f"{self.config}: a series takes a configuration with one table [data], whose path "
                "is that of each file in turn, without [joint]; --each-q fits each q by itself"
            )
        if self.each_q and here.settings.data.merge_q:
            raise ConfigError(
                f"{self.config}: data.merge_q makes one q of several, which --each-q fits each by "
                "itself; leave one of them out"
            )
        # As TOML, whatever the name is made of.
        path = json.dumps(os.path.abspath(item.file), ensure_ascii=False)
        more = () if item.q is None else (f"data.q={item.q!r}",)
        if item.q is not None and here.settings.data.q_tolerance is not None:
            # Which bins there are was chosen by it.
            more += (f"data.q_tolerance={1e-6 * item.q!r}",)
        return read_configuration(self.config, (*self.overrides, f"data.path={path}", *more))


def fit_item(series: Series, item: Item, target: str) -> str:
    """Fit a file into its results folder; returns what went wrong, or nothing.

    Results that are there already and are those asked for stay as they are; others are replaced
    only where the series says so.
    """
    try:
        configuration = series.configuration(item)
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
        # The name of the file stands before it.
        path = os.path.abspath(item.file)
        return told(error)[1].removeprefix("error: ").removeprefix(f"{path}: ")
    return ""


@dataclass(frozen=True)
class _Work:
    """The files of a batch; a failure is a text that comes back.

    `again`: whether a file has changed since this series fitted it, so that its results are old.
    """

    series: Series
    items: tuple[Item, ...]
    targets: tuple[str, ...]
    again: tuple[bool, ...]

    def __call__(self, task: Task, beat: Callable[[], None]) -> Arrays:
        k = task.number
        series = replace(self.series, overwrite=True) if self.again[k] else self.series
        wrong = fit_item(series, self.items[k], self.targets[k])
        return {"wrong": np.frombuffer(wrong.encode(), np.uint8)}


def _metadata(file: str, about: Mapping[str, str]) -> dict[str, Any]:
    """What stands at HDF5 paths of a file, by name; None where there is nothing."""
    out: dict[str, Any] = dict.fromkeys(about)
    if about and not file.endswith((".npy", ".npz")):
        try:
            with open_hdf5(file) as opened:
                for name, key in about.items():
                    if key in opened:
                        found = dataset(opened, key)
                        is_number = found.dtype.kind in "fiub"
                        out[name] = known_as(found[()] if is_number else found.words())
        except (XPCSError, OSError):
            # What is wrong with the file is said where it is fitted.
            pass
    return out


def known_as(value: Any) -> float | datetime | str | None:
    """What a file holds, as the mean of its numbers, as a time (ISO 8601, by default UTC), or else
    as a text; None for a number that is not finite.

    >>> known_as(("2026-11-29T10:30:00Z",)).hour, known_as(["3.5 "]), known_as(("hot",))
    (10, 3.5, 'hot')
    """
    array = np.ravel(np.asarray(value))
    text = str(array[0]).strip() if array.size else ""
    try:
        number = float(np.mean(array)) if array.size and array.dtype.kind in "biuf" else float(text)
        return number if np.isfinite(number) else None
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _counted_up(text: str) -> list[Any]:
    """By which names with numbers are in the order of these: `scan_10` stands behind `scan_9`."""
    return [int(one) if k % 2 else one for k, one in enumerate(re.split(r"(\d+)", text))]


@dataclass
class Table:
    """The results so far, in the order of the files or of the first number asked for.

    - `earlier`: whether there was a table before this one.
    - `first_good`: the folder of the first result to rely on; `written`: when the table was [s].
    """

    series: Series
    earlier: bool = False
    found: dict[Item, Result] = field(default_factory=dict)
    first_good: str | None = None
    written: float = -float("inf")

    def targets(self, items: Sequence[Item]) -> list[str]:
        """Results folders, named after the files, and different from those of earlier ones."""
        every = list(dict.fromkeys([*self.found, *items]))
        known = dict(zip(every, folder_names([one.stem for one in every]), strict=True))
        return [os.path.join(self.series.folder, known[one]) for one in items]

    def names(self, items: Iterable[Item] = ()) -> dict[str, str]:
        """What each file is called: its name, or its path where others have the same name."""
        files = dict.fromkeys(one.file for one in (*self.found, *items))
        times = Counter(os.path.basename(one) for one in files)
        return {one: name if times[name := os.path.basename(one)] == 1 else one for one in files}

    def add(self, item: Item, target: str, wrong: str) -> Result:
        """Take up the results of a file, or why there are none."""
        name, about = os.path.basename(item.file), _metadata(item.file, self.series.about)
        if not wrong:
            try:
                self.found[item] = read_result(target, name, about)
                if self.found[item].good and self.first_good is None:
                    self.first_good = target
            except ConfigError as error:
                wrong = str(error)
        if wrong:
            self.found[item] = Result(name, f"failed: {wrong}", about)
        return self.found[item]

    def results(self) -> list[Result]:
        """In their order."""
        first = next(iter(self.series.about), None)

        def place(item: Item) -> tuple[float, list[Any], list[Any], float]:
            value = self.found[item].about.get(first) if first else 0.0
            number = number_of(value)
            text = value if isinstance(value, str) else ""
            # What has no number stands behind what has.
            number = np.inf if number is None else number
            return number, _counted_up(text), _counted_up(item.file), item.q or 0.0

        names = self.names()
        return [
            replace(self.found[item], name=names[item.file], file=names[item.file])
            for item in sorted(self.found, key=place)
        ]

    def keep_up(self) -> None:
        """Write the table, unless that was done just before."""
        if time.monotonic() - self.written > PAUSE:
            self.write()

    def spared(self) -> bool:
        """Whether an earlier table stays, since nothing could be fitted that would replace it."""
        return self.earlier and not any(one.parameters for one in self.found.values())

    def write(self, plots: bool = False) -> None:
        """Write `series.csv` and `series.html`, with plots of the parameters if asked for."""
        if self.spared():
            return
        results, figures = self.results(), ()
        folder = self.series.folder
        os.makedirs(folder, exist_ok=True)
        if plots and any(one.parameters for one in results):
            from ..report.plots import save_figures, series_drawings

            against = next(iter(self.series.about), None)
            found = exponents_of(results)
            figures, _ = save_figures(folder, lambda: series_drawings(results, against, found))
        files = len({one.file for one in self.found})
        title = f"Series of {counted(files, 'file')}"
        title += f", {len(results)} fits" if len(results) > files else ""
        texts = {
            SERIES: as_csv(results),
            "series.html": as_page(title, results, figures),
        }
        for name, text in texts.items():
            write_text(os.path.join(folder, name), text)
        self.written = time.monotonic()


def _batch(series: Series, files: Sequence[str], table: Table, say: Callable[[str], Any]) -> None:
    """Fit some files, and take up what became of each as soon as it has ended."""
    items = [item for file in files for item in series.items(file)]
    targets = dict(zip(items, table.targets(items), strict=True))
    begun, names = time.monotonic(), table.names(items)
    # Those that come again, as they do where a folder is followed.
    known = {item for item, one in table.found.items() if one.parameters}

    def run(series: Series, items: Sequence[Item]) -> None:
        alone = series.jobs == 1 or len(items) == 1
        again = tuple(one in known for one in items)
        work = _Work(series, tuple(items), tuple(targets[one] for one in items), again)

        def ended(outcome: Outcome) -> None:
            item, result = items[outcome.number], outcome.result
            wrong = outcome.reason if result is None else bytes(result["wrong"]).decode()
            found = table.add(item, targets[item], wrong)
            at_q = "" if item.q is None else f", q = {item.q:.6g} 1/Å"
            say(f"{names[item.file]}{at_q}: {found.verdict} ({time.monotonic() - begun:.1f} s)")
            table.keep_up()

        # The largest go first, and of equal ones those that were named first.
        sizes = [os.path.getsize(one.file) if os.path.isfile(one.file) else 0 for one in items]
        sizes = [-k for k in range(len(items))] if alone else sizes
        workers = Serial() if alone else SpawnedProcesses(series.jobs)
        run_shards(work, sizes, workers, _LIMITS, callback=ended)

    if series.from_first:
        while items and table.first_good is None:
            run(series, [items.pop(0)])
        if table.first_good is not None:
            series = series.begun_at(table.first_good)
    if items:
        run(series, items)


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
    series.configuration(Item(files[0] if files else os.path.join(follow or "", "any")))
    table = Table(series, os.path.exists(os.path.join(series.folder, SERIES)))
    try:
        if named := named_once(files, follow):
            _batch(series, named, table, say)
        for batch in arrivals(follow) if follow is not None else ():
            _batch(series, batch, table, say)
            table.write(plots=True)
    except KeyboardInterrupt:
        # Of a followed folder this is the end.
        if follow is None:
            raise KeyboardInterrupt(
                f"interrupted; what is finished is in {series.folder}, and the same command goes on"
            ) from None
    finally:
        if table.found:
            table.write(plots=True)
    if table.found and table.spared():
        say(f"no file could be fitted, and the earlier {SERIES} in {series.folder} stays")
    for name, path in series.about.items():
        if table.found and all(one.about.get(name) is None for one in table.found.values()):
            say(f"--about {name}: there is no value at {path} in any file")
    return all(one.good for one in table.found.values())


def _is_followed(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith(".")


def named_once(files: Iterable[str], follow: str | None) -> list[str]:
    """Each file once, however it is spelled, without those that come with a followed folder."""
    once: dict[str, str] = {}
    for one in files:
        once.setdefault(os.path.abspath(one), one)
    folder = None if follow is None else os.path.abspath(follow)
    return [
        one
        for path, one in once.items()
        if os.path.dirname(path) != folder or not _is_followed(Path(path))
    ]


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
        now: dict[str, tuple[int, int]] = {}
        for path in filter(_is_followed, sorted(Path(folder).iterdir())):
            # It may be renamed or removed meanwhile, as temporary files are.
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                now[str(path)] = (state.st_size, state.st_mtime_ns)
        ready = [one for one, state in now.items() if seen.get(one) == state != taken.get(one)]
        if ready:
            yield ready
        taken |= {one: now[one] for one in ready}
        seen = now
        time.sleep(pause)
