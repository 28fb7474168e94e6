"""The results folder: complete or not there, and never a loss of an earlier one."""

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jax
import numpy as np

from ..data import Provenance
from ..errors import ConfigError
from ..files import to_json
from .sections import Section, document, items, page, text

PACKAGES = (
    "xpcs-eqx",
    "jax",
    "jaxlib",
    "equinox",
    "optimistix",
    "lineax",
    "optax",
    "numpy",
    "h5py",
)
# What stands at the top of a results folder; anything else was not written by a fit.
ENTRIES = ("fit", "plots", "bayes", "config.toml", "provenance.json")


def check_target(target: str, overwrite: bool, keep: tuple[str, ...] = ()) -> None:
    """Make sure before any work that results can be written to `target`.

    `keep` are files that must survive: an earlier folder that holds one is not replaced.

    **Raises:** `ConfigError` when something is there and `overwrite` is false, when it is no
    results folder, or when the place cannot be written to.
    """
    target = os.path.realpath(target)
    if os.path.lexists(target):
        if not os.path.isdir(target):
            raise ConfigError(f"{target}: a file is in the place of the results folder; rename it")
        strange = sorted(set(os.listdir(target)) - set(ENTRIES))
        if strange:
            raise ConfigError(
                f"{target}: holds {', '.join(strange[:4])}, which no fit wrote, so it is not "
                "replaced; give another folder with --output"
            )
        if os.listdir(target) and not overwrite:
            raise ConfigError(
                f"{target}: results are already there; give --overwrite to replace them, or another"
                " folder with --output"
            )
    for path in keep:
        if os.path.realpath(path).startswith(target + os.sep):
            raise ConfigError(
                f"{target}: the results folder would replace {path}, which is still needed; give "
                "another folder with --output"
            )
    parent = os.path.dirname(target)
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{target}: cannot be written, {parent} is not a writable folder")


@contextmanager
def new_results(target: str, overwrite: bool) -> Iterator[str]:
    """A folder beside `target` to write into; it takes the place of `target` at the end.

    When anything is raised inside, interrupts included, it is removed and `target` stays as it
    was. An earlier result is moved aside, replaced, and only then deleted.

    **Raises:** `ConfigError` as `check_target`.
    """
    check_target(target, overwrite)
    target = os.path.realpath(target)
    parent, name = os.path.split(target)
    os.makedirs(parent, exist_ok=True)
    fresh = os.path.join(parent, f".{name}.new-{os.getpid()}")
    old = os.path.join(parent, f".{name}.old-{os.getpid()}")
    os.mkdir(fresh)
    try:
        yield fresh
        check_target(target, overwrite)
        if os.path.isdir(target):
            os.rename(target, old)
        os.rename(fresh, target)
    except BaseException:
        if os.path.isdir(old) and not os.path.lexists(target):
            os.rename(old, target)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    finally:
        if os.path.isdir(target):
            shutil.rmtree(old, ignore_errors=True)


def write_files(folder: str, files: Mapping[str, Any]) -> None:
    """Write files by path below a folder: as of `Section.files`, or texts."""
    for name, content in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if callable(content):
            content(path)
        elif name.endswith(".npz"):
            np.savez(path, **content)
        else:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(content if isinstance(content, str) else to_json(content))


class Report(NamedTuple):
    """A report as it was written: its headline and its sections."""

    title: str
    sections: tuple[Section, ...]

    def __str__(self) -> str:
        return text(self.title, self.sections)


def write_results(
    folder: str,
    title: str,
    sections: Sequence[Section],
    *,
    provenance: Provenance | Mapping[str, Provenance],
    configuration: Mapping[str, Any],
    started: float | None = None,
) -> Report:
    """Write a report into an empty folder, as `new_results` gives it; returns what was written.

    It becomes `config.toml`, `provenance.json`, `fit/parameters.json`, `fit/report.txt`,
    `fit/report.html` and the files of the sections. Figures come afterwards, by `add_plots`: none
    can cost a result.

    **Arguments:**

    - `sections`: as of `fit_sections`, in their order; the last is that of times, to which the
        seconds that writing took are added.
    - `provenance`: of the data, by label where there are several data sets.
    - `configuration`: tables of `config.toml`, in plain types.
    - `started`: `time.perf_counter()` at the start of the work, for the wall time.
    """
    # Of the extra `program`; the rest of this package does without it.
    import tomli_w

    clock = time.perf_counter()
    started = clock if started is None else started
    write_files(folder, {"fit/parameters.json": to_json(document(sections))})
    for one in sections:
        write_files(folder, one.files)
    write_files(folder, {"config.toml": tomli_w.dumps(configuration)})
    spent = {"results": time.perf_counter() - clock}
    wall = time.perf_counter() - started
    times = ", ".join(f"{k} {v:.2f} s" for k, v in {**spent, "all": wall}.items())
    last = sections[-1]
    told = [*sections[:-1], replace(last, lines=[*last.lines, f"  {times}"])]
    origin = provenance_document(provenance, configuration, wall)
    written = Report(title, tuple(told))
    _write_report(folder, written, [()] * len(told))
    write_files(folder, {"provenance.json": origin})
    return written


def _write_report(folder: str, report: Report, figures: Sequence[Sequence[str]]) -> None:
    shown = zip(report.sections, figures, strict=True)
    files = {
        "fit/report.txt": text(report.title, report.sections),
        "fit/report.html": page(report.title, shown),
    }
    write_files(folder, files)


def add_plots(folder: str, report: Report) -> tuple[str, ...]:
    """Draw the figures of a report into its folder and its page; says of each that is missing why.

    What could not be drawn is said in the report as well, which is complete without it.
    """
    try:
        # Not at the top: importing matplotlib takes a third of a second.
        from .plots import save_figures
    except ImportError as error:
        return (f"there are no plots: {error}",)
    figures, missing = [], []
    for one in report.sections:
        drawn = []
        if one.figures is not None:
            inside = os.path.join(folder, "plots", one.folder)
            names, failed = save_figures(inside, one.figures)
            drawn = [os.path.join(inside, name) for name in names]
            missing += failed
        figures.append(drawn)
    if missing:
        note = Section("Plots", items(missing))
        report, figures = report._replace(sections=(*report.sections, note)), [*figures, []]
    _write_report(folder, report, figures)
    return tuple(missing)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def provenance_document(
    data: Provenance | Mapping[str, Provenance],
    configuration: Mapping[str, Any],
    wall_time: float,
) -> dict[str, Any]:
    """What is needed to repeat a fit.

    **Arguments:**

    - `data`: origin of the data, by label when there are several data sets; its path is reduced to
        the file name, the checksum says the rest.
    - `configuration`: the resolved configuration.
    - `wall_time`: seconds from the start of the program to the writing of this.
    """
    origins = {
        label: {
            "file": os.path.basename(one.path),
            **{name: getattr(one, name) for name in ("sha256", "layout", "keys", "frames")},
            "dt_s": one.dt,
            "notes": one.notes,
        }
        for label, one in ({"": data} if isinstance(data, Provenance) else data).items()
    }
    return {
        "format": "xpcs-eqx results",
        "format_version": 1,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_time_s": wall_time,
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in PACKAGES},
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "devices": [str(device) for device in jax.devices()],
        },
        "data": origins[""] if isinstance(data, Provenance) else origins,
        "configuration": configuration,
    }
