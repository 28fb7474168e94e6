"""Where a solver ended and how it got there: what every fit is made from."""

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..objective import NormalEquations
from ..optimize import (
    AbstractPreparationState,
    GradientEquations,
    History,
    Status,
    Telemetry,
)
from ..showing import in_columns


class RecoveryAction(NamedTuple):
    """One attempt at rescuing a fit: what was wrong, what was done, how it ended."""

    cause: str
    action: str
    outcome: str


class OuterHistory(eqx.Module):
    """One row for each outer iteration of alternating physical parameters and scaling.

    - `physical`: physical parameters after the iteration; `scaling`: scaling coefficients.
    - `cost_physical`, `cost_scaling`: the cost after each of the two stages.
    - `change`: largest relative change of a physical parameter.
    - `passes`: evaluations of both stages.
    """

    physical: Float[np.ndarray, "outer free"]
    scaling: Float[np.ndarray, "outer coefficient"]
    cost_physical: Float[np.ndarray, "outer"]
    cost_scaling: Float[np.ndarray, "outer"]
    change: Float[np.ndarray, "outer"]
    passes: Int[np.ndarray, "outer 2"]

    @property
    def size(self) -> int:
        """Number of outer iterations."""
        return self.change.shape[0]

    def cells(self) -> list[list[str]]:
        """A header and a row for each outer iteration."""
        rows = [["outer", "cost, physics", "cost, scaling", "change", "passes"]]
        costs = zip(self.cost_physical, self.cost_scaling, self.change, strict=True)
        for k, ((one, other, change), (a, b)) in enumerate(zip(costs, self.passes, strict=True), 1):
            rows.append([str(k), f"{one:.10g}", f"{other:.10g}", f"{change:.1e}", f"{a} + {b}"])
        return rows

    def report(self) -> str:
        """A table for people."""
        return in_columns(self.cells())


class Run(eqx.Module):
    """How a solver went.

    - `start`: physical start values of the variables of the objective.
    - `history`: every evaluation of the trust region.
    - `status`, `message`: how it ended, in a word and in a sentence.
    - `evaluations`: of all attempts and of what came before them; `iterations`: accepted steps of
        all attempts; `recovery`: what was done about failures.
    - `timings`: seconds by phase.
    - `prepared`: last states of what improved the start, a warm-up for example.
    - `telemetry`: how often each defence was asked and fired.
    - `outer`: outer iterations of a hierarchical fit.
    """

    start: Float[np.ndarray, "variable"]
    history: History
    status: Status = eqx.field(static=True)
    message: str = eqx.field(static=True)
    evaluations: int = eqx.field(static=True)
    iterations: int = eqx.field(static=True)
    recovery: tuple[RecoveryAction, ...] = eqx.field(static=True)
    timings: tuple[tuple[str, float], ...] = eqx.field(static=True)
    solver_name: str = eqx.field(static=True)
    prepared: tuple[AbstractPreparationState, ...] = ()
    telemetry: Telemetry = Telemetry()
    outer: OuterHistory | None = None


class Solution(eqx.Module):
    """The point where a solver ended, with what the evaluation there gave.

    - `objective`: the one that was minimised last; recovery may have changed how it sums.
    - `y`: coordinates of its variables; `equations`, `memo`: as `objective.evaluate` gave them.
    - `run`: how the solver got there.
    - `refused`: coordinates of the last trial point at which the model was not finite, if any.
    """

    # Which kind it is, and so what can be asked of it, is known to whoever made the solution.
    objective: Any
    y: Float[Array, "variable"]
    memo: PyTree
    equations: NormalEquations | GradientEquations
    run: Run
    refused: Float[Array | np.ndarray, "variable"] | None = None

    @property
    def cost(self) -> Float[Array, ""]:
        """The cost there, penalties and robust loss included."""
        return self.equations.cost

    @property
    def status(self) -> Status:
        """How the solver ended."""
        return self.run.status
