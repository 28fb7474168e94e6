"""Results folders once more: plots and page of one, several side by side."""

import os
from collections.abc import Sequence
from typing import Any

import jax

from ..config.read import Configuration, check_settings, read_source
from ..config.source import Source
from ..errors import DataError
from ..files import write_text
from ..parameters import saved_values
from ..report.collection import as_csv, as_page, comparison, read_result
from ..report.folder import checksums_of, read_report, write_report
from ..report.page import Picture
from ..report.sections import FIGURES
from .task import Task, task_of


def _at_the_result(folder: str) -> Configuration:
    """The configuration of a results folder, to be evaluated where its fit ended.

    **Raises:** `ConfigError` when it is no results folder.
    """
    path = os.path.join(folder, "config.toml")
    source, raw = read_source(path)
    found = saved_values(os.path.join(folder, "fit", "parameters.json"))
    for name in ("bayes", "defences", "hybrid", "verdict"):
        raw.pop(name, None)
    raw["global"] = {"method": "local"}
    raw["output"] = {"degeneracy": False}
    solver: dict[str, Any] = raw.get("solver", {})
    kept = ("loss", "loss_scale", "angle_weights", "errors", "coordinates")
    raw["solver"] = {name: solver[name] for name in kept if name in solver}
    raw["solver"] |= {"max_evaluations": 1, "recovery": 0}
    for name, table in raw["parameters"].items():
        if name in found and "start" in table:
            table["start"] = found[name].value
    return Configuration(check_settings(raw, Source(path, source.text)), source)


def _check_data(task: Task, folder: str) -> None:
    """Make sure that the maps are those that were fitted.

    **Raises:** `DataError` when they are not, `ConfigError` when nothing says which these were.
    """
    now = [one.provenance for one in task.problem.data]
    pairs = zip(now, checksums_of(folder, len(now)), strict=True)
    if changed := dict.fromkeys(one.path for one, then in pairs if one.sha256 != then):
        raise DataError(
            f"{', '.join(changed)}: has changed since it was fitted, so that plots would show "
            f"other maps than {folder} is about; fit once more"
        )


def render(folder: str, form: str | None = None) -> str:
    """Draw the plots of a results folder, and write its page with all plots that it has.

    The numbers and the words of the report stay as they are, and so does the plot of how the
    minimum was found, which is not looked for again. `form` of the files is png, svg or
    pdf, as in the configuration where none is given. Returns what was done.

    **Raises:** `ConfigError` when it is no results folder, `DataError` when its data are
    gone, or are others.
    """
    from ..report.plots import drawings, picture_of, save_figures

    report, figures = read_report(folder)
    jax.config.update("jax_enable_x64", True)
    configuration = _at_the_result(folder)
    form = configuration.settings.output.plot_format if form is None else form
    task = task_of(configuration)
    _check_data(task, folder)
    parts, places = task.run().folders(), os.path.join(folder, "plots")
    missing: list[str] = []
    pictures: list[list[Picture]] = []
    for section, known in zip(report.sections, figures, strict=True):
        those: list[Picture] = []
        if section.place == FIGURES and section.folder in parts:
            made = drawings(parts[section.folder])
            inside = os.path.join(places, section.folder)
            drawn, failed = save_figures(inside, lambda made=made: made, form)
            those += [one.inside(section.folder) for one in drawn]
            missing += failed
        names = {one.name for one in those}
        for one in known:
            path = os.path.join(places, *one.file.split("/"))
            if one.name not in names and os.path.isfile(path):
                those.append(picture_of(path, one.caption)._replace(file=one.file))
        pictures.append(those)
    write_report(folder, report, pictures)
    count = sum(map(len, pictures))
    return "\n".join([*missing, f"{folder}: {count} plots"])


def compare(folders: Sequence[str], *, csv: str | None = None, html: str | None = None) -> str:
    """Parameters of several results folders side by side; also written as CSV and as a page.

    Folders of the same name go by their whole path.

    **Raises:** `ConfigError` for what is no results folder.
    """
    results = [read_result(one) for one in folders]
    names = [one.name for one in results]
    if len(set(names)) < len(names):
        results = [read_result(one, name=one) for one in folders]
    texts = {
        csv: lambda: as_csv(results),
        html: lambda: as_page("Comparison", results, beside=True),
    }
    for path, text in texts.items():
        if path is not None:
            write_text(path, text())
    return comparison(results)
