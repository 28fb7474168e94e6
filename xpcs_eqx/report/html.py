"""A report as one HTML file with its figures inside."""

import base64
import html
import os
from collections.abc import Iterable, Sequence

from .sections import Section

_STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 70em; color: #222; }
pre { font-size: 0.85em; line-height: 1.35; overflow-x: auto; background: #f7f7f7; padding: 1em; }
h2 { font-size: 1.1em; }
figure { margin: 1.5em 0; }
img { max-width: 100%; }
figcaption { color: #555; font-size: 0.9em; }
"""


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
