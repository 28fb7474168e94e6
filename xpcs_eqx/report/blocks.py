"""What a section of a report is made of: tables, entries, items, headings and paragraphs.

Each is a value; the text and the page are two renderings of it.
"""

import re
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..showing import columns
from ..showing import counted as counted
from ..showing import number as number
from ..showing import probability_text as probability_text
from ..showing import value_and_error as value_and_error
from ..showing import with_error as with_error

WIDTH = 100
# What stands on the right of its column: numbers, with errors and ranges of them.
_NUMERIC = re.compile(r"[-+−±∞….,:%()<\d\seE]*|nan|inf")


class Table(NamedTuple):
    """Columns with a header; those of numbers stand on the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def numeric(self) -> list[bool]:
        """Which columns are of numbers; the first one names its row."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.header)
        return [
            k > 0 and all(_NUMERIC.fullmatch(cell) for cell in column)
            for k, column in enumerate(columns)
        ]


class Entry(NamedTuple):
    """A name with what is said of it."""

    name: str
    said: str


class Item(NamedTuple):
    """A sentence of a list."""

    said: str


class Heading(NamedTuple):
    """What the following blocks are about."""

    title: str


# A text by itself is a paragraph.
Block = str | Table | Entry | Item | Heading


_KINDS = {"table": Table, "entry": Entry, "item": Item, "heading": Heading}


def to_plain(block: Block) -> Any:
    """A block in plain values, for JSON."""
    if isinstance(block, str):
        return block
    kind = next(name for name, one in _KINDS.items() if isinstance(block, one))
    return {"kind": kind, **block._asdict()}


def from_plain(found: Any) -> Block:
    """The block of plain values as of `to_plain`. **Raises:** `KeyError`, `TypeError` for others.

    >>> from_plain(to_plain(Entry("q", "0.0054 1/Å")))
    Entry(name='q', said='0.0054 1/Å')
    """
    if isinstance(found, str):
        return found
    return _KINDS[found["kind"]](**{name: one for name, one in found.items() if name != "kind"})


def items(texts: Sequence[str]) -> list[Item]:
    """A list of sentences."""
    return [Item(one) for one in texts]


def _table_lines(table: Table) -> list[str]:
    return columns(table.header, table.rows, table.numeric())


def _filled(said: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(said, WIDTH, initial_indent=first, subsequent_indent=later)


def _lines(block: Block) -> list[str]:
    if isinstance(block, Table):
        return _table_lines(block)
    if isinstance(block, Heading):
        return [f"  {block.title}"]
    if isinstance(block, Entry):
        return _filled(block.said, f"  {block.name:<16} ", " " * 19)
    if isinstance(block, Item):
        return _filled(block.said, "  - ", "    ")
    return _filled(block, "  ", "  ")


def text_lines(blocks: Sequence[Block]) -> list[str]:
    """Blocks in lines of text; a blank line keeps a table apart from what it does not belong to."""
    out: list[str] = []
    for k, block in enumerate(blocks):
        before = blocks[k - 1] if k else ""
        apart = isinstance(before, Table) or isinstance(block, Heading)
        apart |= isinstance(block, Table) and isinstance(before, Entry | Item)
        out += ["", *_lines(block)] if k and apart else _lines(block)
    return out
