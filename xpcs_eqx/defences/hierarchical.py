"""Physical parameters and scaling in turn, until neither moves."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..errors import FitError, ModelError
from ..fitting import Fit, OuterHistory, Run, Solution, checked_start, fit_of
from ..objective import JointObjective, ProjectedObjective, TwoTimeObjective, check_one_data_set
from ..optimize import (
    History,
    Status,
    TrustRegion,
    TrustRegionState,
    evaluated,
    iterate_host,
    relative_offset,
)
from ..parameters.variables import coordinates_of
from .frozen import per_angle_of
from .stages import (
    AbstractPhysicalStage,
    AbstractScalingStage,
    LBFGSStage,
    ScalingStage,
)

# Distance to the minimum, in units of an error bar of independent pairs, below which a fit that no
# longer moves is there.
NEAR = 1e-2
FINISH = TrustRegion()


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


class Hierarchical(eqx.Module):
    """Alternation of physical parameters and scaling, and what ends it.

    - `outer`: outer iterations at most; `tolerance`: relative change of the physical parameters in
        one of them at which to stop.
    - `physical`, `scaling`: the stages.
    - `finish`: the solver that takes physical parameters and scaling together from where the
        alternation ended, so that the fit ends at the minimum; None leaves it there.

    **Raises:** `ModelError` for less than one outer iteration or a tolerance that is not positive.
    """

    outer: int = 5
    tolerance: float = 1e-6
    physical: AbstractPhysicalStage = LBFGSStage()
    scaling: AbstractScalingStage = ScalingStage()
    finish: TrustRegion | None = FINISH

    def __check_init__(self):
        if self.outer < 1:
            raise ModelError(
                f"outer = {self.outer} iterations of a hierarchical fit; give 1 or more"
            )
        if not (np.isfinite(self.tolerance) and self.tolerance > 0):
            raise ModelError(
                f"tolerance = {self.tolerance} of a hierarchical fit; give a number above zero"
            )


def relative_change(
    new: Float[np.ndarray, "free"],
    old: Float[np.ndarray, "free"],
    natural: Float[np.ndarray, "free"],
) -> float:
    """Largest |new − old| over |new|, or over the natural size where that is zero."""
    size = np.where(new == 0, natural, np.abs(new))
    return float(np.max(np.abs(new - old) / size, initial=0.0))


def alternate(
    objective: TwoTimeObjective,
    x: Float[np.ndarray, "free"],
    coefficients: Float[np.ndarray, "coefficient"],
    method: Hierarchical,
    callback: Callable[[OuterIteration], Any] | None = None,
    refresh: Callable[..., TwoTimeObjective] | None = None,
) -> tuple[TwoTimeObjective, list[OuterIteration], bool]:
    """Outer iterations from physical parameters and scaling coefficients.

    `refresh` makes the objective of the next outer iteration from (objective, x, coefficients).

    **Returns:** the last objective, the iterations, and whether the callback ended them.
    """
    scaling, parameters = objective.term.scaling, objective.term.parameters
    natural = np.asarray(parameters.coordinate_scale, float)
    done: list[OuterIteration] = []
    while len(done) < method.outer:
        if refresh is not None:
            objective = refresh(objective, x, coefficients)
        first = method.physical.run(objective, x, np.asarray(per_angle_of(scaling, coefficients)))
        second = method.scaling.run(objective, first.x, coefficients)
        change = relative_change(first.x, x, natural)
        x, coefficients = first.x, second.x
        passes = (first.passes, second.passes)
        one = OuterIteration(
            len(done) + 1, x, coefficients, first.cost, second.cost, change, passes
        )
        done.append(one)
        if callback is not None and callback(one):
            return objective, done, True
        if change <= method.tolerance:
            break
    return objective, done, False


@quick_jit
def start_coefficients(objective):
    """Scaling coefficients closest to the reference of an objective."""
    return objective.term.scaling.from_per_angle(objective.term.reference)


def variables_at(
    objective: TwoTimeObjective,
    x: Float[np.ndarray, "free"],
    coefficients: Float[np.ndarray, "coefficient"],
) -> Float[np.ndarray, "variable"]:
    """The physical variables of an objective from both groups."""
    if isinstance(objective, ProjectedObjective):
        return np.asarray(x, float)
    return np.concatenate([x, coefficients])


def _history(done: list[OuterIteration], last: TrustRegionState | None) -> History:
    """The cost after every stage, then every evaluation of the last solver."""
    cost = [cost for one in done for cost in (one.cost_physical, one.cost_scaling)]
    blank = np.full(len(cost), np.nan)
    columns: list[Any] = [np.asarray(cost), blank, blank, np.ones(len(cost), bool)]
    if last is not None:
        n, own = int(last.evaluations), last.history
        more = (own.cost, own.gradient, own.step_size, own.accepted)
        columns = [
            np.concatenate([a, np.asarray(b)[:n]]) for a, b in zip(columns, more, strict=True)
        ]
    return History(*columns)


def outer_history(done: list[OuterIteration]) -> OuterHistory:
    """Outer iterations as arrays."""
    return OuterHistory(
        physical=np.stack([one.physical for one in done]),
        scaling=np.stack([one.scaling for one in done]),
        cost_physical=np.asarray([one.cost_physical for one in done]),
        cost_scaling=np.asarray([one.cost_scaling for one in done]),
        change=np.asarray([one.change for one in done]),
        passes=np.asarray([one.passes for one in done]),
    )


def hierarchical_found(
    objective: TwoTimeObjective,
    start: Float[np.ndarray, "variable"],
    method: Hierarchical,
    callback: Callable[[OuterIteration], Any] | None = None,
    refresh: Callable[..., TwoTimeObjective] | None = None,
    watch: Callable[[TrustRegionState], Any] | None = None,
) -> Solution:
    """The optimum of `hierarchical_least_squares` without error bars.

    `refresh` as in `alternate`; `watch` sees each evaluation of the last solver, and may end it.
    """
    clock = time.perf_counter()
    p = objective.term.parameters.n_free
    x = start[:p]
    if isinstance(objective, JointObjective):
        coefficients = start[p:]
    else:
        coefficients = np.asarray(start_coefficients(objective))
        if refresh is not None:
            objective = refresh(objective, x, coefficients)
        # An eliminated scaling has no start of its own: the best one at the start of the physics.
        coefficients = method.scaling.run(objective, x, coefficients).x
    objective, done, stopped = alternate(objective, x, coefficients, method, callback, refresh)
    if not np.isfinite(done[-1].cost_scaling):
        raise FitError(
            "the model gives no finite cost at the start "
            f"{dict(zip(objective.names, start.tolist(), strict=True))}; check the start values "
            "and the data"
        )
    at = variables_at(objective, done[-1].physical, done[-1].scaling)
    settled = done[-1].change <= method.tolerance
    name = f"hierarchical, {type(method.physical).__name__} and {type(method.scaling).__name__}"
    state, passes = None, sum(sum(one.passes) for one in done)
    if stopped or method.finish is None:
        y = coordinates_of(objective.variables, jnp.asarray(at))
        # Once more from the scaling found, about which sums keep their digits.
        _, memo = evaluated(objective, y, objective.memo)
        equations, memo = evaluated(objective, y, memo)
        passes += 2
        status = Status.interrupted if stopped else Status.max_evaluations
        if settled and not stopped:
            offset = float(relative_offset(objective.variables, y, equations))
            near = offset * float(equations.count) ** 0.5 <= NEAR
            status = Status.step if near else Status.stalled
    else:
        state = iterate_host(method.finish, objective, jnp.asarray(at), callback=watch)
        y, memo, equations = state.y, state.memo, state.equations
        passes += int(state.evaluations)
        status = Status(int(state.status))
        name += f", finished by the trust region, {type(method.finish.descent).__name__}"
    run = Run(
        start=start,
        history=_history(done, state),
        status=status,
        message=status.message,
        evaluations=passes,
        iterations=len(done) + (0 if state is None else int(state.accepted)),
        recovery=(),
        timings=(("solver", time.perf_counter() - clock),),
        solver_name=name,
        outer=outer_history(done),
    )
    return Solution(objective, y, memo, equations, run)


def hierarchical_least_squares(
    objective: TwoTimeObjective,
    start: Float[np.ndarray, "variable"] | None = None,
    *,
    outer: int = 5,
    tolerance: float = 1e-6,
    physical: AbstractPhysicalStage | None = None,
    scaling: AbstractScalingStage | None = None,
    finish: TrustRegion | None = FINISH,
    callback: Callable[[OuterIteration], Any] | None = None,
) -> Fit:
    """Fit physical parameters and scaling in turn.

    The alternation cannot trade one group for the other within a step, which is what it is for; by
    itself it creeps along valleys that couple them, so `finish` takes the last steps in both. Where
    that is None, a fit counts as converged only when it no longer moves *and* a Gauss–Newton step
    from there would be shorter than a hundredth of an error bar.

    **Arguments:**

    - `objective`: from `projected_objective` or `two_time_objective`.
    - `start`: physical start values of the variables; by default the objective's own.
    - the others as in `Hierarchical`, whose defaults they have.
    - `callback`: sees each `OuterIteration`; a true value stops the fit.

    **Returns:** a `Fit` whose `outer` has the outer iterations.

    **Raises:** `ModelError` for a start of the wrong shape or outside the bounds, or an objective
    of several data sets; `FitError` when the model is not finite at the start.

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
    check_one_data_set(objective, "hierarchical_least_squares")
    method = Hierarchical(
        outer,
        tolerance,
        LBFGSStage() if physical is None else physical,
        ScalingStage() if scaling is None else scaling,
        finish,
    )
    first = checked_start(objective, start)  # pyright: ignore[reportArgumentType]
    return fit_of(hierarchical_found(objective, first, method, callback))
