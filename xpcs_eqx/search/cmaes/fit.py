"""A fit by CMA-ES with restarts, refined by the trust region."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from ...fitting import Fit, check_fittable, least_squares
from ...objective import AbstractObjective
from ...optimize import TrustRegion
from .run import CmaProgress
from .search import CmaRun, cma_search
from .settings import CMA_PRESETS, CmaPreset


class CmaResult(eqx.Module):
    """A fit at the lowest minimum found, and how it was found.

    - `fit`: with error bars, its own `evaluations` are those of the last local fit alone.
    - `local_cost`: cost of the local fit from the start, infinite where there was none.
    - `evaluations`: of costs and of normal equations, all together.
    - `runs`: every run of CMA-ES with its local fit.
    - `reasons`: why this minimum is kept and why the search ended, in sentences.
    """

    fit: Fit
    local_cost: float = eqx.field(static=True)
    evaluations: int = eqx.field(static=True)
    runs: tuple[CmaRun, ...] = eqx.field(static=True)
    reasons: tuple[str, ...] = eqx.field(static=True)

    def __repr__(self) -> str:
        """Reasons, evaluations and the fit."""
        head = f"CmaResult of {len(self.runs)} runs, {self.evaluations} evaluations"
        return "\n".join([head, *(f"  {reason}" for reason in self.reasons), repr(self.fit)])

    def table(self) -> str:
        """One line for each run, ready to be printed."""
        head = (
            f"{'run':>3}  {'regime':<6} {'points':>6} {'sigma':>7} {'gen.':>5} {'eval.':>6} "
            f"{'lowest cost':>14} {'after local fit':>15}  ended"
        )
        lines = [
            f"{number:>3}  {run.regime:<6} {run.population:>6} {run.sigma:>7.3g} "
            f"{run.generations:>5} {run.evaluations + run.refinement:>6} {run.cost:>14.8g} "
            f"{run.refined:>15.8g}  {run.stop}"
            for number, run in enumerate(self.runs, 1)
        ]
        return "\n".join([head, *lines])


def cma_es(
    objective: AbstractObjective,
    start: Float[Array, "free"] | None = None,
    *,
    preset: CmaPreset = CMA_PRESETS["default"],
    seed: int = 0,
    budget: int | None = None,
    sigma: float | None = None,
    callback: Callable[[CmaProgress], Any] | None = None,
    solver: TrustRegion | None = None,
) -> CmaResult:
    """Search the whole box of the bounds with CMA-ES, and fit from the best points.

    Runs of CMA-ES follow one another as in BIPOP-CMA-ES (`next_plan`), each with a local fit from
    its best point. The local fit from the start is made first, and is kept unless something lower
    is found. Needs pycma, of the extra `global`.

    **Arguments:**

    - `objective`: as in `multi_start`; all its variables need finite bounds. With nothing free it
        is one fit.
    - `start`: physical start values to be trusted: the first run searches their neighbourhood. By
        default it begins at random, as restarts do.
    - `preset`: how long to search: `CMA_PRESETS["fast"]`, `["default"]`, `["global"]` with 50, 100
        and 200 generations a run, or a `CmaPreset` of your own.
    - `seed`: equal seeds give equal results. NumPy's global random numbers are left alone.
    - `budget`: evaluations, those of local fits included, after which no more generation begins;
        by default the preset's and what the local fit from the start takes.
    - `sigma`: standard deviation of the first run, as a share of the width of the bounds.
    - `callback`: sees a `CmaProgress` after each generation and each step of a local fit; a true
        value ends the search, with the best so far and status `interrupted`.
    - `solver`: of the local fits.

    **Raises:** `ModelError` without pycma, for bounds that are infinite or without volume, for
    settings that allow no search, for a start outside the bounds or an objective that no fit
    is made from; `FitError` when the model is finite nowhere.

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
    search = cma_search(
        objective,
        start,
        preset=preset,
        seed=seed,
        budget=budget,
        sigma=sigma,
        callback=callback,
        solver=solver,
    )
    at_once = (lambda state: True) if search.interrupted else None
    fit = least_squares(objective, search.x, solver=solver, callback=at_once)
    evaluations = search.evaluations + fit.evaluations
    return CmaResult(fit, search.local_cost, evaluations, search.runs, search.reasons)
