"""What is in a results folder, and how it is written."""

import importlib.metadata
import json
import logging
import os
import platform
import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jax
import numpy as np

from ..data import Provenance
from ..errors import ConfigError
from ..files import to_json
from .page import Picture, page
from .sections import Section, document, from_plain, items, text, to_plain

log = logging.getLogger(__name__)

# The table in the folder of a series.
SERIES = "series.csv"
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


def write_files(folder: str, files: Mapping[str, Any]) -> None:
    """Write files by path below a folder: as of `Section.files`, or texts.

    **Raises:** `OSError` with the path of the file that cannot be written.
    """
    for name, content in files.items():
        path = os.path.join(folder, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if callable(content):
                content(path)
            elif name.endswith(".npz"):
                np.savez(path, **content)
            else:
                # Names of files may hold bytes that are no text.
                with open(path, "w", encoding="utf-8", errors="replace") as stream:
                    stream.write(content if isinstance(content, str) else to_json(content))
        except OSError as error:
            # Where the writing was done by a library, the error does not say of what.
            raise OSError(error.errno, error.strerror or str(error), path) from error


class Report(NamedTuple):
    """A report as it was written: its headline and its sections."""

    title: str
    sections: tuple[Section, ...]

    def __str__(self) -> str:
        """What was found, for a terminal: without how it was done, which is in `fit/report.txt`."""
        return text(self.title, self.sections, appendix=False)


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
    `fit/report.html`, `fit/report.json`, from which `read_report` makes it again, and the files of
    the sections. Figures come afterwards, by `add_plots`: none
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
    told = [*sections[:-1], replace(last, content=[*last.content, times])]
    origin = provenance_document(provenance, configuration, wall)
    written = Report(title, tuple(told))
    write_report(folder, written, [()] * len(told))
    write_files(folder, {"provenance.json": origin})
    return written


def write_report(folder: str, report: Report, pictures: Sequence[Sequence[Picture]]) -> None:
    """The report as text, as page, and so that the page can be made again."""
    shown = list(zip(report.sections, pictures, strict=True))
    plain = [
        {
            "title": one.title,
            "place": one.place,
            "content": [to_plain(block) for block in one.content],
            "folder": one.folder,
            "figures": [
                {name: getattr(picture, name) for name in ("name", "caption", "file")}
                for picture in those
            ],
        }
        for one, those in shown
    ]
    files = {
        "fit/report.txt": text(report.title, report.sections),
        "fit/report.html": page(report.title, shown),
        "fit/report.json": {"format_version": 1, "title": report.title, "sections": plain},
    }
    write_files(folder, files)


def no_results(folder: str, path: str, error: Exception) -> ConfigError:
    """Why a file of results at a path could not be read, and what to do about it."""
    if not os.path.isdir(folder):
        return ConfigError(f"{folder}: there is no such folder; name one that a fit has written")
    if os.path.exists(os.path.join(folder, SERIES)):
        return ConfigError(
            f"{folder}: is the folder of a series; name a folder in it, which holds one fit"
        )
    if os.path.exists(path):
        return ConfigError(f"{folder}: {path} cannot be read ({error}); fit once more")
    if not os.path.exists(settings := os.path.join(folder, "config.toml")):
        return ConfigError(
            f"{folder}: is no results folder, for there is no {path}; name the folder that "
            "`xpcs-eqx fit` has written, such as my_results"
        )
    return ConfigError(
        f"{folder}: is no results folder of this version, for there is no {path}; fit once more: "
        f"xpcs-eqx fit {shlex.quote(settings)} --output NEW_FOLDER"
    )


@contextmanager
def stored(folder: str, *place: str) -> Iterator[Any]:
    """What stands in a file of results, in plain values.

    **Raises:** `ConfigError` when it is none, or holds something else than is looked for.
    """
    path = os.path.join(folder, *place)
    try:
        with open(path, encoding="utf-8") as stream:
            yield json.load(stream)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise no_results(folder, path, error) from error


def checksums_of(folder: str, sets: int) -> tuple[str, ...]:
    """SHA-256 of the files behind a results folder, one for each of so many data sets.

    **Raises:** `ConfigError` when nothing says which these were.
    """
    with stored(folder, "provenance.json") as found:
        # Those of several data sets stand under their labels.
        known = found["data"]
        each = [known] if isinstance(known.get("sha256"), str) else list(known.values())
        if len(each) != sets:
            raise ValueError(f"it tells of {len(each)} data sets, and there are {sets}")
        return tuple(str(one["sha256"]) for one in each)


def read_report(folder: str) -> tuple[Report, list[list[Picture]]]:
    """The report of a results folder, and the figures of each section, of which only files are.

    **Raises:** `ConfigError` when there is none.
    """
    with stored(folder, "fit", "report.json") as found:
        sections, figures = [], []
        for one in found["sections"]:
            content = [from_plain(block) for block in one["content"]]
            places = {name: one[name] for name in ("title", "folder", "place")}
            sections.append(Section(content=content, **places))
            figures.append([Picture(**picture) for picture in one["figures"]])
        return Report(found["title"], tuple(sections)), figures


def prepare_plots() -> None:
    """Import what draws plots on a thread, beside a fit, which leaves a core idle now and then."""
    threading.Thread(target=_import_plots).start()


def _import_plots() -> None:
    # Whoever has none, or broken ones, is told where they are asked for: it is tried there again.
    with suppress(Exception):
        import scipy.interpolate  # noqa: F401

        from . import plots  # noqa: F401


def add_plots(folder: str, report: Report, form: str = "png") -> tuple[str, ...]:
    """Draw the figures of a report into its folder and its page; says of each that is missing why.

    What could not be drawn is said in the report as well, which is complete without it. `form` of
    the files is png, svg or pdf.
    """
    pictures, missing, save_figures = [], [], None
    try:
        # Not at the top: importing matplotlib takes a third of a second.
        from .plots import save_figures
    except ImportError as error:
        missing.append(f"there are no plots: {error}")
    except Exception as error:
        # One that is broken raises whatever it likes.
        log.exception("there are no plots")
        missing.append(f"there are no plots: {type(error).__name__}: {error}")
    for one in report.sections:
        drawn: Sequence[Picture] = ()
        if one.figures is not None and save_figures is not None:
            inside = os.path.join(folder, "plots", one.folder)
            found, failed = save_figures(inside, one.figures, form)
            drawn = [picture.inside(one.folder) for picture in found]
            missing += failed
        pictures.append(drawn)
    if missing:
        note = Section("Plots", items(missing))
        report, pictures = report._replace(sections=(*report.sections, note)), [*pictures, []]
    write_report(folder, report, pictures)
    return tuple(missing)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def origins(data: Provenance | Mapping[str, Provenance]) -> dict[str, Any]:
    """Where data come from, in plain values, by label where there are several data sets."""
    if not isinstance(data, Provenance):
        return {label: origins(one) for label, one in data.items()}
    return {
        "file": os.path.basename(data.path),
        **{name: getattr(data, name) for name in ("sha256", "layout", "keys", "frames")},
        "dt_s": data.dt,
        "notes": data.notes,
    }


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
        "data": origins(data),
        "configuration": configuration,
    }
