"""Where a value of a configuration was written: file and line, or command line."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError

# Values of these keys are paths: in the file relative to the file, on the command line relative
# to the current folder.
PATHS = ("data.path", "output.directory")

_TABLE = re.compile(r"\s*\[{1,2}([^\[\]]+)\]{1,2}")
_ASSIGNMENT = re.compile(r"\s*((?:[\w\-\"']+\s*\.\s*)*[\w\-\"']+)\s*=")


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


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
    - `overrides`: dotted key → text of the `--set` option.
    """

    path: str
    text: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Folder from which relative paths in the file start."""
        return os.path.dirname(os.path.abspath(self.path))

    def line(self, dotted: str) -> int | None:
        """Line of a dotted key, or of the closest table or inline table that holds it."""
        wanted, table = _parts(dotted), ()
        best, depth = None, 0
        for number, text in enumerate(self.text.splitlines(), 1):
            header, assignment = _TABLE.match(text), _ASSIGNMENT.match(text)
            if header:
                table = here = _parts(header[1])
            elif assignment:
                here = table + _parts(assignment[1])
            else:
                continue
            if here == wanted[: len(here)] and len(here) > depth:
                best, depth = number, len(here)
        return best

    def where(self, dotted: str) -> str:
        """Place of a key as the beginning of a message."""
        for given, text in self.overrides.items():
            if given == dotted or dotted.startswith(given + ".") or given.startswith(dotted + "."):
                return f"--set {text}"
        line = self.line(dotted)
        return self.path if line is None else f"{self.path}, line {line}"


def parse_override(text: str) -> tuple[str, Any]:
    """Dotted key and value of a `section.key=value` option; what is not TOML is a string.

    **Raises:** `ConfigError` for text of another form.
    """
    dotted, equals, value = text.partition("=")
    dotted = ".".join(_parts(dotted))
    if not equals or "." not in dotted or not all(dotted.split(".")):
        raise ConfigError(f"--set {text}: write section.key=value, for example data.dt=0.1")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    if dotted in PATHS and isinstance(parsed, str):
        parsed = os.path.abspath(parsed)
    return dotted, parsed


def apply_override(raw: dict[str, Any], dotted: str, value: Any, text: str) -> None:
    """Put a value into nested tables.

    **Raises:** `ConfigError` when the way leads through something that is no table.
    """
    *tables, last = dotted.split(".")
    node = raw
    for i, name in enumerate(tables):
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {text}: {'.'.join(tables[: i + 1])} is a value, not a table")
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
        dotted, value = parse_override(option)
        apply_override(raw, dotted, value, option)
        given[dotted] = option
    return Source(path, text, given), raw
