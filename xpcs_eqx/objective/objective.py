"""Objectives: what a solver asks for, made from model, scaling and data."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float

from ..data import Geometry, StoredTwoTime, TwoTimeData
from ..errors import ModelError, PrecisionError
from ..parameters import AbstractVariables, ParameterMap
from ..scaling import AbstractScaling, Individual, quantile_scaling
from .blocks import block_correlation, block_cost, block_equations
from .drivers import AbstractDriver, HostLoop, Scan
from .frame_table import FrameTable, check_model, frame_table
from .losses import AbstractLoss, Linear
from .normal_equations import NormalEquations
from .penalties import AbstractPenalty, penalty_equations
from .pieces import AbstractPieces
from .projection import eliminate, joint_equations, move_scaling, solve_scaling
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
    """Model and data of one two-time data set, ready to be summed over."""

    parameters: ParameterMap
    scaling: AbstractScaling
    tiles: AbstractTiles | AbstractPieces
    t: Float[Array, "frame"]
    geometry: Geometry
    reference: Float[Array, "angle 2"]
    diagonal: Float[Array, "angle frame"] | None
    driver: AbstractDriver
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


class AbstractObjective(eqx.Module):
    """A sum of squares in solver coordinates.

    `evaluate` returns normal equations and a memo; the memo of the last accepted point is handed
    to the next evaluation, which may use it for precision but not for the value.
    """

    variables: AbstractVar[AbstractVariables]

    @property
    @abstractmethod
    def traceable(self) -> bool:
        """Whether `evaluate` may be compiled as a whole; else it loops in Python."""

    @property
    @abstractmethod
    def start(self) -> Float[Array, "variable"]:
        """Physical variables at the start."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""

    @property
    @abstractmethod
    def memo(self) -> Any:
        """The memo of the first evaluation."""

    @abstractmethod
    def evaluate(self, y: Float[Array, "variable"], memo: Any) -> tuple[NormalEquations, Any]:
        """Normal equations at coordinates `y`, and the memo that belongs to them."""

    @abstractmethod
    def cost(self, y: Float[Array, "variable"], memo: Any) -> Float[Array, ""]:
        """The cost alone, for less."""


class Memo(eqx.Module):
    """What is known of a point beside the equations of the solver's variables.

    - `scaling`: (contrast, offset) by angle; `coefficients`: the scaling coefficients.
    - `equations`: of each angle for (coordinates at contrast 1, contrast, offset), at `scaling`.
    """

    scaling: Float[Array, "angle 2"]
    coefficients: Float[Array, "coefficient"]
    equations: NormalEquations


def _first_memo(term: TwoTimeTerm) -> Memo:
    n_angles = term.reference.shape[0]
    columns = term.parameters.n_free + 2
    blank = jax.eval_shape(lambda: NormalEquations.zero(columns, (n_angles,)))
    # By NumPy: an eager operation of JAX is a compilation.
    zero = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), blank)
    return Memo(term.reference, np.zeros(term.scaling.size, zero.cost.dtype), zero)  # pyright: ignore[reportArgumentType]


@eqx.filter_jit
def _project(variables, scaling, penalties, equations, y, reference):
    """Equations of the coordinates alone, with the scaling that suits them best."""
    coefficients, held = solve_scaling(equations, reference, scaling)
    per_angle = scaling.per_angle(coefficients)
    moved = move_scaling(equations, reference, per_angle)
    joint = joint_equations(moved, per_angle[:, 0], scaling)
    reduced = eliminate(joint, y.shape[0], held)
    penalty = penalty_equations(penalties, variables, y)
    return reduced + penalty, Memo(per_angle, coefficients, moved)


@eqx.filter_jit
def _assemble(parameters, scaling, penalties, equations, y):
    """Equations of coordinates and scaling coefficients together."""
    p = parameters.n_free
    per_angle = scaling.per_angle(y[p:])
    joint = joint_equations(equations, per_angle[:, 0], scaling)
    penalty = penalty_equations(penalties, parameters, y[:p])
    total = joint + penalty.transform(jnp.eye(p, y.shape[0]))
    return total, Memo(per_angle, y[p:], equations)


class ProjectedObjective(AbstractObjective):
    """Least squares in the physical parameters; the scaling is re-solved exactly at every point."""

    variables: ParameterMap  # pyright: ignore[reportIncompatibleVariableOverride]
    term: TwoTimeTerm
    penalties: tuple[AbstractPenalty, ...]

    @property
    def traceable(self):
        return self.term.driver.traceable

    @property
    def start(self):
        return self.variables.start

    @property
    def names(self):
        return self.variables.free_names

    @property
    def memo(self):
        return _first_memo(self.term)

    def evaluate(self, y, memo):
        equations = self.term.angle_equations(y, memo.scaling, Linear())
        scaling = self.term.scaling
        return _project(self.variables, scaling, self.penalties, equations, y, memo.scaling)

    def cost(self, y, memo):
        scaling = self.term.scaling
        equations = self.term.angle_cost(y, memo.scaling, Linear())
        coefficients, _ = solve_scaling(equations, memo.scaling, scaling)
        per_angle = scaling.per_angle(coefficients)
        moved = move_scaling(equations, memo.scaling, per_angle)
        return jnp.sum(moved.cost) + penalty_equations(self.penalties, self.variables, y).cost


class JointVariables(AbstractVariables):
    """Free physical parameters followed by the scaling coefficients."""

    parameters: ParameterMap
    lower: Float[Array | np.ndarray, "variable"]
    upper: Float[Array | np.ndarray, "variable"]
    coordinate_scale: Float[Array | np.ndarray, "variable"]

    def to_physical(self, y):
        p = self.parameters.n_free
        return jnp.concatenate([self.parameters.to_physical(y[:p]), y[p:]])

    def to_coordinates(self, x):
        p = self.parameters.n_free
        return jnp.concatenate([self.parameters.to_coordinates(x[:p]), x[p:]])


class JointObjective(AbstractObjective):
    """Any loss in physical parameters and scaling coefficients together."""

    variables: JointVariables  # pyright: ignore[reportIncompatibleVariableOverride]
    term: TwoTimeTerm
    penalties: tuple[AbstractPenalty, ...]
    loss: AbstractLoss

    @property
    def traceable(self):
        return self.term.driver.traceable

    @property
    def start(self):
        parameters = self.variables.parameters
        coefficients = self.term.scaling.from_per_angle(self.term.reference)
        return jnp.concatenate([parameters.start, coefficients])

    @property
    def names(self):
        return self.variables.parameters.free_names + self.term.scaling.names

    @property
    def memo(self):
        return _first_memo(self.term)

    def evaluate(self, y, memo):
        del memo
        parameters, scaling = self.variables.parameters, self.term.scaling
        p = parameters.n_free
        equations = self.term.angle_equations(y[:p], scaling.per_angle(y[p:]), self.loss)
        return _assemble(parameters, scaling, self.penalties, equations, y)

    def cost(self, y, memo):
        p = self.variables.parameters.n_free
        per_angle = self.term.scaling.per_angle(y[p:])
        equations = self.term.angle_cost(y[:p], per_angle, self.loss)
        penalty = penalty_equations(self.penalties, self.variables.parameters, y[:p])
        return jnp.sum(equations.cost) + penalty.cost


def require_double_precision() -> None:
    """Refuse to work in single precision.

    **Raises:** `PrecisionError` with the line that switches double precision on.
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise PrecisionError(
            "JAX runs in single precision, in which normal equations of a map lose their meaning. "
            'Put jax.config.update("jax_enable_x64", True) at the top of the program'
        )


def _term(parameters, data, scaling, reference, tile, angle_weights, driver, piece):
    require_double_precision()
    check_model(parameters.model, data.t, data.geometry)
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
    tiles, reference = driver.place(tiles, as_float(reference))
    return TwoTimeTerm(
        parameters=parameters,
        scaling=scaling,
        tiles=tiles,
        t=as_float(data.t),
        geometry=jax.tree.map(as_float, data.geometry),
        reference=reference,
        diagonal=(
            as_float(data.diagonal) if isinstance(data, TwoTimeData | StoredTwoTime) else None
        ),
        driver=driver,
        absolute_sigma=data.absolute_sigma,
    )


def projected_objective(
    parameters: ParameterMap,
    data: AnyData,
    scaling: AbstractScaling | None = None,
    *,
    penalties: tuple[AbstractPenalty, ...] = (),
    reference: Float[np.ndarray, "angle 2"] | None = None,
    tile: int | None = None,
    angle_weights: Float[np.ndarray, "angle"] | None = None,
    driver: AbstractDriver | None = None,
    piece: int | None = None,
) -> ProjectedObjective:
    """Least squares with contrast and offset eliminated exactly.

    **Arguments:**

    - `scaling`: by default `Individual`, which elimination makes as cheap as fixed values.
    - `reference`: (contrast, offset) by angle about which sums are formed; by default from the
        quantiles of the data. It affects rounding only.
    - `tile`: frames along the side of a tile.
    - `angle_weights`: weight of the squared residuals of each angle.
    - `driver`: how the sum over tiles is carried out; by default one compiled loop for data in
        memory, and one for each piece of data in a file.
    - `piece`: size of the pieces of data in a file [bytes].

    **Raises:** `PrecisionError` in single precision; `ModelError` when model, scaling and data do
    not belong together or there are more parameters than pairs.
    """
    term = _term(parameters, data, scaling, reference, tile, angle_weights, driver, piece)
    return ProjectedObjective(parameters, term, penalties)


def joint_objective(
    parameters: ParameterMap,
    data: AnyData,
    scaling: AbstractScaling | None = None,
    *,
    loss: AbstractLoss | None = None,
    penalties: tuple[AbstractPenalty, ...] = (),
    reference: Float[np.ndarray, "angle 2"] | None = None,
    tile: int | None = None,
    angle_weights: Float[np.ndarray, "angle"] | None = None,
    driver: AbstractDriver | None = None,
    piece: int | None = None,
) -> JointObjective:
    """As `projected_objective`, for any loss, with the scaling as ordinary variables."""
    term = _term(parameters, data, scaling, reference, tile, angle_weights, driver, piece)
    lower, upper = term.scaling.bounds
    variables = JointVariables(
        parameters=parameters,
        lower=np.concatenate([parameters.lower, lower]),
        upper=np.concatenate([parameters.upper, upper]),
        coordinate_scale=np.concatenate([parameters.coordinate_scale, np.full(lower.shape, 0.1)]),
    )
    return JointObjective(variables, term, penalties, Linear() if loss is None else loss)


def two_time_objective(
    parameters: ParameterMap,
    data: AnyData,
    scaling: AbstractScaling | None = None,
    *,
    loss: AbstractLoss | None = None,
    **keywords: Any,
) -> ProjectedObjective | JointObjective:
    """The cheaper objective that fits the loss: projected for the linear one, joint otherwise."""
    if loss is None or isinstance(loss, Linear):
        return projected_objective(parameters, data, scaling, **keywords)
    return joint_objective(parameters, data, scaling, loss=loss, **keywords)


def residual(objective: JointObjective, y: Float[Array, "variable"]) -> Float[Array, "point"]:
    """All weighted residuals as one vector, for small data and other solvers.

    Pairs of weight zero contribute zeros. Differentiable; memory grows with the data.

    **Raises:** `ModelError` for data that are not in memory.
    """
    p = objective.variables.parameters.n_free
    term, tiles = objective.term, objective.term.tiles
    if isinstance(tiles, AbstractPieces):
        raise ModelError(
            "all residuals at once need data in memory, but these are read piece by piece; use "
            "`Fit.residuals` of one angle, or read a part of the data with load"
        )
    table = term.table(y[:p], False)
    per_angle = term.scaling.per_angle(y[p:])

    def one(row):
        block = tiles.block(row)
        correlation = block_correlation(table, block)
        scaling = per_angle[block.angle]
        return block.root_weights * (scaling[1] + scaling[0] * correlation - block.values)

    rows = jnp.asarray(tiles.table)
    return jax.vmap(one)(rows).reshape(-1)
