"""Does the model fit? Tests of what it leaves, against the noise that the maps show.

Each test asks whether the residuals of a right model could be such: their mean by lag, by age and
by frame, angle by angle, and their size. Probabilities hold with the parameters fitted: a fit takes
from the residuals what it can follow, and the covariance of what is left has that taken out.
"""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..objective import AbstractLoss, Linear
from .dyadic import ResidualSums, mean_slopes
from .evidence import Evidence
from .structure import Cells, cells_of_map

# Probability, over all tests of a fit together, that a right model is said not to fit.
LEVEL = 0.005
# A probability below this is said to be so.
_RARE = 1e-9
# Directions that a fit has followed all but this part of, in variance, say nothing.
_FOLLOWED = 1e-3
# Independent values below which differences of neighbours do not tell the noise.
_LEAST = 20.0
# Parts of the noise that two estimates may differ by beyond their scatter.
_SLACK = 0.05


class Deviation(NamedTuple):
    """Where the residuals of a fit depart most: `text` says it in words.

    - `low`, `high`: lag [s] or age [s] of the group; `mean`, `error`: of fitted minus measured c2.
    """

    text: str
    low: float
    high: float
    mean: float
    error: float


class MisfitTest(NamedTuple):
    """One test: what was looked at, the probability of as much under a right model, and where."""

    name: str
    statistic: float
    degrees: int
    probability: float
    where: Deviation | None


class Misfit(eqx.Module):
    """All tests of one data set.

    - `noise`: standard deviation of c2 at each angle that its neighbouring entries show.
    - `excess`: variance of the residuals over that of the noise.
    - `sigma_ratio`: absolute sigma over the noise, NaN where sigma is not known.
    - `lags`, `ages`: limits [s] of the steps; `by_lag`, `by_age`: mean residual with its error.
    """

    tests: tuple[MisfitTest, ...] = eqx.field(static=True)
    noise: Float[np.ndarray, "angle"]
    excess: float = eqx.field(static=True)
    sigma_ratio: float = eqx.field(static=True)
    lags: Float[np.ndarray, "lag 2"]
    by_lag: Float[np.ndarray, "lag 2"]
    ages: Float[np.ndarray, "age 2"]
    by_age: Float[np.ndarray, "age 2"]

    def failed(self, level: float = LEVEL) -> tuple[MisfitTest, ...]:
        """The tests that a right model would fail with the probability `level` in all."""
        each = level / max(len(self.tests), 1)
        return tuple(test for test in self.tests if test.probability < each)

    def sentence(self, test: MisfitTest) -> str:
        """What a failed test has found."""
        # Far out, no distribution is known to its digits.
        chance = f"{test.probability:.1g}" if test.probability > _RARE else f"below {_RARE:g}"
        chance = f"a right model leaves as much with a probability of {chance}"
        if test.name == "scale":
            more = "more" if self.excess > 1 else "less"
            return (
                f"the residuals scatter {more} than the maps do: their standard deviation is "
                f"{np.sqrt(self.excess):.3g} times the noise that neighbouring entries show "
                f"({chance})"
            )
        if test.where is None:
            return f"the model does not fit by {test.name} ({chance})"
        return f"the model does not fit: {test.where.text} ({chance})"


class Remains(NamedTuple):
    """What a fit has left of one data set, at each angle, and how it is laid out.

    - `columns`: from columns of an angle to entries of the fit; `factor`: how much larger the noise
        is than the residuals, which the fit has followed.
    """

    evidence: Evidence
    residuals: ResidualSums
    loss: AbstractLoss
    columns: Float[np.ndarray, "angle column entry"]
    factor: Float[np.ndarray, "angle"]

    def with_columns(self, matrix: Float[np.ndarray, "local entry"]) -> "Remains":
        """The same laid out in the entries of a fit of several data sets."""
        return self._replace(columns=self.columns @ matrix)


class _Left(NamedTuple):
    """Sums over cells of all angles, and their covariance with the parameters fitted."""

    sums: np.ndarray  # angle, cell
    weight: np.ndarray  # angle, cell
    covariance: np.ndarray  # angle, angle, cell, cell
    before: np.ndarray  # angle, cell, cell: without the fit


def _left(remains: Remains, pixels, inverse, others, slope, spread) -> _Left:
    """Residual sums over cells.

    With z the sums over cells and u the scores of the fit a right model leaves z − G_z H⁻¹ u, G_z
    the part of the curvature between cells and entries. `others` is the covariance of the scores
    of other data sets.
    """
    structures, columns = remains.evidence.structure, remains.columns
    gram = np.asarray(structures.gram)
    q = columns.shape[1]
    shared = np.asarray(structures.shared) / pixels[:, None, None]
    noise = shared + (np.asarray(structures.own) / pixels)[:, None, None] * gram
    # As `_robust` of the score of the fit: noise common to pairs, and what ψ has by itself.
    noise = slope[:, None, None] ** 2 * noise + spread[:, None, None] * gram
    cross = slope[:, None, None] * gram[:, q:, :q] @ columns @ inverse  # angle, cell, entry
    with_fit = np.swapaxes(columns, 1, 2) @ noise[:, :q, q:]  # angle, entry, cell
    whole = np.sum(np.swapaxes(columns, 1, 2) @ noise[:, :q, :q] @ columns, axis=0) + others
    count = gram.shape[0]
    covariance = np.einsum("ace,ef,bdf->abcd", cross, whole, cross, optimize=True)
    both = np.einsum("ace,bed->abcd", cross, with_fit, optimize=True)
    covariance = covariance - both - np.transpose(both, (1, 0, 3, 2))
    before = noise[:, q:, q:]
    covariance[np.arange(count), np.arange(count)] += before
    return _Left(np.asarray(structures.sums), np.asarray(structures.weight), covariance, before)


def _wald(sums, covariance, before) -> tuple[float, int]:
    """χ² of sums in the directions that the fit has left, and how many these are."""
    size = np.sqrt(np.maximum(np.diagonal(before), 0.0))
    there = size > 0
    if not there.any():
        return 0.0, 0
    size = size[there]
    values, vectors = np.linalg.eigh(covariance[np.ix_(there, there)] / np.outer(size, size))
    kept = values > _FOLLOWED
    turned = vectors[:, kept].T @ (sums[there] / size)
    return float(np.sum(turned**2 / values[kept])), int(kept.sum())


def _probability(statistic: float, degrees: int, known: float) -> float:
    """Of χ² above `statistic` when the size of the noise is worth `known` independent values."""
    from scipy.stats import chi2, f

    if degrees == 0:
        return 1.0
    if not np.isfinite(known):
        return float(chi2.sf(statistic, degrees))
    return float(f.sf(statistic / degrees, degrees, known))


class _Noise(NamedTuple):
    """Number of pixels at each angle, the values it is worth, and log excess with its variance.

    `unknown` is an error of it that all angles have alike.
    """

    pixels: np.ndarray
    known: np.ndarray
    excess: np.ndarray
    variance: np.ndarray
    unknown: np.ndarray


# Beyond its scatter, the expected noise is not better known than this part of it.
_FORMULA = 0.015
# Two estimates of the noise are one while they differ by less than this many of their errors.
_SAME = 4.0


def _noise(evidence: Evidence, factor: np.ndarray, square: np.ndarray, count: np.ndarray) -> _Noise:
    """What neighbours and residuals say of the noise; `factor`: by how much the fit has lowered it.

    Where the two agree both count; else neighbours alone, for a misfit is in the residuals only.
    """
    local, left = np.asarray(evidence.local_count), np.asarray(evidence.residual_count)
    near = np.asarray(evidence.local_pixels)
    far = np.asarray(evidence.variance) * count / np.maximum(square * factor, 1e-300)
    excess = np.log(near / far)
    variance = 2 / local + 2 / left - 4 * np.asarray(evidence.common) / left
    variance = np.maximum(variance, 0.0) + _FORMULA**2
    unknown = np.asarray(evidence.unknown)
    same = np.abs(excess) < _SAME * np.sqrt(variance + unknown**2) + _SLACK
    both = np.exp((local * np.log(near) + left * np.log(far)) / (local + left))
    known = np.where(same, np.maximum(local, left), local)
    return _Noise(np.where(same, both, near), known, excess, variance, unknown)


def _scale_test(noise: _Noise) -> MisfitTest:
    from scipy.stats import chi2

    weight = 1 / noise.variance
    excess = float(np.sum(weight * noise.excess) / np.sum(weight))
    unknown = float(np.sum(weight * noise.unknown) / np.sum(weight))
    degrees = 2 / (float(1 / np.sum(weight)) + unknown**2)
    statistic = degrees * np.exp(min(excess, 100.0))
    tails = chi2.sf(statistic, degrees), chi2.cdf(statistic, degrees)
    probability = min(1.0, 2 * float(min(tails)))
    return MisfitTest("scale", float(np.exp(excess)), 1, probability, None)


def _group_test(
    name, left: _Left, groups, limits, slope, known, kind
) -> tuple[MisfitTest, np.ndarray]:
    """Residuals of all angles by groups of cells, one row of `groups` each: mean and error."""
    sums = groups @ np.sum(left.sums, axis=0)
    covariance = groups @ np.sum(left.covariance, axis=(0, 1)) @ groups.T
    before = groups @ np.sum(left.before, axis=0) @ groups.T
    statistic, degrees = _wald(sums, covariance, before)
    weight = groups @ np.sum(slope[:, None] * left.weight, axis=0)
    unit = np.where(weight > 0, weight, np.nan)
    mean = sums / unit
    error = np.sqrt(np.maximum(np.diagonal(covariance), 0.0)) / unit
    return MisfitTest(
        name,
        statistic,
        degrees,
        _probability(statistic, degrees, float(np.sum(known))),
        _deviation(mean, error, limits, kind, _largest(mean, error)),
    ), np.stack([mean, error], axis=1)


def _largest(mean, error) -> int | None:
    """The group that departs most in units of its error."""
    there = (error > 0) & np.isfinite(mean)
    if not there.any():
        return None
    size = np.zeros(there.size)
    size[there] = np.abs(mean[there]) / error[there]
    return int(np.argmax(size))


def _deviation(mean, error, limits, kind: str, k: int | None) -> Deviation | None:
    """What group `k` does, in words."""
    if k is None:
        return None
    low, high = limits[k]
    side = "above" if mean[k] > 0 else "below"
    text = (
        f"at {kind} {low:.3g}–{high:.3g} s the fit lies {abs(mean[k]):.2g} ± {error[k]:.1g} "
        f"{side} the data"
    )
    return Deviation(text, float(low), float(high), float(mean[k]), float(error[k]))


def _angle_test(left: _Left, cells: Cells, limits, slope, known, phi) -> MisfitTest:
    """The angle whose cells depart most."""
    found = []
    for a in range(left.sums.shape[0]):
        statistic, degrees = _wald(left.sums[a], left.covariance[a, a], left.before[a])
        found.append((_probability(statistic, degrees, float(known[a])), statistic, degrees))
    a = min(range(len(found)), key=lambda k: (found[k][0], -found[k][1]))
    least, statistic, degrees = found[a]
    probability = float(-np.expm1(len(found) * np.log1p(-min(least, 1 - 1e-16))))
    unit = np.where(left.weight[a] > 0, left.weight[a], np.nan) * slope[a]
    error = np.sqrt(np.maximum(np.diagonal(left.covariance[a, a]), 0.0)) / unit
    mean = left.sums[a] / unit
    k = _largest(mean, error)
    where = _deviation(mean, error, limits[0][cells.lag], "lags", k)
    if where is not None:
        low, high = limits[1][cells.age[k]]
        text = f"at φ = {phi[a]:.4g}°, {where.text}, at ages {low:.3g}–{high:.3g} s"
        where = where._replace(text=text)
    return MisfitTest("angle", statistic, degrees, probability, where)


# Effective number of independent values among m second differences, for their mean square.
_STEPS = 1.94


def _frame_test(evidence: Evidence, t: np.ndarray) -> MisfitTest:
    """A frame whose pairs depart from those of its neighbours as no other frame's do."""
    from scipy.stats import t as student

    by_frame, steps = np.asarray(evidence.by_frame), np.asarray(evidence.steps)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = by_frame[:, 0] / by_frame[:, 1]
        jump = np.diff(mean, 2, axis=1) / np.sqrt(np.maximum(steps, 1e-300))
        size = np.nanmedian(np.abs(jump), axis=1, keepdims=True)
        scaled = np.where(size > 0, jump / size, np.nan)
    seen = np.isfinite(scaled)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.nansum(scaled, axis=0) / np.sqrt(seen.sum(axis=0))
    there = np.flatnonzero(np.isfinite(value))
    if there.size < 10:
        return MisfitTest("frame", 0.0, 0, 1.0, None)
    value = value[there]
    rest = np.maximum(np.sum(value**2) - value**2, 1e-300) / (value.size - 1)
    score = np.abs(value) / np.sqrt(rest)
    k = int(np.argmax(score))
    least = 2 * float(student.sf(score[k], value.size / _STEPS))
    probability = float(-np.expm1(value.size * np.log1p(-min(least, 1 - 1e-16))))
    frame = _frame_of(mean, int(there[k]) + 1)
    a = int(np.nanargmax(np.abs(mean[:, frame]))) if np.isfinite(mean[:, frame]).any() else 0
    level = float(mean[a, frame] - np.nanmedian(mean[a]))
    side = "above" if level > 0 else "below"
    text = (
        f"frame {frame} (t = {t[frame]:.4g} s) is unlike its neighbours: on average the fit lies "
        f"{abs(level):.2g} {side} the data in its pairs"
    )
    at = float(t[frame])
    return MisfitTest(
        "frame", float(score[k]), 1, probability, Deviation(text, at, at, level, np.nan)
    )


def _frame_of(mean, centre: int) -> int:
    """The frame that stands out among a centre of differences and its two neighbours."""
    low = max(centre - 3, 0)
    window = mean[:, low : centre + 4]
    away = np.nansum(np.abs(window - np.nanmedian(window, axis=1, keepdims=True)), axis=0)
    return max(range(centre - 1, centre + 2), key=lambda k: away[k - low])


def misfit_of(
    remains: Remains,
    inverse: Float[np.ndarray, "entry entry"],
    t: Float[np.ndarray, "frame"],
    phi: Float[np.ndarray, "angle"],
    absolute_sigma: bool,
    others: Float[np.ndarray, "entry entry"] | float = 0.0,
) -> Misfit | None:
    """Test what a fit has left; None where maps are too small or too sparse to tell their noise.

    **Arguments:**

    - `inverse`: of the curvature of the whole fit, zero for entries on a bound.
    - `t`: frame times [s]; `phi`: azimuths [degrees].
    - `others`: covariance of the scores of other data sets fitted together with this one.
    """
    evidence, residuals = remains.evidence, remains.residuals
    count = np.asarray(residuals.influence.count)
    if not np.all(np.asarray(evidence.local_count) >= _LEAST):
        return None
    weight = np.asarray(residuals.weight)
    square = np.asarray(evidence.square)
    noise = _noise(evidence, remains.factor, square, count)
    if not np.all(np.isfinite(noise.excess)):
        return None
    slope, spread = np.ones(count.size), np.zeros(count.size)
    if not isinstance(remains.loss, Linear):
        slope = mean_slopes(residuals)
        own = np.asarray(residuals.influence.square) - slope**2 * np.asarray(residuals.square)
        spread = own / np.maximum(count, 1.0)
    left = _left(remains, noise.pixels, inverse, others, slope, spread)
    cells, lags, ages = cells_of_map(t)
    by_lag, lag = _group_test(
        "lag", left, cells.lag == np.arange(len(lags))[:, None], lags, slope, noise.known, "lags"
    )
    by_age, age = _group_test(
        "age", left, cells.age == np.arange(len(ages))[:, None], ages, slope, noise.known, "ages"
    )
    by_angle = _angle_test(left, cells, (lags, ages), slope, noise.known, phi)
    # A bad frame is the cause of much of what the others find.
    tests = [_frame_test(evidence, t), by_lag, by_age, by_angle, _scale_test(noise)]
    variance = np.asarray(evidence.variance) / noise.pixels
    ratio = np.nan
    if absolute_sigma:
        ratio = float(np.sqrt(1 / np.mean(variance * weight / count)))
    return Misfit(
        tuple(tests),
        np.sqrt(variance),
        float(np.exp(np.mean(noise.excess))),
        ratio,
        lags,
        lag,
        ages,
        age,
    )
