"""A fit with its layers of defence: rounds of one objective each, watched, and a report."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..fitting import Fit, Solution, checked_start, fit_of, require_finite, solve
from ..objective import JointObjective, ProjectedObjective, TwoTimeObjective
from ..objective.penalties import penalty_equations
from ..optimize import History, Recovery, Status, TrustRegion, TrustRegionState
from ..parameters.variables import physical_of
from .frozen import per_angle_of
from .hierarchical import OuterIteration, hierarchical_found, relative_change, start_coefficients
from .layers import DefenceLayers, Monitoring, Prepared, Refreshed, prepared, refreshed
from .monitor import Alarm, MonitorState
from .report import DefenceReport, MonitorReport, VariationReport, WeightsReport
from .responses import Situation
from .stages import ScalingStage
from .variation import coefficient_of_variation


class Watch:
    """Callbacks of a solver: they ask a monitor, then the user, whether the fit is to be left.

    It keeps the state of the monitor and its alarms for one run of a fit.

    - `alarms`: the number of the check and what was found and done.
    - `left`: whether the fit was left for the response of the monitor.
    """

    def __init__(
        self,
        monitoring: Monitoring | None,
        objective: TwoTimeObjective,
        callback: Callable[[Any], Any] | None,
    ):
        self.monitoring, self.callback = monitoring, callback
        parameters = objective.term.parameters
        self.names, self.free = parameters.free_names, parameters.n_free
        self.scale = np.asarray(objective.variables.coordinate_scale, float)
        self.alarms: list[tuple[int, str]] = []
        self.left, self.answered, self.accepted = False, 0, -1
        if monitoring is not None:
            places = tuple(self.names.index(name) for name in monitoring.watched)
            self.monitor = dataclasses.replace(monitoring.monitor, watched=places)
            self.state: MonitorState = self.monitor.start()

    def __call__(self, state: TrustRegionState) -> bool:
        """See the state of a solver after an evaluation; true to leave the fit."""
        ends = self.callback is not None and bool(self.callback(state))
        first = int(state.evaluations) == 1
        moved = first or int(state.accepted) != self.accepted
        self.accepted = int(state.accepted)
        if ends or self.monitoring is None or not moved:
            # A rejected step leaves the point, and its gradient, where they were.
            return ends
        if not np.isfinite(float(state.equations.cost)):
            return False
        # Relative to the cost, so that thresholds have no unit.
        unit = self.scale / max(float(state.equations.cost), np.finfo(float).tiny)
        gradient = np.asarray(state.equations.gradient, float) * unit
        self.state, alarm = self.monitor.update(
            self.state, gradient[: self.free], gradient[self.free :]
        )
        return self._answered(self.monitoring, alarm)

    def outer(self, iteration: OuterIteration) -> bool:
        """See an outer iteration; the gradient of what it just fitted vanishes and says nothing."""
        return self.callback is not None and bool(self.callback(iteration))

    def _answered(self, monitoring: Monitoring, alarm: Alarm) -> bool:
        check = int(self.state.checks)
        if alarm is Alarm.flat:
            found = ", ".join(
                name
                for name, flat in zip(monitoring.watched, self.state.named, strict=True)
                if flat
            )
            self.alarms.append((check, f"{alarm.message}: {found}"))
        if alarm is not Alarm.collapse:
            return False
        response = monitoring.response
        if self.answered >= monitoring.limit:
            self.alarms.append((check, f"{alarm.message}; no response is left, the fit went on"))
            return False
        self.answered += 1
        self.alarms.append((check, f"{alarm.message}; {response.name}"))
        self.left = response.interrupts
        return self.left


class DefendedFit(NamedTuple):
    """A fit, and what each layer of its defences did."""

    fit: Fit
    report: DefenceReport


class _Round(NamedTuple):
    """What one round ended with."""

    layers: DefenceLayers
    made: Refreshed
    found: Solution


def _at(objective: TwoTimeObjective, found: Solution) -> Float[np.ndarray, "variable"]:
    """Physical variables where a solver ended, inside the bounds."""
    return np.asarray(physical_of(objective.variables, found.y))


def _first_scaling(objective: TwoTimeObjective, x) -> Float[np.ndarray, "angle 2"]:
    """(contrast, offset) that suit the start best."""
    p = objective.term.parameters.n_free
    begin = np.asarray(start_coefficients(objective))
    best = ScalingStage().run(objective, x[:p], begin).x
    return np.asarray(per_angle_of(objective.term.scaling, jnp.asarray(best)))


def _run(whole: Prepared, layers: DefenceLayers, made, x, watch, how) -> Solution:
    """One round by the method in force."""
    if layers.hierarchical is None:
        solver, recovery = how
        found = solve(made.objective, x, solver=solver, recovery=recovery, callback=watch)
        return require_finite(found)

    def refresh(objective, x, coefficients):
        if not layers.refreshing:
            return objective
        per_angle = np.asarray(per_angle_of(objective.term.scaling, jnp.asarray(coefficients)))
        return refreshed(whole, layers, x, per_angle).objective

    return hierarchical_found(made.objective, x, layers.hierarchical, watch.outer, refresh, watch)


def _rounds(whole: Prepared, layers: DefenceLayers, x, watch: Watch, how):
    """Rounds until nothing moves, they are used up, or the fit is ended."""
    p, monitoring = whole.objective.term.parameters.n_free, layers.monitoring
    natural = np.asarray(whole.objective.term.parameters.coordinate_scale, float)
    per_angle = _first_scaling(whole.objective, x) if layers.refreshing else None
    rounds: list[_Round] = []
    change, counted, ended = 0.0, 0, False
    while not ended:
        made = refreshed(whole, layers, x[:p], per_angle)
        found = _run(whole, layers, made, x, watch, how)
        rounds.append(_Round(layers, made, found))
        reached = _at(found.objective, found)
        change, x = relative_change(reached[:p], x[:p], natural), reached
        per_angle = np.asarray(found.memo.scaling)
        if watch.left and monitoring is not None:
            situation = Situation(found.objective, x, layers.regularisation, layers.hierarchical)
            following = monitoring.response.after(situation)
            watch.left = False
            if following is None:
                # Whatever the solver thought of it: the point was left for a reason.
                ended = Status.interrupted
                left = dataclasses.replace(found.run, status=ended, message=ended.message)
                rounds[-1] = rounds[-1]._replace(found=dataclasses.replace(found, run=left))
                break
            x = following.x
            layers = dataclasses.replace(
                layers,
                regularisation=following.regularisation,
                hierarchical=following.hierarchical,
            )
            if isinstance(whole.objective, JointObjective):
                scaling = whole.objective.term.scaling
                per_angle = np.asarray(per_angle_of(scaling, jnp.asarray(x[p:])))
            # What is done about a collapse has a limit of its own, and takes no round.
            continue
        counted += 1
        stopped, last = found.status == Status.interrupted, counted >= layers.rounds
        ended = stopped or last or not layers.refreshing or change <= layers.tolerance
    return rounds, change


def _together(rounds: list[_Round]) -> Solution:
    """The last round with the history and the cost of all of them."""
    last, runs = rounds[-1].found, [one.found.run for one in rounds]
    histories = [run.history for run in runs]
    columns: list[Any] = [
        np.concatenate([np.asarray(getattr(h, name)) for h in histories])
        for name in ("cost", "gradient", "step_size", "accepted")
    ]
    seconds = sum(time for run in runs for name, time in run.timings if name == "solver")
    together = dataclasses.replace(
        last.run,
        start=runs[0].start,
        history=History(*columns),
        evaluations=sum(run.evaluations for run in runs),
        iterations=sum(run.iterations for run in runs),
        recovery=tuple(action for run in runs for action in run.recovery),
        timings=(("solver", seconds),),
    )
    return dataclasses.replace(last, run=together)


@quick_jit
def _diagnostics(scaling_penalties, group, parameters, noise, y, per_angle):
    rows = [one.residuals(per_angle) for one in scaling_penalties]
    on_scaling = sum((0.5 * jnp.sum(row**2) for row in rows), jnp.zeros(()))
    on_groups = penalty_equations(group, parameters, y, noise).cost
    return coefficient_of_variation(per_angle), on_scaling, on_groups


def _unpenalised(fit: Fit, variation: tuple[float, float]) -> tuple[float, float]:
    check = fit.scaling_check
    if check is None:
        return variation
    contrast, offset = (
        one.variation if one.significant else here
        for one, here in zip((check.contrast, check.offset), variation, strict=True)
    )
    return contrast, offset


def _report(
    whole: Prepared, rounds: list[_Round], fit: Fit, change: float, watch: Watch
) -> DefenceReport:
    layers, made, found = rounds[-1]
    objective, regularisation = found.objective, layers.regularisation
    term, cost = objective.term, max(float(found.cost), np.finfo(float).tiny)
    group = () if layers.group_variance is None else (layers.group_variance,)
    added = objective.scaling_penalties[len(whole.objective.scaling_penalties) :]
    y = found.y[: term.parameters.n_free]
    measured = _diagnostics(added, group, term.parameters, term.noise, y, found.memo.scaling)
    variation, on_scaling, on_groups = (np.asarray(a) for a in measured)
    spread = (float(variation[0]), float(variation[1]))
    settled = not layers.refreshing or change <= layers.tolerance
    monitor = None
    if watch.monitoring is not None:
        state = watch.state
        monitor = MonitorReport(
            int(state.checks),
            float(state.smallest),
            tuple(watch.alarms),
            np.asarray(state.history),
            isinstance(objective, ProjectedObjective),
        )
    return DefenceReport(
        rounds=len(rounds),
        change=change,
        settled=settled,
        hierarchical=None if found.run.outer is None else found.run.outer.size,
        regularisation=None
        if regularisation is None
        else VariationReport(
            type(added[-1]).__name__,
            regularisation.weight,
            spread,
            float(on_scaling) / cost,
            regularisation.largest_variation,
            _unpenalised(fit, spread),
        ),
        monitor=monitor,
        shear_weights=None
        if made.weights is None
        else WeightsReport(float(made.phi0 or 0.0), made.weights),
        group_share=None if layers.group_variance is None else float(on_groups) / cost,
    )


def defended_least_squares(
    objective: TwoTimeObjective,
    layers: DefenceLayers,
    start: Float[np.ndarray, "variable"] | None = None,
    *,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    callback: Callable[[Any], Any] | None = None,
) -> DefendedFit:
    """Fit an objective with layers of defence against degeneracy.

    The solver always sees one ordinary objective. What depends on the point reached, shear weights
    and the size of the penalty, is made anew in rounds until the physical parameters settle; the
    fit is then the minimum of the objective it belongs to.

    **Arguments:**

    - `objective`: from `projected_objective` or `two_time_objective`. A penalty
        that is not linear in contrast and offset turns an eliminated scaling into variables.
    - `layers`: what defends the fit.
    - `start`: physical start values of the variables; by default the objective's own.
    - `solver`, `recovery`: as in `least_squares`, where the fit is not hierarchical.
    - `callback`: sees each evaluation of the solver, or each outer iteration of a hierarchical fit;
        a true value stops the fit.

    **Returns:** the fit and a report on each layer; its warnings are findings of the fit as well.

    **Raises:** `ModelError` for layers that the objective gives nothing to work on, and as
    `least_squares`; `FitError` when the model is not finite at the start.
    """
    first = checked_start(objective, start)  # pyright: ignore[reportArgumentType]
    whole = prepared(objective, layers)
    if first.shape != whole.objective.start.shape:
        first = np.concatenate([first, np.asarray(start_coefficients(objective))])
    watch = Watch(layers.monitoring, whole.objective, callback)
    rounds, change = _rounds(whole, layers, first, watch, (solver, recovery))
    fit = fit_of(_together(rounds))
    report = _report(whole, rounds, fit, change, watch)
    return DefendedFit(fit.doubted(tuple(report.warnings)), report)
