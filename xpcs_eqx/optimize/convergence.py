"""How a solver ended."""

from enum import IntEnum

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..compiling import plain_jit
from ..objective import NormalEquations
from ..parameters import AbstractVariables
from .bounded_step import StepProblem, free_directions, step_problem


class Ending(IntEnum):
    """Ways an iteration ends, each with one sentence for a report as its `message`."""

    message: str

    def __new__(cls, number: int, message: str):
        member = int.__new__(cls, number)
        member._value_, member.message = number, message
        return member


class Status(Ending):
    """State of an iteration; positive values mean that it converged.

    >>> import xpcs_eqx as xe
    >>> xe.Status.cost.converged, xe.Status.stalled.converged
    (True, False)
    """

    running = 0, "still running"
    gradient = 1, "converged: the gradient of the cost vanishes"
    cost = 2, "converged: the cost no longer falls"
    step = 3, "converged: the steps are below their tolerance"
    max_evaluations = -1, "stopped: the number of evaluations is used up"
    stalled = -2, "stopped: no step lowers the cost although the gradient does not vanish"
    non_finite = -3, "stopped: the model is not finite at the start"
    interrupted = -4, "stopped: interrupted"
    failed = -5, "failed: every attempt at recovery was used up"

    @property
    def converged(self) -> bool:
        """Whether the point is a minimum to the tolerances."""
        return self > 0


# Ridge on the normal matrix of unit columns. A direction in which these are more alike than its
# root is left open by the data; along it the gradient is rounding.
_RIDGE = 1e-14
# In units of the rounding of a number: change of the model that counts as none at once, and once a
# step has been refused. Sums over many terms, some of which cancel, round coarser than their parts.
_NOTHING, _NEXT_TO_NOTHING = 16.0, 1e4
# Share of the size of the model above which a Gauss–Newton step is no small one, whatever share of
# the cost it promises: far from the data a redescending loss is flat.
LARGE = 1e-3


class Closeness(eqx.Module):
    """How near to a minimum a point is, by its own normal equations.

    - `cosine`: largest cosine between the residuals and a column of the Jacobian.
    - `offset`: the cosine between the residuals and the space of all columns.
    - `change`: of the model by the Gauss–Newton step, relative to Σⱼ ‖Jⱼ‖ |yⱼ|; `large`: whether it
        is beyond a share of Σⱼ ‖Jⱼ‖ (|yⱼ| + sⱼ), s the natural steps.
    - `step`: the Gauss–Newton step, relative to the coordinates and their natural steps.
    - `lost`: whether the model has ceased to depend on a variable it once depended on.
    """

    cosine: Float[Array, ""]
    offset: Float[Array, ""]
    change: Float[Array, ""]
    large: Bool[Array, ""]
    step: Float[Array, ""]
    lost: Bool[Array, ""]

    def is_minimum(self, tolerance: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether the point is a minimum, for a tolerance of the relative offset."""
        small = (self.offset <= tolerance) & ~self.large
        return ~self.lost & (small | (self.change <= _NEXT_TO_NOTHING * _epsilon(self.change)))


def _epsilon(array):
    return jnp.finfo(array.dtype).eps


def closeness(
    problem: StepProblem,
    y: Float[Array, "p"],
    natural: Float[Array, "p"],
    largest: Float[Array, "p"],
    negligible: Float[Array, "p"] | float = 0.0,
) -> Closeness:
    """How near `problem`, the model at `y`, is to its minimum.

    - `y`, `natural`: the coordinates and their natural steps, in the scale of the problem.
    - `largest`: largest diagonal of the normal matrix seen so far, in any scale.
    - `negligible`: gradient of each coordinate, relative to ‖r‖, that counts as none.
    """
    tiny = jnp.finfo(y.dtype).tiny
    project = free_directions(problem)
    gradient = project @ problem.gradient
    diagonal = jnp.maximum(jnp.diagonal(problem.hessian), 0.0)
    column = jnp.sqrt(jnp.maximum(diagonal, tiny))
    length = jnp.sqrt(jnp.maximum(2 * problem.cost, tiny))
    # Columns of length one; directions excluded get curvature, so that nothing is divided by zero.
    unit = project @ problem.hessian @ project / jnp.outer(column, column)
    gradient = jnp.where(jnp.abs(gradient) <= negligible * length, 0.0, gradient)
    slope = gradient / column
    values, vectors = jnp.linalg.eigh(0.5 * (unit + unit.T))
    along = vectors.T @ slope
    curvature = jnp.maximum(values, 0.0) + _RIDGE
    step = vectors @ (along / curvature) / column
    moved = jnp.sqrt(jnp.sum(along**2 / curvature))
    size = jnp.maximum(jnp.sum(column * jnp.abs(y)), tiny)
    return Closeness(
        cosine=jnp.max(jnp.abs(slope), initial=0.0) / length,
        offset=moved / length,
        change=moved / size,
        large=moved > LARGE * (size + jnp.sum(column * natural)),
        step=jnp.max(jnp.abs(step) / (natural + jnp.abs(y)), initial=0.0),
        lost=jnp.any((diagonal == 0) & (largest > 0) & ~problem.held),
    )


def relative_offset(
    variables: AbstractVariables, y: Float[Array, "p"], equations: NormalEquations
) -> Float[Array, ""]:
    """The relative offset of a point from the minimum, by the equations of an objective there.

    Times the root of the number of pairs it is the length of the Gauss–Newton step inside the
    bounds, in units of the error bar of independent pairs.
    """
    return _offset(variables, jnp.asarray(y), equations)


@plain_jit
def _offset(variables, y, equations):
    scale = jnp.asarray(variables.coordinate_scale)
    problem = step_problem(variables, y, scale, equations)
    return closeness(problem, y / scale, jnp.ones_like(y), jnp.zeros_like(y)).offset


class Tried(eqx.Module):
    """What became of the last trial step.

    - `first`: whether there was none yet; `finite`: whether the model was, where it led.
    - `accepted`; `size`: of the step, relative to the coordinates and their natural steps.
    - `cost`: from where it began; `actual`, `predicted`: reductions.
    """

    first: Bool[Array, ""]
    finite: Bool[Array, ""]
    accepted: Bool[Array, ""]
    size: Float[Array, ""]
    cost: Float[Array, ""]
    actual: Float[Array, ""]
    predicted: Float[Array, ""]


class Convergence(eqx.Module):
    """Tolerances of the rule; see `TrustRegion`."""

    cost_tol: Float[Array, ""]
    step_tol: Float[Array, ""]
    gradient_tol: Float[Array, ""]
    offset_tol: Float[Array, ""]

    def status(self, here: Closeness, tried: Tried) -> Int[Array, ""]:
        """How the iteration ends at the accepted point, or that it runs on."""
        epsilon = _epsilon(tried.cost)
        # A tolerance that was widened on purpose widens what counts as a minimum.
        wide = jnp.maximum(self.offset_tol, jnp.sqrt(self.cost_tol))
        minimum = here.is_minimum(jnp.maximum(wide, self.gradient_tol))
        vanishing = (here.cosine <= self.gradient_tol) & minimum
        vanishing |= ~here.lost & (here.change <= _NOTHING * epsilon)
        later, rejected = ~tried.first, ~tried.first & ~tried.accepted
        tiny = self.cost_tol * tried.cost
        flat = later & (jnp.abs(tried.actual) <= tiny) & (jnp.abs(tried.predicted) <= tiny)
        # A gain that rounding hides, and a step that rounding swallows.
        hidden = later & tried.finite & (jnp.abs(tried.predicted) <= 16 * epsilon * tried.cost)
        stuck = rejected & (tried.size <= 4 * epsilon)
        parallel = stuck & ~here.lost & (here.cosine <= self.offset_tol)
        noise = rejected & (here.change <= _NEXT_TO_NOTHING * epsilon)
        short = later & tried.accepted & (tried.size <= self.step_tol)
        short &= minimum | (~here.lost & (here.step <= self.step_tol))
        return jnp.select(
            [
                tried.first & ~tried.finite,
                vanishing,
                ((flat | hidden | stuck | noise) & minimum) | parallel,
                short,
                stuck,
            ],
            [
                int(Status.non_finite),
                int(Status.gradient),
                int(Status.cost),
                int(Status.step),
                int(Status.stalled),
            ],
            int(Status.running),
        )
