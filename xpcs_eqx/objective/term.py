"""Model and data of one two-time data set, put together to be summed over."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..data import Geometry, StoredTwoTime, TwoTimeData
from ..errors import DataError, ModelError, PrecisionError
from ..parameters import ParameterMap
from ..physics import PowerLawRate
from ..scaling import AbstractScaling, Individual, quantile_scaling
from .blocks import block_cost, block_equations
from .drivers import AbstractDriver, HostLoop, Scan
from .frame_table import FrameTable, check_model, frame_table
from .losses import AbstractLoss
from .noise import known_noise
from .normal_equations import NormalEquations
from .pieces import AbstractPieces
from .sources import AnyData, source_of
from .tiles import AbstractTiles


def _equations(args, block):
    table, scaling, loss = args
    return block_equations(table, block, scaling[block.angle, 0], scaling[block.angle, 1], loss)


def _cost(args, block):
    table, scaling, loss = args
    return block_cost(table, block, scaling[block.angle, 0], scaling[block.angle, 1], loss)


# What surrounds the sum is compiled by itself, so that a driver that loops in Python need not trace
# its loop; inside a larger compiled function these calls disappear.
_table = eqx.filter_jit(frame_table)


class TwoTimeTerm(eqx.Module):
    """Model and data of one two-time data set, ready to be summed over.

    - `noise`: standard deviation that noise gives to the weighted residuals, by which penalties are
        weighed; NaN as long as there are none.
    """

    parameters: ParameterMap
    scaling: AbstractScaling
    tiles: AbstractTiles | AbstractPieces
    t: Float[Array, "frame"]
    geometry: Geometry
    reference: Float[Array, "angle 2"]
    diagonal: Float[Array, "angle frame"] | None
    driver: AbstractDriver
    noise: Float[Array, ""]
    absolute_sigma: bool = eqx.field(static=True)

    def table(self, y: Float[Array, "free"], differentiate: bool = True) -> FrameTable:
        """Features of the model at the coordinates `y`."""
        return _table(self.parameters, y, self.t, self.geometry, differentiate)

    def angle_equations(
        self, y: Float[Array, "free"], scaling: Float[Array, "angle 2"], loss: AbstractLoss
    ) -> NormalEquations:
        """Equations of each angle for (coordinates at contrast 1, contrast, offset)."""
        zero = NormalEquations.zero(y.shape[0] + 2, (scaling.shape[0],), y.dtype)
        return self.driver.sum(_equations, (self.table(y), scaling, loss), self.tiles, zero)

    def angle_cost(
        self, y: Float[Array, "free"], scaling: Float[Array, "angle 2"], loss: AbstractLoss
    ) -> NormalEquations:
        """As `angle_equations` for (contrast, offset) alone, without derivatives of the model."""
        zero = NormalEquations.zero(2, (scaling.shape[0],), y.dtype)
        return self.driver.sum(_cost, (self.table(y, False), scaling, loss), self.tiles, zero)


def require_double_precision(data: str = "a map") -> None:
    """Refuse to work in single precision; `data` says of what the normal equations are.

    **Raises:** `PrecisionError` with the line that switches double precision on.
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise PrecisionError(
            f"JAX runs in single precision, in which normal equations of {data} lose their "
            "meaning. "
            'Put jax.config.update("jax_enable_x64", True) at the top of the program'
        )


def _check_ages(model: object, t: np.ndarray) -> None:
    """Refuse frames before t = 0 for a model with power laws, which begin there."""

    def is_power_law(node):
        return isinstance(node, PowerLawRate)

    power_laws = any(map(is_power_law, jax.tree.leaves(model, is_leaf=is_power_law)))
    early = np.flatnonzero(np.asarray(t) < 0)
    if power_laws and early.size:
        raise DataError(
            f"{early.size} frames are before t = 0, the first at {np.min(t):g} s, where a power "
            "law of the age has no value; count time from the beginning of the process "
            "(time_origin), leave these frames out, or take another rate"
        )


def term_of(
    parameters: ParameterMap,
    data: AnyData,
    scaling: AbstractScaling | None,
    reference: Float[np.ndarray, "angle 2"] | None,
    tile: int | None,
    angle_weights: Float[np.ndarray, "angle"] | None,
    driver: AbstractDriver | None,
    piece: int | None,
    noise: float | None = None,
    penalised: bool = False,
) -> TwoTimeTerm:
    """Model and data put together. Arguments and errors as in `projected_objective`."""
    require_double_precision()
    check_model(parameters.model, data.t, data.geometry)
    _check_ages(parameters.model, np.asarray(data.t))
    scaling = Individual(data.n_angles) if scaling is None else scaling
    shape = scaling.constant.shape
    if shape[0] != data.n_angles:
        raise ModelError(f"the scaling is for {shape[0]} angles, the data have {data.n_angles}")
    unknowns = parameters.n_free + scaling.size
    if data.n_pairs < unknowns:
        raise ModelError(
            f"{unknowns} parameters ({parameters.n_free} physical, {scaling.size} of the scaling) "
            f"cannot be fitted to {data.n_pairs} pairs; fix some or select more data"
        )
    if reference is None:
        reference = quantile_scaling(data)

    def as_float(leaf):
        return jnp.asarray(leaf, dtype=float)

    tiles = source_of(data, tile=tile, angle_weights=angle_weights, piece=piece)
    if driver is None:
        driver = HostLoop() if isinstance(tiles, AbstractPieces) else Scan()
    sd = known_noise(tiles, data.absolute_sigma, noise) if penalised else np.nan
    tiles, reference = driver.place(tiles, as_float(reference))
    return TwoTimeTerm(
        parameters=parameters,
        scaling=scaling,
        tiles=tiles,
        t=as_float(data.t),
        geometry=jax.tree.map(as_float, data.geometry),
        reference=reference,  # pyright: ignore[reportArgumentType]
        diagonal=(
            as_float(data.diagonal) if isinstance(data, TwoTimeData | StoredTwoTime) else None
        ),
        driver=driver,
        noise=np.asarray(sd),  # pyright: ignore[reportArgumentType]
        absolute_sigma=data.absolute_sigma,
    )
