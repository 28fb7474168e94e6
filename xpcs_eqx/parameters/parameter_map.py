"""Which parameters of a model are free, under which names, bounds and coordinates."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..arguments import checked
from ..errors import ModelError
from ..physics import AbstractCorrelation, PowerLawRate
from ..physics.leaves import is_inner, parameter_leaves, parts
from ..showing import Table, known
from .bijections import AbstractBijection, Identity, Log, ReferenceAmplitude, Slope
from .leaves import (
    Tie,
    check_names,
    parameter_values,
    stack,
    tied,
    with_parameters,
)
from .variables import AbstractVariables, box_of


class Group(eqx.Module):
    """Free parameters (by position among the free ones) that share one bijection."""

    members: tuple[int, ...] = eqx.field(static=True)
    bijection: AbstractBijection


class ParameterMap(AbstractVariables):
    """The one place that knows how a flat vector relates to a model.

    Free physical parameters x (in the model's order) ↔ solver coordinates y by the bijections of
    `groups`; the model from x by insertion, with ties applied.
    """

    model: AbstractCorrelation
    lower: Float[Array | np.ndarray, "free"]
    upper: Float[Array | np.ndarray, "free"]
    coordinate_scale: Float[Array | np.ndarray, "free"]
    groups: tuple[Group, ...]
    names: tuple[str, ...] = eqx.field(static=True)
    units: tuple[str, ...] = eqx.field(static=True)
    free_names: tuple[str, ...] = eqx.field(static=True)
    ties: tuple[tuple[str, Tie], ...] = eqx.field(static=True)

    @property
    def n_free(self) -> int:
        """Number of free parameters."""
        return len(self.free_names)

    @property
    def start(self) -> Float[Array, "free"]:
        """The free parameters of the template model."""
        values = parameter_values(self.model)
        return stack([values[name] for name in self.free_names])

    def __repr__(self) -> str:
        """A table of all parameters with start and bounds."""
        if not known(self) or np.ndim(self.lower) != 1:
            return eqx.tree_pformat(self)
        return f"{type(self).__name__} of {type(self.model).__name__}\n{self.table()}"

    def table(self) -> Table:
        """Start, bounds, unit and role of every parameter: free, fixed or tied."""
        values = parameter_values(self.build(self.start))
        sides = zip(np.asarray(self.lower), np.asarray(self.upper), strict=True)
        box, ties = dict(zip(self.free_names, sides, strict=True)), dict(self.ties)
        rows = {}
        for name, unit in zip(self.names, self.units, strict=True):
            lower, upper = box.get(name, (math.nan, math.nan))
            role = "free" if name in box else "tied" if name in ties else "fixed"
            rows[name] = {
                "start": float(values[name]),
                "lower": float(lower),
                "upper": float(upper),
                "unit": unit,
                "role": role,
            }
        return Table(rows)

    def to_physical(self, y: Float[Array, "free"]) -> Float[Array, "free"]:
        """Physical parameters x from coordinates y."""
        return _as_array(self._apply(y, lambda bijection, part: bijection.forward(part)))

    def to_coordinates(self, x: Float[Array, "free"]) -> Float[Array, "free"]:
        """Coordinates y from physical parameters x; NaN where x has no coordinates."""
        return _as_array(self._apply(x, lambda bijection, part: bijection.inverse(part)))

    def _apply(self, scalars, function) -> list:
        out: list = [None] * self.n_free
        for group in self.groups:
            part = function(group.bijection, tuple(scalars[i] for i in group.members))
            for i, value in zip(group.members, part, strict=True):
                out[i] = value
        return out

    def build(self, x) -> AbstractCorrelation:
        """The model with free physical parameters `x` (array or sequence), ties applied."""
        values = dict(zip(self.free_names, tuple(x), strict=True))
        if self.ties:
            everything = {**parameter_values(self.model), **values}
            for name, tie in self.ties:
                values[name] = everything[name] = tied(name, tie, everything)
        return with_parameters(self.model, values) if values else self.model

    def build_from_coordinates(self, y) -> AbstractCorrelation:
        """The model at coordinates `y`, a sequence of scalars kept apart."""
        return self.build(self._apply(y, lambda bijection, part: bijection.forward(part)))

    def all_values(self, x: Float[Array, "free"]) -> Float[Array, "parameter"]:
        """Every parameter of the model, free, fixed and tied, in the model's order."""
        values = parameter_values(self.build(x))
        return stack([values[name] for name in self.names])


def _reference_time(t: Float[np.ndarray, "frame"]) -> float:
    """√(t_first·t_last), half a frame for times that are not above that.

    **Raises:** `ModelError` for times that do not increase.
    """
    if t.size < 2 or not np.all(np.isfinite(t)) or np.min(np.diff(t)) <= 0:
        raise ModelError(
            f"t has {t.size} values that do not increase; give the times of two frames or more [s]"
        )
    floor = 0.5 * float(t[1] - t[0])
    return math.sqrt(max(float(t[0]), floor)) * math.sqrt(max(float(t[-1]), floor))


def _as_array(scalars: list) -> Array:
    return jnp.stack(scalars) if scalars else jnp.zeros((0,))


def _scale(name: str, value: Any) -> float:
    """A natural step. **Raises:** `ModelError` when it is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise ModelError(f"scale of {name} is {value!r}; give a finite number above zero")
    return found


def _natural_groups(model, free, lower, t_ref, rates, scaled) -> list[Group]:
    """Coordinates for each power law, as far as its parameters are free, and logarithms."""
    by_path = {leaf.path: leaf.name for leaf in parameter_leaves(model)}
    groups, used = [], set()

    def visit(node, path):
        if not isinstance(node, PowerLawRate):
            for name, value, _ in parts(node):
                if is_inner(value):
                    visit(value, (*path, name))
            return
        names = [by_path[(*path, f)] for f in ("amplitude", "exponent", "offset")]
        if any(name in scaled for name in names):
            return
        inside = tuple(free.index(n) for n in names if n in free)
        a, b, c = (float(np.asarray(v)) for v in (node.amplitude, node.exponent, node.offset))
        bijection = None
        # The slope coordinates are singular where the whole rate vanishes at t_ref.
        if len(inside) == 3 and a > 0 and a * t_ref**b + c > 0:
            bijection = rates(np.asarray(t_ref))
        elif len(inside) == 2 and names[2] not in free and a > 0:
            bijection = ReferenceAmplitude(np.asarray(t_ref))
        if bijection is not None:
            groups.append(Group(inside, bijection))
            used.update(inside)

    visit(model, ())
    values = parameter_values(model)
    for leaf in parameter_leaves(model):
        i = free.index(leaf.name) if leaf.name in free else None
        if not leaf.info.logarithmic or i is None or i in used or leaf.name in scaled:
            continue
        if lower[i] > 0 and float(values[leaf.name]) > 0:
            groups.append(Group((i,), Log()))
            used.add(i)
    return groups


@checked()
def parameter_map(
    model: AbstractCorrelation,
    t: Float[Array | np.ndarray, "frame"] | None = None,
    *,
    bounds: Mapping[str, Any] | None = None,
    fixed: tuple[str, ...] = (),
    ties: Mapping[str, Tie] | None = None,
    scale: Mapping[str, float] | None = None,
    rates: Callable[[ScalarLike], AbstractBijection] = Slope,
    coordinates: Mapping[tuple[str, ...], AbstractBijection] | None = None,
) -> ParameterMap:
    """Say which parameters of a model are fitted, from which start, within which bounds.

    **Arguments:**

    - `model`: the model at its start values.
    - `t`: frame times [s]. Power laws get the coordinates `rates` at t_ref = √(t_first·t_last);
        without times every parameter is its own coordinate.
    - `bounds`: by name a pair, or `scipy.optimize.Bounds`, in physical units; equal bounds fix a
        parameter. Others have the bounds of their declaration.
    - `fixed`: names kept at their start.
    - `ties`: name → function of the values of all parameters by name.
    - `scale`: natural step by name, in physical units. A rate with a scale of its own for one of
        its parameters is stepped in its physical parameters.
    - `rates`: bijection of (amplitude, exponent, offset) for a reference time: `Slope`,
        `ReferenceTime` or `SignedSlope`.
    - `coordinates`: tuple of names → bijection, instead of the automatic choice for them.

    **Raises:** `ModelError` for unknown names, bounds inside out, a start outside its bounds.
    """
    leaves = parameter_leaves(model)
    by_name = {leaf.name: leaf for leaf in leaves}
    bounds, ties, scale = dict(bounds or {}), dict(ties or {}), dict(scale or {})
    owner = type(model).__name__
    for given in (bounds, fixed, ties, scale):
        check_names(given, by_name, owner)
    for name, tie in ties.items():
        if not callable(tie):
            raise ModelError(
                f"the tie of {name} is {tie!r}; give a function of the values of all parameters, "
                'as Proportional("D0", 2.0)'
            )
    values = {name: float(value) for name, value in parameter_values(model).items()}
    free, lower, upper, scales = [], [], [], []
    for leaf in leaves:
        box = bounds.get(leaf.name, (leaf.info.lower, leaf.info.upper))
        try:
            low, high = (float(side[0]) for side in box_of(box, (1,)))
        except ModelError as error:
            raise ModelError(f"{leaf.name}: {error}") from error
        if not low <= high:
            raise ModelError(
                f"bounds of {leaf.name} are inside out: lower {low} > upper {high}; swap them"
            )
        if leaf.name in ties:
            continue
        start = values[leaf.name]
        if not np.isfinite(start):
            raise ModelError(f"start value of {leaf.name} is {start}; give a finite number")
        if leaf.name in fixed or low == high:
            if leaf.name not in fixed and start != low:
                model = with_parameters(model, {leaf.name: low})
            continue
        if not low <= start <= high:
            raise ModelError(
                f"start value {start:g} of {leaf.name} lies outside its bounds "
                f"[{low:g}, {high:g}]; move the start or widen the bounds"
            )
        free.append(leaf.name)
        lower.append(low)
        upper.append(high)
        typical = start if math.isnan(leaf.info.start) else leaf.info.start
        natural = leaf.info.scale or abs(typical) or 1.0
        scales.append(_scale(leaf.name, scale[leaf.name]) if leaf.name in scale else natural)
    groups: list[Group] = []
    if coordinates is not None:
        for names, bijection in coordinates.items():
            if not isinstance(names, tuple):
                raise ModelError(f"coordinates of {names!r}; give names in a tuple, as ('D0',)")
            check_names(names, by_name, owner)
            groups.append(Group(tuple(free.index(name) for name in names), bijection))
    elif t is not None:
        t_ref = _reference_time(np.asarray(t, dtype=float))
        groups = _natural_groups(model, free, lower, t_ref, rates, scale)
    used = {i for group in groups for i in group.members}
    groups += [Group((i,), Identity()) for i in range(len(free)) if i not in used]
    for group in groups:
        if not isinstance(group.bijection, Identity):
            # The other bijections are logarithms, slopes and ratios: of order one.
            for i in group.members:
                scales[i] = 1.0
    return ParameterMap(
        model=model,
        lower=np.asarray(lower, dtype=float),
        upper=np.asarray(upper, dtype=float),
        coordinate_scale=np.asarray(scales, dtype=float),
        groups=tuple(groups),
        names=tuple(by_name),
        units=tuple(leaf.info.unit for leaf in leaves),
        free_names=tuple(free),
        ties=tuple(ties.items()),
    )


def scale_from_bounds(parameters: ParameterMap) -> dict[str, float]:
    """Width of the bounds of each free parameter that has both, as `scale` for `parameter_map`."""
    width = np.asarray(parameters.upper) - np.asarray(parameters.lower)
    return {
        name: float(w)
        for name, w in zip(parameters.free_names, width, strict=True)
        if np.isfinite(w)
    }


def scale_from_start(parameters: ParameterMap) -> dict[str, float]:
    """|start| of each free parameter that is not zero, as `scale` for `parameter_map`."""
    start = np.abs(np.asarray(parameters.start))
    return {name: float(s) for name, s in zip(parameters.free_names, start, strict=True) if s > 0}


def plain_parameters(parameters: ParameterMap) -> ParameterMap:
    """The map with every free parameter as its own coordinate."""
    groups = tuple(Group((i,), Identity()) for i in range(parameters.n_free))
    return dataclasses.replace(parameters, groups=groups)
