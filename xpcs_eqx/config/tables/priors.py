"""The tables `[bayes.priors.NAME]`, as priors and in words."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import model_validator

from ... import bayes
from ...bayes import LogNormal, LogPosterior
from ...bayes.priors.families import AbstractPrior, no_volume
from ...errors import ModelError
from ..section import Finite, Positive, Section, choice_of, key

KINDS = choice_of(bayes, AbstractPrior)
ENDS = ("lower", "upper")
# What each kind of prior takes, in this order; ends that are not given are the bounds of the
# parameter. Of a log-normal the file has the median of x, not the mean of its logarithm.
FIELDS = {
    word: tuple("median" if f.name == "location" else f.name for f in dataclasses.fields(kind))
    for word, kind in KINDS.meant.items()
}


class Prior(Section):
    """What is known of a parameter beforehand; `contrast` and `offset` stand for all angles."""

    kind: Annotated[str, KINDS] | None = key(
        None, "family of the density", example="truncated_normal"
    )
    lower: Finite | None = key(
        None, "lower end; by default the bound of the parameter", example=-2.0
    )
    upper: Finite | None = key(
        None, "upper end; by default the bound of the parameter", example=2.0
    )
    mean: Finite | None = key(
        None, "mean of normal and truncated_normal, before it is cut", example=0.0
    )
    sd: Positive | None = key(
        None, "standard deviation of normal and truncated_normal, before it is cut", example=0.5
    )
    median: Positive | None = key(None, "median of log_normal, before it is cut", example=1.0)
    scale: Positive | None = key(
        None, "sd of ln x for log_normal; of half_normal, in the unit of the parameter", example=1.5
    )
    a: Positive | None = key(None, "first exponent of beta", example=2.0)
    b: Positive | None = key(None, "second exponent of beta", example=2.0)
    from_fit: bool = key(False, "centred on the fit of the same data, which uses them twice")
    width: Positive | None = key(
        None, "width of a prior from the fit, in its quoted errors; 2 by default", example=2.0
    )

    @model_validator(mode="after")
    def _check(self) -> "Prior":
        told = self.model_dump(exclude_none=True, exclude={"kind", "from_fit"})
        given = set(told)
        if self.from_fit:
            if self.kind is not None or given - {"width"}:
                raise ValueError("a prior from_fit has width alone; leave out kind and its numbers")
            return self
        if self.kind is None:
            raise ValueError(
                f"kind is missing; give one of {', '.join(FIELDS)}, or from_fit = true"
            )
        takes = FIELDS[self.kind]
        if missing := sorted(set(takes) - given - set(ENDS)):
            raise ValueError(f"a {self.kind} prior needs {' and '.join(missing)}")
        if strange := sorted(given - set(takes)):
            raise ValueError(
                f"a {self.kind} prior has no {strange[0]}; it takes {', '.join(takes)}"
            )
        low, high = self.lower, self.upper
        if low is not None and high is not None and not low < high:
            raise ValueError(
                f"a {self.kind} prior between {low:g} and {high:g} has no volume; lower must be "
                "below upper (to fix a parameter, set free = false in its table)"
            )
        return self


def prior_of(given: Prior, bounds: tuple[float, float]) -> AbstractPrior:
    """The prior of a table; ends that it lacks are the bounds of the parameter.

    **Raises:** `ModelError` for one that cannot be.
    """
    assert given.kind is not None
    family, (low, high) = KINDS[given.kind], bounds
    # A log-normal is a density of positive numbers, whatever the bounds allow.
    ends = {"lower": max(low, 0.0) if family is LogNormal else low, "upper": high}
    values = {name: getattr(given, name) for name in FIELDS[given.kind]}
    values |= {name: end for name, end in ends.items() if name in values and values[name] is None}
    return _log_normal(**values) if family is LogNormal else family(*values.values())


def _log_normal(median: float, scale: float, lower: float, upper: float) -> AbstractPrior:
    """A log-normal prior; what cannot be is said of x, not of its logarithm."""
    if lower < 0:
        raise ModelError(f"lower = {lower:g} of a log_normal prior; it must not be below 0")
    if not lower < upper:
        raise ModelError(no_volume("log_normal", lower, upper))
    try:
        return LogNormal(math.log(median), scale, lower, upper)
    except ModelError as error:
        raise ModelError(
            f"a log_normal prior with median {median:g} and scale {scale:g} has no weight left "
            f"between {lower:g} and {upper:g}; move or widen one of them"
        ) from error


def prior_text(prior: AbstractPrior) -> str:
    """A prior in one line, with the words and numbers of its table.

    >>> from xpcs_eqx.bayes import LogNormal
    >>> prior_text(LogNormal(0.0, 0.5, 0.1))
    'log_normal, median 1, scale 0.5, lower 0.1, upper inf'
    """
    numbers = {field.name: float(getattr(prior, field.name)) for field in dataclasses.fields(prior)}
    if isinstance(prior, LogNormal):
        numbers = {"median": math.exp(numbers.pop("location")), **numbers}
    word = KINDS.word(type(prior))
    return ", ".join((word, *(f"{name} {value:.6g}" for name, value in numbers.items())))


def prior_lines(
    density: LogPosterior, chosen: Collection[str], from_fit: Mapping[str, float], fitted: bool
) -> list[str]:
    """The prior of every sampled entry; those of angles that are alike stand in one line.

    Those of entries that are not `chosen` are said to be defaults.

    The default one of sigma is made of the residuals of the fit, and has no numbers unless the
    density is that of a fit (`fitted`).
    """
    texts: dict[str, str] = {}
    for name, prior in zip(density.names, density.priors, strict=True):
        text = prior_text(prior)
        if name in from_fit:
            text = f"from the fit, {from_fit[name]:g} times its error wide (uses the data twice)"
        if name == "sigma" and not fitted and name not in chosen:
            text = f"{text.partition(',')[0]}, as wide as the residuals of the fit"
        texts[name] = text + ("" if name in chosen else " (default)")
    grouped: dict[tuple[str, str], list[str]] = {}
    for name, text in texts.items():
        grouped.setdefault((name.split("[")[0], text), []).append(name)
    return [
        f"prior of {names[0] if len(names) == 1 else f'{kind}[…]'}: {text}"
        for (kind, text), names in grouped.items()
    ]
