"""From parameters and data to an objective, one builder for one data set and for several."""

import dataclasses
from collections.abc import Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arguments import Count, checked
from ..data import StoredTwoTime, TwoTimeData
from ..errors import DataError, ModelError
from ..parameters import ParameterMap, SharedParameters
from ..physics import PowerLawRate
from ..scaling import AbstractScaling, Individual, quantile_scaling
from ..showing import per_frame, without_q
from .combined import CombinedObjective, combined_variables, noise_of_all, relative_weights
from .curve import CurveObjective
from .drivers.loops import AbstractDriver, AbstractPieces, HostLoop, Scan
from .drivers.stored import AnyData, source_of
from .equations import AbstractObjective, require_double_precision
from .kernel.blocks import block_correlation
from .kernel.frame_table import check_model, has_direction
from .losses import AbstractLoss, Linear
from .noise import known_noise
from .penalties import (
    AbstractLinearScalingPenalty,
    AbstractPenalty,
    AbstractScalingPenalty,
)
from .points import ArrayPoints
from .two_time import (
    JointObjective,
    ProjectedObjective,
    TwoTimeObjective,
    TwoTimeTerm,
    joint_variables,
)


def _check_together(parameters: ParameterMap, data: AnyData, scaling: AbstractScaling) -> None:
    """Refuse a model, data and a scaling that do not belong together."""

    def is_power_law(node):
        return isinstance(node, PowerLawRate)

    check_model(parameters.model, data.t, data.geometry)
    leaves = jax.tree.leaves(parameters.model, is_leaf=is_power_law)
    early = np.flatnonzero(np.asarray(data.t) < 0)
    if any(map(is_power_law, leaves)) and early.size:
        raise DataError(
            f"{early.size} frames are before t = 0, the first at {np.min(data.t):g} s, where a "
            "power law of the age has no value; count time from the beginning of the process "
            "(time_origin), leave these frames out, or take another rate"
        )
    if not data.provenance.azimuths and has_direction(parameters.model, data.t, data.geometry):
        raise DataError(
            f"{data.provenance.where()}: no azimuths are known, but the model "
            f"{type(parameters.model).__name__} depends on them; give phi [degrees] when reading, "
            "or take a model without a direction"
        )
    angles = scaling.constant.shape[0]
    if angles != data.n_angles:
        raise ModelError(f"the scaling is for {angles} angles, the data have {data.n_angles}")
    unknowns = parameters.n_free + scaling.size
    if data.n_pairs < unknowns:
        raise ModelError(
            f"{unknowns} parameters ({parameters.n_free} physical, {scaling.size} of the scaling) "
            f"cannot be fitted to {data.n_pairs} pairs; fix some or select more data"
        )


def _as_measured(parameters: ParameterMap, data: Sequence[AnyData]) -> ParameterMap:
    """Parameters in the units of what was measured.

    These are rates, not lengths, where q is not known, and by frames where the frame time is not.
    """
    units = parameters.units
    if not any(one.provenance.has_q for one in data):
        units = tuple(map(without_q, units))
    if not any(one.provenance.has_times for one in data):
        units = tuple(map(per_frame, units))
    return dataclasses.replace(parameters, units=units)


def _eliminated(
    eliminate: bool | None, loss: AbstractLoss, penalties: tuple[AbstractScalingPenalty, ...]
) -> bool:
    """Whether contrast and offset are to be eliminated: where that is exact, if nothing is said."""
    bent = [p for p in penalties if not isinstance(p, AbstractLinearScalingPenalty)]
    exact = isinstance(loss, Linear) and not bent
    if eliminate is None:
        return exact
    if eliminate and not exact:
        why = (
            f"{type(bent[0]).__name__} is not linear in contrast and offset"
            if bent
            else f"the loss {type(loss).__name__} is no sum of squares"
        )
        raise ModelError(
            f"{why}, so these cannot be eliminated exactly; use two_time_objective, which then "
            "makes variables of them (eliminate=False)"
        )
    return eliminate


@overload
def two_time_objective(
    parameters: ParameterMap,
    data: AnyData,
    scaling: AbstractScaling | None = None,
    **options: Any,
) -> TwoTimeObjective: ...


@overload
def two_time_objective(
    parameters: SharedParameters,
    data: Sequence[AnyData],
    scaling: Sequence[AbstractScaling | None] | None = None,
    **options: Any,
) -> CombinedObjective: ...


@checked(
    parameters=ParameterMap | SharedParameters,
    data=AnyData | Sequence[AnyData],
    scaling=AbstractScaling | Sequence[AbstractScaling | None] | None,
)
def two_time_objective(  # pyright: ignore[reportInconsistentOverload]
    parameters: Any,
    data: Any,
    scaling: Any = None,
    *,
    eliminate: bool | None = None,
    loss: AbstractLoss | None = None,
    penalties: tuple[AbstractPenalty, ...] = (),
    scaling_penalties: tuple[AbstractScalingPenalty, ...] = (),
    weights: Sequence[float] | None = None,
    noise: float | None = None,
    reference: Float[np.ndarray, "angle 2"] | None = None,
    tile: Count | None = None,
    angle_weights: Any = None,
    driver: AbstractDriver | None = None,
    piece: Count | None = None,
) -> TwoTimeObjective | CombinedObjective:
    """Model and data for a fit: the sum of squares of one data set, or of several together.

    **Arguments:**

    - `parameters`: from `parameter_map` for one data set, from `shared_parameters` for several.
    - `data`: one data set, or a sequence of as many as the parameters are for.
    - `scaling`: how contrast and offset depend on angle, by default `Individual`, which elimination
        makes as cheap as fixed values; of several data sets one for each.
    - `eliminate`: whether contrast and offset are eliminated exactly at every point (variable
        projection), or are variables of the solver like the parameters. By default the first, which
        is cheaper, wherever it is exact: with the linear loss, and penalties linear in them.
    - `loss`: by default `Linear`, least squares.
    - `penalties`: terms in the physical parameters, such as `Pull`; their widths are in the unit
        of what they pull, whatever is known of sigma. Of several data sets they see all parameters
        by public name.
    - `scaling_penalties`: terms in contrast and offset, of each data set.
    - `weights`: weight of the squared residuals of each of several data sets; by default
        `relative_weights`.
    - `noise`: standard deviation of the weighted residuals, by which penalties are weighed. By
        default one where sigma is absolute, else `noise_of` the data.
    - `reference`: (contrast, offset) by angle about which sums are formed; by default from the
        quantiles of the data. It affects rounding only.
    - `tile`: frames along the side of a tile.
    - `angle_weights`: weight of the squared residuals of each angle; of several data sets a
        sequence with an array, or None, for each.
    - `driver`: how the sum over tiles is carried out; by default one compiled loop for data in
        memory, and one for each piece of data in a file.
    - `piece`: size of the pieces of data in a file [bytes].

    **Raises:** `PrecisionError` in single precision; `ModelError` when model, scaling and data do
    not belong together, there are more parameters than pairs, elimination is asked for and would
    not be exact, penalties have no noise to be weighed by, or an argument is for one data set and
    there are several, or the reverse; `DataError` as `relative_weights`.
    """
    loss = Linear() if loss is None else loss
    eliminate = _eliminated(eliminate, loss, scaling_penalties)
    if isinstance(parameters, SharedParameters):
        if reference is not None:
            raise ModelError(
                "reference is for one data set, and shared_parameters are for several; leave it out"
            )
        how = {
            "eliminate": eliminate,
            "loss": loss,
            "scaling_penalties": scaling_penalties,
            "tile": tile,
            "driver": driver,
            "piece": piece,
        }
        return _of_several(parameters, data, scaling, weights, angle_weights, penalties, noise, how)
    if weights is not None or isinstance(data, list | tuple):
        raise ModelError(
            "several data sets, and their weights, need the parameters of several: make them with "
            "shared_parameters; for one data set give the data themselves, and angle_weights"
        )
    require_double_precision()
    parameters = _as_measured(parameters, (data,))
    scaling = Individual(data.n_angles) if scaling is None else scaling
    _check_together(parameters, data, scaling)

    def as_float(leaf):
        return jnp.asarray(leaf, dtype=float)

    reference = quantile_scaling(data) if reference is None else reference
    tiles = source_of(data, tile=tile, angle_weights=angle_weights, piece=piece)
    if driver is None:
        driver = HostLoop() if isinstance(tiles, AbstractPieces) else Scan()
    sd = known_noise(tiles, data.absolute_sigma, noise) if penalties else np.nan
    tiles, reference = driver.place(tiles, as_float(reference))
    whole_maps = isinstance(data, TwoTimeData | StoredTwoTime)
    term = TwoTimeTerm(
        parameters=parameters,
        scaling=scaling,
        tiles=tiles,
        t=as_float(data.t),
        geometry=jax.tree.map(as_float, data.geometry),
        reference=reference,  # pyright: ignore[reportArgumentType]
        diagonal=as_float(data.diagonal) if whole_maps else None,
        driver=driver,
        noise=np.asarray(sd),  # pyright: ignore[reportArgumentType]
        absolute_sigma=data.absolute_sigma,
        baseline_guessed=data.provenance.baseline_guessed,
        doubts=data.provenance.doubts,
    )
    if eliminate:
        return ProjectedObjective(parameters, term, penalties, scaling_penalties)  # pyright: ignore[reportArgumentType]
    variables = joint_variables(parameters, term.scaling)
    return JointObjective(variables, term, penalties, loss, scaling_penalties)


@checked()
def projected_objective(
    parameters: ParameterMap, data: AnyData, scaling: AbstractScaling | None = None, **options: Any
) -> ProjectedObjective:
    """Model and data for a fit in which contrast and offset are solved for exactly.

    It is `two_time_objective` of one data set with `eliminate=True`.

    **Raises:** as `two_time_objective`.
    """
    return two_time_objective(parameters, data, scaling, eliminate=True, **options)  # pyright: ignore[reportReturnType]


def _of_several(
    parameters: SharedParameters,
    data: Sequence[AnyData],
    scaling: Sequence[AbstractScaling | None] | None,
    weights: Sequence[float] | None,
    angle_weights: Sequence[Float[np.ndarray, "angle"] | None] | None,
    penalties: tuple[AbstractPenalty, ...],
    noise: float | None,
    how: dict[str, Any],
) -> CombinedObjective:
    if not isinstance(data, Sequence):
        raise ModelError(
            f"the parameters are for several data sets, but the data are one "
            f"{type(data).__name__}; give a list of data sets, or the parameters of one model from "
            "parameter_map"
        )
    data, count = tuple(data), len(parameters.maps)
    parameters = dataclasses.replace(parameters, whole=_as_measured(parameters.whole, data))
    chosen = (None,) * count if scaling is None else tuple(scaling)
    given = relative_weights(data) if weights is None else np.asarray(weights, dtype=float)
    if not len(data) == len(chosen) == count or given.shape != (count,):
        raise ModelError(
            f"the parameters are for {count} data sets, but there are {len(data)} data sets, "
            f"{len(chosen)} scalings and {given.size} weights"
        )
    if not np.all(np.isfinite(given) & (given > 0)):
        raise ModelError(f"the weights {given.tolist()} of data sets must be above zero")
    angles = (None,) * count if angle_weights is None else tuple(angle_weights)
    if len(angles) != count:
        raise ModelError(
            f"there are {count} data sets and angle weights of {len(angles)}; give an array, or "
            "None, for each data set"
        )
    by_angle = [
        w * (np.ones(one.n_angles) if own is None else np.asarray(own, dtype=float))
        for one, w, own in zip(data, given, angles, strict=True)
    ]
    parts = tuple(
        two_time_objective(local, one, mapper, angle_weights=w, **how)
        for local, one, mapper, w in zip(parameters.maps, data, chosen, by_angle, strict=True)
    )
    variables = combined_variables(parameters.whole, parts)
    sd = np.asarray(noise_of_all(parts, noise) if penalties else np.nan)
    return CombinedObjective(variables, parameters, parts, penalties, sd)  # pyright: ignore[reportArgumentType]


def residual(objective: AbstractObjective, y: Float[Array, "variable"]) -> Float[Array, "point"]:
    """All weighted residuals as one vector, for small data and other solvers.

    Half the sum of their squares is the cost of a linear loss without penalties. Pairs of weight
    zero contribute zeros. Differentiable; memory grows with the data.

    **Arguments:**

    - `objective`: from `two_time_objective`, whose contrast and offset are those that suit `y` best
        where they are eliminated, or from `curve_objective`. A robust loss and penalties are left
        out.
    - `y`: solver coordinates, in the order of `objective.names` (the scaling comes last, while
        `Fit.values` begins with it). They are not physical variables x, as coordinates of a rate
        are logarithms and slopes: `objective.variables.to_coordinates(x)` gives them,
        `to_physical(y)` leads back, and `objective.start` is an x.

    **Raises:** `ModelError` for data that are not in memory, a `y` of another length, and an
    objective of another kind.
    """
    kinds = CombinedObjective, CurveObjective, ProjectedObjective, JointObjective
    if not isinstance(objective, kinds):
        raise ModelError(
            f"the residuals of a {type(objective).__name__} are not known; give one of "
            "two_time_objective or curve_objective"
        )
    y, size = jnp.asarray(y), len(objective.names)
    if y.shape != (size,):
        raise ModelError(
            f"y has shape {y.shape}; give the {size} coordinates of "
            f"{', '.join(objective.names)}, as objective.variables.to_coordinates(x) makes them"
        )
    if isinstance(objective, CombinedObjective):
        own, _ = objective.local(y)
        parts = zip(objective.parts, own, strict=True)
        return jnp.concatenate([residual(part, local) for part, local in parts])
    if isinstance(objective, CurveObjective):
        points, model = objective.points, objective.model
        if not isinstance(points, ArrayPoints):
            raise ModelError(
                "all residuals at once need points in memory, but these come from a source; use "
                "curve_objective"
            )

        def of_chunk(*columns):
            return model.residuals(points.chunk(*columns), y)(y)

        return jax.vmap(of_chunk)(points.x, points.y, points.root_weights).reshape(-1)
    return _of_pairs(objective, y)


def _of_pairs(objective: TwoTimeObjective, y):
    term, tiles = objective.term, objective.term.tiles
    if isinstance(tiles, AbstractPieces):
        raise ModelError(
            "all residuals at once need data in memory, but these are read piece by piece; use "
            "`Fit.residuals` of one angle, or read a part of the data with load"
        )
    p = term.parameters.n_free
    if isinstance(objective, JointObjective):
        coefficients = y[p:]
    else:
        coefficients, _ = objective.best_scaling(y, term.reference)
    table, per_angle = term.table(y[:p], False), term.scaling.per_angle(coefficients)

    def one(row):
        block = tiles.block(row)
        contrast, offset = per_angle[block.angle]
        difference = offset + contrast * block_correlation(table, block) - block.values
        return block.root_weights * difference

    return jax.vmap(one)(jnp.asarray(tiles.table)).reshape(-1)
