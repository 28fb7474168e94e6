"""A report as a page: one file that needs no other and no network, for a desk and for a phone."""

import base64
import html
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..showing import html_table
from .sections import APPENDIX, METHOD, TABLES, Block, Entry, Heading, Item, Section, Table

# All pictures of a page together [bytes]; further ones stay in their files.
LARGEST = 3_400_000
_STYLE = """
:root { --ink: #1d2530; --soft: #5b6675; --line: #dde2e8; --ground: #f6f7f9; --mark: #2c5d8f; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.55 system-ui, sans-serif;
  overflow-wrap: break-word; }
header, nav, main { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.6rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .5rem 0; max-width: 46rem; }
ul { margin: .5rem 0; padding-left: 1.2rem; max-width: 46rem; }
li { margin: .35rem 0; }
.verdict { display: inline-block; margin: 1.1rem 0 .3rem; padding: .25rem .8rem;
  border-radius: 1rem; font-weight: 600; border: 1px solid; }
.good { color: #14532d; background: #e3f4e8; }
.marginal { color: #713f12; background: #fdf3d7; }
.poor { color: #7f1d1d; background: #fde8e6; }
nav { position: sticky; top: 0; z-index: 1; padding-top: .5rem; padding-bottom: .5rem;
  background: #fff; border-bottom: 1px solid var(--line); display: flex; flex-wrap: wrap;
  gap: .2rem 1.1rem; overflow-x: auto; white-space: nowrap; font-size: .9rem; }
a { color: var(--mark); }
section, details { scroll-margin-top: 3rem; }
.wide { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .6rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
td.long { white-space: normal; min-width: 16rem; }
code { font: .88em ui-monospace, monospace; background: var(--ground); padding: .1em .3em; }
.one { white-space: nowrap; }
.n { text-align: right; }
th:first-child, td:first-child { padding-left: 0; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .35rem 1rem;
  margin: .6rem 0; max-width: 52rem; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; }
figure { margin: 1.4rem 0 1.8rem; }
figure button { display: block; width: 100%; padding: 0; border: 0; background: none;
  cursor: zoom-in; }
img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .92rem; max-width: 46rem; margin-top: .5rem; }
details { border-top: 1px solid var(--line); margin-top: 2.2rem; padding: .9rem 0; }
details details, .more { margin-top: 1rem; padding: .5rem 0; }
summary { cursor: pointer; font-size: 1.25rem; font-weight: 600; }
details h2 { font-size: 1.1rem; border: 0; margin-top: 1.2rem; }
footer { height: 4rem; }
dialog { width: 100vw; height: 100vh; max-width: none; max-height: none; margin: 0; padding: 0;
  border: 0; background: #fff; overflow: auto; }
dialog::backdrop { background: #000a; }
dialog img { cursor: zoom-in; width: 100%; max-width: none; margin: 0; }
dialog.near img { cursor: zoom-out; width: var(--near, 200%); }
dialog button { position: fixed; top: .6rem; right: .8rem; z-index: 2; padding: .4rem .9rem;
  font: inherit; border: 1px solid var(--line); border-radius: .4rem; background: #fff; }
@media (max-width: 40rem) {
  header, nav, main { padding-left: .9rem; padding-right: .9rem; }
  h1 { font-size: 1.35rem; }
  dl { grid-template-columns: 1fr; gap: .1rem; }
  dd { margin-bottom: .5rem; }
  table { font-size: .88rem; }
  th, td { padding: .3rem .35rem; }
  th { white-space: normal; vertical-align: bottom; }
  nav { flex-wrap: nowrap; }
  td:not(.n) { white-space: normal; }
  td:first-child { min-width: 5rem; max-width: 45vw; }
}
@media print { nav, dialog { display: none; } }
"""
# A picture opens over the whole window, and a click shows the place clicked twice as large.
_SCRIPT = """
const box = document.querySelector("dialog"), large = box.querySelector("img");
document.querySelectorAll("figure button").forEach((one) => one.addEventListener("click", () => {
  const small = one.querySelector("img");
  large.src = small.src; large.alt = small.alt;
  box.className = ""; box.showModal();
}));
box.querySelector("button").addEventListener("click", () => box.close());
large.addEventListener("click", (event) => {
  const x = event.offsetX / large.clientWidth, y = event.offsetY / large.clientHeight;
  const wide = Math.max(2 * box.clientWidth, large.naturalWidth);
  box.style.setProperty("--near", wide + "px");
  if (box.classList.toggle("near"))
    box.scrollTo(x * large.clientWidth - box.clientWidth / 2,
      y * large.clientHeight - box.clientHeight / 2);
});
"""
_VERDICT = re.compile(r"Quality: (GOOD|MARGINAL|POOR)\b")
# Browsers break lines behind the hyphen of a power of ten.
_POWER = re.compile(r"(\([\d.]+ ± [\d.]+\)|\d[\d.]*)e[-+]\d+")
# A list of more sections than these is no help.
_MOST_LINKS = 12
# Cells longer than this are broken into lines.
_LONG = 48


class Picture(NamedTuple):
    """A figure in a page.

    - `name`: of its file; `caption`: what to see in it.
    - `content`: of the picture, of the type `kind`, such as `"image/png"`; empty where it only lies
        in a file.
    - `size`: pixels across and down, two for each of a screen; `file`: where it lies.
    """

    name: str
    caption: str
    content: bytes = b""
    kind: str = "image/png"
    size: tuple[int, int] = (0, 0)
    file: str = ""

    def inside(self, folder: str) -> "Picture":
        """The same where its file lies in a folder; the empty one is here."""
        return self._replace(file=f"{folder}/{self.file}" if folder else self.file)


def _look(cell: str, right: bool) -> str:
    """The class of a cell."""
    kind = "n" if right else "long" if len(cell) > _LONG else ""
    return f'class="{kind}"' if kind else ""


def _text(said: str) -> str:
    """A text whose words of code, between backticks, look like it, and numbers stay in a line."""
    shown = _POWER.sub(r'<span class="one">\g<0></span>', html.escape(said))
    return re.sub("`([^`]+)`", r"<code>\1</code>", shown)


def _table(table: Table) -> str:
    # Heads are broken into lines on a phone, but not in units.
    header = [text.replace("/", "/\u2060") for text in table.header]
    shown = html_table(header, table.rows, table.numeric(), _look)
    return f'<div class="wide">{shown}</div>'


def _paragraph(said: str) -> str:
    found, shown = _VERDICT.match(said), _text(said)
    if found is None:
        return f"<p>{shown}</p>"
    return f'<p class="verdict {found[1].lower()}">{shown}</p>'


def _block(block: Block) -> tuple[str, str]:
    """What a block stands in together with its neighbours, empty for nothing, and the block."""
    if isinstance(block, Entry):
        name, said = html.escape(block.name), _text(block.said)
        return "dl", f"<dt>{name}</dt><dd>{said}</dd>"
    if isinstance(block, Item):
        return "ul", f"<li>{_text(block.said)}</li>"
    if isinstance(block, Heading):
        return "", f"<h3>{html.escape(block.title)}</h3>"
    return "", _table(block) if isinstance(block, Table) else _paragraph(block)


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for tag, group in itertools.groupby(map(_block, blocks), lambda pair: pair[0]):
        inside = "\n".join(shown for _, shown in group)
        yield f"<{tag}>{inside}</{tag}>" if tag else inside


def _figure(one: Picture) -> str:
    name = html.escape(one.name.replace("_", " "))
    caption = html.escape(one.caption or one.name.replace("_", " "))
    if not one.content:
        return f"<p>{caption} This figure is in the file {html.escape(one.file)}.</p>"
    content, (width, height) = base64.b64encode(one.content).decode("ascii"), one.size
    size = f' width="{width // 2}" height="{height // 2}"' if width else ""
    picture = f'<img alt="{name}" loading="lazy"{size} src="data:{one.kind};base64,{content}">'
    return (
        f'<figure><button type="button" aria-label="enlarge {name}">{picture}</button>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _within(pictures: Sequence[Sequence[Picture]]) -> list[list[Picture]]:
    """Pictures without the content of those for which there is no room."""
    room, out = LARGEST, []
    for those in pictures:
        out.append([])
        for one in those:
            fits = len(one.content) <= room
            room -= len(one.content) if fits else 0
            out[-1].append(one if fits else one._replace(content=b""))
    return out


def _listed(links: Sequence[tuple[int, str, str]]) -> list[tuple[str, str]]:
    """Links of sections with the kind of each: of many without tables; none of one or two."""
    wanted = [one for one in links if len(links) <= _MOST_LINKS or one[0] != TABLES]
    return [(place, name) for _, place, name in wanted] if len(wanted) > 2 else []


def page(title: str, sections: Iterable[tuple[Section, Sequence[Picture]]]) -> str:
    """A page of sections, each with the pictures of its figures.

    It needs nothing beside it: no other file, no network. How it was done is folded up at the end.
    """
    ordered = sorted(sections, key=lambda pair: pair[0].place)
    shown, main, method, links = html.escape(title), [], [], []
    pictures = _within([those for _, those in ordered])
    for k, ((one, _), those) in enumerate(zip(ordered, pictures, strict=True)):
        if not one.content and not those:
            continue
        parts = [*_blocks(one.content), *map(_figure, those)]
        if one.title:
            parts.insert(0, f"<h2>{html.escape(one.title)}</h2>")
            if one.place != APPENDIX:
                links.append((one.place, f"s{k}", html.escape(one.title)))
        target = method if one.place == APPENDIX else main
        target.append(f'<section id="s{k}">' + "\n".join(parts) + "</section>")
    if method:
        links.append((APPENDIX, "method", "Appendix"))
        method = [f'<details id="method"><summary>{METHOD}</summary>', *method, "</details>"]
    listed = [f'<a href="#{place}">{name}</a>' for place, name in _listed(links)]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{shown}</title><style>{_STYLE}</style></head><body>",
            f"<header><h1>{shown}</h1></header>",
            *([f'<nav aria-label="sections">{"".join(listed)}</nav>'] if listed else []),
            "<main>",
            *main,
            *method,
            "</main><footer></footer>",
            '<dialog aria-label="figure"><button type="button">close</button><img alt=""></dialog>',
            f"<script>{_SCRIPT}</script></body></html>\n",
        ]
    )
