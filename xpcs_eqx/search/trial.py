"""What a strategy under way has tried, spent and decided."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import FitError
from ..fitting import Fit, least_squares
from ..objective import AbstractObjective
from ..optimize import TrustRegion
from .cmaes.fit import CmaResult, cma_es
from .cmaes.settings import CmaPreset
from .multi_start import multi_start
from .noise import noise_variance
from .search import GlobalFit, Search, Spending
from .selection import Skip, is_lower, skip_search
from .starts import has_coordinates


def cma_es_available() -> bool:
    """Whether the library of CMA-ES, of the extra `global`, is installed."""
    return find_spec("cma") is not None


class Trial:
    """What has been tried so far; it lives as long as a strategy runs."""

    def __init__(
        self,
        objective: AbstractObjective,
        solver: TrustRegion | None,
        callback: Callable[[Any], Any] | None = None,
    ):
        self.objective, self.solver, self.callback = objective, solver, callback
        self.ended = False
        self.noise = noise_variance(objective)
        self.best: Fit | None = None
        self.method = ""
        self.search: Search | None = None
        self.cma: CmaResult | None = None
        self.spent: list[Spending] = []
        self.decisions: list[str] = []

    @property
    def used(self) -> int:
        """Evaluations so far."""
        return sum(one.evaluations for one in self.spent)

    @property
    def fit(self) -> Fit:
        """The best so far.

        **Raises:** `FitError` when nothing worked.
        """
        if self.best is None:
            raise FitError("no fit from any start succeeded: " + "; ".join(self.decisions))
        return self.best

    @property
    def watch(self) -> Callable[[Any], bool] | None:
        """What the methods show their progress to; None where nobody looks."""
        # With nobody looking a local fit is one compiled call.
        return None if self.callback is None else self._watched

    def _watched(self, seen: Any) -> bool:
        assert self.callback is not None
        if bool(self.callback(seen)) and not self.ended:
            self.ended = True
            self.say("ended by the callback: nothing more is tried")
        return self.ended

    def say(self, text: str) -> None:
        """Note a decision."""
        self.decisions.append(text)

    def take(self, method: str, fit: Fit, evaluations: int) -> bool:
        """Keep a fit when it is the best so far; whether it is lower by more than tolerance."""
        self.spent.append(Spending(method, evaluations))
        old = np.inf if self.best is None else float(self.best.cost)
        new = float(fit.cost)
        lower = is_lower(new, old)
        if self.best is None or lower or (new <= old and fit.success > self.best.success):
            self.best, self.method = fit, method
        return lower

    def verdict(self, fit: Fit) -> Skip:
        """Whether a fit leaves nothing to search for."""
        held = ("fixed", "tied", "scaling")
        at_bound = any(row.at_bound and row.role not in held for row in fit.rows)
        variance = fit.residual_sd**2
        return skip_search(variance, self.noise, converged=fit.success, at_bound=at_bound)

    def local(self, start: Any, **keywords: Any) -> Fit | None:
        """The local fit; None where none can be made."""
        begin = np.asarray(self.objective.start if start is None else start, dtype=float)
        if not has_coordinates(self.objective, begin[None])[0]:
            self.say("the start has no solver coordinates (a negative rate): no local fit from it")
            return None
        try:
            fit = least_squares(
                self.objective, start, solver=self.solver, callback=self.watch, **keywords
            )
        except FitError as error:
            self.say(f"local fit: {error}")
            return None
        self.take("local fit", fit, fit.evaluations)
        return fit

    def multi_start(self, **keywords: Any) -> Search | None:
        """Multi-start with the best so far among its starts; None where it found nothing."""
        known = () if self.best is None else (self._inside(self.best),)
        custom = np.asarray([*known, *keywords.pop("custom")])
        try:
            search = multi_start(
                self.objective,
                custom=custom,
                solver=self.solver,
                callback=self.watch,
                **keywords,
            )
        except FitError as error:
            self.say(f"multi-start: {error}")
            return None
        self.search = search
        for text in search.decisions:
            self.say(f"multi-start: {text}")
        lower = self.take("multi-start", search.fit, search.evaluations)
        self.say(
            f"multi-start {'found a lower minimum' if lower else 'found nothing lower'}: "
            f"{search.reason}"
        )
        return search

    def cma_es(self, preset: CmaPreset, seed: int, budget: int | None) -> CmaResult | None:
        """CMA-ES from the best so far; None where it found nothing."""
        start = None if self.best is None else self._inside(self.best)
        return self._cma_es(start, preset, seed, budget)

    def cma_es_over_bounds(
        self, preset: CmaPreset, seed: int, budget: int | None
    ) -> CmaResult | None:
        """CMA-ES over all of the bounds; None where it found nothing.

        A second opinion: it knows nothing of what was tried before, and its own local fit begins
        where the objective does, not at the start that the caller gave.
        """
        return self._cma_es(None, preset, seed, budget)

    def _inside(self, fit: Fit) -> np.ndarray:
        """Physical variables of a fit, which rounding may have put outside the bounds."""
        variables = self.objective.variables
        return np.clip(fit.x, np.asarray(variables.lower), np.asarray(variables.upper))

    def _cma_es(self, start: Any, preset, seed, budget) -> CmaResult | None:
        try:
            found = cma_es(
                self.objective,
                start,
                preset=preset,
                seed=seed,
                budget=budget,
                callback=self.watch,
                solver=self.solver,
            )
        except FitError as error:
            self.say(f"CMA-ES: {error}")
            return None
        self.cma = found
        lower = self.take("CMA-ES", found.fit, found.evaluations)
        self.say(f"CMA-ES {'found a lower minimum' if lower else 'found nothing lower'}")
        return found

    def outcome(self) -> GlobalFit:
        """The best with what was tried for it.

        Where the last multi-start found it degenerate, it is doubted for that, whichever method it
        is of.
        """
        fit, search = self.fit, self.search
        known = search is not None and not is_lower(float(fit.cost), float(search.fit.cost))
        if known and search is not None and fit is not search.fit:
            fit = fit.doubted(search.warnings)
        return GlobalFit(
            fit=fit,
            search=self.search,
            cma=self.cma,
            method=self.method,
            spent=tuple(self.spent),
            decisions=tuple(self.decisions),
        )
