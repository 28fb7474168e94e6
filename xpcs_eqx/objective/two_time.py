"""Model and data of one two-time data set, put together to be summed over."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..data import Geometry, StoredTwoTime, TwoTimeData
from ..errors import DataError, ModelError, PrecisionError
from ..parameters import AbstractVariables, ParameterMap
from ..physics import PowerLawRate
from ..scaling import AbstractScaling, Individual, quantile_scaling
from .drivers.loops import AbstractDriver, HostLoop, Scan
from .drivers.pieces import AbstractPieces
from .drivers.stored import AnyData, source_of
from .elimination import eliminate, joint_equations, move_scaling, solve_scaling
from .equations import NormalEquations
from .kernel.blocks import block_cost, block_equations
from .kernel.frame_table import FrameTable, check_model, frame_table
from .kernel.tiles import AbstractTiles
from .losses import AbstractLoss, Linear
from .noise import known_noise
from .penalties import (
    AbstractLinearScalingPenalty,
    AbstractPenalty,
    AbstractScalingPenalty,
    penalty_equations,
    scaling_penalty_equations,
)


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

    def cost_and_gradient(
        self, y: Float[Array, "variable"], memo: Any
    ) -> tuple[Float[Array, ""], Float[Array, "variable"]]:
        """The cost and Jᵀr. Objectives that make them for less than `evaluate` say how."""
        equations, _ = self.evaluate(y, memo)
        return equations.cost, equations.gradient

    def product(
        self, y: Float[Array, "variable"], v: Float[Array, "variable"]
    ) -> Float[Array, "variable"]:
        """JᵀJ v. Objectives of thousands of variables make it without JᵀJ."""
        return self.evaluate(y, self.memo)[0].hessian @ v

    def diagonal(self, y: Float[Array, "variable"]) -> Float[Array, "variable"]:
        """The diagonal of JᵀJ. Objectives of thousands of variables make it without the rest."""
        return jnp.diagonal(self.evaluate(y, self.memo)[0].hessian)

    def spread(self) -> float:
        """½ Σ w (y − ȳ)² of the data: what a model that is a constant would leave of the cost.

        NaN where nothing is known of it.
        """
        return float("nan")


def _constant_sums(term: TwoTimeTerm, y: Float[Array, "free"]) -> NormalEquations:
    # The model has no weight where contrast and offset are zero: any coordinates do.
    return term.angle_cost(y, jnp.zeros_like(term.reference), Linear()).total()


_constant_sums_compiled = quick_jit(_constant_sums)


def _spread_of(term: TwoTimeTerm) -> float:
    """½ Σ w (y − ȳ)² of all maps, from the sums of the cost at contrast and offset zero."""
    y = jnp.asarray(term.parameters.to_coordinates(jnp.asarray(term.parameters.start)))
    sums = (_constant_sums_compiled if term.driver.traceable else _constant_sums)(term, y)
    slope, weight = float(sums.gradient[1]), float(sums.hessian[1, 1])
    return max(float(sums.cost) - 0.5 * slope**2 / weight, 0.0)


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


def _on_scaling(penalties, scaling):
    """Equations of penalties on contrast and offset, as a function of the coefficients."""
    return lambda coefficients: scaling_penalty_equations(penalties, scaling, coefficients)


def _added(joint, penalties, scaling, coefficients):
    """Equations of (coordinates, coefficients) with the penalties on contrast and offset."""
    if not penalties:
        return joint
    k, size = coefficients.shape[0], joint.gradient.shape[0]
    equations = scaling_penalty_equations(penalties, scaling, coefficients)
    return joint + equations.transform(jnp.eye(k, size, size - k))


@eqx.filter_jit
def _project(variables, scaling, penalties, on_scaling, equations, y, reference, noise):
    """Equations of the coordinates alone, with the scaling that suits them best."""
    penalty = _on_scaling(on_scaling, scaling)
    coefficients, held = solve_scaling(equations, reference, scaling, penalty)
    per_angle = scaling.per_angle(coefficients)
    moved = move_scaling(equations, reference, per_angle)
    joint = joint_equations(moved, per_angle[:, 0], scaling)
    joint = _added(joint, on_scaling, scaling, coefficients)
    reduced = eliminate(joint, y.shape[0], held)
    penalty = penalty_equations(penalties, variables, y, noise)
    return reduced + penalty, Memo(per_angle, coefficients, moved)


@eqx.filter_jit
def _assemble(parameters, scaling, penalties, on_scaling, equations, y, noise):
    """Equations of coordinates and scaling coefficients together."""
    p = parameters.n_free
    per_angle = scaling.per_angle(y[p:])
    joint = joint_equations(equations, per_angle[:, 0], scaling)
    joint = _added(joint, on_scaling, scaling, y[p:])
    penalty = penalty_equations(penalties, parameters, y[:p], noise)
    total = joint + penalty.transform(jnp.eye(p, y.shape[0]))
    return total, Memo(per_angle, y[p:], equations)


class ProjectedObjective(AbstractObjective):
    """Least squares in the physical parameters; the scaling is re-solved exactly at every point."""

    variables: ParameterMap  # pyright: ignore[reportIncompatibleVariableOverride]
    term: TwoTimeTerm
    penalties: tuple[AbstractPenalty, ...]
    scaling_penalties: tuple[AbstractLinearScalingPenalty, ...] = ()

    @property
    def traceable(self):
        return self.term.driver.traceable

    @property
    def physical(self) -> ParameterMap:
        """The map of the free physical parameters, which come first among the variables."""
        return self.variables

    @property
    def noise(self) -> Float[Array, ""]:
        """Standard deviation of the weighted residuals, by which penalties are weighed."""
        return self.term.noise

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
        return _project(
            self.variables,
            self.term.scaling,
            self.penalties,
            self.scaling_penalties,
            equations,
            y,
            memo.scaling,
            self.term.noise,
        )

    def cost(self, y, memo):
        scaling = self.term.scaling
        equations = self.term.angle_cost(y, memo.scaling, Linear())
        penalty = _on_scaling(self.scaling_penalties, scaling)
        coefficients, _ = solve_scaling(equations, memo.scaling, scaling, penalty)
        per_angle = scaling.per_angle(coefficients)
        moved = move_scaling(equations, memo.scaling, per_angle)
        added = penalty_equations(self.penalties, self.variables, y, self.term.noise)
        return jnp.sum(moved.cost) + added.cost + penalty(coefficients).cost

    def spread(self):
        return _spread_of(self.term)


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
    scaling_penalties: tuple[AbstractScalingPenalty, ...] = ()

    @property
    def traceable(self):
        return self.term.driver.traceable

    @property
    def physical(self) -> ParameterMap:
        """The map of the free physical parameters, which come first among the variables."""
        return self.variables.parameters

    @property
    def noise(self) -> Float[Array, ""]:
        """Standard deviation of the weighted residuals, by which penalties are weighed."""
        return self.term.noise

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
        on_scaling, noise = self.scaling_penalties, self.term.noise
        return _assemble(parameters, scaling, self.penalties, on_scaling, equations, y, noise)

    def cost(self, y, memo):
        p = self.variables.parameters.n_free
        per_angle = self.term.scaling.per_angle(y[p:])
        equations = self.term.angle_cost(y[:p], per_angle, self.loss)
        parameters, noise = self.variables.parameters, self.term.noise
        penalty = penalty_equations(self.penalties, parameters, y[:p], noise)
        on_scaling = scaling_penalty_equations(self.scaling_penalties, self.term.scaling, y[p:])
        return jnp.sum(equations.cost) + penalty.cost + on_scaling.cost

    def spread(self):
        return _spread_of(self.term)


def projected_objective(
    parameters: ParameterMap,
    data: AnyData,
    scaling: AbstractScaling | None = None,
    *,
    penalties: tuple[AbstractPenalty, ...] = (),
    scaling_penalties: tuple[AbstractLinearScalingPenalty, ...] = (),
    reference: Float[np.ndarray, "angle 2"] | None = None,
    tile: int | None = None,
    angle_weights: Float[np.ndarray, "angle"] | None = None,
    driver: AbstractDriver | None = None,
    piece: int | None = None,
    noise: float | None = None,
) -> ProjectedObjective:
    """Least squares with contrast and offset eliminated exactly.

    **Arguments:**

    - `scaling`: by default `Individual`, which elimination makes as cheap as fixed values.
    - `penalties`: terms in the physical parameters, such as `Pull`; their widths are in the unit
        of what they pull, whatever is known of sigma.
    - `scaling_penalties`: terms in contrast and offset; their residuals must be linear.
    - `reference`: (contrast, offset) by angle about which sums are formed; by default from the
        quantiles of the data. It affects rounding only.
    - `tile`: frames along the side of a tile.
    - `angle_weights`: weight of the squared residuals of each angle.
    - `driver`: how the sum over tiles is carried out; by default one compiled loop for data in
        memory, and one for each piece of data in a file.
    - `piece`: size of the pieces of data in a file [bytes].
    - `noise`: standard deviation of the weighted residuals, by which penalties are weighed. By
        default one where sigma is absolute, else `noise_of` the data.

    **Raises:** `PrecisionError` in single precision; `ModelError` when model, scaling and data do
    not belong together, there are more parameters than pairs, a penalty on the scaling is not
    linear, or penalties have no noise to be weighed by.
    """
    for penalty in scaling_penalties:
        if not isinstance(penalty, AbstractLinearScalingPenalty):
            raise ModelError(
                f"{type(penalty).__name__} is not linear in contrast and offset, so these cannot "
                "be eliminated exactly; use joint_objective, or two_time_objective, which chooses"
            )
    weighed = (noise, bool(penalties))
    term = term_of(
        parameters, data, scaling, reference, tile, angle_weights, driver, piece, *weighed
    )
    return ProjectedObjective(parameters, term, penalties, scaling_penalties)


def joint_objective(
    parameters: ParameterMap,
    data: AnyData,
    scaling: AbstractScaling | None = None,
    *,
    loss: AbstractLoss | None = None,
    penalties: tuple[AbstractPenalty, ...] = (),
    scaling_penalties: tuple[AbstractScalingPenalty, ...] = (),
    reference: Float[np.ndarray, "angle 2"] | None = None,
    tile: int | None = None,
    angle_weights: Float[np.ndarray, "angle"] | None = None,
    driver: AbstractDriver | None = None,
    piece: int | None = None,
    noise: float | None = None,
) -> JointObjective:
    """As `projected_objective`, for any loss, with the scaling as ordinary variables."""
    weighed = (noise, bool(penalties))
    term = term_of(
        parameters, data, scaling, reference, tile, angle_weights, driver, piece, *weighed
    )
    loss = Linear() if loss is None else loss
    return JointObjective(
        _joint_variables(parameters, term.scaling), term, penalties, loss, scaling_penalties
    )


def _joint_variables(parameters: ParameterMap, scaling: AbstractScaling) -> JointVariables:
    lower, upper = scaling.bounds
    return JointVariables(
        parameters=parameters,
        lower=np.concatenate([parameters.lower, lower]),
        upper=np.concatenate([parameters.upper, upper]),
        coordinate_scale=np.concatenate([parameters.coordinate_scale, np.full(lower.shape, 0.1)]),
    )


def joint_of(objective: ProjectedObjective | JointObjective) -> JointObjective:
    """The same sum of squares with the scaling as ordinary variables."""
    if isinstance(objective, JointObjective):
        return objective
    variables = _joint_variables(objective.variables, objective.term.scaling)
    return JointObjective(
        variables, objective.term, objective.penalties, Linear(), objective.scaling_penalties
    )


def two_time_objective(
    parameters: ParameterMap,
    data: AnyData,
    scaling: AbstractScaling | None = None,
    *,
    loss: AbstractLoss | None = None,
    **keywords: Any,
) -> ProjectedObjective | JointObjective:
    """The cheaper objective: projected for the linear loss, joint otherwise.

    Penalties on the scaling that are not linear ask for the joint one as well.
    """
    on_scaling = keywords.get("scaling_penalties", ())
    exact = all(isinstance(one, AbstractLinearScalingPenalty) for one in on_scaling)
    if exact and (loss is None or isinstance(loss, Linear)):
        return projected_objective(parameters, data, scaling, **keywords)
    return joint_objective(parameters, data, scaling, loss=loss, **keywords)
