"""Where a value of a configuration was written: file and line, or command line."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..errors import ConfigError

# Values of these keys are paths: in the file relative to the file, on the command line relative
# to the current folder. (bayes.shards.job.scratch is one on other machines.)
PATHS = (
    ("data", "path"),
    ("output", "directory"),
    ("solver", "start_from"),
    ("global", "starts_from"),
    ("bayes", "priors_from"),
    ("bayes", "shards", "folder"),
)

_KEY = r"""(?:"[^"]*"|'[^']*'|[\w\-]+)"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_TABLE = re.compile(rf"\s*(\[\[?)\s*({_KEYS})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_KEYS})\s*=")
# On the command line a key may stand without the quotes that a shell takes away.
_PART = re.compile(r"""\s*("[^"]*"|'[^']*'|[^.\["']*(?:\[[^\]]*\][^.\["']*)*)\s*(?:\.|$)""")

# A key as the names that lead to it; a table of an array has its number, from 1, among them.
Key: TypeAlias = tuple[str, ...]


def parts(dotted: str) -> Key:
    """The names of a dotted key, where quotes or brackets keep dots together."""
    found = (match[1].strip().strip("\"'") for match in _PART.finditer(dotted))
    names = list(found)
    # The expression also matches the nothing at the end.
    return tuple(names[:-1] if names and not names[-1] else names)


def table_number(key: Key) -> int | None:
    """The number of the table `[[data]]` that a key is in."""
    if key[:1] == ("data",) and len(key) > 1 and key[1].isdigit():
        return int(key[1])
    return None


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """End of a message about an unknown name: the nearest known one, and all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"; did you mean {prefix + near[0]!r}?" if near else "."
    return f"{hint} Known here: {', '.join(known) or 'none'}"


@dataclass(frozen=True)
class Source:
    """The text of a configuration file and what the command line changed.

    - `path`: file as it was given; relative paths inside it start from its folder.
    - `overrides`: key → text of the `--set` option.
    """

    path: str
    text: str = ""
    overrides: Mapping[Key, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Folder from which relative paths in the file start."""
        return os.path.dirname(os.path.abspath(self.path))

    def absolute(self, path: str) -> str:
        """An absolute path from one in the file, which is relative to the file's folder."""
        return os.path.normpath(os.path.join(self.folder, os.path.expanduser(path)))

    def line(self, key: str | Key) -> int | None:
        """Line of a key, of the closest table that holds it, or of the first table inside it."""
        holding, _, inside = self._lines(parts(key) if isinstance(key, str) else key)
        return inside if holding is None else holding

    def _lines(self, wanted: Key) -> tuple[int | None, bool, int | None]:
        """Line of a key or the closest table that holds it, whether it is the key, and of the
        first key inside it.
        """
        table: Key = ()
        counts: dict[Key, int] = {}
        best, inside, depth = None, None, 0
        for number, text in enumerate(self.text.splitlines(), 1):
            header, assignment = _TABLE.match(text), _ASSIGNMENT.match(text)
            if header:
                table = here = parts(header[2])
                if header[1] == "[[":
                    counts[here] = counts.get(here, 0) + 1
                if here[:1] in counts:
                    table = here = (here[0], str(counts[here[:1]]), *here[1:])
            elif assignment:
                here = table + parts(assignment[1])
            else:
                continue
            if here == wanted[: len(here)] and len(here) > depth:
                best, depth = number, len(here)
            elif inside is None and here[: len(wanted)] == wanted:
                inside = number
        return best, depth == len(wanted), inside

    def where(self, key: str | Key) -> str:
        """Place of a key as the beginning of a message."""
        wanted = parts(key) if isinstance(key, str) else key
        # The last one wins, as it did when they were put in.
        options = [(given, f"--set {text}") for given, text in self.overrides.items()][::-1]
        for given, option in options:
            if given == wanted[: len(given)]:
                return option
        line = self.line(wanted)
        _, itself, inside = self._lines(wanted)
        if not itself and inside is None:
            # What is there of it comes from the command line alone.
            for given, option in options:
                if given[: len(wanted)] == wanted:
                    return option
        place = self.path if line is None else f"{self.path}, line {line}"
        number = table_number(wanted)
        return place if number is None else f"{place}, [[data]] {number}"


def parse_override(text: str) -> tuple[Key, Any]:
    """Key and value of a `section.key=value` option; what is not TOML is a string.

    **Raises:** `ConfigError` for text of another form.
    """
    dotted, equals, value = text.partition("=")
    names = parts(dotted)
    if not equals or len(names) < 2 or not all(names):
        raise ConfigError(f"--set {text}: write section.key=value, for example data.dt=0.1")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
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
            number = tables[i + 1] if i + 1 < len(tables) else ""
            if not (number.isdigit() and 1 <= int(number) <= len(node)):
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
            text = stream.read().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such configuration file; write one with --template laminar_flow"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error})") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    given = {}
    for option in overrides:
        key, value = parse_override(option)
        apply_override(raw, key, value, option)
        given.pop(key, None)
        given[key] = option
    return Source(path, text, given), raw
