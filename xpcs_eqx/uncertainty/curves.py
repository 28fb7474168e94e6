"""Errors of the parameters of a curve from its normal equations."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ..objective import InfluenceSums
from .covariance import describe, inverse_of
from .uncertainty import (
    NO_DEGREES_OF_FREEDOM,
    NOTHING_HOLDS,
    Uncertainty,
    residual_variance,
    scaled_inverse,
)

_NOT_FINITE = "the model is not finite where the fit ended, and its errors are infinite"


class CurveErrors(NamedTuple):
    """Covariance of the free parameters of a curve, and what it rests on.

    - `variance`: of a residual of unit weight: the factor of (JᵀJ)⁻¹ without penalties.
    - `degrees`: points less free parameters.
    - `remark`: why errors are infinite, empty where none is.
    - `factor`: what the inverse curvature was multiplied with.
    - `condition_number`, `weak_directions`: of that curvature, as in `Uncertainty`.
    - `sums`: over the influences of a robust loss.
    """

    covariance: Float[np.ndarray, "p p"]
    variance: float
    degrees: int
    remark: str
    factor: float = 1.0
    condition_number: float = 1.0
    weak_directions: tuple[str, ...] = ()
    sums: InfluenceSums | None = None

    def as_uncertainty(self) -> Uncertainty:
        """As the error bars of a fit; points of a curve are independent, and have no sandwich."""
        unknown = np.broadcast_to(np.nan, self.covariance.shape)
        return Uncertainty(
            classical=self.covariance,
            speckle=unknown,
            dyadic=unknown,
            residual_variance=np.asarray(self.factor),
            condition_number=np.asarray(self.condition_number),
            n_pixels=np.zeros(0),
            shot_noise=np.zeros(0),
            chosen="classical",
            reason=self.remark or "the points of a curve are taken as independent",
            weak_directions=self.weak_directions,
        )


def variance_of_fit(
    cost: float,
    count: int,
    parameters: int,
    sums: InfluenceSums | None = None,
) -> float:
    """v in the covariance v (JᵀJ)⁻¹ of a fit, from its residuals.

    2 `cost`/(n − p), the residual variance, for least squares; for a robust loss E[ψ²]/E[ψ']² of
    its `sums`. Infinite without degrees of freedom.
    """
    if sums is None or count <= parameters:
        return residual_variance(2 * cost, count - parameters)
    return float(sums.variance(parameters))


def curve_errors(
    hessian: Float[np.ndarray, "p p"] | None,
    free: Bool[np.ndarray, "p"],
    names: tuple[str, ...],
    *,
    cost: float,
    count: int,
    absolute_sigma: bool,
    eliminated: int = 0,
    sums: InfluenceSums | None = None,
    penalty: Float[np.ndarray, "p p"] | None = None,
) -> CurveErrors:
    """The covariance at an optimum, as SciPy's `curve_fit` has it.

    **Arguments:**

    - `hessian`: JᵀJ of least squares, penalties included. With a robust loss, whose `sums` are
        given, JᵀJ of the data alone, without any factor of the loss. `None` where it is not formed:
        the covariance is NaN then.
    - `cost`: ½ Σ ρ; `count`: points; `eliminated`: parameters fitted along that are no variables.
    - `absolute_sigma`: sigma is known, and s² = 1. A robust loss takes the noise from the residuals
        all the same, whose outliers sigma does not know.
    - `penalty`: JᵀJ of penalties beside a robust loss.

    For a robust loss it is A⁻¹ B A⁻¹ with A = E[ψ'] JᵀJ + P and B = E[ψ²] JᵀJ + P times the unit of
    the cost, which is 1 for an absolute sigma and E[ψ²]/E[ψ'] otherwise: P counts as data that were
    measured with the width of the penalty.
    """
    parameters = int(free.sum()) + eliminated
    degrees = count - parameters
    variance = variance_of_fit(cost, count, parameters, sums)
    factor = variance
    if hessian is None:
        nothing = np.broadcast_to(np.nan, (free.size, free.size))
        remark = "" if absolute_sigma or degrees > 0 else NO_DEGREES_OF_FREEDOM
        return CurveErrors(nothing, variance, degrees, remark, variance, sums=sums)
    if degrees <= 0 or sums is None:
        # Without more points than parameters the curve goes through them, whatever the loss.
        factor = 1.0 if absolute_sigma else variance
        whole = hessian if penalty is None else hessian + penalty
        inverse, condition, weak, unknown = inverse_of(whole, free)
    elif penalty is None or not np.isfinite(variance):
        inverse, condition, weak, unknown = inverse_of(hessian, free)
    else:
        slope, square = float(sums.mean_slope), float(sums.mean_square(parameters))
        inverse, condition, weak, unknown = inverse_of(slope * hessian + penalty, free)
        unit = 1.0 if absolute_sigma else square / slope
        inverse, factor = inverse @ (square * hessian + unit * penalty) @ inverse, 1.0
    covariance = scaled_inverse(inverse, factor, free, unknown)
    remark = _remark(names, degrees, factor, unknown) if np.isfinite(cost) else _NOT_FINITE
    words = describe(weak, names)
    return CurveErrors(covariance, variance, degrees, remark, factor, condition, words, sums)


def _remark(names, degrees, factor, unknown) -> str:
    if not np.isfinite(factor):
        return NO_DEGREES_OF_FREEDOM if degrees <= 0 else NOTHING_HOLDS
    if unknown.any():
        open_ = ", ".join(name for name, lost in zip(names, unknown, strict=True) if lost)
        return f"the data do not determine {open_}, whose errors are infinite; fix some of them"
    return ""
