"""The table of `contract.py` for what says which parameters the data determine."""

from functools import cache

import numpy as np
from contract import SHORT, Case, T
from contract_search import MODULES, RECORDS
from helpers import TRANSPORT, make_data

from xpcs_eqx import fitting, parameters, physics

ESTIMATE = fitting.AngleEstimate(np.ones(2), np.eye(2), np.ones(2, bool), 10)


@cache
def sequential_fit():
    truth = physics.Static(TRANSPORT)
    chosen = parameters.parameter_map(truth, T, fixed=("D_offset",))
    return fitting.sequential_least_squares(chosen, make_data(truth, n=9))


def departure(kind):
    return fitting.Departure(kind, SHORT, SHORT, 0.1 * SHORT, 1.0, 2, 0.6, False)


MODULES |= {fitting.SequentialFit: Case(sequential_fit, text=4000)}

CURVE = fitting.ProfileCurve("D0", "Å²/s", 0.4, SHORT, SHORT, ("D0",), SHORT[:, None])
DIRECTION = fitting.Direction(1e-5, ("D0", "alpha"), (0.7, -0.7), (1e3, -0.1), ("Å²/s", ""))
ADVICE = fitting.Advice("fix alpha", "it is open", 'fixed=("alpha",)', "")

RECORDS |= {
    fitting.Advice: lambda: ADVICE,
    fitting.DegeneracyReport: lambda: fitting.DegeneracyReport(
        (DIRECTION,), (), (), (CURVE,), (ADVICE,), 1e5
    ),
    fitting.Direction: lambda: DIRECTION,
    fitting.ProfileCurve: lambda: CURVE,
    fitting.AngleEstimate: lambda: ESTIMATE,
    fitting.Combined: lambda: fitting.Uniform()((ESTIMATE,)),
    fitting.FailedAngle: lambda: fitting.FailedAngle(1, 30.0, "0 pairs count"),
    fitting.Heterogeneity: lambda: fitting.Heterogeneity(1.0, 2, 0.6, SHORT),
    fitting.SequentialRow: lambda: fitting.SequentialRow("D0", 1.0, 0.1, "Å²/s", 3),
    fitting.Departure: lambda: departure("contrast"),
    fitting.ScalingCheck: lambda: fitting.ScalingCheck(
        "Averaged", departure("contrast"), departure("offset"), ("D0",), np.ones(1)
    ),
}

__all__ = ["MODULES", "RECORDS"]
