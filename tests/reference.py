"""REFERENCE.md from the public names, signatures and first paragraphs of their docstrings.

`python tests/reference.py` writes it and LAYOUTS.md anew; a test says when that is due.
"""

import ast
import inspect
import re
import textwrap
import types
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from contract import CONSTANTS, is_abstract, offered, packages

from xpcs_eqx.data import layouts_page

PATH = Path(__file__).parent.parent / "REFERENCE.md"
LAYOUTS = PATH.with_name("LAYOUTS.md")

HEAD = """\
# Reference

Every public name by package: how it is called and what it is; the docstrings say more
(`help(name)`). Names marked with * stand in `xpcs_eqx` itself, too.
Written by `python tests/reference.py`.

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


def first_paragraph(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


def returned(function: Any) -> str:
    """The return type as it is written, which is the same for every version of Python."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return "" if tree.returns is None else ast.unparse(tree.returns).replace("'", '"')


def default(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 30 and " at 0x" not in text and "<" not in text else "…"


def call(function: Any) -> str:
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
    return f"({', '.join(parts)})"


def members(cls: type) -> list[str]:
    """What a class offers beside its fields: public methods and properties it documents."""
    out = []
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        text = first_paragraph(getattr(function, "__doc__", None))
        if isinstance(function, property) and text:
            out.append(f"  * `.{name}`: {text}")
        elif inspect.isfunction(function) and text:
            inside = re.sub(r"^\((self|cls)(, )?", "(", call(function))
            out.append(f"  * `.{name}{inside}`: {text}")
    return out


def entry(name: str, value: Any, mark: str) -> list[str]:
    if isinstance(value, types.FunctionType) or not inspect.isclass(value):
        plain = inspect.unwrap(getattr(value, "function", getattr(value, "fun", value)))
        returns = returned(plain)
        arrow = f" → `{returns}`" if returns not in ("", "None") else ""
        return [f"* **`{name}`**{mark}`{call(plain)}`{arrow}: {first_paragraph(value.__doc__)}"]
    head = f"* **`{name}`**{mark}"
    if issubclass(value, Enum):
        head += f"`{', '.join(value.__members__)}`"
    elif (is_dataclass(value) or issubclass(value, tuple)) and not is_abstract(value):
        head += f"`{call(value)}`"
    return [f"{head}: {first_paragraph(inspect.getdoc(value))}", *members(value)]


def reference() -> str:
    """The whole page."""
    top, *below = packages()
    starred = {id(value) for name, value in vars(top).items() if not name.startswith("_")}
    parts, seen = [HEAD], set()
    for package in (*below, top):
        found = {n: value for n, value in offered(package).items() if id(value) not in seen}
        if not found:
            continue
        seen |= set(map(id, found.values()))
        inside = package.__name__.removeprefix("xpcs_eqx.")
        parts += [f"\n## {package.__name__}\n", first_paragraph(package.__doc__), ""]
        for name in sorted(found, key=str.lower):
            kind = CONSTANTS.get(f"{inside}.{name}")
            if kind is not None:
                parts.append(f"* **`{name}`**: {kind}.")
                continue
            mark = " \\*" if id(found[name]) in starred and package is not top else ""
            parts += entry(name, found[name], f"{mark} " if mark else "")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PATH.write_text(reference(), encoding="utf-8")
    LAYOUTS.write_text(layouts_page(), encoding="utf-8")
