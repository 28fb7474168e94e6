"""What results and values show of themselves: numbers, tables, and figures drawn elsewhere."""

import csv
import html
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import equinox as eqx
import jax
import jax.core
import numpy as np

from .errors import ModelError
from .files import replacing

# Of an array so many numbers are shown, of a longer one its first and last.
_SHOWN = 6
# Of longer tables and lists so many rows are shown.
_ROWS = 60
# Columns of words.
_WORDS = ("unit", "role")
# Columns of values, and of their errors; other columns have four significant digits.
_ERRORS = {"value": "error", "mean": "sd"}
# Decimals beyond which an error is written with a power of ten.
_DECIMALS = 6
# Significant digits of a value at most.
_MOST_DIGITS = 15


def number(value: float, digits: int = 6) -> str:
    """A number in a table, rounded to some digits; a dash for NaN.

    >>> number(203.4, 2), number(4022.416), number(math.nan)
    ('200', '4022.42', '-')
    """
    return "-" if math.isnan(value) else f"{float(f'{value:.{digits}g}'):.{max(digits, 6)}g}"


def _decimals(error: float) -> int:
    """Decimals of an error that is rounded to two digits, below zero where it ends in zeros."""
    return 1 - int(f"{error:.1e}".partition("e")[2])


def _rounded(values: Sequence[float], decimals: int, most: int) -> list[str]:
    """Texts with so many decimals, `most` at most; below zero, with zeros before the point."""
    shown = max(0, min(decimals, most))
    # Plus zero, lest a zero has a sign.
    return [f"{round(one, min(decimals, shown)) + 0.0:.{shown}f}" for one in values]


def value_and_error(value: float, error: float) -> tuple[str, str]:
    """Cells of a table: a value to the digits of its error, and the error, which has two.

    Zeros at the end are digits too.

    >>> value_and_error(-0.5, 0.052), value_and_error(9.8e-05, 2.12e-06)
    (('-0.500', '0.052'), ('9.80e-05', '2.1e-06'))
    >>> value_and_error(4022.42, 6100.0), value_and_error(1.0, math.nan)
    (('4000', '6100'), ('1', '-'))
    >>> value_and_error(1.18363, math.inf)
    ('1.2', 'inf')
    """
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value, 2 if error == math.inf else 6), number(error, 2)
    decimals, size = _decimals(error), math.floor(math.log10(max(abs(value), error)))
    if -4 < size < 6:
        cells = _rounded((value, error), decimals, _MOST_DIGITS - 1 - size)
    else:
        digits = math.floor(math.log10(abs(value))) + decimals if value else 0
        cells = [f"{value:.{max(0, min(digits, _MOST_DIGITS - 1))}e}", f"{error:.1e}"]
    return cells[0], f"{error:.1e}" if decimals > _DECIMALS else cells[1]


def with_error(value: float, error: float) -> str:
    """A value rounded as its error, which has two digits.

    >>> with_error(4022.42, 61.13), with_error(9.81164e-05, 2.12e-06), with_error(27729, 7074)
    ('4022 ± 61', '(9.81 ± 0.21)e-05', '(2.77 ± 0.71)e+04')
    >>> with_error(1.18363, math.inf), with_error(1.18363, math.nan)
    ('1.2 ± inf', '1.18363')
    """
    if error == math.inf:
        return f"{number(value, 2)} ± inf"
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value)
    size = math.floor(math.log10(max(abs(value), error)))
    # Powers of ten where plain digits would be many zeros, or more than the error leaves.
    power = 0 if -4 < size < 6 and error < 1000 else size
    scale = 10.0**-power
    decimals = _decimals(error * scale)
    pair = " ± ".join(_rounded((value * scale, error * scale), decimals, _MOST_DIGITS))
    return f"({pair})e{power:+03d}" if power else pair


# Far out, no distribution is known to its digits.
RARE = 1e-9


def probability_text(probability: float, digits: int = 2) -> str:
    """A probability with its sign of relation.

    >>> probability_text(0.6612), probability_text(3e-40)
    ('= 0.66', '< 1e-09')
    """
    return f"= {probability:.{digits}g}" if probability >= RARE else f"< {RARE:g}"


def curvature_text(ratio: float) -> str:
    """A curvature over the largest one; what is below rounding is told as that.

    >>> curvature_text(2.34e-6), curvature_text(-3e-16)
    ('relative curvature 2.3e-06', 'no curvature beyond rounding')
    """
    return f"relative curvature {ratio:.1e}" if ratio > 1e-12 else "no curvature beyond rounding"


def without_q(unit: str) -> str:
    """A unit of maps whose q is not known, where it is taken as 1.

    >>> without_q("Å²/s^(1+alpha)"), without_q("Å/s"), without_q("Å"), without_q("1/s")
    ('1/s^(1+alpha)', '1/s', '', '1/s')
    """
    return re.sub("^Å²?", "1", unit) if "/" in unit else re.sub("^Å²?$", "", unit)


def per_frame(said: str) -> str:
    """Words, or a unit, of data whose frame time nobody has said: their times count frames.

    >>> per_frame("1/s^(1+alpha)"), per_frame("s"), per_frame("at lags 2–5 s, τ [s]")
    ('1/frame^(1+alpha)', 'frames', 'at lags 2–5 frames, τ [frames]')
    """
    return re.sub(r"^s$|(?<=\[)s(?=\])|(?<=\d )s\b", "frames", re.sub(r"(?<=/)s\b", "frame", said))


def counts_frames(units: Iterable[str]) -> bool:
    """Whether parameters of these units are of data whose frame time nobody has said."""
    return any("frame" in unit for unit in units)


def counted(many: int, name: str) -> str:
    """A number of things in words.

    >>> counted(1, "angle"), counted(3, "angle")
    ('1 angle', '3 angles')
    """
    return f"{many} {name}" if many == 1 else f"{many} {name}s"


def columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], rule: bool = True
) -> list[str]:
    """Lines of columns as wide as their entries, those that are `right` on that side.

    A `rule` is drawn below the header.
    """
    every = (header, *rows)
    widths = [max(len(line[i]) for line in every) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        shown = [
            cell.rjust(w) if to_right else cell.ljust(w)
            for cell, w, to_right in zip(cells, widths, right, strict=True)
        ]
        return ("  " + "  ".join(shown)).rstrip()

    below = ["  " + "-" * (sum(widths) + 2 * len(widths) - 2)] if rule else []
    return [line(header), *below, *map(line, rows)]


def in_columns(cells: Sequence[Sequence[str]], names: bool = False) -> str:
    """A header and rows as columns that stand on the right, but for a first one of `names`."""
    header, *rows = cells
    right = [not names, *[True] * (len(header) - 1)]
    return "\n".join(columns(header, rows, right, rule=False))


def html_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
    look: Callable[[str, bool], str],
    style: str = "",
) -> str:
    """A table of HTML; `look` is told each text and whether it is on the right, `style` is of all.

    >>> shown = html_table(["a"], [["<1"]], [True], lambda text, right: 'class="n"')
    >>> shown.split("<tbody>")[1]
    '<tr><td class="n">&lt;1</td></tr></tbody></table>'
    """

    def tag(name: str, attributes: str) -> str:
        return f"<{name} {attributes}>" if attributes else f"<{name}>"

    def line(name: str, cells: Sequence[str]) -> str:
        parts = (
            f"{tag(name, look(cell, to_right))}{html.escape(cell)}</{name}>"
            for cell, to_right in zip(cells, right, strict=True)
        )
        return f"<tr>{''.join(parts)}</tr>"

    body = "\n".join(line("td", cells) for cells in rows)
    head = line("th", header)
    return f"{tag('table', style)}<thead>{head}</thead><tbody>{body}</tbody></table>"


def known(tree: Any) -> bool:
    """Whether all of its leaves are there to be looked at, none of them traced or a mere shape."""
    leaves = jax.tree.leaves(tree)
    return not any(isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct) for x in leaves)


def few(values: Any) -> str:
    """Numbers of a list, the first and the last of a long one.

    >>> few([0, 45, 90]), few(range(100))
    ('0, 45, 90', '0, 1, …, 99')
    """
    flat = [f"{float(value):.6g}" for value in np.ravel(np.asarray(values))]
    return ", ".join(flat if len(flat) <= _SHOWN else [*flat[:2], "…", flat[-1]])


class _Text(str):
    """A text that prints as it stands."""

    __repr__ = str.__str__


def with_numbers(module: Any) -> str:
    """A Module as it is called, with its numbers where they are few and known.

    >>> import xpcs_eqx as xe
    >>> print(with_numbers(xe.PowerLawRate(1e4, -0.3, 0.0)))
    PowerLawRate(amplitude=10000, exponent=-0.3, offset=0)
    """

    def shown(leaf):
        if isinstance(leaf, jax.core.Tracer) or not isinstance(
            leaf, np.ndarray | np.generic | jax.Array
        ):
            return leaf
        kind = getattr(leaf.dtype, "kind", "V")
        if kind not in "fiub" or np.ndim(leaf) > 1:
            return leaf
        return _Text(few(leaf) if np.ndim(leaf) == 0 else f"[{few(leaf)}]")

    return eqx.tree_pformat(jax.tree.map(shown, module), width=100)


class Table(dict[str, Mapping[str, Any]]):
    """A row of values for each parameter, by name; it prints as columns, in notebooks as a table.

    >>> shown = Table({"D0": {"value": 1.5e4, "error": 120.0, "unit": "Å²/s"}})
    >>> print(shown)
      parameter  value  error  unit
      -----------------------------
      D0         15000    120  Å²/s
    >>> shown["D0"]["error"]
    120.0
    """

    def __missing__(self, name: str) -> Mapping[str, Any]:
        raise KeyError(f"no parameter {name!r}; there are {', '.join(self)}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(next(iter(self.values()), {}))

    def _cells(self) -> list[list[str]]:
        value_of = {error: value for value, error in _ERRORS.items()}

        def cell(row, column, value):
            if isinstance(value, bool) or not isinstance(value, float | int):
                return str(value)
            if column in _ERRORS:
                return value_and_error(value, row.get(_ERRORS[column], math.nan))[0]
            if column in _ERRORS.values():
                return value_and_error(row[value_of[column]], value)[1]
            return number(value, 4)

        cells = [[n, *(cell(row, *one) for one in row.items())] for n, row in self.items()]
        if len(cells) <= _ROWS:
            return cells
        return [*cells[: _ROWS - 2], ["…", *[""] * len(self.columns)], cells[-1]]

    def _right(self) -> list[bool]:
        """Which columns stand on the right."""
        return [False, *(column not in _WORDS for column in self.columns)]

    def __repr__(self) -> str:
        return "\n".join(columns(("parameter", *self.columns), self._cells(), self._right()))

    def _repr_html_(self) -> str:
        """A table of HTML, as notebooks show it."""

        # Notebooks keep the style of an element, and not all keep style sheets.
        def look(cell: str, to_right: bool) -> str:
            return f'style="padding:0.2em 0.7em;text-align:{"right" if to_right else "left"}"'

        style = 'style="border-collapse:collapse;font-variant-numeric:tabular-nums"'
        return html_table(("parameter", *self.columns), self._cells(), self._right(), look, style)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each parameter.

        **Raises:** `ModelError` with what to install when pandas is missing.
        """
        try:
            import pandas
        except ImportError as error:
            raise ModelError(
                "a DataFrame needs pandas; install it with: pip install pandas, or take "
                "`to_csv(path)`, which does without"
            ) from error
        frame = pandas.DataFrame.from_dict(dict(self), orient="index", columns=list(self.columns))
        return frame.rename_axis("parameter")

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a line for each parameter, numbers in full, under a line of column names.

        **Raises:** `DataError` when the folder does not exist; `OSError` when it cannot be written.
        """
        with (
            replacing(path) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("parameter", *self.columns))
            writer.writerows([name, *row.values()] for name, row in self.items())


@singledispatch
def figures_of(result: Any, names: tuple[str, ...] = ()) -> Any:
    """The figures of a result, all or those called `names`, in a notebook or for a folder.

    Who draws a kind of result registers it here, so that results need not know of plots.

    **Raises:** `ModelError` for what has no figures.
    """
    raise ModelError(f"there are no figures of a {type(result).__name__}")


def labelled(
    arrays: Mapping[str, tuple[tuple[str, ...], Any]],
    coordinates: Mapping[str, Any],
    attributes: Mapping[str, Any],
) -> Any:
    """An xarray Dataset of arrays with the names of their dimensions.

    **Raises:** `ModelError` with what to install when xarray is missing.
    """
    try:
        import xarray
    except ImportError as error:
        raise ModelError(
            "a labelled Dataset needs xarray; install it with: pip install xarray"
        ) from error
    return xarray.Dataset(dict(arrays), dict(coordinates), dict(attributes))


def as_block(title: str, said: Sequence[str], rows: Table, good: bool, more: str = "") -> str:
    """HTML of a result for a notebook: a title coloured by the verdict, sentences, its table."""
    colour = "#228833" if good else "#aa5500"
    items = "".join(f"<li>{html.escape(one)}</li>" for one in said)
    return (
        f'<div><p style="border-left:0.4em solid {colour};padding-left:0.6em;margin:0.3em 0">'
        f"<b>{html.escape(title)}</b></p>{f'<ul>{items}</ul>' if items else ''}"
        f"{rows._repr_html_()}{more}</div>"
    )
