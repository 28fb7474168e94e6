"""Parameters of several data sets: from tables to what they share, and how they are tied."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..errors import ConfigError, ModelError
from ..parameters import (
    Proportional,
    SharedParameters,
    Slope,
    shared_parameters,
    with_parameters,
)
from ..parameters.leaves import Leaf
from ..parameters.shared import base_name
from .joint_names import Names
from .schema import Common, Parameter
from .solving import COORDINATES
from .source import Key, Source, nearest


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


def joint_parameters(
    settings: Common,
    names: Names,
    given: tuple[dict[str, Parameter], ...],
    factors: tuple[Mapping[str, float], ...],
    times: Sequence[Float[np.ndarray, "frame"]],
    source: Source,
) -> SharedParameters:
    """The parameters of the joint fit.

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
    physical = settings.solver.coordinates == "physical"
    try:
        return shared_parameters(
            models,
            [None] * len(models) if physical else times,
            shared=names.shared,
            ties=ties,
            fixed=fixed,
            bounds=bounds,
            scale=scale,
            labels=names.labels,
            rates=COORDINATES.get(settings.solver.coordinates, Slope),
        )
    except ModelError as error:
        raise ConfigError(f"{source.path}, [parameters]: {error}") from error
