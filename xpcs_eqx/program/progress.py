"""A solver under way in one line."""

from typing import Any

from ..defences import OuterIteration
from ..hybrid import GaussNewtonState, TournamentState, WarmUpState
from ..search import CmaProgress, SearchProgress


def progress_text(state: Any) -> str:
    """What a state of a solver says of its progress."""
    if isinstance(state, TournamentState):
        left = int(state.alive.sum())
        return f"tournament, round {int(state.round)}: {left} of {len(state.alive)} starts left"
    if isinstance(state, WarmUpState):
        return (
            f"warm-up, pass {int(state.evaluations)}: loss {float(state.best_loss):.8g}, "
            f"gradient {float(state.measure):.2e}"
        )
    if isinstance(state, GaussNewtonState):
        return (
            f"Gauss–Newton, pass {int(state.evaluations)}: cost {float(state.local.cost):.8g}, "
            f"gradient {float(state.measure):.2e}"
        )
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
    return (
        f"evaluation {int(state.evaluations)}: cost {float(state.equations.cost):.8g}, "
        f"gradient {float(state.gradient_measure):.2e}"
    )
