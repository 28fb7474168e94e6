"""From the draws of shards to draws of the posterior of all data.

The posterior is the product of those of the shards, each with its part of the prior. All of this
is done in unconstrained coordinates, where posteriors are closest to Gaussian.
"""

from abc import abstractmethod
from typing import Annotated, ClassVar, NamedTuple, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ...arguments import Count, Within, check_fields
from ...errors import FitError, ModelError
from ..modes import Mixture, mixture_of, modes_of_shards

PerShard: TypeAlias = Float[np.ndarray, "shard"]
Matrices: TypeAlias = Float[np.ndarray, "shard entry entry"]


class ShardDraws(NamedTuple):
    """Draws of the shards that succeeded.

    - `draws`: unconstrained coordinates, the same ones for all shards; chains one after the other.
    - `numbers`: which shards these are; `names`: of the entries.
    - `effective`: effective draws of each shard, for its least explored entry.
    """

    draws: Float[np.ndarray, "shard draw entry"]
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    effective: PerShard

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
    covariances: Matrices


def shard_draws(
    draws: Float[np.ndarray, "shard draw entry"],
    names: tuple[str, ...] | None = None,
    effective: PerShard | None = None,
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
    """Mean and covariance of each shard."""
    covariances = np.stack([np.atleast_2d(np.cov(one.T)) for one in draws])
    return Moments(draws.mean(axis=1), covariances)


def precisions_of(covariances: Matrices) -> Matrices:
    """Inverse covariances, of entries with unit variance so that units do not matter.

    **Raises:** `FitError` for a covariance without inverse.
    """
    sd = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    outer = sd[:, :, None] * sd[:, None, :]
    try:
        return np.linalg.inv(covariances / outer) / outer
    except np.linalg.LinAlgError as error:
        raise FitError(
            "draws of a shard lie in a plane, so that their covariance has no inverse; two "
            "parameters are exactly degenerate: fix one, or narrow a prior"
        ) from error


def generator_of(key: Key[Array, ""]) -> np.random.Generator:
    """A NumPy generator from a key of JAX."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def weighted_draws(
    draws: Float[np.ndarray, "shard draw entry"], precisions: Matrices
) -> Float[np.ndarray, "draw entry"]:
    """(Σ W)⁻¹ Σ W zᵢ over the shards, draw by draw."""
    total = np.einsum("kde,kef->df", draws, precisions)
    return np.linalg.solve(precisions.sum(axis=0), total.T).T


def _all_used(shards: ShardDraws, draws: np.ndarray, sentence: str) -> Combined:
    return Combined(draws, shards.numbers, (), (f"{sentence} of {len(shards.numbers)} shards",))


class AbstractCombiner(eqx.Module):
    """How draws of shards become draws of the posterior.

    `of_moments` tells that means and covariances of shards are all that it takes of their draws.
    """

    of_moments: ClassVar[bool] = True

    __check_init__ = check_fields

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

    For very many shards: their means and covariances are all that is kept of them. `draws` are made
    of it, with full matrices.
    """

    draws: Count = eqx.field(static=True, default=4000)

    def __call__(self, shards, key):
        size, n = shards.draws.shape[2], shards.effective
        means, covariances = moments_of(shards.draws)
        # The mean of an inverse of sample covariances is larger than the inverse itself.
        unbiased = np.maximum((n - size - 2) / (n - 1), 0.1)
        precisions = precisions_of(covariances) * unbiased[:, None, None]
        information = precisions.sum(axis=0)
        vector = np.einsum("kef,kf->e", precisions, means)
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


def outlier_scores(moments: Moments) -> PerShard:
    """Modified z-scores of the distance of the mean of each shard from the others."""
    return modified_z_scores(distances(moments), _CHANCE)


def modified_z_scores(values: PerShard, least: float) -> PerShard:
    """Deviations from the median in units of their own median, which is taken as `least` at least.

    The score is that of Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993).
    """
    deviation = values - np.median(values)
    return _MEDIAN_SD * deviation / max(float(np.median(np.abs(deviation))), least)


def improbable(moments: Moments, effective: PerShard) -> Bool[np.ndarray, "shard"]:
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


def distances(moments: Moments) -> PerShard:
    """Mahalanobis distance of the mean of each shard from the median of all of them.

    In the covariance of the shard itself and of that median: one number for all parameters, so that
    a shard that is off along a correlation counts, and one that knows little does not.
    """
    means, covariances = moments
    away = means - np.median(means, axis=0)
    # Typical is the covariance of the middle half of the shards by volume; a median is π/2 times as
    # uncertain as a mean.
    volume = np.linalg.slogdet(covariances)[1]
    low, high = np.quantile(volume, [0.25, 0.75])
    typical = covariances[(volume >= low) & (volume <= high)].mean(axis=0)
    inverse = precisions_of(covariances + 0.5 * np.pi / len(away) * typical)
    return np.sqrt(np.einsum("ke,kef,kf->k", away, inverse, away))


def shrunk(covariances: Matrices, effective: PerShard) -> tuple[Matrices, PerShard]:
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


def _two_modes(shards: ShardDraws) -> dict[int, str]:
    """Position and reason of shards with two modes."""
    step = -(-shards.draws.shape[1] // _LOOKED_AT)
    out = {}
    for k, found in modes_of_shards(shards.draws, shards.names, step).items():
        deep = [name for name, one in found.items() if one.valley < _DIP]
        if deep:
            out[k] = f"two modes in {', '.join(deep)}"
    return out


class RobustConsensus(AbstractCombiner):
    """`ConsensusAverage` of the shards that agree, with covariances shrunk towards their mean.

    Set aside are shards with a modified z-score of their Mahalanobis distance above `limit` that
    chance does not explain among so many, and, as long as they are fewer than half, shards with two
    modes.
    """

    limit: Annotated[float, Within(gt=0, finite=False)] = eqx.field(static=True, default=3.5)

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


def matched(
    mixtures: list[Mixture], scale: Float[np.ndarray, "entry"]
) -> tuple[list[np.ndarray], int]:
    """The common mode each mode of each shard belongs to, and the number of common modes.

    A mode is a point in all parameters together: modes of a shard are assigned one to one so that
    the sum of their distances is smallest.
    """
    # Not at the top: SciPy takes long to import.
    from scipy.optimize import linear_sum_assignment

    richest = max(mixtures, key=lambda m: m.weights.size)
    centres = richest.means / scale
    assigned: list[np.ndarray] = []
    for _ in range(10):
        assigned = []
        for mixture in mixtures:
            gaps = (mixture.means / scale)[:, None] - centres
            assigned.append(linear_sum_assignment(np.sum(gaps**2, axis=2))[1])
        pooled = [[] for _ in centres]
        for mixture, modes in zip(mixtures, assigned, strict=True):
            for mean, mode in zip(mixture.means, modes, strict=True):
                pooled[mode].append(mean / scale)
        moved = np.stack(
            [np.mean(p, axis=0) if p else c for p, c in zip(pooled, centres, strict=True)]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return assigned, len(centres)


def _log_product(means, precisions) -> tuple[np.ndarray, np.ndarray, float]:
    """Precision, precision times mean and ln of the integral of a product of Gaussians."""
    information = precisions.sum(axis=0)
    each = np.einsum("kef,kf->ke", precisions, means)
    vector = each.sum(axis=0)
    log_dets = np.linalg.slogdet(precisions)[1].sum() - np.linalg.slogdet(information)[1]
    squares = np.sum(means * each) - vector @ np.linalg.solve(information, vector)
    constant = (len(means) - 1) * means.shape[1] * np.log(2 * np.pi)
    return information, vector, 0.5 * float(log_dets - squares - constant)


class MultimodalConsensus(AbstractCombiner):
    """Product of mixtures of Gaussians, mode by mode.

    Each shard is described by up to `modes` Gaussians; those of different shards are matched in all
    parameters jointly. A common mode is the product of its Gaussians and weighs as much as that
    product integrates to, weights included; products across different modes are left out, which is
    right when the modes do not overlap. A mode in fewer than half of the shards is dropped; a shard
    without a mode has it with the mean shape and the weight of less than one draw.
    """

    of_moments: ClassVar[bool] = False
    modes: Count = eqx.field(static=True, default=2)
    draws: Count = eqx.field(static=True, default=4000)

    def __call__(self, shards, key):
        generator = generator_of(key)
        mixtures = [mixture_of(draws, self.modes, generator) for draws in shards.draws]
        covariances = np.concatenate([m.covariances for m in mixtures])
        scale = np.sqrt(np.mean(np.diagonal(covariances, axis1=1, axis2=2), axis=0))
        assigned, count = matched(mixtures, scale)
        total, log, products = len(mixtures), [], []
        for mode in range(count):
            having = [k for k, modes in enumerate(assigned) if mode in modes]
            if 2 * len(having) < total:
                log.append(f"mode {mode} dropped: {len(having)} of {total} shards have it")
                continue
            at = {k: int(np.flatnonzero(assigned[k] == mode)[0]) for k in having}
            means = np.stack([mixtures[k].means[at[k]] for k in having])
            covs = np.stack([mixtures[k].covariances[at[k]] for k in having])
            weights = [np.log(mixtures[k].weights[at[k]]) for k in having]
            missing = total - len(having)
            if missing:
                # In the place and shape that the others give it.
                means = np.concatenate([means, np.repeat(means.mean(0)[None], missing, 0)])
                covs = np.concatenate([covs, np.repeat(covs.mean(0)[None], missing, 0)])
                weights += [-np.log(shards.draws.shape[1] + 1.0)] * missing
            information, vector, product = _log_product(means, precisions_of(covs))
            products.append((information, vector, product + float(np.sum(weights)), len(having)))
        logs = np.array([product[2] for product in products])
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        numbers = generator.multinomial(self.draws, weights)
        parts = [
            gaussian(product[0], product[1], int(n), generator)
            for product, n in zip(products, numbers, strict=True)
        ]
        log.extend(
            f"a mode of {product[3]} of {total} shards with weight {weight:.3g}"
            for product, weight in zip(products, weights, strict=True)
        )
        draws = generator.permutation(np.concatenate(parts))
        return Combined(draws, shards.numbers, (), tuple(log))
