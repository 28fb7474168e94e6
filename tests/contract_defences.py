"""The table of `contract.py` for what defends a fit."""

import jax.numpy as jnp
import numpy as np
from contract import SHORT, Case, small_fit
from contract_degeneracy import MODULES, RECORDS

from xpcs_eqx import defences, fitting

PER_ANGLE = jnp.array([[0.2, 1.0], [0.3, 1.02], [0.1, 0.99]])


def residuals_of(penalty):
    # Residuals about a mean add up to nothing.
    return penalty.residuals(PER_ANGLE) ** 2


def seen():
    monitor = defences.GradientMonitor(watched=(1,))
    return monitor.update(monitor.start(), np.array([1.0, 2.0]), np.array([3.0]))[0]


def outer():
    one, passes = SHORT[:1], np.ones((1, 2), int)
    return fitting.OuterHistory(SHORT[None], SHORT[None], one, one, one, passes)


def variation():
    return defences.VariationReport("RelativeVariation", 10.0, (0.1, 0.01), 0.1, 0.2, (0.15, 0.02))


def report():
    return defences.DefenceReport(2, 1e-7, True, 3, data_sets=(of_data_set(),))


def of_data_set():
    return defences.DataSetReport("hot", variation(), defences.WeightsReport(5.0, SHORT))


MODULES |= {
    defences.AbsoluteVariation: Case(lambda: defences.AbsoluteVariation(2.0, 30.0), residuals_of),
    defences.MonitorState: Case(seen),
    defences.RelativeVariation: Case(lambda: defences.RelativeVariation(2.0, 0.4), residuals_of),
    fitting.OuterHistory: Case(outer),
}

RECORDS |= {
    defences.Alarm: lambda: defences.Alarm.collapse,
    defences.DataSetReport: of_data_set,
    defences.DefendedFit: lambda: defences.DefendedFit(small_fit(), report()),
    defences.DefenceReport: report,
    defences.MonitorReport: lambda: defences.MonitorReport(7, 0.5, (), SHORT, False),
    defences.OuterIteration: lambda: defences.OuterIteration(
        1, SHORT, SHORT[:1], 2.0, 1.0, 0.1, (3, 1)
    ),
    defences.Reached: lambda: defences.Reached(SHORT, 1.0, 3),
    defences.VariationReport: variation,
    defences.WeightsReport: lambda: defences.WeightsReport(5.0, SHORT),
}

__all__ = ["MODULES", "RECORDS"]
