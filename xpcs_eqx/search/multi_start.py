"""Local fits from many starts, and the minima they end in."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import FitError
from ..fitting import check_fittable, curve_solver, least_squares, require_finite, solve
from ..objective import AbstractObjective, CurveObjective
from ..optimize import Recovery, TrustRegion
from .basins import alone, basins_of, clustered, near_groups, threshold_of, variance_of
from .local_fits import AbstractLocalFits, LocalFits, local_fits_for
from .noise import count_pairs, is_absolute
from .population import population_costs
from .samplers import AbstractSampler, LatinHypercube
from .search import Search, Spending
from .space import NormalisedSpace, normalised_space
from .starts import Screening, check_starts, remark_on, starts_of
from .thinned import PAIRS, thinned

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
    if not objective.names:
        return _nothing_free(objective, solver, callback)
    refine = min(REFINED, starts) if refine is None else refine
    space = normalised_space(objective)
    begun = starts_of(objective, space, starts, custom, sampler, seed)
    n_pairs = count_pairs(objective)
    local = local_fits_for(objective, n_pairs) if local is None else local
    log = _Log(callback)
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
    log.add("screening", len(begun.x), costs)
    kept = screening.chosen(costs, begun.given)
    if not np.isfinite(costs[kept]).any():
        raise FitError(
            f"none of {len(begun.x)} starts has a finite cost; check the bounds and the data"
        )
    log.say(f"{len(kept)} of {len(begun.x)} starts fitted, by their cost")
    if log.ended:
        kept = kept[[int(np.argmin(costs[kept]))]]
        fits = _left_at(objective, begun.x[kept[0]], solver)
        log.add("the best start", int(fits.evaluations.sum()), fits.cost)
    else:
        most = ROUGH_EVALUATIONS if sample is None else SAMPLED_EVALUATIONS
        rough = dataclasses.replace(
            solver,
            cost_tol=np.maximum(solver.cost_tol, ROUGH_TOLERANCE),
            max_evaluations=min(solver.max_evaluations, most),
        )
        fits = local.run(coarse, begun.x[kept], rough)
        what = "rough fits" if sample is None else "rough fits to a sample of the pairs"
        log.add(what, int(fits.evaluations.sum()), fits.cost)
    if not np.isfinite(fits.cost).any():
        raise FitError(f"none of {len(kept)} local fits found a finite cost")
    first_evaluations = fits.evaluations
    absolute = is_absolute(objective)
    # Sums over a sample are weighted to be those of all pairs.
    typical = float(np.max(costs[np.isfinite(costs)]))
    variance = variance_of(float(np.min(fits.cost)), n_pairs, absolute)
    order = _to_refine(space, fits, variance, typical, refine)
    refined: list[int] = []
    if not log.ended:
        most = min(solver.max_evaluations, REFINED_EVALUATIONS)
        careful = dataclasses.replace(solver, max_evaluations=most)
        better = local.run(objective, fits.x[order], careful)
        log.add(f"{len(order)} fits to tolerance", int(better.evaluations.sum()), better.cost)
        fits, refined = _replaced(fits, better, order), list(order)
        fits.evaluations[order] += first_evaluations[order]
    # What has not arrived is no minimum: a way from it would only say that it is under way.
    # Nor is there a way to look at in a search that was ended.
    arrived = fits.converged & (not log.ended)
    arrived[refined] = True
    arrived[int(np.argmin(fits.cost))] = True
    unfinished = int(np.count_nonzero(~arrived))
    ends = fits.spread(len(begun.x), kept)
    place = np.cumsum(arrived) - 1
    refined = [int(place[k]) for k in refined]
    fits, numbers = fits.take(arrived), kept[arrived]
    if sample is not None:
        fits, spent = _with_whole_costs(objective, fits, refined)
        ends.cost[numbers] = fits.cost
        log.add("costs of all pairs", spent, fits.cost)
    variance = variance_of(float(np.min(fits.cost)), n_pairs, absolute)
    clusters = clustered(objective, space, fits, refined, variance, typical, local, solver)
    log.add("ways between minima", clusters.evaluations, fits.cost)
    best = clusters.groups[0][0]
    # Many starts are the recovery; only what is no minimum is worth more attempts.
    enough = log.ended or fits.converged[best]
    x = np.clip(fits.x[best], objective.variables.lower, objective.variables.upper)
    fit = least_squares(
        objective,
        x,
        solver=solver,
        recovery=Recovery(attempts=0) if enough else None,
        callback=_at_once if log.ended else None,
    )
    log.add("final fit", fit.evaluations, np.asarray([float(fit.cost)]))
    basins = basins_of(
        space,
        fits,
        clusters,
        refined,
        numbers,
        np.asarray(objective.variables.coordinate_scale),
        variance,
        threshold_of(variance, typical),
    )
    search = Search(
        fit=fit,
        basins=basins,
        names=tuple(objective.names),
        starts=begun.x,
        costs=costs,
        ends=ends,
        spent=tuple(log.spent),
        unfinished=unfinished,
        decisions=tuple(log.decisions),
        noise=2 * threshold_of(variance, typical),
    )
    return dataclasses.replace(search, fit=fit.doubted(search.warnings))


def _nothing_free(
    objective: AbstractObjective,
    solver: TrustRegion,
    callback: Callable[[SearchProgress], Any] | None,
) -> Search:
    """The one fit there is where every parameter is fixed."""
    log = _Log(callback)
    log.say("no parameter is free: there is nothing to search for, and one fit was made")
    fit = least_squares(objective, None, solver=solver)
    cost, none = np.asarray([float(fit.cost)]), np.zeros((1, 0))
    log.add("the one fit", fit.evaluations, cost)
    status, used = np.asarray([int(fit.status)]), np.asarray([fit.evaluations])
    variance = variance_of(float(fit.cost), count_pairs(objective), is_absolute(objective))
    return Search(
        fit=fit,
        basins=(alone(float(fit.cost)),),
        names=(),
        starts=none,
        costs=cost,
        ends=LocalFits(none, none, cost, np.zeros((1, 0, 0)), status, used),
        unfinished=0,
        spent=tuple(log.spent),
        decisions=tuple(log.decisions),
        noise=2 * threshold_of(variance, 0.0),
    )


def _at_once(state: Any) -> bool:
    return True


def _left_at(
    objective: AbstractObjective,
    x: Float[np.ndarray, "variable"],
    solver: TrustRegion,
) -> LocalFits:
    """A local fit that was left after its first evaluation."""
    done = solve(objective, x, solver=solver, recovery=Recovery(attempts=0), callback=_at_once)
    y, equations, run = np.asarray(done.y), require_finite(done).equations, done.run
    parts = (y, x, equations.cost, equations.hessian, int(run.status), run.evaluations)
    return LocalFits(*(np.asarray(part)[None] for part in parts))


def _to_refine(
    space: NormalisedSpace, fits: LocalFits, variance: float, typical: float, refine: int
) -> list[int]:
    """The best fit of each group in the order of cost, and what lies farthest from the best.

    Groups whose cost is hopelessly above the lowest are left as they are.
    """
    groups = near_groups(space, fits, max(variance, 1e-300))
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


def _with_whole_costs(
    objective: AbstractObjective, fits: LocalFits, refined: list[int]
) -> tuple[LocalFits, int]:
    """Fits to a sample with the costs of all pairs, and how many had to be found."""
    rest = np.setdiff1d(np.arange(len(fits.cost)), refined)
    cost = fits.cost.copy()
    x = np.clip(fits.x[rest], objective.variables.lower, objective.variables.upper)
    cost[rest] = population_costs(objective, x)
    return fits._replace(cost=cost), rest.size


def _replaced(fits: LocalFits, better: LocalFits, which: list[int]) -> LocalFits:
    parts = []
    for old, new in zip(fits, better, strict=True):
        part = np.array(old)
        part[which] = new
        parts.append(part)
    return LocalFits(*parts)


class _Log:
    """What a search under way has used and decided; it lives as long as the search."""

    def __init__(self, callback: Callable[[SearchProgress], Any] | None):
        self.callback = callback
        self.spent: list[Spending] = []
        self.decisions: list[str] = []
        self.lowest = np.inf
        self.ended = False

    def say(self, text: str) -> None:
        self.decisions.append(text)

    def add(self, what: str, evaluations: int, costs: np.ndarray) -> None:
        self.spent.append(Spending(what, evaluations))
        self.lowest = min(self.lowest, float(np.min(costs, initial=np.inf)))
        if self.callback is not None and not self.ended:
            total = sum(one.evaluations for one in self.spent)
            seen = SearchProgress(what, total, self.lowest)
            if bool(self.callback(seen)):
                self.ended = True
                self.say(f"ended by the callback after: {what}")
