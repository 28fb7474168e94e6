"""Where a value of a configuration was written: file and line, or command line."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from ..errors import ConfigError, DataError, ModelError

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
        """Place of a key as the beginning of a message.

        It is the line of the key, of the closest table that holds it, or of the first one inside.
        """
        wanted = parts(key) if isinstance(key, str) else key
        # The last one wins, as it did when they were put in.
        options = [(given, f"--set {text}") for given, text in self.overrides.items()][::-1]
        for given, option in options:
            if given == wanted[: len(given)]:
                return option
        holding, itself, inside = self._lines(wanted)
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
