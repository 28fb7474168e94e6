"""Steps of Gauss–Newton inside the radius of trust and the box: by matrices, or by products."""

from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from ..compiling import quick_jit
from ..errors import FitError
from ..objective import minimise_in_box
from .problem import AbstractProblem

# A step this close to the radius has reached it.
_REACHED = 0.999


class Local(eqx.Module):
    """What is known of one point: cost, Jᵀr, the diagonal of JᵀJ and, where it is formed, JᵀJ."""

    cost: Float[np.ndarray, ""]
    gradient: Float[np.ndarray, "p"]
    diagonal: Float[np.ndarray, "p"]
    hessian: Float[np.ndarray, "p p"] | None

    @property
    def finite(self) -> bool:
        """Whether everything known is finite."""
        parts = (self.cost, self.gradient, self.diagonal, self.hessian)
        return all(part is None or bool(np.all(np.isfinite(part))) for part in parts)


def free_to_move(
    problem: AbstractProblem, z: Float[np.ndarray, "p"], gradient: Float[np.ndarray, "p"]
) -> Bool[np.ndarray, "p"]:
    """Variables that are not kept on a bound by the gradient."""
    return ~(((z <= problem.lower) & (gradient > 0)) | ((z >= problem.upper) & (gradient < 0)))


def gradient_cosine(local: Local, free: Bool[np.ndarray, "p"]) -> float:
    """Largest cosine between the residuals and a column of J of a free variable."""
    tiny = np.finfo(float).tiny
    column = np.sqrt(np.maximum(local.diagonal, tiny))
    length = np.sqrt(max(2 * float(local.cost), tiny))
    return float(np.max(np.abs(np.where(free, local.gradient, 0.0)) / column / length, initial=0.0))


class Step(eqx.Module):
    """A step, the reduction of the cost that the model promises, and whether trust limited it."""

    change: Float[np.ndarray, "p"]
    predicted: float
    length: float
    at_boundary: bool


class AbstractStep(eqx.Module):
    """How the equations of a point are made and solved."""

    @abstractmethod
    def empty(self, size: int) -> Local:
        """What is known of no point: an infinite cost, in the right shapes."""

    @abstractmethod
    def evaluate(self, problem: AbstractProblem, z: Float[np.ndarray, "p"], below: float) -> Local:
        """What is to be known of a point; the curvature may be left at zero unless cost < below."""

    @abstractmethod
    def solve(
        self,
        problem: AbstractProblem,
        z: Float[np.ndarray, "p"],
        local: Local,
        ridge: float,
        radius: float,
    ) -> Step:
        """The step inside the radius and the box; `ridge` is relative to each diagonal of JᵀJ."""


_in_box = quick_jit(minimise_in_box)


class DenseStep(AbstractStep):
    """JᵀJ formed in one pass; the exact minimum of the model in the box that trust and bounds form.

    The radius is one of the largest change of a variable (maximum norm).
    """

    def empty(self, size):
        zero = np.zeros(size)
        return Local(np.asarray(np.inf), zero, zero, np.zeros((size, size)))

    def evaluate(self, problem, z, below):
        found = problem.equations(z)
        hessian = np.asarray(found.hessian)
        return Local(
            np.asarray(found.cost),
            np.asarray(found.gradient),
            np.diagonal(hessian).copy(),
            hessian,
        )

    def solve(self, problem, z, local, ridge, radius):
        low, high = np.maximum(problem.lower - z, -radius), np.minimum(problem.upper - z, radius)
        hessian = local.hessian
        if hessian is None:
            raise FitError("DenseStep needs JᵀJ; evaluate the point with it")
        # Rounding may leave a matrix that a small ridge does not make definite; a larger one does.
        for amount in (ridge, 1e2 * ridge + 1e-14, 1e6 * ridge + 1e-8):
            damped = hessian + amount * np.diag(local.diagonal)
            change = np.asarray(_in_box(damped, local.gradient, low, high)[0])
            if np.all(np.isfinite(change)):
                break
        else:
            raise FitError("the normal equations cannot be solved even with a ridge of 1e-8")
        predicted = -float(local.gradient @ change + 0.5 * change @ hessian @ change)
        length = float(np.max(np.abs(change), initial=0.0))
        return Step(change, predicted, length, length >= _REACHED * radius)
