"""Several modes in draws: of one parameter, of all of them together, and in shards."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

# A mode weighs at least this much, and two of one parameter are apart by half its spread.
WEIGHT = 0.2
SEPARATION = 0.5
# Distance of two modes in standard deviations along the line between them (Ashman et al.,
# Astronomical Journal 108, 2348 (1994)).
_APART = 2.5
_STARTS = 4
_COEFFICIENT = 0.4


class Mixture(NamedTuple):
    """Gaussians that together describe the draws of a shard."""

    weights: Float[np.ndarray, "mode"]
    means: Float[np.ndarray, "mode entry"]
    covariances: Float[np.ndarray, "mode entry entry"]


def _log_gaussian(draws, mean, covariance):
    log_det = np.linalg.slogdet(covariance)[1]
    away = draws - mean
    squares = np.sum(away * np.linalg.solve(covariance, away.T).T, axis=1)
    return -0.5 * (squares + log_det + draws.shape[1] * np.log(2 * np.pi))


def _maximised(
    draws: Float[np.ndarray, "draw entry"],
    mixture: Mixture,
    ridge: Float[np.ndarray, "entry entry"],
    rounds: int,
) -> tuple[Mixture, float]:
    """Expectation maximisation in at most so many rounds; the mixture and its log likelihood.

    `ridge` is added to every covariance, so that no mode shrinks to a draw.
    """
    before = -np.inf
    for _ in range(rounds):
        logs = np.log(mixture.weights) + np.stack(
            [_log_gaussian(draws, *pair) for pair in zip(*mixture[1:], strict=True)], axis=1
        )
        top = logs.max(axis=1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(logs - top).sum(axis=1))
        likelihood = float(total.sum())
        if likelihood - before < 1e-4:
            break
        before = likelihood
        share = np.exp(logs - total[:, None])
        count = share.sum(axis=0) + 1e-12
        means = share.T @ draws / count[:, None]
        covariances = np.stack(
            [
                (share[:, m, None] * (draws - mean)).T @ (draws - mean) / count[m] + ridge
                for m, mean in enumerate(means)
            ]
        )
        mixture = Mixture(count / count.sum(), means, covariances)
    return mixture, before


def separated(mixture: Mixture) -> bool:
    """Whether all modes weigh at least 0.2 and each two are apart by 2.5 standard deviations."""
    if mixture.weights.min() < WEIGHT:
        return False
    modes = zip(mixture.means, mixture.covariances, strict=True)
    for (mean, covariance), (other, around) in itertools.combinations(modes, 2):
        line = mean - other
        length = line @ line
        along = line @ (covariance + around) @ line
        if length == 0 or np.sqrt(2) * length < _APART * np.sqrt(along):
            return False
    return True


def mixture_of(
    draws: Float[np.ndarray, "draw entry"], most: int, generator: np.random.Generator
) -> Mixture:
    """The mixture of the largest number of separated modes, `most` of them at most."""
    mean, covariance = draws.mean(axis=0), np.atleast_2d(np.cov(draws.T))
    one = Mixture(np.ones(1), mean[None], covariance[None])
    ridge = 1e-6 * np.diag(np.diagonal(covariance))
    white = (draws - mean) / np.sqrt(np.diagonal(covariance))
    for modes in range(most, 1, -1):
        found = []
        for _ in range(_STARTS):
            # Far from those chosen so far, each in turn.
            chosen = [int(generator.integers(len(draws)))]
            for _ in range(modes - 1):
                gaps = [np.sum((white - white[c]) ** 2, axis=1) for c in chosen]
                nearest = np.min(gaps, axis=0)
                chosen.append(int(generator.choice(len(draws), p=nearest / nearest.sum())))
            begin = Mixture(
                np.full(modes, 1 / modes),
                draws[chosen],
                np.repeat(covariance[None] / modes**2, modes, axis=0),
            )
            found.append(_maximised(draws, begin, ridge, 100))
        best = max(found, key=lambda pair: pair[1])[0]
        if separated(best):
            return best
    return one


class Bimodality(NamedTuple):
    """A mixture of two Gaussians fitted to the draws of a parameter.

    `separation` is the distance of the means over the larger of `scale`, the typical size of the
    parameter, and its spread; `valley` the density between the means over the lower of the two.
    """

    name: str
    bimodal: bool
    weights: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]
    separation: float
    valley: float


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
    start = Mixture(
        np.array([0.5, 0.5]),
        np.quantile(x, [0.15, 0.85])[:, None],
        np.full((2, 1, 1), spread**2 / 4),
    )
    mixture, _ = _maximised(x[:, None], start, np.full((1, 1), 1e-6 * spread**2), 300)
    order = np.argsort(mixture.means[:, 0])
    weight, mean = mixture.weights[order], mixture.means[order, 0]
    sd = np.sqrt(mixture.covariances[order, 0, 0])
    separation = float((mean[1] - mean[0]) / (spread if scale is None else scale))

    def density(at):
        at = np.asarray(at)[:, None]
        return np.sum(weight / sd * np.exp(-0.5 * ((at - mean) / sd) ** 2), axis=1)

    between = density(np.linspace(mean[0], mean[1], 101))
    valley = float(between.min() / min(between[0], between[-1]))
    found = weight.min() >= WEIGHT and separation >= SEPARATION and valley < 0.8
    weights, means, sds = (tuple(column.tolist()) for column in (weight, mean, sd))
    return Bimodality(name, bool(found), weights, means, sds, separation, valley)


def may_be_bimodal(draws: Float[np.ndarray, "shard draw entry"]) -> Bool[np.ndarray, "shard entry"]:
    """Whether (skewness² + 1)/kurtosis leaves room for two modes.

    It is 1/3 for a Gaussian and 1 for two points (Ellison, American Journal of Botany 74, 1280
    (1987)). Where there cannot be a dip this spares the fit of a mixture, which takes long.
    """
    away = draws - draws.mean(axis=1, keepdims=True)
    square = away * away
    variance = square.mean(axis=1)
    skewness2 = (square * away).mean(axis=1) ** 2 / variance**3
    kurtosis = (square * square).mean(axis=1) / variance**2
    return (skewness2 + 1) / kurtosis > _COEFFICIENT


def modes_of_shards(
    draws: Float[np.ndarray, "shard draw entry"], names: tuple[str, ...], step: int = 1
) -> dict[int, dict[str, Bimodality]]:
    """Position of every shard with two modes in a parameter, and these by parameter.

    Where there may be two, each `step`-th draw is looked at.
    """
    possible = may_be_bimodal(draws)
    found: dict[int, dict[str, Bimodality]] = {}
    for k in np.flatnonzero(possible.any(axis=1)):
        each = [
            bimodality(name, draws[k, ::step, i]) for i, name in enumerate(names) if possible[k, i]
        ]
        if two := {one.name: one for one in each if one.bimodal}:
            found[int(k)] = two
    return found
