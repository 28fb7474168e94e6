"""Plots and page of a results folder once more: `xpcs-eqx report`."""

import os
from typing import Any

import jax

from ..config.read import Configuration, check_settings, read_source
from ..config.source import Source
from ..errors import ConfigError
from ..files import write_text
from ..parameters import saved_values
from ..report.sections import Section, page
from .task import task_of

# They are of the way to the result, which is not gone again.
_KEPT = ("convergence",)


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


def render(folder: str) -> str:
    """Draw the plots of a results folder, and write its page with all plots that it has.

    The numbers and the text of the report stay as they are. Returns what was done.

    **Raises:** `ConfigError` when it is no results folder, `DataError` when its data are gone.
    """
    from ..report.plots import drawings, save_figures

    text = os.path.join(folder, "fit", "report.txt")
    if not os.path.isfile(text):
        raise ConfigError(f"{folder}: is no results folder, there is no {text}")
    jax.config.update("jax_enable_x64", True)
    outcome = task_of(_at_the_result(folder)).run()
    places, missing = os.path.join(folder, "plots"), []
    for name, part in outcome.folders().items():
        figures = [one for one in drawings(part) if one.name not in _KEPT]
        missing += save_figures(os.path.join(places, name), lambda those=figures: those)[1]
    with open(text, encoding="utf-8") as stream:
        title, _, *lines = stream.read().splitlines()
    drawn = sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(places)
        for name in names
        if name.endswith(".png")
    )
    sections = [(Section("", lines), ()), (Section("Plots"), drawn)]
    write_text(os.path.join(folder, "fit", "report.html"), page(title, sections))
    return "\n".join([*missing, f"{folder}: {len(drawn)} plots"])
