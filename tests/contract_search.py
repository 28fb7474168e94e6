"""The table of `contract.py` for global search."""

from functools import cache

import numpy as np
from contract import Case, small_objective
from contract_cmaes import MODULES, RECORDS

from xpcs_eqx import search


@cache
def found():
    """A multi-start of a few starts, as a strategy makes it."""
    strategy = search.MultiStart(starts=3, refine=1)
    return search.global_least_squares(small_objective(), strategy=strategy)


def multi():
    return found().search


MODULES |= {
    search.Axis: Case(lambda: search.Axis(-1e5, 1e5, 1e3)),
    search.Auto: Case(lambda: search.Auto(budget=1000), text=6000),
    search.CmaEs: Case(lambda: search.CmaEs(seed=3), text=3000),
    search.GlobalFit: Case(found, text=12000),
    search.Local: Case(lambda: search.Local()),
    search.MultiStart: Case(lambda: search.MultiStart(starts=4), text=3000),
    search.NormalisedSpace: Case(
        lambda: search.NormalisedSpace((search.Axis(1.0, 1e6, 0),), ("D0",))
    ),
    search.OneCall: Case(lambda: search.OneCall(batch=2)),
    search.OverExecutor: Case(lambda: search.OverExecutor()),
    search.Screening: Case(lambda: search.Screening(keep=0.25)),
    search.Search: Case(multi, text=6000),
    search.Selected: Case(lambda: search.Selected(), text=6000),
}

RECORDS |= {
    search.Basin: lambda: multi().basins[0],
    search.LocalFits: lambda: search.LocalFits(
        np.ones((1, 2)),
        np.ones((1, 2)),
        np.ones(1),
        np.ones((1, 2, 2)),
        np.ones(1, int),
        np.ones(1),
    ),
    search.SearchProgress: lambda: search.SearchProgress("screening", 20, 0.7),
    search.Selection: lambda: search.Selection("local", "asked for"),
    search.Skip: lambda: search.Skip(True, "it converged"),
    search.Spending: lambda: search.Spending("screening", 20),
}
