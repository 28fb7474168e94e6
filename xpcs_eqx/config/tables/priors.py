"""The tables `[bayes.priors.NAME]`, as priors and in words."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import model_validator

from ...errors import ConfigError, ModelError
from ..section import Finite, Positive, Section, choice, key
from ..source import Source, nearest

if TYPE_CHECKING:
    from ...bayes import LogPosterior
    from ...bayes.priors.families import AbstractPrior
    from ...objective import CombinedObjective, TwoTimeObjective
    from .bayes import Bayes

KINDS = choice(
    uniform="bayes.Uniform",
    normal="bayes.Normal",
    truncated_normal="bayes.TruncatedNormal",
    log_normal="bayes.LogNormal",
    half_normal="bayes.HalfNormal",
    beta="bayes.Beta",
)
# Numbers that a kind of prior must have; ends that are not given are the bounds of the parameter.
NUMBERS: dict[str, tuple[str, ...]] = {
    "uniform": (),
    "normal": ("mean", "sd"),
    "truncated_normal": ("mean", "sd"),
    "log_normal": ("median", "scale"),
    "half_normal": ("scale",),
    "beta": ("a", "b"),
}
WITHOUT_ENDS = ("normal", "half_normal")
_GROUPS = ("contrast", "offset")
_DEFAULT_WIDTH = 2.0


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
        given = {
            name
            for name in type(self).model_fields
            if name not in ("kind", "from_fit") and getattr(self, name) is not None
        }
        if self.from_fit:
            if self.kind is not None or given - {"width"}:
                raise ValueError("a prior from_fit has width alone; leave out kind and its numbers")
            return self
        if self.kind is None:
            raise ValueError(
                f"kind is missing; give one of {', '.join(NUMBERS)}, or from_fit = true"
            )
        wanted = set(NUMBERS[self.kind])
        ends = set() if self.kind in WITHOUT_ENDS else {"lower", "upper"}
        if missing := sorted(wanted - given):
            raise ValueError(f"a {self.kind} prior needs {' and '.join(missing)}")
        if strange := sorted(given - wanted - ends):
            allowed = ", ".join((*NUMBERS[self.kind], *sorted(ends)))
            raise ValueError(f"a {self.kind} prior has no {strange[0]}; it takes {allowed}")
        low, high = self.lower, self.upper
        if low is not None and high is not None and not low < high:
            raise ValueError(
                f"a {self.kind} prior between {low:g} and {high:g} has no volume; lower must be "
                "below upper (to fix a parameter, set free = false in its table)"
            )
        return self


def _prior(given: Prior, bounds: tuple[float, float]) -> "AbstractPrior":
    """The prior of a table; ends that it lacks are the bounds of the parameter."""
    low = bounds[0] if given.lower is None else given.lower
    high = bounds[1] if given.upper is None else given.upper
    if given.kind == "log_normal":
        return _log_normal(given, low, high)
    assert given.kind is not None
    numbers = (getattr(given, name) for name in NUMBERS[given.kind])
    return KINDS[given.kind](*numbers, *(() if given.kind in WITHOUT_ENDS else (low, high)))


def _log_normal(given: Prior, low: float, high: float) -> "AbstractPrior":
    """A log-normal prior; what cannot be is said of x, not of its logarithm."""
    from ...bayes import LogNormal
    from ...bayes.priors.families import no_volume

    assert given.median is not None
    assert given.scale is not None
    # A density of positive numbers, whatever the bounds allow.
    low = max(low, 0.0) if given.lower is None else low
    if low < 0:
        raise ModelError(f"lower = {low:g} of a log_normal prior; it must not be below 0")
    if not low < high:
        raise ModelError(no_volume("log_normal", low, high))
    try:
        return LogNormal(math.log(given.median), given.scale, low, high)
    except ModelError as error:
        raise ModelError(
            f"a log_normal prior with median {given.median:g} and scale {given.scale:g} has no "
            f"weight left between {low:g} and {high:g}; move or widen one of them"
        ) from error


def given_priors(
    source: Source, given: "Bayes", objective: "TwoTimeObjective | CombinedObjective"
) -> "tuple[dict[str, AbstractPrior], dict[str, float]]":
    """Priors of the tables by name, and the names whose prior is made of the fit with its width.

    **Raises:** `ConfigError` with the place for an unknown name and for a prior that cannot be.
    """
    from ...bayes.priors.prior_set import entries_of
    from ..inference import in_toml

    bounds = {one.name: (one.lower, one.upper) for one in entries_of(objective)}
    bounds["sigma"] = (0.0, math.inf)
    groups = {
        kind: [name for name in bounds if name.startswith(f"{kind}[")]
        for kind in _GROUPS
        if kind not in bounds
    }
    known = [*bounds, *(kind for kind, members in groups.items() if members)]
    priors, from_fit = {}, {}
    # Tables of single angles go before those of all.
    for name, table in sorted(given.priors.items(), key=lambda item: "[" in item[0]):
        where = source.where(("bayes", "priors", name))
        dotted = f"bayes.priors.{name}"
        if name not in known:
            raise ConfigError(
                f"{where}: {dotted}: no parameter {name!r} is sampled"
                f"{nearest(name, known, 'bayes.priors.')}"
            )
        members = groups.get(name) or [name]
        if table.from_fit:
            if name == "sigma":
                raise ConfigError(f"{where}: {dotted}: the fit has no error of sigma; give a kind")
            width = _DEFAULT_WIDTH if table.width is None else table.width
            from_fit |= dict.fromkeys(members, width)
            priors = {k: v for k, v in priors.items() if k not in members}
            continue
        try:
            made = _prior(table, bounds[members[0]])
        except ModelError as error:
            raise ConfigError(f"{where}: {dotted}: {in_toml(str(error))}") from error
        priors |= dict.fromkeys(members, made)
        from_fit = {k: v for k, v in from_fit.items() if k not in members}
    return priors, from_fit


def prior_text(prior: "AbstractPrior") -> str:
    """A prior in one line, with the words and numbers of its table.

    >>> from xpcs_eqx.bayes import LogNormal
    >>> prior_text(LogNormal(0.0, 0.5, 0.1))
    'log_normal, median 1, scale 0.5, lower 0.1, upper inf'
    """
    from ...bayes import LogNormal

    numbers = {field.name: float(getattr(prior, field.name)) for field in dataclasses.fields(prior)}
    if isinstance(prior, LogNormal):
        numbers = {"median": math.exp(numbers.pop("location")), **numbers}
    word = KINDS.word(type(prior))
    return ", ".join((word, *(f"{name} {value:.6g}" for name, value in numbers.items())))


def prior_lines(
    density: "LogPosterior", chosen: Collection[str], from_fit: Mapping[str, float], fitted: bool
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
