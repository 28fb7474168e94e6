"""Which run of CMA-ES comes next: two regimes of restarts that share the evaluations."""

from collections.abc import Sequence
from typing import NamedTuple


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
