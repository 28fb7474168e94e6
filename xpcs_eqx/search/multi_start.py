"""Local fits from many starts, and the minima they end in."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import FitError
from ..fitting import check_fittable, curve_solver, least_squares
from ..objective import AbstractObjective, CurveObjective
from ..optimize import Recovery, TrustRegion
from .basins import Basin, Ends, basins_of, near_groups, threshold_of, variance_of
from .local_fits import AbstractLocalFits, LocalFits, OverExecutor, local_fits_for
from .log import Log
from .pairs import PAIRS, count_pairs, is_absolute, thinned
from .population import population_costs
from .search import Search
from .space import NormalisedSpace, normalised_space
from .starts import (
    AbstractSampler,
    LatinHypercube,
    Screening,
    check_starts,
    remark_on,
    starts_of,
)

# Fits of the first round stop where they can be told apart; most of a fit's work comes after.
ROUGH_TOLERANCE = 1e-5
ROUGH_EVALUATIONS = 20
# Share by which the cost of a rough fit lies above the lowest when refining it is in vain.
HOPELESS = 0.25
# On a sample of the pairs, where an evaluation costs a fraction of one, they may go further.
SAMPLED_EVALUATIONS = 60
REFINED_TOLERANCE = 1e-12
# Fits carried to that tolerance when nothing is said.
REFINED = 3
# What has not arrived by then creeps along a valley; of the best, the final fit goes on.
REFINED_EVALUATIONS = 60


class SearchProgress(NamedTuple):
    """Where a search is: the phase, evaluations so far, and the lowest cost."""

    phase: str
    evaluations: int
    cost: float

    @property
    def summary(self) -> str:
        """Where it is, in one line."""
        return f"multi-start, {self.phase}: {self.evaluations} evaluations, cost {self.cost:.8g}"


def multi_start(
    objective: AbstractObjective,
    *,
    starts: int = 20,
    sampler: AbstractSampler | None = None,
    custom: Float[np.ndarray, "start variable"] | tuple = (),
    screening: Screening | None = None,
    refine: int | None = None,
    thin: int | None = PAIRS,
    seed: int = 0,
    local: AbstractLocalFits | None = None,
    solver: TrustRegion | None = None,
    callback: Callable[[SearchProgress], Any] | None = None,
) -> Search:
    """Fit from many starts over the bounds; the best minimum, and the others beside it.

    Starts are drawn evenly over the bounds, on axes that suit these (`normalised_space`), and
    screened by their cost in one batched call. Those kept are fitted roughly, the `refine` best
    that are not near each other to tolerance, and the best of these becomes the `Fit`. Where fits
    ended is sorted into basins by the rise of the cost between them. Of maps in memory, screening
    and rough fits see an evenly drawn sample of the pairs; everything that is quoted sees all.

    **Arguments:**

    - `objective`: from `projected_objective`, `two_time_objective` or `curve_objective`; the `fit`
        of the result is that of `least_squares`. With nothing free it is one fit, as there.
    - `starts`: how many, custom ones included; at most 100 000. Points that have no solver
        coordinates (a rate that is negative inside the window) are replaced by others.
    - `sampler`: `LatinHypercube()` (default), `Sobol()` or `Halton()`.
    - `custom`: physical starts of your own, one a row; they come first and are always fitted.
    - `screening`: which starts are worth a fit; by default half of them, at least three.
    - `refine`: how many fits are carried to a relative tolerance of 1e-12; by default 3, or as many
        as there are starts.
    - `thin`: pairs of each angle that screening and rough fits see of maps in memory; None for all.
    - `local`: how the fits are carried out; by default by the size of the data.
    - `solver`: of the refined fits.
    - `callback`: sees a `SearchProgress` after each phase; a true value ends the search: the fit is
        then the best point so far, with status `interrupted`, and the only one in the table.

    **Raises:** `ModelError` for bounds that are infinite or without volume, custom starts of the
    wrong shape or outside the bounds, and numbers that make no sense; `FitError` when no start has
    a finite cost.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> from xpcs_eqx.search import multi_start
    >>> truth, t = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0)), 0.2 * np.arange(15)
    >>> place = xe.Geometry(0.0054, np.array([0.0]))
    >>> data = xe.simulate(truth, t, place, 0.2, 1.0, noise=0.002, key=jax.random.key(0))
    >>> parameters = xe.parameter_map(truth, t, fixed=("D_offset",))
    >>> search = multi_start(xe.projected_objective(parameters, data), starts=8)
    >>> len(search.basins), abs(search.fit["alpha"].value + 0.3) < 4 * search.fit["alpha"].error
    (1, True)
    """
    check_fittable(objective, "multi_start")
    sampler = LatinHypercube() if sampler is None else sampler
    screening = Screening() if screening is None else screening
    if solver is None:
        curve = isinstance(objective, CurveObjective)
        solver = curve_solver() if curve else TrustRegion(cost_tol=REFINED_TOLERANCE)
    check_starts(starts, refine)
    log = Log(callback)
    if not objective.names:
        return _nothing_free(objective, solver, log)
    space = normalised_space(objective)
    begun = starts_of(objective, space, starts, custom, sampler, seed)
    n_pairs, absolute = count_pairs(objective), is_absolute(objective)
    local = local_fits_for(objective, n_pairs) if local is None else local
    log.say(
        f"{len(begun.x)} starts, {begun.given} given and the others by {type(sampler).__name__} "
        f"over the bounds (seed {seed})"
        + (
            f", from {begun.drawn} points, of which some have a negative rate"
            * (begun.drawn > len(begun.x) - begun.given)
        )
    )
    if remark := remark_on(starts, space.dimension):
        log.say(remark)

    sample = None if thin is None else thinned(objective, seed, thin)
    coarse = objective if sample is None else sample
    costs = population_costs(coarse, begun.x)
    _note(log, "screening", len(begun.x), costs)
    kept = screening.chosen(costs, begun.given)
    if not np.isfinite(costs[kept]).any():
        raise FitError(
            f"none of {len(begun.x)} starts has a finite cost; check the bounds and the data"
        )
    log.say(f"{len(kept)} of {len(begun.x)} starts fitted, by their cost")

    if log.ended:
        kept = kept[[int(np.argmin(costs[kept]))]]
        once = dataclasses.replace(solver, max_evaluations=1)
        fits = OverExecutor().run(objective, begun.x[kept], once)
        what = "the best start"
    else:
        most = ROUGH_EVALUATIONS if sample is None else SAMPLED_EVALUATIONS
        rough = dataclasses.replace(
            solver,
            cost_tol=np.maximum(solver.cost_tol, ROUGH_TOLERANCE),
            max_evaluations=min(solver.max_evaluations, most),
        )
        fits = local.run(coarse, begun.x[kept], rough)
        what = "rough fits" if sample is None else "rough fits to a sample of the pairs"
    _note(log, what, int(fits.evaluations.sum()), fits.cost)
    if not np.isfinite(fits.cost).any():
        raise FitError(f"none of {len(kept)} local fits found a finite cost")

    # Sums over a sample are weighted to be those of all pairs.
    typical = float(np.max(costs[np.isfinite(costs)]))
    refined: list[int] = []
    if not log.ended:
        variance = variance_of(float(np.min(fits.cost)), n_pairs, absolute)
        most = min(REFINED, starts) if refine is None else refine
        refined = _to_refine(space, fits, variance, typical, most)
        careful = min(solver.max_evaluations, REFINED_EVALUATIONS)
        careful = dataclasses.replace(solver, max_evaluations=careful)
        better = local.run(objective, fits.x[refined], careful)
        _note(log, f"{len(refined)} fits to tolerance", int(better.evaluations.sum()), better.cost)
        together = better.evaluations + fits.evaluations[refined]
        fits = fits.put(refined, better._replace(evaluations=together))

    # What has not arrived is no minimum: a way from it would only say that it is under way.
    # Nor is there a way to look at in a search that was ended.
    arrived = fits.converged & (not log.ended)
    arrived[[*refined, int(np.argmin(fits.cost))]] = True
    ends = fits.spread(len(begun.x), kept)
    place = np.cumsum(arrived) - 1
    refined = place[refined].tolist()
    fits, numbers = fits.take(arrived), kept[arrived]
    if sample is not None:
        rest = np.setdiff1d(np.arange(len(numbers)), refined)
        inside = np.clip(fits.x[rest], objective.variables.lower, objective.variables.upper)
        fits.cost[rest] = ends.cost[numbers[rest]] = population_costs(objective, inside)
        _note(log, "costs of all pairs", rest.size, fits.cost)

    variance = variance_of(float(np.min(fits.cost)), n_pairs, absolute)
    threshold = threshold_of(variance, typical)
    told = Ends(fits, numbers, refined, space, variance, threshold)
    basins, used = basins_of(objective, told, local, solver)
    _note(log, "ways between minima", used, fits.cost)
    # The lead of the best basin is the lowest of all.
    lead = int(np.argmin(fits.cost))
    fit = least_squares(
        objective,
        np.clip(fits.x[lead], objective.variables.lower, objective.variables.upper),
        solver=solver,
        # Many starts are the recovery; only what is no minimum is worth more attempts.
        recovery=Recovery(attempts=0) if log.ended or fits.converged[lead] else None,
        callback=(lambda state: True) if log.ended else None,
    )
    _note(log, "final fit", fit.evaluations, np.asarray([float(fit.cost)]))
    search = Search(
        fit=fit,
        basins=basins,
        names=tuple(objective.names),
        starts=begun.x,
        costs=costs,
        ends=ends,
        spent=tuple(log.spent),
        unfinished=int(np.count_nonzero(~arrived)),
        decisions=tuple(log.decisions),
        noise=2 * threshold,
    )
    fit = dataclasses.replace(fit, looked=f"looked for from {len(begun.x)} starts")
    return dataclasses.replace(search, fit=fit.doubted(search.warnings))


def _note(log: Log, what: str, evaluations: int, costs: Float[np.ndarray, "point"]) -> None:
    """Enter a phase into the log, and show it to the callback unless that has had enough."""
    log.spend(what, evaluations, float(np.min(costs, initial=np.inf)))
    if not log.ended:
        seen = SearchProgress(what, log.used, log.lowest)
        log.show(seen, f"ended by the callback after: {what}")


def _nothing_free(objective: AbstractObjective, solver: TrustRegion, log: Log) -> Search:
    """The one fit there is where every parameter is fixed."""
    log.say("no parameter is free: there is nothing to search for, and one fit was made")
    fit = least_squares(objective, None, solver=solver)
    cost, none = np.asarray([float(fit.cost)]), np.zeros((1, 0))
    _note(log, "the one fit", fit.evaluations, cost)
    status, used = np.asarray([int(fit.status)]), np.asarray([fit.evaluations])
    variance = variance_of(float(fit.cost), count_pairs(objective), is_absolute(objective))
    return Search(
        fit=fit,
        basins=(Basin(float(fit.cost), 2 * float(fit.cost)),),
        names=(),
        starts=none,
        costs=cost,
        ends=LocalFits(none, none, cost, np.zeros((1, 0, 0)), status, used),
        unfinished=0,
        spent=tuple(log.spent),
        decisions=tuple(log.decisions),
        noise=2 * threshold_of(variance, 0.0),
    )


def _to_refine(
    space: NormalisedSpace, fits: LocalFits, variance: float, typical: float, refine: int
) -> list[int]:
    """The best fit of each group in the order of cost, and what lies farthest from the best.

    Groups whose cost is hopelessly above the lowest are left as they are.
    """
    groups = near_groups(space, fits, variance)
    lowest = float(fits.cost[groups[0][0]])
    worth = (1 + HOPELESS) * lowest + 1e-3 * typical
    groups = [group for group in groups if fits.cost[group[0]] <= worth]
    leads = [group[0] for group in groups]
    # A second fit of the best group tells a flat valley from a minimum.
    rest = groups[0][1:]
    cube = space.to_unit(fits.x)
    rest.sort(key=lambda k: -float(np.linalg.norm(cube[k] - cube[leads[0]])))
    if len(rest) and len(leads) >= refine:
        leads = leads[: max(refine - 1, 1)]
    return (leads + rest)[:refine]
