"""Arguments of the entries of the library, checked where they come in by what is written of them.

An annotation says what an argument must be, and by `Within` how large; here it is asked of every
call. What a value may be beside that (its relation to others) is checked by whoever uses it.
"""

import dataclasses
import functools
import inspect
import operator
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ScalarLike

from .errors import ArgumentError, ModelError, nearest_name

P = ParamSpec("P")
R = TypeVar("R")


class Within(NamedTuple):
    """Annotates a number: the ends of its range, named as those of `pydantic.Field`.

    - `finite`: whether it must be; `why`: what is said behind the range.
    """

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    finite: bool = True
    why: str = ""

    def holds(self, value: Any) -> bool:
        """Whether a number is in the range."""
        ends = zip(self[:4], (operator.gt, operator.ge, operator.lt, operator.le), strict=True)
        kept = all(bool(compared(value, end)) for end, compared in ends if end is not None)
        # A whole number may be larger than NumPy knows.
        return kept and (not self.finite or isinstance(value, int) or bool(np.isfinite(value)))


Count = Annotated[int, Within(ge=1)]
Whole = Annotated[int, Within(ge=0)]
Positive = Annotated[float, Within(gt=0)]
Share = Annotated[float, Within(gt=0, le=1)]
Fraction = Annotated[float, Within(gt=0, lt=1)]


def named(function: Callable[P, R]) -> Callable[P, R]:
    """A function that says which arguments it has when it is given another, or one is missing.

    **Raises:** `ArgumentError`, when the function is called.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def entry(*args: P.args, **keywords: P.kwargs) -> R:
        _bound(function, signature, args, keywords)
        return function(*args, **keywords)

    return entry


def _bound(
    function: Any, signature: inspect.Signature, args: Any, keywords: Any
) -> inspect.BoundArguments:
    try:
        return signature.bind(*args, **keywords)
    except TypeError as error:
        known = signature.parameters
        hints = (_meant(name, known) for name in keywords if name not in known)
        hint = next(filter(None, hints), "")
        raise ArgumentError(
            f"{function.__name__}: {error}{hint}; it takes {', '.join(known)}"
        ) from None


def _meant(name: str, known: Mapping[str, inspect.Parameter]) -> str:
    """What an argument that is not there may have been: a setting of another one, or its name."""
    for one in known.values():
        for kind in get_args(one.annotation):
            fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
            if any(field.name == name for field in fields):
                return f", which belongs in {one.name}={kind.__name__}({name}=…)"  # pyright: ignore[reportAttributeAccessIssue]
    near = nearest_name(name, known)
    return f", did you mean {near!r}" if near else ""


def checked(**kinds: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that refuses arguments which are not what their annotations say.

    Numbers and arrays of NumPy and JAX are taken wherever a number is, lists wherever an array is,
    and lists of names for tuples of them. Shapes are checked as far as the number of dimensions.

    **Arguments:**

    - `kinds`: annotations in place of those that a function cannot have, as where it is overloaded.

    **Raises:** `ModelError`, when the function is called, with the name of the argument, what it
    is and what it must be; `ArgumentError` as `named`.
    """

    def around(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        taken = {name: one.annotation for name, one in signature.parameters.items()} | kinds
        various = {n for n, one in signature.parameters.items() if one.kind == one.VAR_KEYWORD}

        @functools.wraps(function)
        def entry(*args: P.args, **keywords: P.kwargs) -> R:
            bound = _bound(function, signature, args, keywords)
            wanted = {n: taken[n] for n in bound.arguments if n not in various}
            given = dict(bound.arguments)
            for name, kind in wanted.items():
                try:
                    bound.arguments[name] = _given(function.__name__, name, given[name], kind)
                except ModelError as error:
                    if not (other := _swapped(name, given, wanted)):
                        raise
                    what = f"{name} is {_found(given[name])} and {other} {_found(given[other])}"
                    raise ModelError(
                        f"{function.__name__}: {what}: {name} and {other} are swapped"
                    ) from error
            return function(*bound.args, **bound.kwargs)

        return entry

    return around


def quiet_arithmetic(function: Callable[P, R]) -> Callable[P, R]:
    """A function in which overflows and divisions by zero of NumPy are not warned of.

    For those that look at what becomes of their numbers, and say in words which are not finite.
    """

    @functools.wraps(function)
    def entry(*args: P.args, **keywords: P.kwargs) -> R:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            return function(*args, **keywords)

    return entry


def check_fields(module: Any) -> None:
    """Refuse fields that are not what their annotations say, for `__check_init__` of settings.

    **Raises:** `ModelError` as a function that is `checked`.
    """
    for field in dataclasses.fields(module):
        if not isinstance(field.type, str):
            _given(type(module).__name__, field.name, getattr(module, field.name), field.type)


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python: for what is no data of a compiled function."""
    return value.item() if isinstance(value, np.generic) else value


def number_pair(value: Any) -> tuple[float, float]:
    """Two numbers, of a tuple, a list or an array: a converter for bounds.

    **Raises:** `ModelError` for anything else.
    """
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        raise ModelError(f"bounds are {_found(value)}; give a pair (lower, upper)") from None
    return low, high


def numbers(value: Any) -> Array:
    """An array of JAX: a converter for arrays. **Raises:** `ModelError` for what is no numbers."""
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise ModelError(f"{_found(value)} was given where numbers are needed") from None


# In place of a value that is not what it must be.
_REFUSED: Any = object()


def _given(owner: str, name: str, value: Any, kind: Any) -> Any:
    found = _taken(value, kind)
    if found is _REFUSED:
        raise ModelError(f"{owner}: {name} is {_found(value)}; give {either(_words(kind))}")
    return found


def _swapped(name: str, given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The argument that stands in the place of another that is refused; empty for none."""
    for other, kind in wanted.items():
        pairs = (name, kind), (other, wanted[name])
        wrong = _taken(given[other], kind) is _REFUSED
        if wrong and all(_taken(given[one], of) is not _REFUSED for one, of in pairs):
            return other
    return ""


def _taken(value: Any, kind: Any) -> Any:
    """A value as a kind of annotation takes it, or `_REFUSED`."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind == ScalarLike:
        return value if _is_number(value, "iuf") else _array(value, "", False, sequences=False)
    if origin is Annotated:
        found = _taken(value, inner[0])
        return found if found is _REFUSED or inner[1].holds(found) else _REFUSED
    if origin in (Union, types.UnionType):
        found = (_taken(value, one) for one in inner)
        return next((one for one in found if one is not _REFUSED), _REFUSED)
    if kind is None or kind is types.NoneType:
        return None if value is None else _REFUSED
    if origin is Literal:
        return value if isinstance(value, str) and value in inner else _REFUSED
    if kind is bool:
        return value if isinstance(value, bool | np.bool_) else _REFUSED
    if kind is int:
        return plain(value) if _is_number(value, "iu") else _REFUSED
    if kind is float:
        return value if _is_number(value, "iuf") else _REFUSED
    if hasattr(kind, "dim_str"):
        return _array(value, kind.dim_str, _of_keys(kind))
    if origin is Callable or kind is Callable:
        return value if callable(value) else _REFUSED
    if origin is tuple and inner[1:] == (...,):
        return _several(value, inner[0], tuple)
    if origin is tuple and isinstance(value, list | tuple):
        each = [_taken(one, kind) for one, kind in zip(value, inner, strict=False)]
        fits = len(value) == len(inner) and not any(one is _REFUSED for one in each)
        return tuple(each) if fits else _REFUSED
    if origin in (Sequence, list):
        return _several(value, inner[0], lambda items: value)
    if origin is type:
        return value if isinstance(value, type) and issubclass(value, inner) else _REFUSED
    if isinstance(origin, type):
        return value if isinstance(value, origin) else _REFUSED
    if isinstance(kind, type) and kind not in (inspect.Parameter.empty, Any):
        return value if isinstance(value, kind) else _REFUSED
    return value


def _of_keys(kind: Any) -> bool:
    return isinstance(kind.dtypes, list | tuple) and "prng_key" in kind.dtypes


def _is_number(value: Any, letters: str) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, int | float):
        return isinstance(value, int) or "f" in letters
    return (
        isinstance(value, np.generic | np.ndarray | jax.Array)
        and value.ndim == 0
        and value.dtype.kind in letters
    )


def _array(value: Any, dimensions: str, key: bool, sequences: bool = True) -> Any:
    """An array of numbers, made of a list where that can be; arrays stay as they are."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array, shape = value, value.shape
    elif isinstance(value, list | tuple | int | float) and sequences:
        try:
            array = np.asarray(value)
        except ValueError:
            # Rows of different lengths.
            return _REFUSED
        shape = array.shape
    else:
        # What stands in for arrays, as shapes do in a transformation, is not looked at.
        return value if hasattr(value, "shape") and hasattr(value, "dtype") else _REFUSED
    names = dimensions.split()
    fixed = [name for name in names if not name.startswith(("*", "..."))]
    fits = len(shape) == len(names) if fixed == names else len(shape) >= len(fixed)
    numeric = jnp.issubdtype(array.dtype, np.number) or array.dtype == bool
    if key:
        # Those of the older kind are two numbers.
        new = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
        return array if new or array.dtype == np.uint32 else _REFUSED
    return array if fits and numeric else _REFUSED


def _several(value: Any, kind: Any, made: Callable[[Iterable[Any]], Any]) -> Any:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return _REFUSED
    items = list(value)
    if isinstance(value, np.ndarray):
        items = value.tolist()
    found = [_taken(one, kind) for one in items]
    return _REFUSED if any(one is _REFUSED for one in found) else made(found)


def _found(value: Any) -> str:
    """What was given, in words."""
    if isinstance(value, np.ndarray | jax.Array):
        return f"an array of {value.dtype} with shape {value.shape}"
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) < 60 else f"a long {type(value).__name__}"
    if isinstance(value, type):
        return f"the class {value.__name__} itself, not one made of it"
    return f"of type {type(value).__name__}"


def _words(kind: Any) -> list[str]:
    """What a kind of annotation takes, one text for each branch."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind == ScalarLike:
        return ["a number"]
    if origin is Annotated:
        return [f"{in_range(_words(inner[0])[0], *inner[1][:4])}{inner[1].why}"]
    if origin in (Union, types.UnionType):
        return list(dict.fromkeys(text for one in inner for text in _words(one)))
    if kind is None or kind is types.NoneType:
        return ["None"]
    if origin is Literal:
        return [repr(one) for one in inner]
    plain = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    plain |= {os.PathLike: "a path"}
    if kind in plain:
        return [plain[kind]]
    if hasattr(kind, "dim_str"):
        if _of_keys(kind):
            return ["a key of jax.random"]
        named = ", ".join(kind.dim_str.split())
        return [f"an array of numbers with dimensions ({named})" if named else "a number"]
    if origin is Callable or kind is Callable:
        return ["a function"]
    if origin in (tuple, Sequence, list) and inner:
        return [f"several in a list, each {either(_words(inner[0]))}"]
    if origin is Mapping:
        return ["a dictionary"]
    if origin is type:
        return ["the class of one"]
    name = getattr(kind, "__name__", str(kind))
    if inspect.isabstract(kind):
        return [f"one of {', '.join(_concrete(kind))}" if _concrete(kind) else name]
    return [f"a {name}"]


def in_range(kind: str, gt: Any = None, ge: Any = None, lt: Any = None, le: Any = None) -> str:
    """A kind of number with the range that it is in.

    >>> in_range("a number", gt=0, le=1), in_range("a whole number", ge=1)
    ('a number above 0, at most 1', 'a whole number from 1')
    """
    if gt is not None and lt is not None:
        return f"{kind} between {gt} and {lt}"
    if gt is not None and le is not None:
        return f"{kind} above {gt}, at most {le}"
    if ge is not None:
        upper = "" if le is None else f" to {le}"
        return f"{kind} from {ge}{upper if lt is None else f' to below {lt}'}"
    if gt is not None:
        return f"{kind} above {'zero' if gt == 0 else gt}"
    return kind


def _concrete(kind: type) -> list[str]:
    """Public classes of an abstract kind, by name."""
    found = []
    for one in kind.__subclasses__():
        own = one.__module__.startswith(__package__ or "") and not one.__name__.startswith("_")
        found += _concrete(one) if inspect.isabstract(one) else [one.__name__] if own else []
    return sorted(found)


def either(words: list[str]) -> str:
    """Words of which one is meant, in half a sentence.

    >>> either(["a number", "a list", "None"])
    'a number, a list or None'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
