"""From a TOML file and command-line options to checked settings."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..errors import ConfigError
from .effects import refuse_without_effect
from .section import Section, expected_of, tables_of
from .source import Key, Source, nearest, read_source, table_number
from .tables import Settings
from .tables.data import Data, DataSet

# Sections with one table for each name.
NAMED = ("parameters", "rates")
# All tables that have one table for each name, as the keys that lead to them.
TABLES_BY_NAME = (*((name,) for name in NAMED), ("bayes", "priors"))


@dataclass(frozen=True)
class Configuration:
    """Checked settings, and where each of them came from."""

    settings: Settings
    source: Source

    @property
    def parts(self) -> "tuple[Configuration, ...]":
        """What stands in the file for each data set; one alone for several q of one file."""
        given = self.settings
        if not isinstance(given.data, list):
            return (self,)
        common = {name: getattr(given, name) for name in Settings.model_fields}
        out = []
        for one in given.data:
            own = {} if one.model is None else one.model.model_dump(exclude_unset=True)
            model = given.model.model_copy(update=own)
            alone = Settings.model_construct(**{**common, "data": one, "model": model})
            out.append(Configuration(alone, self.source))
        return tuple(out)

    @property
    def data(self) -> Data:
        """The table of data, of which there must be one: that of a part."""
        assert isinstance(self.settings.data, Data)
        return self.settings.data

    @property
    def data_path(self) -> str:
        """The data file of a part."""
        return self.source.absolute(self.data.path)

    @property
    def data_paths(self) -> tuple[str, ...]:
        """All data files, each once."""
        return tuple(dict.fromkeys(part.data_path for part in self.parts))

    @property
    def output_directory(self) -> str:
        """The results folder: beside the file and named after it when nothing is given."""
        stem = os.path.splitext(os.path.basename(self.source.path))[0]
        return self.source.absolute(self.settings.output.directory or f"{stem}_results")


def find_field(path: Key) -> tuple[FieldInfo | None, type[Section] | None]:
    """Declaration of a dotted key, and the table it opens; None where there is none.

    The name in `parameters.NAME`, `rates.NAME` and `bayes.priors.NAME` is free: the table is the
    same whatever it is.
    """
    info, table = None, Settings
    for i, part in enumerate(path):
        if path[:i] in TABLES_BY_NAME or (i == 1 and table_number(path) is not None):
            continue
        info = None if table is None else table.model_fields.get(part)
        table = None if info is None else next(tables_of(info.annotation), None)
        if table is Data and table_number(path) is not None:
            table = DataSet
    return info, table


def all_keys() -> list[str]:
    """Every dotted key, parameters and rates left out."""
    return [
        f"{section}.{name}"
        for section, info in Settings.model_fields.items()
        if section not in NAMED
        for name in next(tables_of(info.annotation)).model_fields
    ]


def _hint(path: Key) -> str:
    """The nearest known key: among its neighbours, then the same name in another section."""
    _, table = find_field(path[:-1])
    known = list((table or Settings).model_fields)
    elsewhere = [dotted for dotted in all_keys() if dotted.split(".")[1] == path[-1]]
    if elsewhere and not difflib.get_close_matches(path[-1], known, n=1):
        return f"; did you mean {elsewhere[0]!r}?"
    return nearest(path[-1], known, "".join(f"{part}." for part in path[:-1]))


def _walk(raw: Any, location: tuple[int | str, ...], missing: bool) -> tuple[Key, Any]:
    """Key of an error as it stands in the file, and the value there.

    Pydantic adds the branches of unions to a location; those are not in the file.
    """
    path: list[str] = []
    if location[:1] == ("data",):
        # Whether there is one table of data or several.
        location = (location[0], *location[2:])
    for part in location:
        if path == ["data"] and isinstance(raw, list) and isinstance(part, int):
            path.append(str(part + 1))
            raw = raw[part]
            continue
        if not isinstance(raw, Mapping) or part not in raw:
            if missing and isinstance(raw, Mapping):
                path.append(str(part))
            break
        path.append(str(part))
        raw = raw[part]
    return tuple(path), raw


def _describe(error: Any, raw: Mapping[str, Any], source: Source) -> str:
    missing = error["type"] == "missing"
    path, value = _walk(raw, error["loc"], missing)
    dotted = ".".join(path)
    info, _ = find_field(path)
    expected = "a table of keys" if info is None else expected_of(info)
    if missing:
        if path == ("data",):
            dotted, expected = "data.path", "a path"
        place = source.where(path) if len(path) > 2 else source.path
        return f"{place}: the key {dotted!r} is missing; expected {expected}"
    where = source.where(path) if dotted else source.path
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key {dotted!r}{_hint(path)}"
    if error["type"] == "value_error":
        text = str(error["ctx"]["error"])
        # It is about a table, whose keys may stand in several places: blame one that it names.
        for given, option in source.overrides.items():
            if given[:-1] == path and re.search(rf"\b{re.escape(given[-1])}\b", text):
                where = f"--set {option}"
        return f"{where}: {dotted}: {text}"
    text = f"{where}: {dotted} = {value!r} is not allowed; expected {expected}"
    if isinstance(value, str):
        near = difflib.get_close_matches(value, _quoted(expected), n=1)
        text += f"; did you mean {near[0]!r}?" if near else ""
    return text


def _quoted(text: str) -> list[str]:
    return text.split('"')[1::2]


def check_settings(raw: Mapping[str, Any], source: Source) -> Settings:
    """Settings from a raw table.

    **Raises:** `ConfigError` with one line for each key that is wrong: file, line, key, what was
    found, what is expected, the nearest known key.
    """
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        lines = dict.fromkeys(_describe(e, raw, source) for e in error.errors())
        raise ConfigError("\n".join(lines)) from None


def read_configuration(path: str, overrides: tuple[str, ...] = ()) -> Configuration:
    """Read and check a configuration; `overrides` are the texts of `--set section.key=value`.

    **Raises:** `ConfigError` for a file that cannot be read, for every key that is wrong, for
    every one that would be of no effect and for those that do not go together.
    """
    source, raw = read_source(path, overrides)
    settings = check_settings(raw, source)
    refuse_without_effect(settings, source)
    return Configuration(settings, source)
