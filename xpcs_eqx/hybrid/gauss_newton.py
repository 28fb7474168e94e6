"""Phase 2: Gauss–Newton in a region of trust, on exact sums over all the data."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from ..optimize import Status
from .problem import AbstractProblem, Survey
from .steps import AbstractStep, DenseStep, Local, Step, free_to_move, gradient_cosine
from .trust_radius import TrustRadius


class GaussNewtonHistory(eqx.Module):
    """Cost, radius, gradient (a cosine) and acceptance of every evaluation."""

    cost: Float[np.ndarray, "evaluation"]
    radius: Float[np.ndarray, "evaluation"]
    gradient: Float[np.ndarray, "evaluation"]
    accepted: Bool[np.ndarray, "evaluation"]


class GaussNewtonState(eqx.Module):
    """Everything between two passes over the data, as arrays.

    - `z`, `local`: the best point so far and the equations found there.
    - `trial`: where the next pass takes place; `predicted`, `length`, `at_boundary`: of the step.
    - `measure`: of the gradient at `z`; `promised`: reduction that an unlimited step from there
        promised, infinite while none was tried.
    - `fresh`: accepted steps since the radius was reset.
    """

    z: Float[np.ndarray, "p"]
    local: Local
    trial: Float[np.ndarray, "p"]
    count: Int[np.ndarray, ""]
    radius: Float[np.ndarray, ""]
    predicted: Float[np.ndarray, ""]
    length: Float[np.ndarray, ""]
    at_boundary: Bool[np.ndarray, ""]
    measure: Float[np.ndarray, ""]
    promised: Float[np.ndarray, ""]
    evaluations: Int[np.ndarray, ""]
    accepted: Int[np.ndarray, ""]
    rejected: Int[np.ndarray, ""]
    non_finite: Int[np.ndarray, ""]
    resets: Int[np.ndarray, ""]
    fresh: Int[np.ndarray, ""]
    status: Int[np.ndarray, ""]
    history: GaussNewtonHistory


def gradient_measure(problem: AbstractProblem, z: Float[np.ndarray, "p"], local: Local) -> float:
    """Largest cosine between the residuals and a column of J that the bounds leave free."""
    return gradient_cosine(local, free_to_move(problem, z, local.gradient))


class GaussNewton(eqx.Module):
    """Gauss–Newton steps, taken only when the cost falls.

    - `step`: how equations are made and solved.
    - `radius`: the rule of trust.
    - `tikhonov`: ridge relative to each diagonal of JᵀJ.
    - `tolerance`: of the cosine between residuals and columns of J, and of a step relative to z;
        its square of the reduction still promised relative to the cost.
    - `stalled_tolerance`: distance to the minimum of the model, in standard errors, below which a
        point that no step improves counts as converged: rounding of the cost hides what is left.
    - `resets`: how often a collapsed radius starts anew while the gradient is large.
    """

    step: AbstractStep = DenseStep()
    radius: TrustRadius = TrustRadius()
    tikhonov: float = 1e-10
    tolerance: float = 1e-8
    stalled_tolerance: float = 1e-3
    max_iterations: int = eqx.field(static=True, default=100)
    resets: int = eqx.field(static=True, default=3)

    def start(self, z: Float[np.ndarray, "p"], survey: Survey) -> GaussNewtonState:
        """The state before the first pass, which takes place at `z`; of a survey counts `count`."""
        z = np.array(z, dtype=float)
        blank, integer = np.full(self.max_iterations + 1, np.nan), np.asarray(0)
        return GaussNewtonState(
            z=z,
            local=self.step.empty(z.size),
            trial=z,
            count=np.asarray(survey.count),
            radius=np.asarray(float(self.radius.start)),
            predicted=np.asarray(0.0),
            length=np.asarray(0.0),
            at_boundary=np.asarray(False),
            measure=np.asarray(np.inf),
            promised=np.asarray(np.inf),
            evaluations=integer,
            accepted=integer,
            rejected=integer,
            non_finite=integer,
            resets=integer,
            fresh=integer,
            status=np.asarray(int(Status.running)),
            history=GaussNewtonHistory(
                blank, blank, blank, np.zeros(self.max_iterations + 1, dtype=bool)
            ),
        )

    def evaluate(self, problem: AbstractProblem, state: GaussNewtonState) -> Local:
        """The equations at the trial point."""
        return self.step.evaluate(problem, state.trial, float(state.local.cost))

    def update(
        self, problem: AbstractProblem, state: GaussNewtonState, found: Local
    ) -> GaussNewtonState:
        """Take what was found at the trial point: accept or reject, and test for the end."""
        first = int(state.evaluations) == 0
        finite = found.finite
        cost = float(found.cost) if finite else np.inf
        here = float(state.local.cost)
        accept = finite and (first or cost < here)
        z, local = (state.trial, found) if accept else (state.z, state.local)
        measure = gradient_measure(problem, z, local) if accept else float(state.measure)
        radius, predicted = float(state.radius), float(state.predicted)
        boundary, length = bool(state.at_boundary), float(state.length)
        if not first:
            ratio = (here - cost) / predicted if predicted > 0 else -np.inf
            radius = self.radius.update(radius, length, ratio, boundary)
        fresh = int(state.fresh) + (accept and not first)
        promised = float(state.promised)
        if accept:
            promised = np.inf
        elif not boundary:
            promised = predicted
        evaluations = int(state.evaluations) + 1
        resets = int(state.resets)
        status = self._status(state, finite, measure, evaluations, float(local.cost))
        if status is Status.running and self.radius.collapsed(radius):
            # ½ of the squared distance in standard errors is promised in units of variance.
            variance = 2 * float(local.cost) / int(state.count)
            if 2 * promised <= self.stalled_tolerance**2 * variance:
                status = Status.cost
            elif resets < self.resets and fresh:
                radius, resets, fresh = float(self.radius.start), resets + 1, 0
            else:
                # With no step accepted since the last reset the same steps would follow.
                status = Status.stalled
        slot = evaluations - 1
        history = state.history
        row = (cost, radius, measure, accept)
        columns = (history.cost, history.radius, history.gradient, history.accepted)
        written = [column.copy() for column in columns]
        for column, value in zip(written, row, strict=True):
            column[slot] = value
        return GaussNewtonState(
            z=z,
            local=local,
            trial=z,
            count=state.count,
            radius=np.asarray(radius),
            predicted=np.asarray(0.0),
            length=np.asarray(0.0),
            at_boundary=np.asarray(False),
            measure=np.asarray(measure),
            promised=np.asarray(promised),
            evaluations=np.asarray(evaluations),
            accepted=np.asarray(int(state.accepted) + (accept and not first)),
            rejected=np.asarray(int(state.rejected) + (not accept)),
            non_finite=np.asarray(int(state.non_finite) + (not finite)),
            resets=np.asarray(resets),
            fresh=np.asarray(fresh),
            status=np.asarray(int(status)),
            history=GaussNewtonHistory(*written),
        )

    def _status(
        self,
        state: GaussNewtonState,
        finite: bool,
        measure: float,
        evaluations: int,
        cost: float,
    ) -> Status:
        """What follows from the step just tried from `state`."""
        first = int(state.evaluations) == 0
        if first and not finite:
            return Status.non_finite
        if measure <= self.tolerance:
            return Status.gradient
        # Data that a model meets exactly, such as zeros: below the smallest normal number squares
        # lose their digits and no step can be judged.
        if cost <= int(state.count) * float(np.finfo(float).tiny):
            return Status.cost
        rounding = max(self.tolerance**2, 16 * float(np.finfo(float).eps))
        if not first and finite and not state.at_boundary:
            if state.predicted <= rounding * state.local.cost:
                return Status.cost
            # Entry by entry, so that a small variable beside large ones counts as well. Taken or
            # not: what rejects a step this short is rounding.
            size, change = np.abs(state.z), np.abs(state.trial - state.z)
            if np.all(change <= self.tolerance * (size + self.tolerance * np.max(size))):
                return Status.step
        return Status.max_evaluations if evaluations > self.max_iterations else Status.running

    def propose(self, problem: AbstractProblem, state: GaussNewtonState) -> GaussNewtonState:
        """Choose the next trial point from the accepted one."""
        step: Step = self.step.solve(
            problem, state.z, state.local, self.tikhonov, float(state.radius)
        )
        trial = np.clip(state.z + step.change, problem.lower, problem.upper)
        return eqx.tree_at(
            lambda s: (s.trial, s.predicted, s.length, s.at_boundary),
            state,
            (
                trial,
                np.asarray(step.predicted),
                np.asarray(step.length),
                np.asarray(step.at_boundary),
            ),
        )

    # Far away a model may overflow: what is not finite is caught and needs no warning.
    @np.errstate(over="ignore", invalid="ignore")
    def run(
        self,
        problem: AbstractProblem,
        survey: Survey,
        start: Float[np.ndarray, "p"] | GaussNewtonState,
        callback: Callable[[GaussNewtonState], Any] | None = None,
    ) -> GaussNewtonState:
        """Run to the end, from a point or from a state of an earlier run.

        `callback` sees the state after every pass; a true return value stops the phase.
        """
        state = start if isinstance(start, GaussNewtonState) else self.start(start, survey)
        while int(state.status) == Status.running:
            if int(state.evaluations):
                state = self.propose(problem, state)
            state = self.update(problem, state, self.evaluate(problem, state))
            if callback is not None and callback(state) and int(state.status) == Status.running:
                state = eqx.tree_at(lambda s: s.status, state, np.asarray(int(Status.interrupted)))
        return state
