"""The bins of a fit, data, fitted means and residuals, as a table and as a file."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..compiling import quick_jit
from ..errors import FitError
from ..fitting import Fit
from ..objective import block_correlation, has_bins


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
