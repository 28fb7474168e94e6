"""The phases one after another, from the beginning or from where a checkpoint left off."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..checkpoint import Checkpoints
from ..errors import ModelError
from ..optimize import Status
from .curve_problem import CurveProblem
from .gauss_newton import GaussNewton, GaussNewtonState
from .normalise import AbstractNormalisation
from .penalised import PenalisedProblem
from .problem import AbstractProblem, ScaledProblem, Survey
from .recording import Phase, Recorder, Underway, earlier
from .retry import Retry
from .statistics import BatchStatistics
from .tournament import Tournament, TournamentState, run_tournament
from .two_time_problem import TwoTimeProblem
from .warm_up import WarmUp, WarmUpEnd, WarmUpState
from .watched import WatchedProblem, persistent


class Reached(NamedTuple):
    """Where the phases ended: the problem in normalised units and the last state of each."""

    problem: ScaledProblem
    survey: Survey
    tournament: TournamentState | None
    warm_up: WarmUpState
    gauss_newton: GaussNewtonState
    statistics: BatchStatistics
    seconds: Float[np.ndarray, "phase"]


def _chosen_from(problem: AbstractProblem) -> CurveProblem | TwoTimeProblem:
    if isinstance(problem, PenalisedProblem):
        return _chosen_from(problem.problem)
    if isinstance(problem, CurveProblem | TwoTimeProblem):
        return problem
    raise ModelError(
        f"a tournament chooses a start by points or maps, which a {type(problem).__name__} has "
        "not; leave tournament out and start the fit from several values instead"
    )


def started_at(
    problem: AbstractProblem, start: Float[np.ndarray, "variable"]
) -> PenalisedProblem | CurveProblem | TwoTimeProblem:
    """A problem made of points or maps with another start."""
    if isinstance(problem, PenalisedProblem):
        return eqx.tree_at(lambda p: p.problem, problem, started_at(problem.problem, start))
    chosen = _chosen_from(problem)
    if isinstance(chosen, TwoTimeProblem):
        return eqx.tree_at(lambda p: p.begin, chosen, start, is_leaf=lambda leaf: leaf is None)
    return eqx.tree_at(lambda p: p.start, chosen, start)


def expecting(problem: AbstractProblem, count: int) -> AbstractProblem:
    """A problem whose passes over points must all give `count` of them."""
    if isinstance(problem, PenalisedProblem):
        return eqx.tree_at(lambda p: p.problem, problem, expecting(problem.problem, count))
    return replace(problem, expected=count) if isinstance(problem, CurveProblem) else problem


class Phases(eqx.Module):
    """Tournament, normalisation, warm-up and Gauss–Newton, each a field; `None` for no tournament.

    - `retry`: what is done about a pass over the data that fails.
    """

    tournament: Tournament | None
    normalisation: AbstractNormalisation
    warm_up: WarmUp
    gauss_newton: GaussNewton
    retry: Retry

    def beginning(self, problem: AbstractProblem) -> Underway:
        """The state before anything was done; every later one has its structure."""
        start = np.asarray(problem.start, dtype=float)
        candidates = None
        if self.tournament is not None:
            candidates = self.tournament.init(start, problem.lower, problem.upper)
        return Underway(
            phase=np.asarray(int(Phase.tournament)),
            survey=np.zeros(3),
            start=start,
            centre=np.zeros_like(start),
            scale=np.ones_like(start),
            tournament=candidates,
            warm_up=self.warm_up.start(start),
            gauss_newton=self.gauss_newton.start(start, Survey(0, 0.0)),
            statistics=BatchStatistics.empty(),
            seconds=np.zeros(len(Phase)),
        )

    def run(
        self,
        problem: AbstractProblem,
        callback: Callable[[Any], Any] | None = None,
        checkpoints: Checkpoints | None = None,
        every: int = 1,
        resume: bool = False,
    ) -> Reached:
        """All phases, or those that are left.

        Whatever ends them early, an interrupt, an error or the callback, the last state is written
        first.

        **Raises:** `ModelError` for fewer points than parameters, `CheckpointError` as `earlier`,
        `DataError` for data that cannot be read.
        """
        underway = self.beginning(problem)
        if checkpoints is not None:
            checkpoints = checkpoints.belonging_to("hybrid optimiser", self, problem)
        found = earlier(checkpoints, resume, underway)
        underway = underway if found is None else found
        recorder = Recorder(underway, checkpoints, every, callback)
        try:
            return self._advance(problem, recorder)
        except BaseException:
            recorder.write()
            raise

    def _advance(self, problem: AbstractProblem, recorder: Recorder) -> Reached:
        stopped = False
        if recorder.phase is Phase.tournament:
            start = recorder.underway.start
            if self.tournament is not None:
                start, stopped = self._choose(problem, recorder)
            if not stopped:
                recorder.enter(Phase.normalise, start=start)
        else:
            start = recorder.underway.start
        if self.tournament is not None:
            problem = started_at(problem, start)
        if recorder.phase < Phase.warm_up:
            survey = _surveyed(problem, self.retry)
            problem = expecting(problem, survey.count)
            scaled = self._normalised(problem, recorder, None)
            if not stopped:
                recorder.enter(
                    Phase.warm_up,
                    survey=np.array([survey.count, survey.variance, survey.eliminated], float),
                    centre=scaled.centre,
                    scale=scaled.scale,
                    warm_up=self.warm_up.start(scaled.start),
                )
        else:
            survey = recorder.underway.surveyed
            problem = expecting(problem, survey.count)
            scaled = self._normalised(problem, recorder, recorder.underway)
        warm = recorder.underway.warm_up
        if stopped:
            warm = eqx.tree_at(
                lambda w: w.status,
                self.warm_up.start(scaled.start),
                np.asarray(int(WarmUpEnd.interrupted)),
            )
        elif recorder.phase is Phase.warm_up:
            warm = self.warm_up.run(scaled, survey, warm, recorder)
        phase = self.gauss_newton
        if warm.end is WarmUpEnd.interrupted:
            # One pass gives the equations that belong to the point.
            newton = phase.start(warm.best, survey)
            newton = phase.update(scaled, newton, phase.evaluate(scaled, newton))
            interrupted = np.asarray(int(Status.interrupted))
            newton = eqx.tree_at(lambda s: s.status, newton, interrupted)
        else:
            if recorder.phase is Phase.warm_up:
                newton = phase.start(warm.best, survey)
                recorder.enter(Phase.gauss_newton, warm_up=warm, gauss_newton=newton)
            newton = phase.run(scaled, survey, recorder.underway.gauss_newton, recorder)
            if int(newton.status) != Status.interrupted:
                recorder.enter(Phase.finalise, gauss_newton=newton)
        underway = recorder.underway
        return Reached(
            scaled,
            survey,
            underway.tournament,
            warm,
            newton,
            recorder.statistics,
            underway.seconds,
        )

    def _choose(self, problem, recorder):
        """The start that the tournament names, and whether the callback ended it early."""
        assert self.tournament is not None
        tournament, chosen = self.tournament, _chosen_from(problem)

        def left():
            return run_tournament(tournament, chosen, recorder.underway.tournament, recorder)

        state, _ = persistent(self.retry, left)
        return state.best, int(state.round) < tournament.rounds

    def _normalised(self, problem, recorder, underway: Underway | None) -> ScaledProblem:
        if underway is None:
            plain = self.normalisation.normalise(problem)
            centre, scale = plain.centre, plain.scale
        else:
            centre, scale = underway.centre, underway.scale
        watched = WatchedProblem(problem, scale, self.retry, recorder.report)  # pyright: ignore[reportCallIssue]
        return ScaledProblem(watched, centre, scale)


def _surveyed(problem: AbstractProblem, retry: Retry) -> Survey:
    survey: Survey = persistent(retry, problem.survey)[0]
    if survey.count < problem.start.size:
        raise ModelError(
            f"{problem.start.size} parameters cannot be fitted to {survey.count} points; fix some "
            "or give more data"
        )
    return survey
