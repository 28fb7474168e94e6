"""Putting the parameters of fits to single angles together."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from ..arguments import check_fields
from ..showing import probability_text
from ..uncertainty import chance, inverse_of
from ..uncertainty.uncertainty import touched

# Relative eigenvalue, at unit diagonal, of a direction that a single angle does not determine:
# far above the rounding of the sums, far below what a fit could use.
_UNDETERMINED = 1e-10
# The same before that scaling, for a column that is nothing but rounding, at natural steps.
_NOTHING = 1e-20
# A parameter has no value of its own when it takes part in such a direction by more than this.
_SHARE = 1e-3


class AngleEstimate(NamedTuple):
    """What one angle says of the parameters, contrast and offset eliminated.

    - `value`: of the parameters' coordinates, one Gauss–Newton step included.
    - `information`: inverse covariance; zero along every direction that the angle leaves open.
    - `determined`: which parameters take part in no such direction.
    - `pairs`: pairs of frames that counted.
    """

    value: Float[np.ndarray, "free"]
    information: Float[np.ndarray, "free free"]
    determined: Bool[np.ndarray, "free"]
    pairs: int


class Combined(NamedTuple):
    """Parameters of all angles together: values and covariance, infinite where nothing is known."""

    value: Float[np.ndarray, "free"]
    covariance: Float[np.ndarray, "free free"]


class AbstractCombination(eqx.Module):
    """How estimates of single angles become one."""

    __check_init__ = check_fields

    @abstractmethod
    def __call__(self, estimates: tuple[AngleEstimate, ...]) -> Combined:
        """The combination of at least one estimate."""


class InverseVariance(AbstractCombination):
    """(Σ C_i⁻¹)⁻¹ Σ C_i⁻¹ x_i with full matrices: every direction counts where it is determined.

    The best linear combination of independent estimates (Gauss–Markov). An angle that leaves a
    direction open has no information along it, and its arbitrary value there does not count.
    """

    def __call__(self, estimates):
        total = np.sum([one.information for one in estimates], axis=0)
        pull = np.sum([one.information @ one.value for one in estimates], axis=0)
        covariance, _, _, steps = inverse_of(total, np.ones(total.shape[0], bool))
        middle = np.mean([one.value for one in estimates], axis=0)
        # About the mean, so that what nothing determines stays where the angles have it.
        value = middle + covariance @ (pull - total @ middle)
        unknown = touched(steps)
        covariance[unknown, unknown] = np.inf
        return Combined(value, covariance)


class Uniform(AbstractCombination):
    """The mean over angles, each parameter over those that determine it."""

    def __call__(self, estimates):
        return _weighted(estimates, np.ones(len(estimates)))


class ByPoints(AbstractCombination):
    """The mean weighted by the pairs of each angle, each parameter where it is determined."""

    def __call__(self, estimates):
        return _weighted(estimates, np.array([float(one.pairs) for one in estimates]))


def _weighted(estimates, weights) -> Combined:
    share = weights[:, None] * np.array([one.determined for one in estimates], dtype=float)
    total = share.sum(axis=0)
    share = share / np.where(total > 0, total, 1.0)
    values = np.array([one.value for one in estimates])
    middle = values.mean(axis=0)
    covariance = np.zeros((middle.size, middle.size))
    for one, weight in zip(estimates, share, strict=True):
        block, *_ = inverse_of(one.information, one.determined)
        covariance += np.outer(weight, weight) * block
    unknown = total == 0
    covariance[unknown, unknown] = np.inf
    return Combined(np.where(unknown, middle, (share * values).sum(axis=0)), covariance)


def estimated_step(
    gradient: Float[np.ndarray, "free"],
    curvature: Float[np.ndarray, "free free"],
    noise: Float[np.ndarray, "free free"],
    natural: Float[np.ndarray, "free"],
) -> tuple[Float[np.ndarray, "free"], Float[np.ndarray, "free free"], Bool[np.ndarray, "free"]]:
    """A Gauss–Newton step, its information H M⁻¹ H, and which parameters are determined.

    M is the `noise`, the covariance of the `gradient`, and H the `curvature`; both count in the
    determined directions alone, where M has an inverse.

    - `natural`: natural step of each coordinate.
    """
    strength = np.diagonal(curvature) * natural**2
    there = strength > _NOTHING * np.max(strength, initial=0.0)
    curvature = np.where(there & there[:, None], curvature, 0.0)
    unit = np.where(there, np.sqrt(np.where(there, np.diagonal(curvature), 1.0)), 1.0)
    size, vectors = np.linalg.eigh(curvature / np.outer(unit, unit))
    kept = size > _UNDETERMINED * max(size[-1], 1e-300)
    lost = np.max(np.abs(vectors[:, ~kept]), axis=1, initial=0.0)
    turn = vectors[:, kept] / unit[:, None]
    root = vectors[:, kept] * unit[:, None] * size[kept]
    information = root @ np.linalg.pinv(turn.T @ noise @ turn, hermitian=True) @ root.T
    step = -turn @ ((turn.T @ gradient) / size[kept])
    return step, 0.5 * (information + information.T), lost <= _SHARE


class Heterogeneity(NamedTuple):
    """Whether the angles agree within their errors.

    - `statistic`: Σ (x_i − x)ᵀ C_i⁻¹ (x_i − x), chi² of `degrees` when they do.
    - `by_angle`: the part of each angle that was combined.
    """

    statistic: float
    degrees: int
    probability: float
    by_angle: Float[np.ndarray, "kept"]

    def finding(self) -> str:
        """One sentence."""
        text = (
            f"χ² = {self.statistic:.4g} with {self.degrees} degrees of freedom, "
            f"p {probability_text(self.probability)}"
        )
        if self.degrees == 0:
            return "there is nothing to compare between the angles"
        if self.probability > 1e-3:
            return f"the angles agree within their errors ({text})"
        return (
            f"the angles do not agree within their errors ({text}): "
            "the model does not hold for all of them, or single angles leave so much open that "
            "their fits ended far apart; the combination is not to be trusted"
        )


def heterogeneity(estimates: tuple[AngleEstimate, ...]) -> Heterogeneity:
    """Cochran's test with full covariance matrices, about the inverse-variance mean."""
    centre = InverseVariance()(estimates).value
    parts = np.array(
        [(e.value - centre) @ e.information @ (e.value - centre) for e in estimates], dtype=float
    )
    ranks = [_rank(one.information) for one in estimates]
    total = np.sum([one.information for one in estimates], axis=0)
    statistic, degrees = float(parts.sum()), max(sum(ranks) - _rank(total), 0)
    return Heterogeneity(statistic, degrees, chance(statistic, degrees), parts)


def _rank(information) -> int:
    unit = np.sqrt(np.maximum(np.diagonal(information), 0.0))
    unit = np.where(unit > 0, unit, 1.0)
    values = np.linalg.eigvalsh(information / np.outer(unit, unit))
    return int(np.count_nonzero(values > _UNDETERMINED * max(values[-1], 1e-300)))
