"""Keys that nothing would be made of, and keys that do not go together: all of them are refused.

What each key needs stands with the key (`When`), what a table excludes with the table
(`Section.excluded`); here both are asked of a configuration, before anything is read.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from ..errors import ConfigError
from .section import ANY, SET, UNSET, Section, When, keys_of, said_of, toml_value
from .source import Key, Source, listed
from .tables import Settings
from .tables.search import search_settings


@cache
def rules() -> tuple[tuple[str, When], ...]:
    """What each key needs to act; the tables of data sets have rules of their own."""
    return tuple(
        (".".join(key), when)
        for key, info, table in keys_of(Settings)
        if key[0] != "data"
        for when in (*table.acts, *said_of(info).get("when", ()))
    )


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


def _value(settings: Settings, table: BaseModel, wanted: str) -> Any:
    node: Any = settings if "." in wanted else table
    for name in wanted.split("."):
        node = getattr(node, name, None)
    return node


def _acts(value: Any, values: tuple[Any, ...]) -> bool:
    if values in (SET, UNSET):
        return (value is not None and value != []) == (values == SET)
    # True is 1 for Python, but not in TOML.
    return any(value == one and type(value) is type(one) for one in values)


def _unused(settings: Settings) -> Iterator[tuple[Key, str]]:
    """Keys of no effect that were given, and why there is none and what to do."""
    several = settings.data if isinstance(settings.data, list) else []
    own = [{} if one.model is None else one.model.model_dump(exclude_unset=True) for one in several]
    modes = [model.get("mode", settings.model.mode) for model in own]
    for dotted, when in rules():
        if dotted == "model.kernel" and "laminar_flow" in modes:
            continue
        for key, table in _matching(settings, dotted.split(".")):
            default = type(table).model_fields[key[-1]].default
            if when.changed and getattr(table, key[-1]) == default:
                continue
            if when.unless and _value(settings, table, when.unless[0]) == when.unless[1]:
                continue
            value = _value(settings, table, when.choice)
            if not _acts(value, when.values):
                yield key, _remedy(key, when, value)
    for k, (model, mode) in enumerate(zip(own, modes, strict=True), 1):
        if "kernel" in model and mode != "laminar_flow":
            yield ("data", str(k), "model", "kernel"), f'with mode = "{mode}"; leave it out'


def _remedy(key: Key, when: When, value: Any) -> str:
    wanted = when.choice if "." in when.choice else ".".join((*key[:-1], when.choice))
    if when.values == SET:
        return f"without {wanted}; set {wanted}, or leave it out"
    found = f"without {wanted}" if value is None else f"with {wanted} = {toml_value(value)}"
    if when.remedy:
        return f"{found}; {when.remedy}"
    if when.values == UNSET:
        return f"{found}; leave one of them out"
    words = " or ".join(toml_value(word) for word in when.values)
    return f"{found}; set {wanted} = {words}, or leave it out"


def refuse_without_effect(settings: Settings, source: Source) -> None:
    """Refuse keys that nothing would be made of, and those that do not go together.

    **Raises:** `ConfigError` with one line for each: where it is, what it needs, and what to do.
    """
    lines: dict[Key, str] = {}
    for key, why in _unused(settings):
        line = f"{source.where(key)}: {'.'.join(key)} is of no effect {why}"
        lines.setdefault(key, line)
    tables = (one for _, one in settings if isinstance(one, Section))
    excluded = (pair for one in tables for pair in one.excluded(settings))
    said = [f"{source.where(key)}: {text}" for key, text in excluded]
    if said or lines:
        raise ConfigError(listed([*lines.values(), *said]))


def without_unused(settings: Settings, dumped: dict[str, Any]) -> dict[str, Any]:
    """Plain tables of settings without the keys that nothing would be made of.

    `dumped` has every default in place, which would be refused if it was read again.
    """
    for key, _ in list(_unused(type(settings).model_validate(dumped))):
        table: Any = dumped
        for name in key[:-1]:
            table = table[int(name) - 1] if isinstance(table, list) else table[name]
        table.pop(key[-1], None)
    if not search_settings(settings).asked:
        # By default it goes where it can; asked for, it would be refused where it cannot.
        dumped["global"].pop("method", None)
    return dumped
