"""Fits as differentiable functions: the implicit function theorem at the optimum."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from ...arguments import checked
from ...errors import ModelError
from ...objective import (
    AbstractObjective,
    AbstractPenalty,
    AbstractPieces,
    CombinedObjective,
    CurveObjective,
    Linear,
    MapTiles,
    NormalEquations,
    SpeckleLikelihood,
    TwoTimeObjective,
    check_one_data_set,
    on_one_device,
    refuse_bins,
    with_penalties,
)
from ...objective.combined import parts_of
from ...objective.two_time import JointVariables, loss_of
from ...optimize import TrustRegion, iterate_compiled
from ...parameters import ParameterMap, with_parameters
from ...scaling import IndexMap, index_map
from ..solve import default_solver
from .minimum import AbstractCurvature, AbstractMinimum, FullCurvature, minimum_of, solve_free
from .tile_sum import filled

TwoTimes = TypeVar("TwoTimes", bound=TwoTimeObjective | SpeckleLikelihood | CombinedObjective)


class FittedValues(eqx.Module):
    """What a fit found, as arrays that carry derivatives.

    - `values`: the fitted numbers, laid out by `index` (scaling coefficients, of every data set in
        turn, then free parameters), in the units of the parameters.
    - `model`: the model at the optimum, fixed and tied parameters included; of several data sets a
        tuple with that of each, of a curve None. `contrast`, `offset`: scaling by angle, likewise.
    - `cost`: the minimised cost, penalties and robust loss included.
    - `status`: a `Status` as an integer, positive when converged.
    - `at_bound`: which entries of `values` lie on a bound.
    - `aliases`: further names of entries: those that a shared parameter has at each data set.
    """

    values: Float[Array, "entry"]
    model: PyTree
    contrast: PyTree[Float[Array, "angle"]]
    offset: PyTree[Float[Array, "angle"]]
    cost: Float[Array, ""]
    status: Int[Array, ""]
    at_bound: Bool[Array, "entry"]
    index: IndexMap
    aliases: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())

    def __getitem__(self, name: str) -> Float[Array, ""]:
        """A free parameter or a scaling coefficient by name.

        Of several data sets a parameter is found by its public name, `D0` where it is shared, or
        for any of them as `D0[label]`.

        **Raises:** `ModelError` listing the names there are.
        """
        return self.values[..., self.index.index(dict(self.aliases).get(name, name))]


def _on_bound(minimum: AbstractMinimum, u):
    return (u <= minimum.lower) | (u >= minimum.upper)


@eqx.filter_custom_jvp
def _minimum(objective, *, start, solver, curvature):
    """The optimum in the layout of `IndexMap` and the status of the solver."""
    del curvature
    # Nobody sees the history, which would be carried through every step of a batch.
    state = iterate_compiled(dataclasses.replace(solver, recorded=1), objective, start)
    minimum = minimum_of(objective)
    # Solvers stop where the cost no longer tells two points apart; the gradient still does. The
    # equations at the last point are there, so a last step costs no pass over the data.
    assert isinstance(state.equations, NormalEquations)  # no descent by products is compiled
    u, equations = minimum.last(state.y, state.memo, state.equations)
    step = solve_free(equations.hessian, equations.gradient[:, None], ~_on_bound(minimum, u))
    better = u - step[:, 0]
    inside = (better > minimum.lower) & (better < minimum.upper)
    sound = (state.status > 0) & jnp.all(jnp.isfinite(step)) & jnp.all(inside | (better == u))
    return jnp.where(sound, better, u), state.status


@_minimum.def_jvp
def _minimum_jvp(primals, tangents, *, start, solver, curvature):
    (objective,), (moving,) = primals, tangents
    u, status = _minimum(objective, start=start, solver=solver, curvature=curvature)

    def condition(objective):
        minimum = minimum_of(objective)
        # Where an entry is held, it moves with its bound.
        bound = jnp.where(
            u <= minimum.lower, minimum.lower, jnp.where(u >= minimum.upper, minimum.upper, 0.0)
        )
        return minimum.gradient(u), bound

    _, tangent = eqx.filter_jvp(condition, (objective,), (moving,))
    slope, bound = filled((jnp.zeros_like(u), jnp.zeros_like(u)), tangent)
    minimum = minimum_of(objective)
    free = ~_on_bound(minimum, u)
    matrix = curvature.matrix(minimum, u)
    slope = slope + matrix @ bound
    change = bound - solve_free(matrix, slope[:, None], free)[:, 0]
    # What is no minimum has no derivative: a factor, since `where` would transpose to zeros.
    change = change * jnp.where(status > 0, 1.0, jnp.nan)
    return (u, status), (change, None)


def _described(objective, u):
    """Model, scaling by angle, layout, and further names of the fitted numbers."""
    if isinstance(objective, CurveObjective):
        return None, None, None, IndexMap((), tuple(objective.names)), ()
    if isinstance(objective, CombinedObjective):
        shared = objective.parameters
        names, per_angle, begin = [], [], 0
        for part, label in zip(objective.parts, shared.labels, strict=True):
            scaling = part.term.scaling
            names += [f"{name}[{label}]" for name in scaling.names]
            per_angle.append(scaling.per_angle(u[begin : begin + scaling.size]))
            begin += scaling.size
        contrast, offset = (tuple(one[:, s] for one in per_angle) for s in (0, 1))
        index = IndexMap(tuple(names), shared.whole.free_names)
        aliases = tuple(
            (f"{own}[{label}]", public)
            for k, label in enumerate(shared.labels)
            for own, public in shared.carriers(k).items()
            if public in index.physical_names
        )
        return shared.models(u[begin:]), contrast, offset, index, aliases
    term = objective.term
    per_angle = term.scaling.per_angle(u[: term.scaling.size])
    model = term.parameters.build(u[term.scaling.size :])
    index = index_map(term.scaling, term.parameters.free_names)
    return model, per_angle[:, 0], per_angle[:, 1], index, ()


@eqx.filter_jit
def _fitted(objective, start, solver, curvature):
    u, status = _minimum(objective, start=start, solver=solver, curvature=curvature)
    minimum = minimum_of(objective)
    model, contrast, offset, index, aliases = _described(objective, u)
    return FittedValues(
        values=u,
        model=model,
        contrast=contrast,
        offset=offset,
        cost=minimum.cost(u),
        status=status,
        at_bound=_on_bound(minimum, u),
        index=index,
        aliases=aliases,
    )


@checked()
def fitted(
    objective: AbstractObjective,
    start: Float[Array, "variable"] | None = None,
    *,
    solver: TrustRegion | None = None,
    curvature: AbstractCurvature | None = None,
) -> FittedValues:
    """Fitted parameters inside `jax.jit`, `jax.grad` and `jax.vmap`: a differentiable fit.

    Whatever `least_squares` fits in memory: one data set, several together, a curve; and the
    likelihood of speckle, where the raw diagonals of the maps are known. Every floating
    array of `objective` may be differentiated by: maps, weights, frame times, geometry, fixed
    parameters, penalties, the scale of a loss, a fixed scaling. `with_values` replaces those of a
    data set by name. Works under `jax.jit` and `jax.vmap`, in forward and in reverse mode;
    derivatives come from the implicit function theorem at the optimum and cost a few passes over
    the data, however many iterations the fit took. No recovery from failures is attempted.

    An entry on a bound does not move, except with the bound. A fit that did not converge returns
    its `status` and has derivatives NaN.

    **Arguments:**

    - `objective`: from `projected_objective`, `two_time_objective`, `curve_objective` or
        `likelihood_of`. Several data sets are compiled as a whole, which takes as long as all of
        them one by one.
    - `start`: physical start values of the variables; by default the objective's own.
    - `solver`: a `TrustRegion`.
    - `curvature`: `FullCurvature` (default) or `GaussNewtonCurvature`.

    **Raises:** `ModelError` for an objective whose sum is a loop in Python or of which no error
    bars are known, or a start of the wrong shape.
    """
    minimum_of(objective)
    for part in parts_of(objective):
        if isinstance(part, CurveObjective):
            if not part.traceable:
                raise ModelError(
                    "a differentiable fit is compiled as a whole, which the points of a source do "
                    "not allow; give them as arrays to curve_objective"
                )
        elif not part.traceable:
            stored = isinstance(part.term.tiles, AbstractPieces)
            raise ModelError(
                f"a differentiable fit is compiled as a whole, which the driver "
                f"{type(part.term.driver).__name__} does not allow; "
                + (
                    "load the data, or a selection of them"
                    if stored
                    else "build the objective with Scan"
                )
            )
        elif isinstance(part, SpeckleLikelihood):
            _refuse_unknown_diagonals(part)
        else:
            refuse_bins(part.term.tiles, "a differentiable fit")
    begin = objective.start if start is None else start
    if jnp.shape(begin) != objective.variables.lower.shape:
        raise ModelError(
            f"the start has shape {jnp.shape(begin)}, the fit {objective.variables.lower.shape}"
        )
    solver = default_solver(objective) if solver is None else solver
    curvature = FullCurvature() if curvature is None else curvature
    begin, solver = _constant(begin), _constant(solver)
    return _fitted(objective, begin, solver, curvature)


def _refuse_unknown_diagonals(likelihood: SpeckleLikelihood) -> None:
    scaling = likelihood.shot_scaling
    unknown = sorted(set(range(scaling.given.shape[0])) - set(scaling.fitted))
    if unknown:
        raise ModelError(
            f"angles {unknown} have no raw diagonal that can be used, and the likelihood of "
            "speckle has in its place what the other entries imply, found anew in each of several "
            "fits, of which no derivative is known: differentiate the fit by least squares, or "
            "give data with their diagonals"
        )


def _constant(tree: Any) -> Any:
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


@eqx.filter_jit
def classical_covariance(
    objective: AbstractObjective, values: Float[Array, "entry"]
) -> Float[Array, "entry entry"]:
    """s²(JᵀJ)⁻¹ at the fitted `values`, zero for entries on a bound; differentiable.

    Under a robust loss it is E[ψ²]/E[ψ′]² (JᵀJ)⁻¹, the means being those over the residuals.

    The covariance of `Fit.uncertainty.classical` as a function of what was fitted and of every
    array of the objective. s² is one when the data carry an absolute sigma; without one it is
    infinite where there are no more pairs than free entries.
    """
    u, parts = values, parts_of(objective)
    known = [o if isinstance(o, CurveObjective) else o.term for o in parts]
    absolute = all(one.absolute_sigma for one in known)
    # One loss serves for all data sets.
    loss = parts[0].loss if isinstance(parts[0], CurveObjective) else loss_of(parts[0])
    minimum = minimum_of(objective)
    free = ~_on_bound(minimum, u)
    if not isinstance(loss, Linear):
        curvature, sums = minimum.mean_curvature(u)
        variance = sums.mean_square(jnp.sum(free)) / sums.mean_slope
        return variance * solve_free(curvature, jnp.eye(u.shape[0]), free)
    equations, data_cost = minimum.equations(u)
    inverse = solve_free(equations.hessian, jnp.eye(u.shape[0]), free)
    if absolute:
        return inverse
    degrees = equations.count - jnp.sum(free)
    left = degrees > 0
    scaled = 2 * data_cost / jnp.where(left, degrees, 1.0) * inverse
    return jnp.where(left, scaled, jnp.where(jnp.outer(free, free), jnp.inf, 0.0))


def _with_maps(objective, n_angles, n_frames, c2, root_weights, angle_weights):
    """The objective of one data set with other maps or weights of them."""
    tiles = on_one_device(objective.term.tiles)
    if not isinstance(tiles, MapTiles):
        raise ModelError(
            f"c2, root_weights and angle_weights replace those of maps; the data are "
            f"{type(tiles).__name__}, whose points are sorted and cut: replace the leaves of "
            "`objective.term.tiles` with equinox.tree_at"
        )
    stack = (n_angles, n_frames, n_frames)
    if isinstance(objective, SpeckleLikelihood):
        if root_weights is not None or angle_weights is not None:
            raise ModelError(
                "the likelihood of speckle has no weights: it takes frames in or leaves them out; "
                "leave root_weights and angle_weights out"
            )
        return objective.with_maps(_same_shape("c2", c2, stack))
    given = {"c2": (c2, stack), "root_weights": (root_weights, stack)}
    maps = {
        name: getattr(tiles, name) if value is None else _same_shape(name, value, shape)
        for name, (value, shape) in given.items()
    }
    root_angle = tiles.root_angle_weights
    if angle_weights is not None:
        root_angle = jnp.sqrt(_same_shape("angle_weights", angle_weights, (n_angles,)))
    tiles = MapTiles(maps["c2"], maps["root_weights"], root_angle, tiles.size)
    return eqx.tree_at(lambda o: o.term.tiles, objective, tiles)


def _same_shape(name: str, value: Any, wanted: tuple[int, ...]) -> Array:
    array = jnp.asarray(value)
    if array.shape != wanted:
        raise ModelError(f"{name} has shape {array.shape}, the objective needs {wanted}")
    return array


def _every_map(objective) -> list[ParameterMap]:
    """Each place where an objective keeps its parameters, one data set after the other."""
    inside = objective.variables
    inside = inside.parameters if isinstance(inside, JointVariables) else inside
    if not isinstance(objective, CombinedObjective):
        return [inside, objective.term.parameters]
    own = [one for part in objective.parts for one in _every_map(part)]
    return [inside, objective.parameters.whole, *objective.parameters.maps, *own]


def _with_fixed(objective, fixed: Mapping[str, ScalarLike]):
    """The objective with other values of parameters that are not free."""
    several = isinstance(objective, CombinedObjective)
    whole = objective.parameters.whole if several else objective.term.parameters
    free = [name for name in fixed if name in whole.free_names]
    if free:
        raise ModelError(
            f"{free[0]} is fitted: give its value as the start of the fit, or fix it in the "
            "parameter map"
        )
    model = with_parameters(whole.model, fixed)
    models = [model, model]
    if several:
        # What only repeats a shared parameter, or is tied to one, goes with it.
        changed = dataclasses.replace(whole, model=model)
        each = dataclasses.replace(objective.parameters, whole=changed).models(whole.start)
        models = [model, model, *each, *(one for one in each for _ in range(2))]
    return eqx.tree_at(lambda o: [m.model for m in _every_map(o)], objective, models)


def with_values(
    objective: TwoTimes,
    *,
    data_set: str | None = None,
    c2: Float[Array, "angle frame frame"] | None = None,
    root_weights: Float[Array, "angle frame frame"] | None = None,
    angle_weights: Float[Array, "angle"] | None = None,
    t: Float[Array, "frame"] | None = None,
    q: ScalarLike | None = None,
    phi: Float[Array, "angle"] | None = None,
    gap: ScalarLike | None = None,
    fixed: Mapping[str, ScalarLike] | None = None,
    penalties: tuple[AbstractPenalty, ...] | None = None,
    noise: ScalarLike | None = None,
) -> TwoTimes:
    """The objective with some of its numbers replaced, tracers included.

    An objective is built once from concrete data, since building looks at the numbers; this puts
    in those that a program differentiates by or maps over.

    **Arguments:**

    - `data_set`: label of the one whose maps, times and geometry are meant, of several that are
        fitted together. Parameters, penalties and noise are those of all together.
    - `c2`, `root_weights`: maps and 1/sigma of their entries; each unordered pair i < j is read at
        `[angle, i, j]`. The likelihood of speckle has no weights, and keeps its diagonals.
    - `angle_weights`: weight of the squared residuals of each angle.
    - `t`: frame times [s]; `q` [1/Å]; `phi` [degrees]; `gap` [Å].
    - `fixed`: values of parameters that are not free, by name.
    - `penalties`: instead of those there are; `noise`: standard deviation of the weighted
        residuals, by which they are weighed. By default one where `root_weights` of the only data
        set are given, else that of the data the objective was built from, whatever takes their
        place.

    Scaling, loss and coordinates are fields: `equinox.tree_at` replaces them.

    **Raises:** `ModelError` for an array of another shape, a free or unknown parameter, maps where
    the data are points, an unknown data set, or none where there are several.
    """
    several = isinstance(objective, CombinedObjective)
    if not several and not isinstance(objective, SpeckleLikelihood):
        check_one_data_set(objective, "with_values")
    changed: Any = objective
    if noise is None and root_weights is not None and not several:
        noise = 1.0
    if penalties is not None or noise is not None:
        # Before anything is replaced: tracers have no noise that could be looked at.
        chosen = changed.penalties if penalties is None else tuple(penalties)
        changed = with_penalties(changed, chosen, noise)  # pyright: ignore[reportArgumentType]
    if fixed:
        changed = _with_fixed(changed, fixed)
    maps = {"c2": c2, "root_weights": root_weights, "angle_weights": angle_weights}
    place = {"t": t, "q": q, "phi": phi, "gap": gap}
    if all(value is None for value in (*maps.values(), *place.values())):
        return changed
    labels = changed.parameters.labels if several else (None,)
    if data_set not in labels:
        raise ModelError(
            f"data_set = {data_set!r} does not say whose maps, times or geometry are replaced; "
            f"give {' or '.join(map(repr, labels))}"
        )
    k = labels.index(data_set)
    part: Any = changed.parts[k] if several else changed
    n_angles, n_frames = part.term.geometry.phi.shape[0], part.term.t.shape[0]
    if any(value is not None for value in maps.values()):
        part = _with_maps(part, n_angles, n_frames, **maps)
    shapes = {"t": (n_frames,), "q": (), "phi": (n_angles,), "gap": ()}
    for name, value in place.items():
        if value is not None:
            # Precision as the objective has it: the loops over tiles carry sums of that type.
            array = _same_shape(name, value, shapes[name]).astype(part.term.t.dtype)
            owner = (lambda term: term) if name == "t" else (lambda term: term.geometry)
            part = eqx.tree_at(lambda o, at=owner, n=name: getattr(at(o.term), n), part, array)
    return eqx.tree_at(lambda o: o.parts[k], changed, part) if several else part
