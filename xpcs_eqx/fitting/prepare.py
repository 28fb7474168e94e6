"""What comes before the trust region: preparations that improve the start, one after another."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from ..objective import AbstractObjective
from ..optimize import AbstractPreparation, AbstractPreparationState

Preparations = tuple[AbstractPreparation, ...]
Prepared = tuple[AbstractPreparationState, ...]


def prepare(
    objective: AbstractObjective,
    start: Float[np.ndarray, "variable"],
    preparations: Preparations,
    watch: Callable[[Prepared], Any],
    prepared: Prepared = (),
) -> tuple[Float[np.ndarray, "variable"], Prepared, dict[str, float], bool]:
    """Run the preparations to their end, each from where the one before it has got to.

    - `watch`: sees the states of all so far after every step; a true value stops.
    - `prepared`: states of an earlier run to go on from.

    **Returns:** the start that they found, their last states, seconds by phase, and whether they
    were stopped.
    """
    states, seconds = list(prepared), {}
    for place, preparation in enumerate(preparations):
        clock = time.perf_counter()
        if place == len(states):
            states.append(preparation.begin(objective, start))
        advance = preparation.machine(objective) if states[place].running else None
        while advance is not None and states[place].running:
            states[place] = advance(states[place])
            seconds[states[place].phase] = time.perf_counter() - clock
            if watch(tuple(states)):
                return states[place].best, tuple(states), seconds, True
        start = states[place].best
    return start, tuple(states), seconds, False


def blanks(
    objective: AbstractObjective,
    start: Float[np.ndarray, "variable"],
    preparations: Preparations,
    number: int,
) -> Prepared:
    """States with the structure of the first `number` preparations, to be filled from a file."""
    return tuple(one.begin(objective, start) for one in preparations[:number])
