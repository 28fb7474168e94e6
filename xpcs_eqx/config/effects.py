"""Keys that act only together with a choice made elsewhere: without it they are refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ..errors import ConfigError
from .schema import Common, DataSet, JointSettings, Settings, SeveralQSettings
from .section import toml_value
from .source import Key, Source

# Instead of values of the other key: that it has one, or that it has none.
SET, UNSET = ("something",), ()
# Stands for any name in a key.
ANY = "*"

_AT_KNOTS = ("spline", "signed_spline", "piecewise_constant", "piecewise_linear")
_ROBUST = ("soft_l1", "huber", "cauchy", "arctan")
_FROM_FILE = ("auto", "out_of_core", "hybrid")
_TRUST_REGION = ("levenberg_marquardt", "dogleg", "gauss_newton")


@dataclass(frozen=True)
class Needs:
    """That `key` acts only where the key `choice` has one of some values.

    - `choice`: of the same table when it is one word.
    - `values`: those it acts with; `SET` for any, `UNSET` for none at all.
    - `unless`: another key and the value of it with which it acts in any case.
    """

    key: str
    choice: str
    values: tuple[Any, ...]
    unless: tuple[str, Any] | None = None


NEEDS = (
    Needs("model.kernel", "mode", ("laminar_flow",)),
    Needs("rates.*.knots", "kind", _AT_KNOTS),
    Needs("rates.*.knots", "times", UNSET),
    Needs("rates.*.spacing", "kind", _AT_KNOTS),
    Needs("rates.*.spacing", "times", UNSET),
    Needs("parameters.*.factor", "tie", SET),
    Needs("parameters.*.bounds", "tie", UNSET),
    Needs("parameters.*.scale", "tie", UNSET),
    Needs("scaling.order", "mode", ("fourier",)),
    Needs("scaling.contrast_bounds", "contrast", UNSET, ("bayes.scaling", "averaged")),
    Needs("scaling.offset_bounds", "offset", UNSET, ("bayes.scaling", "averaged")),
    Needs("solver.loss_scale", "loss", _ROBUST),
    Needs("solver.metric", "method", _TRUST_REGION),
    Needs("solver.recovery", "method", _TRUST_REGION),
    Needs("solver.metric", "streaming.strategy", ("auto", "in_memory", "out_of_core")),
    Needs("solver.recovery", "streaming.strategy", ("auto", "in_memory", "out_of_core")),
    Needs("solver.checkpoint_every", "checkpoint", (True, "auto")),
    Needs("solver.profile_level", "profile", SET),
    Needs("streaming.memory_fraction", "strategy", ("auto", "hybrid")),
    Needs("streaming.piece", "strategy", _FROM_FILE),
    Needs("streaming.read_ahead", "strategy", _FROM_FILE),
    Needs("defences.monitor.flat", "watched", SET),
    Needs("defences.monitor.flat_checks", "watched", SET),
    Needs("defences.monitor.after", "watched", SET),
    Needs("defences.monitor.reset_factor", "response", ("reset",)),
    Needs("defences.monitor.limit", "response", ("warn", "hierarchical", "reset")),
)
# For one data set: several are always in memory.
_ONE_DATA_SET = ("streaming.memory_fraction", "streaming.piece", "streaming.read_ahead")


def _matching(node: Any, pattern: Sequence[str], before: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every key that was given and is meant by a pattern, with the table it is in."""
    first, *rest = pattern
    if isinstance(node, BaseModel):
        if first not in node.model_fields_set:
            return
        if not rest:
            yield (*before, first), node
            return
        yield from _matching(getattr(node, first), rest, (*before, first))
    elif isinstance(node, dict) and first == ANY:
        for name, one in node.items():
            yield from _matching(one, rest, (*before, name))


def _value(settings: Common, table: BaseModel, choice: str) -> Any:
    node: Any = settings if "." in choice else table
    for name in choice.split("."):
        node = getattr(node, name, None)
    return node


def _acts(value: Any, values: tuple[Any, ...]) -> bool:
    if values in (SET, UNSET):
        return (value is not None and value != []) == (values == SET)
    # True is 1 for Python, but not in TOML.
    return any(value == one and type(value) is type(one) for one in values)


def _mode(settings: Common, own: DataSet) -> str:
    said = own.model is not None and "mode" in own.model.model_fields_set
    return own.model.mode if said and own.model is not None else settings.model.mode


def _unused(settings: Common) -> Iterator[tuple[Key, str]]:
    """Keys of no effect that were given, and why there is none and what to do."""
    several = settings.data if isinstance(settings, JointSettings) else []
    modes = [_mode(settings, one) for one in several]
    for one in NEEDS:
        if one.key == "model.kernel" and "laminar_flow" in modes:
            continue
        for key, table in _matching(settings, one.key.split(".")):
            value = _value(settings, table, one.choice)
            if one.unless is not None and _value(settings, table, one.unless[0]) == one.unless[1]:
                continue
            if not _acts(value, one.values):
                yield key, _remedy(key, one, value)
    for k, (own, mode) in enumerate(zip(several, modes, strict=True), 1):
        given = own.model is not None and "kernel" in own.model.model_fields_set
        if given and mode != "laminar_flow":
            yield ("data", str(k), "model", "kernel"), f'with mode = "{mode}"; leave it out'
    if not isinstance(settings, Settings):
        for dotted in _ONE_DATA_SET:
            for key, _ in _matching(settings, dotted.split(".")):
                yield key, "for several data sets, which are in memory; leave it out"


def _remedy(key: Key, one: Needs, value: Any) -> str:
    choice = one.choice if "." in one.choice else ".".join((*key[:-1], one.choice))
    if one.values == SET:
        return f"without {choice}; set {choice}, or leave it out"
    found = f"without {choice}" if value is None else f"with {choice} = {toml_value(value)}"
    if one.values == UNSET:
        return f"{found}; leave one of them out"
    words = " or ".join(toml_value(word) for word in one.values)
    return f"{found}; set {choice} = {words}, or leave it out"


def refuse_without_effect(
    settings: Settings | SeveralQSettings | JointSettings, source: Source
) -> None:
    """Refuse keys that nothing would be made of.

    **Raises:** `ConfigError` with one line for each: where it is, what it needs, and what to do.
    """
    lines: dict[Key, str] = {}
    for key, why in _unused(settings):
        line = f"{source.where(key)}: {'.'.join(key)} is of no effect {why}"
        lines.setdefault(key, line)
    if lines:
        raise ConfigError("\n".join(lines.values()))


def without_unused(settings: Common, dumped: dict[str, Any]) -> dict[str, Any]:
    """Plain tables of settings without the keys that nothing would be made of.

    `dumped` has every default in place, which would be refused if it was read again.
    """
    for key, _ in list(_unused(type(settings).model_validate(dumped))):
        table: Any = dumped
        for name in key[:-1]:
            table = table[int(name) - 1] if isinstance(table, list) else table[name]
        table.pop(key[-1], None)
    return dumped
