"""Parameters of several models at once: which they share, which are tied, which are their own."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..arguments import checked
from ..errors import ModelError
from ..physics import AbstractCorrelation, ParameterInfo
from ..physics.leaves import Leaf, parameter_leaves
from .bijections import AbstractBijection, Slope
from .leaves import Proportional, Tie, check_names, parameter_values
from .parameter_map import ParameterMap, parameter_map


class SeveralModels(eqx.Module):
    """Models side by side, with one public name for every parameter of all of them."""

    models: tuple[AbstractCorrelation, ...]
    public: tuple[tuple[str, str], ...] = eqx.field(static=True)

    @property
    def names(self) -> dict[str, str]:
        """Public names by path."""
        return dict(self.public)

    @property
    def infos(self) -> dict[str, ParameterInfo]:
        """Unit, start and bounds by public name."""
        names, infos = self.names, {}
        for k, model in enumerate(self.models):
            for leaf in parameter_leaves(model):
                infos.setdefault(names[_path(k, leaf)], leaf.info)
        return infos

    @property
    def positive_rates(self) -> tuple[str, ...]:
        """Nothing: each model answers for itself."""
        return ()


def _path(k: int, leaf: Leaf) -> str:
    return ".".join(("models", str(k), *leaf.path))


def base_name(leaf: Leaf) -> str:
    """The name of a parameter, of vectors without index."""
    return leaf.name if leaf.index is None else leaf.name.removesuffix(f"[{leaf.index}]")


def base_of(name: str) -> str:
    """The name of a parameter without its index and the label of its data set."""
    return name.partition("[")[0]


def entry_name(base: str, leaf: Leaf) -> str:
    """A name for the parameter `base`, or for the entry of it that `leaf` is."""
    return base if leaf.index is None else f"{base}[{leaf.index}]"


class Entry(NamedTuple):
    """A parameter of the model of a data set.

    - `k`: number of the data set; `carrier`: of the one whose value it has, which for a shared
        parameter is the first that has it.
    - `leaf`: the parameter; `base`: its name, of vectors without index.
    - `own`: its name with the label of the data set if it has one, as in `D0[hot]`; `whole`: the
        same of vectors without index; `public`: its name in the fit.
    """

    k: int
    carrier: int
    leaf: Leaf
    base: str
    whole: str
    own: str
    public: str

    @property
    def follows(self) -> bool:
        """Whether its data set has it from another one."""
        return self.carrier != self.k

    @property
    def field(self) -> str:
        """Its name in the fit, of vectors without index."""
        return self.base if self.public == self.leaf.name else self.whole


@dataclass(frozen=True)
class Names:
    """The parameters of the models of all data sets, and which of them are shared.

    - `labels`: names of the data sets; one alone may have none, and its parameters plain names.
    - `shared`: names, of vectors without index.
    """

    models: tuple[AbstractCorrelation, ...]
    labels: tuple[str, ...]
    shared: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether there is one data set without a label."""
        return self.labels == ("",)

    @cached_property
    def bases(self) -> tuple[tuple[str, ...], ...]:
        """Names of the parameters of each model, of vectors without index."""
        leaves = map(parameter_leaves, self.models)
        return tuple(tuple(dict.fromkeys(map(base_name, some))) for some in leaves)

    @cached_property
    def in_vectors(self) -> tuple[str, ...]:
        """Names of entries of vectors."""
        named = (one.leaf.name for one in self.entries if one.leaf.index is not None)
        return tuple(dict.fromkeys(named))

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All parameters of all data sets."""
        out = []
        for k, (model, label) in enumerate(zip(self.models, self.labels, strict=True)):
            for leaf in parameter_leaves(model):
                base = base_name(leaf)
                # The first data set that has a shared parameter carries it, by its plain name.
                those = [j for j, names in enumerate(self.bases) if base in names]
                carrier = those[0] if base in self.shared else k
                whole = f"{base}[{label}]" if label else base
                own = entry_name(whole, leaf)
                public = leaf.name if base in self.shared and carrier == k else own
                out.append(Entry(k, carrier, leaf, base, whole, own, public))
        return tuple(out)


class SharedParameters(eqx.Module):
    """How the parameters of a joint fit belong to its data sets.

    - `whole`: the map of all free parameters; its `model` holds the models side by side.
    - `maps`: one map for each data set, of those of its parameters that may vary.
    - `labels`: names of the data sets.
    - `shared`: public names that several data sets share; a parameter of one data set alone is
        called `name[label]`. `repeated`: names that only repeat a shared parameter,
        and its name.
    - `public`: own and public name of the parameters of each data set.
    """

    whole: ParameterMap
    maps: tuple[ParameterMap, ...]
    labels: tuple[str, ...] = eqx.field(static=True)
    shared: tuple[str, ...] = eqx.field(static=True)
    repeated: tuple[tuple[str, str], ...] = eqx.field(static=True)
    public: tuple[tuple[tuple[str, str], ...], ...] = eqx.field(static=True)

    def carriers(self, k: int) -> dict[str, str]:
        """Own name of each parameter of data set `k`, and public name of what it is or repeats."""
        repeated = dict(self.repeated)
        return {own: repeated.get(public, public) for own, public in self.public[k]}

    def roles(self, k: int) -> dict[str, str]:
        """Whether each parameter of data set `k` is shared, separate, tied or fixed."""
        ties = {name for name, _ in self.whole.ties}
        roles = {}
        for own, public in self.carriers(k).items():
            tied = "tied" if public in ties else "separate"
            varying = "shared" if public in self.shared else tied
            roles[own] = varying if own in self.maps[k].free_names else "fixed"
        return roles

    def models(self, x: Float[Array | np.ndarray, "free"]) -> tuple[AbstractCorrelation, ...]:
        """The model of each data set at the free physical parameters `x`."""
        return self.whole.build(x).models  # pyright: ignore[reportAttributeAccessIssue]

    def local(self, k: int, x: Float[Array | np.ndarray, "free"]) -> Float[Array, "local"]:
        """The varying physical parameters of data set `k`."""
        values = parameter_values(self.models(x)[k])
        chosen = [values[name] for name in self.maps[k].free_names]
        return jnp.stack(chosen) if chosen else jnp.zeros((0,))

    def local_coordinates(self, k: int, y: Float[Array, "free"]) -> Float[Array, "local"]:
        """The coordinates of data set `k` at the coordinates `y` of the whole."""
        return self.maps[k].to_coordinates(self.local(k, self.whole.to_physical(y)))


def _spread(given: Mapping[str, Any], names: Names, known: Collection[str]) -> dict[str, Any]:
    """Settings by public name; a plain name stands for that parameter of every data set."""
    own = {one.public: one.leaf.name for one in names.entries}
    # `D0[hot]` of the data set that carries a shared D0 is another name of it.
    carried = (one for one in names.entries if one.base in names.shared and not one.follows)
    aliases = {one.own: one.public for one in carried}
    plain = dict.fromkeys(own[name] for name in known)
    check_names(given, {**dict.fromkeys(known), **plain, **aliases}, "the joint fit")
    out: dict[str, Any] = {}
    for name, value in given.items():
        if aliases.get(name, name) not in known:
            out.update({public: value for public in known if own[public] == name})
    for name, value in given.items():
        if aliases.get(name, name) in known:
            out[aliases.get(name, name)] = value
    return out


@checked()
def shared_parameters(
    models: Sequence[AbstractCorrelation],
    times: Sequence[Float[Array | np.ndarray, "frame"] | None],
    *,
    shared: Sequence[str] | None = None,
    ties: Mapping[str, Tie] | None = None,
    fixed: Sequence[str] = (),
    bounds: Mapping[str, tuple[float, float]] | None = None,
    scale: Mapping[str, float] | None = None,
    labels: Sequence[str] | None = None,
    rates: Callable[[ScalarLike], AbstractBijection] = Slope,
) -> SharedParameters:
    """Parameters of a joint fit of several data sets.

    A shared parameter keeps its name (`"D0"`); one that each data set has for itself is called
    by name and label (`"D0[hot]"`). Settings by plain name hold for all data sets.

    **Arguments:**

    - `models`: one for each data set, at its start values; a shared parameter starts where the
        first model with it does.
    - `times`: frame times of each data set [s], or None as in `parameter_map`.
    - `shared`: names of shared parameters (of vectors, without index); by default every name that
        all models have.
    - `ties`: public name → function of the values of all parameters by public name, for example
        `{"D0[hot]": lambda p: ratio * p["D0"]}`; one for a data set that would share the
        parameter replaces the sharing.
    - `fixed`, `bounds`, `scale`, `rates`: as in `parameter_map`.
    - `labels`: names of the data sets; by default `"1"`, `"2"`, ….

    **Raises:** `ModelError` for numbers of models and times that differ, unknown names, and as
    `parameter_map`.

    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> from xpcs_eqx.parameters import shared_parameters
    >>> model, t = xe.Static(xe.PowerLawRate(1e4, -0.2, 0.0)), 0.1 * np.arange(5)
    >>> joint = shared_parameters(
    ...     [model, model], [t, t], shared=["alpha"], fixed=["D_offset"], labels=["cold", "hot"]
    ... )
    >>> joint.whole.free_names
    ('D0[cold]', 'alpha', 'D0[hot]')
    """
    models, times = tuple(models), tuple(times)
    if not models or len(models) != len(times):
        raise ModelError(
            f"there are {len(models)} models and {len(times)} arrays of frame times; "
            "give one of each for every data set, and at least one"
        )
    count = len(models)
    labels = tuple(str(k + 1) for k in range(count)) if labels is None else tuple(labels)
    if len(labels) != count or len(set(labels)) != count:
        raise ModelError(
            f"the labels {labels} must be {count} different names, one for each data set"
        )
    names = Names(models, labels)
    owned = names.bases
    if shared is None:
        shared = [name for name in owned[0] if all(name in some for some in owned)]
    check_names(
        shared, dict.fromkeys(n for some in owned for n in some), "a model of the joint fit"
    )
    names = dataclasses.replace(names, shared=tuple(shared))
    entries = names.entries
    fields = {_path(one.k, one.leaf): one.field for one in entries}
    several = SeveralModels(models, tuple(fields.items()))
    own = [one.public for one in entries if not one.follows]
    # Ties may also replace the link of a data set to a shared parameter.
    given = _spread(ties or {}, names, [one.public for one in entries])
    repeating = {one.public: one.leaf.name for one in entries if one.follows}
    links = {name: Proportional(base) for name, base in repeating.items() if name not in given}
    # Models side by side are none of those that it takes from users.
    whole = inspect.unwrap(parameter_map)(
        several,  # pyright: ignore[reportArgumentType]
        times[0],
        bounds=_spread(bounds or {}, names, own),
        fixed=tuple(_spread(dict.fromkeys(fixed), names, own)),
        ties={**given, **links},
        scale=_spread(scale or {}, names, own),
        rates=rates,
    )
    varying = {*whole.free_names, *given}
    varying |= {name for name, tie in links.items() if tie.name in varying}
    start = whole.build(whole.start).models  # pyright: ignore[reportAttributeAccessIssue]
    maps, every = [], []
    for k, (model, t) in enumerate(zip(start, times, strict=True)):
        mine = [(one.leaf.name, one.public) for one in entries if one.k == k]
        constant = tuple(name for name, public in mine if public not in varying)
        free = dict.fromkeys((name for name, _ in mine), (-np.inf, np.inf))
        maps.append(parameter_map(model, t, bounds=free, fixed=constant, rates=rates))
        every.append(tuple(mine))
    used = tuple(dict.fromkeys(repeating.values()))
    repeated = tuple((name, tie.name) for name, tie in links.items())
    return SharedParameters(whole, tuple(maps), labels, used, repeated, tuple(every))
