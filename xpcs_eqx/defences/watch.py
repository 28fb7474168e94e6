"""A fit under way, seen by a monitor."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..objective import TwoTimeObjective
from ..optimize import TrustRegionState
from .hierarchical import OuterIteration
from .layers import Monitoring
from .monitor import Alarm, MonitorState


class Watch:
    """Callbacks of a solver: they ask a monitor, then the user, whether the fit is to be left.

    It keeps the state of the monitor and its alarms for one run of a fit.

    - `alarms`: the number of the check and what was found and done.
    - `left`: whether the fit was left for the response of the monitor.
    """

    def __init__(
        self,
        monitoring: Monitoring | None,
        objective: TwoTimeObjective,
        callback: Callable[[Any], Any] | None,
    ):
        self.monitoring, self.callback = monitoring, callback
        parameters = objective.term.parameters
        self.names, self.free = parameters.free_names, parameters.n_free
        self.scale = np.asarray(objective.variables.coordinate_scale, float)
        self.alarms: list[tuple[int, str]] = []
        self.left, self.answered, self.accepted = False, 0, -1
        if monitoring is not None:
            places = tuple(self.names.index(name) for name in monitoring.watched)
            self.monitor = dataclasses.replace(monitoring.monitor, watched=places)
            self.state: MonitorState = self.monitor.start()

    def __call__(self, state: TrustRegionState) -> bool:
        """See the state of a solver after an evaluation; true to leave the fit."""
        ends = self.callback is not None and bool(self.callback(state))
        first = int(state.evaluations) == 1
        moved = first or int(state.accepted) != self.accepted
        self.accepted = int(state.accepted)
        if ends or self.monitoring is None or not moved:
            # A rejected step leaves the point, and its gradient, where they were.
            return ends
        if not np.isfinite(float(state.equations.cost)):
            return False
        # Relative to the cost, so that thresholds have no unit.
        unit = self.scale / max(float(state.equations.cost), np.finfo(float).tiny)
        gradient = np.asarray(state.equations.gradient, float) * unit
        self.state, alarm = self.monitor.update(
            self.state, gradient[: self.free], gradient[self.free :]
        )
        return self._answered(self.monitoring, alarm)

    def outer(self, iteration: OuterIteration) -> bool:
        """See an outer iteration; the gradient of what it just fitted vanishes and says nothing."""
        return self.callback is not None and bool(self.callback(iteration))

    def _answered(self, monitoring: Monitoring, alarm: Alarm) -> bool:
        check = int(self.state.checks)
        if alarm is Alarm.flat:
            found = ", ".join(
                name
                for name, flat in zip(monitoring.watched, self.state.named, strict=True)
                if flat
            )
            self.alarms.append((check, f"{alarm.message}: {found}"))
        if alarm is not Alarm.collapse:
            return False
        response = monitoring.response
        if self.answered >= monitoring.limit:
            self.alarms.append((check, f"{alarm.message}; no response is left, the fit went on"))
            return False
        self.answered += 1
        self.alarms.append((check, f"{alarm.message}; {response.name}"))
        self.left = response.interrupts
        return self.left
