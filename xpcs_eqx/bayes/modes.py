"""Two modes in the draws of one parameter."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

WEIGHT = 0.2
SEPARATION = 0.5


class Bimodality(NamedTuple):
    """A mixture of two Gaussians fitted to the draws of a parameter.

    `separation` is the distance of the means over the larger of `scale`, the typical size of the
    parameter, and its spread; `valley` the density between the means over the lower of the two.
    """

    name: str
    bimodal: bool
    weights: tuple[float, float]
    means: tuple[float, float]
    sds: tuple[float, float]
    separation: float
    valley: float


def _mixture(x: np.ndarray, start: np.ndarray):
    """Expectation maximisation from two start means."""
    weight, mean = np.array([0.5, 0.5]), start.copy()
    sd = np.full(2, x.std() / 2)
    floor = 1e-3 * x.std()
    for _ in range(300):
        z = (x[:, None] - mean) / sd
        logs = np.log(weight) - np.log(sd) - 0.5 * z**2
        top = logs.max(axis=1, keepdims=True)
        share = np.exp(logs - top)
        share /= share.sum(axis=1, keepdims=True)
        total = share.sum(axis=0) + 1e-300
        new = share.T @ x / total
        sd = np.maximum(np.sqrt((share * (x[:, None] - new) ** 2).sum(axis=0) / total), floor)
        weight = np.clip(total / x.size, 1e-12, 1.0)
        moved = np.max(np.abs(new - mean))
        mean = new
        if moved < 1e-6 * x.std():
            break
    return weight, mean, sd


def bimodality(
    name: str, draws: Float[np.ndarray, "..."], scale: float | None = None
) -> Bimodality:
    """Whether draws of a parameter have two modes.

    Bimodal: both weights at least 0.2, the means at least half of `scale` apart, and a density
    between them that falls below both. Without the last rule every skewed posterior would count.

    - `scale`: by default the standard deviation of the draws.
    """
    x = np.asarray(draws, float).ravel()
    spread = float(x.std())
    if spread == 0 or x.size < 20:
        nothing = (float(x.mean()), float(x.mean()))
        return Bimodality(name, False, (1.0, 0.0), nothing, (0.0, 0.0), 0.0, 1.0)
    weight, mean, sd = _mixture(x, np.quantile(x, [0.15, 0.85]))
    order = np.argsort(mean)
    weight, mean, sd = weight[order], mean[order], sd[order]
    separation = float((mean[1] - mean[0]) / (spread if scale is None else scale))

    def density(at):
        at = np.asarray(at)[:, None]
        return np.sum(weight / sd * np.exp(-0.5 * ((at - mean) / sd) ** 2), axis=1)

    between = density(np.linspace(mean[0], mean[1], 101))
    valley = float(between.min() / min(between[0], between[-1]))
    found = weight.min() >= WEIGHT and separation >= SEPARATION and valley < 0.8

    def pair(values):
        return float(values[0]), float(values[1])

    return Bimodality(name, bool(found), pair(weight), pair(mean), pair(sd), separation, valley)
