"""Tables [bayes.priors.NAME] to priors, and priors to words."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from ..bayes import (
    AbstractPrior,
    Beta,
    HalfNormal,
    LogNormal,
    LogPosterior,
    Normal,
    Tempered,
    TruncatedNormal,
    Uniform,
)
from ..bayes.abstract_prior import no_volume
from ..errors import ConfigError, ModelError
from ..objective import JointObjective, ProjectedObjective
from .bayes_words import PRIORS, in_toml
from .schema_bayes import Bayes, Prior
from .source import Source, nearest

_GROUPS = ("contrast", "offset")
_DEFAULT_WIDTH = 2.0


def _prior(given: Prior, bounds: tuple[float, float]) -> AbstractPrior:
    """The prior of a table; ends that it lacks are the bounds of the parameter."""
    low = bounds[0] if given.lower is None else given.lower
    high = bounds[1] if given.upper is None else given.upper
    match given.kind:
        case "uniform":
            return Uniform(low, high)
        case "normal":
            return Normal(given.mean, given.sd)
        case "truncated_normal":
            return TruncatedNormal(given.mean, given.sd, low, high)
        case "log_normal":
            return _log_normal(given, low, high)
        case "half_normal":
            return HalfNormal(given.scale)
        case _:
            return Beta(given.a, given.b, low, high)


def _log_normal(given: Prior, low: float, high: float) -> AbstractPrior:
    """A log-normal prior; what cannot be is said of x, not of its logarithm."""
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


def _bounds(objective: ProjectedObjective | JointObjective) -> dict[str, tuple[float, float]]:
    """Bounds of everything that can have a prior, `sigma` included."""
    parameters, scaling = objective.term.parameters, objective.term.scaling
    lower = np.concatenate([np.asarray(parameters.lower), np.asarray(scaling.bounds[0])])
    upper = np.concatenate([np.asarray(parameters.upper), np.asarray(scaling.bounds[1])])
    names = (*parameters.free_names, *scaling.names)
    out = {n: (float(a), float(b)) for n, a, b in zip(names, lower, upper, strict=True)}
    return {**out, "sigma": (0.0, math.inf)}


def given_priors(
    source: Source, given: Bayes, objective: ProjectedObjective | JointObjective
) -> tuple[dict[str, AbstractPrior], dict[str, float]]:
    """Priors of the tables by name, and the names whose prior is made of the fit with its width.

    **Raises:** `ConfigError` with the place for an unknown name and for a prior that cannot be.
    """
    bounds = _bounds(objective)
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


def prior_text(prior: AbstractPrior) -> str:
    """A prior in one line, with the words and numbers of its table.

    >>> prior_text(LogNormal(0.0, 0.5, 0.1))
    'log_normal, median 1, scale 0.5, lower 0.1, upper inf'
    """
    if isinstance(prior, Tempered):
        return f"{prior_text(prior.prior)}, to the power {float(prior.power):.6g}"
    numbers = {field.name: float(getattr(prior, field.name)) for field in dataclasses.fields(prior)}
    if isinstance(prior, LogNormal):
        numbers = {"median": math.exp(numbers.pop("location")), **numbers}
    word = PRIORS.get(type(prior), type(prior).__name__)
    return ", ".join((word, *(f"{name} {value:.6g}" for name, value in numbers.items())))


def prior_lines(
    density: LogPosterior, given: Bayes, from_fit: Mapping[str, float], fitted: bool
) -> list[str]:
    """The prior of every sampled entry; those of angles that are alike stand in one line.

    The default one of sigma is made of the residuals of the fit, and has no numbers unless the
    density is that of a fit (`fitted`).
    """
    texts: dict[str, str] = {}
    for name, prior in zip(density.names, density.priors, strict=True):
        text = prior_text(prior)
        if name in from_fit:
            text = f"from the fit, {from_fit[name]:g} times its error wide (uses the data twice)"
        if name == "sigma" and not fitted and name not in given.priors:
            text = f"{text.partition(',')[0]}, as wide as the residuals of the fit"
        own = name in given.priors or name.split("[")[0] in given.priors
        texts[name] = text + ("" if own else " (default)")
    grouped: dict[tuple[str, str], list[str]] = {}
    for name, text in texts.items():
        grouped.setdefault((name.split("[")[0], text), []).append(name)
    return [
        f"prior of {names[0] if len(names) == 1 else f'{kind}[…]'}: {text}"
        for (kind, text), names in grouped.items()
    ]
