"""What a sampler hands over: draws with their statistics, and its progress."""

from typing import Any, NamedTuple

import numpy as np


class Draws(NamedTuple):
    """What is kept of each transition; leading axes (chain, draw).

    - `position`: unconstrained coordinates (…, entry); `log_density`: of the coordinates.
    - `gradient`: of the log density in these coordinates (…, entry).
    - `divergent`, `energy`, `acceptance`: of the trajectory; `depth`: its doublings; `steps`: its
        gradient evaluations.
    """

    position: Any
    log_density: Any
    divergent: Any
    energy: Any
    depth: Any
    steps: Any
    acceptance: Any
    gradient: Any

    def __repr__(self) -> str:
        shapes = (f"{name}={np.shape(value)}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({', '.join(shapes)})"


class Progress(NamedTuple):
    """What a callback sees: `phase` is warm-up or sampling.

    `done` of `total` transitions of each chain; `divergences` and `steps_per_draw` are those of the
    chains since the last call.
    """

    phase: str
    done: int
    total: int
    divergences: int
    step_size: float
    steps_per_draw: float
