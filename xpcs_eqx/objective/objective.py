"""Objectives: what a solver asks for, made from model, scaling and data."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float

from ..errors import ModelError
from ..parameters import AbstractVariables, ParameterMap
from ..scaling import AbstractScaling
from .drivers import AbstractDriver
from .losses import AbstractLoss, Linear
from .normal_equations import NormalEquations
from .penalties import AbstractPenalty, penalty_equations
from .projection import eliminate, joint_equations, move_scaling, solve_scaling
from .scaling_penalties import (
    AbstractLinearScalingPenalty,
    AbstractScalingPenalty,
    scaling_penalty_equations,
)
from .sources import AnyData
from .term import TwoTimeTerm, term_of


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
