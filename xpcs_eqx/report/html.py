"""A report as one HTML file with its figures inside."""

import base64
import glob
import html
import os
from collections.abc import Sequence

_STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 70em; color: #222; }
pre { font-size: 0.85em; line-height: 1.35; overflow-x: auto; background: #f7f7f7; padding: 1em; }
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


def write_page(folder: str) -> None:
    """Write `fit/report.html`: the report and the plots of a results folder in one file."""
    with open(os.path.join(folder, "fit", "report.txt"), encoding="utf-8") as stream:
        report = stream.read()
    plots = glob.glob(os.path.join(glob.escape(folder), "plots", "**", "*.png"), recursive=True)
    with open(os.path.join(folder, "fit", "report.html"), "w", encoding="utf-8") as stream:
        stream.write(page(report.splitlines()[0], report, sorted(plots)))


def page(title: str, text: str, figures: Sequence[str] = ()) -> str:
    """A page with a text report as it is and PNG files, named after their files.

    It needs nothing beside it: no other file, no network.
    """
    shown = html.escape(title)
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{shown}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{shown}</h1>",
        f"<pre>{html.escape(text)}</pre>",
        *(_figure(path) for path in figures),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"
