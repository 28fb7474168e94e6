"""Parameters of several models at once: which they share, which are tied, which are their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..errors import ModelError
from ..physics import AbstractCorrelation, ParameterInfo
from .bijections import AbstractBijection, Slope
from .parameter_map import (
    Leaf,
    ParameterMap,
    Tie,
    check_names,
    parameter_leaves,
    parameter_map,
    parameter_values,
)
from .ties import Proportional


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


def _base(leaf: Leaf) -> str:
    return leaf.name if leaf.index is None else leaf.name.removesuffix(f"[{leaf.index}]")


def _entry(base: str, leaf: Leaf) -> str:
    return base if leaf.index is None else f"{base}[{leaf.index}]"


class SharedParameters(eqx.Module):
    """How the parameters of a joint fit belong to its data sets.

    - `whole`: the map of all free parameters; its `model` holds the models side by side.
    - `maps`: one map for each data set, of those of its parameters that may vary.
    - `labels`: names of the data sets.
    - `shared`: public names that several data sets share; a parameter of one data set alone is
        called `name[label]`.
    """

    whole: ParameterMap
    maps: tuple[ParameterMap, ...]
    labels: tuple[str, ...] = eqx.field(static=True)
    shared: tuple[str, ...] = eqx.field(static=True)

    def models(self, x: Float[Array, "free"]) -> tuple[AbstractCorrelation, ...]:
        """The model of each data set at the free physical parameters `x`."""
        return self.whole.build(x).models  # pyright: ignore[reportAttributeAccessIssue]

    def local(self, k: int, x: Float[Array, "free"]) -> Float[Array, "local"]:
        """The varying physical parameters of data set `k`."""
        values = parameter_values(self.models(x)[k])
        chosen = [values[name] for name in self.maps[k].free_names]
        return jnp.stack(chosen) if chosen else jnp.zeros((0,))

    def local_coordinates(self, k: int, y: Float[Array, "free"]) -> Float[Array, "local"]:
        """The coordinates of data set `k` at the coordinates `y` of the whole."""
        return self.maps[k].to_coordinates(self.local(k, self.whole.to_physical(y)))


def _labels(labels: Sequence[str] | None, count: int) -> tuple[str, ...]:
    chosen = tuple(str(k + 1) for k in range(count)) if labels is None else tuple(labels)
    if len(chosen) != count or len(set(chosen)) != count:
        raise ModelError(
            f"the labels {chosen} must be {count} different names, one for each data set"
        )
    return chosen


def _public_names(models, labels, shared):
    """(path, public base name) of every field, and the base name by (data set, base name)."""
    public: dict[str, str] = {}
    for k, model in enumerate(models):
        for leaf in parameter_leaves(model):
            base = _base(leaf)
            # The first data set that has a shared parameter carries its plain name.
            first = base in shared and base not in public.values()
            again = first or public.get(_path(k, leaf)) == base
            public[_path(k, leaf)] = base if again else f"{base}[{labels[k]}]"
    return tuple(public.items())


def _spread(given: Mapping[str, Any], every: Mapping[str, str], known, owner) -> dict[str, Any]:
    """Settings by public name; a plain name stands for the parameter of every data set."""
    out: dict[str, Any] = {}
    plain = set(every.values())
    check_names(given, {**dict.fromkeys(known), **dict.fromkeys(plain)}, owner)
    for name, value in given.items():
        if name not in known:
            out.update({public: value for public, base in every.items() if base == name})
    out.update({name: value for name, value in given.items() if name in known})
    return out


def shared_parameters(
    models: Sequence[AbstractCorrelation],
    times: Sequence[Float[Array | np.ndarray, "frame"]],
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
    - `times`: frame times of each data set [s].
    - `shared`: names of shared parameters (of vectors, without index); by default every name that
        all models have.
    - `ties`: public name → function of the values of all parameters by public name, for example
        `{"D0[hot]": lambda p: p["D0[cold]"] * ratio}`.
    - `fixed`, `bounds`, `scale`, `rates`: as in `parameter_map`.
    - `labels`: names of the data sets; by default `"1"`, `"2"`, ….

    **Raises:** `ModelError` for numbers of models and times that differ, unknown names, and as
    `parameter_map`.
    """
    models, times = tuple(models), tuple(times)
    if not models or len(models) != len(times):
        raise ModelError(
            f"there are {len(models)} models and {len(times)} arrays of frame times; "
            "give one of each for every data set, and at least one"
        )
    labels = _labels(labels, len(models))
    owned = [list(dict.fromkeys(_base(leaf) for leaf in parameter_leaves(m))) for m in models]
    if shared is None:
        shared = [name for name in owned[0] if all(name in names for names in owned)]
    everything = dict.fromkeys(name for names in owned for name in names)
    check_names(shared, everything, "a model of the joint fit")
    several = SeveralModels(models, _public_names(models, labels, tuple(shared)))
    leaves = parameter_leaves(several)  # pyright: ignore[reportArgumentType]
    public = {leaf.name: leaf for leaf in leaves}
    names = several.names
    every, links = {}, {}
    for k, model in enumerate(models):
        for leaf in parameter_leaves(model):
            name = _entry(names[_path(k, leaf)], leaf)
            every[name] = leaf.name
            if _base(leaf) in shared and names[_path(k, leaf)] != _base(leaf):
                links[name] = Proportional(_entry(_base(leaf), leaf))
    owner = "the joint fit"
    own = {name: None for name in public if name not in links}
    given_ties = _spread(ties or {}, {n: b for n, b in every.items() if n in own}, own, owner)
    own_names = {n: b for n, b in every.items() if n in own}
    held = _spread(dict.fromkeys(fixed), own_names, own, owner)
    whole = parameter_map(
        several,  # pyright: ignore[reportArgumentType]
        times[0],
        bounds=_spread(bounds or {}, own_names, own, owner),
        fixed=tuple(held),
        ties={**given_ties, **links},
        scale=_spread(scale or {}, own_names, own, owner),
        rates=rates,
    )
    varying = set(whole.free_names) | set(given_ties)
    varying |= {name for name, tie in links.items() if tie.name in varying}
    start = whole.build(whole.start).models  # pyright: ignore[reportAttributeAccessIssue]
    maps = []
    for k, (model, t) in enumerate(zip(start, times, strict=True)):
        fields = parameter_leaves(model)
        constant = tuple(
            leaf.name for leaf in fields if _entry(names[_path(k, leaf)], leaf) not in varying
        )
        free = {leaf.name: (-np.inf, np.inf) for leaf in fields}
        maps.append(parameter_map(model, t, bounds=free, fixed=constant, rates=rates))
    used = tuple(dict.fromkeys(tie.name for tie in links.values()))
    return SharedParameters(whole, tuple(maps), labels, used)
