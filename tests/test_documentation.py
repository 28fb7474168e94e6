"""README and pages: Python runs, configurations are read, commands are known, links lead on."""

import ast
import inspect
import json
import re
import runpy
import shlex
import tomllib
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml
from reference import DOCS, reference

import xpcs_eqx
import xpcs_eqx_command
from xpcs_eqx.config import read_configuration
from xpcs_eqx.simulation.__main__ import parser as simulation_parser

ROOT = DOCS.parent
README, GUIDE = ROOT / "README.md", DOCS / "python.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")))
# Made while the site is built.
MADE = {DOCS / "reference" / f"{name}.md" for name in reference()}
LARGEST = 8000  # bytes of the README
LARGEST_PICTURE = 150_000

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`((?:xe|xpcs_eqx)\.[A-Za-z0-9_.]+)")
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [code for language, code in FENCE.findall(text) if language in languages]


def all_blocks(*languages: str) -> list:
    found = [(page, code) for page in PAGES for code in blocks(page, *languages)]
    return [pytest.param(code, id=f"{page.stem}-{k}") for k, (page, code) in enumerate(found)]


def run(page: Path, names: dict) -> dict:
    """The names there are after the Python of a page."""
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)
    return names


@cache
def guide() -> dict:
    return run(GUIDE, {})


def check_guide(names: dict) -> None:
    fit, truth = names["fit"], {"D0": 4000.0, "alpha": -0.8, "phi0": 5.0, "beta": 0.8}
    assert fit.success
    for name, value in truth.items():
        assert abs(fit[name].value - value) < 4 * fit[name].error, name


def check_readme(names: dict) -> None:
    assert names["fit"].quality.flag == "good"
    assert abs(names["fit"]["phi0"].value - 5.0) < 4 * names["fit"]["phi0"].error


def check_several(names: dict) -> None:
    assert names["joint"].success
    assert names["joint"].sharing.agree


def check_large(names: dict) -> None:
    decay = names["decay"]
    assert decay.success
    assert np.all(np.abs(decay.x - [3.0, 0.7, 0.5]) < 4 * decay.perr)


CHECKS = {"README": check_readme, "python": check_guide}
CHECKS |= {"several": check_several, "large": check_large, "jax": lambda names: None}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs(page, capsys, monkeypatch):
    """Each goes on from the guide, but for the README, which stands by itself."""
    monkeypatch.chdir(ROOT)
    before = {} if page == README else dict(guide())
    CHECKS[page.stem](before if page == GUIDE else run(page, before))
    assert capsys.readouterr().err == ""


def resolved(node: ast.expr, known: dict) -> object:
    """What a chain of attributes leads to; None where it begins with a name of the block."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = resolved(node.value, known)
    return None if owner is None else getattr(owner, node.attr)


@pytest.mark.parametrize("code", all_blocks("py"))
def test_the_names_of_python_that_takes_long(code):
    """Of what needs minutes or a cluster: every public name exists and takes these keywords."""
    known = {"xe": xpcs_eqx, "xpcs_eqx": xpcs_eqx, "bayes": xpcs_eqx.bayes}
    calls = 0
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            resolved(node, known)
        if isinstance(node, ast.Call) and (function := resolved(node.func, known)):
            calls += 1
            taken = inspect.signature(function).parameters
            keywords = {one.arg for one in node.keywords if one.arg}
            any_other = any(one.kind is one.VAR_KEYWORD for one in taken.values())
            assert any_other or keywords <= taken.keys(), ast.unparse(node)
    assert calls


def test_code_on_the_site_breaks_at_joints_alone():
    """Short words of it nowhere, others after a dot; blocks stay as they are."""
    breakable = runpy.run_path(str(DOCS / "build.py"))["breakable"]
    said = breakable(f"<p><code>--resume</code> <code>{'package.' * 5}end</code></p>")
    assert '<span class="whole">--resume</span>' in said
    assert f"<code>{'package.<wbr>' * 5}end</code>" in said
    cell = breakable("<td><code>xe.fitting.degeneracy_report</code></td>")
    assert cell == "<td><code>xe.<wbr>fitting.<wbr>degeneracy_report</code></td>"
    assert breakable("<pre><code>--a</code></pre>") == "<pre><code>--a</code></pre>"


@by_page
def test_names_in_the_text_exist(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for name in SPAN.findall(text):
        found = xpcs_eqx
        for part in name.rstrip(".").split(".")[1:]:
            assert hasattr(found, part), name
            found = getattr(found, part)


@by_page
def test_code_fits_the_page(page):
    """As on the site on a laptop; of the README the commands of one line are longer."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    code = [line for _, block in found for line in block.splitlines()]
    wide = [line for line in code if len(line) > 100 and not line.startswith("python3 -m venv")]
    assert not wide


@pytest.mark.parametrize("code", all_blocks("toml"))
def test_configurations_are_read(code, tmp_path):
    if "data" not in tomllib.loads(code):
        code = f'data = {{path = "scan.hdf"}}\n{code}'
    path = tmp_path / "my.toml"
    path.write_text(code, encoding="utf-8")
    read_configuration(str(path))


def commands(code: str) -> Iterator[list[str]]:
    for line in code.splitlines():
        words = shlex.split(line.split(" > ")[0])
        if words and Path(words[0]).name == "xpcs-eqx":
            yield words[1:]


def test_commands_are_known():
    parser, seen = xpcs_eqx_command.build_parser(), set()
    for page in PAGES:
        for words in (one for code in blocks(page, "sh") for one in commands(code)):
            seen.add(words[0])
            if words[0] == "simulate":
                simulation_parser().parse_args(words[1:])
            else:
                parser.parse_args(words)
    assert seen == xpcs_eqx_command.COMMANDS.keys()


def slug(heading: str) -> str:
    """The place of a heading, as every renderer of Markdown makes it of plain letters."""
    text = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def places(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def links(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^()\s]+)\)", text)


@by_page
def test_links_lead_somewhere(page):
    for link in links(page):
        to = urlsplit(link)
        if to.scheme:
            assert to.scheme == "https", link
            continue
        target = (page.parent / to.path).resolve() if to.path else page
        assert target.exists() or target in MADE, link
        if to.fragment:
            assert to.fragment in places(target), link


def test_every_page_is_linked_and_in_the_menu():
    """From the README, except those that only the site has."""
    linked = {(README.parent / urlsplit(one).path).resolve() for one in links(README)}
    assert set(DOCS.glob("*.md")) - linked == {DOCS / "index.md"}
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    menu = re.findall(r"[\w/-]+\.md", str(site["nav"]))
    made = {str(page.relative_to(DOCS)) for page in MADE} | {"changelog.md", "contributing.md"}
    made |= {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert sorted(menu) == sorted(made | {page.name for page in DOCS.glob("*.md")})


def test_the_readme_is_short():
    assert README.stat().st_size <= LARGEST
    assert len([one for one in links(README) if one.endswith(".png")]) == 1
    lines = [line for code in blocks(README, "sh") for line in code.splitlines()]
    # From a fresh machine to a fit of one's own file.
    assert [line.split()[0] for line in lines[:3]] == ["python3", *2 * [".venv/bin/xpcs-eqx"]]
    assert lines[1:3] == [
        ".venv/bin/xpcs-eqx init scan.hdf > my.toml",
        ".venv/bin/xpcs-eqx fit my.toml",
    ]


@pytest.mark.parametrize("command", ["xpcs_eqx.fit examples", "pytest"])
def test_each_set_up_command_is_one_line(command):
    lines = [
        line
        for line in README.read_text(encoding="utf-8").splitlines()
        if line.startswith("python3 -m venv") and command in line
    ]
    assert len(lines) == 1


def test_pictures_are_small_and_shown():
    shown = {(page.parent / one).resolve() for page in PAGES for one in links(page)}
    for path in (DOCS / "pictures").glob("*.png"):
        assert path in shown, path.name
        assert path.stat().st_size < LARGEST_PICTURE, path.name


def test_precision_is_what_was_measured():
    text = (DOCS / "precision.md").read_text(encoding="utf-8")
    for cell in json.loads((DOCS / "pictures" / "precision.json").read_text())["cells"]:
        offset = "free" if cell["offset"] == "free" else "fixed at one"
        ratio = f"{cell['ratio']:.2f} ± {cell['ratio_error']:.2f}"
        assert f"| {cell['counts']:g} | {offset} | {cell['maps']} | {ratio} |" in text


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == xpcs_eqx.__version__
    assert citation["license"] == project["license"]


@by_page
def test_nothing_is_left_to_fill_in(page):
    text = page.read_text(encoding="utf-8")
    assert "@@" not in text
    assert "TODO" not in text
