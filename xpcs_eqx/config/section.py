"""What tables and keys of a configuration are made of; everything about a key is said where it is.

A key has a type, a default and a meaning; what a value must be follows from the type. Where it says
more, a key has words of its own for that (`expected`), an example for the template, the class that
its default comes from, and the choices without which it is of no effect (`When`).
"""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import core_schema


class Said(NamedTuple):
    """What a value must be, in words that stand with its type."""

    text: str


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Pair = Annotated[list[Finite], Field(min_length=2, max_length=2)]
Bounds = Annotated[
    list[Annotated[float, Field(allow_inf_nan=True)]],
    Field(min_length=2, max_length=2),
    Said("[lower, upper]"),
]
FiniteBounds = Annotated[Pair, Said("[lower, upper]")]
Path = Annotated[str, Field(min_length=1), Said("a path")]
Names = Annotated[list[str], Said("a list of names")]
Word = Annotated[str, Field(pattern=r"^\S+$"), Said("a text without spaces")]
Line = Annotated[str, Field(pattern=r"^\S[^\r\n]*$"), Said("a text of one line")]
PerAngle = Finite | Annotated[list[Finite], Field(min_length=1)]


class Choice:
    """Words of the file and what of the library each stands for: `choice`.

    It annotates a key, `Annotated[str, CHOICE]`, which then takes these words and no other.
    """

    def __init__(self, paths: dict[str, str | None]):
        self.paths = paths

    def __getitem__(self, word: str) -> Any:
        """The class or function of a word, imported now; None for a word that stands for none."""
        path = self.paths[word]
        return None if path is None else of_library(path)

    def word(self, cls: type) -> str:
        """The word of a class; its name where there is none."""
        names = {path.rpartition(".")[2]: word for word, path in self.paths.items() if path}
        return names.get(cls.__name__, cls.__name__)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.literal_schema(list(self.paths))


def choice(**paths: str | None) -> Choice:
    """One declaration of the words of a key: word → `"module.Name"` below `xpcs_eqx`, or None.

    Nothing is imported before it is asked for, so that a wrong word is reported at once.
    """
    return Choice(paths)


def of_library(path: str) -> Any:
    """What `"module.Name"` is below `xpcs_eqx`."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"xpcs_eqx.{module}"), name)


# Instead of values of a choice: that it has one, or that it has none.
SET, UNSET = ("something",), ()


@dataclass(frozen=True)
class When:
    """That a key acts only where another one, `choice`, has one of some values.

    - `choice`: of the same table when it is one word.
    - `values`: those it acts with; `SET` for any, `UNSET` for none at all.
    - `unless`: another key and the value of it with which it acts in any case.
    - `remedy`: what to do, where it is not to choose one of the values.
    - `changed`: only a value other than the default is refused, since results of earlier runs
        have every default in their configuration.
    """

    choice: str
    values: tuple[Any, ...]
    unless: tuple[str, Any] | None = None
    remedy: str = ""
    changed: bool = False


def key(
    default: Any,
    meaning: str,
    *,
    expected: str = "",
    example: Any = None,
    of: str = "",
    shown: bool = False,
    when: tuple[When, ...] = (),
    **constraints: Any,
) -> Any:
    """A key of a table.

    **Arguments:**

    - `default`: None where the class that is configured has it.
    - `meaning`: what it is, with the unit.
    - `expected`: what a value must be, where that does not follow from the type.
    - `example`: for the template, where there is no default.
    - `of`: path below `xpcs_eqx` of the class whose field of this name is the default.
    - `shown`: a template sets it; others stand there in comments.
    - `when`: without what it is of no effect.
    - `constraints`: as of `pydantic.Field`.
    """
    said = {"expected": expected, "example": example, "of": of, "shown": shown, "when": when}
    nothing = (None, False)
    extra: Any = {
        name: value
        for name, value in said.items()
        if not any(value is one for one in nothing) and value not in ("", ())
    }
    return Field(default, description=meaning, json_schema_extra=extra, **constraints)


def said_of(info: FieldInfo) -> dict[str, Any]:
    """What was said of a key beside its type, default and meaning."""
    extra: Any = info.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def shown_value(name: str, info: FieldInfo) -> Any:
    """What a template shows as the value of a key: its example, or its default."""
    said = said_of(info)
    if "of" in said:
        return class_default(said["of"], name)
    return said.get("example", info.default)


@cache
def _made(path: str) -> Any:
    return of_library(path)()


def class_default(path: str, name: str) -> Any:
    """The default of a field of a class of the library, as a plain number."""
    value = getattr(_made(path), name)
    return value.item() if hasattr(value, "item") else value


class Section(BaseModel):
    """A table of the file: unknown keys and silent conversions are errors.

    - `acts`: without what all of its keys are of no effect.
    """

    acts: ClassVar[tuple[When, ...]] = ()
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def expected_of(info: FieldInfo) -> str:
    """What a value of a key must be, in words.

    >>> expected_of(FieldInfo.from_annotation(bool | Literal["auto"]))
    'true, false or "auto"'
    >>> expected_of(FieldInfo.from_annotation(Positive))
    'a number above zero'
    """
    own = said_of(info).get("expected")
    return str(own) if own else listed(_branches(info.annotation, tuple(info.metadata)))


def listed(words: list[str], last: str = "or") -> str:
    """Words with commas, and another word before the last.

    >>> listed(["a", "b", "c"])
    'a, b or c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _branches(annotation: Any, limits: tuple[Any, ...]) -> list[str]:
    """What a value may be, one text for each branch of its type; `limits` as of pydantic."""
    for limit in limits:
        if isinstance(limit, Said):
            return [limit.text]
        if isinstance(limit, Choice):
            return [f'"{word}"' for word in limit.paths]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        more = [getattr(one, "metadata", [one]) for one in inner[1:]]
        return _branches(inner[0], (*limits, *(limit for some in more for limit in some)))
    if origin in (Union, types.UnionType):
        branches = [_branches(one, limits) for one in inner if one is not type(None)]
        return [text for some in branches for text in some]
    if origin is Literal:
        return [f'"{word}"' for word in inner]
    if annotation is bool:
        return ["true", "false"]
    if annotation in (int, float):
        return [_number("a whole number" if annotation is int else "a number", limits)]
    if annotation is str:
        return ["a text"]
    if origin is list:
        return [f"a list of {_plural(listed(_branches(inner[0], ())))}"]
    return ["a table of keys"]


def _number(kind: str, limits: tuple[Any, ...]) -> str:
    """A number and the range that it is in."""
    ends = {
        end: value
        for limit in limits
        for end in ("gt", "ge", "lt", "le")
        if (value := getattr(limit, end, None)) is not None
    }
    gt, ge, lt, le = (ends.get(end) for end in ("gt", "ge", "lt", "le"))
    if gt is not None and lt is not None:
        return f"{kind} between {gt} and {lt}"
    if gt is not None and le is not None:
        return f"{kind} above {gt}, at most {le}"
    if ge is not None:
        return f"{kind} from {ge}" + ("" if le is None else f" to {le}")
    if gt is not None:
        return f"{kind} above {'zero' if gt == 0 else gt}"
    return kind if kind == "a whole number" else "a finite number"


def _plural(text: str) -> str:
    """What a list is of.

    >>> _plural("a whole number from 1")
    'whole numbers from 1'
    """
    first, *rest = text.removeprefix("a ").removeprefix("finite ").split(" ")
    words = [first, *rest]
    for i, word in enumerate(words):
        if word in ("number", "name", "text"):
            words[i] = f"{word}s"
            break
    return " ".join(words)


def ordered(name: str, bounds: list[float] | None, equal: bool = False) -> None:
    """Check that bounds ascend. **Raises:** `ValueError`."""
    if bounds is None:
        return
    low, high = bounds
    if not (low < high or (equal and low == high)):
        raise ValueError(f"{name} = [{low:g}, {high:g}] are inside out: lower must be below upper")


def tables_of(annotation: Any) -> Iterator[type[Section]]:
    """The tables that a type speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from tables_of(inner)


def toml_value(value: Any) -> str:
    """A number, string, truth value, list or inline table in TOML."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k} = {toml_value(v)}' for k, v in value.items())}}}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(v) for v in value)}]"
    return repr(value)
