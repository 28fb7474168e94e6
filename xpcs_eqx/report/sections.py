"""A section is what a result has to say about one thing; a report is a list of them.

Its content is of blocks: tables, entries, items, headings and paragraphs, each a value. Text, page
and `parameters.json` are three renderings of the same list.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..showing import columns, per_frame
from ..showing import counted as counted
from ..showing import number as number
from ..showing import probability_text as probability_text
from ..showing import value_and_error as value_and_error
from ..showing import with_error as with_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def _filled(said: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(said, WIDTH, initial_indent=first, subsequent_indent=later)


def _lines(block: Block) -> list[str]:
    if isinstance(block, Table):
        return columns(block.header, block.rows, block.numeric())
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


def plotting():
    """The package that draws; it comes in when it is asked for, in a third of a second."""
    from . import plots

    return plots


# What was found, how sure and what to doubt; figures; tables; how it was done.
HEAD, FIGURES, TABLES, APPENDIX = range(4)
METHOD = "Appendix: how it was done"
# Names that some file systems keep for devices, and those of files of results.
_RESERVED = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.(json|txt|html|npz|nc|png|pdf|svg)", re.IGNORECASE
)
# File systems take 255 bytes; a letter has up to four.
_LONGEST = 60


class Drawing(NamedTuple):
    """A figure: the name of its file, what draws it, and a caption that says what to see."""

    name: str
    draw: "Callable[[], Figure]"
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One section of a report.

    - `title`: empty for what goes on from the section before.
    - `content`: what there is to say, in blocks: texts, which are paragraphs, and the others.
    - `document`: the same in plain values by name, for `fit/parameters.json`.
    - `files`: what else belongs into the results folder, by path below it: plain values of a
        `.json`, arrays of an `.npz`, or a function that writes to a path.
    - `figures`: makes the figures, when they are wanted, for the folder `plots` or one inside it.
    - `place`: what it is about, which orders a report: `HEAD`, `FIGURES`, `TABLES` or `APPENDIX`.
    """

    title: str = ""
    content: Sequence[Block] = ()
    document: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any] | Callable[[str], Any]] = field(default_factory=dict)
    figures: Callable[[], Sequence[Drawing]] | None = None
    folder: str = ""
    place: int = TABLES


def by_frame(said: Any) -> Any:
    """Words, blocks, a section or a figure of data whose frame time is not known."""
    if isinstance(said, str):
        return per_frame(said)
    if isinstance(said, Mapping):
        return {name: by_frame(one) for name, one in said.items()}
    if isinstance(said, Section):
        figures = said.figures
        drawn = (lambda: by_frame(figures())) if figures else None
        return replace(said, content=by_frame(said.content), figures=drawn)
    if isinstance(said, Drawing):
        return said._replace(draw=lambda: by_frame(said.draw()), caption=per_frame(said.caption))
    if isinstance(said, tuple(_KINDS.values())):
        return from_plain(by_frame(to_plain(said)))
    if hasattr(said, "findobj"):
        for words in said.findobj(lambda artist: hasattr(artist, "set_text")):
            words.set_text(per_frame(words.get_text()))
        return said
    return [by_frame(one) for one in said]


def in_order(sections: Iterable[Section]) -> list[Section]:
    """Sections as they are read: by their place, and of one place as they come."""
    return sorted(sections, key=lambda one: one.place)


def text(title: str, sections: Iterable[Section], appendix: bool = True) -> str:
    """The report in words and columns, with or without how it was done.

    >>> print(text("Fit", [Section("", ["Quality: GOOD"]), Section("Time", ["1 s"])]), end="")
    Fit
    ===
    <BLANKLINE>
      Quality: GOOD
    <BLANKLINE>
    Time
      1 s
    """
    lines, begun = [title, "=" * len(title)], False
    for one in in_order(sections):
        if not one.content or (one.place == APPENDIX and not appendix):
            continue
        if one.place == APPENDIX and not begun:
            lines += ["", "", METHOD, "-" * len(METHOD)]
            begun = True
        lines += ["", *([one.title] if one.title else []), *text_lines(one.content)]
    return "\n".join(lines) + "\n"


def document(sections: Iterable[Section]) -> dict[str, Any]:
    """The report in plain values by name."""
    return {name: value for one in sections for name, value in one.document.items()}


def folder_names(labels: Sequence[str]) -> tuple[str, ...]:
    """A folder name for each label: legal everywhere, and different even where case is not."""
    out: list[str] = []
    for label in labels:
        name = re.sub(r"[^\w.\-+=, ]", "_", label).strip(" ").strip(".")
        name = name[:_LONGEST].strip(" ").strip(".") or "_"
        name = f"{name}_" if _RESERVED.fullmatch(name) else name
        known, chosen, i = {one.casefold() for one in out}, name, 2
        while chosen.casefold() in known:
            chosen, i = f"{name}-{i}", i + 1
        out.append(chosen)
    return tuple(out)
