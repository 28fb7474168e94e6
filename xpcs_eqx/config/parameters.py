"""Parameters of the data sets: what the tables say of each, what is shared, what is tied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..errors import ConfigError, DataError, ModelError
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
from ..parameters.leaves import Leaf, parameter_leaves
from ..parameters.shared import base_name, entry_name
from ..physics import AbstractCorrelation
from .read import Configuration
from .source import Key, Source, nearest
from .tables import Settings
from .tables.data import Joint
from .tables.model import Parameter
from .tables.solver import COORDINATES

# What one data set has to say itself of a parameter that it does not share.
_OWN = ("start", "bounds", "free", "scale")


@dataclass(frozen=True)
class Names:
    """The parameters of the models of all data sets, and which of them are shared.

    - `labels`: names of the data sets; one alone may have none, and its parameters plain names.
    - `shared`: names, of vectors without index.
    """

    models: tuple[AbstractCorrelation, ...]
    labels: tuple[str, ...]
    shared: tuple[str, ...]

    @property
    def alone(self) -> bool:
        """Whether there is one data set without a label."""
        return self.labels == ("",)

    @cached_property
    def leaves(self) -> tuple[tuple[Leaf, ...], ...]:
        """The parameters of each model."""
        return tuple(parameter_leaves(model) for model in self.models)

    @cached_property
    def bases(self) -> tuple[tuple[str, ...], ...]:
        """Their names without index, of each model."""
        return tuple(tuple(dict.fromkeys(map(base_name, leaves))) for leaves in self.leaves)

    @cached_property
    def full(self) -> dict[str, tuple[int, Leaf]]:
        """Data set and parameter by full name, as in `D0[hot]`."""
        return {self.own(k, leaf): (k, leaf) for k, some in enumerate(self.leaves) for leaf in some}

    def own(self, k: int, leaf: Leaf) -> str:
        """Full name of a parameter of data set `k`, with its label if it has one."""
        return entry_name(self.labelled(k, base_name(leaf)), leaf)

    def labelled(self, k: int, base: str) -> str:
        """A name with the label of data set `k`."""
        return f"{base}[{self.labels[k]}]" if self.labels[k] else base

    def carrier(self, base: str) -> int:
        """The first data set that has a parameter: a shared one stands there by plain name."""
        return next(k for k, names in enumerate(self.bases) if base in names)

    def follows(self, k: int, leaf: Leaf) -> bool:
        """Whether data set `k` has the parameter from another one."""
        base = base_name(leaf)
        return base in self.shared and self.carrier(base) != k

    def public(self, k: int, leaf: Leaf) -> str:
        """The name of a parameter in the joint fit."""
        carries = base_name(leaf) in self.shared and not self.follows(k, leaf)
        return leaf.name if carries else self.own(k, leaf)


def shared_names(
    joint: Joint, models: Sequence[AbstractCorrelation], labels: tuple[str, ...], source: Source
) -> Names:
    """The names of the parameters of all data sets, with what `[joint]` says of them.

    **Raises:** `ConfigError` for names that no model has, or only one where it is to be shared.
    """
    names = Names(tuple(models), labels, ())
    if names.alone:
        return names
    every = list(dict.fromkeys(name for some in names.bases for name in some))
    common = [name for name in every if all(name in some for some in names.bases)]
    given = joint.separate if joint.shared is None else joint.shared
    if given is None:
        return Names(names.models, labels, tuple(common))
    key = "separate" if joint.shared is None else "shared"
    where = source.where(f"joint.{key}")
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
    if key == "shared":
        return Names(names.models, labels, tuple(dict.fromkeys(given)))
    return Names(names.models, labels, tuple(name for name in common if name not in given))


def _over(low: Parameter, high: Parameter) -> Parameter:
    """A table under a more special one."""
    own = {key: getattr(high, key) for key in high.model_fields_set}
    if high.tie is not None:
        own |= {"start": None, "free": True}
    elif low.tie is not None and own:
        own |= {"tie": None, "factor": None}
    return low.model_copy(update=own)


def tables(
    given: Mapping[str, Parameter], names: Names, mode: str, source: Source
) -> tuple[dict[str, Parameter], ...]:
    """What is said of each parameter of each data set, by own name.

    Of a model of `mode`, where there is one data set alone.

    A plain name holds for all data sets, `D0[hot]` for one and before it; `J` for all entries of a
    vector, `J[3]` for one and before it.

    **Raises:** `ConfigError` for unknown names, and for a value of its own of what is shared.
    """
    entries = {leaf.name for some in names.leaves for leaf in some if leaf.index is not None}
    out, used = [], set()
    for k, leaves in enumerate(names.leaves):
        mine: dict[str, Parameter] = {}
        for leaf in leaves:
            base = base_name(leaf)
            whole = names.labelled(k, base)
            # An entry of a vector may be called as a data set is: then it is the entry.
            special = [n for n in (whole, names.own(k, leaf)) if n == leaf.name or n not in entries]
            layers = dict.fromkeys([base, leaf.name, *special])
            for name in layers:
                if name not in given:
                    continue
                used.add(name)
                table = given[name]
                before = mine.get(leaf.name)
                mine[leaf.name] = table if before is None else _over(before, table)
                said = [key for key in _OWN if key in table.model_fields_set]
                if name in special and name != leaf.name and names.follows(k, leaf) and said:
                    raise ConfigError(
                        f"{source.where(('parameters', name, said[0]))}: {base} is shared by the "
                        f"data sets, so {name} has no {said[0]} of its own; set parameters.{base},"
                        f" or name {base} in joint.separate"
                    )
        out.append(mine)
    known = list(dict.fromkeys([*(b for some in names.bases for b in some), *entries, *names.full]))
    for name in given:
        if name not in used:
            raise ConfigError(
                f"{source.where(('parameters', name))}: unknown parameter {name!r} of "
                f"{f'mode {mode!r}' if names.alone else 'the joint fit'}"
                f"{nearest(name, known, 'parameters.')}"
            )
    return tuple(out)


def with_earlier_starts(
    configuration: Configuration, given: Mapping[str, Parameter], names: Names
) -> tuple[dict[str, Parameter], tuple[str, ...]]:
    """Tables with starts from an earlier fit where they have none, and what there is to say of it.

    **Raises:** `ConfigError` for a file that is none of a fit, or that has nothing to begin with.
    """
    path, source = configuration.settings.solver.start_from, configuration.source
    if path is None:
        return dict(given), ()
    where = f"{source.where('solver.start_from')}: solver.start_from"
    try:
        found = saved_values(source.absolute(path))
    except DataError as error:
        raise ConfigError(f"{where}: {error}") from error
    out, taken = dict(given), []
    for k, leaves in enumerate(names.leaves):
        for leaf in leaves:
            name, base = names.public(k, leaf), base_name(leaf)
            said = [
                given[n] for n in (base, leaf.name, names.labelled(k, base), name) if n in given
            ]
            own = any(one.start is not None or one.tie is not None for one in said)
            if name in found and name not in taken and not own:
                start = {"start": found[name].value}
                out[name] = out.get(name, Parameter()).model_copy(update=start)
                taken.append(name)
    if not taken:
        raise ConfigError(
            f"{where}: {path} has no parameter of this fit that lacks a start; it has "
            f"{', '.join(found) or 'none'}"
        )
    return out, (f"{', '.join(taken)} start where the fit of {path} ended",)


class _Ties(NamedTuple):
    """What is needed to follow a tie to the parameter that it ends at.

    - `given`: tables by own name, of each data set; `factors` of each data set by shared name.
    """

    names: Names
    given: tuple[dict[str, Parameter], ...]
    factors: tuple[Mapping[str, float], ...]
    source: Source

    def ratio(self, k: int, leaf: Leaf) -> float:
        """Value of a shared parameter in data set `k` over that in the one that carries it."""
        base = base_name(leaf)
        return self.factors[k].get(base, 1.0) / self.factors[self.names.carrier(base)].get(
            base, 1.0
        )

    def target(self, k: int, leaf: Leaf, name: str) -> tuple[int, Leaf] | None:
        """Data set and parameter that a tie of data set `k` names."""
        plain = {one.name: one for one in self.names.leaves[k]}
        if name == leaf.name:
            # D0[hot] tied to D0 means the shared one.
            return (self.names.carrier(base_name(leaf)), leaf) if self.follows(k, leaf) else None
        return (k, plain[name]) if name in plain else self.names.full.get(name)

    def follows(self, k: int, leaf: Leaf) -> bool:
        return self.names.follows(k, leaf)

    def proportional(self, k: int, leaf: Leaf, table: Parameter) -> Proportional:
        """The tie of a parameter of data set `k`.

        **Raises:** `ConfigError` for a tie to nothing, to itself, or to something tied.
        """
        assert table.tie is not None
        names, own = self.names, self.names.own(k, leaf)
        found = self.target(k, leaf, table.tie)
        where = self.source.where(_key(own, leaf.name, "tie", self.source))
        if found is None or found == (k, leaf):
            known = [one.name for one in names.leaves[k] if one != leaf]
            if "[" in table.tie:
                known += [name for name in names.full if name != own]
            raise ConfigError(
                f"{where}: {own} cannot be tied to {table.tie!r}{nearest(table.tie, known)}"
            )
        j, other = found
        there = self.given[j].get(other.name)
        if there is not None and there.tie is not None:
            raise ConfigError(f"{where}: {table.tie} is tied itself; tie both to one parameter")
        factor = 1.0 if table.factor is None else table.factor
        if base_name(other) in names.shared:
            if other.name == leaf.name and not self.follows(k, leaf):
                raise ConfigError(
                    f"{where}: {own} is what the others share, so it cannot be tied to one of "
                    f"them; tie that to {own}, or name {base_name(leaf)} in joint.separate"
                )
            return Proportional(other.name, factor * self.ratio(j, other))
        return Proportional(names.own(j, other), factor)


def _key(own: str, plain: str, last: str, source: Source) -> Key:
    """Key of a table that may stand there by full or by plain name."""
    full = ("parameters", own, last)
    line = source.line(full)
    return full if line is not None and line != source.line("parameters") else (
        "parameters", plain, last,
    )  # fmt: skip


def _check_factors(ties: _Ties) -> None:
    names = ties.names
    for k, factors in enumerate(ties.factors):
        for base in factors:
            where = ties.source.where(("data", str(k + 1), "factors", base))
            if base not in names.bases[k]:
                raise ConfigError(
                    f"{where}: factors: the model of {names.labels[k]} has no parameter {base!r}"
                    f"{nearest(base, names.bases[k])}"
                )
            if base not in names.shared:
                raise ConfigError(
                    f"{where}: factors: {base} is separate, so there is no shared value to "
                    f"multiply; name it in joint.shared, or leave the factor out"
                )


def _all_ties(ties: _Ties) -> dict[str, Proportional]:
    """Ties by name in the joint fit, those of the tables and those of factors."""
    _check_factors(ties)
    out = {}
    for k, leaves in enumerate(ties.names.leaves):
        for leaf in leaves:
            table = ties.given[k].get(leaf.name)
            public = ties.names.public(k, leaf)
            if table is not None and table.tie is not None:
                out[public] = ties.proportional(k, leaf, table)
                if base_name(leaf) in ties.factors[k]:
                    where = ties.source.where(("data", str(k + 1), "factors", base_name(leaf)))
                    raise ConfigError(
                        f"{where}: {ties.names.own(k, leaf)} is tied in [parameters] and has a "
                        "factor; leave one of them out"
                    )
            elif ties.follows(k, leaf) and ties.ratio(k, leaf) != 1:
                out[public] = Proportional(leaf.name, ties.ratio(k, leaf))
    return out


def parameters_of(
    settings: Settings,
    names: Names,
    given: tuple[dict[str, Parameter], ...],
    factors: tuple[Mapping[str, float], ...],
    times: Sequence[Float[np.ndarray, "frame"]],
    source: Source,
) -> ParameterMap | SharedParameters:
    """The parameters of the fit: those of its model, or what the models of data sets share.

    **Arguments:**

    - `given`: tables by own name, of each data set.
    - `factors`: of each data set by shared name; only their ratios count.
    - `times`: frame times of each data set [s].

    **Raises:** `ConfigError` with the place of the mistake.
    """
    ties = _all_ties(_Ties(names, given, factors, source))
    fixed, bounds, scale, models = [], {}, {}, []
    for k, (model, leaves) in enumerate(zip(names.models, names.leaves, strict=True)):
        starts = {name: table.start for name, table in given[k].items() if table.start is not None}
        models.append(with_parameters(model, {n: jnp.asarray(v) for n, v in starts.items()}))
        for leaf in leaves:
            public, table = names.public(k, leaf), given[k].get(leaf.name)
            if table is None or public in ties or names.follows(k, leaf):
                continue
            if not table.free:
                fixed.append(public)
            if table.bounds is not None:
                bounds[public] = (table.bounds[0], table.bounds[1])
            if table.scale is not None:
                scale[public] = table.scale
    rates = COORDINATES[settings.solver.coordinates]
    known = [None] * len(models) if rates is None else times
    said: dict[str, Any] = {
        "ties": ties,
        "fixed": tuple(fixed),
        "bounds": bounds,
        "scale": scale,
        "rates": rates or Slope,
    }
    try:
        if names.alone:
            return parameter_map(models[0], known[0], **said)
        return shared_parameters(models, known, shared=names.shared, labels=names.labels, **said)
    except ModelError as error:
        raise ConfigError(f"{source.path}, [parameters]: {error}") from error
