"""A cheap look around: whether fits from elsewhere, to a sample of the pairs, end lower."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..fitting import default_solver
from ..objective import AbstractObjective, CombinedObjective, TwoTimeObjective
from ..optimize import TrustRegion
from .basins import threshold_of, variance_of
from .local_fits import LocalFits, local_fits_for
from .pairs import count_pairs, is_absolute, thinned
from .population import population_costs
from .selection import SAME_COST
from .space import normalised_space
from .starts import AbstractSampler, LatinHypercube, lowest, starts_of

# Pairs of which a fit is so quick that a sample would save nothing.
FEW = 20_000
# Points drawn for each start that is fitted, those of the lowest cost. A cost is a fifth of an
# evaluation, and of 200 points between wide bounds (laminar flow, seven variables) the lowest tenth
# came to a minimum within `EVALUATIONS`, of the upper half, where the model is flat, hardly any.
DRAWN = 8
# Evaluations after which a fit to the sample is left; most arrive within half of it.
EVALUATIONS = 60
TOLERANCE = 1e-8
# Lower minima of the sample that are worth a fit to all pairs; others as well beside a fit that is
# not trusted, for which of two is lower a sample can tell by no less than its noise.
WORTH, WORTH_DOUBTED = 2, 4


class Around(NamedTuple):
    """What a look around found.

    - `lower`: physical variables of minima of the sample that are or may be below the known one,
        the lowest first; `same`: starts that came to the known one, or to the lowest, on their own.
    - `reached`: where the fit to the sample from the known one ended.
    - `starts`: fits from elsewhere; `evaluations`: of the sample, costs of what was drawn included.
    """

    lower: Float[np.ndarray, "minimum variable"]
    same: int
    reached: Float[np.ndarray, "variable"]
    starts: int
    evaluations: int


def sample_of(objective: AbstractObjective, seed: int) -> AbstractObjective | None:
    """An objective of few pairs in place of one of many; itself where it has few.

    None for pairs that cannot be drawn without reading all of them: data in a file, points.
    """
    if isinstance(objective, CombinedObjective):
        parts = [sample_of(part, seed) for part in objective.parts]
        if any(part is None for part in parts):
            return None
        return dataclasses.replace(objective, parts=tuple(parts))
    sample = thinned(objective, seed)
    if sample is not None:
        return sample
    small = objective.traceable and count_pairs(objective) <= FEW
    return objective if small or not isinstance(objective, TwoTimeObjective) else None


def look_around(
    objective: AbstractObjective,
    known: Float[np.ndarray, "variable"],
    *,
    starts: int,
    seed: int = 0,
    sampler: AbstractSampler | None = None,
    custom: Float[np.ndarray, "start variable"] | tuple = (),
    solver: TrustRegion | None = None,
    doubted: bool = False,
) -> Around | None:
    """Fit a sample of the pairs from a known minimum and from `starts` others over the bounds.

    Several points are drawn for each start, and those of the lowest cost are fitted, all in one
    compiled call. A minimum of the sample counts as lower when its cost lies below that of the
    known one by more than noise can make; where that is `doubted`, so do all within that noise.
    None where no sample can be drawn.

    **Arguments:**

    - `known`: physical variables of the minimum found so far.
    - `custom`: starts of your own, beside those over the bounds.
    """
    sample = sample_of(objective, seed)
    if sample is None:
        return None
    pairs = count_pairs(objective)
    sampled = pairs if sample is objective else count_pairs(sample)
    given = np.asarray([known, *custom])
    sampler = LatinHypercube() if sampler is None else sampler
    space, drawn = normalised_space(objective), DRAWN * starts
    begun = starts_of(objective, space, drawn + len(given), given, sampler, seed)
    costs = population_costs(sample, begun.x)
    kept = lowest(costs, begun.given, starts + begun.given)
    solver = default_solver(objective) if solver is None else solver
    quick = dataclasses.replace(
        solver, cost_tol=TOLERANCE, max_evaluations=min(solver.max_evaluations, EVALUATIONS)
    )
    fits = local_fits_for(sample, sampled).run(sample, begun.x[kept], quick)
    found = _compared(objective, pairs, sampled, fits, doubted)
    return found._replace(evaluations=found.evaluations + len(costs))


def _compared(
    objective: AbstractObjective, pairs: int, sampled: int, fits: LocalFits, doubted: bool
) -> Around:
    known, lowest = float(fits.cost[0]), float(np.min(fits.cost))
    apart = threshold = SAME_COST * known
    if sampled < pairs:
        variance = variance_of(lowest, pairs, is_absolute(objective))
        # Sums over a sample are weighted to be those of all pairs, and so is their noise.
        coarse = pairs / max(sampled, 1)
        threshold = max(threshold, coarse * threshold_of(variance, known))
    worth = fits.cost < known - threshold
    if doubted:
        others = np.abs(fits.cost - known) > apart
        worth |= fits.converged & others & (fits.cost < known + threshold)
    else:
        apart = threshold
    at = np.flatnonzero(worth)
    distinct: list[int] = []
    for k in at[np.argsort(fits.cost[at], kind="stable")].tolist():
        new = all(fits.cost[k] - fits.cost[one] > apart for one in distinct)
        if new and len(distinct) < (WORTH_DOUBTED if doubted else WORTH):
            distinct.append(k)
    same = int(np.count_nonzero(fits.cost[1:] <= lowest + threshold))
    inside = np.clip(fits.x[[0, *distinct]], objective.variables.lower, objective.variables.upper)
    reached, lower = np.asarray(inside[0]), np.asarray(inside[1:])
    return Around(lower, same, reached, len(fits.cost) - 1, int(fits.evaluations.sum()))
