"""What the hybrid optimiser did, for the report and for parameters.json."""

from typing import Any

import numpy as np

from ..hybrid import HybridResult
from ..optimize import Status

# What each layer of the defences does when it fires, in words.
_LAYERS = {
    "retry": "a pass over the data was repeated",
    "cost guard": "the warm-up was stopped since the loss grew",
    "step clip": "a step of the warm-up was shortened",
    "finite gradient": "the gradient was not finite",
    "finite parameters": "a direction was not finite",
    "finite loss": "the loss was not finite",
    "finite equations": "the normal equations were not finite",
    "radius reset": "the region of trust was opened again",
}


def hybrid_entries(result: HybridResult) -> list[tuple[str, str]]:
    """Names and texts: each phase, how it ended, and which defences fired."""
    iterations, passes = dict(result.iterations), dict(result.evaluations)
    out = []
    if result.tournament is not None:
        state = result.tournament
        out.append(
            (
                "tournament",
                f"{len(state.candidates)} starts in {int(state.round)} rounds; number "
                f"{state.winner + 1} was taken",
            )
        )
    text = f"{result.warm_up}; {iterations['warm-up']} iterations, {passes['warm-up']} passes"
    losses = result.history.warm_up
    if losses.size:
        text += f"; loss / variance of the data {losses[0]:.4g} → {np.min(losses):.4g}"
    out.append(("warm-up", text))
    out.append(
        (
            "Gauss–Newton",
            f"{Status(result.status).message}; {iterations['gauss-newton']} steps, "
            f"{passes['gauss-newton']} passes",
        )
    )
    fired = [
        f"{_LAYERS[layer]} ({count} of {asked} times)"
        for layer, asked, count in result.telemetry.counts
        if count and layer in _LAYERS
    ]
    out.append(("defences", "; ".join(fired) or "none had to fire"))
    return out


def hybrid_document(result: HybridResult) -> dict[str, Any]:
    """The same as plain numbers."""
    return {
        "warm_up": result.warm_up,
        "iterations": dict(result.iterations),
        "passes": dict(result.evaluations),
        "warm_up_losses": result.history.warm_up,
        "telemetry": result.telemetry.export(),
    }
