"""How a solver ended."""

from enum import IntEnum


class Status(IntEnum):
    """State of an iteration; positive values mean that it converged.

    >>> import xpcs_eqx as xe
    >>> xe.Status.cost.converged, xe.Status.stalled.converged
    (True, False)
    """

    running = 0
    gradient = 1
    cost = 2
    step = 3
    max_evaluations = -1
    stalled = -2
    non_finite = -3
    interrupted = -4
    failed = -5

    @property
    def converged(self) -> bool:
        """Whether the point is a minimum to the tolerances."""
        return self > 0

    @property
    def message(self) -> str:
        """One sentence for a report."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.running: "still running",
    Status.gradient: "converged: the projected gradient vanishes",
    Status.cost: "converged: the cost no longer falls",
    Status.step: "converged: the steps are below their tolerance",
    Status.max_evaluations: "stopped: the number of evaluations is used up",
    Status.stalled: "stopped: no step lowers the cost although the gradient does not vanish",
    Status.non_finite: "stopped: the model is not finite at the start",
    Status.interrupted: "stopped: interrupted",
    Status.failed: "failed: every attempt at recovery was used up",
}
