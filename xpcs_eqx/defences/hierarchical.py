"""Physical parameters and scaling in turn, until neither moves."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..arguments import Count, Positive, check_fields
from ..errors import FitError
from ..fitting import Fit, OuterHistory, Run, Solution, checked_start, fit_of
from ..fitting.attempts import Ledger
from ..objective.combined import AnyObjective, parts_of
from ..optimize import (
    Status,
    TrustRegion,
    TrustRegionState,
    evaluated,
    iterate_host,
    relative_offset,
)
from ..parameters.variables import coordinates_of
from .several import (
    check_two_time,
    coefficients_of,
    is_joint,
    per_angle_of,
    variables_at,
)
from .stages import AbstractPhysicalStage, LBFGSStage, ScalingStage

# Distance to the minimum, in units of an error bar of independent pairs, below which a fit that no
# longer moves is there.
NEAR = 1e-2


class OuterIteration(NamedTuple):
    """What one outer iteration came to, as a callback sees it.

    - `number`: from 1; `physical`, `scaling`: where it ended.
    - `cost_physical`, `cost_scaling`: after each stage; `passes`: evaluations of both.
    - `change`: largest relative change of a physical parameter.
    """

    number: int
    physical: Float[np.ndarray, "free"]
    scaling: Float[np.ndarray, "coefficient"]
    cost_physical: float
    cost_scaling: float
    change: float
    passes: tuple[int, int]

    @property
    def summary(self) -> str:
        """Where it is, in one line."""
        return (
            f"outer iteration {self.number}: cost {self.cost_scaling:.8g}, change {self.change:.2e}"
        )


class Hierarchical(eqx.Module):
    """Alternation of physical parameters and scaling, and what ends it.

    - `outer`: outer iterations at most; `tolerance`: relative change of the physical parameters in
        one of them at which to stop.
    - `physical`, `scaling`: the stages.
    - `finish`: the solver that takes physical parameters and scaling together from where the
        alternation ended, so that the fit ends at the minimum; None leaves it there.

    **Raises:** `ModelError` for less than one outer iteration or a tolerance that is not positive.
    """

    outer: Count = 5
    tolerance: Positive = 1e-6
    physical: AbstractPhysicalStage = LBFGSStage()
    scaling: ScalingStage = ScalingStage()
    finish: TrustRegion | None = TrustRegion()

    __check_init__ = check_fields


def relative_change(
    new: Float[np.ndarray, "free"],
    old: Float[np.ndarray, "free"],
    natural: Float[np.ndarray, "free"],
) -> float:
    """Largest |new − old| over |new|, or over the natural size where that is zero."""
    size = np.where(new == 0, natural, np.abs(new))
    return float(np.max(np.abs(new - old) / size, initial=0.0))


def best_coefficients(
    objective: AnyObjective, x: Float[np.ndarray, "free"], stage: ScalingStage
) -> Float[np.ndarray, "coefficient"]:
    """Scaling coefficients of all data sets that suit physical parameters best."""
    references = [np.asarray(part.term.reference) for part in parts_of(objective)]
    return stage.run(objective, x, coefficients_of(objective, references)).x


def hierarchical_found(
    objective: AnyObjective,
    start: Float[np.ndarray, "variable"],
    method: Hierarchical,
    callback: Callable[[OuterIteration], Any] | None = None,
    refresh: Callable[..., AnyObjective] | None = None,
    watch: Callable[[TrustRegionState], Any] | None = None,
) -> Solution:
    """The optimum of `hierarchical_least_squares` without error bars.

    `refresh` makes the objective of the next outer iteration from (objective, x, coefficients);
    `watch` sees each evaluation of the last solver, and may end it.
    """
    clock = time.perf_counter()
    p = objective.physical.n_free
    natural = np.asarray(objective.physical.coordinate_scale, float)
    x = start[:p]
    if is_joint(objective):
        coefficients = start[p:]
    else:
        # An eliminated scaling has no start of its own: the best one at the start of the physics.
        coefficients = best_coefficients(objective, x, method.scaling)
    done: list[OuterIteration] = []
    change, stopped = np.inf, False
    while len(done) < method.outer and change > method.tolerance and not stopped:
        if refresh is not None:
            objective = refresh(objective, x, coefficients)
        first = method.physical.run(objective, x, per_angle_of(objective, coefficients))
        second = method.scaling.run(objective, first.x, coefficients)
        change = relative_change(first.x, x, natural)
        x, coefficients = first.x, second.x
        costs, passes = (first.cost, second.cost), (first.passes, second.passes)
        done.append(OuterIteration(len(done) + 1, x, coefficients, *costs, change, passes))
        stopped = callback is not None and bool(callback(done[-1]))
    if not np.isfinite(done[-1].cost_scaling):
        raise FitError(
            "the model gives no finite cost at the start "
            f"{dict(zip(objective.names, start.tolist(), strict=True))}; check the start values "
            "and the data"
        )
    at = jnp.asarray(variables_at(objective, x, coefficients))
    name = f"hierarchical, {type(method.physical).__name__} and {type(method.scaling).__name__}"
    # The cost after every stage, then every evaluation of the last solver.
    costs = [cost for one in done for cost in (one.cost_physical, one.cost_scaling)]
    blank = [np.nan] * len(costs)
    ledger = Ledger(
        evaluations=sum(sum(one.passes) for one in done),
        iterations=len(done),
        history=(costs, blank, blank, [True] * len(costs)),
    )
    if stopped or method.finish is None:
        y = coordinates_of(objective.variables, at)
        # Once more from the scaling found, about which sums keep their digits.
        _, memo = evaluated(objective, y, objective.memo)
        equations, memo = evaluated(objective, y, memo)
        ledger = ledger._replace(evaluations=ledger.evaluations + 2)
        status = Status.interrupted if stopped else Status.max_evaluations
        if change <= method.tolerance and not stopped:
            offset = float(relative_offset(objective.variables, y, equations))
            near = offset * float(equations.count) ** 0.5 <= NEAR
            status = Status.step if near else Status.stalled
    else:
        state = iterate_host(method.finish, objective, at, callback=watch)
        y, memo, equations = state.y, state.memo, state.equations
        ledger, status = ledger.finished(state), Status(int(state.status))
        name += f", finished by the trust region, {type(method.finish.descent).__name__}"
    run = Run(
        start=start,
        history=ledger.as_history(),
        status=status,
        message=status.message,
        evaluations=ledger.evaluations,
        iterations=ledger.iterations,
        recovery=(),
        timings=(("solver", time.perf_counter() - clock),),
        solver_name=name,
        # Its columns are those of the iterations behind their number.
        outer=OuterHistory(*map(np.asarray, list(zip(*done, strict=True))[1:])),
    )
    return Solution(objective, y, memo, equations, run)


def hierarchical_least_squares(
    objective: AnyObjective,
    start: Float[np.ndarray, "variable"] | None = None,
    *,
    method: Hierarchical | None = None,
    callback: Callable[[OuterIteration], Any] | None = None,
) -> Fit:
    """Fit physical parameters and scaling in turn.

    The alternation cannot trade one group for the other within a step, which is what it is for; by
    itself it creeps along valleys that couple them, so the solver `finish` of the method takes the
    last steps in both. Where that is None, a fit counts as converged only when it no longer moves
    *and* a Gauss–Newton step from there would be shorter than a hundredth of an error bar.

    **Arguments:**

    - `objective`: from `projected_objective` or `two_time_objective`, of one data set or several.
    - `start`: physical start values of the variables; by default the objective's own.
    - `method`: by default `Hierarchical()`.
    - `callback`: sees each `OuterIteration`; a true value stops the fit.

    **Returns:** a `Fit` whose `outer` has the outer iterations.

    **Raises:** `ModelError` for a start of the wrong shape or outside the bounds, or an objective
    of something else than maps; `FitError` when the model is not finite at the start.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> truth = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0))
    >>> t, geometry = 0.2 * np.arange(20), xe.Geometry(0.0054, np.array([0.0]))
    >>> data = xe.simulate(truth, t, geometry, 0.2, noise=0.002, key=jax.random.key(0))
    >>> start = xe.Static(xe.PowerLawRate(1e4, 0.0, 0.0))
    >>> parameters = xe.parameter_map(start, data.t, fixed=("D_offset",))
    >>> fit = hierarchical_least_squares(xe.projected_objective(parameters, data))
    >>> fit.success, fit.outer.size <= 5
    (True, True)
    """
    check_two_time(objective, "hierarchical_least_squares")
    method = Hierarchical() if method is None else method
    first = checked_start(objective, start)  # pyright: ignore[reportArgumentType]
    return fit_of(hierarchical_found(objective, first, method, callback))
