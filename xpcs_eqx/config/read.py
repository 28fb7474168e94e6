"""From a TOML file and command-line options to checked settings."""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..errors import ConfigError
from .schema import Settings
from .source import Source, nearest, read_source

# Sections with one table for each name.
NAMED = ("parameters", "rates")


@dataclass(frozen=True)
class Configuration:
    """Checked settings and where each of them came from."""

    settings: Settings
    source: Source

    def path(self, text: str) -> str:
        """An absolute path from one in the file, which is relative to the file's folder."""
        return os.path.normpath(os.path.join(self.source.folder, os.path.expanduser(text)))

    @property
    def data_path(self) -> str:
        """The data file."""
        return self.path(self.settings.data.path)

    @property
    def output_directory(self) -> str:
        """The results folder: beside the file and named after it when nothing is given."""
        stem = os.path.splitext(os.path.basename(self.source.path))[0]
        return self.path(self.settings.output.directory or f"{stem}_results")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def find_field(path: tuple[str, ...]) -> tuple[FieldInfo | None, type[BaseModel] | None]:
    """Declaration of a dotted key, and the model of the table it opens; None where there is none.

    The name in `parameters.NAME` and `rates.NAME` is free: the table is the same whatever it is.
    """
    info, model = None, Settings
    for i, part in enumerate(path):
        if i == 1 and path[0] in NAMED:
            continue
        info = None if model is None else model.model_fields.get(part)
        model = None if info is None else next(_models(info.annotation), None)
    return info, model


def all_keys() -> list[str]:
    """Every dotted key of the schema, parameters and rates left out."""
    return [
        f"{section}.{name}"
        for section, info in Settings.model_fields.items()
        if section not in NAMED
        for name in next(_models(info.annotation)).model_fields
    ]


def _hint(path: tuple[str, ...]) -> str:
    """The nearest known key: among its neighbours, then the same name in another section."""
    _, table = find_field(path[:-1])
    known = list((table or Settings).model_fields)
    elsewhere = [dotted for dotted in all_keys() if dotted.split(".")[1] == path[-1]]
    if elsewhere and not difflib.get_close_matches(path[-1], known, n=1):
        return f"; did you mean {elsewhere[0]!r}?"
    return nearest(path[-1], known, "".join(f"{part}." for part in path[:-1]))


def _walk(raw: Any, location: tuple[int | str, ...], missing: bool) -> tuple[tuple[str, ...], Any]:
    """Dotted key of an error as it stands in the file, and the value there.

    Pydantic adds the branches of unions to a location; those are not in the file.
    """
    path: list[str] = []
    for part in location:
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
    extra = info.json_schema_extra if info is not None else None
    expected = str(extra["expected"]) if isinstance(extra, dict) else None
    if missing:
        if path == ("data",):
            dotted, expected = "data.path", "a path"
        return f"{source.path}: the key {dotted!r} is missing; expected {expected}"
    where = source.where(dotted) if dotted else source.path
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key {dotted!r}{_hint(path)}"
    if error["type"] == "value_error":
        return f"{where}: {dotted}: {error['ctx']['error']}"
    if expected is None:
        expected = "a table of keys" if len(path) < 2 or path[0] in NAMED else error["msg"]
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

    **Raises:** `ConfigError` for a file that cannot be read and for every key that is wrong.
    """
    source, raw = read_source(path, overrides)
    return Configuration(check_settings(raw, source), source)
