"""From the draws of shards to draws of the posterior of all data.

The posterior is the product of those of the shards, each with its part of the prior. All of this
is done in unconstrained coordinates, where posteriors are closest to Gaussian.
"""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ...errors import FitError, ModelError
from ..modes import bimodality

# Shards whose inverse covariances are made at once.
CHUNK = 500


class ShardDraws(NamedTuple):
    """Draws of the shards that succeeded.

    - `draws`: unconstrained coordinates, the same ones for all shards; chains one after the other.
    - `numbers`: which shards these are; `names`: of the entries.
    - `effective`: effective draws of each shard, for its least explored entry.
    """

    draws: Float[np.ndarray, "shard draw entry"]
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    effective: Float[np.ndarray, "shard"]

    def only(self, kept: Int[np.ndarray, "kept"]) -> "ShardDraws":
        """Those at these positions."""
        numbers = tuple(self.numbers[k] for k in kept)
        return ShardDraws(self.draws[kept], numbers, self.names, self.effective[kept])


class Combined(NamedTuple):
    """Draws of the whole posterior.

    - `dropped`: (shard, reason) of those set aside; `used`: the others.
    - `log`: what was done, in sentences.
    """

    draws: Float[np.ndarray, "draw entry"]
    used: tuple[int, ...]
    dropped: tuple[tuple[int, str], ...]
    log: tuple[str, ...]


class Moments(NamedTuple):
    """Means and covariances of shards."""

    means: Float[np.ndarray, "shard entry"]
    covariances: Float[np.ndarray, "shard entry entry"]


def shard_draws(
    draws: Float[np.ndarray, "shard draw entry"],
    names: tuple[str, ...] | None = None,
    effective: Float[np.ndarray, "shard"] | None = None,
    numbers: tuple[int, ...] | None = None,
) -> ShardDraws:
    """Checked draws; by default every draw counts as effective.

    **Raises:** `ModelError` for another shape, for no more draws than entries, for draws that are
    not finite and for an entry that never moves.
    """
    draws = np.asarray(draws)
    if draws.ndim != 3 or draws.shape[0] < 1:
        raise ModelError(f"draws of shards have shape {draws.shape}; give (shard, draw, entry)")
    n_shards, n_draws, size = draws.shape
    if n_draws <= size + 2:
        raise ModelError(f"{n_draws} draws of {size} entries have no covariance; take more draws")
    names = tuple(f"z{i}" for i in range(size)) if names is None else names
    numbers = tuple(range(n_shards)) if numbers is None else numbers
    for number, one in zip(numbers, draws, strict=True):
        if not np.all(np.isfinite(one)):
            raise ModelError(f"draws of shard {number} are not all finite; drop that shard")
        still = np.flatnonzero(np.ptp(one, axis=0) == 0)
        if still.size:
            raise ModelError(f"{names[still[0]]} never moves in shard {number}; drop that shard")
    full = np.full(n_shards, float(n_draws))
    effective = full if effective is None else np.minimum(np.asarray(effective, float), full)
    return ShardDraws(draws, numbers, names, effective)


def moments_of(draws: Float[np.ndarray, "shard draw entry"]) -> Moments:
    """Mean and covariance of each shard, a chunk of shards at a time."""
    means, covariances = [], []
    for low in range(0, draws.shape[0], CHUNK):
        part = np.asarray(draws[low : low + CHUNK])
        mean = part.mean(axis=1)
        centred = part - mean[:, None]
        means.append(mean)
        covariances.append(np.swapaxes(centred, 1, 2) @ centred / (part.shape[1] - 1))
    return Moments(np.concatenate(means), np.concatenate(covariances))


def precisions_of(
    covariances: Float[np.ndarray, "shard entry entry"],
) -> Float[np.ndarray, "shard entry entry"]:
    """Inverse covariances, of entries with unit variance so that units do not matter.

    **Raises:** `FitError` for a covariance without inverse.
    """
    out = np.empty_like(covariances)
    for low in range(0, covariances.shape[0], CHUNK):
        part = covariances[low : low + CHUNK]
        sd = np.sqrt(np.diagonal(part, axis1=1, axis2=2))
        outer = sd[:, :, None] * sd[:, None, :]
        try:
            out[low : low + CHUNK] = np.linalg.inv(part / outer) / outer
        except np.linalg.LinAlgError as error:
            raise FitError(
                "draws of a shard lie in a plane, so that their covariance has no inverse; two "
                "parameters are exactly degenerate: fix one, or narrow a prior"
            ) from error
    return out


def generator_of(key: Key[Array, ""]) -> np.random.Generator:
    """A NumPy generator from a key of JAX."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def weighted_draws(
    draws: Float[np.ndarray, "shard draw entry"],
    precisions: Float[np.ndarray, "shard entry entry"],
) -> Float[np.ndarray, "draw entry"]:
    """(Σ W)⁻¹ Σ W zᵢ over the shards, draw by draw."""
    total = np.zeros(draws.shape[1:])
    for low in range(0, draws.shape[0], CHUNK):
        total += np.einsum("kde,kef->df", draws[low : low + CHUNK], precisions[low : low + CHUNK])
    return np.linalg.solve(precisions.sum(axis=0), total.T).T


def _all_used(shards: ShardDraws, draws: np.ndarray, sentence: str) -> Combined:
    return Combined(draws, shards.numbers, (), (f"{sentence} of {len(shards.numbers)} shards",))


class AbstractCombiner(eqx.Module):
    """How draws of shards become draws of the posterior.

    `of_moments` tells that means and covariances of shards are all that it takes of their draws.
    """

    of_moments: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, shards: ShardDraws, key: Key[Array, ""]) -> Combined:
        """Draws of the whole posterior."""


class ConsensusAverage(AbstractCombiner):
    """Precision-weighted average of draws with full covariances.

    Exact for Gaussian posteriors (Scott et al., Int. J. Management Science and Engineering
    Management 11, 78 (2016)). With few draws for many parameters the variance comes out too small
    by about (entries + 1)/(effective draws), which `RobustConsensus` prevents.
    """

    def __call__(self, shards, key):
        precisions = precisions_of(moments_of(shards.draws).covariances)
        draws = weighted_draws(shards.draws, precisions)
        return _all_used(shards, draws, "precision-weighted average of draws")


class WeightedAverage(AbstractCombiner):
    """Each entry by itself, weighted by its inverse variances: for comparison."""

    def __call__(self, shards, key):
        weights = 1 / np.var(shards.draws, axis=1, ddof=1)
        draws = np.einsum("kde,ke->de", shards.draws, weights / weights.sum(axis=0))
        return _all_used(shards, draws, "average of draws weighted by variances")


class SimpleAverage(AbstractCombiner):
    """Every shard alike: for comparison."""

    def __call__(self, shards, key):
        return _all_used(shards, shards.draws.mean(axis=0), "simple average of draws")


class GaussianProduct(AbstractCombiner):
    """Draws from the product of Gaussians that have the moments of the shards.

    For very many shards: sums of inverse covariances and of means are all that is kept, 500 shards
    at a time, with full matrices. `draws` are made of it.
    """

    draws: int = eqx.field(static=True, default=4000)

    def __check_init__(self):
        if self.draws < 1:
            raise ModelError(f"{self.draws} draws of a product; there must be at least 1")

    def __call__(self, shards, key):
        size = shards.draws.shape[2]
        information, vector = np.zeros((size, size)), np.zeros(size)
        for low in range(0, shards.draws.shape[0], CHUNK):
            means, covariances = moments_of(shards.draws[low : low + CHUNK])
            # The mean of an inverse of sample covariances is larger than the inverse itself.
            n = shards.effective[low : low + CHUNK]
            unbiased = np.maximum((n - size - 2) / (n - 1), 0.1)
            precisions = precisions_of(covariances) * unbiased[:, None, None]
            information += precisions.sum(axis=0)
            vector += np.einsum("kef,kf->e", precisions, means)
        draws = gaussian(information, vector, self.draws, generator_of(key))
        return _all_used(shards, draws, "product of Gaussians with the moments")


def gaussian(
    information: Float[np.ndarray, "entry entry"],
    vector: Float[np.ndarray, "entry"],
    count: int,
    generator: np.random.Generator,
) -> Float[np.ndarray, "draw entry"]:
    """Draws of the Gaussian with precision Λ and mean Λ⁻¹·vector."""
    sd = 1 / np.sqrt(np.diagonal(information))
    factor = np.linalg.cholesky(information * np.outer(sd, sd))
    mean = np.linalg.solve(information * np.outer(sd, sd), vector * sd)
    normal = generator.standard_normal((information.shape[0], count))
    return sd * (mean + np.linalg.solve(factor.T, normal).T)


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
