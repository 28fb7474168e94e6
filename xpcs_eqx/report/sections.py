"""A section is what a result has to say about one thing; a report is a list of them.

Text, page and `parameters.json` are three renderings of the same list.
"""

import base64
import html
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 100
# Names that some file systems keep for devices, and those of files of results.
_RESERVED = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.(json|txt|html|npz|nc|png)", re.IGNORECASE
)
# File systems take 255 bytes; a letter has up to four.
_LONGEST = 60
_STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 70em; color: #222; }
pre { font-size: 0.85em; line-height: 1.35; overflow-x: auto; background: #f7f7f7; padding: 1em; }
h2 { font-size: 1.1em; }
figure { margin: 1.5em 0; }
img { max-width: 100%; }
figcaption { color: #555; font-size: 0.9em; }
"""


class Drawing(NamedTuple):
    """A figure: the name of its file, and what draws it."""

    name: str
    draw: "Callable[[], Figure]"


@dataclass(frozen=True)
class Section:
    """One section of a report.

    - `title`: empty for what goes on from the section before.
    - `lines`: what there is to say, in words and columns.
    - `document`: the same in plain values by name, for `fit/parameters.json`.
    - `files`: what else belongs into the results folder, by path below it: plain values of a
        `.json`, arrays of an `.npz`, or a function that writes to a path.
    - `figures`: makes the figures, when they are wanted, for the folder `plots` or one inside it.
    """

    title: str = ""
    lines: Sequence[str] = ()
    document: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any] | Callable[[str], Any]] = field(default_factory=dict)
    figures: Callable[[], Sequence[Drawing]] | None = None
    folder: str = ""


def text(title: str, sections: Iterable[Section]) -> str:
    """The report in words and columns.

    >>> print(text("Fit", [Section("", ["Quality: GOOD"]), Section("Time", ["  1 s"])]), end="")
    Fit
    ===
    <BLANKLINE>
    Quality: GOOD
    <BLANKLINE>
    Time
      1 s
    """
    lines = [title, "=" * len(title)]
    for one in sections:
        if one.lines:
            lines += ["", *([one.title] if one.title else []), *one.lines]
    return "\n".join(lines) + "\n"


def document(sections: Iterable[Section]) -> dict[str, Any]:
    """The report in plain values by name."""
    return {name: value for one in sections for name, value in one.document.items()}


def _figure(path: str) -> str:
    with open(path, "rb") as stream:
        content = base64.b64encode(stream.read()).decode("ascii")
    name = html.escape(os.path.splitext(os.path.basename(path))[0].replace("_", " "))
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{content}">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def page(title: str, sections: Iterable[tuple[Section, Sequence[str]]]) -> str:
    """A page of sections, each with the PNG files of its figures, named after their files.

    It needs nothing beside it: no other file, no network.
    """
    shown = html.escape(title)
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{shown}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{shown}</h1>",
    ]
    for one, figures in sections:
        if one.title and (one.lines or figures):
            parts.append(f"<h2>{html.escape(one.title)}</h2>")
        if one.lines:
            lines = "\n".join(one.lines)
            parts.append(f"<pre>{html.escape(lines)}</pre>")
        parts += map(_figure, figures)
    return "\n".join([*parts, "</body></html>"]) + "\n"


def number(value: float, digits: int = 6) -> str:
    """A number in a table; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns wide enough for their entries; the first to the left, the rest to the right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells):
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  " + "  ".join([first, *rest]).rstrip()

    return [line(header), "  " + "-" * (sum(widths) + 2 * len(widths) - 2), *map(line, rows)]


def entry(name: str, said: str) -> str:
    """A name with what is said of it."""
    return textwrap.fill(said, WIDTH, initial_indent=f"  {name:<16} ", subsequent_indent=" " * 19)


def items(texts: Sequence[str]) -> list[str]:
    """A list of sentences."""
    return [
        textwrap.fill(one, WIDTH, initial_indent="  - ", subsequent_indent="    ") for one in texts
    ]


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
