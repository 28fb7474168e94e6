"""Do data sets that share parameters agree on them?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit

# Directions of the contrast between data sets with less than this share of the largest variance
# are rounding.
_NULL = 1e-10
# A probability below which data sets are said to disagree.
DISAGREEMENT = 1e-3


class Estimate(NamedTuple):
    """What one data set says by itself, to first order around the joint optimum.

    - `names`: of its varying parameters; `distance`: its own estimate minus the joint one.
    - `covariance`: of its own estimate; `derivative`: of its parameters by the shared ones.
    """

    label: str
    names: tuple[str, ...]
    distance: Float[np.ndarray, "local"]
    covariance: Float[np.ndarray, "local local"]
    derivative: Float[np.ndarray, "local free"]


class Distance(NamedTuple):
    """How far the estimate of one data set lies from the joint one.

    - `statistic`: squared distance in units of its covariance, for `degrees` parameters.
    - `name`, `deviation`: the parameter furthest away, in its own errors.
    """

    label: str
    statistic: float
    degrees: int
    name: str
    deviation: float


class Sharing(NamedTuple):
    """A test of the hypothesis that the shared parameters are the same in all data sets.

    - `statistic`: squared distance of the separate estimates from what sharing allows, in units
        of their covariance; χ² with `degrees` degrees of freedom when sharing is right.
    - `probability`: of a larger one by chance.
    - `distances`: of each data set, in their order.
    """

    statistic: float
    degrees: int
    probability: float
    distances: tuple[Distance, ...]

    @property
    def agree(self) -> bool:
        """Whether nothing speaks against sharing."""
        return self.degrees == 0 or self.probability > DISAGREEMENT

    def finding(self) -> str:
        """One sentence."""
        if self.degrees == 0:
            return "no parameter is shared, so that there is nothing to compare"
        text = (
            f"χ² = {self.statistic:.4g} with {self.degrees} degrees of freedom, "
            f"p = {self.probability:.2g}"
        )
        if self.agree:
            return f"the data sets agree on what they share: {text}"
        worst = sorted(self.distances, key=lambda d: -d.statistic / d.degrees)[:3]
        parts = ", ".join(
            f"{d.label} (χ² = {d.statistic:.3g} for {d.degrees} parameters, most in {d.name})"
            for d in worst
        )
        return (
            f"the data sets disagree on what they share ({text}); furthest from the others: "
            f"{parts}. Let parameters be separate, or tie them by the right function"
        )


@quick_jit
def _tail(degrees, statistic):
    # Not at the top: only this needs it.
    from jax.scipy.special import gammaincc

    return gammaincc(0.5 * degrees, 0.5 * statistic)


def sharing_test(estimates: tuple[Estimate, ...]) -> Sharing:
    """Compare the separate estimates of data sets with what shared parameters can reach.

    With d the separate minus the joint estimates of all data sets, V their covariance and T the
    derivative of all their parameters with respect to the shared ones, the contrasts R d with
    RᵀT = 0 have mean zero when sharing is right, whatever the shared values
    (a Wald test of the restriction, from one Gauss–Newton step of each data set). Data sets with no
    more pairs than parameters have no errors to compare by, and are left out by the caller.
    """
    if not estimates:
        return Sharing(0.0, 0, 1.0, ())
    distances = tuple(_distance(one) for one in estimates if one.names)
    derivative = np.concatenate([one.derivative for one in estimates])
    distance = np.concatenate([one.distance for one in estimates])
    covariance = np.zeros((distance.size, distance.size))
    begin = 0
    for one in estimates:
        end = begin + one.distance.size
        covariance[begin:end, begin:end] = one.covariance
        begin = end
    # In units of the errors, so that physical units do not decide what is small.
    error = np.sqrt(np.diagonal(covariance))
    known = error > 0
    derivative = derivative[known] / error[known, None]
    columns = np.linalg.norm(derivative, axis=0)
    derivative = derivative[:, columns > 0] / columns[columns > 0]
    left, singular, _ = np.linalg.svd(derivative)
    rank = int(np.count_nonzero(singular > 1e-9 * singular[0])) if singular.size else 0
    contrast = left[:, rank:].T / error[known]
    statistic, degrees = _squared(
        contrast @ distance[known], contrast @ covariance[np.ix_(known, known)] @ contrast.T
    )
    probability = float(_tail(float(degrees), statistic)) if degrees else 1.0
    return Sharing(statistic, degrees, probability, distances)


def _squared(distance: np.ndarray, covariance: np.ndarray) -> tuple[float, int]:
    """dᵀ V⁺ d and the number of directions in it."""
    if distance.size == 0:
        return 0.0, 0
    values, vectors = np.linalg.eigh(covariance)
    kept = values > _NULL * values[-1]
    parts = vectors[:, kept].T @ distance
    return float(np.sum(parts**2 / values[kept])), int(np.count_nonzero(kept))


def _distance(one: Estimate) -> Distance:
    error = np.sqrt(np.diagonal(one.covariance))
    unit = np.where(error > 0, error, 1.0)
    ratio = one.distance / unit
    statistic, degrees = _squared(ratio, one.covariance / np.outer(unit, unit))
    i = int(np.argmax(np.abs(ratio)))
    return Distance(one.label, statistic, degrees, one.names[i], float(ratio[i]))
