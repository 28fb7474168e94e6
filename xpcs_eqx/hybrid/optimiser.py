"""The four phases one after another."""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError
from ..objective import AbstractLoss
from ..optimize import Status
from .curve_problem import curve_problem
from .finalise import Finalise
from .gauss_newton import GaussNewton, GaussNewtonState
from .normalise import AbstractNormalisation, Automatic
from .points import CHUNK
from .problem import AbstractProblem
from .result import HybridHistory, HybridResult
from .sources import as_source
from .telemetry import Telemetry
from .warm_up import CAUGHT, WarmUp, WarmUpEnd, WarmUpState

# Sees the state of a phase after every pass over the data; a true value stops the fit.
Callback = Callable[[WarmUpState | GaussNewtonState], Any]


class HybridOptimiser(eqx.Module):
    """Normalise, warm up, Gauss–Newton, finalise; each phase is a field and usable alone.

    - `normalisation`: phase 0; `warm_up`: phase 1; `gauss_newton`: phase 2; `finalise`: phase 3.
    - `chunk`: points per chunk of a source that is not one yet.
    """

    normalisation: AbstractNormalisation = Automatic()
    warm_up: WarmUp = WarmUp()
    gauss_newton: GaussNewton = GaussNewton()
    finalise: Finalise = Finalise()
    chunk: int = eqx.field(static=True, default=CHUNK)

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
        telemetry: Telemetry | None = None,
    ) -> HybridResult:
        """Fit `model(x, *parameters)`, written in `jax.numpy`, to points from any source.

        **Arguments:**

        - `source`, `sigma`, `groups`: as for `as_source`: arrays (x, y[, sigma]), an HDF5 path,
            a callable or re-iterable of chunks, or a source.
        - `p0`: start values; `bounds`: lower and upper, numbers or one for each parameter.
        - `absolute_sigma`: sigma is known, not only relative: the covariance is not scaled.
        - `callback`: sees the state of a phase after every pass; a true value stops the fit.
        - `loss`: robust loss; `group_weights`: weight of the squared residuals of each group.
        - `telemetry`: counts of earlier fits to go on from.

        **Returns:** a `HybridResult`. A fit that does not converge is returned with its status and
        its best parameters.

        **Raises:** `DataError` for data that cannot be used; `ModelError` for a start outside its
        bounds or fewer points than parameters; `PrecisionError` in single precision.
        """
        problem = curve_problem(
            as_source(source, sigma, groups, self.chunk),
            model,
            p0,
            bounds=bounds,
            loss=loss,
            group_weights=group_weights,
            names=names,
        )
        return self.minimise(problem, absolute_sigma, callback, telemetry=telemetry)

    def minimise(
        self,
        problem: AbstractProblem,
        absolute_sigma: bool = False,
        callback: Callback | None = None,
        *,
        telemetry: Telemetry | None = None,
    ) -> HybridResult:
        """The same for any problem.

        **Raises:** as `fit`.
        """
        telemetry = Telemetry() if telemetry is None else telemetry
        clock = [time.perf_counter()]
        survey = problem.survey()
        if survey.count < problem.start.size:
            raise ModelError(
                f"{problem.start.size} parameters cannot be fitted to {survey.count} points; fix "
                "some or give more data"
            )
        scaled = self.normalisation.normalise(problem)
        clock.append(time.perf_counter())
        warm = self.warm_up.run(scaled, survey, scaled.start, callback)
        clock.append(time.perf_counter())
        newton = self.gauss_newton.start(warm.best)
        if warm.end is WarmUpEnd.interrupted:
            # One pass gives the equations that belong to the point.
            found = self.gauss_newton.evaluate(scaled, newton)
            newton = self.gauss_newton.update(scaled, newton, found)
            interrupted = np.asarray(int(Status.interrupted))
            newton = eqx.tree_at(lambda s: s.status, newton, interrupted)
        else:
            newton = self.gauss_newton.run(scaled, newton, callback)
        clock.append(time.perf_counter())
        final = self.finalise(scaled, newton.z, newton.local, absolute_sigma, survey.eliminated)
        clock.append(time.perf_counter())
        status = Status(int(newton.status))
        phases = ("normalise", "warm-up", "gauss-newton", "finalise")
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
            telemetry=observe(telemetry, warm, newton),
            fun=float(newton.local.cost),
            names=problem.names,
            at_bound=final.at_bound,
            n_points=int(newton.local.count),
            degrees_of_freedom=final.degrees_of_freedom,
            residual_variance=final.variance,
            status=status,
            message=status.message,
            warm_up=self.warm_up.reason(warm),
            timings=tuple(zip(phases, np.diff(clock).tolist(), strict=True)),
            iterations=(("warm-up", int(warm.iteration)), ("gauss-newton", int(newton.accepted))),
            evaluations=(("warm-up", int(warm.evaluations)), ("gauss-newton", used)),
        )


def observe(telemetry: Telemetry, warm: WarmUpState, newton: GaussNewtonState) -> Telemetry:
    """Telemetry with what the layers of a fit did, read off the final states."""
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
