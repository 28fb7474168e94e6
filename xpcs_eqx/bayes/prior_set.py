"""The priors of a whole problem: by default, from bounds, from a fit."""

import math
from collections.abc import Collection, Mapping

import equinox as eqx
import numpy as np

from ..errors import ModelError
from ..fitting import Fit
from ..objective import JointObjective, ProjectedObjective
from ..parameters.leaves import check_names
from .abstract_prior import AbstractPrior, Number
from .cut_priors import LogNormal, TruncatedNormal
from .priors import Normal, Tempered, Uniform

# Mean and standard deviation by public name; None for a log-normal about the start.
_TABLE: dict[str, tuple[float, float] | None] = {
    "D0": None,
    "alpha": (0.0, 1.0),
    "D_offset": (0.0, 1000.0),
    "gamma_dot_t0": None,
    "beta": (0.0, 0.5),
    "gamma_dot_t_offset": (0.0, 0.02),
    "phi0": (0.0, 10.0),
}
_LOG_SCALE = 1.5
_CONTRAST, _OFFSET = (0.3, 0.25), (1.0, 0.25)
# Positive parameters whose bounds are further apart than this get a prior in their logarithm.
_DECADES = 100.0


class PriorSet(eqx.Module):
    """A prior for every parameter by name.

    `notes` say what a reader of the result has to know about them.
    """

    priors: tuple[AbstractPrior, ...]
    names: tuple[str, ...] = eqx.field(static=True)
    notes: tuple[str, ...] = eqx.field(static=True, default=())

    def __getitem__(self, name: str) -> AbstractPrior:
        """The prior of a parameter.

        **Raises:** `ModelError` when there is none.
        """
        if name not in self.names:
            raise ModelError(f"{name} has no prior; there are priors for {', '.join(self.names)}")
        return self.priors[self.names.index(name)]

    def get(self, name: str, default: AbstractPrior) -> AbstractPrior:
        """The prior of a parameter, or `default`."""
        return self[name] if name in self.names else default

    def replaced(self, given: Mapping[str, AbstractPrior]) -> "PriorSet":
        """This with some priors replaced; `contrast` and `offset` stand for those of all angles.

        **Raises:** `ModelError` for an unknown name, with the nearest known one, and for anything
        that is no prior.
        """
        groups = {
            kind: [name for name in self.names if name.startswith(f"{kind}[")]
            for kind in ("contrast", "offset")
        }
        groups = {kind: members for kind, members in groups.items() if members}
        check_names(given, {**dict.fromkeys(self.names), **groups, "sigma": None}, "the posterior")
        merged = dict(zip(self.names, self.priors, strict=True))
        for name, prior in given.items():
            if not isinstance(prior, AbstractPrior):
                raise ModelError(
                    f"the prior of {name} is {prior!r}; give one of Uniform, Normal, "
                    "TruncatedNormal, LogNormal, HalfNormal, Beta"
                )
            for one in groups.get(name, [name]):
                merged[one] = prior
        return PriorSet(tuple(merged.values()), tuple(merged), self.notes)

    def tempered(self, power: Number) -> "PriorSet":
        """Every prior to the given power: 1/K for K shards, so that together they count once."""
        return PriorSet(tuple(Tempered(p, power) for p in self.priors), self.names, self.notes)


def _entries(objective: ProjectedObjective | JointObjective):
    """Name, start, lower and upper bound of the free parameters and scaling coefficients."""
    parameters, scaling = objective.term.parameters, objective.term.scaling
    low, high = (np.asarray(bound) for bound in scaling.bounds)
    start = np.asarray(scaling.from_per_angle(objective.term.reference))
    columns = (
        (*parameters.free_names, *scaling.names),
        np.concatenate([np.asarray(parameters.start), start]),
        np.concatenate([np.asarray(parameters.lower), low]),
        np.concatenate([np.asarray(parameters.upper), high]),
    )
    return [(n, float(s), float(a), float(b)) for n, s, a, b in zip(*columns, strict=True)]


def _default(name: str, start: float, low: float, high: float, step: float) -> AbstractPrior:
    kind = name.split("[")[0].removesuffix("_ref").removesuffix("_sample")
    if kind in ("contrast", "contrast_c0", "offset", "offset_c0"):
        return TruncatedNormal(*(_CONTRAST if kind.startswith("c") else _OFFSET), low, high)
    if kind.startswith(("contrast_", "offset_")):
        return TruncatedNormal(0.0, 0.5 * high, low, high)
    logarithmic = kind in _TABLE and _TABLE[kind] is None
    wide = low > 0 and high > _DECADES * low
    if (logarithmic or wide) and start > 0 and low >= 0:
        return LogNormal(math.log(start), _LOG_SCALE, low, high)
    known = _TABLE.get(kind)
    if known is not None:
        return TruncatedNormal(*known, low, high)
    if math.isfinite(high - low):
        return Uniform(low, high)
    return TruncatedNormal(start, 10 * step, low, high)


def default_priors(objective: ProjectedObjective | JointObjective) -> PriorSet:
    """Weakly informative priors inside the bounds.

    Diffusion and shear amplitudes are log-normal about the start of the objective with 1.5 in ln;
    alpha, beta, offsets of rates, phi0, contrast and offset are truncated normal about their usual
    values. Other parameters are log-normal when their positive bounds are decades apart, uniform
    within finite bounds, else normal about their start with ten times their natural step.

    **Raises:** `ModelError` when the bounds of a parameter leave a prior without volume.
    """
    steps = np.asarray(objective.term.parameters.coordinate_scale)
    steps = np.concatenate([steps, np.ones(objective.term.scaling.size)])
    entries = _entries(objective)
    priors = tuple(_default(*e, float(s)) for e, s in zip(entries, steps, strict=True))
    return PriorSet(priors, tuple(name for name, *_ in entries))


def bound_priors(objective: ProjectedObjective | JointObjective) -> PriorSet:
    """Uniform priors between the bounds of every parameter.

    **Raises:** `ModelError` naming a parameter without finite bounds.
    """
    priors = []
    for name, _, low, high in _entries(objective):
        if not math.isfinite(high - low):
            raise ModelError(
                f"{name} has bounds [{low:g}, {high:g}]; a uniform prior needs finite ones"
            )
        priors.append(Uniform(low, high))
    return PriorSet(tuple(priors), tuple(name for name, *_ in _entries(objective)))


def fit_priors(fit: Fit, width: float = 2.0, names: Collection[str] | None = None) -> PriorSet:
    """Normal priors centred on a fit, `width` times its quoted errors wide, inside the bounds.

    They are those of all parameters and scaling coefficients, or of the given `names` alone.

    With the fit of the same data they use the data twice and make the posterior too narrow, which
    the result says. Good for a prior from another measurement.

    **Raises:** `ModelError` for a parameter without a finite error and for a width not above 0.
    """
    if not width > 0:
        raise ModelError(f"width {width} of priors from a fit; it must be above 0")
    priors = {}
    for row in fit.rows:
        if row.role not in ("free", "scaling") or not (names is None or row.name in names):
            continue
        if not (np.isfinite(row.error) and row.error > 0):
            raise ModelError(
                f"the fit has no finite error of {row.name}"
                + (", which ended on its bound" if row.at_bound else "")
                + "; give that parameter a prior of its own and use default_priors for the rest"
            )
        sd = width * row.error
        priors[row.name] = (
            TruncatedNormal(row.value, sd, row.lower, row.upper)
            if math.isfinite(row.upper) or math.isfinite(row.lower)
            else Normal(row.value, sd)
        )
    note = (
        f"priors are centred on a fit, {width:g} times its errors wide; if it is a fit of the same "
        "data, these are used twice and the posterior is too narrow"
    )
    return PriorSet(tuple(priors.values()), tuple(priors), (note,))
