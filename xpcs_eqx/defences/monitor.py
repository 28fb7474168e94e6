"""Gradient collapse: the scaling moves and the physics does not. A pure state machine."""

from enum import IntEnum

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from ..arguments import Count, Fraction, Positive, Whole, check_fields

# How much larger another gradient must be for one that vanishes to mean anything.
_MOVING = 1e4


class Alarm(IntEnum):
    """What one check of the gradients says."""

    healthy = 0
    low = 1
    collapse = 2
    flat = 3

    @property
    def message(self) -> str:
        """One sentence for a report."""
        return _MESSAGES[self]


_MESSAGES = {
    Alarm.healthy: "physical parameters and scaling both have a gradient",
    Alarm.low: "the gradient of the physical parameters is small beside that of the scaling",
    Alarm.collapse: "gradient collapse: the scaling takes up what the physics should explain",
    Alarm.flat: "the cost does not depend on a watched parameter",
}


class MonitorState(eqx.Module):
    """All a monitor remembers.

    - `checks`: so far; `low`: of them in a row below the ratio; `flat`: in a row, of each watched
        parameter; `collapses`: so far.
    - `history`: the last ratios, oldest first; `smallest`: of all of them.
    - `named`: watched parameters that were flat for long enough at the last check.
    """

    flat: Int[np.ndarray, "watched"]
    named: Bool[np.ndarray, "watched"]
    history: Float[np.ndarray, "recorded"]
    checks: int = 0
    low: int = 0
    collapses: int = 0
    smallest: float = np.inf


class GradientMonitor(eqx.Module):
    """Watches the ratio ‖g_physical‖/‖g_scaling‖ of gradients in scaled variables.

    `update` takes a state and a gradient and returns the next state and an `Alarm`; nothing else is
    remembered anywhere. Without a gradient of the scaling, as where it is eliminated exactly, there
    is nothing the physics could lose against, and the ratio is infinite.

    - `ratio`: below it for `consecutive` checks in a row, gradients have collapsed; the count then
        begins anew.
    - `watched`: positions of single physical parameters; |g_i| below `flat` for `flat_checks`
        checks in a row, once `after` checks have passed, is an alarm as well. Checks in which no
        other gradient is 10⁴ times that large say nothing: at a minimum all of them vanish.
    - `recorded`: ratios kept.

    **Raises:** `ModelError` for numbers outside their range.
    """

    ratio: Fraction = 0.01
    consecutive: Count = 5
    watched: tuple[Whole, ...] = eqx.field(static=True, default=())
    flat: Positive = 1e-8
    flat_checks: Count = 3
    after: Whole = 5
    recorded: Count = eqx.field(static=True, default=1000)

    __check_init__ = check_fields

    def start(self) -> MonitorState:
        """The state before the first check."""
        none = len(self.watched)
        return MonitorState(np.zeros(none, int), np.zeros(none, bool), np.zeros(0))

    def update(
        self,
        state: MonitorState,
        physical: Float[np.ndarray, "free"],
        scaling: Float[np.ndarray, "coefficient"],
    ) -> tuple[MonitorState, Alarm]:
        """The state after one more check, and what the check says.

        `physical` and `scaling` are the gradients of the two groups in scaled variables. A gradient
        that is not finite is no check.
        """
        physical, scaling = np.asarray(physical, float), np.asarray(scaling, float)
        if not (np.all(np.isfinite(physical)) and np.all(np.isfinite(scaling))):
            return state, Alarm.healthy
        size = float(np.linalg.norm(scaling))
        ratio = float(np.linalg.norm(physical)) / size if size > 0 else np.inf
        checks, low = state.checks + 1, state.low + 1 if ratio < self.ratio else 0
        largest = float(np.max(np.abs([*physical, *scaling]), initial=0.0))
        tiny = np.abs(physical[list(self.watched)]) < self.flat
        tiny &= largest >= _MOVING * self.flat
        # Checks before `after` do not count.
        flat = np.where(tiny & (checks > self.after), state.flat + 1, 0)
        named = flat >= self.flat_checks
        collapse = low >= self.consecutive
        new = MonitorState(
            flat=np.where(named, 0, flat),
            named=named,
            history=np.append(state.history, ratio)[-self.recorded :],
            checks=checks,
            low=0 if collapse else low,
            collapses=state.collapses + int(collapse),
            smallest=min(state.smallest, ratio),
        )
        if collapse:
            return new, Alarm.collapse
        if np.any(named):
            return new, Alarm.flat
        return new, Alarm.low if low else Alarm.healthy
