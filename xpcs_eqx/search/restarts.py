"""CMA-ES with restarts and local fits: the lowest minimum it finds, and the fit there."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..errors import FitError, ModelError
from ..fitting import Fit, check_fittable, checked_start, least_squares, require_finite, solve
from ..objective import AbstractObjective
from ..optimize import Recovery, TrustRegion
from ..parameters.variables import physical_of
from ..showing import in_columns
from .evolution import (
    CMA_PRESETS,
    CmaPreset,
    CmaRun,
    RunPlan,
    next_plan,
    random_mean,
    require_pycma,
    run_once,
)
from .log import Log
from .selection import SAME_COST
from .space import normalised_space

# Distance in the unit cube below which two points lead a local fit to the same minimum.
SAME_PLACE = 1e-3
# Generations for which a restart must have evaluations left, or it is not worth beginning.
WORTHWHILE = 5


class CmaProgress(NamedTuple):
    """What a callback of `cma_es` sees, after each generation and each step of a local fit.

    - `phase`: `"start"` for the local fit from the start, `"search"`, `"refinement"`.
    - `run`: counted from 1; `generation`, `population`, `sigma`: of the run.
    - `cost`: lowest so far; `evaluations`: so far.
    """

    phase: str
    run: int
    generation: int
    population: int
    sigma: float
    cost: float
    evaluations: int

    @property
    def summary(self) -> str:
        """Where it is, in one line."""
        return (
            f"CMA-ES, {self.phase}, run {self.run}, generation {self.generation}: "
            f"{self.evaluations} evaluations, cost {self.cost:.8g}"
        )


class CmaResult(eqx.Module):
    """The lowest minimum of a search, and how it was found.

    - `x`, `cost`: physical variables there; `local_cost`: of the local fit from the start,
        infinite where there was none.
    - `evaluations`: of costs and of normal equations, all together.
    - `runs`: every run of CMA-ES with its local fit.
    - `reasons`: why this minimum is kept and why the search ended, in sentences.
    - `interrupted`: whether the callback ended it.
    - `fit`: of `cma_es`, with error bars; its own `evaluations` are those of the last local fit.
    """

    x: Float[np.ndarray, "variable"]
    cost: float = eqx.field(static=True)
    local_cost: float = eqx.field(static=True)
    evaluations: int = eqx.field(static=True)
    runs: tuple[CmaRun, ...] = eqx.field(static=True)
    reasons: tuple[str, ...] = eqx.field(static=True)
    interrupted: bool = eqx.field(static=True)
    fit: Fit | None = None

    def __repr__(self) -> str:
        """Reasons, evaluations and the fit."""
        head = f"CmaResult of {len(self.runs)} runs, {self.evaluations} evaluations"
        fit = "" if self.fit is None else repr(self.fit)
        return "\n".join([head, *(f"  {reason}" for reason in self.reasons), fit])

    def cells(self) -> list[list[str]]:
        """A header and a row for each run."""
        head = ["run", "regime", "points", "sigma", "generations", "evaluations"]
        head += ["lowest cost", "after local fit", "ended"]
        rows = [
            [
                str(number),
                run.regime,
                str(run.population),
                f"{run.sigma:.3g}",
                str(run.generations),
                str(run.evaluations + run.refinement),
                f"{run.cost:.8g}",
                f"{run.refined:.8g}",
                run.stop,
            ]
            for number, run in enumerate(self.runs, 1)
        ]
        return [head, *rows]

    def table(self) -> str:
        """One line for each run, ready to be printed."""
        return in_columns(self.cells())


def cma_es(
    objective: AbstractObjective,
    start: Float[Array | np.ndarray, "variable"] | None = None,
    *,
    callback: Callable[[CmaProgress], Any] | None = None,
    solver: TrustRegion | None = None,
    **settings: Any,
) -> CmaResult:
    """The `Fit` at the lowest minimum that `cma_search` finds, whose arguments these are.

    **Arguments:**

    - `objective`: as in `multi_start`.
    - `settings`: `preset`, `seed` and `budget`.
    - `callback`: with a true value it ends the search, and the fit has status `interrupted`.

    **Raises:** as `cma_search`; `ModelError` for an objective that no fit is made from.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> from xpcs_eqx.search import CmaPreset, cma_es
    >>> truth = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0))
    >>> t, geometry = 0.2 * np.arange(20), xe.Geometry(0.0054, np.array([0.0]))
    >>> data = xe.simulate(truth, t, geometry, 0.2, noise=0.002, key=jax.random.key(0))
    >>> parameters = xe.parameter_map(truth, data.t, fixed=("D_offset",))
    >>> objective = xe.projected_objective(parameters, data)
    >>> found = cma_es(objective, preset=CmaPreset(generations=10, agreeing=2))
    >>> found.fit.success, len(found.runs)
    (True, 1)
    >>> found.reasons[1]
    'the search ended: 2 independent searches came to the lowest minimum'
    """
    check_fittable(objective, "cma_es")
    search = cma_search(objective, start, callback=callback, solver=solver, **settings)
    at_once = (lambda state: True) if search.interrupted else None
    fit = least_squares(objective, search.x, solver=solver, callback=at_once)
    evaluations = search.evaluations + fit.evaluations
    return dataclasses.replace(search, fit=fit, evaluations=evaluations)


def cma_search(
    objective: AbstractObjective,
    start: Float[Array | np.ndarray, "variable"] | None = None,
    *,
    preset: CmaPreset = CMA_PRESETS["default"],
    seed: int = 0,
    budget: int | None = None,
    callback: Callable[[CmaProgress], Any] | None = None,
    solver: TrustRegion | None = None,
) -> CmaResult:
    """Search the whole box of the bounds with CMA-ES, and fit from the best points.

    Runs of CMA-ES follow one another as in BIPOP-CMA-ES (`next_plan`), each with a local fit from
    its best point. The local fit from the start is made first, and is kept unless something lower
    is found. Needs pycma, of the extra `global`.

    **Arguments:**

    - `objective`: any, that of a curve for example; all its variables need finite bounds. With
        nothing free it is one fit.
    - `start`: physical start values to be trusted: the first run searches their neighbourhood. By
        default it begins at random, as restarts do.
    - `preset`: how long to search: `CMA_PRESETS["fast"]`, `["default"]`, `["global"]` with 50, 100
        and 200 generations a run, or a `CmaPreset` of your own.
    - `seed`: equal seeds give equal results. NumPy's global random numbers are left alone.
    - `budget`: evaluations, those of local fits included, after which no more generation begins;
        by default the preset's and what the local fit from the start takes.
    - `callback`: sees a `CmaProgress` after each generation and each step of a local fit; a true
        value ends the search with the best so far.
    - `solver`: of the local fits.

    **Raises:** `ModelError` without pycma, for bounds that are infinite or without volume, for
    settings that allow no search, and for a start outside the bounds; `FitError` when the model is
    finite nowhere.
    """
    if not objective.names:
        done = require_finite(solve(objective, solver=solver))
        x, cost, used = np.asarray(done.run.start), float(done.cost), done.run.evaluations
        why = "no parameter is free: there is nothing to search for, and one fit was made"
        return CmaResult(x, cost, cost, used, (), (why,), interrupted=False)
    require_pycma()
    under_way = _Search(objective, preset, seed, solver, callback)
    space, log = under_way.space, under_way.log
    population = preset.first_population(space.dimension)
    if budget is not None and budget < population:
        raise ModelError(
            f"a budget of {budget} evaluations is less than one generation of {population} points; "
            f"give {population} or more, or a preset with a smaller population"
        )
    under_way.begin(checked_start(objective, start))
    if budget is None:
        # Where a poor start leads its local fit to is no reason for searching less.
        budget = preset.evaluations(space.dimension) + log.used
    regime, width = ("first", preset.sigma) if start is None else ("warm", preset.warm_sigma)
    plan = RunPlan(regime, population, width, population * preset.generations)
    while not log.ended:
        left = budget - log.used
        if under_way.runs and left < WORTHWHILE * plan.population:
            log.say(f"the search ended: the budget of {budget} evaluations is used up")
            break
        under_way.run(plan._replace(evaluations=min(plan.evaluations, left)))
        agreeing = under_way.agreeing()
        if agreeing >= preset.agreeing:
            log.say(f"the search ended: {agreeing} independent searches came to the lowest minimum")
            break
        spent = [(run.regime, run.evaluations) for run in under_way.runs]
        random = under_way.random
        draws = (float(random.random()), float(random.random()))
        plan = next_plan(spent, population, preset.sigma, preset.generations, draws)
    return under_way.outcome()


class _Search:
    """A search under way: the local fit from the start, and runs; it lives as long as the search.

    - `begun`, `local`: physical variables and cost of the local fit from the start.
    """

    def __init__(
        self,
        objective: AbstractObjective,
        preset: CmaPreset,
        seed: int,
        solver: TrustRegion | None,
        callback: Callable[[CmaProgress], Any] | None,
    ):
        self.objective, self.preset, self.solver = objective, preset, solver
        self.space = normalised_space(objective)
        self.random = np.random.default_rng(seed)
        self.log = Log(callback)
        self.begun, self.local = np.zeros(0), np.inf
        self.runs: list[CmaRun] = []
        # Points from which a local fit was made or where one ended, with the result.
        self.known: list[tuple[np.ndarray, np.ndarray, float]] = []

    def begin(self, start: Float[np.ndarray, "variable"]) -> None:
        """The local fit from the start."""
        self.begun = start
        try:
            self.begun, self.local, _ = self._local_fit("start", start, None)
        except FitError as error:
            self.log.say(f"no local fit from the start: {error}")
        else:
            self.known.append((self.space.to_unit(self.begun), self.begun, self.local))

    def run(self, plan: RunPlan) -> None:
        """A run of CMA-ES, and local fits from its promising points."""
        mean, log = None, self.log
        if plan.regime != "warm":
            mean = random_mean(self.objective, self.space, self.random)
        if mean is None:
            mean = self.space.to_unit(self.begun)

        def watch(generation, sigma, cost, evaluations):
            return self._show("search", cost, evaluations, generation, plan.population, sigma)

        run, best = run_once(
            self.objective, self.space, mean, plan, self.preset, self.random, watch
        )
        log.spend("search", run.evaluations, run.cost)
        x, refined, used, stop = self.space.from_unit(mean), np.inf, 0, run.stop
        if len(best):
            x, refined = self.space.from_unit(best[0]), run.cost
        for u in best:
            if log.ended:
                break
            try:
                found, cost, n = self._refined(u)
            except FitError:
                stop += "; the model is not finite around a point for a local fit"
                continue
            used += n
            if cost < refined:
                x, refined = found, cost
        at = tuple(np.asarray(x).tolist())
        self.runs.append(run._replace(refined=refined, refinement=used, stop=stop, x=at))

    def agreeing(self) -> int:
        """Independent searches that came to the lowest cost: restarts, and those from the start."""
        costs = np.asarray([self.local, *(run.refined for run in self.runs)])
        lowest = float(np.min(costs))
        if not np.isfinite(lowest):
            return 0
        # Costs that vanish at the minimum have nothing to be relative to but those of other points.
        typical = max([run.cost for run in self.runs if np.isfinite(run.cost)], default=0.0)
        alike = costs - lowest <= SAME_COST * abs(lowest) + 1e-12 * typical
        from_start = np.asarray([True, *(run.regime == "warm" for run in self.runs)])
        return int(np.count_nonzero(alike & ~from_start)) + bool(np.any(alike & from_start))

    def outcome(self) -> CmaResult:
        """The lower of the local fit from the start and the best run, and why.

        **Raises:** `FitError` when neither has a finite cost.
        """
        x, cost, why = self._choice()
        if not np.isfinite(cost):
            raise FitError(
                "CMA-ES found no point with a finite cost, nor did a local fit from the start; "
                "check the bounds and the data"
            )
        log = self.log
        reasons, runs = (why, *log.decisions), tuple(self.runs)
        return CmaResult(x, cost, self.local, log.used, runs, reasons, log.ended)

    def _choice(self) -> tuple[Float[np.ndarray, "variable"], float, str]:
        begun, local = self.begun, self.local
        if not self.runs:
            return begun, local, "the local fit from the start: no run of CMA-ES was made"
        number, best = min(enumerate(self.runs, 1), key=lambda one: one[1].refined)
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

    def _show(self, phase, cost, evaluations, generation=0, population=1, sigma=0.0) -> bool:
        """Show the callback where the search is; whether it is to end."""
        run = len(self.runs) + (phase != "start")
        cost, used = min(self.log.lowest, cost), self.log.used + evaluations
        seen = CmaProgress(phase, run, generation, population, sigma, cost, used)
        return self.log.show(seen, "the search ended: it was interrupted")

    def _refined(self, u):
        """Physical variables and cost where a local fit from u ends, and its evaluations."""
        near = [one for one in self.known if np.max(np.abs(one[0] - u)) < SAME_PLACE]
        if near:
            _, x, cost = min(near, key=lambda one: one[2])
            return x, cost, 0
        # What is stuck at a bound is left there: other runs look for something better.
        x, cost, n = self._local_fit("refinement", self.space.from_unit(u), Recovery(0))
        self.known += [(u, x, cost), (self.space.to_unit(x), x, cost)]
        return x, cost, n

    def _local_fit(self, phase, x, recovery):
        """Physical variables and cost of the local fit from x, and its evaluations."""
        seen = 0

        def watch(state):
            # Counted here: the state begins anew with each attempt at recovery.
            nonlocal seen
            seen += 1
            return self._show(phase, float(state.equations.cost), seen)

        fit = solve(self.objective, x, solver=self.solver, recovery=recovery, callback=watch)
        found = np.asarray(physical_of(self.objective.variables, require_finite(fit).y))
        cost, used = float(fit.cost), fit.run.evaluations
        self.log.spend(phase, used, cost)
        return found, cost, used
