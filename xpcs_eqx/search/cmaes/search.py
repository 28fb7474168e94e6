"""CMA-ES with restarts and local fits, for any objective."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ...errors import FitError, ModelError
from ...fitting import checked_start, require_finite, solve
from ...objective import AbstractObjective
from ...optimize import Recovery, Status, TrustRegion
from ..selection import SAME_COST
from ..space import NormalisedSpace, normalised_space
from .run import CmaProgress, random_mean, require_pycma, run_once
from .settings import CMA_PRESETS, CmaPreset, RunPlan, Spent, check_sigma, next_plan

# Distance in the unit cube below which two points lead a local fit to the same minimum.
SAME_PLACE = 1e-3
# Generations for which a restart must have evaluations left, or it is not worth beginning.
WORTHWHILE = 5


class CmaRun(NamedTuple):
    """One run and the local fit from its best point.

    - `regime`: `"warm"` from a given start, `"first"`, `"large"` or `"small"`.
    - `population`, `sigma`, `generations`, `evaluations`: of the run; `stop`: why it ended.
    - `cost`: its lowest; `refined`: after local fits from its promising points, which took
        `refinement` evaluations; infinite when nothing finite was found.
    - `x`: physical variables after the best local fit.
    """

    regime: str
    population: int
    sigma: float
    generations: int
    evaluations: int
    cost: float
    refined: float
    refinement: int
    stop: str
    x: tuple[float, ...]


class CmaSearch(NamedTuple):
    """The lowest minimum of a search, and how it was found.

    - `x`, `cost`: physical variables there; `local_cost`: of the local fit from the start.
    - `evaluations`: of costs and of normal equations, all together.
    - `reasons`: why this minimum and why the search ended, in sentences.
    """

    x: Float[np.ndarray, "variable"]
    cost: float
    local_cost: float
    evaluations: int
    runs: tuple[CmaRun, ...]
    reasons: tuple[str, ...]
    interrupted: bool


class _Ledger:
    """What a search under way has found and used; it lives as long as the search."""

    def __init__(self, callback: Callable[[CmaProgress], Any] | None):
        self.callback = callback
        self.evaluations, self.lowest = 0, np.inf
        self.runs: list[CmaRun] = []
        # Points from which a local fit was made or where one ended, with the result.
        self.known: list[tuple[np.ndarray, np.ndarray, float]] = []
        self.interrupted = False

    def report(self, phase, generation, population, sigma, cost, evaluations) -> bool:
        """Show the callback where the search is; remember that it asked for the end."""
        if self.callback is None:
            return False
        run = len(self.runs) + (phase != "start")
        cost = min(self.lowest, cost)
        seen = CmaProgress(
            phase, run, generation, population, sigma, cost, self.evaluations + evaluations
        )
        self.interrupted = bool(self.callback(seen)) or self.interrupted
        return self.interrupted

    def local_fit(self, phase, objective, x, solver, recovery):
        """Physical variables and cost of the local fit from x, with its evaluations."""

        seen = 0

        def watch(state):
            # Counted here: the state begins anew with each attempt at recovery.
            nonlocal seen
            seen += 1
            return self.report(phase, 0, 1, 0.0, float(state.equations.cost), seen)

        done = solve(objective, x, solver=solver, recovery=recovery, callback=watch)
        found = np.asarray(objective.variables.to_physical(require_finite(done).y))
        found = np.clip(found, objective.variables.lower, objective.variables.upper)
        self.evaluations += done.run.evaluations
        self.interrupted = self.interrupted or done.status == Status.interrupted
        cost = float(done.cost)
        self.lowest = min(self.lowest, cost)
        return found, cost, done.run.evaluations


def cma_search(
    objective: AbstractObjective,
    start: Float[Array, "variable"] | None = None,
    *,
    preset: CmaPreset = CMA_PRESETS["default"],
    seed: int = 0,
    budget: int | None = None,
    sigma: float | None = None,
    callback: Callable[[CmaProgress], Any] | None = None,
    solver: TrustRegion | None = None,
) -> CmaSearch:
    """The lowest minimum that CMA-ES with restarts and local fits can find.

    For any objective, that of a curve for example; arguments and errors as in `cma_es`.
    """
    if not objective.names:
        return _nothing_free(objective, solver, callback)
    require_pycma()
    space = normalised_space(objective)
    population = preset.first_population(space.dimension)
    if budget is not None and budget < population:
        raise ModelError(
            f"a budget of {budget} evaluations is less than one generation of {population} points; "
            f"give {population} or more, or a preset with a smaller population"
        )
    if sigma is not None:
        check_sigma("sigma", sigma)
    first = checked_start(objective, start)
    random = np.random.default_rng(seed)
    ledger = _Ledger(callback)
    begun, local, reasons = first, np.inf, []
    try:
        begun, local, _ = ledger.local_fit("start", objective, first, solver, None)
        ledger.known.append((space.to_unit(begun), begun, local))
    except FitError as error:
        reasons.append(f"no local fit from the start: {error}")
    if budget is None:
        # Where a poor start leads its local fit to is no reason for searching less.
        budget = preset.evaluations(space.dimension) + ledger.evaluations
    if start is None:
        wide = preset.sigma if sigma is None else sigma
        plan = RunPlan("first", population, wide, population * preset.generations)
    else:
        wide = preset.sigma
        near = preset.warm_sigma if sigma is None else sigma
        plan = RunPlan("warm", population, near, population * preset.generations)
    ended = ""
    while not ledger.interrupted:
        left = budget - ledger.evaluations
        if ledger.runs and left < WORTHWHILE * plan.population:
            ended = f"the budget of {budget} evaluations is used up"
            break
        mean = random_mean(objective, space, random) if plan.regime != "warm" else None
        mean = space.to_unit(begun) if mean is None else mean
        plan = plan._replace(evaluations=min(plan.evaluations, left))
        _one_run(objective, space, mean, plan, preset, random, solver, ledger)
        agreeing = _agreeing(ledger, local)
        if agreeing >= preset.agreeing:
            ended = f"{agreeing} independent searches came to the lowest minimum"
            break
        spent = [Spent(run.regime, run.evaluations) for run in ledger.runs]
        draws = (float(random.random()), float(random.random()))
        plan = next_plan(spent, population, wide, preset.generations, draws)
    reasons.append(f"the search ended: {ended or 'it was interrupted'}")
    x, cost, why = _choice(ledger, begun, local)
    if not np.isfinite(cost):
        raise FitError(
            "CMA-ES found no point with a finite cost, nor did a local fit from the start; check "
            "the bounds and the data"
        )
    evaluations, runs = ledger.evaluations, tuple(ledger.runs)
    return CmaSearch(x, cost, local, evaluations, runs, (why, *reasons), ledger.interrupted)


def _nothing_free(objective, solver, callback) -> CmaSearch:
    ledger = _Ledger(callback)
    first = checked_start(objective, None)
    x, cost, _ = ledger.local_fit("start", objective, first, solver, None)
    why = "no parameter is free: there is nothing to search for, and one fit was made"
    return CmaSearch(x, cost, cost, ledger.evaluations, (), (why,), ledger.interrupted)


def _one_run(
    objective: AbstractObjective,
    space: NormalisedSpace,
    mean: Float[np.ndarray, "variable"],
    plan: RunPlan,
    preset: CmaPreset,
    random: np.random.Generator,
    solver: TrustRegion | None,
    ledger: _Ledger,
) -> None:
    """A run and the local fit from its best point, entered into the ledger."""

    def watch(generation, sigma, cost, evaluations):
        return ledger.report("search", generation, plan.population, sigma, cost, evaluations)

    end = run_once(objective, space, mean, plan, preset, random, watch)
    ledger.evaluations += end.evaluations
    ledger.lowest = min(ledger.lowest, end.cost)
    x, refined, used, stop = space.from_unit(mean), np.inf, 0, end.stop
    if len(end.best):
        x, refined = space.from_unit(end.best[0]), end.cost
    for u in end.best:
        if ledger.interrupted:
            break
        try:
            found, cost, n = _refined(objective, space, u, solver, ledger)
        except FitError:
            stop += "; the model is not finite around a point for a local fit"
            continue
        used += n
        if cost < refined:
            x, refined = found, cost
    ledger.runs.append(
        CmaRun(
            plan.regime,
            plan.population,
            plan.sigma,
            end.generations,
            end.evaluations,
            end.cost,
            refined,
            used,
            stop,
            tuple(np.asarray(x).tolist()),
        )
    )


def _refined(objective, space, u, solver, ledger):
    """Physical variables and cost where a local fit from u ends, and its evaluations."""
    near = [one for one in ledger.known if np.max(np.abs(one[0] - u)) < SAME_PLACE]
    if near:
        _, x, cost = min(near, key=lambda one: one[2])
        return x, cost, 0
    # What is stuck at a bound is left there: other runs look for something better.
    x, cost, n = ledger.local_fit("refinement", objective, space.from_unit(u), solver, Recovery(0))
    ledger.known += [(u, x, cost), (space.to_unit(x), x, cost)]
    return x, cost, n


def _alike(cost: float, lowest: float, typical: float) -> bool:
    # Costs that vanish at the minimum have nothing to be relative to but those of other points.
    return cost - lowest <= SAME_COST * abs(lowest) + 1e-12 * typical


def _agreeing(ledger: _Ledger, local: float) -> int:
    """Independent searches that came to the lowest cost: restarts, and those from the start."""
    costs = np.asarray([local, *(run.refined for run in ledger.runs)])
    finite = costs[np.isfinite(costs)]
    if not len(finite):
        return 0
    lowest = float(finite.min())
    typical = max([run.cost for run in ledger.runs if np.isfinite(run.cost)], default=0.0)
    from_start = [local] + [run.refined for run in ledger.runs if run.regime == "warm"]
    others = [run.refined for run in ledger.runs if run.regime != "warm"]
    votes = sum(_alike(cost, lowest, typical) for cost in others)
    return votes + any(_alike(cost, lowest, typical) for cost in from_start)


def _choice(ledger: _Ledger, begun, local):
    """The lower of the local fit from the start and the best run, and why."""
    if not ledger.runs:
        return begun, local, "the local fit from the start: no run of CMA-ES was made"
    number, best = min(enumerate(ledger.runs, 1), key=lambda one: one[1].refined)
    margin = SAME_COST * abs(best.refined)
    if np.isfinite(local) and local <= best.refined + margin:
        same = local >= best.refined - margin
        how = "came back to the same minimum" if same else f"ended at cost {best.refined:.8g}"
        why = f"the local fit from the start ends at cost {local:.8g} and is kept: CMA-ES {how}"
        return begun, local, why
    why = f"run {number} of CMA-ES ({best.regime}) is kept, at cost {best.refined:.8g}"
    if np.isfinite(local):
        why += f": the local fit from the start ends at {local:.8g}"
    return np.asarray(best.x), best.refined, why
