"""The documentation site: pages, reference and notebooks put together, built, and checked.

    python docs/build.py [--serve]

What is put together is in `build/docs`, the site in `build/site`. Warnings are errors, and so are
links that lead nowhere and anything that a page would load from elsewhere.
"""

import argparse
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
STAGE, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
sys.path += [str(ROOT / "tests"), str(ROOT)]

LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
# A code span that begins with a public name: on the site it leads to the entry of that.
NAME = re.compile(r"(?<![`\[])`((?:xe|xpcs_eqx)\.[\w.]+)([^`\n]*)`(?!`)")
FENCE = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"(<pre.*?</pre>)", re.DOTALL)
CELL = re.compile(r"(<td.*?</td>)", re.DOTALL)


def staged(path: Path) -> str:
    """Where a file of the repository is on the site. **Raises:** `KeyError` if it is not there."""
    name = path.relative_to(ROOT).as_posix()
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if name.startswith("notebooks/"):
        return name.replace(".ipynb", ".md")
    top = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
    return (top | {"CONTRIBUTING.md": "contributing.md"})[name]


def relocated(text: str, source: Path, target: str, anchors: dict[str, str]) -> str:
    """A page as it is on the site: links to files lead to pages, names to the reference."""
    up = "../" * target.count("/")

    def link(found: re.Match[str]) -> str:
        to = urlsplit(found[1])
        if to.scheme or not to.path:
            return found[1]
        path = (source.parent / unquote(to.path)).resolve()
        return up + staged(path) + (f"#{to.fragment}" if to.fragment else "")

    def name(found: re.Match[str]) -> str:
        to = anchors.get(found[1].removeprefix("xe.").removeprefix("xpcs_eqx."))
        return found[0] if to is None else f"[{found[0]}]({up}reference/{to})"

    parts = FENCE.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = NAME.sub(name, LINK.sub(link, parts[i]))
    return "".join(parts)


def anchors_of(pages: dict[str, str]) -> dict[str, str]:
    """The entry of each name: `load` and `data.load`."""
    import xpcs_eqx

    found = {}
    for page, text in pages.items():
        for name in re.findall(r"^## (\w+) \{", text, re.MULTILINE):
            found[f"{page}.{name}"] = f"{page}.md#{name}"
    short = {full.split(".")[-1]: to for full, to in found.items()}
    return found | {name: to for name, to in short.items() if name in vars(xpcs_eqx)}


def stage() -> None:
    """Put the pages together."""
    from nbconvert import MarkdownExporter
    from reference import reference

    shutil.rmtree(STAGE, ignore_errors=True)
    pages = reference()
    anchors = anchors_of(pages)
    written = {f"reference/{name}.md": text for name, text in pages.items()}
    own = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
    for source in (*(ROOT / "docs").glob("*.md"), *own):
        target = staged(source)
        written[target] = relocated(source.read_text(encoding="utf-8"), source, target, anchors)
    for source in (ROOT / "notebooks").glob("*.ipynb"):
        body, more = MarkdownExporter().from_filename(
            str(source), {"output_files_dir": f"{source.stem}_files", "unique_key": source.stem}
        )
        written[f"notebooks/{source.stem}.md"] = body
        for name, content in more["outputs"].items():
            path = STAGE / "notebooks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for name, text in written.items():
        path = STAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "pictures", STAGE / "pictures")
    shutil.copy(ROOT / "docs" / "style.css", STAGE)


class Page(HTMLParser):
    """What a page of the site has and wants."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        for name in ("src", "href", "data"):
            if tag in ("script", "img", "link", "iframe", "object") and given.get(name):
                self.loaded.append(given[name])


def faults() -> Iterator[str]:
    """Links that lead nowhere, and what would be loaded from elsewhere."""
    pages = {path: Page(path) for path in SITE.rglob("*.html")}
    for path, page in pages.items():
        here = path.relative_to(SITE)
        for to in (*page.links, *page.loaded):
            parts = urlsplit(to)
            if parts.scheme or parts.netloc:
                if to in page.loaded and parts.scheme != "data":
                    yield f"{here}: {to} would be loaded from elsewhere"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{here}: there is no {to}"
            elif (
                target in pages
                and parts.fragment
                and unquote(parts.fragment) not in pages[target].ids
            ):
                yield f"{here}: {to} has no such place"
    for path in SITE.rglob("*.css"):
        for to in re.findall(r"url\(['\"]?(https?:[^)'\"]+)", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(SITE)}: {to} would be loaded from elsewhere"


def breakable(page: str) -> str:
    """A page whose code in sentences and cells keeps short words whole, hyphens and all, and ends a
    line within longer ones where a name has a joint."""

    def whole(text: str, letters: int) -> str:
        def word(found: re.Match[str]) -> str:
            if len(unescape(found[0])) <= letters:
                return f'<span class="whole">{found[0]}</span>'
            return re.sub(r"(?<=[^\W\d][./(=])(?=[^=/)])", "<wbr>", found[0])

        def code(found: re.Match[str]) -> str:
            return f"<code>{re.sub('[^ ]+', word, found[1])}</code>"

        return re.sub("<code>([^<]*)</code>", code, text)

    parts = BLOCK.split(page)
    for i in range(0, len(parts), 2):
        texts = CELL.split(parts[i])
        # Of a line on a phone, and of one in two columns there.
        texts[::2] = [whole(text, 30) for text in texts[::2]]
        texts[1::2] = [whole(text, 20) for text in texts[1::2]]
        parts[i] = "".join(texts)
    return "".join(parts)


def build() -> None:
    """Put together, build and check. **Raises:** `SystemExit` where anything is wrong."""
    stage()
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    subprocess.run(command, cwd=ROOT, check=True)
    # Its links hold at the root of a server only.
    (SITE / "404.html").unlink()
    for path in SITE.rglob("*.html"):
        path.write_text(breakable(path.read_text(encoding="utf-8")), encoding="utf-8")
    found = list(faults())
    if found:
        raise SystemExit("\n".join(found))
    print(f"{len(list(SITE.rglob('*.html')))} pages in {os.path.relpath(SITE)}")


def main() -> None:
    """Build the site, and show it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", help="show it at http://127.0.0.1:8000")
    given = parser.parse_args()
    build()
    if given.serve:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=SITE)
        print("http://127.0.0.1:8000, until Ctrl-C")
        http.server.ThreadingHTTPServer(("127.0.0.1", 8000), handler).serve_forever()


if __name__ == "__main__":
    main()
