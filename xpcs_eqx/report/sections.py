"""A section is what a result has to say about one thing; a report is a list of them.

Text, page and `parameters.json` are three renderings of the same list.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .blocks import Block, text_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    - `content`: what there is to say, in blocks: texts, which are paragraphs, and those of
        `report.blocks`.
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
