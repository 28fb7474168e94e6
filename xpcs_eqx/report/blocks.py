"""What a section of a report is made of: tables, entries, items, headings and paragraphs.

Each is a value; the text and the page are two renderings of it.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

WIDTH = 100
# What stands on the right of its column: numbers, with errors and ranges of them.
_NUMERIC = re.compile(r"[-+−±∞….,:%()\d\seE]*|nan|inf")


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


def number(value: float, digits: int = 6) -> str:
    """A number in a table, rounded to some digits; a dash for NaN.

    >>> number(203.4, 2), number(4022.416), number(math.nan)
    ('200', '4022.42', '-')
    """
    return "-" if math.isnan(value) else f"{float(f'{value:.{digits}g}'):.{max(digits, 6)}g}"


def with_error(value: float, error: float) -> str:
    """A value rounded as its error, which has two digits.

    >>> with_error(4022.42, 61.13), with_error(9.81164e-05, 2.12e-06), with_error(0.5, math.nan)
    ('4022 ± 61', '(9.81 ± 0.21)e-05', '0.5')
    """
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value)
    size = math.floor(math.log10(max(abs(value), error)))
    # Powers of ten where plain digits would be many zeros.
    power = 0 if -4 < size < 6 else size
    scale = 10.0**-power
    digits = max(0, 1 - math.floor(math.log10(error * scale)))
    pair = f"{value * scale:.{digits}f} ± {error * scale:.{digits}f}"
    return f"({pair})e{power:+03d}" if power else pair


def counted(many: int, name: str) -> str:
    """A number of things in words.

    >>> counted(1, "angle"), counted(3, "angle")
    ('1 angle', '3 angles')
    """
    return f"{many} {name}" if many == 1 else f"{many} {name}s"


def _table_lines(table: Table) -> list[str]:
    numeric = table.numeric()
    every = (table.header, *table.rows)
    widths = [max(len(line[i]) for line in every) for i in range(len(table.header))]

    def line(cells: Sequence[str]) -> str:
        shown = [
            cell.rjust(w) if right else cell.ljust(w)
            for cell, w, right in zip(cells, widths, numeric, strict=True)
        ]
        return ("  " + "  ".join(shown)).rstrip()

    rule = "  " + "-" * (sum(widths) + 2 * len(widths) - 2)
    return [line(table.header), rule, *map(line, table.rows)]


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
