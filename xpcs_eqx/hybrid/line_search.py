"""How far along a direction: searches that name a step and are told what was found there.

A streamed cost cannot be traced, so a search is a pure function of its state; the loop around it
passes over the data.
"""

from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

_EPS = float(np.finfo(float).eps)


class LineState(eqx.Module):
    """What is known of φ(step): at 0, at the ends of an interval, and which step comes next.

    - `low`, `high`: (step, φ, φ′) at the ends; `bracketed` once a minimum lies between them.
    - `step`: the next step to try, or the one accepted once `done`.
    """

    value: Float[np.ndarray, ""]
    slope: Float[np.ndarray, ""]
    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]
    step: Float[np.ndarray, ""]
    longest: Float[np.ndarray, ""]
    tries: Int[np.ndarray, ""]
    bracketed: Bool[np.ndarray, ""]
    done: Bool[np.ndarray, ""]
    accepted: Bool[np.ndarray, ""]


class AbstractLineSearch(eqx.Module):
    """A search along φ(step), φ′(0) < 0."""

    def start(self, value: float, slope: float, first: float, longest: float) -> LineState:
        """The state before the first try, a step of `first` but at most `longest`."""
        origin = np.array([0.0, value, slope])
        step = min(first, longest)
        return LineState(
            value=np.asarray(float(value)),
            slope=np.asarray(float(slope)),
            low=origin,
            high=origin,
            step=np.asarray(float(step)),
            longest=np.asarray(float(longest)),
            tries=np.asarray(0),
            bracketed=np.asarray(False),
            done=np.asarray(False),
            accepted=np.asarray(False),
        )

    @abstractmethod
    def update(self, state: LineState, value: float, slope: float) -> LineState:
        """Take φ and φ′ at the step tried; not finite where there is no value."""


class StrongWolfe(AbstractLineSearch):
    """Bracketing and zoom to the strong Wolfe conditions.

    Nocedal & Wright, Numerical Optimization (2006), algorithms 3.5 and 3.6.

    - `decrease`, `curvature`: c₁ and c₂ of the conditions; `tries`: steps at most.
    - `expansion`: growth of the step while no minimum is bracketed.
    """

    decrease: float = 1e-4
    curvature: float = 0.9
    expansion: float = 2.0
    tries: int = 20

    def update(self, state, value, slope):
        step, low, high = float(state.step), state.low, state.high
        here = np.array([step, value if np.isfinite(value) else np.inf, slope])
        tries, bracketed = int(state.tries) + 1, bool(state.bracketed)
        limit = float(state.value) + self.decrease * step * float(state.slope)
        enough = here[1] <= limit and here[1] < low[1]
        flat = abs(slope) <= -self.curvature * float(state.slope)
        if enough and (flat or (not bracketed and slope < 0 and step >= float(state.longest))):
            return _after(state, here, high, step, bracketed, True, True)
        if not enough:
            high, bracketed = here, True
        elif bracketed:
            high = low if slope * (high[0] - low[0]) >= 0 else high
            low = here
        elif slope >= 0:
            low, high, bracketed = here, low, True
        else:
            low = here
        lost = _promises_nothing(state)
        lost |= bracketed and abs(high[0] - low[0]) <= 4 * _EPS * max(high[0], low[0])
        if tries >= self.tries or lost:
            return _after(state, low, high, low[0], bracketed, True, low[0] > 0)
        if not bracketed:
            following = min(self.expansion * step, float(state.longest))
        else:
            following = _between(low, high)
        return _after(state, low, high, following, bracketed)


def _promises_nothing(state: LineState) -> bool:
    """Whether rounding takes all that a step of this length and shorter ones promise."""
    promise = float(state.step) * abs(float(state.slope))
    return promise <= _EPS * abs(float(state.value))


def _after(state, low, high, step, bracketed, done=False, accepted=False) -> LineState:
    return LineState(
        value=state.value,
        slope=state.slope,
        low=low,
        high=high,
        step=np.asarray(float(step)),
        longest=state.longest,
        tries=state.tries + 1,
        bracketed=np.asarray(bool(bracketed)),
        done=np.asarray(bool(done)),
        accepted=np.asarray(bool(accepted)),
    )


def _between(low: np.ndarray, high: np.ndarray) -> float:
    """The minimum of the cubic through both ends, kept off them; the middle where it has none.

    Nocedal & Wright (2006), equation 3.59.
    """
    (a, fa, sa), (b, fb, sb) = low, high
    middle = 0.5 * (a + b)
    if not np.all(np.isfinite([fa, sa, fb, sb])):
        return middle
    d1 = sa + sb - 3 * (fa - fb) / (a - b)
    square = d1**2 - sa * sb
    if not square >= 0:
        return middle
    d2 = np.sign(b - a) * np.sqrt(square)
    denominator = sb - sa + 2 * d2
    if denominator == 0:
        return middle
    found = b - (b - a) * (sb + d2 - d1) / denominator
    margin = 0.1 * abs(b - a)
    return float(np.clip(found, min(a, b) + margin, max(a, b) - margin))


class Backtracking(AbstractLineSearch):
    """Shorter and shorter steps until the cost falls enough (Armijo).

    - `decrease`: share of the slope's promise that must be kept; `factor`: of one step to the next.
    """

    decrease: float = 1e-4
    factor: float = 0.5
    tries: int = 20

    def update(self, state, value, slope):
        step, tries = float(state.step), int(state.tries) + 1
        limit = float(state.value) + self.decrease * step * float(state.slope)
        # Where the promise is below rounding the limit is the value itself.
        accepted = bool(np.isfinite(value) and value <= limit and value < state.value)
        done = accepted or tries >= self.tries or _promises_nothing(state)
        here, following = np.array([step, value, slope]), step if done else self.factor * step
        return _after(state, state.low, here, following, True, done, accepted)


class FullStep(AbstractLineSearch):
    """The first step as it is, wherever it leads: one pass over the data for each iteration.

    Only the guard on the cost stands between it and divergence; a step to where the model has no
    value is halved, `tries` times at most.
    """

    tries: int = 20

    def update(self, state, value, slope):
        step, tries = float(state.step), int(state.tries) + 1
        accepted = bool(np.isfinite(value))
        done = accepted or tries >= self.tries
        here, following = np.array([step, value, slope]), step if done else 0.5 * step
        return _after(state, state.low, here, following, True, done, accepted)
