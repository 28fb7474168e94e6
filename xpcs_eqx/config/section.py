"""What tables and keys of a configuration are made of; everything about a key is said where it is.

A key has a type, a default and a meaning; what a value must be follows from the type. Where it says
more, a key has words of its own for that (`expected`), an example for the template, and the choices
without which it is of no effect (`When`).
"""

import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from inspect import isabstract
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from ..arguments import either, in_range

# Of whole numbers, where a key does not say less; seeds and indices of arrays end there.
MOST = 2**31 - 1


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
    """Words of the file and what of the library each stands for; None for one that stands for none.

    It annotates a key, `Annotated[str, CHOICE]`, which then takes these words and no other.
    """

    def __init__(self, **meant: Any):
        self.meant = meant

    def __getitem__(self, word: str) -> Any:
        """What a word stands for."""
        return self.meant[word]

    def word(self, cls: type) -> str:
        """The word of a class; its name where there is none."""
        return next((word for word, one in self.meant.items() if one is cls), cls.__name__)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.literal_schema(list(self.meant))


def _below(kind: type) -> Iterator[type]:
    """All classes of a kind in the order in which they are defined."""
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def choice_of(
    package: types.ModuleType, kind: type, ending: str = "", without: Iterable[type] = ()
) -> Choice:
    """All classes of a kind that a package offers, by words that follow from their names.

    `ending` is one that all of the names have and the words have not.

    >>> from xpcs_eqx import objective
    >>> list(choice_of(objective, objective.AbstractLoss).meant)
    ['linear', 'soft_l1', 'huber', 'cauchy', 'arctan']
    """
    known = [one for one in _below(kind) if one not in without and not isabstract(one)]
    offered = [one for one in known if vars(package).get(one.__name__) is one]
    names = {one.__name__.removesuffix(ending): one for one in offered}
    words = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", n).lower(): one for n, one in names.items()}
    return Choice(**words)


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
    shown: bool = False,
    when: tuple[When, ...] = (),
    **constraints: Any,
) -> Any:
    """A key of a table.

    **Arguments:**

    - `default`: that of the class that is configured, where there is one.
    - `meaning`: what it is, with the unit.
    - `expected`: what a value must be, where that does not follow from the type.
    - `example`: for the template, where there is no default.
    - `shown`: a template sets it; others stand there in comments.
    - `when`: without what it is of no effect.
    - `constraints`: as of `pydantic.Field`.
    """
    extra: Any = {"expected": expected, "example": example, "shown": shown, "when": when}
    return Field(default, description=meaning, json_schema_extra=extra, **constraints)


def said_of(info: FieldInfo) -> dict[str, Any]:
    """What was said of a key beside its type, default and meaning."""
    extra: Any = info.json_schema_extra
    return extra if isinstance(extra, dict) else {}


class Section(BaseModel):
    """A table of the file: unknown keys and silent conversions are errors.

    - `acts`: without what all of its keys are of no effect.
    """

    acts: ClassVar[tuple[When, ...]] = ()
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @field_validator("*")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, int) and abs(one) > MOST:
                raise ValueError(f"whole numbers beyond {MOST} are not allowed")
        return value

    def excluded(self, settings: Any) -> Iterator[tuple[str, str]]:
        """Keys of all `settings` that do not go together with this table, and what to say."""
        yield from ()


def made(cls: Any, table: Section, **more: Any) -> Any:
    """What a class makes of the keys of a table that are fields of it, lists as tuples."""
    names = {one.name for one in fields(cls)} & type(table).model_fields.keys() - more.keys()
    own = {name: getattr(table, name) for name in names}
    return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in own.items()}, **more)


def expected_of(info: FieldInfo) -> str:
    """What a value of a key must be, in words.

    >>> expected_of(FieldInfo.from_annotation(bool | Literal["auto"]))
    'true, false or "auto"'
    >>> expected_of(FieldInfo.from_annotation(Positive))
    'a number above zero'
    """
    own = said_of(info).get("expected")
    return str(own) if own else either(_branches(info.annotation, tuple(info.metadata)))


def _branches(annotation: Any, limits: tuple[Any, ...]) -> list[str]:
    """What a value may be, one text for each branch of its type; `limits` as of pydantic."""
    for limit in limits:
        if isinstance(limit, Said):
            return [limit.text]
        if isinstance(limit, Choice):
            return [f'"{word}"' for word in limit.meant]
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
        return [f"a list of {_plural(either(_branches(inner[0], ())))}"]
    return ["a table of keys"]


def _number(kind: str, limits: tuple[Any, ...]) -> str:
    """A number and the range that it is in.

    >>> expected_of(FieldInfo.from_annotation(Annotated[float, Field(gt=0, le=1e6)]))
    'a number above 0, at most 1000000'
    """
    ends = {
        end: int(value) if value == int(value) else value
        for limit in limits
        for end in ("gt", "ge", "lt", "le")
        if (value := getattr(limit, end, None)) is not None
    }
    if not ends.keys() & {"gt", "ge"}:
        return kind if kind == "a whole number" else "a finite number"
    return in_range(kind, **ends)


def _plural(text: str) -> str:
    """What a list is of.

    >>> _plural("a whole number from 1")
    'whole numbers from 1'
    """
    text = text.removeprefix("a ").removeprefix("finite ")
    return re.sub(r"\b(number|name|text)\b", r"\1s", text, count=1)


def check_order(name: str, bounds: list[float] | None, equal: bool = False) -> None:
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


# Stands for any name in a key.
ANY = "*"


def keys_of(
    table: type[Section], before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo, type[Section]]]:
    """Every key of a table and of those inside it, its declaration, and the table it is in."""
    for name, info in table.model_fields.items():
        here = (*before, name)
        yield here, info, table
        for inner in tables_of(info.annotation):
            yield from keys_of(inner, (*here, ANY) if get_origin(info.annotation) is dict else here)


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
