"""Objectives of one two-time data set: contrast and offset eliminated, or as variables."""

from abc import abstractmethod
from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import Later
from ..compiling import plain_jit, quick_jit
from ..data import Doubt, Geometry, place_text
from ..parameters import AbstractVariables, ParameterMap
from ..scaling import AbstractScaling
from ..showing import counts_frames
from .drivers.loops import AbstractDriver, AbstractPieces
from .elimination import assemble, eliminate, move_scaling, solve_scaling
from .equations import AbstractObjective, NormalEquations
from .kernel.blocks import block_cost, block_equations
from .kernel.frame_table import FrameTable, frame_table
from .kernel.tiles import AbstractTiles
from .losses import AbstractLoss, Linear
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
_table = plain_jit(frame_table)


class TwoTimeTerm(eqx.Module):
    """Model and data of one two-time data set, ready to be summed over.

    - `noise`: standard deviation that noise gives to the weighted residuals, by which penalties are
        weighed; NaN as long as there are none.
    - `baseline_guessed`: whether 1 was added to maps that look like c2 − 1.
    - `doubts`: about what the data contradict themselves or leave open.
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
    baseline_guessed: bool = eqx.field(static=True, default=False)
    doubts: tuple[Doubt, ...] = eqx.field(static=True, default=())

    def about(self, how: str) -> tuple[str, ...]:
        """Model, data and scaling, and `how` they are fitted, in lines for people."""
        sigma = "known" if self.absolute_sigma else "not known"
        place = place_text(self.t, self.geometry, counts_frames(self.parameters.units))
        return (
            f"  {type(self.parameters.model).__name__} on {place}",
            f"  {how}, sigma {sigma}",
            f"  {self.scaling}",
        )

    @property
    def in_parts(self) -> bool:
        """Whether the sum is best asked for from Python."""
        return self.driver.in_parts(self.tiles)

    def table(self, y: Float[Array, "free"], differentiate: bool = True) -> FrameTable:
        """Features of the model at the coordinates `y`."""
        return _table(self.parameters, y, self.t, self.geometry, differentiate)

    def angle_equations(
        self, y: Float[Array, "free"], scaling: Float[Array, "angle 2"], loss: AbstractLoss
    ) -> NormalEquations:
        """Equations of each angle for (coordinates at contrast 1, contrast, offset)."""
        zero = NormalEquations.zero(y.shape[0] + 2, (scaling.shape[0],), y.dtype)
        return self.driver.sum(_equations, (self.table(y), scaling, loss), self.tiles, zero)

    def lower_equations(self, loss: AbstractLoss, later: Later) -> None:
        """Compile what `angle_equations` runs from Python; `later` is given what takes long."""
        y = np.zeros(self.parameters.n_free)
        zero = NormalEquations.zero(y.size + 2, (self.reference.shape[0],), y.dtype)
        table = _table.prepare(self.parameters, y, self.t, self.geometry, True, later=later)
        args = table, self.reference, loss
        self.driver.lower(_equations, args, self.tiles, zero, later)

    def angle_cost(
        self, y: Float[Array, "free"], scaling: Float[Array, "angle 2"], loss: AbstractLoss
    ) -> NormalEquations:
        """As `angle_equations` for (contrast, offset) alone, without derivatives of the model."""
        zero = NormalEquations.zero(2, (scaling.shape[0],), y.dtype)
        return self.driver.sum(_cost, (self.table(y, False), scaling, loss), self.tiles, zero)


@quick_jit
def _angle_cost(term, y, per_angle, loss):
    return term.angle_cost(y, per_angle, loss)


def angle_cost(
    term: TwoTimeTerm,
    y: Float[Array, "free"],
    per_angle: Float[Array, "angle 2"],
    loss: AbstractLoss,
) -> NormalEquations:
    """`TwoTimeTerm.angle_cost`, compiled where it may be."""
    function = _angle_cost if term.driver.traceable else _angle_cost.function
    return function(term, y, per_angle, loss)


@quick_jit
def _constant_sums(term: TwoTimeTerm, y: Float[Array, "free"]) -> NormalEquations:
    # The model has no weight where contrast and offset are zero: any coordinates do.
    return term.angle_cost(y, jnp.zeros_like(term.reference), Linear()).total()


class Memo(eqx.Module):
    """The equations of each angle at a point, from which those of the variables were made.

    The next evaluation forms its sums about this scaling, where they are small and keep their
    digits; error bars and tables are made of it without another pass over the data.

    - `scaling`: (contrast, offset) by angle; `coefficients`: the scaling coefficients.
    - `equations`: of each angle for (coordinates at contrast 1, contrast, offset), at `scaling`.
    """

    scaling: Float[Array, "angle 2"]
    coefficients: Float[Array, "coefficient"]
    equations: NormalEquations


@plain_jit
def _project(equations, y, reference, parameters, scaling, penalties, on_scaling, noise):
    """Equations of the coordinates alone, with the scaling that suits them best."""
    penalty = partial(scaling_penalty_equations, on_scaling, scaling)
    coefficients, held = solve_scaling(equations, reference, scaling, penalty)
    per_angle = scaling.per_angle(coefficients)
    moved = move_scaling(equations, reference, per_angle)
    data, added = assemble(
        moved, y, coefficients, parameters, scaling, penalties, on_scaling, noise
    )
    return eliminate(data + added, y.shape[0], held), Memo(per_angle, coefficients, moved)


@plain_jit
def _together(equations, y, coefficients, parameters, scaling, penalties, on_scaling, noise):
    """Equations of coordinates and scaling coefficients together."""
    data, added = assemble(
        equations, y, coefficients, parameters, scaling, penalties, on_scaling, noise
    )
    return data + added, Memo(scaling.per_angle(coefficients), coefficients, equations)


class AbstractTwoTimeObjective(AbstractObjective):
    """Least squares of one two-time data set."""

    term: eqx.AbstractVar[TwoTimeTerm]

    @property
    @abstractmethod
    def physical(self) -> ParameterMap:
        """The map of the free physical parameters, which come first among the variables."""

    @property
    def traceable(self):
        return self.term.driver.traceable

    @property
    def in_parts(self):
        return self.term.in_parts

    @property
    def noise(self) -> Float[Array, ""]:
        """Standard deviation of the weighted residuals, by which penalties are weighed."""
        return self.term.noise

    def table(self):
        return self.physical.table()

    @property
    def memo(self):
        term = self.term
        zero = NormalEquations.zero(term.parameters.n_free + 2, (term.reference.shape[0],))
        return Memo(term.reference, np.zeros(term.scaling.size, zero.cost.dtype), zero)  # pyright: ignore[reportArgumentType]

    def lower_parts(self, later):
        self.term.lower_equations(loss_of(self), later)

    def spread(self):
        # From the sums of the cost at contrast and offset zero.
        term = self.term
        y = jnp.asarray(term.parameters.to_coordinates(jnp.asarray(term.parameters.start)))
        sums = (_constant_sums if self.traceable else _constant_sums.function)(term, y)
        slope, weight = float(sums.gradient[1]), float(sums.hessian[1, 1])
        return max(float(sums.cost) - 0.5 * slope**2 / weight, 0.0)


class ProjectedObjective(AbstractTwoTimeObjective):
    """Least squares in the physical parameters; the scaling is re-solved exactly at every point."""

    variables: ParameterMap  # pyright: ignore[reportIncompatibleVariableOverride]
    term: TwoTimeTerm
    penalties: tuple[AbstractPenalty, ...]
    scaling_penalties: tuple[AbstractLinearScalingPenalty, ...] = ()

    @property
    def physical(self):
        return self.variables

    @property
    def start(self):
        return self.variables.start

    @property
    def names(self):
        return self.variables.free_names

    def about(self):
        return self.term.about("least squares, contrast and offset eliminated")

    def evaluate(self, y, memo):
        term, reference = self.term, memo.scaling
        equations = term.angle_equations(y, reference, Linear())
        penalties = (self.penalties, self.scaling_penalties, term.noise)
        return _project(equations, y, reference, self.variables, term.scaling, *penalties)

    def best_scaling(
        self, y: Float[Array, "free"], reference: Float[Array, "angle 2"]
    ) -> tuple[Float[Array, "coefficient"], NormalEquations]:
        """The scaling coefficients that suit `y` best, and the `angle_cost` at `reference`."""
        scaling = self.term.scaling
        equations = self.term.angle_cost(y, reference, Linear())
        penalty = partial(scaling_penalty_equations, self.scaling_penalties, scaling)
        return solve_scaling(equations, reference, scaling, penalty)[0], equations

    def cost(self, y, memo):
        coefficients, equations = self.best_scaling(y, memo.scaling)
        per_angle = self.term.scaling.per_angle(coefficients)
        moved = move_scaling(equations, memo.scaling, per_angle)
        added = penalty_equations(self.penalties, self.variables, y, self.term.noise)
        on_scaling = self.scaling_penalties, self.term.scaling, coefficients
        return jnp.sum(moved.cost) + added.cost + scaling_penalty_equations(*on_scaling).cost


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


class JointObjective(AbstractTwoTimeObjective):
    """Any loss in physical parameters and scaling coefficients together."""

    variables: JointVariables  # pyright: ignore[reportIncompatibleVariableOverride]
    term: TwoTimeTerm
    penalties: tuple[AbstractPenalty, ...]
    loss: AbstractLoss
    scaling_penalties: tuple[AbstractScalingPenalty, ...] = ()

    @property
    def physical(self):
        return self.variables.parameters

    @property
    def start(self):
        parameters = self.variables.parameters
        coefficients = self.term.scaling.from_per_angle(self.term.reference)
        return jnp.concatenate([parameters.start, coefficients])

    @property
    def names(self):
        return self.variables.parameters.free_names + self.term.scaling.names

    def about(self):
        return self.term.about(f"loss {self.loss}, contrast and offset fitted as well")

    def evaluate(self, y, memo):
        del memo
        term, parameters = self.term, self.variables.parameters
        y, coefficients = y[: parameters.n_free], y[parameters.n_free :]
        equations = term.angle_equations(y, term.scaling.per_angle(coefficients), self.loss)
        penalties = (self.penalties, self.scaling_penalties, term.noise)
        return _together(equations, y, coefficients, parameters, term.scaling, *penalties)

    def cost(self, y, memo):
        p = self.variables.parameters.n_free
        per_angle = self.term.scaling.per_angle(y[p:])
        equations = self.term.angle_cost(y[:p], per_angle, self.loss)
        parameters, noise = self.variables.parameters, self.term.noise
        penalty = penalty_equations(self.penalties, parameters, y[:p], noise)
        on_scaling = scaling_penalty_equations(self.scaling_penalties, self.term.scaling, y[p:])
        return jnp.sum(equations.cost) + penalty.cost + on_scaling.cost


def joint_variables(parameters: ParameterMap, scaling: AbstractScaling) -> JointVariables:
    """Free physical parameters followed by the coefficients of a scaling."""
    lower, upper = (np.asarray(side) for side in scaling.bounds)
    return JointVariables(
        parameters=parameters,
        lower=np.concatenate([parameters.lower, lower]),
        upper=np.concatenate([parameters.upper, upper]),
        coordinate_scale=np.concatenate([parameters.coordinate_scale, np.full(lower.shape, 0.1)]),
    )


def loss_of(objective: AbstractObjective) -> AbstractLoss:
    """The loss an objective minimises."""
    return objective.loss if isinstance(objective, JointObjective) else Linear()


def joint_of(objective: ProjectedObjective | JointObjective) -> JointObjective:
    """The same sum of squares with the scaling as ordinary variables."""
    if isinstance(objective, JointObjective):
        return objective
    variables = joint_variables(objective.variables, objective.term.scaling)
    return JointObjective(
        variables, objective.term, objective.penalties, Linear(), objective.scaling_penalties
    )


TwoTimeObjective = ProjectedObjective | JointObjective
