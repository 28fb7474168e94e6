"""Parameters of the data sets: what the tables say of each, what is shared, what is tied."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ..errors import ConfigError, ModelError
from ..parameters import (
    ParameterMap,
    Proportional,
    SharedParameters,
    Slope,
    parameter_map,
    saved_values,
    shared_parameters,
    with_parameters,
)
from ..parameters.shared import Entry, Names
from ..physics import AbstractCorrelation
from .read import Configuration
from .source import Source, nearest
from .tables import Settings
from .tables.data import Joint
from .tables.model import Parameter
from .tables.solver import COORDINATES

# What one data set has to say itself of a parameter that it does not share.
_OWN = ("start", "bounds", "free", "scale")


def tables_of(names: Names, entry: Entry) -> list[str]:
    """Names of the tables that speak of a parameter, the more special the later.

    A plain name holds for all data sets, `D0[hot]` for one and before it; `J` for all entries
    of a vector, `J[3]` for one and before it.
    """
    plain = entry.leaf.name
    # An entry of a vector may be called as a data set is: then it is the entry.
    special = [n for n in (entry.whole, entry.own) if n == plain or n not in names.in_vectors]
    return list(dict.fromkeys([entry.base, plain, *special]))


def shared_names(
    joint: Joint, models: Sequence[AbstractCorrelation], labels: tuple[str, ...], source: Source
) -> Names:
    """The names of the parameters of all data sets, with what `[joint]` says of them.

    **Raises:** `ConfigError` for names that no model has, or only one where it is to be shared.
    """
    names = Names(tuple(models), labels)
    if names.alone:
        return names
    every = list(dict.fromkeys(name for some in names.bases for name in some))
    common = [name for name in every if all(name in some for some in names.bases)]
    key = "separate" if joint.shared is None else "shared"
    given, where = getattr(joint, key) or [], source.where(f"joint.{key}")
    for name in given:
        if name not in every:
            raise ConfigError(
                f"{where}: joint.{key}: no model has a parameter {name!r}{nearest(name, every)}"
            )
        lacking = [one for one, some in zip(labels, names.bases, strict=True) if name not in some]
        if key == "shared" and 0 < len(lacking) >= len(labels) - 1:
            raise ConfigError(
                f"{where}: joint.shared: {name!r} has nothing to be shared with, since the model "
                f"of {', '.join(lacking)} lacks it; leave it out"
            )
    rest = [name for name in common if name not in given]
    return replace(names, shared=tuple(dict.fromkeys(given if key == "shared" else rest)))


def _over(low: Parameter, high: Parameter) -> Parameter:
    """A table under a more special one."""
    own = {key: getattr(high, key) for key in high.model_fields_set}
    if high.tie is not None:
        own |= {"start": None, "free": True}
    elif low.tie is not None and own:
        own |= {"tie": None, "factor": None}
    return low.model_copy(update=own)


def merged_tables(
    given: Mapping[str, Parameter], names: Names, mode: str, source: Source
) -> dict[str, Parameter]:
    """What is said of each parameter of each data set, by own name (`tables_of`).

    Of a model of `mode`, where there is one data set alone.

    **Raises:** `ConfigError` for unknown names, and for a value of its own of what is shared.
    """
    out, used = {}, set()
    for entry in names.entries:
        for name in tables_of(names, entry):
            if name not in given:
                continue
            used.add(name)
            table = given[name]
            said = [key for key in _OWN if key in table.model_fields_set]
            if entry.follows and said and name not in (entry.base, entry.leaf.name):
                raise ConfigError(
                    f"{source.where(('parameters', name, said[0]))}: {entry.base} is shared by "
                    f"the data sets, so {name} has no {said[0]} of its own; set "
                    f"parameters.{entry.base}, or name {entry.base} in joint.separate"
                )
            out[entry.own] = _over(out[entry.own], table) if entry.own in out else table
    known = dict.fromkeys([*(base for some in names.bases for base in some), *names.in_vectors])
    known |= dict.fromkeys(entry.own for entry in names.entries)
    for name in given:
        if name not in used:
            raise ConfigError(
                f"{source.where(('parameters', name))}: unknown parameter {name!r} of "
                f"{f'mode {mode!r}' if names.alone else 'the joint fit'}"
                f"{nearest(name, known, 'parameters.')}"
            )
    return out


def with_earlier_starts(
    configuration: Configuration, given: Mapping[str, Parameter], names: Names
) -> tuple[dict[str, Parameter], tuple[str, ...]]:
    """Tables by own name with starts of an earlier fit where they have none, and what to say of it.

    **Raises:** `ConfigError` for a file that is none of a fit, or that has nothing to begin with.
    """
    path, source = configuration.settings.solver.start_from, configuration.source
    if path is None:
        return dict(given), ()
    out, taken = dict(given), []
    with source.placed("solver.start_from", "solver.start_from"):
        found = saved_values(source.absolute(path))
        for entry in names.entries:
            table = given.get(entry.own, Parameter())
            if entry.public in found and table.start is None and table.tie is None:
                start = {"start": found[entry.public].value}
                out[entry.own] = table.model_copy(update=start)
                taken.append(entry.public)
        if not taken:
            raise ModelError(
                f"{path} has no parameter of this fit that lacks a start; it has "
                f"{', '.join(found) or 'none'}"
            )
    return out, (f"{', '.join(taken)} start where the fit of {path} ended",)


def _check_factors(names: Names, factors: Sequence[Mapping[str, float]], source: Source) -> None:
    """Refuse factors of what no model has or nothing shares. **Raises:** `ConfigError`."""
    for k, base in ((k, base) for k, some in enumerate(factors) for base in some):
        where = source.where(("data", str(k + 1), "factors", base))
        if base not in names.bases[k]:
            raise ConfigError(
                f"{where}: factors: the model of {names.labels[k]} has no parameter {base!r}"
                f"{nearest(base, names.bases[k])}"
            )
        if base not in names.shared:
            raise ConfigError(
                f"{where}: factors: {base} is separate, so there is no shared value to multiply; "
                "name it in joint.shared, or leave the factor out"
            )


def _target(
    names: Names, given: Mapping[str, Parameter], entry: Entry, tie: str, where: str
) -> Entry:
    """The parameter that another one, `entry`, is tied to.

    **Raises:** `ConfigError` for a tie to nothing, to itself, or to something tied.
    """
    every, own, plain = names.entries, entry.own, entry.leaf.name
    beside = {one.leaf.name: one for one in every if one.k == entry.k}
    called = {one.own: one for one in every} | beside
    if entry.follows:
        # D0[hot] tied to D0 means the shared one.
        called[plain] = next(one for one in every if one.public == plain)
    other = called.get(tie)
    if other is None or other.own == own:
        known = [*beside, *(one.own for one in every if "[" in tie)]
        known = [name for name in known if name not in (plain, own)]
        raise ConfigError(f"{where}: {own} cannot be tied to {tie!r}{nearest(tie, known)}")
    if other.own in given and given[other.own].tie is not None:
        raise ConfigError(f"{where}: {tie} is tied itself; tie both to one parameter")
    if other.base in names.shared and other.leaf.name == plain and not entry.follows:
        raise ConfigError(
            f"{where}: {own} is what the others share, so it cannot be tied to one of them; tie "
            f"that to {own}, or name {entry.base} in joint.separate"
        )
    return other


def _ties(
    names: Names,
    said: Mapping[str, Parameter],
    given: Mapping[str, Parameter],
    factors: Sequence[Mapping[str, float]],
    source: Source,
) -> dict[str, Proportional]:
    """Ties by name in the fit, those of the tables and those of factors."""

    def ratio(entry: Entry) -> float:
        """Value of a shared parameter in its data set over that in the one that carries it."""
        own, carrier = (factors[k].get(entry.base, 1.0) for k in (entry.k, entry.carrier))
        return own / carrier

    _check_factors(names, factors, source)
    out = {}
    for entry in names.entries:
        table = given.get(entry.own)
        if table is None or table.tie is None:
            if entry.follows and ratio(entry) != 1:
                out[entry.public] = Proportional(entry.leaf.name, ratio(entry))
            continue
        if entry.base in factors[entry.k]:
            where = source.where(("data", str(entry.k + 1), "factors", entry.base))
            raise ConfigError(
                f"{where}: {entry.own} is tied in [parameters] and has a factor; leave one of "
                "them out"
            )
        tied = [name for name in tables_of(names, entry) if name in said and said[name].tie]
        where = source.where(("parameters", tied[-1], "tie"))
        other = _target(names, given, entry, table.tie, where)
        factor = 1.0 if table.factor is None else table.factor
        shared = other.base in names.shared
        name = other.leaf.name if shared else other.own
        out[entry.public] = Proportional(name, factor * ratio(other) if shared else factor)
    return out


def parameters_of(
    settings: Settings,
    names: Names,
    said: Mapping[str, Parameter],
    given: Mapping[str, Parameter],
    factors: tuple[Mapping[str, float], ...],
    times: Sequence[Float[np.ndarray, "frame"]],
    source: Source,
) -> ParameterMap | SharedParameters:
    """The parameters of the fit: those of its model, or what the models of data sets share.

    **Arguments:**

    - `said`: the tables of the file; `given`: what they say, by own name of each parameter.
    - `factors`: of each data set by shared name; only their ratios count.
    - `times`: frame times of each data set [s].

    **Raises:** `ConfigError` with the place of the mistake.
    """
    ties = _ties(names, said, given, factors, source)
    starts = [{} for _ in names.models]
    fixed, bounds, scale = [], {}, {}
    for entry in names.entries:
        table, public = given.get(entry.own), entry.public
        if table is None:
            continue
        if table.start is not None:
            starts[entry.k][entry.leaf.name] = jax.device_put(np.asarray(table.start, dtype=float))
        if public in ties or entry.follows:
            continue
        if not table.free:
            fixed.append(public)
        if table.bounds is not None:
            bounds[public] = (table.bounds[0], table.bounds[1])
        if table.scale is not None:
            scale[public] = table.scale
    models = [with_parameters(*pair) for pair in zip(names.models, starts, strict=True)]
    rates = COORDINATES[settings.solver.coordinates]
    known = [None] * len(models) if rates is None else times
    how: dict[str, Any] = {
        "ties": ties,
        "fixed": tuple(fixed),
        "bounds": bounds,
        "scale": scale,
        "rates": rates or Slope,
    }
    try:
        if names.alone:
            return parameter_map(models[0], known[0], **how)
        return shared_parameters(models, known, shared=names.shared, labels=names.labels, **how)
    except ModelError as error:
        raise ConfigError(f"{source.path}, [parameters]: {error}") from error
