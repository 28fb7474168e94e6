"""A fit with its layers of defence: rounds of one objective each, watched, and a report."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..arguments import checked, quiet_arithmetic
from ..compiling import quick_jit
from ..fitting import Fit, Solution, checked_start, fit_of, require_finite, solve
from ..fitting.attempts import Preparations, Prepared, prepare
from ..objective import AbstractObjective
from ..objective.combined import AnyObjective, parts_of
from ..objective.penalties import penalty_equations
from ..optimize import Recovery, Status, Telemetry, TrustRegion, TrustRegionState
from ..parameters.variables import physical_of
from .hierarchical import best_coefficients, hierarchical_found, relative_change
from .layers import DefenceLayers, Monitoring, prepared, refreshed
from .monitor import Alarm, MonitorState
from .report import DataSetReport, DefenceReport, MonitorReport, VariationReport, WeightsReport
from .several import is_joint, memos_of, per_angle_of
from .stages import ScalingStage
from .variation import coefficient_of_variation


class Watch:
    """Callbacks of a solver: they ask a monitor, then the user, whether the fit is to be left.

    It keeps the state of the monitor and its alarms for one run of a fit.

    - `alarms`: the number of the check and what was found and done.
    - `left`: whether the fit was left for the response of the monitor.
    - `ended`: whether the user has asked for the end.
    """

    def __init__(
        self,
        monitoring: Monitoring | None,
        objective: AnyObjective,
        callback: Callable[[Any], Any] | None,
    ):
        self.monitoring, self.callback = monitoring, callback
        self.names, self.free = objective.physical.free_names, objective.physical.n_free
        self.scale = np.asarray(objective.variables.coordinate_scale, float)
        self.alarms: list[tuple[int, str]] = []
        self.ended, self.left, self.answered, self.accepted = False, False, 0, -1
        if monitoring is not None:
            places = tuple(self.names.index(name) for name in monitoring.watched)
            self.monitor = dataclasses.replace(monitoring.monitor, watched=places)
            self.state: MonitorState = self.monitor.start()

    def __call__(self, state: TrustRegionState) -> bool:
        """See the state of a solver after an evaluation; true to leave the fit."""
        ends = self.asked(state)
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

    def asked(self, seen: Any) -> bool:
        """Ask the user alone, about what has no gradient that a monitor could watch.

        In an outer iteration that of what was just fitted vanishes and says nothing.
        """
        self.ended = self.ended or (self.callback is not None and bool(self.callback(seen)))
        return self.ended

    def _answered(self, monitoring: Monitoring, alarm: Alarm) -> bool:
        check = self.state.checks
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
    weights: tuple[WeightsReport, ...]
    found: Solution


def _run(whole: AnyObjective, layers: DefenceLayers, objective, x, watch, how) -> Solution:
    """One round by the method in force."""
    if layers.hierarchical is None:
        solver, recovery = how
        found = solve(objective, x, solver=solver, recovery=recovery, callback=watch)
        return require_finite(found)

    def refresh(objective, x, coefficients):
        return refreshed(whole, layers, x, per_angle_of(objective, coefficients))[0]

    return hierarchical_found(objective, x, layers.hierarchical, watch.asked, refresh, watch)


def _rounds(whole: AnyObjective, layers: DefenceLayers, x, watch: Watch, how):
    """Rounds until nothing moves, they are used up, or the fit is ended."""
    p, monitoring = whole.physical.n_free, layers.monitoring
    natural = np.asarray(whole.physical.coordinate_scale, float)
    per_angle = ()
    if layers.refreshing:
        per_angle = per_angle_of(whole, best_coefficients(whole, x[:p], ScalingStage()))
    rounds: list[_Round] = []
    change, counted, ended = 0.0, 0, False
    while not ended:
        objective, weights = refreshed(whole, layers, x[:p], per_angle)
        found = _run(whole, layers, objective, x, watch, how)
        rounds.append(_Round(layers, weights, found))
        reached = np.asarray(physical_of(found.objective.variables, found.y))
        change, x = relative_change(reached[:p], x[:p], natural), reached
        per_angle = [np.asarray(one.scaling) for one in memos_of(whole, found.memo)]
        if watch.left and monitoring is not None:
            following = monitoring.response.after(layers, found.objective, x)
            watch.left = False
            if following is None:
                # Whatever the solver thought of it: the point was left for a reason.
                ended = Status.interrupted
                left = dataclasses.replace(found.run, status=ended, message=ended.message)
                rounds[-1] = rounds[-1]._replace(found=dataclasses.replace(found, run=left))
                break
            layers, x = following
            if is_joint(whole):
                per_angle = per_angle_of(whole, x[p:])
            # What is done about a collapse has a limit of its own, and takes no round.
            continue
        counted += 1
        stopped, last = found.status == Status.interrupted, counted >= layers.rounds
        ended = stopped or last or not layers.refreshing or change <= layers.tolerance
    return rounds, change


def _together(
    rounds: list[_Round], start: Float[np.ndarray, "variable"], before: Prepared, seconds: dict
) -> Solution:
    """The last round with the history and the cost of all of them, and of what came before."""
    last, runs = rounds[-1].found, [one.found.run for one in rounds]
    histories = [run.history for run in runs]
    solving = sum(time for run in runs for name, time in run.timings if name == "solver")
    together = dataclasses.replace(
        last.run,
        start=start,
        history=jax.tree.map(lambda *parts: np.concatenate(parts), *histories),
        evaluations=sum(int(one.evaluations) for one in (*before, *runs)),
        iterations=sum(run.iterations for run in runs),
        recovery=tuple(action for run in runs for action in run.recovery),
        timings=(*seconds.items(), ("solver", solving)),
        solver_name=", ".join([*(one.phase for one in before), last.run.solver_name]),
        prepared=before,
        telemetry=sum((one.telemetry for one in (*before, *runs)), Telemetry()),
    )
    return dataclasses.replace(last, run=together)


@quick_jit
def _on_scaling(penalties, per_angle):
    rows = [one.residuals(per_angle) for one in penalties]
    cost = sum((0.5 * jnp.sum(row**2) for row in rows), jnp.zeros(()))
    return coefficient_of_variation(per_angle), cost


_penalties = quick_jit(penalty_equations)


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
    whole: AnyObjective, rounds: list[_Round], fit: Fit, change: float, watch: Watch
) -> DefenceReport:
    layers, weights, found = rounds[-1]
    objective, cost = found.objective, max(float(found.cost), np.finfo(float).tiny)
    regularisation, group = layers.regularisation, layers.group_variance
    memos, data_sets = memos_of(whole, found.memo), []
    for k, one in enumerate(fit.parts.values()):
        variation = None
        if regularisation is not None:
            own = len(parts_of(whole)[k].scaling_penalties)
            added = parts_of(objective)[k].scaling_penalties[own:]
            measured = _on_scaling(added, memos[k].scaling)
            spread, share = tuple(np.asarray(measured[0]).tolist()), float(measured[1]) / cost
            variation = VariationReport(
                type(added[-1]).__name__,
                regularisation.weight,
                spread,
                share,
                regularisation.largest_variation,
                _unpenalised(one, spread),
            )
        label = one.label if fit.data_sets else ""
        data_sets.append(DataSetReport(label, variation, weights[k] if weights else None))
    group_share = None
    if group is not None:
        y = found.y[: whole.physical.n_free]
        group_share = float(_penalties((group,), whole.physical, y, objective.noise).cost) / cost
    monitor = None
    if watch.monitoring is not None:
        state = watch.state
        monitor = MonitorReport(
            state.checks,
            state.smallest,
            tuple(watch.alarms),
            state.history,
            not is_joint(objective),
        )
    return DefenceReport(
        rounds=len(rounds),
        change=change,
        settled=not layers.refreshing or change <= layers.tolerance,
        hierarchical=None if found.run.outer is None else found.run.outer.size,
        monitor=monitor,
        group_share=group_share,
        data_sets=tuple(data_sets),
    )


@checked(objective=AbstractObjective)
@quiet_arithmetic
def defended_least_squares(
    objective: AnyObjective,
    layers: DefenceLayers,
    start: Float[np.ndarray, "variable"] | None = None,
    *,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    preparations: Preparations = (),
    callback: Callable[[Any], Any] | None = None,
) -> DefendedFit:
    """Fit parameters that the data hardly tell apart, by stages, penalties and weights of angles.

    The solver always sees one ordinary objective. What depends on the point reached, shear weights
    and the size of the penalty, is made anew in rounds until the physical parameters settle; the
    fit is then the minimum of the objective it belongs to.

    **Arguments:**

    - `objective`: from `projected_objective` or `two_time_objective`, of one data set or several.
        A penalty that is not linear in contrast and offset turns an eliminated scaling into
        variables.
    - `layers`: what defends the fit; of several data sets each with its own weights and penalty.
    - `start`: physical start values of the variables; by default the objective's own.
    - `solver`, `recovery`: as in `least_squares`, where the fit is not hierarchical.
    - `preparations`: what improves the start, `(WarmUp(),)` for example, before the first weights
        and penalties are made.
    - `callback`: sees each evaluation of the solver, or each outer iteration of a hierarchical fit,
        and each step of a preparation; a true value stops the fit.

    **Returns:** the fit and a report on each layer; its warnings are findings of the fit as well.

    **Raises:** `ModelError` for layers that the objective gives nothing to work on, and as
    `least_squares`; `FitError` when the model is not finite at the start.
    """
    first = checked_start(objective, start)
    whole = prepared(objective, layers)
    if first.shape != whole.start.shape:
        first = np.concatenate([first, np.asarray(whole.start)[first.size :]])
    watch = Watch(layers.monitoring, whole, callback)
    x, before, seconds, _ = prepare(
        whole, first, preparations, lambda states: watch.asked(states[-1])
    )
    rounds, change = _rounds(whole, layers, np.asarray(x), watch, (solver, recovery))
    fit = fit_of(_together(rounds, first, before, seconds))
    report = _report(whole, rounds, fit, change, watch)
    return DefendedFit(fit.doubted(tuple(report.warnings)), report)
