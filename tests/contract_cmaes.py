"""The table of `contract.py` for CMA-ES."""

from functools import cache

from contract import Case, small_objective
from contract_bayes import MODULES, RECORDS

from xpcs_eqx import search


@cache
def searched():
    """A search of a few generations."""
    short = search.CmaPreset(generations=3, restarts=0, refined=1)
    return search.cma_es(small_objective(), preset=short)


MODULES |= {
    search.CmaPreset: Case(lambda: search.CmaPreset(generations=30)),
    search.CmaResult: Case(searched, lambda result: result.fit.values**2, text=6000),
}

RECORDS |= {
    search.CmaProgress: lambda: search.CmaProgress("search", 1, 3, 9, 0.2, 0.7, 27),
    search.CmaRun: lambda: searched().runs[0],
    search.RunPlan: lambda: search.RunPlan("large", 18, 0.3, 1800),
}
