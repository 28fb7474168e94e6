"""What a search found, the best fit of a strategy and what was tried for it, as plain values."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..fitting import Fit
from ..optimize import Status
from ..showing import in_columns
from .basins import Basin
from .local_fits import LocalFits
from .log import Spending
from .restarts import CmaResult


class Search(eqx.Module):
    """The best minimum of a search, and the others.

    - `fit`: the best, with error bars and verdict.
    - `basins`: the distinct minima, the lowest first; `names` of their values.
    - `starts`, `costs`: physical starts, those given first, and their costs.
    - `ends`: where the fit from each start ended, a row for each start: values, cost, curvature,
        `Status`, evaluations; NaN and infinite for starts that screening left out. The cost of a
        fit that was given up (`unfinished`) is that of the pairs that it saw.
    - `unfinished`: rough fits that were given up before they arrived at a minimum.
    - `spent`: evaluations by phase; `decisions`: what was decided and why, in sentences.
    - `noise`: difference in chi² below which two minima are equally good.
    """

    fit: Fit
    basins: tuple[Basin, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    starts: Float[np.ndarray, "start variable"]
    costs: Float[np.ndarray, "start"]
    ends: LocalFits
    unfinished: int = eqx.field(static=True)
    spent: tuple[Spending, ...] = eqx.field(static=True)
    decisions: tuple[str, ...] = eqx.field(static=True)
    noise: float = eqx.field(static=True)

    @property
    def evaluations(self) -> int:
        """All evaluations of the search."""
        return sum(one.evaluations for one in self.spent)

    @property
    def equal(self) -> tuple[Basin, ...]:
        """Basins whose chi² noise does not tell from that of the best, itself included."""
        return tuple(basin for basin in self.basins if basin.excess <= self.noise)

    @property
    def degenerate(self) -> bool:
        """Whether the best minimum is a flat valley, or one of several equally good ones."""
        return self.basins[0].degenerate or len(self.equal) > 1

    @property
    def reason(self) -> str:
        """The verdict in a few sentences."""
        best = self.basins[0]
        fitted = sum(len(basin.members) for basin in self.basins) + self.unfinished
        text = [
            f"{len(self.basins)} distinct minima; {len(best.members)} of {fitted} fits ended in "
            "the best"
            if len(self.basins) > 1
            else f"one minimum, in which {len(best.members)} of {fitted} fits ended"
        ]
        if self.fit.status == Status.interrupted:
            text.insert(0, "interrupted: what follows is the best point so far")
        if self.unfinished:
            text.append(f"{self.unfinished} were given up on the way")
        return "; ".join([*text, *self.warnings])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the minimum degenerate, in sentences; nothing where it is not."""
        best, text = self.basins[0], []
        if best.degenerate:
            text.append(f"the minimum is a flat valley: {self._valley(best)}")
        others = [k + 1 for k, basin in enumerate(self.basins) if basin in self.equal][1:]
        if others:
            are = "minimum {} is" if len(others) == 1 else "minima {} are"
            text.append(
                f"{are.format(', '.join(map(str, others)))} as good as the best within the noise "
                f"({self._apart(others[0] - 1)}): the data do not tell them apart; narrow the "
                "bounds, or fix what distinguishes them"
            )
        return tuple(text)

    def _apart(self, other: int) -> str:
        """Where another minimum lies, in the variables in which it differs."""
        pairs = zip(self.names, self.basins[0].values, self.basins[other].values, strict=True)
        return ", ".join(
            f"{name} {b:.4g} instead of {a:.4g}"
            for name, a, b in pairs
            if abs(b - a) > 1e-3 * max(abs(a), abs(b))
        )

    def _valley(self, basin: Basin) -> str:
        wide = [
            f"{name} from {low:.4g} to {high:.4g}"
            for name, (low, high) in zip(self.names, basin.extent, strict=True)
            if abs(high - low) > 1e-3 * max(abs(low), abs(high))
        ]
        return f"{', '.join(wide)} fit alike; fix one of them or change the model"

    def cells(self) -> list[list[str]]:
        """A header and a row for each basin; `barrier`: rise of chi² on the way to the best."""
        head = ["minimum", "chi2", "excess", "fits", "distance", "barrier", *self.names, ""]
        rows = [head]
        equal = self.equal
        for k, basin in enumerate(self.basins):
            remarks = ["flat valley"] * basin.degenerate
            remarks += ["as good as the first"] * (k > 0 and basin in equal)
            remarks += ["not refined"] * (not basin.refined)
            barrier = "-" if k == 0 else f"{2 * basin.barrier:.3g}"
            numbers = [f"{basin.chi2:.6g}", f"{basin.excess:.3g}", str(len(basin.members))]
            values = [f"{value:.4g}" for value in basin.values]
            place = [f"{basin.distance:.3g}", barrier]
            rows.append([str(k + 1), *numbers, *place, *values, ", ".join(remarks)])
        return rows

    def table(self) -> str:
        """The basins, one line each."""
        return in_columns(self.cells())

    def sentences(self) -> tuple[str, ...]:
        """What was decided, what it took, and how to read the table."""
        parts = ", ".join(f"{one.what} {one.evaluations}" for one in self.spent)
        return (
            *self.decisions,
            f"{self.evaluations} evaluations: {parts}",
            f"minima whose chi2 differ by less than {self.noise:.3g} are equally good",
        )

    def report(self) -> str:
        """Verdict, table, decisions and evaluations, as lines of text."""
        lines = [self.reason, "", self.table(), ""]
        return "\n".join([*lines, *(f"* {text}" for text in self.sentences())])

    def __repr__(self) -> str:
        """The verdict and the table."""
        return f"Search: {self.reason}\n{self.table()}"


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
        total = (
            f"{self.evaluations} evaluations: {parts}; the lowest is kept, that of {self.method}"
        )
        text = [*self.decisions, total]
        if self.search is not None:
            # Its decisions are among those of the strategy.
            own = self.search.sentences()[len(self.search.decisions) :]
            text += [f"multi-start: {one}" for one in own]
        if self.cma is not None:
            text += [f"CMA-ES: {one}" for one in self.cma.reasons]
        return tuple(text)

    def cells(self) -> tuple[list[list[str]], ...]:
        """Minima of the last multi-start and runs of the last CMA-ES, where there were any.

        Of each a header and rows.
        """
        methods = (self.search, self.cma)
        return tuple(method.cells() for method in methods if method is not None)

    def tables(self) -> tuple[str, ...]:
        """The same as lines of text."""
        methods = (self.search, self.cma)
        return tuple(method.table() for method in methods if method is not None)

    def report(self) -> str:
        """Decisions, evaluations and the tables of the methods, as lines of text."""
        text = "\n".join(f"* {one}" for one in self.sentences())
        return "\n\n".join([text, *self.tables()])

    def __repr__(self) -> str:
        """The report and the fit."""
        return f"GlobalFit\n{self.report()}\n{self.fit!r}"
