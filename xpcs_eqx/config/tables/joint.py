"""What the tables of a configuration say of each parameter of each data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import ConfigError
from ..parameters.leaves import Leaf, parameter_leaves
from ..parameters.shared import base_name, entry_name
from ..physics import AbstractCorrelation
from .schema import Joint, Parameter
from .source import Source, nearest

# What one data set has to say itself of a parameter that it does not share.
_OWN = ("start", "bounds", "free", "scale")


@dataclass(frozen=True)
class Names:
    """The parameters of several models, and which of them are shared.

    - `shared`: names, of vectors without index.
    """

    models: tuple[AbstractCorrelation, ...]
    labels: tuple[str, ...]
    shared: tuple[str, ...]

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
        """Full name of a parameter of data set `k`."""
        return entry_name(f"{base_name(leaf)}[{self.labels[k]}]", leaf)

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
    """The names with what `[joint]` says of them.

    **Raises:** `ConfigError` for names that no model has, or only one where it is to be shared.
    """
    names = Names(tuple(models), labels, ())
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
    given: Mapping[str, Parameter], names: Names, source: Source
) -> tuple[dict[str, Parameter], ...]:
    """What is said of each parameter of each data set, by own name.

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
            whole = f"{base}[{names.labels[k]}]"
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
                f"{source.where(('parameters', name))}: unknown parameter {name!r} of the joint "
                f"fit{nearest(name, known, 'parameters.')}"
            )
    return tuple(out)
