"""The points of a fit that has no maps: those of a curve, and bins of age and lag."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..compiling import quick_jit
from ..errors import FitError
from ..fitting import Fit
from ..objective import CurveObjective, block_correlation, has_bins

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


class FittedBins(NamedTuple):
    """Bins of age and lag that count, one entry for each.

    - `angle`: number of its angle; `age_bin`, `lag_bin`: numbers of its bins.
    - `age`, `lag`: means over its pairs of frames [s].
    - `c2`, `fitted`, `residual`: measured, fitted, the difference; `root_weights`: in the fit.
    """

    angle: Int[np.ndarray, "bin"]
    age_bin: Int[np.ndarray, "bin"]
    lag_bin: Int[np.ndarray, "bin"]
    age: Float[np.ndarray, "bin"]
    lag: Float[np.ndarray, "bin"]
    c2: Float[np.ndarray, "bin"]
    fitted: Float[np.ndarray, "bin"]
    residual: Float[np.ndarray, "bin"]
    root_weights: Float[np.ndarray, "bin"]

    def grid(self, name: str, angle: int) -> Float[np.ndarray, "age lag"]:
        """A field of one angle on the grid of all ages and lags that there are, NaN elsewhere."""
        shape = (int(self.age_bin.max()) + 1, int(self.lag_bin.max()) + 1)
        out, mine = np.full(shape, np.nan), self.angle == angle
        out[self.age_bin[mine], self.lag_bin[mine]] = getattr(self, name)[mine]
        return out


@quick_jit
def _means(term, y):
    table = term.table(y, False)

    def one(row):
        block = term.tiles.block(row)
        first, second = term.t[block.first], term.t[block.second]
        age, lag = block.mean(0.5 * (first + second)), block.mean(second - first)
        return block_correlation(table, block), age, lag

    return jax.lax.map(one, jnp.asarray(term.tiles.table))


def fitted_bins(fit: Fit) -> FittedBins:
    """Data and fit of the bins of one data set.

    **Raises:** `FitError` for data that are not means over bins of age and lag.
    """
    term = fit.objective.term
    tiles = term.tiles
    if not has_bins(tiles):
        raise FitError("the data are not means over bins of age and lag; fitted_maps has maps")
    x = np.asarray(fit.values)[fit.index.physical]
    correlation, age, lag = map(np.asarray, _means(term, term.parameters.to_coordinates(x)))
    root, values = np.asarray(tiles.root_weights), np.asarray(tiles.values)
    angle = np.broadcast_to(np.asarray(tiles.angle)[:, None], root.shape)
    fitted = fit.offset[angle] + fit.contrast[angle] * correlation
    used = root > 0
    numbers = (np.asarray(tiles.means.age), np.asarray(tiles.means.lag))
    columns = (angle, *numbers, age, lag, values, fitted, values - fitted, root)
    return FittedBins(*(one[used] for one in columns))


def write_fitted_bins(path: str, fit: Fit) -> None:
    """The fields of `fitted_bins` as an NPZ file, with `phi` [degrees], `q` [1/Å] and `gap` [Å].

    **Raises:** `FitError` as `fitted_bins`; `OSError` when there is no room.
    """
    geometry = fit.objective.term.geometry
    beside: dict[str, Any] = {n: np.asarray(getattr(geometry, n)) for n in ("phi", "q", "gap")}
    np.savez(path, **fitted_bins(fit)._asdict(), **beside)
