"""Whether the ends of priors matter that marginalised contrast and offset do not know of."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...compiling import quick_jit
from ...errors import ModelError
from ...fitting import Fit
from .likelihood import MarginalisedScaling
from .log_posterior import LogPosterior

# Standard deviations between a coefficient and the ends of its prior: 1e-9 of a Gaussian lies
# beyond, which leaves room for a posterior that is none.
FAR = 6.0


@quick_jit
def _conditional_mean(density: LogPosterior, theta: Float[Array, "entry"]):
    x, _, sigma = density.split(theta)
    assert isinstance(density.treatment, MarginalisedScaling)
    _, half, factor, unit, origin = density.treatment._gaussian(
        density.term, density.table(x), sigma
    )
    return origin + jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans=1) / unit


def _marginal_sd(
    density: LogPosterior, treatment: MarginalisedScaling, fit: Fit, sigma: float
) -> Float[np.ndarray, "coefficient"]:
    """Of the Laplace approximation at the fit, the uncertainty of all parameters included."""
    p, k = density.parameters.n_free, fit.index.scaling.stop
    widths = [float(np.asarray(prior.moments[1])) for prior in density.priors[:p]]
    precision = np.asarray(fit.joint_hessian) / sigma**2
    precision = precision + np.diag(np.r_[np.asarray(treatment.sd), widths] ** -2.0)
    # With unit diagonal, which keeps contrasts and amplitudes of any scale apart.
    unit = np.sqrt(np.diagonal(precision))
    covariance = np.linalg.inv(precision / np.outer(unit, unit))
    return (np.sqrt(np.diagonal(covariance)) / unit)[:k]


def check_ends(density: LogPosterior, theta: Float[np.ndarray, "entry"], fit: Fit) -> None:
    """Refuse marginalised coefficients that come near an end of their priors.

    `theta` are the entries at the fit.

    **Raises:** `ModelError` with the prior, its ends, and what to do.
    """
    treatment, scaling = density.treatment, density.term.scaling
    if not isinstance(treatment, MarginalisedScaling) or scaling.size == 0:
        return
    lower, upper = np.asarray(treatment.lower), np.asarray(treatment.upper)
    if not np.any(np.isfinite(lower) | np.isfinite(upper)):
        return
    sd = _marginal_sd(density, treatment, fit, float(density.split(jnp.asarray(theta))[2]))
    mean = np.asarray(_conditional_mean(density, theta))
    away = np.minimum(mean - lower, upper - mean) / sd
    if np.all(away >= FAR):
        return
    k = int(np.argmin(away))
    where = f"{away[k]:.1f} standard deviations inside" if away[k] > 0 else f"{-away[k]:.1f} beyond"
    prior_mean, prior_sd = (float(np.asarray(v)[k]) for v in (treatment.mean, treatment.sd))
    raise ModelError(
        f"{scaling.names[k]} is {mean[k]:.4g} ± {sd[k]:.2g} at the fit, {where} the nearer end of "
        f"its prior, a normal one of mean {prior_mean:g} and sd {prior_sd:g} on "
        f"[{lower[k]:g}, {upper[k]:g}]; marginalised scaling integrates over the whole line, which "
        f"is right only where the ends are {FAR:g} standard deviations away. Use SampledScaling(), "
        "give a Normal prior, or move the ends (by default they are the bounds of the fit)"
    )


def beyond_ends(
    density: LogPosterior, per_angle: Float[np.ndarray, "chain draw angle 2"]
) -> tuple[str, ...]:
    """Remarks on draws of marginalised coefficients that lie beyond the ends of their priors."""
    treatment, scaling = density.treatment, density.term.scaling
    if not isinstance(treatment, MarginalisedScaling) or scaling.size == 0:
        return ()
    inverse = np.linalg.pinv(np.asarray(scaling.basis).reshape(-1, scaling.size))
    rest = np.asarray(per_angle) - np.asarray(scaling.constant)
    drawn = rest.reshape(*rest.shape[:2], -1) @ inverse.T
    lower, upper = np.asarray(treatment.lower), np.asarray(treatment.upper)
    # What the inverse adds in rounding is no draw beyond an end.
    margin = 1e-9 * np.abs(drawn).max(axis=(0, 1))
    share = np.mean((drawn < lower - margin) | (drawn > upper + margin), axis=(0, 1))
    return tuple(
        f"{100 * share[k]:.2g} % of the draws of {scaling.names[k]} lie beyond the ends "
        f"[{lower[k]:g}, {upper[k]:g}] of its prior, which marginalised scaling does not cut off: "
        "this posterior is that of a normal prior without ends; use SampledScaling() to keep them"
        for k in np.flatnonzero(share)
    )
