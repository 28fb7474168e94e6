"""Parameters of several models at once: which they share, which are tied, which are their own."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..arguments import checked
from ..errors import ModelError
from ..physics import AbstractCorrelation, ParameterInfo
from .bijections import AbstractBijection, Slope
from .leaves import Leaf, Proportional, Tie, check_names, parameter_leaves, parameter_values
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


def entry_name(base: str, leaf: Leaf) -> str:
    """A name for the parameter `base`, or for the entry of it that `leaf` is."""
    return base if leaf.index is None else f"{base}[{leaf.index}]"


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


class _Naming(NamedTuple):
    """Public names of all leaves, and where they come from.

    - `fields`: public base name by path; `bases`: own name by public name.
    - `links`: public name → the shared parameter that it repeats.
    - `aliases`: `name[label]` of the data set that carries a shared parameter → its plain name.
    """

    fields: dict[str, str]
    bases: dict[str, str]
    links: dict[str, str]
    aliases: dict[str, str]


def _naming(models, labels: tuple[str, ...], shared: Sequence[str]) -> _Naming:
    out = _Naming({}, {}, {}, {})
    carried: dict[str, int] = {}
    for k, model in enumerate(models):
        for leaf in parameter_leaves(model):
            base, own = base_name(leaf), f"{base_name(leaf)}[{labels[k]}]"
            # The first data set that has a shared parameter carries its plain name.
            plain = base in shared and carried.setdefault(base, k) == k
            public = base if plain else own
            out.fields[_path(k, leaf)] = public
            out.bases[entry_name(public, leaf)] = leaf.name
            if plain:
                out.aliases[entry_name(own, leaf)] = leaf.name
            elif base in shared:
                out.links[entry_name(public, leaf)] = leaf.name
    return out


def _spread(given: Mapping[str, Any], naming: _Naming, known: Collection[str]) -> dict[str, Any]:
    """Settings by public name; a plain name stands for that parameter of every data set."""
    plain = dict.fromkeys(naming.bases[name] for name in known)
    check_names(given, {**dict.fromkeys(known), **plain, **naming.aliases}, "the joint fit")
    out: dict[str, Any] = {}
    for name, value in given.items():
        if naming.aliases.get(name, name) not in known:
            out.update({public: value for public in known if naming.bases[public] == name})
    for name, value in given.items():
        if naming.aliases.get(name, name) in known:
            out[naming.aliases.get(name, name)] = value
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
    owned = [list(dict.fromkeys(base_name(leaf) for leaf in parameter_leaves(m))) for m in models]
    if shared is None:
        shared = [name for name in owned[0] if all(name in names for names in owned)]
    everything = dict.fromkeys(name for names in owned for name in names)
    check_names(shared, everything, "a model of the joint fit")
    naming = _naming(models, labels, tuple(shared))
    several = SeveralModels(models, tuple(naming.fields.items()))
    own = [name for name in naming.bases if name not in naming.links]
    # Ties may also replace the link of a data set to a shared parameter.
    given = _spread(ties or {}, naming, tuple(naming.bases))
    links = {name: Proportional(base) for name, base in naming.links.items() if name not in given}
    # Models side by side are none of those that it takes from users.
    whole = inspect.unwrap(parameter_map)(
        several,  # pyright: ignore[reportArgumentType]
        times[0],
        bounds=_spread(bounds or {}, naming, own),
        fixed=tuple(_spread(dict.fromkeys(fixed), naming, own)),
        ties={**given, **links},
        scale=_spread(scale or {}, naming, own),
        rates=rates,
    )
    varying = {*whole.free_names, *given}
    varying |= {name for name, tie in links.items() if tie.name in varying}
    start = whole.build(whole.start).models  # pyright: ignore[reportAttributeAccessIssue]
    maps, every = [], []
    for k, (model, t) in enumerate(zip(start, times, strict=True)):
        fields = parameter_leaves(model)
        public = [entry_name(naming.fields[_path(k, leaf)], leaf) for leaf in fields]
        names = [leaf.name for leaf in fields]
        constant = [own for own, name in zip(names, public, strict=True) if name not in varying]
        free = dict.fromkeys(names, (-np.inf, np.inf))
        maps.append(parameter_map(model, t, bounds=free, fixed=tuple(constant), rates=rates))
        every.append(tuple(zip(names, public, strict=True)))
    used = tuple(dict.fromkeys(naming.links.values()))
    repeated = tuple((name, tie.name) for name, tie in links.items())
    return SharedParameters(whole, tuple(maps), labels, used, repeated, tuple(every))
