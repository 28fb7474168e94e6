"""What the phases ask of a least-squares problem, whatever its data and wherever they lie."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import numpy as np
from equinox import AbstractVar
from jaxtyping import Float

from ..objective import InfluenceSums, NormalEquations


class Survey(eqx.Module):
    """What one pass over the data tells before any model is evaluated.

    - `count`: points that have a weight.
    - `variance`: weighted mean square of the data about their weighted mean, in units of σ².
    - `eliminated`: linear parameters that are fitted along without being variables.
    """

    count: int
    variance: float
    eliminated: int = 0


class Influence(NamedTuple):
    """At a point: JᵀJ without any factor of the loss, sums over influences, JᵀJ of penalties."""

    hessian: Float[np.ndarray, "variable variable"] | None
    sums: InfluenceSums
    penalty: Float[np.ndarray, "variable variable"] | None = None


class AbstractProblem(eqx.Module):
    """A sum of squares ½ Σ ρ in variables y inside a box.

    Every method passes over the data once. Values are NumPy arrays of float64: what is left of the
    data is small, and the phases work on it on the host.
    """

    lower: AbstractVar[Float[np.ndarray, "variable"]]
    upper: AbstractVar[Float[np.ndarray, "variable"]]
    start: AbstractVar[Float[np.ndarray, "variable"]]
    names: AbstractVar[tuple[str, ...]]

    @property
    def noise(self) -> float:
        """Standard deviation of the residuals, by which penalties are weighed: one where they are
        in units of sigma, which is one itself where none is given, as in SciPy."""
        return 1.0

    @abstractmethod
    def survey(self) -> Survey:
        """Number of points and variance of the data.

        **Raises:** `DataError` for data that cannot be used.
        """

    @abstractmethod
    def cost_and_gradient(
        self, y: Float[np.ndarray, "variable"]
    ) -> tuple[float, Float[np.ndarray, "variable"]]:
        """½ Σ ρ and its gradient; may be non-finite where the model is."""

    @abstractmethod
    def equations(self, y: Float[np.ndarray, "variable"]) -> NormalEquations:
        """½ Σ ρ, Jᵀr and JᵀJ."""

    @abstractmethod
    def hessian_vector(
        self, y: Float[np.ndarray, "variable"], v: Float[np.ndarray, "variable"]
    ) -> Float[np.ndarray, "variable"]:
        """JᵀJ v, without JᵀJ."""

    def influence(
        self, y: Float[np.ndarray, "variable"], matrix: bool = True
    ) -> "Influence | None":
        """What errors need to know of a robust loss; `None` where `equations` tell it all.

        - `matrix`: whether JᵀJ and the penalty are wanted, or only the sums.
        """
        return None

    @abstractmethod
    def diagonal(self, y: Float[np.ndarray, "variable"]) -> Float[np.ndarray, "variable"]:
        """The diagonal of JᵀJ, without the rest of it."""


class ScaledProblem(AbstractProblem):
    """Another problem in z, where y = centre + scale·z, entry by entry."""

    problem: AbstractProblem
    centre: Float[np.ndarray, "variable"]
    scale: Float[np.ndarray, "variable"]
    lower: Float[np.ndarray, "variable"]
    upper: Float[np.ndarray, "variable"]
    start: Float[np.ndarray, "variable"]
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        problem: AbstractProblem,
        centre: Float[np.ndarray, "variable"],
        scale: Float[np.ndarray, "variable"],
    ):
        self.problem, self.centre, self.scale = problem, centre, scale
        self.names = problem.names
        self.lower, self.upper = (problem.lower - centre) / scale, (problem.upper - centre) / scale
        self.start = np.clip((problem.start - centre) / scale, self.lower, self.upper)

    def original(self, z: Float[np.ndarray, "variable"]) -> Float[np.ndarray, "variable"]:
        """y of z, on its bound where z is on one, whatever rounding says."""
        y = np.clip(self.centre + self.scale * z, self.problem.lower, self.problem.upper)
        y = np.where(z <= self.lower, self.problem.lower, y)
        return np.where(z >= self.upper, self.problem.upper, y)

    def survey(self):
        return self.problem.survey()

    def cost_and_gradient(self, y):
        cost, gradient = self.problem.cost_and_gradient(self.original(y))
        return cost, self.scale * gradient

    def equations(self, y):
        found = self.problem.equations(self.original(y))
        return eqx.tree_at(
            lambda e: (e.gradient, e.hessian),
            found,
            (self.scale * found.gradient, self.scale[:, None] * found.hessian * self.scale),
        )

    def hessian_vector(self, y, v):
        return self.scale * self.problem.hessian_vector(self.original(y), self.scale * v)

    def influence(self, y, matrix=True):
        found = self.problem.influence(self.original(y), matrix)
        if found is None or not matrix:
            return found
        outer = np.outer(self.scale, self.scale)
        penalty = None if found.penalty is None else outer * found.penalty
        return Influence(outer * found.hessian, found.sums, penalty)

    def diagonal(self, y):
        return self.scale**2 * self.problem.diagonal(self.original(y))
