"""From a TOML file and command-line options to checked settings."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..errors import ConfigError
from .effects import refuse_without_effect
from .schema import Common, JointSettings, Settings, SeveralQSettings
from .source import Key, Source, nearest, read_source, table_number

# Sections with one table for each name.
NAMED = ("parameters", "rates")
# All tables that have one table for each name, as the keys that lead to them.
TABLES_BY_NAME = (*((name,) for name in NAMED), ("bayes", "priors"))


@dataclass(frozen=True)
class Configuration:
    """Checked settings for one data set, and where each of them came from."""

    settings: Settings
    source: Source

    @property
    def data_path(self) -> str:
        """The data file."""
        return self.source.absolute(self.settings.data.path)

    @property
    def data_paths(self) -> tuple[str, ...]:
        """All data files."""
        return (self.data_path,)

    @property
    def output_directory(self) -> str:
        """The results folder: beside the file and named after it when nothing is given."""
        return _output_directory(self.settings, self.source)


@dataclass(frozen=True)
class JointConfiguration:
    """Checked settings for several data sets fitted together, and where they came from."""

    settings: JointSettings | SeveralQSettings
    source: Source

    @property
    def parts(self) -> tuple[Configuration, ...]:
        """What stands in the file for each data set; one alone for several q of one file."""
        given = self.settings
        common = {name: getattr(given, name) for name in Common.model_fields}
        if isinstance(given, SeveralQSettings):
            alone = Settings.model_construct(data=given.data, **common)
            return (Configuration(alone, self.source),)
        out = []
        for one in given.data:
            own = {} if one.model is None else one.model.model_dump(exclude_unset=True)
            model = given.model.model_copy(update=own)
            alone = Settings.model_construct(data=one, **{**common, "model": model})
            out.append(Configuration(alone, self.source))
        return tuple(out)

    @property
    def data_paths(self) -> tuple[str, ...]:
        """All data files, each once."""
        return tuple(dict.fromkeys(part.data_path for part in self.parts))

    @property
    def output_directory(self) -> str:
        """The results folder: beside the file and named after it when nothing is given."""
        return _output_directory(self.settings, self.source)


def _output_directory(settings: Common, source: Source) -> str:
    stem = os.path.splitext(os.path.basename(source.path))[0]
    return source.absolute(settings.output.directory or f"{stem}_results")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _schema(raw: Mapping[str, Any]) -> type[Settings | SeveralQSettings | JointSettings]:
    if isinstance(raw.get("data"), list):
        return JointSettings
    return SeveralQSettings if "joint" in raw else Settings


def find_field(
    path: Key, schema: type[BaseModel] = Settings
) -> tuple[FieldInfo | None, type[BaseModel] | None]:
    """Declaration of a dotted key, and the model of the table it opens; None where there is none.

    The name in `parameters.NAME`, `rates.NAME` and `bayes.priors.NAME` is free: the table is the
    same whatever it is.
    """
    info, model = None, schema
    for i, part in enumerate(path):
        if path[:i] in TABLES_BY_NAME or (i == 1 and table_number(path) is not None):
            continue
        info = None if model is None else model.model_fields.get(part)
        model = None if info is None else next(_models(info.annotation), None)
    return info, model


def all_keys(schema: type[BaseModel] = Settings) -> list[str]:
    """Every dotted key of a schema, parameters and rates left out."""
    return [
        f"{section}.{name}"
        for section, info in schema.model_fields.items()
        if section not in NAMED
        for name in next(_models(info.annotation)).model_fields
    ]


def _hint(path: Key, schema: type[BaseModel]) -> str:
    """The nearest known key: among its neighbours, then the same name in another section."""
    _, table = find_field(path[:-1], schema)
    known = list((table or schema).model_fields)
    elsewhere = [dotted for dotted in all_keys(schema) if dotted.split(".")[1] == path[-1]]
    if elsewhere and not difflib.get_close_matches(path[-1], known, n=1):
        return f"; did you mean {elsewhere[0]!r}?"
    return nearest(path[-1], known, "".join(f"{part}." for part in path[:-1]))


def _walk(raw: Any, location: tuple[int | str, ...], missing: bool) -> tuple[Key, Any]:
    """Key of an error as it stands in the file, and the value there.

    Pydantic adds the branches of unions to a location; those are not in the file.
    """
    path: list[str] = []
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
    missing, schema = error["type"] == "missing", _schema(raw)
    path, value = _walk(raw, error["loc"], missing)
    dotted = ".".join(path)
    info, _ = find_field(path, schema)
    extra = info.json_schema_extra if info is not None else None
    expected = str(extra["expected"]) if isinstance(extra, dict) else None
    if missing:
        if path == ("data",):
            dotted, expected = "data.path", "a path"
        place = source.where(path) if len(path) > 2 else source.path
        return f"{place}: the key {dotted!r} is missing; expected {expected}"
    where = source.where(path) if dotted else source.path
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key {dotted!r}{_hint(path, schema)}"
    if error["type"] == "value_error":
        text = str(error["ctx"]["error"])
        # It is about a table, whose keys may stand in several places: blame one that it names.
        for given, option in source.overrides.items():
            if given[:-1] == path and re.search(rf"\b{re.escape(given[-1])}\b", text):
                where = f"--set {option}"
        return f"{where}: {dotted}: {text}"
    if expected is None:
        expected = error["msg"] if find_field(path, schema)[1] is None else "a table of keys"
    text = f"{where}: {dotted} = {value!r} is not allowed; expected {expected}"
    if isinstance(value, str):
        near = difflib.get_close_matches(value, _quoted(expected), n=1)
        text += f"; did you mean {near[0]!r}?" if near else ""
    return text


def _quoted(text: str) -> list[str]:
    return text.split('"')[1::2]


def check_settings(
    raw: Mapping[str, Any], source: Source
) -> Settings | SeveralQSettings | JointSettings:
    """Settings from a raw table.

    **Raises:** `ConfigError` with one line for each key that is wrong: file, line, key, what was
    found, what is expected, the nearest known key.
    """
    try:
        return _schema(raw).model_validate(raw)
    except ValidationError as error:
        lines = dict.fromkeys(_describe(e, raw, source) for e in error.errors())
        raise ConfigError("\n".join(lines)) from None


def read_configuration(
    path: str, overrides: tuple[str, ...] = ()
) -> Configuration | JointConfiguration:
    """Read and check a configuration; `overrides` are the texts of `--set section.key=value`.

    **Raises:** `ConfigError` for a file that cannot be read, for every key that is wrong and for
    every one that would be of no effect.
    """
    source, raw = read_source(path, overrides)
    settings = check_settings(raw, source)
    refuse_without_effect(settings, source)
    if isinstance(settings, Settings):
        return Configuration(settings, source)
    return JointConfiguration(settings, source)
