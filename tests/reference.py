"""What of the documentation is written by the library itself.

`python tests/reference.py` writes the pages of layouts and of the configuration anew; a test says
when that is due. The reference of all public names is made while the site is built.
"""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Container, Iterator
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_origin

from contract import CONSTANTS, is_abstract, offered, packages

from xpcs_eqx.config import Settings
from xpcs_eqx.config.section import (
    SET,
    UNSET,
    Section,
    When,
    expected_of,
    said_of,
    tables_of,
    toml_value,
)
from xpcs_eqx.config.tables.data import Data, DataSet
from xpcs_eqx.data import layouts_page

DOCS = Path(__file__).parent.parent / "docs"

HEAD = """\
# Reference

Every public name by package: how it is called and what it is. Names marked with * stand in
`xpcs_eqx` itself, too. What to take for what is said [by task](../tasks.md).

Manners of all classes of this list (`tests/test_contract.py`):

* Objects never change; `equinox.tree_at` and `with_parameters` make changed copies.
* They pickle, also for another process, as long as functions the user put in can be imported.
* They are pytrees: `jit`, `vmap` over stacked leaves and `grad` go through them (of a log posterior
  the data are constants, and it says so). Numbers of models, scalings, losses and data are arrays,
  so other values compile nothing anew; settings and tables of results are static, so take
  `fit.model` and `fit.values` into compiled functions, not the fit.
* `==` compares structure, settings and all entries; the answer is an array where entries are JAX
  arrays, and NaN makes it false, as everywhere. Objects without arrays are hashable, no others.
* They print numbers and tables, inside a compiled function shapes; never a million numbers.
"""

CONFIGURATION = """\
# Every key of a configuration

Written from the tables of the program, as `xpcs-eqx template MODE` is, which prints the same as a
file to start from. Everything but `data.path` is optional; paths are relative to the file. What
wins: the command line (`--set table.key=value`) over the file, the file over these defaults. An
unknown key, a wrong type, and a key that would have no effect are refused, with the nearest name
or what to do.
"""


def first_paragraph(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


def markdown(text: str | None) -> str:
    """A docstring whose examples are blocks of code."""
    out, plain = [], inspect.cleandoc(text or "")
    block = re.compile(r"(?<=\n\n)( {4}.*(?:\n+ {4}.*)*)")
    kind = "python" if re.search(r"^ {4}(import|@|def) ?", plain, re.MULTILINE) else ""
    plain = block.sub(lambda found: f"```{kind}\n{textwrap.dedent(found[1])}\n```", plain)
    for paragraph in plain.split("\n\n"):
        inside = paragraph.lstrip().startswith(">>>")
        out.append(f"```pycon\n{textwrap.dedent(paragraph)}\n```" if inside else paragraph)
    return "\n\n".join(out)


def returned(function: Any) -> str:
    """The return type as it is written, which is the same for every version of Python."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return "" if tree.returns is None else ast.unparse(tree.returns).replace("'", '"')


def default(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 30 and " at 0x" not in text and "<" not in text else "…"


def call(function: Any, between: str = ", ") -> str:
    """The arguments of a function or class, with defaults and without types."""
    parts, keywords = [], False
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.KEYWORD_ONLY and not keywords:
            parts.append("*")
            keywords = True
        prefix = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        keywords |= p.kind is p.VAR_POSITIONAL
        given = "" if p.default is p.empty else f"={default(p.default)}"
        parts.append(f"{prefix}{p.name}{given}")
    return f"({between.join(parts)})"


def members(cls: type) -> Iterator[str]:
    """What a class offers beside its fields: public methods and properties it documents."""
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        text = first_paragraph(getattr(function, "__doc__", None))
        if isinstance(function, property) and text:
            yield f"* `.{name}`: {text}"
        elif inspect.isfunction(function) and text:
            inside = re.sub(r"^\((self|cls)(, )?", "(", call(function))
            yield f"* `.{name}{inside}`: {text}"


def entry(name: str, value: Any) -> list[str]:
    """How a name is called, what it is, and what it offers."""
    head, arrow, more, made = name, "", [], None
    if isinstance(value, types.FunctionType) or not inspect.isclass(value):
        plain = inspect.unwrap(getattr(value, "function", getattr(value, "fun", value)))
        returns = returned(plain)
        made = plain
        arrow = f" -> {returns}" if returns not in ("", "None") else ""
    else:
        if issubclass(value, Enum):
            head += f": {', '.join(value.__members__)}"
        elif (is_dataclass(value) or issubclass(value, tuple)) and not is_abstract(value):
            made = value
        more = list(members(value))
        # Its fields are a list already.
        more = ["**Offers:**", "", *more] if more else []
    if made is not None:
        short = call(made)
        long = len(head + short + arrow) > 96
        head += call(made, ",\n    ").replace("(", "(\n    ", 1) if long else short
    return [f"```python\n{head}{arrow}\n```", "", markdown(inspect.getdoc(value)), "", *more]


def constant(kind: str, value: Any) -> str:
    """What a number, a list or a dictionary of that name is."""
    said = kind[0].upper() + kind[1:]
    if get_origin(value) is not None:
        return f"{said}."
    shown = [value] if isinstance(value, float) else list(value)
    return f"{said}: {', '.join(f'`{one}`' for one in shown)}."


def reference() -> dict[str, str]:
    """A page for each package, by its name, and one that leads to them."""
    top, *below = packages()
    starred = {id(value) for name, value in vars(top).items() if not name.startswith("_")}
    pages, index, seen = {}, [HEAD], set()
    for package in (*below, top):
        found = {n: value for n, value in offered(package).items() if id(value) not in seen}
        if not found:
            continue
        seen |= set(map(id, found.values()))
        inside = package.__name__.removeprefix("xpcs_eqx.")
        parts, links = [f"# {package.__name__}\n", markdown(package.__doc__), ""], []
        for name in sorted(found, key=str.lower):
            mark = "\u00a0\\*" if id(found[name]) in starred and package is not top else ""
            links.append(f"[`{name}`]({inside}.md#{name}){mark}")
            parts += [f"## {name} {{ #{name} }}", ""]
            kind = CONSTANTS.get(f"{inside}.{name}")
            parts += [constant(kind, found[name])] if kind else entry(name, found[name])
            parts.append("")
        index += [f"\n## {package.__name__}\n", first_paragraph(package.__doc__), ""]
        index += ["\u00a0· ".join(links)]
        pages[inside] = "\n".join(parts)
    return {"index": "\n".join(index) + "\n", **pages}


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _acts(when: When) -> str:
    """Without what a key would be of no effect."""
    if when.values in (SET, UNSET):
        return f"; {'only' if when.values == SET else 'not'} with `{when.choice}`"
    return f"; only with `{when.choice}` = {', '.join(map(toml_value, when.values))}"


def _table(name: str, table: type[Section], without: Container[str] = ()) -> Iterator[str]:
    """The keys of a table, and the tables inside it."""
    yield f"\n## {'[[data]]' if table is DataSet else f'[{name}]'}\n"
    yield first_paragraph(table.__doc__)
    rows, inside = [], []
    for key, info in table.model_fields.items():
        inner, said = next(tables_of(info.annotation), None), said_of(info)
        if inner is not None and key not in without:
            several = get_origin(info.annotation) is dict
            inside += _table(f"{name}.{key}" + (".NAME" if several else ""), inner)
        if key in without or not (said or inner is None):
            continue
        example = said.get("example")
        known = "" if example is None else f", such as `{toml_value(example)}`"
        if info.is_required():
            known = "; needed"
        elif info.default is not None:
            known = f"; `{toml_value(info.default)}` by default"
        meaning = f"{info.description}{''.join(map(_acts, said.get('when', ())))}"
        rows.append(_row(f"`{key}`", f"{meaning}<br>*{expected_of(info)}*{known}"))
    if rows:
        yield from ("", _row("key", "meaning, and *what it takes*"), _row("---", "---"), *rows)
    yield from inside


def configuration_page() -> str:
    """All tables and keys in Markdown."""
    lines = [CONFIGURATION]
    # Searches and posteriors after the local fit that they build on, as in a template.
    names = sorted(Settings.model_fields, key=("global", "bayes", "output").__contains__)
    for name in names:
        info = Settings.model_fields[name]
        for table in tables_of(info.annotation):
            own = get_origin(info.annotation) is dict
            without = Data.model_fields if table is DataSet else ()
            lines += _table(f"{name}.NAME" if own else name, table, without)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (DOCS / "layouts.md").write_text(layouts_page(), encoding="utf-8")
    (DOCS / "configuration.md").write_text(configuration_page(), encoding="utf-8")
