"""The table of `contract.py` for what says which parameters the data determine."""

import numpy as np
from contract import SHORT
from contract_cmaes import MODULES, RECORDS

from xpcs_eqx import fitting


def departure(kind):
    return fitting.Departure(kind, SHORT, SHORT, 0.1 * SHORT, 1.0, 2, 0.6, False)


RECORDS |= {
    fitting.Departure: lambda: departure("contrast"),
    fitting.ScalingCheck: lambda: fitting.ScalingCheck(
        "Averaged", departure("contrast"), departure("offset"), ("D0",), np.ones(1)
    ),
}

__all__ = ["MODULES", "RECORDS"]
