"""Passes over the data that are tried again when they fail, and seen by whoever keeps count."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..errors import DataError
from .problem import AbstractProblem
from .retry import Failure, Retry


class Pass(NamedTuple):
    """One pass over the data: cost, norm of the gradient in normalised units, time [s].

    `failures` are those of its attempts and, where its value is of no use, of that.
    """

    cost: float
    gradient_norm: float
    seconds: float
    success: bool
    failures: tuple[Failure, ...]


def persistent(retry: Retry, function: Callable[[], Any]) -> tuple[Any, tuple[Failure, ...]]:
    """The value of `function()` and the failures before it.

    **Raises:** `DataError` for data that cannot be read, whatever is tried; the error itself when
    memory is short.
    """
    outcome = retry.run(lambda _: function())
    if outcome.success:
        return outcome.value, outcome.failures
    if outcome.failure is Failure.read:
        raise DataError(
            f"the source could not be read in {len(outcome.failures)} attempts ({outcome.error}). "
            "Restore it and start again, from the last checkpoint if there is one."
        ) from outcome.error
    assert outcome.error is not None
    raise outcome.error


def judged(
    y: Float[np.ndarray, "variable"], cost: float, gradient: Float[np.ndarray, "variable"]
) -> Failure:
    """What of parameters, loss and gradient is not finite, the first of them."""
    if not np.all(np.isfinite(y)):
        return Failure.parameters
    if not np.isfinite(cost):
        return Failure.loss
    return Failure.none if np.all(np.isfinite(gradient)) else Failure.gradient


class WatchedProblem(AbstractProblem):
    """Another problem whose passes are tried again and reported.

    What is not finite is reported but not tried again: the same sum would come out, and the phases
    answer it with a shorter step.

    - `scale`: unit of each variable, for the norm of the gradient.
    - `report`: is told every pass that gives a cost.
    """

    problem: AbstractProblem
    scale: Float[np.ndarray, "variable"]
    retry: Retry
    report: Callable[[Pass], None] = eqx.field(static=True)

    @property
    def lower(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.lower

    @property
    def upper(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.upper

    @property
    def start(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.start

    @property
    def names(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.names

    def _watched(self, y, function, parts):
        clock = time.perf_counter()
        value, failures = persistent(self.retry, lambda: function(y))
        cost, gradient = parts(value)
        kind = judged(y, cost, gradient)
        norm = float(np.linalg.norm(self.scale * gradient))
        failures = failures if kind is Failure.none else (*failures, kind)
        seconds = time.perf_counter() - clock
        self.report(Pass(float(cost), norm, seconds, kind is Failure.none, failures))
        return value

    def survey(self):
        return persistent(self.retry, self.problem.survey)[0]

    def cost_and_gradient(self, y):
        return self._watched(y, self.problem.cost_and_gradient, lambda found: found)

    def equations(self, y):
        return self._watched(y, self.problem.equations, lambda found: (found.cost, found.gradient))

    def influence(self, y, matrix=True):
        return persistent(self.retry, lambda: self.problem.influence(y, matrix))[0]

    def hessian_vector(self, y, v):
        return persistent(self.retry, lambda: self.problem.hessian_vector(y, v))[0]

    def diagonal(self, y):
        return persistent(self.retry, lambda: self.problem.diagonal(y))[0]
