"""A two-time map as a problem of the hybrid optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..objective import (
    JointObjective,
    Linear,
    ProjectedObjective,
)
from ..objective.noise import known_noise
from ..optimize import evaluated
from .problem import AbstractProblem, Survey


@quick_jit
def _coordinates(objective, x):
    return objective.variables.to_coordinates(x)


@quick_jit
def _cost(objective, y, memo):
    return objective.cost(y, memo)


@quick_jit
def _physical(objective, equations, y):
    turn = jnp.linalg.inv(jax.jacfwd(objective.variables.to_physical)(y))
    return equations.transform(turn)


def _constant_sums(objective, y):
    """½ Σ w y², −Σ w y, Σ w and the count, from the cost at contrast and offset zero."""
    nothing = jnp.zeros_like(objective.term.reference)
    total = objective.term.angle_cost(y, nothing, Linear()).total()
    return total.cost, total.gradient[1], total.hessian[1, 1], total.count


_constant_sums_compiled = quick_jit(_constant_sums)


class TwoTimeProblem(AbstractProblem):
    """A two-time objective in its physical variables, where its bounds are a box.

    Contrast and offset of a projected objective are eliminated at every point, as in
    `least_squares`. Outside the domain of the objective's coordinates the cost is not finite, which
    a phase takes for a bad step.

    - `begin`: physical variables to start from; by default the start of the objective.
    """

    objective: ProjectedObjective | JointObjective
    begin: Float[np.ndarray, "variable"] | None = None

    @property
    def lower(self) -> Float[np.ndarray, "variable"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Lower bounds of the physical variables."""
        return np.asarray(self.objective.variables.lower, dtype=float)

    @property
    def upper(self) -> Float[np.ndarray, "variable"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Upper bounds of the physical variables."""
        return np.asarray(self.objective.variables.upper, dtype=float)

    @property
    def start(self) -> Float[np.ndarray, "variable"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Start values of the physical variables."""
        begin = self.objective.start if self.begin is None else self.begin
        return np.asarray(begin, dtype=float)

    @property
    def names(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Names of the physical variables."""
        return self.objective.names

    @property
    def noise(self) -> float:
        """One where sigma is absolute, else estimated from the maps."""
        term = self.objective.term
        found = float(term.noise)
        return known_noise(term.tiles, term.absolute_sigma) if np.isnan(found) else found

    def survey(self):
        # Any coordinates do: the model has no weight in these sums.
        y = _coordinates(self.objective, self.start)
        sums = _constant_sums_compiled if self.objective.traceable else _constant_sums
        square, slope, weight, count = (float(value) for value in sums(self.objective, y))
        variance = (2 * square - slope**2 / weight) / count
        eliminated = 0
        if isinstance(self.objective, ProjectedObjective):
            eliminated = self.objective.term.scaling.size
        return Survey(int(count), max(variance, 0.0), eliminated)

    def equations(self, y):
        coordinates = _coordinates(self.objective, np.asarray(y, dtype=float))
        found, _ = evaluated(self.objective, coordinates, self.objective.memo)
        return jax.tree.map(np.asarray, _physical(self.objective, found, coordinates))

    def cost(self, y: Float[np.ndarray, "variable"]) -> float:
        """The cost alone, for less; not finite outside the domain of the coordinates."""
        coordinates = _coordinates(self.objective, np.asarray(y, dtype=float))
        objective = self.objective
        if objective.traceable:
            return float(_cost(objective, coordinates, objective.memo))
        return float(objective.cost(coordinates, objective.memo))

    def cost_and_gradient(self, y):
        found = self.equations(y)
        return float(found.cost), np.asarray(found.gradient)

    def hessian_vector(self, y, v):
        return np.asarray(self.equations(y).hessian) @ v

    def diagonal(self, y):
        return np.diagonal(np.asarray(self.equations(y).hessian)).copy()
