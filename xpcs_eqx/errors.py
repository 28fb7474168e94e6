"""Exceptions and warnings of the library: what was found, where, and what to do."""

import difflib
from collections.abc import Iterable


class XPCSError(Exception):
    """Base class of everything this library raises on purpose."""


def how_to_install(extra: str) -> str:
    """What to type where something of an extra is missing, from an index and from a clone.

    >>> how_to_install("bayes")
    "pip install 'xpcs-eqx[bayes]', or in a clone pip install '.[bayes]'"
    """
    return f"pip install 'xpcs-eqx[{extra}]', or in a clone pip install '.[{extra}]'"


def nearest_name(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that is most like another, as a hint in a message; empty where none is.

    >>> nearest_name("layuot", ["path", "layout"]), nearest_name("x", ["layout"])
    ('layout', '')
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else ""


class DataError(XPCSError, ValueError):
    """The data cannot be used as they are: wrong shape, missing key, impossible value."""


class ConfigError(XPCSError, ValueError):
    """A configuration is wrong: unknown key, wrong type, value out of range."""


class ModelError(XPCSError, ValueError):
    """A model, its parameters or a scaling do not go with the data, or an argument is wrong."""


class ArgumentError(ModelError, TypeError):
    """A function was called with an argument it does not have, or without one that it needs."""


class FitError(XPCSError, RuntimeError):
    """A fit could not be carried out, or its result cannot be used for what was asked."""


class PrecisionError(XPCSError, RuntimeError):
    """JAX runs in single precision where double precision is needed."""


class CheckpointError(XPCSError, RuntimeError):
    """A checkpoint cannot be used: damaged, foreign, newer, or of another problem."""


class XPCSWarning(UserWarning):
    """Base class of everything this library warns of."""


class CovarianceWarning(XPCSWarning):
    """The errors of a fit are infinite, wholly or in part; the text says why."""
