"""CMA-ES: its settings, which of its runs comes next, and one run, generation by generation.

This is the one place that knows pycma, and not evosax, which runs CMA-ES inside JAX: pycma is by
the author of the method, needs NumPy alone, and brings what restarts in a box depend on, a
transform for bounds and the rules by which a run has ended. What JAX is good for, the costs of a
generation in one batched call, is done here with either.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..arguments import Count, Whole, Within, check_fields
from ..errors import ModelError, how_to_install
from ..objective import AbstractObjective
from .population import ROWS, population_costs
from .space import NormalisedSpace
from .starts import has_coordinates

# The adaptation ranks parents among the points of a generation: of fewer there is no half to take.
FEWEST = 4


_BelowOne = Annotated[float, Within(ge=0, lt=1)]


class CmaPreset(eqx.Module):
    """Settings of CMA-ES with restarts; another value is `CmaPreset(generations=30)`.

    Lengths are in the unit cube of `NormalisedSpace`.

    - `generations`: of the first and of each large run, at most.
    - `restarts`: large runs, each with twice the points of the one before, that the default budget
        allows for, with as many evaluations for small runs.
    - `agreeing`: the search ends when so many independent runs have come to the lowest minimum.
    - `population`: points a generation of the first run; by default 4 + ⌊3 ln n⌋.
    - `sigma`: standard deviation at the start of a run; `warm_sigma`: of one from a warm start.
    - `refined`: points of a run from which a local fit is made, at most: the best of its stages,
        as far as they are further than `apart` from each other.
    - `narrow`: a run ends when its distribution is narrower: the trust region goes on from there.
    - `alike`: a run ends when the costs of a generation differ by less, as a share of the lowest.

    **Raises:** `ModelError` for a population below 4 and for settings that are not positive.
    """

    generations: Count = eqx.field(static=True, default=100)
    restarts: Whole = eqx.field(static=True, default=2)
    agreeing: Count = eqx.field(static=True, default=4)
    population: int | None = eqx.field(static=True, default=None)
    sigma: float = eqx.field(static=True, default=0.3)
    warm_sigma: float = eqx.field(static=True, default=0.05)
    refined: Count = eqx.field(static=True, default=4)
    apart: _BelowOne = eqx.field(static=True, default=0.01)
    narrow: _BelowOne = eqx.field(static=True, default=1e-4)
    alike: _BelowOne = eqx.field(static=True, default=1e-5)

    def __check_init__(self):
        check_fields(self)
        for name in ("sigma", "warm_sigma"):
            sigma = getattr(self, name)
            if not (np.isfinite(sigma) and 0 < sigma <= 1):
                raise ModelError(
                    f"{name} = {sigma:g} must lie above 0 and at most at 1: it is a standard "
                    "deviation in units of the width of the bounds; 0.3 searches all of them, 0.05 "
                    "the neighbourhood"
                )
        if self.population is not None and self.population < FEWEST:
            raise ModelError(
                f"a population of {self.population} points cannot be ranked into better and worse; "
                f"give {FEWEST} or more, or leave it out for 4 + 3 ln(variables)"
            )

    def first_population(self, dimension: int) -> int:
        """Points a generation of the first run; Hansen, arXiv:1604.00772, table 1, by default."""
        return 4 + int(3 * np.log(dimension)) if self.population is None else self.population

    def evaluations(self, dimension: int) -> int:
        """The default budget.

        Large runs use at most 2 + 4 + … times what one run of the first population may, and small
        runs, the first among them, as much; local fits are given two more.
        """
        one = self.generations * self.first_population(dimension)
        return one * (2 ** (self.restarts + 2) - 2)


CMA_PRESETS: Mapping[str, CmaPreset] = MappingProxyType(
    {
        "fast": CmaPreset(generations=50, restarts=1, agreeing=3),
        "default": CmaPreset(),
        "global": CmaPreset(generations=200, restarts=3, agreeing=6),
    }
)


class RunPlan(NamedTuple):
    """One run: its points a generation, first standard deviation, and most evaluations."""

    regime: str
    population: int
    sigma: float
    evaluations: int


def next_plan(
    done: Sequence[tuple[str, int]],
    population: int,
    sigma: float,
    generations: int,
    draws: tuple[float, float],
) -> RunPlan:
    """The next restart of BIPOP-CMA-ES; Hansen, GECCO Companion 2009, 2389.

    The regime that has used less comes next, the first run counting as a small one. A large run
    has twice the points of the large one before. A small one has λ (λ_large/2λ)^(u²) points, a
    standard deviation lower by up to a hundred, and half of what the large ones have used.

    **Arguments:**

    - `done`: regime and evaluations of the runs before; `population`, `sigma`, `generations`: of
        the first.
    - `draws`: two numbers from 0 to 1, for the size of a small run and its standard deviation.

    >>> from xpcs_eqx.search import next_plan
    >>> next_plan([("first", 900)], 9, 0.3, 100, (0.5, 0.5))
    RunPlan(regime='large', population=18, sigma=0.3, evaluations=1800)
    >>> next_plan([("first", 900), ("large", 1800)], 9, 0.3, 100, (0.5, 0.5))
    RunPlan(regime='small', population=9, sigma=0.03, evaluations=900)
    """
    large = [evaluations for regime, evaluations in done if regime == "large"]
    small = sum(evaluations for regime, evaluations in done if regime != "large")
    if not large or small >= sum(large):
        points = population * 2 ** (len(large) + 1)
        return RunPlan("large", points, sigma, points * generations)
    ratio = max(0.5 * 2 ** len(large), 1.0)
    points = int(population * ratio ** (draws[0] ** 2))
    most = min(generations * points, max(sum(large) // 2, points))
    return RunPlan("small", points, sigma * 10 ** (-2 * draws[1]), most)


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
            f"CMA-ES needs pycma; install it with: {how_to_install('global')}"
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


class CmaRun(NamedTuple):
    """One run, and the local fits from its promising points.

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
    stop: str
    refined: float = np.inf
    refinement: int = 0
    x: tuple[float, ...] = ()


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
) -> tuple[CmaRun, Float[np.ndarray, "point variable"]]:
    """A run of at most `plan.evaluations`; its first generation is always evaluated.

    It is returned with its `promising` points of the unit cube.

    `watch` sees generation, standard deviation, lowest cost and evaluations of the run after each
    generation; a true value ends it.
    """
    strategy = Evolution(mean, plan.sigma, plan.population, preset.narrow, random)
    seen, stop = [], ""
    generation = evaluations = 0
    lowest = np.inf
    while not stop:
        points = strategy.ask()
        x = space.from_unit(points)
        costs = np.where(has_coordinates(objective, x), population_costs(objective, x), np.inf)
        generation, evaluations = generation + 1, evaluations + plan.population
        seen.append((points, costs))
        lowest = min(lowest, float(costs.min()))
        stop = strategy.tell(_ranked(costs))
        if watch(generation, strategy.sigma, lowest, evaluations):
            stop = "interrupted"
        elif np.isfinite(costs).all() and np.ptp(costs) <= preset.alike * abs(lowest):
            stop = "the costs of a generation are alike"
        elif generation >= preset.generations and not stop:
            stop = f"{generation} generations done"
        elif evaluations + plan.population > plan.evaluations and not stop:
            stop = "its evaluations are used up"
    points, costs = (np.stack(part) for part in zip(*seen, strict=True))
    best = promising(points, costs, preset.refined, preset.apart)
    run = CmaRun(*plan[:3], generation, evaluations, lowest, stop)
    return run, best
