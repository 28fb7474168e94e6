"""Strategies: from one local fit to as much search as a problem needs."""

import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..arguments import Whole, check_fields, checked, quiet_arithmetic
from ..errors import ModelError, how_to_install
from ..fitting import check_fittable, checked_start
from ..objective import AbstractObjective
from ..optimize import TrustRegion
from ..progress import in_one_line
from .around import DRAWN
from .around import EVALUATIONS as AROUND_EVALUATIONS
from .evolution import CMA_PRESETS, CmaPreset
from .local_fits import AbstractLocalFits
from .multi_start import SAMPLED_EVALUATIONS
from .pairs import PAIRS
from .search import GlobalFit
from .selection import CHAIN, Selection, is_lower, select_method
from .space import normalised_space
from .starts import AbstractSampler, LatinHypercube, Screening, check_starts, remark_on
from .trial import Trial, cma_es_available

# Evaluations below which not even a local fit and a handful of starts have room.
LEAST_BUDGET = 100
# What refinement, ways and the final fit of a multi-start take.
REST = 80
# Starts on their own that confirm a minimum whose residuals do not.
CONFIRMED = 2
# Looks around while each finds something lower.
ROUNDS = 3
NOTHING_FREE = "no parameter is free: a local fit, which has nothing to search for"


def _rows(rows: Any) -> Any:
    """Rows of numbers as tuples; what is none is left for its check."""
    try:
        return tuple(tuple(map(float, row)) for row in rows)
    except (TypeError, ValueError):
        return rows


class AbstractStrategy(eqx.Module):
    """How a minimum is looked for."""

    __check_init__ = check_fields

    @abstractmethod
    def run(self, trial: Trial, start: Any, **fit: Any) -> None:
        """Try what there is to try, until `trial.ended`; `fit` are arguments of the local fit."""

    @abstractmethod
    def plan(self, objective: AbstractObjective) -> str:
        """What it will try for an objective, in a sentence."""


class Local(AbstractStrategy):
    """The local fit alone."""

    def plan(self, objective):
        return "a local fit"

    def run(self, trial, start, **fit):
        trial.local(start, **fit)


class MultiStart(AbstractStrategy):
    """The local fit, and multi-start. Fields as the arguments of `multi_start`.

    **Raises:** `ModelError` for numbers that make no sense.
    """

    starts: int = eqx.field(static=True, default=20)
    sampler: AbstractSampler = LatinHypercube()
    screening: Screening = Screening()
    refine: int | None = eqx.field(static=True, default=None)
    thin: int | None = eqx.field(static=True, default=PAIRS)
    seed: int = eqx.field(static=True, default=0)
    local: AbstractLocalFits | None = None
    custom: tuple[tuple[float, ...], ...] = eqx.field(static=True, default=(), converter=_rows)

    def __check_init__(self):
        check_fields(self)
        check_starts(self.starts, self.refine)

    def plan(self, objective):
        if not objective.names:
            return NOTHING_FREE
        remark = remark_on(self.starts, len(objective.names))
        text = (
            f"{self.starts} starts, {len(self.custom)} of them given, by "
            f"{type(self.sampler).__name__} over the bounds (seed {self.seed})"
        )
        return text if remark is None else f"{text}; {remark}"

    def run(self, trial, start, **fit):
        trial.local(start, **fit)
        if not trial.ended:
            trial.multi_start(**self.settings(self.starts))

    def settings(self, starts: int, seed: int = 0) -> dict[str, Any]:
        """Arguments of `multi_start` for a number of starts; `seed` is added to the own one."""
        refine = None if self.refine is None else min(self.refine, starts)
        return vars(self) | {"starts": starts, "refine": refine, "seed": self.seed + seed}


class CmaEs(AbstractStrategy):
    """The local fit, and CMA-ES over the bounds. Fields as the arguments of `cma_es`."""

    preset: CmaPreset = CMA_PRESETS["default"]
    seed: int = eqx.field(static=True, default=0)
    budget: int | None = eqx.field(static=True, default=None)

    def plan(self, objective):
        if not objective.names:
            return NOTHING_FREE
        dimension = len(objective.names)
        budget = self.preset.evaluations(dimension) if self.budget is None else self.budget
        return (
            f"CMA-ES, {self.preset.first_population(dimension)} points a generation, "
            f"{budget} evaluations (seed {self.seed})"
        )

    def run(self, trial, start, **fit):
        trial.local(start, **fit)
        if not trial.ended:
            trial.cma_es(trial.known, **vars(self))


class Selected(AbstractStrategy):
    """CMA-ES or multi-start by the scales of the bounds; what fails falls back along `CHAIN`."""

    multi: MultiStart = MultiStart()
    cma: CmaEs = CmaEs()

    def plan(self, objective):
        if not objective.names:
            return NOTHING_FREE
        selection = _selected(objective)
        method = self.cma if selection.method == "cma_es" else self.multi
        return f"{method.plan(objective)}: {selection.reason}"

    def run(self, trial, start, **fit):
        selection = _selected(trial.objective)
        trial.say(f"{selection.method}: {selection.reason}")
        warm = trial.local(start, **fit)
        skip = None if warm is None else trial.verdict(warm)
        if skip is not None and skip.skip:
            trial.say(f"no search, the local fit suffices: {skip.reason}")
            return
        # The last of the chain, the local fit, was made before.
        chain = CHAIN[CHAIN.index(selection.method) :]
        for method, next_method in itertools.pairwise(chain):
            if trial.ended:
                return
            if method == "cma_es":
                found = trial.cma_es(trial.known, **vars(self.cma))
            else:
                found = trial.multi_start(**self.multi.settings(self.multi.starts))
            best = None if found is None else found.fit
            if trial.ended or (best is not None and best.success):
                return
            why = "it found no fit" if best is None else best.message
            trial.say(f"{next_method}: {method} failed: {why}")


def _selected(objective: AbstractObjective) -> Selection:
    return select_method(normalised_space(objective), cma_es_available=cma_es_available())


class Auto(AbstractStrategy):
    """As much search as the data ask for.

    The local fit, and a look around it: fits from elsewhere to a sample of the pairs, which cost
    less than a fit to all (`look_around`); what they find lower is fitted to all pairs. A few
    (`probes`) are enough beside a fit whose residuals are those of a right model, since one that is
    wrong can leave little more than the noise; else there are as many as `multi` has starts. Where
    no two of them came to the lowest minimum, or where no sample can be drawn, multi-start; where
    that does not confirm it either, CMA-ES.

    - `budget`: evaluations of costs and of normal equations after which nothing more begins; a
        local fit under way and the error bars of the result are not cut short for it.
    - `multi`, `preset`: settings of multi-start and CMA-ES.

    **Raises:** `ModelError` for a budget with no room for a search.
    """

    budget: int = eqx.field(static=True, default=5000)
    multi: MultiStart = MultiStart(starts=40)
    preset: CmaPreset = CMA_PRESETS["default"]
    probes: Whole = eqx.field(static=True, default=6)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        check_fields(self)
        if self.budget < LEAST_BUDGET:
            raise ModelError(
                f"a budget of {self.budget} evaluations has no room for a search; give at least "
                f"{LEAST_BUDGET}, or use a local fit"
            )

    def plan(self, objective):
        if not objective.names:
            return NOTHING_FREE
        return (
            f"a local fit and {self.probes} starts beside it; where these do not agree, "
            f"{self.multi.plan(objective)}, then CMA-ES: at most {self.budget} evaluations (seed "
            f"{self.seed} more)"
        )

    def run(self, trial, start, **fit):
        local = trial.local(start, **fit)
        if trial.ended:
            return
        if local is not None:
            skip = trial.verdict(local)
            text = "looks right" if skip.skip else "is not trusted"
            trial.say(f"the local fit {text}: {skip.reason}")
            if skip.skip and self.probes == 0:
                return
            if self._around(trial, self.probes if skip.skip else self.multi.starts):
                return
            if trial.ended:
                return
        confirmed = self._multi_start(trial, self.multi.starts, 1)
        if confirmed or trial.ended:
            return
        self._cma_es(trial)

    def _around(self, trial: Trial, starts: int) -> bool:
        """Whether looks around leave nothing more to search for; the last finds nothing lower."""
        for turn in range(ROUNDS):
            # One fit more begins at the best so far.
            left = self.budget - trial.used - REST - AROUND_EVALUATIONS
            n = min(starts, left // (AROUND_EVALUATIONS + DRAWN))
            if n < 1:
                trial.say(f"no look around: {trial.used} of {self.budget} evaluations are used")
                return trial.verdict(trial.fit).skip
            if n < starts:
                trial.say(f"{n} instead of {starts} starts around, for the budget of {self.budget}")
            seed, settings = self.seed + turn, self.multi
            before, doubted = float(trial.fit.cost), not trial.verdict(trial.fit).skip
            found = trial.around(
                self.budget,
                starts=n,
                seed=seed,
                sampler=settings.sampler,
                custom=settings.custom,
                doubted=doubted,
            )
            if found is None or trial.ended:
                return False
            trusted = trial.verdict(trial.fit).skip
            if not is_lower(float(trial.fit.cost), before):
                return trusted or found.same >= CONFIRMED
        return False

    def _multi_start(self, trial: Trial, starts: int, number: int) -> bool:
        """Multi-start, and whether its result needs no more search."""
        each = 1 + self.multi.screening.keep * SAMPLED_EVALUATIONS
        n = min(starts, int((self.budget - trial.used - REST) / each))
        if n < 3:
            trial.say(f"no multi-start: {trial.used} of {self.budget} evaluations are used")
            return False
        if n < starts:
            trial.say(f"{n} instead of {starts} starts, for the budget of {self.budget}")
        before = trial.best
        search = trial.multi_start(**self.multi.settings(n, self.seed + number))
        if search is None or trial.ended:
            return False
        skip = trial.verdict(trial.fit)
        agrees = before is not None and not is_lower(float(trial.fit.cost), float(before.cost))
        # The best so far is among the starts: one member more that came on its own confirms it.
        others = len([m for m in search.basins[0].members if m >= (before is not None)])
        if agrees and others:
            trial.say("multi-start agrees with the fit before it")
            return True
        if skip.skip and others >= 2:
            trial.say(f"confirmed by {others} starts on their own: {skip.reason}")
            return True
        why = f"only {others} of its starts found this minimum" if skip.skip else skip.reason
        trial.say(f"multi-start disagrees with the fit before it, and is not confirmed: {why}")
        return False

    def _cma_es(self, trial: Trial) -> None:
        rest = self.budget - trial.used
        if not cma_es_available():
            trial.say(
                f"CMA-ES would be next; its library is not installed ({how_to_install('global')}), "
                "so more starts take its place"
            )
            self._multi_start(trial, 2 * self.multi.starts, 2)
            return
        generation = self.preset.first_population(len(trial.objective.names))
        if rest < max(LEAST_BUDGET, generation):
            trial.say(f"no CMA-ES: {trial.used} of {self.budget} evaluations are used")
            return
        trial.cma_es(None, preset=self.preset, seed=self.seed, budget=rest)


@checked()
@quiet_arithmetic
def global_least_squares(
    objective: AbstractObjective,
    start: Float[Array, "variable"] | None = None,
    *,
    strategy: AbstractStrategy | None = None,
    solver: TrustRegion | None = None,
    callback: Callable[[Any], Any] | None = None,
    progress: bool = False,
    **fit: Any,
) -> GlobalFit:
    """Fit with a search for other minima, as thorough as a strategy asks for.

    **Arguments:**

    - `objective`: as in `multi_start`. With nothing free it is a local fit whatever the strategy.
    - `start`: physical start values of the local fit; by default the objective's own.
    - `strategy`: `Auto()` (default), `MultiStart()`, `CmaEs()`, `Selected()` or `Local()`.
    - `solver`: of all local fits.
    - `callback`: sees a `TrustRegionState` of the local fit, `SearchProgress` of multi-start and
        `CmaProgress` of CMA-ES; a true value ends the search with the best so far.
    - `progress`: show where it is, in one line.
    - `fit`: further arguments of the first `least_squares`: `recovery`, `checkpoints`, `resume`.

    **Raises:** `ModelError` as `least_squares`, `multi_start` and `cma_es`, and for `errors` other
    than all, with which the tests come that a search goes by; `FitError` when nothing has a finite
    cost.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> from xpcs_eqx.search import Auto, global_least_squares
    >>> truth, t = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0)), 0.2 * np.arange(15)
    >>> place = xe.Geometry(0.0054, np.array([0.0]))
    >>> data = xe.simulate(truth, t, place, 0.2, 1.0, noise=0.002, key=jax.random.key(0))
    >>> parameters = xe.parameter_map(truth, t, fixed=("D_offset",))
    >>> found = global_least_squares(xe.projected_objective(parameters, data))
    >>> found.method, found.fit.success
    ('local fit', True)
    """
    check_fittable(objective, "global_least_squares")
    if (errors := fit.get("errors", "all")) != "all":
        raise ModelError(
            f"errors={errors!r} is for a single local fit: a search goes by the tests of residuals "
            "that are made with all errors; leave errors out, or do not search"
        )
    begin = None if start is None else np.asarray(checked_start(objective, start))
    strategy = Auto() if strategy is None else strategy
    with in_one_line(progress, callback) as seen:
        trial = Trial(objective, solver, seen)
        if not objective.names:
            trial.say(NOTHING_FREE)
            strategy = Local()
        strategy.run(trial, begin, **fit)
        return trial.outcome()
