"""A solver under way in one line."""

from typing import Any

from ..defences import OuterIteration
from ..search import CmaProgress, SearchProgress


def progress_text(state: Any) -> str:
    """What a state of a solver says of its progress."""
    if isinstance(state, OuterIteration):
        return (
            f"outer iteration {state.number}: cost {state.cost_scaling:.8g}, "
            f"change {state.change:.2e}"
        )
    if isinstance(state, SearchProgress):
        return f"multi-start, {state.phase}: {state.evaluations} evaluations, cost {state.cost:.8g}"
    if isinstance(state, CmaProgress):
        return (
            f"CMA-ES, {state.phase}, run {state.run}, generation {state.generation}: "
            f"{state.evaluations} evaluations, cost {state.cost:.8g}"
        )
    return state.summary
