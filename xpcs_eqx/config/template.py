"""A commented configuration to start from, written from the tables themselves.

Prose stands behind `# `; a key behind `#` alone is there to be used, by taking that away.
"""

import textwrap
from collections.abc import Mapping
from typing import Any, get_origin

from pydantic.fields import FieldInfo

from ..errors import ConfigError
from ..physics.leaves import parameter_leaves
from .section import Section, expected_of, said_of, tables_of, toml_value
from .tables import Settings
from .tables.data import DataSet, Joint
from .tables.model import MODES as _MODES
from .tables.model import Model, Rate, begun_at_data, model_of, offsets_of, rates_of

MODES = ("static", *(mode for mode in _MODES.meant if mode != "static"))
# Several data sets have a template of their own.
JOINT = "joint"
TEMPLATES = (*MODES, JOINT)
_WIDTH = 96
# Tables that ask for something by being there, and what is said above them.
_BY_PRESENCE = {
    "bayes": "# A posterior is sampled when [bayes] is there: take the # from its lines.",
    "defences": "# A layer of defence is on when its table is there: take the # from its lines.",
}


def _line(name: str, info: FieldInfo, value: Any, shown: bool) -> str:
    comment = f"# {info.description} ({expected_of(info)})"
    line = f"{'' if shown else '#'}{name} = {toml_value(value)}"
    if len(line) + len(comment) > _WIDTH:
        return "\n".join([*textwrap.wrap(comment, _WIDTH, subsequent_indent="# "), line])
    return f"{line}  {comment}"


def _table(
    name: str,
    table: type[Section],
    values: Mapping[str, Any] = {},
    *,
    header: str = "[{}]",
    shown: bool = True,
) -> list[str]:
    """A table and those inside it; `values` are shown instead of examples."""
    title = (table.__doc__ or "").splitlines()[0]
    lines = ["", f"# {title}", ("" if shown else "#") + header.format(name)]
    inside = []
    for key, info in table.model_fields.items():
        inner = next(tables_of(info.annotation), None)
        if inner is not None and info.json_schema_extra is None:
            named = f"{name}.{key}" + (".alpha" if get_origin(info.annotation) is dict else "")
            inside += _table(named, inner, shown=shown)
            continue
        said = said_of(info)
        example = info.default if said["example"] is None else said["example"]
        lines.append(_line(key, info, values.get(key, example), shown and said["shown"]))
    return lines + inside


def _parameters(mode: str) -> list[str]:
    """One table a parameter, at the defaults of the model."""
    lines = [
        "",
        "# Parameters of the model, at their defaults. free = false keeps one at its start;",
        "# scale is a natural step for the solver and seldom needed.",
    ]
    kept, begun = offsets_of(mode), begun_at_data(mode)
    for leaf in parameter_leaves(model_of(Model(mode=mode))):
        info = leaf.info
        if leaf.name == "f2":
            # As long as nothing is said of it, it is kept where it does least harm.
            lines.append(
                "# f2 [s] stays at the middle of the time window: only f0·exp(-f1·f2) enters"
            )
            continue
        lines += [
            f"[parameters.{leaf.name}]" + (f"  # [{info.unit}]" if info.unit else ""),
            "# start: where the data decay" if leaf.name in begun else f"start = {info.start!r}",
            f"bounds = [{info.lower!r}, {info.upper!r}]",
            f"free = {toml_value(leaf.name not in kept)}",
        ]
    return lines


def _rates(mode: str) -> list[str]:
    """One table a rate, with its keys explained at the first."""
    lines = [
        "",
        "# How the rates of the model depend on time. Other kinds than the power law have other",
        "# parameters: J[0], J[1], … for the values at knots of the transport coefficient, all of",
        "# them addressed by J; initial, tau and offset for exponential ageing.",
    ]
    for i, name in enumerate(rates_of(mode)):
        lines.append(f"[rates.{name}]")
        if i == 0:
            lines += _table("rates", Rate)[3:]
    return lines


def _several() -> list[str]:
    """Two tables `[[data]]`, the first with its keys explained, and what they share."""
    first = {"path": "cold.h5", "label": "cold", "factors": {"D0": 1.0}}
    return [
        *_table("data", DataSet, first, header="[[{}]]"),
        "",
        "# The next one has the same keys.",
        "[[data]]",
        'path = "hot.h5"',
        'label = "hot"',
        "#factors = {D0 = 2.2}  # D0 of hot is 2.2 times that of cold",
        *_table("joint", Joint)[:-1],
        # Only one of the two can be given.
        "# or the others, with a value for each data set:",
        '#separate = ["D_offset"]',
        '# [parameters.D0] holds for all data sets, [parameters."D0[hot]"] for one.',
    ]


def template(mode: str) -> str:
    """A configuration for a mode, or for several data sets with `"joint"`.

    It is valid TOML in which every key is explained.

    **Raises:** `ConfigError` for a name that has no template.
    """
    if mode not in TEMPLATES:
        raise ConfigError(f"no template {mode!r}; there are {', '.join(TEMPLATES)}")
    chosen = "laminar_flow" if mode == JOINT else mode
    lines = [
        "# Fit of two-time correlation maps: xpcs-eqx fit THIS_FILE",
        "# Everything but data.path is optional. Keys behind a # stand there with their defaults,",
        "# or with an example where there is none; take the # away to set one. Paths are relative",
        "# to the folder of this file.",
    ]
    tables = {name: next(tables_of(one.annotation)) for name, one in Settings.model_fields.items()}
    lines += _several() if mode == JOINT else _table("data", tables["data"])
    written = {
        "rates": lambda: _rates(chosen),
        "parameters": lambda: _parameters(chosen),
        "model": lambda: _table("model", tables["model"], {"mode": chosen}),
    }
    # Searches and posteriors after the local fit that they build on.
    last = ("global", "bayes", "output")
    for name in (*(one for one in tables if one not in ("data", "joint", *last)), *last):
        if name in written:
            lines += written[name]()
        elif name in _BY_PRESENCE:
            lines += ["", _BY_PRESENCE[name], *_table(name, tables[name], shown=False)]
        else:
            lines += _table(name, tables[name])
    return "\n".join(lines) + "\n"
