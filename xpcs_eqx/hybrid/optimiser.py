"""From afar to the minimum: a tournament among starts, a warm-up, the trust region."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..arguments import check_fields
from ..checkpoint import Checkpoints
from ..files import Retry
from ..fitting import Fit, default_solver, fit_of, solve
from ..fitting.attempts import Preparations
from ..objective import AbstractLoss, AbstractObjective, AbstractPenalty, CurveObjective
from ..objective.curve import CHUNK
from ..optimize import ConjugateGradient, Event, Recovery, Telemetry, TrustRegion, WarmUp
from ..search import Tournament
from .sources import as_source, source_stored_as
from .streamed import StreamedPoints, streamed_objective

# Sees the state of a phase after every step of it; a true value stops the fit.
Callback = Callable[[Any], Any]


class HybridOptimiser(eqx.Module):
    """Tournament, warm-up and trust region one after another, for data from any source.

    - `warm_up`: L-BFGS before the trust region; `None` for none.
    - `tournament`: chooses the start among many; `None` starts at p0.
    - `solver`: the trust region; by default that of `curve_fit` and `least_squares`, with at most
        `max_evaluations` and `tolerance` of the gradient as a cosine and of the relative step; its
        square of the cost.
    - `recovery`: what to do about a fit that fails or is stuck.
    - `matrix_free`: the descent for curves of more than `matrix_free_above` parameters.
    - `retry`: how often a read that failed is tried again.
    - `chunk`: points per chunk of a source that is not one yet.
    - `stored_as`: type that x and y are kept in, `"float32"` say, and that chunks of a source are
        rounded to; by default their own.
    """

    warm_up: WarmUp | None = WarmUp()
    tournament: Tournament | None = None
    solver: TrustRegion | None = None
    tolerance: float = 1e-8
    max_evaluations: int | None = eqx.field(static=True, default=None)
    recovery: Recovery = Recovery()
    matrix_free: ConjugateGradient = ConjugateGradient()
    matrix_free_above: int = eqx.field(static=True, default=2000)
    retry: Retry = Retry()
    chunk: int = eqx.field(static=True, default=CHUNK)
    stored_as: str | None = eqx.field(static=True, default=None)

    __check_init__ = check_fields

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
        checkpoints: Checkpoints | None = None,
        every: int = 10,
        resume: bool = False,
    ) -> Fit:
        """Fit `model(x, *parameters)`, written in `jax.numpy`, to points from any source.

        **Arguments:**

        - `source`, `sigma`, `groups`: as for `as_source`: arrays (x, y[, sigma]), an HDF5 path,
            a callable or re-iterable of chunks, or a source.
        - `p0`, `bounds`, `absolute_sigma`, `loss`, `group_weights`, `names`, `penalties`, `noise`:
            as for `streamed_objective`.
        - `callback`, `checkpoints`, `every`, `resume`: as for `minimise`.

        **Returns:** the `Fit` of a curve. One that does not converge is returned with its status
        and its best parameters.

        **Raises:** `DataError` for data that cannot be used; `ModelError` for a start outside its
        bounds or fewer points than parameters; `PrecisionError` in single precision;
        `CheckpointError` for a checkpoint that is damaged, newer or of another problem, and without
        `resume` for any. A `CovarianceWarning` says why errors are infinite.
        """
        points = as_source(source, sigma, groups, self.chunk)
        if self.stored_as is not None:
            points = source_stored_as(points, self.stored_as)
        failures: list[Exception] = []
        objective = streamed_objective(
            StreamedPoints(points, retry=self.retry, report=failures.append),
            model,
            p0,
            bounds=bounds,
            loss=loss,
            group_weights=group_weights,
            names=names,
            absolute_sigma=absolute_sigma,
            penalties=penalties,
            noise=noise,
        )
        fit = self.minimise(
            objective,
            callback=callback,
            checkpoints=checkpoints,
            every=every,
            resume=resume,
        )
        events = [Event("retry", number, ()) for number in range(1, len(failures) + 1)]
        telemetry = fit.telemetry + Telemetry.of("retry", fit.evaluations, events)
        return dataclasses.replace(fit, run=dataclasses.replace(fit.run, telemetry=telemetry))

    def minimise(
        self,
        objective: AbstractObjective,
        start: Float[Array | np.ndarray, "variable"] | None = None,
        *,
        callback: Callback | None = None,
        checkpoints: Checkpoints | None = None,
        every: int = 10,
        resume: bool = False,
    ) -> Fit:
        """The same for any objective: of maps in memory and in a file, of several, of a curve.

        **Arguments:**

        - `objective`, `start`: as for `least_squares`.
        - `callback`: sees the state of a phase after every step of it, be that a round of the
            tournament, an iteration of the warm-up or an evaluation of the trust region; a true
            value stops the fit.
        - `checkpoints`, `every`, `resume`: as for `least_squares`, every so many passes over the
            data.

        **Returns:** a `Fit`; its `prepared` are the last states of tournament and warm-up, and its
        `telemetry` what the defences did.

        **Raises:** as `least_squares`, and `DataError` for data that cannot be read any more, which
        names the best parameters so far.
        """
        solution = solve(
            objective,
            start,
            solver=self.solver_for(objective),
            recovery=self.recovery,
            callback=callback,
            checkpoints=checkpoints,
            every=every,
            resume=resume,
            preparations=self.preparations,
        )
        return fit_of(solution)

    @property
    def preparations(self) -> Preparations:
        """What improves the start before the trust region."""
        return tuple(one for one in (self.tournament, self.warm_up) if one is not None)

    def solver_for(self, objective: AbstractObjective) -> TrustRegion:
        """The trust region of an objective."""
        out = self.solver
        if out is None:
            out = dataclasses.replace(
                default_solver(objective),
                cost_tol=self.tolerance**2,
                step_tol=self.tolerance,
                gradient_tol=self.tolerance,
            )
            if self.max_evaluations is not None:
                out = dataclasses.replace(out, max_evaluations=self.max_evaluations)
        if isinstance(objective, CurveObjective) and len(objective.names) > self.matrix_free_above:
            out = dataclasses.replace(out, descent=self.matrix_free)
        return out


def default() -> HybridOptimiser:
    """The optimiser with the defaults of its fields."""
    return HybridOptimiser()


def aggressive() -> HybridOptimiser:
    """Few passes over the data: a short warm-up in longer steps, looser tolerances."""
    return HybridOptimiser(
        warm_up=WarmUp(plateau_close=0.5, gradient=1e-2, max_iterations=100, clip=0.5),
        tolerance=1e-6,
        max_evaluations=100,
    )


def conservative() -> HybridOptimiser:
    """A longer warm-up in shorter steps, tighter tolerances."""
    return HybridOptimiser(
        warm_up=WarmUp(
            plateau=1e-3,
            plateau_close=1e-3,
            window=5,
            gradient=1e-5,
            max_iterations=1000,
            clip=0.05,
        ),
        tolerance=1e-10,
    )


def memory_optimised() -> HybridOptimiser:
    """Small chunks, arrays kept in float32, a short memory of L-BFGS; the sums stay in float64.

    float32 rounds data and abscissae to seven digits: not for abscissae that need more.
    """
    return HybridOptimiser(warm_up=WarmUp(memory=5), chunk=1000, stored_as="float32")


def scientific() -> HybridOptimiser:
    """As exact as rounding allows, whatever the number of passes."""
    return HybridOptimiser(warm_up=WarmUp(plateau=1e-4, window=5, gradient=1e-6), tolerance=1e-12)
