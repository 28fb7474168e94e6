"""A commented configuration to start from, written from the schema itself."""

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..errors import ConfigError
from .read import NAMED
from .schema import Common, Data, DataSet, Joint, Rate
from .schema_bayes import Bayes, Job, Prior, Shards
from .schema_defences import LAYERS, Defences
from .section import toml_value

MODES = ("static", "static_isotropic", "static_anisotropic", "laminar_flow", "two_component")
# Several data sets have a template of their own.
JOINT = "joint"
TEMPLATES = (*MODES, JOINT)

# Keys that a template sets; the others stand there as comments with their defaults.
_EXAMPLES: dict[str, Any] = {
    "data.path": "data.h5",
    "data.q": 0.0054,
    "data.dt": 0.1,
    "data.gap": 2e6,
    "data.frames": [1, -1],
    "data.q_tolerance": 1e-4,
    "data.phi": [0.0, 90.0],
    "data.time_origin": 0.0,
    "data.max_lag": 500,
    "data.age_range": [0.0, 50.0],
    "data.layout": "aps-u",
    "data.sigma": "mad",
    "data.label": "hot",
    "data.weight": 1.0,
    "data.factors": {"D0": 0.45},
    "data.model": {"mode": "static"},
    "joint.shared": ["D0", "alpha", "D_offset"],
    "scaling.mode": "auto",
    "scaling.contrast_bounds": [0.0, 1.0],
    "scaling.offset_bounds": [0.5, 1.5],
    "scaling.contrast": 0.3,
    "scaling.offset": 1.0,
    "output.sequential": "inverse_variance",
    "solver.loss_scale": 1.0,
    "solver.angle_weights": [1.0, 1.0, 0.5],
    "streaming.piece": 8.0,
    "hybrid.warm_up_minimum": 3,
    "hybrid.warm_up_iterations": 500,
    "hybrid.max_iterations": 200,
    "hybrid.tolerance": 1e-8,
    "global.starts": 20,
    "global.budget": 5000,
    "global.refine": 3,
    "global.custom": [{"D0": 1e4, "alpha": 0.5}],
    "bayes.target_acceptance": 0.9,
    "bayes.shards.pairs": 10000,
    "bayes.shards.count": 50,
    "bayes.shards.workers": 4,
    "bayes.shards.folder": "scratch",
    "bayes.shards.job.queue": "short",
    "bayes.shards.job.account": "beamline",
    "bayes.shards.job.interface": "ib0",
    "bayes.shards.job.scratch": "/scratch",
    "bayes.shards.job.resources": "select=1:ncpus=8:mem=16GB",
    "bayes.priors.alpha.kind": "truncated_normal",
    "bayes.priors.alpha.mean": 0.0,
    "bayes.priors.alpha.sd": 0.5,
    "bayes.priors.alpha.lower": -2.0,
    "bayes.priors.alpha.upper": 2.0,
    "bayes.priors.alpha.median": 1.0,
    "bayes.priors.alpha.scale": 1.5,
    "bayes.priors.alpha.a": 2.0,
    "bayes.priors.alpha.b": 2.0,
    "bayes.priors.alpha.width": 2.0,
    "defences.monitor.watched": ["alpha"],
    "defences.group_variance.groups": [["J[0]", "J[1]", "J[2]"]],
    "defences.group_variance.weight": 1.0,
    "output.directory": "results",
    "output.fitted_data": True,
}
_SET = ("data.path", "data.label", "model.mode", "solver.method", "solver.loss")


def _line(dotted: str, name: str, info: FieldInfo, value: Any) -> str:
    extra = info.json_schema_extra
    expected = extra.get("expected") if isinstance(extra, dict) else ""
    comment = f"# {info.description} ({expected})"
    body = f"{name} = {toml_value(value)}"
    shown = body if dotted in _SET else f"# {body}"
    if len(shown) + len(comment) > 96:
        return "\n".join([*textwrap.wrap(comment, 96, subsequent_indent="# "), shown])
    return f"{shown}  {comment}"


def _solver_defaults() -> dict[str, Any]:
    from ..optimize import TrustRegion
    from .solving import stopping_rule

    return {f"solver.{name}": value for name, value in stopping_rule(TrustRegion()).items()}


def _section(
    name: str, model: type[BaseModel], values: dict[str, Any], header: str = "[{}]"
) -> list[str]:
    lines = ["", f"# {(model.__doc__ or '').splitlines()[0]}", header.format(name)]
    for key, info in model.model_fields.items():
        if info.json_schema_extra is None:
            # It has a table of its own.
            continue
        dotted = f"{name}.{key}"
        value = values.get(dotted, info.default)
        lines.append(_line(dotted, key, info, value))
    return lines


def _parameters(mode: str) -> list[str]:
    """One table a parameter, at the defaults of the model."""
    from ..parameters.leaves import parameter_leaves
    from .models import model_of

    lines = [
        "",
        "# Parameters of the model, at their defaults. free = false keeps one at its start;",
        "# scale is a natural step for the solver and seldom needed.",
    ]
    for leaf in parameter_leaves(model_of(mode)):
        info = leaf.info
        if leaf.name == "f2":
            # As long as nothing is said of it, it is kept where it does least harm.
            lines.append(
                "# f2 [s] stays at the middle of the time window: only f0·exp(-f1·f2) enters"
            )
            continue
        lines += [
            f"[parameters.{leaf.name}]" + (f"  # [{info.unit}]" if info.unit else ""),
            f"start = {info.start!r}",
            f"bounds = [{info.lower!r}, {info.upper!r}]",
            "free = true",
        ]
    return lines


def _rates(mode: str) -> list[str]:
    """One table a rate, with its keys explained at the first."""
    from .models import rates_of

    lines = [
        "",
        "# How the rates of the model depend on time. Other kinds than the power law have other",
        "# parameters: J[0], J[1], … for the values at knots of the transport coefficient, all of",
        "# them addressed by J; initial, tau and offset for exponential ageing.",
    ]
    for i, name in enumerate(rates_of(mode)):
        lines.append(f"[rates.{name}]")
        if i == 0:
            values = {"rates.times": [0.0, 10.0, 100.0], "rates.smoothness": 0.5}
            lines += _section("rates", Rate, values)[3:]
    return lines


def _sampling(values: dict[str, Any]) -> list[str]:
    """The tables of a posterior in comments, since it is their presence that asks for one."""
    tables = {
        "bayes": Bayes,
        "bayes.shards": Shards,
        "bayes.shards.job": Job,
        "bayes.priors.alpha": Prior,
    }
    intro = "# A posterior is sampled when [bayes] is there: take the # from its lines."
    return _in_comments(intro, tables, values)


def _defending(values: dict[str, Any]) -> list[str]:
    """The tables of defences in comments, since each layer is asked for by its presence."""
    tables = {"defences": Defences, **{f"defences.{name}": one for name, one in LAYERS.items()}}
    intro = "# A layer of defence is on when its table is there: take the # from its lines."
    return _in_comments(intro, tables, values)


def _in_comments(
    intro: str, tables: Mapping[str, type[BaseModel]], values: dict[str, Any]
) -> list[str]:
    lines = ["", intro]
    for name, model in tables.items():
        lines += _section(name, model, values)
    in_comments = re.compile(r"^(?:# )?(\[|\w+ = )", re.MULTILINE)
    return [in_comments.sub(r"#\1", line) for line in lines]


def _several(values: dict[str, Any]) -> list[str]:
    """Two tables `[[data]]`, the first with its keys explained, and what they share."""
    first = {**values, "data.path": "cold.h5", "data.label": "cold", "data.factors": {"D0": 1.0}}
    section = _section("joint", Joint, values)
    return [
        *_section("data", DataSet, first, "[[{}]]"),
        "",
        "# The next one has the same keys.",
        "[[data]]",
        'path = "hot.h5"',
        'label = "hot"',
        "# factors = {D0 = 2.2}  # D0 of hot is 2.2 times that of cold",
        *section[:-1],
        # Only one of the two can be given.
        "#   or the others, with a value for each data set:",
        '#   separate = ["D_offset"]',
        '# [parameters.D0] holds for all data sets, [parameters."D0[hot]"] for one.',
    ]


def template(mode: str) -> str:
    """A configuration for a mode, or for several data sets with `"joint"`.

    It is valid TOML in which every key of the schema is explained.

    **Raises:** `ConfigError` for a name that has no template.
    """
    if mode not in TEMPLATES:
        raise ConfigError(f"no template {mode!r}; there are {', '.join(TEMPLATES)}")
    chosen = "laminar_flow" if mode == JOINT else mode
    values = {**_EXAMPLES, **_solver_defaults(), "model.mode": chosen}
    lines = [
        "# Fit of two-time correlation maps: python -m xpcs_eqx.fit THIS_FILE",
        "# Everything but data.path is optional; a line in comments shows a key with its default,",
        "# or an example where there is none. Paths are relative to the folder of this file.",
    ]
    lines += _several(values) if mode == JOINT else _section("data", Data, values)
    fields = dict(Common.model_fields)
    # After the local fit that it builds on.
    last = {name: fields.pop(name) for name in ("global", "bayes", "output")}
    for name, info in {**fields, **last}.items():
        if name in NAMED:
            lines += _rates(chosen) if name == "rates" else _parameters(chosen)
            continue
        if name in ("bayes", "defences"):
            lines += _sampling(values) if name == "bayes" else _defending(values)
            continue
        model = info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        lines += _section(name, model, values)
    return "\n".join(lines) + "\n"
