"""The points of a curve with what was fitted to them, and the curve between them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..errors import FitError
from ..fitting import Fit
from ..objective import CurveObjective

# Values of a function that differ by less [of the largest] are the same but for rounding.
_ROUNDING = 1e-9


class FittedPoints(NamedTuple):
    """Points of a curve that count, one entry for each, in the order of the data.

    - `x`: abscissae; `y`, `fitted`: measured and fitted; `residual`: y − fitted.
    - `sigma`: standard deviations of y: as given, or times what the residuals say of their size
        where only their ratios were; None where nothing is known of single points.
    - `step`: of every how many points.
    """

    x: Float[np.ndarray, "point *coordinate"]
    y: Float[np.ndarray, "point"]
    fitted: Float[np.ndarray, "point"]
    residual: Float[np.ndarray, "point"]
    sigma: Float[np.ndarray, "point"] | None
    step: int


@quick_jit
def _values(model, x, parameters):
    return jnp.broadcast_to(model.values(x, parameters), x.shape[:1])


def _objective(fit: Fit) -> CurveObjective:
    objective = fit.objective
    if not isinstance(objective, CurveObjective):
        raise FitError("the data are no points of a curve; fitted_maps and fitted_bins have maps")
    return objective


def fitted_points(fit: Fit, most: int | None = None) -> FittedPoints:
    """Data and fit of a curve; of more than `most` points some, evenly chosen.

    **Raises:** `FitError` for a fit of maps; `DataError` for a source that cannot be read.
    """
    objective = _objective(fit)
    model, parameters = objective.model, jnp.asarray(fit.x)
    count = objective.points.survey(model).count
    step = 1 if most is None else max(1, -(-count // most))
    seen, found = 0, []
    for chunk in objective.points.chunks():
        x, y, _ = model.points(chunk, jnp.result_type(float))
        values = np.asarray(_values(model, x, parameters))
        used = np.flatnonzero(model.root_weights(chunk) > 0)
        mine = used[-seen % step :: step]
        seen += used.size
        columns = (np.asarray(x), np.asarray(y), values, np.asarray(chunk.root_weights, float))
        found.append([one[mine] for one in columns])
    x, y, fitted, root = (np.concatenate(each) for each in zip(*found, strict=True))
    absolute = objective.absolute_sigma
    known = absolute or np.any(root != root[0])
    sigma = (1.0 if absolute else fit.residual_sd) / root if known else None
    return FittedPoints(x, y, fitted, y - fitted, sigma, step)


def curve_between(fit: Fit, x: Float[np.ndarray, "point"]) -> Float[np.ndarray, "point"] | None:
    """The fitted function at other abscissae than those of the data.

    None where it has more than one coordinate, or goes by the place of a point among the others
    and not by its x alone, so that there is nothing between the points.
    """
    objective = _objective(fit)
    model, parameters = objective.model, jnp.asarray(fit.x)
    first = next(iter(objective.points.chunks()))
    own = np.asarray(model.points(first, jnp.result_type(float))[0])
    if own.ndim > 1:
        return None
    # As many at once as in the fit: a function may have been written for so many.
    there, back = (np.asarray(_values(model, each, parameters)) for each in (own, own[::-1].copy()))
    if np.max(np.abs(there - back[::-1])) > _ROUNDING * np.max(np.abs(there)):
        return None
    rows = np.append(x, np.repeat(x[-1:], -x.size % own.size)).reshape(-1, own.size)
    return np.concatenate([np.asarray(_values(model, row, parameters)) for row in rows])[: x.size]
