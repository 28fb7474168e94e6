"""A fit under way: its whole state as arrays, written now and then, and back."""

import logging
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from ..checkpoint import Checkpoints, to_resume
from ..errors import CheckpointError
from .gauss_newton import GaussNewtonState
from .problem import Survey
from .statistics import BatchStatistics
from .tournament import TournamentState
from .warm_up import WarmUpState
from .watched import Pass

log = logging.getLogger(__name__)

PHASES = ("tournament", "normalise", "warm-up", "gauss-newton", "finalise")


class Phase(IntEnum):
    """What a fit is at, by place in `PHASES`."""

    tournament = 0
    normalise = 1
    warm_up = 2
    gauss_newton = 3
    finalise = 4


class Underway(eqx.Module):
    """Everything a fit knows between two passes over the data.

    The random numbers of a tournament follow from its seed and are drawn again.

    - `phase`: a `Phase`; `survey`: count, variance and eliminated parameters.
    - `start`: in physical units, `centre` and `scale` of the normalisation.
    - `seconds`: spent in each phase [s].
    """

    phase: Int[np.ndarray, ""]
    survey: Float[np.ndarray, "3"]
    start: Float[np.ndarray, "p"]
    centre: Float[np.ndarray, "p"]
    scale: Float[np.ndarray, "p"]
    tournament: TournamentState | None
    warm_up: WarmUpState
    gauss_newton: GaussNewtonState
    statistics: BatchStatistics
    seconds: Float[np.ndarray, "phase"]

    @property
    def surveyed(self) -> Survey:
        """The survey as it was."""
        count, variance, eliminated = self.survey
        return Survey(int(count), float(variance), int(eliminated))

    @property
    def passes(self) -> int:
        """Passes over the data so far, rounds of the tournament included."""
        rounds = 0 if self.tournament is None else int(self.tournament.round)
        return rounds + int(self.warm_up.evaluations) + int(self.gauss_newton.evaluations)

    @property
    def step(self) -> int:
        """Grows with every pass and every change of phase."""
        return int(self.phase) + self.passes


PhaseState = TournamentState | WarmUpState | GaussNewtonState
_PLACE = {TournamentState: "tournament", WarmUpState: "warm_up", GaussNewtonState: "gauss_newton"}


def earlier(checkpoints: Checkpoints | None, resume: bool, blank: Underway) -> Underway | None:
    """Where to go on; `None` for the beginning. `blank` has the structure of the fit.

    **Raises:** `CheckpointError` as `to_resume`.
    """
    found = to_resume(checkpoints, resume)
    return None if found is None else found.restore(blank).state


class Recorder:
    """Sees one run of a fit: counts its passes, keeps its last state and writes it when it is time.

    - `every`: passes between two writings; a change of phase is always written.
    - `callback`: of the user; asked after the state is safe.
    """

    def __init__(
        self,
        underway: Underway,
        checkpoints: Checkpoints | None,
        every: int,
        callback: Callable[[Any], Any] | None,
    ):
        if every < 1:
            raise CheckpointError(
                f"every = {every}: a checkpoint can be written every 1, 2, … passes"
            )
        self.underway, self.checkpoints, self.every = underway, checkpoints, every
        self.callback = callback
        self.statistics = underway.statistics
        self.clock = self.written_at = time.monotonic()
        self.written = underway.step

    @property
    def phase(self) -> Phase:
        """What the fit is at."""
        return Phase(int(self.underway.phase))

    def report(self, found: Pass) -> None:
        """Count a pass over the data."""
        self.statistics = self.statistics.record(
            found.cost,
            found.gradient_norm,
            found.seconds,
            success=found.success,
            failures=found.failures,
        )

    def _keep(self, **parts: Any) -> None:
        now, phase = time.monotonic(), int(self.underway.phase)
        seconds = self.underway.seconds.copy()
        seconds[phase] += now - self.clock
        self.clock = now
        # Arithmetic on arrays of no dimension leaves scalars; a checkpoint tells them apart.
        parts = jax.tree.map(np.asarray, parts | {"statistics": self.statistics})
        parts["seconds"] = seconds
        names = tuple(parts)
        self.underway = eqx.tree_at(
            lambda u: tuple(getattr(u, name) for name in names),
            self.underway,
            tuple(parts.values()),
            is_leaf=lambda leaf: leaf is None,
        )

    def __call__(self, state: PhaseState) -> bool:
        """See the state of a phase after a pass; whether the user wants to stop."""
        self._keep(**{_PLACE[type(state)]: state})
        waited = self.checkpoints is not None and (
            time.monotonic() - self.written_at >= self.checkpoints.interval
        )
        if waited and self.underway.step % self.every == 0:
            self.write()
        ends = self.callback is not None and bool(self.callback(state))
        if ends:
            # As it is now, so that it can go on: the end that the callback wants is not in it.
            self.write()
        return ends

    def enter(self, phase: Phase, **parts: Any) -> None:
        """Go on to a phase, with what it starts from."""
        self._keep(**parts)
        self._keep(phase=np.asarray(int(phase)))
        self.write()

    def write(self) -> None:
        """Write what was seen last, unless it is written already or nothing was done yet.

        A full disk is no reason to lose the fit: what cannot be written is logged.
        """
        new = self.underway.passes > 0 and self.underway.step > self.written
        if self.checkpoints is None or not new:
            return
        try:
            path = self.checkpoints.write(self.underway.step, self.underway)
        except OSError as error:
            log.warning("%s: no checkpoint written: %s", self.checkpoints.folder, error)
        else:
            log.debug("checkpoint written to %s", path)
            self.written = self.underway.step
        self.written_at = time.monotonic()
