"""Surfaces that belong to draws: mean, spread and band, one draw at a time."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..physics import correlation_map
from .posterior import Posterior

_SHARE = (0.05, 0.95)


class Predictive(NamedTuple):
    """Posterior of the noise-free c2 at every pair (angle, frame, frame); `draws` went into it.

    `low`, `high`: 5th and 95th percentile.
    """

    mean: Float[np.ndarray, "angle frame frame"]
    sd: Float[np.ndarray, "angle frame frame"]
    low: Float[np.ndarray, "angle frame frame"]
    high: Float[np.ndarray, "angle frame frame"]
    draws: int

    def __repr__(self) -> str:
        shapes = (f"{name}={np.shape(value)}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({', '.join(shapes)})"


@quick_jit
def _surface(density, row, per_angle):
    parameters, term = density.parameters, density.term
    model = parameters.build(density.split(row)[0])
    correlation = correlation_map(model, term.t, term.geometry)
    return per_angle[:, 1, None, None] + per_angle[:, 0, None, None] * correlation


def predictive(posterior: Posterior, draws: int = 200) -> Predictive | dict[str, Predictive]:
    """Mean, standard deviation and 5–95 % band of the surface over evenly chosen draws.

    Of several data sets those of each by its label. Draws are streamed. The tails of each pair are
    kept instead of all draws: memory is that of some 0.1·`draws` surfaces, and the percentiles are
    those of all the draws used.
    """
    if posterior.data_sets:
        return {label: surfaces(part, draws) for label, part in posterior.parts.items()}
    return surfaces(posterior, draws)


def surfaces(posterior: Posterior, draws: int) -> Predictive:
    """`predictive` of one data set."""
    rows = posterior.theta.reshape(-1, posterior.theta.shape[-1])
    scaling = posterior.per_angle.reshape(rows.shape[0], -1, 2)
    count = min(draws, rows.shape[0])
    chosen = np.linspace(0, rows.shape[0] - 1, count).astype(int)
    keep = int(np.floor(_SHARE[0] * (count - 1))) + 2

    def surface_of(i):
        return np.asarray(_surface(posterior.density, rows[i], scaling[i]))

    mean = np.array(surface_of(chosen[0]))
    squares = np.zeros_like(mean)
    low = high = mean[None].copy()
    for k, i in enumerate(chosen[1:], start=2):
        surface = surface_of(i)
        # Welford: no cancellation where the spread is small.
        step = surface - mean
        mean += step / k
        squares += step * (surface - mean)
        low = np.sort(np.concatenate([low, surface[None]]), axis=0)[:keep]
        high = np.sort(np.concatenate([high, surface[None]]), axis=0)[-keep:]
    place = _SHARE[0] * (count - 1)
    whole = int(place)
    share = place - whole

    def between(ordered):
        following = min(whole + 1, ordered.shape[0] - 1)
        return (1 - share) * ordered[whole] + share * ordered[following]

    return Predictive(
        mean, np.sqrt(squares / max(count - 1, 1)), between(low), between(high[::-1]), count
    )
