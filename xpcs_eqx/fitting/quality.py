"""A verdict on a fit, with reasons."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..data import Geometry
from ..objective import AbstractPenalty, AbstractScalingPenalty
from ..optimize import Status
from ..physics import AbstractCorrelation, Degeneracy, degeneracies, time_floor
from ..uncertainty import Uncertainty
from ..uncertainty.uncertainty import NO_DEGREES_OF_FREEDOM
from .fit import ParameterRow, Quality
from .joint import Sharing
from .scaling_check import ScalingCheck

REDUCED_CHI2 = (2.0, 5.0, 10.0)
CONDITION = 1e6
CORRELATION = 0.999

# Names of rates that are negative where they must not be, and exact degeneracies.
Remarks = tuple[tuple[str, ...], tuple[Degeneracy, ...]]


def judge(
    status: Status,
    rows: tuple[ParameterRow, ...],
    uncertainty: Uncertainty,
    names: tuple[str, ...],
    reduced_chi2: float,
    negative_rate: tuple[str, ...] = (),
    degenerate: tuple[Degeneracy, ...] = (),
    conditions: tuple[str, ...] = (),
    scaling: ScalingCheck | None = None,
    sharing: Sharing | None = None,
) -> Quality:
    """Good, marginal or poor.

    Poor: not converged, reduced chi² above 10, or an infinite error, also for lack of degrees of
    freedom. Marginal: reduced chi² above
    2, data sets that disagree on what they share, a parameter on a bound, a nearly or exactly
    degenerate direction, a negative transport coefficient, or parameters biased by a scaling that
    the angles do not bear out. Insignificant parameters and mirrored solutions are mentioned and
    change nothing.
    """
    poor, marginal, remarks = [], [], []
    if not status.converged:
        poor.append(status.message)
    if sharing is not None and not sharing.agree:
        marginal.append(sharing.finding())
    # First of all: they are the cause of much of what follows.
    for one in degenerate:
        if one.continuous:
            marginal.append(f"exactly degenerate, {one.name}: {one.text}")
        else:
            remarks.append(f"mirrored solution, {one.name}: {one.text}")
    if scaling is not None and scaling.significant:
        (marginal if scaling.biased else remarks).append(scaling.finding())
    if np.isfinite(reduced_chi2):
        good, fair, bad = REDUCED_CHI2
        if reduced_chi2 > bad:
            poor.append(f"reduced chi² {reduced_chi2:.3g} is above {bad:g}: the model does not fit")
        elif reduced_chi2 > fair:
            marginal.append(f"reduced chi² {reduced_chi2:.3g} is above {fair:g}: a doubtful fit")
        elif reduced_chi2 > good:
            marginal.append(f"reduced chi² {reduced_chi2:.3g} is above {good:g}")
    known = bool(np.isfinite(uncertainty.residual_variance))
    if not known:
        poor.append(NO_DEGREES_OF_FREEDOM)
    for row in rows:
        if row.at_bound:
            bound = row.lower if row.value <= row.lower else row.upper
            marginal.append(
                f"{row.name} ended on its bound {bound:g}; its error is not defined and the other "
                "errors hold for it fixed there: widen the bound, or fix the parameter on purpose"
            )
        elif np.isinf(row.error) and known:
            poor.append(f"the data do not determine {row.name}: fix it or change the model")
        elif row.role == "free" and known and row.error > abs(row.value) > 0:
            remarks.append(
                f"{row.name} = {row.value:.3g} is smaller than its error {row.error:.2g}"
            )
    strong = []
    if uncertainty.formed:
        correlation = np.abs(np.asarray(uncertainty.correlation("classical")))
        pairs = zip(*np.nonzero(np.tril(correlation, -1) > CORRELATION), strict=True)
        strong = [(correlation[i, j], names[i], names[j]) for i, j in pairs]
    condition = float(uncertainty.condition_number)
    if condition > CONDITION or strong:
        pairs = ", ".join(f"{b} with {a} ({c:.4f})" for c, a, b in sorted(strong, reverse=True)[:4])
        text = f"degenerate: the normal matrix has condition number {condition:.2g}"
        if pairs:
            text += f", and parameters are all but interchangeable: {pairs}"
        marginal.append(
            text + "; quote profile-likelihood intervals, fix one of them, or use a simpler model"
        )
    for direction in uncertainty.weak_directions:
        marginal.append(f"weakly determined direction: {direction}")
    for name in negative_rate:
        marginal.append(f"the {name} rate is negative inside the time window, which is unphysical")
    flag = "poor" if poor else "marginal" if marginal else "good"
    return Quality(flag, tuple(poor + marginal + remarks) + conditions)


def conditions_of(
    penalties: tuple[AbstractPenalty, ...],
    on_scaling: tuple[AbstractScalingPenalty, ...] = (),
) -> tuple[str, ...]:
    """On what the error bars of a fit with penalties depend."""
    drawn = {
        "contrast and offset are drawn together": on_scaling,
        "parameters of the model are drawn to what is expected of them": penalties,
    }
    return tuple(
        f"{what} by a penalty ({', '.join(dict.fromkeys(type(one).__name__ for one in by))}): the "
        "covariance is conditional on it, and a bias that it brings is in no error bar"
        for what, by in drawn.items()
        if by
    )


@quick_jit
def _rate(rate, t):
    return rate(jnp.maximum(t, time_floor(t)))


def remarks_on(
    model: AbstractCorrelation,
    t: Float[Array | np.ndarray, "frame"],
    geometry: Geometry,
    bounds: Mapping[str, tuple[float, float]],
) -> Remarks:
    """Rates that are negative at a frame time and must not be, and exact degeneracies.

    `bounds` are those of the free parameters by name.
    """
    negative = tuple(
        name
        for name in model.positive_rates
        if np.any(np.asarray(_rate(getattr(model, name), t)) < 0)
    )
    return negative, degeneracies(model, np.asarray(t), geometry, bounds)
