"""Errors of the parameters of a curve from its normal equations."""

import numpy as np
from jaxtyping import Bool, Float

from ..objective import InfluenceSums
from .uncertainty import (
    NO_DEGREES_OF_FREEDOM,
    NOTHING_HOLDS,
    Uncertainty,
    describe,
    inverse_of,
    residual_variance,
    scaled_inverse,
    touched,
    with_open,
)

_NOT_FINITE = "the model is not finite where the fit ended, and its errors are infinite"


def curve_errors(
    hessian: Float[np.ndarray, "p p"] | None,
    free: Bool[np.ndarray, "p"],
    names: tuple[str, ...],
    *,
    cost: float,
    count: int,
    absolute_sigma: bool,
    sums: InfluenceSums | None = None,
    penalty: Float[np.ndarray, "p p"] | None = None,
) -> tuple[Uncertainty, str]:
    """The covariance at an optimum, as SciPy's `curve_fit` has it.

    Points of a curve are taken as independent: the error bars have no sandwiches.

    **Arguments:**

    - `hessian`: JᵀJ of least squares, penalties included. With a robust loss, whose `sums` are
        given, JᵀJ of the data alone, without any factor of the loss. `None` where it is not formed:
        the covariance is NaN then.
    - `cost`: ½ Σ ρ; `count`: points.
    - `absolute_sigma`: sigma is known, and s² = 1. A robust loss takes the noise from the residuals
        all the same, whose outliers sigma does not know.
    - `penalty`: JᵀJ of penalties beside a robust loss.

    For a robust loss it is A⁻¹ B A⁻¹ with A = E[ψ'] JᵀJ + P and B = E[ψ²] JᵀJ + P times the unit of
    the cost, which is 1 for an absolute sigma and E[ψ²]/E[ψ'] otherwise: P counts as data that were
    measured with the width of the penalty.

    **Returns:** the error bars, and why errors are infinite, empty where none is.
    """
    parameters = int(free.sum())
    degrees = count - parameters
    # Without more points than parameters the curve goes through them, whatever the loss.
    robust = sums if degrees > 0 else None
    variance = residual_variance(2 * cost, degrees)
    factor = 1.0 if absolute_sigma else variance
    if robust is not None:
        factor = variance = float(robust.variance(parameters))
    if hessian is None:
        nothing = np.broadcast_to(np.nan, (free.size, free.size))
        remark = "" if absolute_sigma or degrees > 0 else NO_DEGREES_OF_FREEDOM
        steps = np.zeros((0, free.size))
        return _independent(nothing, steps, variance, 1.0, (), remark), remark
    if robust is None or penalty is None or not np.isfinite(variance):
        whole = hessian if robust is not None or penalty is None else hessian + penalty
        inverse, condition, weak, steps = inverse_of(whole, free)
    else:
        slope, square = float(robust.mean_slope), float(robust.mean_square(parameters))
        inverse, condition, weak, steps = inverse_of(slope * hessian + penalty, free)
        unit = 1.0 if absolute_sigma else square / slope
        inverse, factor = inverse @ (square * hessian + unit * penalty) @ inverse, 1.0
    covariance, unknown = scaled_inverse(inverse, factor, free), touched(steps)
    remark = _remark(names, degrees, factor, unknown) if np.isfinite(cost) else _NOT_FINITE
    return _independent(covariance, steps, factor, condition, describe(weak, names), remark), remark


def _independent(covariance, steps, factor, condition, weak, remark) -> Uncertainty:
    unknown = np.broadcast_to(np.nan, covariance.shape)
    return Uncertainty(
        **with_open(steps, covariance, unknown, unknown),
        residual_variance=np.asarray(factor),
        condition_number=np.asarray(condition),
        n_pixels=np.zeros(0),
        shot_noise=np.zeros(0),
        chosen="classical",
        reason=remark or "the points of a curve are taken as independent",
        weak_directions=weak,
    )


def _remark(names, degrees, factor, unknown) -> str:
    if not np.isfinite(factor):
        return NO_DEGREES_OF_FREEDOM if degrees <= 0 else NOTHING_HOLDS
    if unknown.any():
        open_ = ", ".join(name for name, lost in zip(names, unknown, strict=True) if lost)
        return f"the data do not determine {open_}, whose errors are infinite; fix some of them"
    return ""
