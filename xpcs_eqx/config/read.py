"""From a TOML file and command-line options to checked settings."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..errors import ConfigError, nearest_name
from .effects import refuse_without_effect
from .section import Section, expected_of, keys_of, tables_of
from .source import Key, Source, listed, nearest, number_in, parts, shown, table_number
from .tables import PATHS, Settings
from .tables.data import Data, DataSet

# Beyond these nobody means what is written, and sums and products of it overflow.
_SMALLEST, _LARGEST, _LONGEST = 1e-50, 1e50, 4096
_MOST_BYTES = 16_000_000
# How files of maps begin: HDF5, NPY, NPZ.
_OF_DATA = (b"\x89HDF", b"\x93NUMPY", b"PK\x03\x04")
# Reading a key takes the square of the number of its names.
_DEEP = re.compile(r"""(?<![\w\-"'])(?:[\w\-"']+[ \t]*\.[ \t]*){50}""")


def _toml(text: str) -> dict[str, Any]:
    """**Raises:** `ValueError` for whatever is not TOML, or cannot be read as such."""
    if _DEEP.search(text):
        raise ValueError("a key has 50 names or more")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("arrays or tables are nested too deeply") from None


def parse_override(text: str) -> tuple[Key, Any]:
    """Key and value of a `section.key=value` option; what is not TOML is a string.

    **Raises:** `ConfigError` for text of another form.
    """
    dotted, equals, value = text.partition("=")
    names = parts(dotted)
    if not equals or len(names) < 2 or not all(names):
        raise ConfigError(f"--set {text}: write section.key=value, for example data.dt=0.1")
    try:
        # What is no TOML by itself is a text; so is what goes on with other keys in further lines.
        table = _toml(f"value = {value}")
        parsed = table["value"] if len(table) == 1 else value.strip()
    except ValueError:
        parsed = value.strip()
    return names, _from_here(names, parsed)


def _from_here(key: Key, value: Any) -> Any:
    """A value of the command line, its paths starting from the current folder."""
    if isinstance(value, dict):
        return {name: _from_here((*key, name), one) for name, one in value.items()}
    if isinstance(value, list):
        return [_from_here(key, one) for one in value]
    # The number of a table of an array is no part of what its keys mean.
    plain = key if table_number(key) is None else (key[0], *key[2:])
    if plain in PATHS and isinstance(value, str) and value:
        return os.path.abspath(os.path.expanduser(value))
    return value


def apply_override(raw: dict[str, Any], key: Key, value: Any, text: str) -> None:
    """Put a value into nested tables, or into the table of an array that a number names.

    **Raises:** `ConfigError` when the way leads through something that is no table.
    """
    tables, last = key[:-1], key[-1]
    node: Any = raw
    for i, name in enumerate(tables):
        node = node[int(name) - 1] if isinstance(node, list) else node.setdefault(name, {})
        if isinstance(node, list) and all(isinstance(one, dict) for one in node):
            number = number_in(tables[i + 1]) if i + 1 < len(tables) else None
            if number is None or not 1 <= number <= len(node):
                raise ConfigError(
                    f"--set {text}: there are {len(node)} tables [[{name}]]; name one of them by "
                    f"its number, as in {name}.1.{last}=..."
                )
        elif not isinstance(node, dict):
            raise ConfigError(f"--set {text}: {'.'.join(tables[: i + 1])} is a value, not a table")
    assert isinstance(node, dict)
    node[last] = value


def read_source(path: str, overrides: tuple[str, ...] = ()) -> tuple[Source, dict[str, Any]]:
    """The file and the command line as one raw table.

    **Raises:** `ConfigError` for a file that is missing, unreadable or not TOML.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if content.startswith(_OF_DATA):
            raise ConfigError(
                f"{path}: is a file of data, not a configuration; write one for it with "
                f"`xpcs-eqx init {path} > fit.toml`, and fit that"
            )
        if len(content) > _MOST_BYTES:
            raise ConfigError(
                f"{path}: is larger than {_MOST_BYTES // 1_000_000} MB, so it is no configuration; "
                "data are named in one, by data.path"
            )
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such configuration file; write one with "
            "`xpcs-eqx init DATA_FILE > fit.toml`, or with --template laminar_flow"
        ) from None
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error})") from error
    try:
        raw = _toml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    given = {}
    for option in overrides:
        key, value = parse_override(option)
        apply_override(raw, key, value, option)
        given.pop(key, None)
        given[key] = option
    return Source(path, text, given), raw


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
    info, table, named = None, Settings, False
    for i, part in enumerate(path):
        if named or (i == 1 and table_number(path) is not None):
            named = False
            continue
        info = None if table is None else table.model_fields.get(part)
        table = None if info is None else next(tables_of(info.annotation), None)
        named = info is not None and table is not None and get_origin(info.annotation) is dict
        if table is Data and table_number(path) is not None:
            table = DataSet
    return info, table


def _hint(path: Key) -> str:
    """The nearest known key: among its neighbours, then the same name in another section."""
    _, table = find_field(path[:-1])
    known = list((table or Settings).model_fields)
    elsewhere = [".".join(key) for key, *_ in keys_of(Settings) if key[1:] == path[-1:]]
    if elsewhere and not nearest_name(path[-1], known):
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
    text = f"{where}: {dotted} = {shown(value)} is not allowed; expected {expected}"
    if isinstance(value, str):
        # The words that it says are allowed.
        near = nearest_name(value, expected.split('"')[1::2])
        text += f"; did you mean {near!r}?" if near else ""
    return text


def _impossible(raw: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    """Keys whose name or value nothing can be made of, whatever the key, and what to say."""
    left: list[tuple[Key, Any]] = [((), raw)]
    while left:
        key, value = left.pop()
        dotted = ".".join(key)
        if isinstance(value, Mapping):
            wrong = [name for name in value if _no_text(name)]
            yield from (((*key,), f"the key {shown(name)} {_no_text(name)}") for name in wrong)
            left += [((*key, name), value[name]) for name in reversed(value) if name not in wrong]
        elif isinstance(value, list):
            tables = key == ("data",)
            items = [((*key, str(i)) if tables else key, one) for i, one in enumerate(value, 1)]
            left += reversed(items)
        elif isinstance(value, str) and _no_text(value):
            yield key, f"{dotted} = {shown(value)} {_no_text(value)}"
        elif isinstance(value, int | float) and not isinstance(value, bool):
            size = abs(value)
            # A whole number may be too large for a float.
            endless = isinstance(value, float) and not isfinite(value)
            if not endless and size and not _SMALLEST <= size <= _LARGEST:
                yield (
                    key,
                    f"{dotted} = {shown(value)} is not allowed; expected a number that is 0 or "
                    f"from {_SMALLEST:g} to {_LARGEST:g} in size",
                )


def _no_text(text: str) -> str:
    """Why nothing can be named by a text; empty when it can."""
    if len(text) > _LONGEST:
        return f"has {len(text)} characters; at most {_LONGEST} are allowed"
    if "\0" in text:
        return "holds a character of value zero, which no text, name or path has"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is no text in UTF-8"
    return ""


def check_settings(raw: Mapping[str, Any], source: Source) -> Settings:
    """Settings from a raw table.

    **Raises:** `ConfigError` with one line for each key that is wrong: file, line, key, what was
    found, what is expected, the nearest known key.
    """
    if impossible := [f"{source.where(key)}: {text}" for key, text in _impossible(raw)]:
        raise ConfigError(listed(impossible))
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
        raise ConfigError(listed(_describe(e, raw, source) for e in found)) from None


def read_configuration(path: str, overrides: tuple[str, ...] = ()) -> Configuration:
    """Read and check a configuration; `overrides` are the texts of `--set section.key=value`.

    **Raises:** `ConfigError` for a file that cannot be read, for every key that is wrong, for
    every one that would be of no effect and for those that do not go together.
    """
    source, raw = read_source(path, overrides)
    settings = check_settings(raw, source)
    refuse_without_effect(settings, source)
    return Configuration(settings, source)
