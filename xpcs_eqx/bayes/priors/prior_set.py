"""The priors of a whole problem: by default, from bounds, from a fit."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...compiling import quick_jit
from ...errors import ModelError
from ...fitting import Fit
from ...objective import (
    CombinedObjective,
    JointObjective,
    ProjectedObjective,
    SpeckleLikelihood,
)
from ...parameters import ParameterMap, saved_values
from ...parameters.leaves import check_names
from ...parameters.shared import base_of
from ...physics import AbstractCorrelation, AbstractRate, time_floor
from ...physics.leaves import parameter_leaves
from .families import FAMILIES, AbstractPrior, LogNormal, Normal, TruncatedNormal, Uniform

OneDataSet: TypeAlias = ProjectedObjective | JointObjective | SpeckleLikelihood
Samplable: TypeAlias = OneDataSet | CombinedObjective

# Mean and standard deviation by public name; None for a log-normal about the start.
_TABLE: dict[str, tuple[float, float] | None] = {
    "D0": None,
    "alpha": (0.0, 1.0),
    "gamma_dot_t0": None,
    "beta": (0.0, 0.5),
    "phi0": (0.0, 10.0),
}
# Offsets of rates: normal about zero, as wide as the rate itself is large at the start.
_OFFSETS = ("D_offset", "gamma_dot_t_offset")
_LOG_SCALE = 1.5
# Of the shot noise about one: one photon in a thousand frames or a thousand in each.
_SHOT_SCALE = 3.5
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
        groups = scaling_groups(self.names)
        check_names(given, {**dict.fromkeys(self.names), **groups, "sigma": None}, "the posterior")
        merged = dict(zip(self.names, self.priors, strict=True))
        for name, prior in given.items():
            if not isinstance(prior, AbstractPrior):
                raise ModelError(
                    f"the prior of {name} is {prior!r}; give one of {', '.join(FAMILIES)}"
                )
            for one in groups.get(name, [name]):
                merged[one] = prior
        return PriorSet(tuple(merged.values()), tuple(merged), self.notes)


def scaling_groups(names: Collection[str]) -> dict[str, list[str]]:
    """The names of `contrast` and of `offset` of all angles, where single ones have some."""
    each = {kind: [n for n in names if n.startswith(f"{kind}[")] for kind in ("contrast", "offset")}
    return {kind: members for kind, members in each.items() if members and kind not in names}


class Entry(NamedTuple):
    """What a default prior is made of: name, start and bounds.

    `scale`: size that the start alone does not tell: of the offset of a rate that of the rate
    (`offset_sizes`), else a natural step.
    """

    name: str
    start: float
    lower: float
    upper: float
    scale: float = 1.0


def scaling_entries(objective: OneDataSet) -> list[Entry]:
    """The entries of the scaling coefficients."""
    scaling = objective.term.scaling
    start = scaling.from_per_angle(objective.term.reference)
    rows = zip(*(np.asarray(c, float).tolist() for c in (start, *scaling.bounds)), strict=True)
    return [Entry(name, *row) for name, row in zip(scaling.names, rows, strict=True)]


def _kind(name: str) -> str:
    return base_of(name).removesuffix("_ref").removesuffix("_sample")


@quick_jit
def _step(parameters, x):
    """Change of each physical parameter with its coordinate scale [its unit]."""
    y = parameters.to_coordinates(x)
    slope = jax.jacfwd(parameters.to_physical)(y) * jnp.asarray(parameters.coordinate_scale)
    return jnp.sqrt(jnp.sum(slope**2, axis=1))


@quick_jit
def _largest(rate, times):
    return jnp.max(jnp.abs(rate(times)))


def _unknown(entry: Entry) -> bool:
    """Whether neither name nor bounds tell how far a parameter may be from its start."""
    return _kind(entry.name) not in _TABLE and not math.isfinite(entry.upper - entry.lower)


def parameter_entries(parameters: ParameterMap, sizes: Mapping[str, float]) -> list[Entry]:
    """The entries of the free parameters.

    Their scale is a coordinate step in their own unit, or what `sizes` knows of it above 0.
    """
    columns = (parameters.start, parameters.lower, parameters.upper)
    rows = zip(*(np.asarray(column, float).tolist() for column in columns), strict=True)
    found = [Entry(name, *row) for name, row in zip(parameters.free_names, rows, strict=True)]
    if any(map(_unknown, found)):
        steps = np.asarray(_step(parameters, jnp.asarray(parameters.start))).tolist()
        found = [entry._replace(scale=step) for entry, step in zip(found, steps, strict=True)]
    return [entry._replace(scale=sizes.get(entry.name, 0.0) or entry.scale) for entry in found]


# Times at which a rate is looked at: enough for its size, and always as many.
_TIMES = 8


def offset_sizes(
    model: AbstractCorrelation, t: Float[Array | np.ndarray, "frame"]
) -> dict[str, float]:
    """By name of each offset of a rate of a model the size of that rate [its unit].

    That is its largest absolute value at times from first to last frame and at one second, where a
    power law has the value of its amplitude.
    """
    t = np.asarray(t, float)
    chosen = t[np.linspace(0, t.size - 1, _TIMES).round().astype(int)]
    floor = float(time_floor(t))  # pyright: ignore[reportArgumentType]
    times = np.append(np.maximum(chosen, floor), 1.0)
    rates = {
        leaf.name: getattr(model, leaf.path[0])
        for leaf in parameter_leaves(model)
        if _kind(leaf.name) in _OFFSETS
    }
    return {
        name: float(_largest(rate, times))
        for name, rate in rates.items()
        if isinstance(rate, AbstractRate)
    }


def default_prior(entry: Entry) -> AbstractPrior:
    """The weakly informative prior of one entry, as `default_priors` says."""
    name, start, low, high, scale = entry
    kind = _kind(name)
    if kind in _OFFSETS:
        return TruncatedNormal(0.0, scale, low, high)
    if kind in ("contrast", "contrast_c0", "offset", "offset_c0"):
        return TruncatedNormal(*(_CONTRAST if kind.startswith("c") else _OFFSET), low, high)
    if kind.startswith(("contrast_", "offset_")):
        return TruncatedNormal(0.0, 0.5 * high, low, high)
    if kind == "shot":
        return LogNormal(0.0, _SHOT_SCALE, low, high)
    logarithmic = kind in _TABLE and _TABLE[kind] is None
    wide = low > 0 and high > _DECADES * low
    if (logarithmic or wide) and start > 0 and low >= 0:
        return LogNormal(math.log(start), _LOG_SCALE, low, high)
    known = _TABLE.get(kind)
    if known is not None:
        return TruncatedNormal(*known, low, high)
    if math.isfinite(high - low):
        return Uniform(low, high)
    return TruncatedNormal(start, 10 * scale, low, high)


def entries_of(objective: Samplable) -> list[Entry]:
    """Everything that may have a default prior: free parameters, then scaling coefficients.

    Of several data sets these are the free parameters of all of them by public name, with start and
    bounds that the joint fit gives them, and the coefficients of each as `name[label]`. Offsets of
    rates that data sets share are as wide as the first of these rates is large.
    """
    if not isinstance(objective, CombinedObjective):
        term = objective.term
        model = term.parameters.build(jnp.asarray(term.parameters.start))
        entries = parameter_entries(term.parameters, offset_sizes(model, term.t))
        return entries + scaling_entries(objective)
    shared = objective.parameters
    models = shared.models(shared.whole.start)
    sizes: dict[str, float] = {}
    for k, part in enumerate(objective.parts):
        own = offset_sizes(models[k], part.term.t)
        found = {public: own[name] for name, public in shared.public[k] if name in own}
        sizes = found | sizes
    entries = parameter_entries(shared.whole, sizes)
    for part, label in zip(objective.parts, shared.labels, strict=True):
        entries += [one._replace(name=f"{one.name}[{label}]") for one in scaling_entries(part)]
    return entries


def default_priors(objective: Samplable) -> PriorSet:
    """Weakly informative priors inside the bounds.

    Diffusion and shear amplitudes are log-normal about the start of the objective with 1.5 in ln;
    alpha, beta, phi0, contrast and offset are truncated normal about their usual values, offsets of
    rates about zero, as wide as the rate is large at the start (`offset_sizes`); shot noise is
    log-normal about one with 3.5 in ln. Other parameters
    are log-normal when their positive bounds are decades apart, uniform within finite bounds, else
    normal about their start with ten times their natural step.

    Of several data sets they are called as in the joint fit: `D0`, `alpha[hot]`,
    `contrast[0][hot]`.

    **Raises:** `ModelError` when the bounds of a parameter leave a prior without volume.
    """
    entries = entries_of(objective)
    return PriorSet(tuple(map(default_prior, entries)), tuple(one.name for one in entries))


def _centred(
    found: Mapping[str, tuple[float, float, float, float]], width: float, note: str
) -> PriorSet:
    """Priors from (value, error, lower, upper) by name, `width` times the errors wide."""
    if not width > 0:
        raise ModelError(f"width {width} of priors from a fit; it must be above 0")
    priors = []
    for value, error, *ends in found.values():
        bounded = any(map(math.isfinite, ends))
        sd = width * error
        priors.append(TruncatedNormal(value, sd, *ends) if bounded else Normal(value, sd))
    return PriorSet(tuple(priors), tuple(found), (note,))


def fit_priors(fit: Fit, width: float = 2.0, names: Collection[str] | None = None) -> PriorSet:
    """Normal priors centred on a fit, `width` times its quoted errors wide, inside the bounds.

    They are those of all parameters and scaling coefficients, or of the given `names` alone.

    With the fit of the same data they use the data twice and make the posterior too narrow, which
    the result says. Good for a prior from another measurement.

    **Raises:** `ModelError` for a parameter without a finite error and for a width not above 0.
    """
    found = {}
    for row in fit.rows:
        fitted = row.varies or row.role == "scaling"
        if not fitted or not (names is None or row.name in names):
            continue
        if not (np.isfinite(row.error) and row.error > 0):
            raise ModelError(
                f"the fit has no finite error of {row.name}"
                + (", which ended on its bound" if row.at_bound else "")
                + "; give that parameter a prior of its own and use default_priors for the rest"
            )
        found[row.name] = (row.value, row.error, row.lower, row.upper)
    note = (
        f"priors are centred on a fit, {width:g} times its errors wide; if it is a fit of the same "
        "data, these are used twice and the posterior is too narrow"
    )
    return _centred(found, width, note)


def saved_priors(path: str, width: float = 2.0, names: Collection[str] | None = None) -> PriorSet:
    """Normal priors from an earlier `parameters.json`, of a fit or of a posterior.

    As `fit_priors`: centred on the values there, `width` times their errors (standard deviations)
    wide, inside the bounds. Parameters without an error, such as fixed ones, have none; `sigma`
    neither, unless it is among `names`.

    **Raises:** `DataError` for what is no such file; `ModelError` for a name that has no value and
    error there, and for a width not above 0.
    """
    known = {n: one for n, one in saved_values(path).items() if one.error > 0}
    chosen = [name for name in known if name != "sigma"] if names is None else list(names)
    if missing := [name for name in chosen if name not in known]:
        raise ModelError(
            f"{path} has no value with an error of {', '.join(missing)}; there are "
            f"{', '.join(known)}"
        )
    note = (
        f"the priors of {', '.join(chosen)} are centred on {path}, {width:g} times the errors "
        "there wide; if it is of the same data, these are used twice and the posterior is too "
        "narrow"
    )
    rows = {n: (known[n].value, known[n].error, known[n].lower, known[n].upper) for n in chosen}
    return _centred(rows, width, note)
