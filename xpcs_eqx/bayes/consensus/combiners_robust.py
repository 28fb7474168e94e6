"""Consensus that sets shards aside which contradict the others."""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from ...errors import ModelError
from ..modes import bimodality
from .combiners import (
    AbstractCombiner,
    Combined,
    Moments,
    ShardDraws,
    moments_of,
    precisions_of,
    weighted_draws,
)

# Median absolute deviation of the length of a standard normal vector, of two to many entries: what
# shards that differ by chance alone have at least.
_CHANCE = 0.45
# Chance that any of the shards of a run that agree is set aside, whose absence would be felt.
_WRONGLY = 0.01
# Deviations from the median are 0.6745 standard deviations of a Gaussian in the median.
_MEDIAN_SD = 0.6745
# A shard is set aside for two modes only when the dip between them is deep; draws looked at.
_DIP = 0.5
_LOOKED_AT = 500
_COEFFICIENT = 0.4


def typical_covariance(moments: Moments) -> Float[np.ndarray, "entry entry"]:
    """Mean covariance of the middle half of the shards by volume."""
    volume = np.linalg.slogdet(moments.covariances)[1]
    low, high = np.quantile(volume, [0.25, 0.75])
    return moments.covariances[(volume >= low) & (volume <= high)].mean(axis=0)


def outlier_scores(moments: Moments) -> Float[np.ndarray, "shard"]:
    """Modified z-scores of the distance of the mean of each shard from the others."""
    return modified_z_scores(distances(moments), _CHANCE)


def modified_z_scores(
    values: Float[np.ndarray, "shard"], least: float
) -> Float[np.ndarray, "shard"]:
    """Deviations from the median in units of their own median, which is taken as `least` at least.

    The score is that of Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993).
    """
    deviation = values - np.median(values)
    return _MEDIAN_SD * deviation / max(float(np.median(np.abs(deviation))), least)


def improbable(
    moments: Moments, effective: Float[np.ndarray, "shard"]
) -> Bool[np.ndarray, "shard"]:
    """Whether a mean as far from the others is no chance among so many shards.

    By Hotelling's distribution of the squared distance in a covariance known from draws, wider
    where shards differ by more in the median, and Bonferroni's bound. One of many shards that agree
    has a high score as well; left out, it would move the mean of all of them.
    """
    # Not at the top: SciPy takes long to import.
    from scipy.special import fdtrc, fdtri

    size = moments.means.shape[1]
    n = np.maximum(effective, size + 2.0)
    ratio = distances(moments) ** 2 * (n - size) / (size * (n - 1))
    wider = np.median(ratio / fdtri(size, n - size, 0.5))
    return fdtrc(size, n - size, ratio / max(1.0, float(wider))) * len(n) < _WRONGLY


def distances(moments: Moments) -> Float[np.ndarray, "shard"]:
    """Mahalanobis distance of the mean of each shard from the median of all of them.

    In the covariance of the shard itself and of that median: one number for all parameters, so that
    a shard that is off along a correlation counts, and one that knows little does not.
    """
    away = moments.means - np.median(moments.means, axis=0)
    # A median is π/2 times as uncertain as a mean.
    of_median = 0.5 * np.pi / len(away) * typical_covariance(moments)
    inverse = precisions_of(moments.covariances + of_median)
    return np.sqrt(np.einsum("ke,kef,kf->k", away, inverse, away))


def shrunk(
    covariances: Float[np.ndarray, "shard entry entry"], effective: Float[np.ndarray, "shard"]
) -> tuple[Float[np.ndarray, "shard entry entry"], Float[np.ndarray, "shard"]]:
    """Covariances drawn towards their mean by as much as they differ by chance, and how much.

    The share is that of Ledoit and Wolf, J. Multivariate Analysis 88, 365 (2004), with the mean of
    all shards as the target and (p² + p)/n for the chance part in coordinates where it is the unit.
    """
    size = covariances.shape[1]
    target = covariances.mean(axis=0)
    sd = np.sqrt(np.diagonal(target))
    factor = np.linalg.cholesky(target / np.outer(sd, sd)) * sd[:, None]
    inverse = np.linalg.inv(factor)
    white = inverse @ covariances @ inverse.T - np.eye(size)
    found = np.sum(white**2, axis=(1, 2))
    chance = (size**2 + size) / np.maximum(effective, 2.0)
    share = np.minimum(1.0, chance / np.maximum(found, 1e-300))
    return (1 - share)[:, None, None] * covariances + share[:, None, None] * target, share


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


def _two_modes(shards: ShardDraws) -> dict[int, str]:
    """Position and reason of shards with two modes."""
    out = {}
    step = -(-shards.draws.shape[1] // _LOOKED_AT)
    possible = may_be_bimodal(shards.draws)
    for k in np.flatnonzero(possible.any(axis=1)):
        draws = shards.draws[k, ::step]
        found = [bimodality(shards.names[i], draws[:, i]) for i in np.flatnonzero(possible[k])]
        deep = [one.name for one in found if one.bimodal and one.valley < _DIP]
        if deep:
            out[int(k)] = f"two modes in {', '.join(deep)}"
    return out


class RobustConsensus(AbstractCombiner):
    """`ConsensusAverage` of the shards that agree, with covariances shrunk towards their mean.

    Set aside are shards with a modified z-score of their Mahalanobis distance above `limit` that
    chance does not explain among so many, and, as long as they are fewer than half, shards with two
    modes.
    """

    limit: float = eqx.field(static=True, default=3.5)

    def __check_init__(self):
        if not self.limit > 0:
            raise ModelError(f"limit {self.limit} of the modified z-score; it must be above 0")

    def __call__(self, shards, key):
        total = len(shards.numbers)
        reasons, log = _two_modes(shards), []
        if 2 * len(reasons) >= total and reasons:
            log.append(
                f"{len(reasons)} of {total} shards have two modes and are used as they are; "
                "MultimodalConsensus combines modes one by one"
            )
            reasons = {}
        moments = moments_of(shards.draws)
        left = np.array([k for k in range(total) if k not in reasons])
        if left.size > 2:
            here = Moments(*(part[left] for part in moments))
            scores, rare = outlier_scores(here), improbable(here, shards.effective[left])
            for k, score, no_chance in zip(left, scores, rare, strict=True):
                if score > self.limit and no_chance:
                    reasons[int(k)] = (
                        f"its mean is away from the others: modified z-score {score:.1f} of its "
                        f"Mahalanobis distance, above {self.limit:g}"
                    )
        kept = np.array([k for k in range(total) if k not in reasons])
        covariances, share = shrunk(moments.covariances[kept], shards.effective[kept])
        good = shards.only(kept)
        draws = weighted_draws(good.draws, precisions_of(covariances))
        log.append(
            f"precision-weighted average of draws of {kept.size} of {total} shards, covariances "
            f"drawn towards their mean by {100 * np.median(share):.0f} % (median)"
        )
        dropped = tuple((shards.numbers[k], reasons[k]) for k in sorted(reasons))
        log.extend(f"shard {number} set aside: {reason}" for number, reason in dropped)
        return Combined(draws, good.numbers, dropped, tuple(log))
