"""The best fit of a strategy, and what was tried for it."""

import equinox as eqx

from ..fitting import Fit
from .cmaes import CmaResult
from .search import Search, Spending


class GlobalFit(eqx.Module):
    """The best fit of all that a strategy tried.

    - `fit`: with error bars and verdict; `method`: what found it.
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

    def report(self) -> str:
        """Decisions, evaluations and the tables of the methods, as lines of text."""
        parts = ", ".join(f"{one.what} {one.evaluations}" for one in self.spent)
        lines = [f"* {text}" for text in self.decisions]
        lines.append(f"* {self.evaluations} evaluations: {parts}; the best is of {self.method}")
        if self.search is not None:
            lines += ["", f"multi-start: {self.search.reason}", "", self.search.table()]
        if self.cma is not None:
            lines += ["", "CMA-ES:", *(f"  {text}" for text in self.cma.reasons)]
            lines += ["", self.cma.table()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """The report and the fit."""
        return f"GlobalFit\n{self.report()}\n{self.fit!r}"
