"""Phase 0: units in which all variables are of the same size."""

from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..errors import ModelError
from .problem import AbstractProblem, ScaledProblem


class AbstractNormalisation(eqx.Module):
    """An affine change of variables y = centre + scale·z; its Jacobian is diag(scale), exactly."""

    @abstractmethod
    def normalise(self, problem: AbstractProblem) -> ScaledProblem:
        """The problem in z, its bounds mapped as well."""


def _bounded(problem: AbstractProblem) -> np.ndarray:
    return np.isfinite(problem.lower) & np.isfinite(problem.upper)


def _size(start: Float[np.ndarray, "variable"]) -> Float[np.ndarray, "variable"]:
    # A start at zero says nothing about the size of a variable.
    return np.where(start == 0, 1.0, np.abs(start))


class ByBounds(AbstractNormalisation):
    """[lower, upper] becomes [0, 1].

    **Raises:** `ModelError` for a variable without two finite bounds.
    """

    def normalise(self, problem):
        missing = np.flatnonzero(~_bounded(problem))
        if missing.size:
            raise ModelError(
                f"{problem.names[missing[0]]} has no finite bounds to normalise by; give both or "
                "use ByStart or Automatic"
            )
        return ScaledProblem(problem, problem.lower, problem.upper - problem.lower)


class ByStart(AbstractNormalisation):
    """p becomes p/|p0|; a variable that starts at zero keeps its unit."""

    def normalise(self, problem):
        return ScaledProblem(problem, np.zeros_like(problem.start), _size(problem.start))


class NoNormalisation(AbstractNormalisation):
    """z = y."""

    def normalise(self, problem):
        return ScaledProblem(problem, np.zeros_like(problem.start), np.ones_like(problem.start))


class Automatic(AbstractNormalisation):
    """By bounds where a variable has two finite ones, by the start value where it has not."""

    def normalise(self, problem):
        bounded = _bounded(problem)
        with np.errstate(invalid="ignore"):
            width = problem.upper - problem.lower
        return ScaledProblem(
            problem,
            np.where(bounded, problem.lower, 0.0),
            np.where(bounded, width, _size(problem.start)),
        )
