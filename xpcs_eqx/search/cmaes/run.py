"""One run of CMA-ES on an objective, a generation after the other.

This is the one place that knows pycma, and not evosax, which runs CMA-ES inside JAX: pycma is by
the author of the method, needs NumPy alone, and brings what restarts in a box depend on, a
transform for bounds and the rules by which a run has ended. What JAX is good for, the costs of a
generation in one batched call, is done here with either.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ...errors import ModelError
from ...objective import AbstractObjective
from ..population import ROWS, population_costs
from ..space import NormalisedSpace
from ..starts import has_coordinates
from .settings import CmaPreset, RunPlan

_STOPS = {
    "tolx": "the distribution is narrower than its tolerance",
    "tolxstagnation": "its mean no longer moves",
    "tolstagnation": "its best and median costs no longer fall",
    "tolfun": "all costs of a generation are the same",
    "tolfunhist": "the best costs of the last generations are the same",
    "tolflatfitness": "all costs of a generation are the same",
    "tolfacupx": "the step size grows without end",
    "tolupsigma": "the step size grows without end",
    "tolconditioncov": "the distribution is too elongated to be told from a line",
    "noeffectaxis": "steps vanish by rounding",
    "noeffectcoord": "steps vanish by rounding",
}


def require_pycma() -> Any:
    """The library.

    **Raises:** `ModelError` with what to install when it is not there.
    """
    # Not at the top: pycma is an extra, and slow to import.
    try:
        import cma
    except ImportError as error:
        raise ModelError(
            "CMA-ES needs pycma; install it with: pip install 'xpcs-eqx[global]'"
        ) from error
    return cma


class Evolution:
    """One run in the unit cube: a mean and a normal distribution about it that adapts.

    It changes from generation to generation and lives as long as one run.

    Bounds are kept by pycma's `BoundTransform`: the search is unbounded and each point is folded
    smoothly back into the cube. Every point is then worth evaluating, a minimum on a face can be
    approached from the inside, and costs stay what they are, where a penalty would need a weight
    that suits costs of any size.
    """

    def __init__(
        self,
        mean: Float[np.ndarray, "variable"],
        sigma: float,
        population: int,
        narrow: float,
        random: np.random.Generator,
    ):
        self.dimension = len(mean)
        # A covariance needs two variables; a single one gets a companion that nothing depends on.
        padded = np.append(mean, 0.5) if self.dimension == 1 else np.asarray(mean)
        options = {
            "bounds": [0.0, 1.0],
            "popsize": population,
            # With a source of its own and no seed the library leaves NumPy's global one alone.
            "randn": lambda *shape: random.standard_normal(shape),
            "seed": np.nan,
            "CMA_mirrors": 0,
            "tolx": narrow,
            "tolflatfitness": 10,
            "maxiter": np.inf,
            # Nothing printed, written or read: by default a file of the working folder can steer a
            # run.
            "verbose": -9,
            "signals_filename": "",
        }
        self._strategy = require_pycma().CMAEvolutionStrategy(padded, sigma, options)
        self._points: list[np.ndarray] = []

    @property
    def sigma(self) -> float:
        """Standard deviation in the unit cube, without what the covariance adds."""
        return float(self._strategy.sigma)

    def ask(self) -> Float[np.ndarray, "population variable"]:
        """The points of the next generation."""
        self._points = self._strategy.ask()
        return np.clip(np.stack(self._points)[:, : self.dimension], 0.0, 1.0)

    def tell(self, costs: Float[np.ndarray, "population"]) -> str:
        """Adapt to their costs, all finite; returns why the run ends, or nothing."""
        self._strategy.tell(self._points, costs.tolist())
        return "; ".join(
            _STOPS.get(name, f"pycma's criterion {name}") for name in self._strategy.stop()
        )


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


class RunEnd(NamedTuple):
    """How a run ended.

    - `best`: points of the unit cube for local fits, see `promising`; none when no cost was finite.
    - `cost`: the lowest.
    """

    best: Float[np.ndarray, "point variable"]
    cost: float
    generations: int
    evaluations: int
    stop: str
    interrupted: bool


def random_mean(
    objective: AbstractObjective, space: NormalisedSpace, random: np.random.Generator
) -> Float[np.ndarray, "variable"] | None:
    """A point drawn evenly from where the solver has coordinates; None if it cannot be found.

    Those of a power law with an offset exist where the rate is positive. Its mirror image, which
    kernels that are even in the rate fit as well, is so kept out of a search.
    """
    for _ in range(64):
        points = random.random((ROWS, space.dimension))
        found = points[has_coordinates(objective, space.from_unit(points))]
        if len(found):
            return found[0]
    return None


def _ranked(costs):
    """Costs that are all finite: those that are not come last."""
    finite = np.isfinite(costs)
    if not finite.any():
        return np.zeros_like(costs)
    worst = costs[finite].max()
    return np.where(finite, costs, worst + max(abs(worst), 1.0))


def promising(
    points: Float[np.ndarray, "generation population variable"],
    costs: Float[np.ndarray, "generation population"],
    count: int,
    apart: float,
) -> Float[np.ndarray, "point variable"]:
    """At most `count` points from which a local fit is worth making, the lowest first.

    The best of the second half of the generations, of the second half of those before, and so on,
    unless within `apart` of one chosen in every variable. A run ends in one basin although it had
    seen others, and its early points are those that tell of them.
    """
    chosen: list[np.ndarray] = []
    stop = len(points)
    lowest = np.unravel_index(np.argmin(costs), costs.shape)
    if np.isfinite(costs[lowest]):
        chosen.append(points[lowest])
    while stop > 0 and len(chosen) < count:
        part = slice(stop // 2, stop)
        best = np.unravel_index(np.argmin(costs[part]), costs[part].shape)
        u, stop = points[part][best], stop // 2
        near = any(np.max(np.abs(u - other)) <= apart for other in chosen)
        if np.isfinite(costs[part][best]) and not near:
            chosen.append(u)
    return np.reshape(np.asarray(chosen), (len(chosen), points.shape[2]))


def run_once(
    objective: AbstractObjective,
    space: NormalisedSpace,
    mean: Float[np.ndarray, "variable"],
    plan: RunPlan,
    preset: CmaPreset,
    random: np.random.Generator,
    watch: Callable[[int, float, float, int], Any],
) -> RunEnd:
    """A run of at most `plan.evaluations`; its first generation is always evaluated.

    `watch` sees generation, standard deviation, lowest cost and evaluations of the run after each
    generation; a true value ends it.
    """
    strategy = Evolution(mean, plan.sigma, plan.population, preset.narrow, random)
    seen, stop = [], ""
    generation = evaluations = 0
    lowest, interrupted = np.inf, False
    while not stop:
        points = strategy.ask()
        x = space.from_unit(points)
        costs = np.where(has_coordinates(objective, x), population_costs(objective, x), np.inf)
        generation, evaluations = generation + 1, evaluations + plan.population
        seen.append((points, costs))
        lowest = min(lowest, float(costs.min()))
        stop = strategy.tell(_ranked(costs))
        interrupted = bool(watch(generation, strategy.sigma, lowest, evaluations))
        if interrupted:
            stop = "interrupted"
        elif np.isfinite(costs).all() and np.ptp(costs) <= preset.alike * abs(lowest):
            stop = "the costs of a generation are alike"
        elif generation >= preset.generations and not stop:
            stop = f"{generation} generations done"
        elif evaluations + plan.population > plan.evaluations and not stop:
            stop = "its evaluations are used up"
    points, costs = (np.stack(part) for part in zip(*seen, strict=True))
    best = promising(points, costs, preset.refined, preset.apart)
    return RunEnd(best, lowest, generation, evaluations, stop, interrupted)
