"""Where a value of a configuration was written: file and line, or command line."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from ..errors import ConfigError, DataError, ModelError, nearest_name

_KEY = r"""(?:"[^"]*"|'[^']*'|[\w\-]+)"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_TABLE = re.compile(rf"\s*(\[\[?)\s*({_KEYS})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_KEYS})\s*=")
# On the command line a key may stand without the quotes that a shell takes away.
_PART = re.compile(r"""\s*("[^"]*"|'[^']*'|[^.\["']*(?:\[[^\]]*\][^.\["']*)*)\s*(?:\.|$)""")

# A key as the names that lead to it; a table of an array has its number, from 1, among them.
Key: TypeAlias = tuple[str, ...]
# No key of a configuration has more names, so places are known to this depth only.
_DEPTH = 8
# Of a message: its lines, and the characters of a value in it.
_LINES, _WIDTH = 20, 200


def parts(dotted: str) -> Key:
    """The names of a dotted key, where quotes or brackets keep dots together."""
    found = (match[1].strip().strip("\"'") for match in _PART.finditer(dotted))
    names = list(found)
    # The expression also matches the nothing at the end.
    return tuple(names[:-1] if names and not names[-1] else names)


def table_number(key: Key) -> int | None:
    """The number of the table `[[data]]` that a key is in."""
    if key[:1] == ("data",) and len(key) > 1:
        return number_in(key[1])
    return None


def number_in(name: str) -> int | None:
    """The number that a name is; None for one that is a word."""
    # Other digits than these, as in x², are letters here.
    return int(name) if re.fullmatch("[0-9]{1,9}", name) else None


def shown(value: Any) -> str:
    """A value as a message shows it, the middle of a long one left out."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # Python writes no number of thousands of digits, and no table of thousands of levels.
        return f"something of type {type(value).__name__} that is too long to be shown"
    half = _WIDTH // 2
    return text if len(text) <= _WIDTH else f"{text[:half]} … {text[-half:]}"


def listed(lines: Iterable[str]) -> str:
    """Lines of a message, each once, the rest of very many left out."""
    different: dict[str, None] = {}
    for line in lines:
        if len(different) == _LINES:
            return "\n".join([*different, "and more like these"])
        different[line] = None
    return "\n".join(different)


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """End of a message about an unknown name: the nearest known one, and all of them."""
    known = list(known)
    near = nearest_name(name, known, 0.0)
    hint = f"; did you mean {prefix + near!r}?" if near else "."
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

    @cached_property
    def _lines(self) -> tuple[dict[Key, int], dict[Key, int]]:
        """The first line of each key and table, and of the first key inside each."""
        table: Key = ()
        counts: dict[Key, int] = {}
        lines: dict[Key, int] = {}
        inside: dict[Key, int] = {}
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
            lines.setdefault(here, number)
            for depth in range(min(len(here), _DEPTH)):
                inside.setdefault(here[:depth], number)
        return lines, inside

    def _holding(self, wanted: Key) -> tuple[int | None, bool]:
        """Line of a key or the closest table that holds it, and whether it is the key."""
        lines = self._lines[0]
        for depth in range(min(len(wanted), _DEPTH), 0, -1):
            if wanted[:depth] in lines:
                return lines[wanted[:depth]], depth == len(wanted)
        return None, not wanted

    def where(self, key: str | Key) -> str:
        """Place of a key as the beginning of a message.

        It is the line of the key, of the closest table that holds it, or of the first one inside.
        """
        wanted = parts(key) if isinstance(key, str) else key
        # The last one wins, as it did when they were put in.
        options = [(given, f"--set {text}") for given, text in self.overrides.items()][::-1]
        for given, option in options:
            if given == wanted[: len(given)]:
                return option
        (holding, itself), inside = self._holding(wanted), self._lines[1].get(wanted)
        if not itself and inside is None:
            # What is there of it comes from the command line alone.
            for given, option in options:
                if given[: len(wanted)] == wanted:
                    return option
        line = inside if holding is None else holding
        place = self.path if line is None else f"{self.path}, line {line}"
        number = table_number(wanted)
        return place if number is None else f"{place}, [[data]] {number}"

    @contextmanager
    def placed(
        self, key: str | Key, what: str, wording: Callable[[str], str] = str
    ) -> Iterator[None]:
        """What the library objects to is an error of a key; `wording` puts it in its words."""
        try:
            yield
        except (DataError, ModelError) as error:
            raise ConfigError(f"{self.where(key)}: {what}: {wording(str(error))}") from error
