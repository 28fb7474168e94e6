"""Error bars of a fit as one value, and what is done with covariance matrices everywhere."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from ..showing import curvature_text

# Directions whose eigenvalue, in units of the diagonal, is below this are not determined at all:
# products of double-precision sums over a map carry about this relative error.
UNDETERMINED = 1e-13
# A smaller part in such a direction is rounding.
_PART = 1e-3
# Above this, the direction is reported as weak.
_WEAK = 1e-7
# Relative eigenvalue of a correlation matrix below which only rounding is left.
_ROUNDING = 1e-10

_KINDS = ("classical", "speckle", "dyadic")

NO_DEGREES_OF_FREEDOM = (
    "there are no more points than free parameters, so that nothing is left to tell the errors "
    "from, and they are infinite; give more points, fix a parameter, or give the absolute sigma"
)
ONLY_SIGMA = (
    "there are no more pairs than free parameters, so that only the sigma that was given tells of "
    "the errors"
)
ONLY_CLASSICAL = (
    "pairs were taken as independent, for no other errors were asked for: for speckle they are up "
    "to several times too small"
)
BY_AGE = (
    "bins of age and lag share frames: errors come from the scatter between {} ages, so that noise "
    "common to most of them is not in them; of simulated speckle they are 1.5 to 3 times too small"
)
OF_BINS = (
    "bins of age and lag are taken as independent, for there are too few ages to tell what their "
    "noise has in common by the frames that they share: errors may be many times too small"
)
NOTHING_HOLDS = (
    "so many residuals are outliers to the robust loss that it does not hold the parameters, and "
    "their errors are infinite; give the loss a larger scale"
)


class Uncertainty(eqx.Module):
    """Three covariances of the flat vector (see `IndexMap`), and which of them is quoted.

    - `classical`: s²(JᵀJ)⁻¹ as if the pairs were independent; absolute when sigma was given.
    - `speckle`: sandwich with the covariance of intensity correlations (default).
    - `dyadic`: sandwich with scores summed by shared frame, of bins by age; model-free.
    - `chosen`: name of the quoted one, `reason` says why.
    - `open`: steps of the entries that the data do not determine, in any length; `determined`:
        variances of the entries, in the order of the covariances, without those steps.

    Entries held on a bound have zero variance; those that a step moves which the data do not
    determine have infinite variance.
    """

    classical: Float[np.ndarray, "entry entry"]
    speckle: Float[np.ndarray, "entry entry"]
    dyadic: Float[np.ndarray, "entry entry"]
    residual_variance: Float[np.ndarray, ""]
    condition_number: Float[np.ndarray, ""]
    n_pixels: Float[np.ndarray, "angle"]
    shot_noise: Float[np.ndarray, "angle"]
    open: Float[np.ndarray, "direction entry"]
    determined: Float[np.ndarray, "3 entry"]
    chosen: str = eqx.field(static=True)
    reason: str = eqx.field(static=True)
    weak_directions: tuple[str, ...] = eqx.field(static=True)

    @property
    def formed(self) -> bool:
        """Whether there is a covariance: none is formed for thousands of parameters of a curve."""
        return not np.isnan(self.covariance[:1, :1]).any()

    @property
    def covariance(self) -> Float[np.ndarray, "entry entry"]:
        """The quoted covariance."""
        return getattr(self, self.chosen)

    def errors(self, kind: str | None = None) -> Float[np.ndarray, "entry"]:
        """Standard errors of the quoted covariance, or of `kind`."""
        variance = np.diagonal(getattr(self, kind or self.chosen))
        # A sandwich of few data may leave a variance below zero: nothing is known then.
        return np.sqrt(np.where(variance < 0, np.inf, variance))

    def _within(self, kind: str) -> Float[np.ndarray, "entry entry"]:
        """The covariance of `kind` without the steps that are not determined."""
        out, moved = np.array(getattr(self, kind)), touched(self.open)
        out[moved, moved] = self.determined[_KINDS.index(kind)][moved]
        return out

    def _laid_out(self, matrix: Float[np.ndarray, "new part"]) -> Float[np.ndarray, "new entry"]:
        return np.pad(matrix, ((0, 0), (self.open.shape[1] - matrix.shape[1], 0)))

    def carried(self, matrix: Float[np.ndarray, "new part"]) -> "Uncertainty":
        """The error bars of other quantities, whose derivative by the last entries is `matrix`."""
        matrix = self._laid_out(matrix)
        steps = np.where(_moved(matrix, self.open), self.open @ matrix.T, 0.0)
        found = (carried(matrix, self._within(kind)) for kind in _KINDS)
        return dataclasses.replace(self, **with_open(steps, *found))

    def errors_of(
        self, matrix: Float[np.ndarray, "new part"], kind: str | None = None
    ) -> Float[np.ndarray, "new"]:
        """As of `carried`, without their correlations: infinite where the data leave them open."""
        matrix = self._laid_out(matrix)
        variance = _variances(matrix, self._within(kind or self.chosen))
        return np.sqrt(np.where(_moved(matrix, self.open), np.inf, np.maximum(variance, 0.0)))

    def correlation(self, kind: str | None = None) -> Float[np.ndarray, "entry entry"]:
        """Correlation matrix; zero where an entry has no finite, positive variance."""
        matrix = getattr(self, kind or self.chosen)
        errors = self.errors(kind)
        known = np.isfinite(errors) & (errors > 0)
        safe = np.where(known, errors, 1.0)
        both = known[:, None] & known[None, :]
        return np.where(both, np.where(both, matrix, 0.0) / np.outer(safe, safe), 0.0)


def with_open(
    steps: Float[np.ndarray, "direction entry"], *covariances: Float[np.ndarray, "entry entry"]
) -> dict[str, np.ndarray]:
    """Fields of `Uncertainty` of three covariances and the steps that are not determined."""
    fields = {kind: np.array(one) for kind, one in zip(_KINDS, covariances, strict=True)}
    determined, moved = np.stack([np.diagonal(one) for one in covariances]), touched(steps)
    for one in fields.values():
        one[moved, moved] = np.inf
    return {**fields, "open": steps, "determined": determined}


def residual_variance(sum_of_squares: float, degrees: float) -> float:
    """s² = Σ w r² per degree of freedom; infinite where none is left."""
    return sum_of_squares / degrees if degrees > 0 else np.inf


def reduced_chi2(chi2: float, degrees: float) -> float:
    """χ² per degree of freedom; NaN where none is left, since it says nothing then.

    >>> from xpcs_eqx.uncertainty import reduced_chi2
    >>> reduced_chi2(12.0, 10), reduced_chi2(0.0, 0)
    (1.2, nan)
    """
    return chi2 / degrees if degrees > 0 else np.nan


def inverse_of(
    hessian: Float[np.ndarray, "entry entry"], free: Bool[np.ndarray, "entry"]
) -> tuple[np.ndarray, float, list[tuple[float, dict[int, float]]], np.ndarray]:
    """Inverse on the free entries, without the directions that are not determined.

    Returns the inverse, the condition number of the matrix scaled to unit diagonal, the weak
    directions (eigenvalue, and entry → part of the eigenvector), and the steps `(step, entry)`
    that are not determined: what they move has no finite error.
    """
    size = hessian.shape[0]
    full = np.zeros((size, size))
    index = np.flatnonzero(free)
    if index.size == 0:
        return full, 1.0, [], np.zeros((0, size))
    block = hessian[np.ix_(index, index)]
    if not np.all(np.isfinite(block)):
        # Where the model is not finite nothing is known of any entry.
        return full, np.inf, [], np.eye(size)[free]
    diagonal = np.sqrt(np.maximum(np.diagonal(block), 0.0))
    dead = diagonal == 0
    unit = np.where(dead, 1.0, diagonal)
    # One after the other: the product of two units may be too small for a number.
    scaled = block / unit[:, None] / unit
    scaled[dead, :], scaled[:, dead] = 0.0, 0.0
    values, vectors = np.linalg.eigh(0.5 * (scaled + scaled.T))
    lost = values <= UNDETERMINED * values[-1]
    inverse = (vectors[:, ~lost] / values[~lost]) @ vectors[:, ~lost].T
    with np.errstate(over="ignore"):
        inverse = inverse / unit[:, None] / unit
    # The variance along a curvature that is all but zero may be too large for a number.
    huge = ~np.isfinite(np.diagonal(inverse))
    full[np.ix_(index, index)] = np.where(huge | huge[:, None], 0.0, inverse)
    steps = np.zeros((np.count_nonzero(lost), size))
    steps[:, index] = (np.where(np.abs(vectors) > _PART, vectors, 0.0) / unit[:, None])[:, lost].T
    steps = np.concatenate([steps, np.eye(size)[index[huge]]])
    largest = values[-1] if values[-1] > 0 else 1.0
    weak = [
        (float(values[i] / largest), {int(index[j]): vectors[j, i] for j in range(index.size)})
        for i in np.flatnonzero(values <= _WEAK * values[-1])
    ]
    condition = float(values[-1] / values[0]) if values[0] > 0 else np.inf
    return full, condition, weak, steps


def describe(weak: list[tuple[float, dict[int, float]]], names: tuple[str, ...]) -> tuple[str, ...]:
    """Weak directions of `inverse_of` in words, by the entries with the largest part in each."""
    out = []
    for ratio, parts in weak:
        ranked = sorted(parts.items(), key=lambda item: -abs(item[1]))
        main = [names[i] for i, share in ranked if abs(share) > 0.2][:4]
        out.append(f"{' – '.join(main)} ({curvature_text(ratio)})")
    return tuple(out)


def touched(steps: Float[np.ndarray, "direction entry"]) -> Bool[np.ndarray, "entry"]:
    """Which entries have a part in any of these steps."""
    return np.any(steps != 0, axis=0)


def _moved(
    matrix: Float[np.ndarray, "new entry"], steps: Float[np.ndarray, "direction entry"]
) -> Bool[np.ndarray, "new"]:
    """Which quantities, whose derivative by the entries is `matrix`, steps move beyond rounding."""
    most = np.abs(matrix) @ np.abs(steps).T
    return np.any(np.abs(matrix @ steps.T) > _PART * most, axis=1)


def _variances(
    matrix: Float[np.ndarray, "new entry"], covariance: Float[np.ndarray, "entry entry"]
) -> Float[np.ndarray, "new"]:
    """The diagonal of `carried`."""
    variance = np.diagonal(covariance)
    lost = ~np.isfinite(variance)
    known = np.where(lost | lost[:, None], 0.0, covariance)
    out = np.einsum("ne,ne->n", matrix @ known, matrix)
    for value, same in ((np.inf, np.isinf(variance)), (np.nan, np.isnan(variance))):
        out[np.any(matrix[:, same] != 0, axis=1)] = value
    return out


def carried(
    matrix: Float[np.ndarray, "new entry"], covariance: Float[np.ndarray, "entry entry"]
) -> Float[np.ndarray, "new new"]:
    """The covariance M C Mᵀ of quantities whose derivative by the entries is M = `matrix`.

    A variance that is infinite or NaN makes that of every quantity so that depends on its entry.
    """
    lost = ~np.isfinite(np.diagonal(covariance))
    out = matrix @ np.where(lost | lost[:, None], 0.0, covariance) @ matrix.T
    np.fill_diagonal(out, _variances(matrix, covariance))
    return out


def chance(statistic: float, degrees: int) -> float:
    """Probability that χ² of so many degrees of freedom is larger; 1 where there are none."""
    # Not at the top: most fits need none of SciPy's functions.
    from scipy.special import chdtrc

    return float(chdtrc(degrees, statistic)) if degrees > 0 else 1.0


def whitening(
    covariance: Float[np.ndarray, "entry entry"],
    unit: Float[np.ndarray, "entry"],
    kept: Callable[[Float[np.ndarray, "entry"]], Bool[np.ndarray, "entry"]],
) -> Float[np.ndarray, "direction entry"]:
    """R with R V Rᵀ = 1, for the directions whose eigenvalues are `kept`; V is in these units."""
    values, vectors = np.linalg.eigh(covariance / np.outer(unit, unit))
    which = kept(values)
    return (vectors[:, which] / np.sqrt(values[which])).T / unit


def wald(
    difference: Float[np.ndarray, "entry"],
    covariance: Float[np.ndarray, "entry entry"],
    allowed: Float[np.ndarray, "entry direction"] | None = None,
) -> tuple[float, int, float]:
    """Test of the hypothesis that `difference` d lies in the span of the columns of `allowed`, T.

    **Returns:** the least (d − Tθ)ᵀ V⁺ (d − Tθ) over θ, V being the `covariance`, its degrees of
    freedom, rank V less that of T, and the probability of a larger one by chance. Without `allowed`
    the hypothesis is that d is zero. Entries without variance have no part in it.
    """
    known = np.diagonal(covariance) > 0
    if not known.any():
        return 0.0, 0, 1.0
    unit = np.sqrt(np.diagonal(covariance)[known])
    block = covariance[np.ix_(known, known)]
    root = whitening(block, unit, lambda values: values > _ROUNDING * values[-1])
    white, rank = root @ difference[known], 0
    if allowed is not None and allowed.shape[1]:
        columns = root @ allowed[known]
        length = np.linalg.norm(columns, axis=0)
        left, singular, _ = np.linalg.svd(
            columns / np.where(length > 0, length, 1.0), full_matrices=False
        )
        left = left[:, singular > _ROUNDING * max(singular[0], 1e-300)]
        white, rank = white - left @ (left.T @ white), left.shape[1]
    degrees = white.size - rank
    statistic = float(white @ white) if degrees else 0.0
    return statistic, degrees, chance(statistic, degrees)


def scaled_inverse(
    inverse: Float[np.ndarray, "entry entry"],
    variance: float,
    free: Bool[np.ndarray, "entry"],
) -> Float[np.ndarray, "entry entry"]:
    """The covariance `variance`·`inverse`: zero where not free.

    With an infinite `variance` it is infinite for all free entries, as SciPy has it.
    """
    if not np.isfinite(variance):
        return np.where(free & free[:, None], np.inf, 0.0)
    return variance * inverse
