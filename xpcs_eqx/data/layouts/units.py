"""Units as people write them: a prefix, a base and an exponent of one or minus one."""

import re
import unicodedata
from typing import NamedTuple

import numpy as np

# Bases by name, with the value in units of ten to some power of the unit of their kind. Plurals
# are taken off first.
_BASES = {
    **dict.fromkeys(("m", "meter", "metre"), ("length", 1.0, 0)),
    **dict.fromkeys(("micron", "micrometer"), ("length", 1.0, -6)),
    **dict.fromkeys(("å", "a", "aa", "a°", "ang", "angstrom"), ("length", 1.0, -10)),
    **dict.fromkeys(("s", "sec", "second"), ("time", 1.0, 0)),
    **dict.fromkeys(("min", "minute"), ("time", 60.0, 0)),
    **dict.fromkeys(("h", "hr", "hour"), ("time", 3600.0, 0)),
    "day": ("time", 86400.0, 0),
    **dict.fromkeys(("°", "deg", "degree"), ("angle", 1.0, 0)),
    **dict.fromkeys(("rad", "radian"), ("angle", 180 / np.pi, 0)),
    **dict.fromkeys(("pixel", "px", "pix"), ("number of pixels", 1.0, 0)),
    **dict.fromkeys(("frame", "image", "count"), ("number of frames", 1.0, 0)),
    **dict.fromkeys(("hz", "hertz"), ("frequency", 1.0, 0)),
    **dict.fromkeys(("ev", "electronvolt"), ("energy", 1.0, 0)),
}
_PREFIXES = {
    "": 0, "k": 3, "kilo": 3, "c": -2, "centi": -2, "d": -1, "deci": -1, "m": -3, "milli": -3,
    "u": -6, "mu": -6, "μ": -6, "micro": -6, "n": -9, "nano": -9, "p": -12, "pico": -12,
    "f": -15, "femto": -15, "mega": 6, "giga": 9,
}  # fmt: skip
# Prefixes that mean something else as a capital, and these capitals.
_CAPITALS = {"m": 6, "p": 15}
_SYMBOLS = {"m": "m", "s": "s", "hz": "Hz", "ev": "eV"}
# No one puts a prefix before these; with one they would be read out of other words.
_BARE = (
    "å", "a", "aa", "ang", "angstrom", "a°", "min", "minute", "h", "hr", "hour", "day", "micron",
    "°",
)  # fmt: skip
_INVERSE = re.compile(
    r"(?:(?:(?:1(?:\.0*)?)?/)|inverse|inv\.?|reciprocal|per)(?P<rest>.+)", re.IGNORECASE
)
_POWER = re.compile(r"(?P<word>[^\d^+*-]+?)(?:\^|\*\*)?(?P<exponent>[+-]?1)?")
# What a quantity in some unit is, and what to write for it.
_WANTED = {
    "1/Å": ("inverse length", "1/Å, Å^-1, 1/nm, nm^-1, 1/µm, 1/m"),
    "deg": ("angle", "deg, rad, mrad"),
    "s": ("time", "s, ms, µs, ns, min"),
    "Å": ("length", "Å, nm, µm, mm, m"),
    "eV": ("energy", "eV, keV"),
}


class Unit(NamedTuple):
    """What a word stands for: a kind of quantity, and `value`·10^`power` of its unit in the SI.

    Angles are counted in degrees.
    """

    kind: str
    value: float
    power: int


def unit_of(text: str) -> Unit | None:
    """The unit that a word stands for, `None` for a word that is none.

    Blanks, brackets, superscripts, TeX, both characters for micro and for Å; any case, unless that
    tells prefixes apart: M is mega before m, s, eV and Hz, a word all in capitals is as good as a
    small one, and what may be either is no unit.

    >>> unit_of("nm^{-1}") == unit_of("1 / nm") == unit_of("inverse nanometers")
    True
    >>> unit_of("msec"), unit_of("Ms")
    (Unit(kind='time', value=1.0, power=-3), Unit(kind='time', value=1.0, power=6))
    >>> unit_of("mev") is None
    True
    >>> unit_of("furlong") is None
    True
    """
    word = _plain(text)
    inverted = _INVERSE.fullmatch(word)
    power = _POWER.fullmatch(inverted["rest"] if inverted else word)
    if power is None:
        return None
    found = _named(power["word"])
    if found is None:
        return None
    exponent = int(power["exponent"] or 1) * (-1 if inverted else 1)
    if exponent == 1:
        return found
    return Unit(f"inverse {found.kind}", 1.0 / found.value, -found.power)


def _plain(text: str) -> str:
    """The word without blanks, brackets, accents and TeX, minus as `-`."""
    # Typed for the sign of a degree, and a letter for that of a form that is normal.
    word = unicodedata.normalize("NFKC", text.replace("º", "°"))
    word = word.replace("\\", "").replace("Μ", "μ")
    word = re.sub("ångström|angström|ångstrom", "angstrom", word, flags=re.IGNORECASE)
    word = word.replace("mathring{A}", "å")
    for dash in "−–—‐‑":
        word = word.replace(dash, "-")
    for wrapper in ("text", "mathrm", "rm"):
        word = word.replace(f"{wrapper}{{", "{").replace(f"{wrapper}mu", "mu")
    # Of words, not of exponents.
    word = re.sub(r"(?<=[a-zA-Z])-(?=[a-zA-Z])", "", word)
    return unicodedata.normalize("NFKC", re.sub(r"[\s{}()\[\]$·_,]", "", word)).rstrip(".")


def _named(word: str) -> Unit | None:
    """A base with its prefix; the longest base that leaves a prefix."""
    single = word[:-1] if word[-1:] in ("s", "S") else word
    for name in (word, single) if len(word) > 2 else (word,):
        for start in range(len(name)):
            prefix, base = name[:start].casefold(), name[start:].casefold()
            if prefix in _PREFIXES and base in _BASES and not (prefix and base in _BARE):
                kind, value, power = _BASES[base]
                more = _power(name, start)
                return None if more is None else Unit(kind, value, power + more)
    return None


def _power(name: str, start: int) -> int | None:
    """That of the prefix of a name, which ends at `start`; `None` where its case leaves it open."""
    prefix, base = name[:start], name[start:]
    small = prefix.casefold()
    if small not in _CAPITALS:
        return _PREFIXES[small]
    symbol = _SYMBOLS.get(base.casefold())
    told = symbol is None or symbol.islower()
    if name.isupper() or name.islower():
        # Typed without regard to case: it tells nothing of meV and MeV.
        return _PREFIXES[small] if told else None
    if prefix == small:
        return _PREFIXES[small]
    # Words, not symbols, may begin a line.
    return None if symbol is None else _CAPITALS[small]


def factor_to(unit: str, text: str) -> float | str:
    """By what to multiply numbers in the unit `text` for `unit`, or why that cannot be done.

    - `unit`: `"1/Å"`, `"deg"`, `"s"`, `"Å"` or `"eV"`.

    >>> factor_to("1/Å", "nm^-1"), factor_to("s", "µs")
    (0.1, 1e-06)
    >>> factor_to("deg", "mm")
    "the unit 'mm' is a length, but an angle is needed; known are deg, rad, mrad and the like"
    """
    kind, known = _WANTED[unit]
    found = unit_of(text)
    if found is not None and found.kind == kind:
        wanted = unit_of(unit)
        assert wanted is not None
        return found.value / wanted.value * 10.0 ** (found.power - wanted.power)
    said = "unknown" if found is None else _some(found.kind)
    return (
        f"the unit {text!r} is {said}, but {_some(kind)} is needed; known are {known} and the like"
    )


def _some(kind: str) -> str:
    return f"{'an' if kind[0] in 'aei' else 'a'} {kind}"
