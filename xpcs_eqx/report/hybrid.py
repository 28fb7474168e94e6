"""What came before the trust region and what the defences did, for report and parameters.json."""

from typing import Any

import numpy as np

from ..fitting import Fit
from ..search import TournamentState

# What each layer of the defences does when it fires, in words.
_LAYERS = {
    "cost guard": "the warm-up was stopped since the loss grew",
    "step clip": "a step of the warm-up was shortened",
    "memory reset": "the warm-up forgot the curvature it had gathered",
    "finite loss": "the loss was not finite",
    "finite gradient": "the gradient was not finite",
    "finite equations": "the normal equations were not finite",
}


def hybrid_entries(fit: Fit) -> list[tuple[str, str]]:
    """Names and texts: each phase, how it ended, and which defences fired."""
    out = []
    tournament, warm_up = fit.prepared.get("tournament"), fit.warm_up
    if isinstance(tournament, TournamentState):
        text = (
            f"{len(tournament.candidates)} starts in {int(tournament.round)} rounds; number "
            f"{tournament.winner + 1} was taken"
        )
        out.append(("tournament", text))
    if warm_up is not None:
        losses = warm_up.losses
        text = (
            f"{warm_up.end.message}; {int(warm_up.iteration)} iterations, "
            f"{int(warm_up.evaluations)} passes"
        )
        if losses.size:
            text += f"; loss / variance of the data {losses[0]:.4g} → {np.min(losses):.4g}"
        out.append(("warm-up", text))
    fired = [
        f"{_LAYERS[layer]} ({count} of {asked} times)"
        for layer, asked, count in fit.telemetry.counts
        if count and layer in _LAYERS
    ]
    out.append(("defences", "; ".join(fired) or "none had to fire"))
    return out


def hybrid_document(fit: Fit) -> dict[str, Any]:
    """The same as plain numbers."""
    warm_up = fit.warm_up
    out: dict[str, Any] = {
        "passes": {phase: int(state.evaluations) for phase, state in fit.prepared.items()},
        "telemetry": fit.telemetry.export(),
    }
    if warm_up is not None:
        out["warm_up"] = warm_up.end.message
        out["iterations"] = {"warm-up": int(warm_up.iteration)}
        out["warm_up_losses"] = warm_up.losses
    return out
