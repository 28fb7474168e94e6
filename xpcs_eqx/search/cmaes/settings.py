"""How long and how widely CMA-ES searches, and which of its runs comes next."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import equinox as eqx
import numpy as np

from ...errors import ModelError

# The adaptation ranks parents among the points of a generation: of fewer there is no half to take.
FEWEST = 4


def default_population(dimension: int) -> int:
    """4 + ⌊3 ln n⌋ points a generation; Hansen, arXiv:1604.00772, table 1."""
    return 4 + int(3 * np.log(dimension))


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

    generations: int = eqx.field(static=True, default=100)
    restarts: int = eqx.field(static=True, default=2)
    agreeing: int = eqx.field(static=True, default=4)
    population: int | None = eqx.field(static=True, default=None)
    sigma: float = eqx.field(static=True, default=0.3)
    warm_sigma: float = eqx.field(static=True, default=0.05)
    refined: int = eqx.field(static=True, default=4)
    apart: float = eqx.field(static=True, default=0.01)
    narrow: float = eqx.field(static=True, default=1e-4)
    alike: float = eqx.field(static=True, default=1e-5)

    def __check_init__(self):
        for name in ("generations", "agreeing", "refined"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} = {getattr(self, name)} must be 1 or more")
        if self.restarts < 0:
            raise ModelError(f"restarts = {self.restarts} must be 0 or more")
        for name in ("sigma", "warm_sigma"):
            check_sigma(name, getattr(self, name))
        for name in ("apart", "narrow", "alike"):
            if not 0 <= getattr(self, name) < 1:
                raise ModelError(f"{name} = {getattr(self, name):g} must be from 0 to below 1")
        if self.population is not None and self.population < FEWEST:
            raise ModelError(
                f"a population of {self.population} points cannot be ranked into better and worse; "
                f"give {FEWEST} or more, or leave it out for 4 + 3 ln(variables)"
            )

    def first_population(self, dimension: int) -> int:
        """Points a generation of the first run."""
        return default_population(dimension) if self.population is None else self.population

    def evaluations(self, dimension: int) -> int:
        """The default budget.

        Large runs use at most 2 + 4 + … times what one run of the first population may, and small
        runs, the first among them, as much; local fits are given two more.
        """
        one = self.generations * self.first_population(dimension)
        return one * (2 ** (self.restarts + 2) - 2)


def check_sigma(name: str, sigma: float) -> None:
    """Refuse a standard deviation that no search can have.

    **Raises:** `ModelError` unless it is above 0 and at most 1.
    """
    if not (np.isfinite(sigma) and 0 < sigma <= 1):
        raise ModelError(
            f"{name} = {sigma:g} must lie above 0 and at most at 1: it is a standard deviation in "
            "units of the width of the bounds; 0.3 searches all of them, 0.05 the neighbourhood"
        )


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


class Spent(NamedTuple):
    """What a finished run has used."""

    regime: str
    evaluations: int


def next_plan(
    done: Sequence[Spent],
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

    - `done`: the runs before; `population`, `sigma`, `generations`: of the first.
    - `draws`: two numbers from 0 to 1, for the size of a small run and its standard deviation.

    >>> from xpcs_eqx.search import Spent, next_plan
    >>> next_plan([Spent("first", 900)], 9, 0.3, 100, (0.5, 0.5))
    RunPlan(regime='large', population=18, sigma=0.3, evaluations=1800)
    >>> next_plan([Spent("first", 900), Spent("large", 1800)], 9, 0.3, 100, (0.5, 0.5))
    RunPlan(regime='small', population=9, sigma=0.03, evaluations=900)
    """
    large = [run.evaluations for run in done if run.regime == "large"]
    small = sum(run.evaluations for run in done if run.regime != "large")
    if not large or small >= sum(large):
        points = population * 2 ** (len(large) + 1)
        return RunPlan("large", points, sigma, points * generations)
    ratio = max(0.5 * 2 ** len(large), 1.0)
    points = int(population * ratio ** (draws[0] ** 2))
    most = min(generations * points, max(sum(large) // 2, points))
    return RunPlan("small", points, sigma * 10 ** (-2 * draws[1]), most)
