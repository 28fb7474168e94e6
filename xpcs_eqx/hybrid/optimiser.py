"""The four phases one after another."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..checkpoint import Checkpoints
from ..errors import CovarianceWarning
from ..objective import AbstractLoss, AbstractPenalty
from ..optimize import Status
from .conjugate import ConjugateStep
from .curve_problem import curve_problem
from .finalise import Finalise
from .gauss_newton import GaussNewton
from .normalise import AbstractNormalisation, Automatic
from .penalised import PenalisedProblem
from .phases import Phases, Reached
from .points import CHUNK
from .problem import AbstractProblem
from .recording import PHASES, Phase, PhaseState
from .result import HybridHistory, HybridResult
from .retry import Failure, Retry
from .sources import AbstractSource, as_source, source_stored_as
from .steps import AbstractStep
from .telemetry import Telemetry
from .tournament import Tournament
from .warm_up import CAUGHT, WarmUp, WarmUpEnd

# Sees the state of a phase after every pass over the data; a true value stops the fit.
Callback = Callable[[PhaseState], Any]


class HybridOptimiser(eqx.Module):
    """Normalise, warm up, Gauss–Newton, finalise; each phase is a field and usable alone.

    - `normalisation`: phase 0; `warm_up`: phase 1; `gauss_newton`: phase 2; `finalise`: phase 3.
    - `matrix_free`: the step of phase 2 for more than `matrix_free_above` parameters.
    - `tournament`: chooses the start among many, before phase 0; `None` starts at p0.
    - `retry`: how often a pass over the data that fails is tried again.
    - `chunk`: points per chunk of a source that is not one yet.
    - `stored_as`: type that x and y are kept in, `"float32"` say, and that chunks of a source are
        rounded to; by default their own.
    """

    normalisation: AbstractNormalisation = Automatic()
    warm_up: WarmUp = WarmUp()
    gauss_newton: GaussNewton = GaussNewton()
    finalise: Finalise = Finalise()
    matrix_free: AbstractStep = ConjugateStep()
    matrix_free_above: int = eqx.field(static=True, default=2000)
    tournament: Tournament | None = None
    retry: Retry = Retry()
    chunk: int = eqx.field(static=True, default=CHUNK)
    stored_as: str | None = eqx.field(static=True, default=None)

    def fit(
        self,
        source: Any,
        model: Callable[..., Array],
        p0: Float[np.ndarray, "parameter"],
        bounds: Any = None,
        sigma: Any = None,
        absolute_sigma: bool = False,
        callback: Callback | None = None,
        *,
        loss: AbstractLoss | None = None,
        groups: Any = None,
        group_weights: Float[np.ndarray, "group"] | None = None,
        names: tuple[str, ...] | None = None,
        penalties: tuple[AbstractPenalty, ...] = (),
        noise: float | None = None,
        telemetry: Telemetry | None = None,
        checkpoints: Checkpoints | None = None,
        every: int = 10,
        resume: bool = False,
    ) -> HybridResult:
        """Fit `model(x, *parameters)`, written in `jax.numpy`, to points from any source.

        **Arguments:**

        - `source`, `sigma`, `groups`: as for `as_source`: arrays (x, y[, sigma]), an HDF5 path,
            a callable or re-iterable of chunks, or a source.
        - `p0`: start values; `bounds`: lower and upper, numbers or one for each parameter, or
            `scipy.optimize.Bounds`.
        - `absolute_sigma`: sigma is known, not only relative: the covariance is not scaled.
        - `callback`: sees the state of a phase after every pass; a true value stops the fit.
        - `loss`: robust loss; `group_weights`: weight of the squared residuals of each group.
        - `penalties`: terms beside the data, as functions of the parameters by name; `noise`:
            standard deviation of the residuals, by which they are weighed: of points without sigma
            in the unit of y, else in units of sigma; one by default.
        - `telemetry`: counts of earlier fits to go on from.
        - `checkpoints`: `Checkpoints(folder)`: the fit is written there after each `every`-th pass,
            at most every `interval` seconds, at every change of phase, and when it is stopped by an
            interrupt, an error or the callback. The folder is left to the caller.
        - `resume`: go on from the newest checkpoint, or begin when there is none. The fit ends
            where one that was never stopped does, to the last bit.

        **Returns:** a `HybridResult`. A fit that does not converge is returned with its status and
        its best parameters.

        **Raises:** `DataError` for data that cannot be used; `ModelError` for a start outside its
        bounds or fewer points than parameters; `PrecisionError` in single precision;
        `CheckpointError` for a checkpoint that is damaged, newer or of another problem, and without
        `resume` for any. A `CovarianceWarning` says why errors are infinite.
        """
        problem: AbstractProblem = curve_problem(
            self._stored(as_source(source, sigma, groups, self.chunk)),
            model,
            p0,
            bounds=bounds,
            loss=loss,
            group_weights=group_weights,
            names=names,
        )
        if penalties:
            problem = PenalisedProblem(problem, penalties, noise)
        result = self.minimise(
            problem,
            absolute_sigma,
            callback,
            telemetry=telemetry,
            checkpoints=checkpoints,
            every=every,
            resume=resume,
        )
        # A fit that could not begin has not succeeded, and needs no warning beside.
        if result.remark and result.status is not Status.non_finite:
            warnings.warn(result.remark, CovarianceWarning, stacklevel=2)
        return result

    def phases(self, problem: AbstractProblem) -> Phases:
        """What is done to a problem before the last phase."""
        newton = self.gauss_newton
        if problem.start.size > self.matrix_free_above:
            newton = eqx.tree_at(lambda g: g.step, newton, self.matrix_free)
        return Phases(self.tournament, self.normalisation, self.warm_up, newton, self.retry)

    def _stored(self, source: AbstractSource) -> AbstractSource:
        return source if self.stored_as is None else source_stored_as(source, self.stored_as)

    def minimise(
        self,
        problem: AbstractProblem,
        absolute_sigma: bool = False,
        callback: Callback | None = None,
        *,
        telemetry: Telemetry | None = None,
        checkpoints: Checkpoints | None = None,
        every: int = 10,
        resume: bool = False,
    ) -> HybridResult:
        """The same for any problem.

        **Raises:** as `fit`.
        """
        telemetry = Telemetry() if telemetry is None else telemetry
        reached = self.phases(problem).run(problem, callback, checkpoints, every, resume)
        survey, warm, newton = reached.survey, reached.warm_up, reached.gauss_newton
        clock = time.perf_counter()
        final = self.finalise(reached.problem, newton.z, newton.local, survey, absolute_sigma)
        seconds = reached.seconds.copy()
        seconds[Phase.finalise] += time.perf_counter() - clock
        status = Status(int(newton.status))
        used = int(newton.evaluations)
        return HybridResult(
            x=final.x,
            hessian=final.hessian,
            pcov=final.pcov,
            perr=final.perr,
            history=HybridHistory(
                warm.history,
                type(newton.history)(
                    newton.history.cost[:used],
                    newton.history.radius[:used],
                    newton.history.gradient[:used],
                    newton.history.accepted[:used],
                ),
            ),
            telemetry=observe(telemetry, reached),
            statistics=reached.statistics,
            tournament=reached.tournament,
            fun=float(newton.local.cost),
            names=problem.names,
            at_bound=final.at_bound,
            n_points=survey.count,
            degrees_of_freedom=final.degrees_of_freedom,
            residual_variance=final.variance,
            status=status,
            message="; ".join(filter(None, (status.message, final.remark))),
            remark=final.remark,
            warm_up=self.warm_up.reason(warm),
            timings=tuple(zip(PHASES, seconds.tolist(), strict=True)),
            iterations=(("warm-up", int(warm.iteration)), ("gauss-newton", int(newton.accepted))),
            evaluations=(("warm-up", int(warm.evaluations)), ("gauss-newton", used)),
        )


def observe(telemetry: Telemetry, reached: Reached) -> Telemetry:
    """Telemetry with what the layers of a fit did, read off the final states."""
    warm, newton, statistics = reached.warm_up, reached.gauss_newton, reached.statistics
    failed = statistics.failures[Failure.read] + statistics.failures[Failure.memory]
    telemetry = telemetry.record("retry", int(failed), asked=int(statistics.batches))
    iteration, first = int(warm.iteration), float(warm.first_loss)
    skipped = warm.end is WarmUpEnd.skipped
    telemetry = telemetry.record("warm start", skipped, relative_loss=first)
    if not skipped:
        telemetry = telemetry.record("first step", relative_loss=first)
        telemetry = telemetry.record(
            "cost guard",
            warm.end is WarmUpEnd.guard,
            asked=iteration,
            iteration=iteration,
            loss=float(warm.loss),
            best=float(warm.best_loss),
        )
        telemetry = telemetry.record(
            "step clip", int(warm.clipped), asked=iteration, iteration=iteration
        )
    for name, count in zip(CAUGHT, warm.caught, strict=True):
        asked = int(warm.evaluations)
        telemetry = telemetry.record(f"finite {name}", int(count), asked=asked, iteration=iteration)
    evaluations = int(newton.evaluations)
    telemetry = telemetry.record(
        "finite equations", int(newton.non_finite), asked=evaluations, iteration=evaluations
    )
    return telemetry.record(
        "radius reset", int(newton.resets), asked=evaluations, iteration=evaluations
    )
