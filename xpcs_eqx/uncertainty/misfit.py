"""Does the model fit? Tests of what it leaves, against the noise that the maps show.

Each test asks whether the residuals of a right model could be such: their mean by lag, by age and
by frame, angle by angle, and their size. Probabilities hold with the parameters fitted: a fit takes
from the residuals what it can follow, and the covariance of what is left has that taken out.
"""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..objective import AbstractLoss, TwoTimeTerm
from ..showing import RARE, counts_frames, per_frame, with_error
from .dyadic import ResidualSums, mean_slopes, robust_noise, summed
from .evidence import Evidence
from .local_noise import Scatter, scatter_of
from .structure import Cells, limits_of
from .uncertainty import whitening

# Probability, over all tests of a fit together, that a right model is said not to fit.
LEVEL = 0.005
# Directions that a fit has followed all but this part of, in variance, say nothing.
_FOLLOWED = 1e-3
# Columns and cells closer to combinations of the others than this, in variance, are left out, and
# the residuals keep at least this part of their scatter.
_DISTINCT, _LEFT = 1e-4, 0.01
# Independent values below which differences of neighbours do not tell the noise.
_LEAST = 20.0
# Parts of the noise that two estimates may differ by beyond their scatter.
_SLACK = 0.05


class Deviation(NamedTuple):
    """Where the residuals of a fit depart most: `text` says it in words.

    - `low`, `high`: lag [s] or age [s] of the group, or the angle [°] of a map, NaN where
        it is not known.
    - `mean`, `error`: of fitted minus measured c2, NaN where that says nothing.
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
        chance = f"of {test.probability:.1g}" if test.probability > RARE else f"below {RARE:g}"
        chance = f"a right model leaves as much with a probability {chance}"
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


def _between(kind: str, low: float, high: float) -> str:
    """Where some lags or ages are, in words; a single one is called so."""
    first, last = f"{low:.3g}", f"{high:.3g}"
    return f"at {kind} {first}–{last} s" if first != last else f"at the {kind[:-1]} {first} s"


class Remains(NamedTuple):
    """What a fit has left of one data set, at each angle, and how it is laid out.

    - `columns`: from columns of an angle to entries of the fit; `factor`: how much larger the noise
        is than the residuals, which the fit has followed; `powers`: Σ λᵐ over (Σ λ)ᵐ of the
        noise for m = 2, 3, 4, λ being eigenvalues of the covariance of residuals.
    - `followed`: whether it is least squares that made them small. What is left by a more precise
        fit is the noise all but whole; tests that take it for that err on the side of silence.
    """

    evidence: Evidence
    residuals: ResidualSums
    loss: AbstractLoss
    columns: Float[np.ndarray, "angle column entry"]
    factor: Float[np.ndarray, "angle"]
    powers: Float[np.ndarray, "angle 3"]
    followed: bool = True

    def with_columns(self, matrix: Float[np.ndarray, "local entry"]) -> "Remains":
        """The same laid out in the entries of a fit of several data sets."""
        return self._replace(columns=self.columns @ matrix)


def powers_left(
    evidence: Evidence,
    residuals: ResidualSums,
    columns: Float[np.ndarray, "angle column entry"],
    inverse: Float[np.ndarray, "entry entry"],
    pixels: Float[np.ndarray, "angle"],
) -> Float[np.ndarray, "angle 3"]:
    """Σ λᵐ over (Σ λ)ᵐ of the noise at each angle for m = 2, 3, 4, λ being of what a fit leaves."""
    structures, q, by = evidence.structure, columns.shape[1], pixels[:, None, None]
    gram = np.asarray(structures.gram)
    own = np.asarray(structures.own)[:, None, None] * gram
    noise, gaussian = (
        (np.asarray(structures.shared) + own) / by,
        np.asarray(structures.gaussian) / by,
    )
    kept = inverse @ summed(columns, noise[:, :q, :q]) @ inverse
    total = np.asarray(residuals.weight) * np.asarray(evidence.variance) / pixels
    powers = np.array(evidence.powers)
    for a, (c, g, b) in enumerate(zip(columns, gram, noise, strict=True)):
        followed = g[:, :q] @ c
        through = followed @ inverse @ c.T @ b[:q]
        left = b - through - through.T + followed @ kept @ followed.T
        unit = np.sqrt(np.diagonal(g))
        there = unit > 0
        root = whitening(g[np.ix_(there, there)], unit[there], lambda values: values > _DISTINCT)
        root = root / np.sqrt(max(total[a], 1e-300))
        after, before = (root @ one[np.ix_(there, there)] @ root.T for one in (left, gaussian[a]))
        for sign, one in ((1, after), (-1, before)):
            two = one @ one
            powers[a] += sign * np.array([np.sum(one**2), np.sum(two * one), np.sum(two**2)])
    # What is known of it is of sums over cells: elsewhere a part is left whatever they say.
    return np.maximum(powers, _LEFT * np.asarray(evidence.powers))


class _Left(NamedTuple):
    """Sums of all angles, and their covariance with the parameters fitted.

    - `weight`: Σ w E[ψ′] J², by which a mean residual is multiplied in a sum over a cell, where J
        is one; `before`: the covariance without the fit.
    """

    sums: Float[np.ndarray, "angle sum"]
    weight: Float[np.ndarray, "angle sum"]
    covariance: Float[np.ndarray, "angle angle sum sum"]
    before: Float[np.ndarray, "angle sum sum"]


def _left(remains: Remains, pixels, inverse, others) -> tuple[_Left, _Left]:
    """Residual sums over cells, and scores of the columns of the fit, angle by angle.

    With z such sums and u the scores of the fit a right model leaves z − G_z H⁻¹ u, G_z the part of
    the curvature between them and entries. `others` is the covariance of the scores of other data
    sets.
    """
    structures, columns = remains.evidence.structure, remains.columns
    gram = np.asarray(structures.gram)
    q = columns.shape[1]
    slope = mean_slopes(remains.loss, remains.residuals)
    own = np.asarray(structures.own)[:, None, None] * gram
    noise = (np.asarray(structures.shared) + own) / pixels[:, None, None]
    noise = robust_noise(remains.loss, remains.residuals, noise, gram)
    whole = summed(columns, noise[:, :q, :q]) + others

    def part(sums, of: slice) -> _Left:
        cross = slope[:, None, None] * gram[:, of, :q] @ columns @ inverse  # angle, sum, entry
        with_fit = np.swapaxes(columns, 1, 2) @ noise[:, :q, of]  # angle, entry, sum
        count = gram.shape[0]
        covariance = np.einsum("ace,ef,bdf->abcd", cross, whole, cross, optimize=True)
        both = np.einsum("ace,bed->abcd", cross, with_fit, optimize=True)
        covariance = covariance - both - np.transpose(both, (1, 0, 3, 2))
        before = noise[:, of, of]
        covariance[np.arange(count), np.arange(count)] += before
        weight = slope[:, None] * np.diagonal(gram, axis1=1, axis2=2)[:, of]
        return _Left(np.asarray(sums), weight, covariance, before)

    return part(structures.sums, slice(q, None)), part(structures.scores, slice(0, q))


class Tested(NamedTuple):
    """χ² of sums in the directions that the fit has left, and the mean residual of each group."""

    statistic: float
    degrees: int
    probability: float
    mean: Float[np.ndarray, "group"]
    error: Float[np.ndarray, "group"]

    @property
    def largest(self) -> int | None:
        """The group that departs most in units of its error."""
        there = (self.error > 0) & np.isfinite(self.mean)
        if not there.any():
            return None
        size = np.zeros(there.size)
        size[there] = np.abs(self.mean[there]) / self.error[there]
        return int(np.argmax(size))

    def deviation(self, limits, kind: str) -> Deviation | None:
        """What that group does, in words."""
        k = self.largest
        if k is None:
            return None
        (low, high), mean, error = limits[k], self.mean[k], self.error[k]
        side = "above" if mean > 0 else "below"
        text = (
            f"{_between(kind, low, high)} the fit lies {with_error(abs(mean), error)} {side} the "
            "data"
        )
        return Deviation(text, float(low), float(high), float(mean), float(error))


class NoiseSize(NamedTuple):
    """How well the variance of the noise is known by which sums are measured.

    - `scatter`, `bias`: variance and mean of the log of what was found over what it is.
    - `shared`: its covariance with the log of χ² of sums, for sums whose variance is their weight:
        residuals that make a sum large make the noise look larger.
    """

    scatter: float
    bias: float
    shared: float


def zero_test(sums, weight, covariance, before, size: NoiseSize) -> Tested:
    """Test that sums are zero, by a noise which is as well known as `size` says."""
    # Not `scipy.stats`, which takes a second to import.
    from scipy.special import chdtrc, fdtrc

    unit = np.sqrt(np.maximum(np.diagonal(before), 0.0))
    there = unit > 0
    root = np.zeros((0, 0))
    if there.any():
        block = covariance[np.ix_(there, there)]
        root = whitening(block, unit[there], lambda values: values > _FOLLOWED)
    degrees = root.shape[0]
    statistic, probability = 0.0, 1.0
    if degrees:
        turned = root @ sums[there]
        statistic = float(turned @ turned)
        # The variance of the log of χ² over the noise found, beyond that of χ² alone.
        shared = size.shared * float(np.mean(unit[there] ** 2 / weight[there]))
        beyond = size.scatter - 2 * shared
        mean = np.exp(0.5 * size.scatter - size.bias - shared)
        value = statistic / degrees / mean
        if beyond > 0:
            known = 2 / beyond
            probability = float(fdtrc(degrees, known, value * np.exp(beyond)))
        else:
            many = 2 / (2 / degrees + beyond)
            probability = float(chdtrc(many, many * value))
    per_weight = np.where(weight > 0, weight, np.nan)
    error = np.sqrt(np.maximum(np.diagonal(covariance), 0.0)) / per_weight
    return Tested(statistic, degrees, probability, sums / per_weight, error)


def _of_least(least: float, count: int) -> float:
    """Probability that the least of `count` independent probabilities is as small as this."""
    return float(-np.expm1(count * np.log1p(-min(least, 1 - 1e-16))))


class _Noise(NamedTuple):
    """Number of pixels at each angle, how well it is known, and log excess.

    `mean`, `variance`, `third` and `fourth` are cumulants of that for a right model; `unknown` is
    an error of it that all angles have alike.
    """

    pixels: np.ndarray
    sizes: list[NoiseSize]
    excess: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    third: np.ndarray
    fourth: np.ndarray
    unknown: np.ndarray


# Beyond its scatter, the expected noise is not better known than this part of it, where it is not
# white.
_FORMULA = 0.015
# Excess kurtosis up to which an expansion of a probability by cumulants rises.
_TAILS = 4.0
# Two estimates of the noise are one while they differ by less than this many of their errors.
_SAME = 4.0


def _noise(remains: Remains, scatter: Scatter) -> _Noise:
    """What neighbours and residuals say of the noise.

    Where the two agree both count; else neighbours alone, for a misfit is in the residuals only.
    """
    evidence, factor = remains.evidence, remains.factor
    count = np.asarray(remains.residuals.influence.count)
    near = np.asarray(evidence.local_pixels)
    square = np.maximum(np.asarray(evidence.square) * factor, 1e-300)
    far = np.asarray(evidence.variance) * count / square
    # Variances of the two logs, and their covariance.
    of_near, of_far = scatter.own, 2 * factor**2 * remains.powers[:, 0]
    both = np.minimum(factor * scatter.shared, np.sqrt(of_near * of_far))
    variance = np.maximum(of_near + of_far - 2 * both, 0.0)
    third, fourth = _of_logs(remains, scatter, of_near, of_far, both)
    excess = np.log(near / far)
    # To first order, which says nothing of a size that is hardly known.
    mean = 0.5 * (np.minimum(of_near, 1.0) - np.minimum(of_far, 1.0))
    variance = variance + (_FORMULA * np.clip(1 - np.asarray(evidence.common), 0.0, 1.0)) ** 2
    unknown = np.asarray(evidence.unknown)
    same = np.abs(excess - mean) < _SAME * np.sqrt(variance + unknown**2) + _SLACK
    share = np.where(same, of_near / (of_near + of_far), 0.0)
    pixels = np.exp((1 - share) * np.log(near) + share * np.log(far))
    known = (1 - share) ** 2 * of_near + share**2 * of_far + 2 * share * (1 - share) * both
    bias = -0.5 * ((1 - share) * of_near + share * of_far)
    total = np.asarray(remains.residuals.weight) * np.asarray(evidence.variance) / pixels
    shared = 2 * share * factor / np.maximum(total, 1e-300)
    sizes = [NoiseSize(*map(float, one)) for one in zip(known, bias, shared, strict=True)]
    return _Noise(pixels, sizes, excess, mean, variance, third, fourth, unknown)


def _of_logs(
    remains: Remains, scatter: Scatter, of_near, of_far, both
) -> tuple[np.ndarray, np.ndarray]:
    """Third and fourth cumulants of log r − log d, from those of r and d, both with a mean of one.

    With u = r − d and w = r + d it is u − uw/2 + uw²/4 + u³/12, whose cumulants follow to the order
    at which they begin (McCullagh, Tensor Methods in Statistics, 1987, ch. 3).
    """
    factor = remains.factor
    ddd, ddr, drr = scatter.third * factor ** np.arange(3)[:, None]
    dddd, dddr, ddrr, drrr = scatter.fourth * factor ** np.arange(4)[:, None]
    _, cubes, fourths = remains.powers.T
    rrr, rrrr = 8 * factor**3 * cubes, 48 * factor**4 * fourths
    uu, uw, ww = of_far + of_near - 2 * both, of_far - of_near, of_far + of_near + 2 * both
    uuu, uuw = rrr - 3 * drr + 3 * ddr - ddd, rrr - drr - ddr + ddd
    uuuu = rrrr - 4 * drrr + 6 * ddrr - 4 * dddr + dddd
    fourth = uuuu - 6 * uw * uuu - 6 * uu * uuw + 15 * uw**2 * uu + 3 * uu**2 * ww + 2 * uu**3
    return uuu - 3 * uu * uw, fourth


def _mean_of(sizes: list[NoiseSize]) -> NoiseSize:
    """That of sums over all angles, whose noise is found one by one."""
    return NoiseSize(*(np.mean(sizes, axis=0) / len(sizes)).tolist())


def _scale_test(noise: _Noise) -> MisfitTest:
    """Whether residuals and differences of neighbours show the same noise.

    A sum of squares has a few large parts where pairs share their noise, so that its log is skew
    and has long tails: a normal variable with the same value of the expansion by four cumulants of
    Cornish & Fisher (Revue de l'Institut International de Statistique 5, 307 (1938)) is as rare.
    """
    from scipy.special import ndtr

    weight = 1 / noise.variance
    excess, mean = (
        float(np.sum(weight * one) / np.sum(weight)) for one in (noise.excess, noise.mean)
    )
    unknown = float(np.sum(weight * noise.unknown) / np.sum(weight))
    scatter = np.sqrt(1 / np.sum(weight) + unknown**2)
    part = weight / np.sum(weight) / scatter
    # Of maps all but empty these may not exist.
    third, fourth = map(np.nan_to_num, (noise.third, noise.fourth))
    skew = np.clip(np.sum(part**3 * third), -1.0, 1.0)
    # From that of a gamma variable on the expansion rises wherever it matters.
    tails = np.clip(np.sum(part**4 * fourth), 1.5 * skew**2, _TAILS)
    rest = -skew / 6 - (excess - mean) / scatter
    cubic = [tails / 24 - skew**2 / 18, skew / 6, 1 - tails / 8 + 5 * skew**2 / 36, rest]
    roots = np.roots(cubic)
    normal = float(np.min(np.abs(roots[np.isreal(roots)].real)))
    probability = 2 * float(ndtr(-normal))
    return MisfitTest("scale", float(np.exp(excess)), 1, probability, None)


def _group_test(
    name: str, left: _Left, of_cell, limits, sizes: list[NoiseSize]
) -> tuple[MisfitTest, Float[np.ndarray, "group 2"]]:
    """Residuals of all angles by groups of cells, `of_cell` telling that of each: mean, error."""
    groups = of_cell == np.arange(len(limits))[:, None]
    found = zero_test(
        groups @ np.sum(left.sums, axis=0),
        groups @ np.sum(left.weight, axis=0),
        groups @ np.sum(left.covariance, axis=(0, 1)) @ groups.T,
        groups @ np.sum(left.before, axis=0) @ groups.T,
        _mean_of(sizes),
    )
    where = found.deviation(limits, f"{name}s")
    test = MisfitTest(name, found.statistic, found.degrees, found.probability, where)
    return test, np.stack([found.mean, found.error], axis=1)


def _angle_test(left: _Left, cells: Cells, lags, ages, sizes: list[NoiseSize], phi) -> MisfitTest:
    """The angle whose cells depart most."""
    angles = [
        zero_test(left.sums[a], left.weight[a], left.covariance[a, a], left.before[a], sizes[a])
        for a in range(phi.size)
    ]
    a = min(range(phi.size), key=lambda k: (angles[k].probability, -angles[k].statistic))
    found = angles[a]
    where = found.deviation(lags[cells.lag], "lags")
    if where is not None:
        low, high = ages[cells.age[found.largest]]
        text = f"at φ = {phi[a]:.4g}°, {where.text}, {_between('ages', low, high)}"
        where = where._replace(text=text)
    probability = _of_least(found.probability, phi.size)
    return MisfitTest("angle", found.statistic, found.degrees, probability, where)


# χ² of one map beyond that of any other for which it is called the odd one.
_CLEARLY = 10.0


def _map_test(left: _Left, sizes: list[NoiseSize], phi) -> MisfitTest:
    """Whether all maps ask for the same of what they share, and which asks for something else."""
    count, q = left.sums.shape
    size = count * q
    before = np.zeros((count, q, count, q))
    before[np.arange(count), :, np.arange(count), :] = left.before
    found = zero_test(
        left.sums.ravel(),
        left.weight.ravel(),
        np.transpose(left.covariance, (0, 2, 1, 3)).reshape(size, size),
        before.reshape(size, size),
        _mean_of(sizes),
    )
    each = [
        zero_test(left.sums[a], left.weight[a], left.covariance[a, a], left.before[a], sizes[a])
        for a in range(count)
    ]
    first, second = np.argsort([-one.statistic for one in each])[:2]
    at, text = np.nan, "maps ask for different values of the parameters that they share"
    # Where any of them would do as the odd one, as of two, none is called so.
    if each[first].statistic > each[second].statistic + _CLEARLY:
        at = float(phi[first])
        text += f", that at φ = {at:.4g}° most"
    else:
        text += "; which of them is the odd one is open"
    where = Deviation(text, at, at, np.nan, np.nan)
    return MisfitTest("map", found.statistic, found.degrees, found.probability, where)


# Second differences at most two steps apart have a frame in common.
_APART = 2
# At which a mean over an angle is taken.
_NODES = 40


def _chance_beyond(ratio: float, along: Float[np.ndarray, "step"], others: float) -> float:
    """Probability of a square so many times the mean of that many `others`, correlated `along`.

    Of z² > u m, all values being normal and m a mean of n squares Σ λ x²/n, it is the mean over θ
    of Π (1 + uλ/(n sin²θ))^(−1/2), 0 to π/2: the form of the error function of Craig (MILCOM 1991,
    p. 571), averaged over m. λ is the spectrum of the others.
    """
    n = int(others)
    wave = np.pi / (n + 1) * np.arange(1, n + 1)
    lag = np.arange(1, along.size + 1)
    spectrum = np.maximum(1 + 2 * np.cos(np.outer(wave, lag)) @ along, 0.0)
    spectrum = spectrum / np.mean(spectrum)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    sines = np.sin(0.25 * np.pi * (nodes + 1))
    logs = np.log1p(ratio / n * np.outer(1 / sines**2, spectrum))
    return float(0.5 * weights @ np.exp(-0.5 * np.sum(logs, axis=1)))


def _frame_test(evidence: Evidence, along: np.ndarray, t: np.ndarray) -> MisfitTest:
    """A frame whose pairs depart from those of its neighbours as no other frame's do."""
    by_frame, steps = np.asarray(evidence.by_frame), np.asarray(evidence.steps)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = by_frame[:, 0] / by_frame[:, 1]
        jump = np.diff(mean, 2, axis=1) / np.sqrt(np.maximum(steps, 1e-300))
        size = np.nanmedian(np.abs(jump), axis=1, keepdims=True)
        scaled = np.where(size > 0, jump / size, np.nan)
    seen = np.isfinite(scaled)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.nansum(scaled, axis=0) / np.sqrt(seen.sum(axis=0))
    there = np.isfinite(value)
    if there.sum() < 10:
        return MisfitTest("frame", 0.0, 0, 1.0, None)
    square = np.where(there, value**2, 0.0)
    # Each against those that have no frame in common with it, which it would make larger.
    near = np.ones(2 * _APART + 1)
    others = there.sum() - np.convolve(there, near, "same")
    rest = np.maximum(square.sum() - np.convolve(square, near, "same"), 1e-300) / others
    score = np.sqrt(square / rest)
    k = int(np.argmax(score))
    chance = _chance_beyond(score[k] ** 2, along, others[k])
    probability = _of_least(chance, int(there.sum()))
    frame = _frame_of(mean, k + 1)
    a = int(np.nanargmax(np.abs(mean[:, frame]))) if np.isfinite(mean[:, frame]).any() else 0
    level = float(mean[a, frame] - np.nanmedian(mean[a]))
    side = "above" if level > 0 else "below"
    text = (
        # From 1, as frames are counted wherever one can be left out.
        f"frame {frame + 1} (t = {t[frame]:.4g} s) is unlike its neighbours: on average the fit "
        f"lies {abs(level):.2g} {side} the data in its pairs"
    )
    at = float(t[frame])
    return MisfitTest(
        "frame", float(score[k]), 1, probability, Deviation(text, at, at, level, np.nan)
    )


def _frame_of(mean, centre: int) -> int:
    """The frame that stands out among a centre of differences and its two neighbours."""
    low = max(centre - 3, 0)
    window = mean[:, low : centre + 4]
    window = window[np.isfinite(window).any(axis=1)]
    away = np.nansum(np.abs(window - np.nanmedian(window, axis=1, keepdims=True)), axis=0)
    return max(range(centre - 1, centre + 2), key=lambda k: away[k - low])


def _by_frame(test: MisfitTest) -> MisfitTest:
    where = test.where
    return test._replace(where=where and where._replace(text=per_frame(where.text)))


def misfit_of(
    remains: Remains,
    inverse: Float[np.ndarray, "entry entry"],
    term: TwoTimeTerm,
    others: Float[np.ndarray, "entry entry"] | float = 0.0,
) -> Misfit | None:
    """Test what a fit has left; None where maps are too small or too sparse to tell their noise.

    **Arguments:**

    - `inverse`: of the curvature of the whole fit, zero for entries on a bound.
    - `term`: the data set.
    - `others`: covariance of the scores of other data sets fitted together with this one.
    """
    evidence, residuals = remains.evidence, remains.residuals
    inverse = inverse if remains.followed else np.zeros_like(inverse)
    count = np.asarray(residuals.influence.count)
    near, alike, counts = map(np.asarray, (evidence.near, evidence.alike, evidence.counts))
    scatter = scatter_of(near, alike, counts, evidence.by_frame.shape[-1])
    if not np.all(2 / scatter.own >= _LEAST):
        return None
    noise = _noise(remains, scatter)
    if not np.all(np.isfinite(noise.excess)):
        return None
    left, scores = _left(remains, noise.pixels, inverse, others)
    t, phi = np.asarray(term.t), np.asarray(term.geometry.phi)
    cells, lags, ages = limits_of(t, evidence.structure.step)
    by_lag, lag = _group_test("lag", left, cells.lag, lags, noise.sizes)
    by_age, age = _group_test("age", left, cells.age, ages, noise.sizes)
    by_angle = _angle_test(left, cells, lags, ages, noise.sizes, phi)
    # A bad frame is the cause of much of what the others find.
    tests = (
        _frame_test(evidence, np.mean(scatter.along, axis=0), t),
        by_lag,
        by_age,
        by_angle,
        *((_map_test(scores, noise.sizes, phi),) if phi.size > 1 else ()),
        _scale_test(noise),
    )
    if counts_frames(term.parameters.units):
        tests = tuple(map(_by_frame, tests))
    variance = np.asarray(evidence.variance) / noise.pixels
    ratio = np.nan
    if term.absolute_sigma:
        weight = np.asarray(residuals.weight)
        ratio = float(np.sqrt(1 / np.mean(variance * weight / count)))
    excess = float(np.exp(np.mean(noise.excess)))
    return Misfit(tests, np.sqrt(variance), excess, ratio, lags, lag, ages, age)
