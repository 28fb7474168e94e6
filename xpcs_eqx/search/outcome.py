"""The best fit of a strategy, and what was tried for it."""

import equinox as eqx

from ..fitting import Fit
from .cmaes import CmaResult
from .search import Search, Spending


class GlobalFit(eqx.Module):
    """The best fit of all that a strategy tried.

    - `fit`: with error bars and verdict.
    - `method`: what found it.
    - `search`: the last multi-start, `cma`: the last CMA-ES, None where there was none.
    - `spent`: evaluations by method; `decisions`: what was decided and why, in sentences.
    """

    fit: Fit
    search: Search | None
    cma: CmaResult | None
    method: str = eqx.field(static=True)
    spent: tuple[Spending, ...] = eqx.field(static=True)
    decisions: tuple[str, ...] = eqx.field(static=True)

    @property
    def evaluations(self) -> int:
        """All evaluations."""
        return sum(one.evaluations for one in self.spent)

    @property
    def flat(self) -> bool:
        """Whether the last multi-start ended in a flat valley."""
        return self.search is not None and self.search.basins[0].degenerate

    def sentences(self) -> tuple[str, ...]:
        """Decisions and evaluations of the strategy and of each of its methods."""
        parts = ", ".join(f"{one.what} {one.evaluations}" for one in self.spent)
        total = f"{self.evaluations} evaluations: {parts}; kept is the best, of {self.method}"
        text = [*self.decisions, total]
        if self.search is not None:
            # Its decisions are among those of the strategy.
            own = self.search.sentences()[len(self.search.decisions) :]
            text += [f"multi-start: {one}" for one in own]
        if self.cma is not None:
            text += [f"CMA-ES: {one}" for one in self.cma.reasons]
        return tuple(text)

    def tables(self) -> tuple[str, ...]:
        """Minima of the last multi-start and runs of the last CMA-ES, where there were any."""
        methods = (self.search, self.cma)
        return tuple(method.table() for method in methods if method is not None)

    def report(self) -> str:
        """Decisions, evaluations and the tables of the methods, as lines of text."""
        text = "\n".join(f"* {one}" for one in self.sentences())
        return "\n\n".join([text, *self.tables()])

    def __repr__(self) -> str:
        """The report and the fit."""
        return f"GlobalFit\n{self.report()}\n{self.fit!r}"
