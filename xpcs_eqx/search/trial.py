"""What a strategy under way has tried, spent and decided."""

import dataclasses
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np

from ..errors import FitError
from ..fitting import Fit, least_squares
from ..objective import AbstractObjective
from ..optimize import TrustRegion
from .around import Around, look_around
from .log import Log
from .multi_start import SearchProgress, multi_start
from .pairs import noise_variance
from .restarts import CmaResult, cma_es
from .search import GlobalFit, Search
from .selection import Skip, is_lower, skip_search
from .starts import has_coordinates

Found = TypeVar("Found")


def cma_es_available() -> bool:
    """Whether the library of CMA-ES, of the extra `global`, is installed."""
    return find_spec("cma") is not None


class Trial(Log):
    """The log of a strategy with the best fit so far; it lives as long as the strategy runs.

    - `best`, `method`: the best fit and what found it; `search`, `cma`: the last of each kind.
    - `noise`: variance of a weighted residual of the right model, NaN where it is not known.
    """

    def __init__(
        self,
        objective: AbstractObjective,
        solver: TrustRegion | None,
        callback: Callable[[Any], Any] | None = None,
    ):
        super().__init__(callback)
        self.objective, self.solver = objective, solver
        self.noise = noise_variance(objective)
        self.best: Fit | None = None
        self.method = ""
        self.search: Search | None = None
        self.cma: CmaResult | None = None

    @property
    def fit(self) -> Fit:
        """The best so far.

        **Raises:** `FitError` when nothing worked.
        """
        if self.best is None:
            raise FitError("no fit from any start succeeded: " + "; ".join(self.decisions))
        return self.best

    @property
    def known(self) -> np.ndarray | None:
        """Physical variables of the best so far, which rounding may have put outside the bounds."""
        if self.best is None:
            return None
        variables = self.objective.variables
        return np.clip(self.best.x, np.asarray(variables.lower), np.asarray(variables.upper))

    def verdict(self, fit: Fit) -> Skip:
        """Whether a fit leaves nothing to search for: its verdict, where maps tell their noise."""
        parts = fit.parts.values()
        if parts and all(one.misfit is not None for one in parts):
            if fit.quality.doubtful:
                return Skip(False, fit.quality.findings[0])
            return Skip(True, "its residuals are those of a right model")
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
        fit = self._attempt("local fit", least_squares, start, **keywords)
        if fit is not None:
            self._take("local fit", fit, fit.evaluations)
        return fit

    def around(self, budget: int, **settings: Any) -> Around | None:
        """A look around the best so far; what the sample has lower, or as low, is fitted to all.

        None where no sample of the pairs can be drawn. No fit begins once `budget` is used.
        """
        known = self.known
        assert known is not None
        found = look_around(self.objective, known, solver=self.solver, **settings)
        if found is None:
            self.say("no look around: of these data no sample can be drawn")
            return None
        self.spend("fits from other starts to a sample of the pairs", found.evaluations)
        self._watched(SearchProgress("look around", self.used, self.lowest))
        if self.ended:
            return found
        lower = (self._from_sample(x, "a minimum of the sample", budget) for x in found.lower)
        # Only of a best that is no minimum yet is there more to be had from where it led.
        if all(lower) and not (self.best is not None and self.best.success):
            self._from_sample(found.reached, "the end of its fit to the sample", budget)
        self.say(
            f"{found.same} of {found.starts} starts over the bounds came to the lowest minimum of "
            "a sample of the pairs"
        )
        return found

    def _from_sample(self, x: np.ndarray, what: str, budget: int) -> bool:
        """Fit all pairs from what a sample of them led to; False once `budget` is used."""
        if self.used >= budget:
            self.say(f"{what} is left: {self.used} evaluations are used")
            return False
        fit = self._attempt(f"fit from {what}", least_squares, x)
        if fit is not None and not self.ended:
            lower = self._take("a look around", fit, fit.evaluations)
            self.say(f"a fit from {what} found {_what(lower)}")
        return True

    def multi_start(self, **settings: Any) -> Search | None:
        """Multi-start with the best so far among its starts; None where it found nothing."""
        known = self.known
        custom = settings.pop("custom")
        settings["custom"] = np.asarray(custom if known is None else [known, *custom])
        found = self._attempt("multi-start", multi_start, **settings)
        if found is not None:
            self.search = found
            for text in found.decisions:
                self.say(f"multi-start: {text}")
            lower = self._take("multi-start", found.fit, found.evaluations)
            self.say(f"multi-start found {_what(lower)}: {found.reason}")
        return found

    def cma_es(self, start: Any, **settings: Any) -> CmaResult | None:
        """CMA-ES from the best so far, or without a start over all of the bounds.

        The latter is a second opinion: it knows nothing of what was tried before, and its own local
        fit begins where the objective does, not at the start that the caller gave. None where it
        found nothing.
        """
        found = self._attempt("CMA-ES", cma_es, start, **settings)
        if found is not None and found.fit is not None:
            self.cma = found
            lower = self._take("CMA-ES", found.fit, found.evaluations)
            self.say(f"CMA-ES found {_what(lower)}")
        return found

    def _attempt(
        self, method: str, run: Callable[..., Found], *start: Any, **settings: Any
    ) -> Found | None:
        """What a method finds for the objective; None where it says that there is nothing."""
        # With nobody looking a local fit is one compiled call.
        watch = None if self.callback is None else self._watched
        try:
            return run(self.objective, *start, solver=self.solver, callback=watch, **settings)
        except FitError as error:
            self.say(f"{method}: {error}")
            return None

    def _watched(self, seen: Any) -> bool:
        return self.show(seen, "ended by the callback: nothing more is tried")

    def _take(self, method: str, fit: Fit, evaluations: int) -> bool:
        """Keep a fit when it is the best so far; whether it is lower by more than tolerance."""
        self.spend(method, evaluations)
        old = np.inf if self.best is None else float(self.best.cost)
        new = float(fit.cost)
        lower = is_lower(new, old)
        if self.best is None or lower or (new <= old and fit.success > self.best.success):
            self.best, self.method = fit, method
        return lower

    def outcome(self) -> GlobalFit:
        """The best with what was tried for it.

        Where the last multi-start found it degenerate, it is doubted for that, whichever method it
        is of.
        """
        fit, search = self.fit, self.search
        known = search is not None and not is_lower(float(fit.cost), float(search.fit.cost))
        if known and search is not None and fit is not search.fit:
            fit = fit.doubted(search.warnings)
        whats = dict.fromkeys(one.what for one in self.spent[1:])
        looked = f"looked for by {', '.join(whats)}" if whats else ""
        return GlobalFit(
            fit=dataclasses.replace(fit, looked=looked),
            search=search,
            cma=self.cma,
            method=self.method,
            spent=tuple(self.spent),
            decisions=tuple(self.decisions),
        )


def _what(lower: bool) -> str:
    return "a lower minimum" if lower else "nothing lower"
