"""Contrast and offset that are integrated out: what is known of them all the same, and whether the
ends of their priors matter, which the integral over the whole line does not know of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..errors import ModelError
from ..fitting import Fit
from ..scaling import Averaged
from ..showing import with_error
from .arviz_io import ess, rhat
from .density.likelihood import Conditional, MarginalisedScaling
from .density.log_posterior import LogPosterior
from .posterior import Posterior, summary_of

# Standard deviations between a coefficient and the ends of its prior: 1e-9 of a Gaussian lies
# beyond, which leaves room for a posterior that is none.
FAR = 6.0
# Draws that moments are averaged over: enough, since nothing but the conditional means scatters.
_MOST = 1000
MARGINALISED = (
    "contrast and offset were marginalised, not sampled: mean and sd are those of their Gaussian "
    "distributions given each draw, by the laws of total expectation and variance; the other "
    "numbers are of one value of each drawn from these"
)


def _conditional(density: LogPosterior, theta: Float[Array, "entry"]) -> Conditional:
    treatment = density.treatment
    assert isinstance(treatment, MarginalisedScaling)
    x, _, sigma = density.data.split(theta)
    return treatment.conditional(density.term, density.data.table(x), sigma)[1]


@quick_jit
def _conditional_mean(density: LogPosterior, theta: Float[Array, "entry"]):
    return _conditional(density, theta).mean()


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

    `theta` are the entries at the fit of this data set.

    **Raises:** `ModelError` with the prior, its ends, and what to do.
    """
    treatment, scaling = density.treatment, density.term.scaling
    if not isinstance(treatment, MarginalisedScaling):
        return
    lower, upper = np.asarray(treatment.lower), np.asarray(treatment.upper)
    if not np.any(np.isfinite(lower) | np.isfinite(upper)):
        return
    sd = _marginal_sd(density, treatment, fit, float(density.data.split(jnp.asarray(theta))[2]))
    mean = np.asarray(_conditional_mean(density, theta))
    away = np.minimum(mean - lower, upper - mean) / sd
    if np.all(away >= FAR):
        return
    k = int(np.argmin(away))
    where = f"{away[k]:.1f} standard deviations inside" if away[k] > 0 else f"{-away[k]:.1f} beyond"
    prior_mean, prior_sd = (float(np.asarray(v)[k]) for v in (treatment.mean, treatment.sd))
    raise ModelError(
        f"{scaling.names[k]} is {with_error(mean[k], sd[k])} at the fit, {where} the nearer end of "
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
    if not isinstance(treatment, MarginalisedScaling):
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


class Moments(NamedTuple):
    """Mean and variance of contrast and offset given each draw."""

    mean: Float[np.ndarray, "draw angle 2"]
    variance: Float[np.ndarray, "draw angle 2"]


@quick_jit
def _moments(density: LogPosterior, theta: Float[Array, "draw entry"]):
    scaling = density.term.scaling
    rows = scaling.basis.reshape(-1, scaling.size)

    def one(row):
        found = _conditional(density, row)
        return scaling.per_angle(found.mean()), found.variances(rows).reshape(-1, 2)

    return jax.lax.map(one, theta)


class Marginalised(NamedTuple):
    """Contrast or offset of an angle that was integrated out; `draws` of it are conditional."""

    name: str
    mean: float
    sd: float
    draws: Float[np.ndarray, "chain draw"]

    def summary(self) -> dict[str, float | bool | str]:
        """As one entry of `Posterior.summary`."""
        found = rhat(self.draws), ess(self.draws, "bulk"), ess(self.draws, "tail")
        own = {"mean": self.mean, "sd": self.sd, "marginalised": True}
        return {**summary_of(self.draws, *found), **own}


def conditional_scaling(posterior: Posterior, most: int = _MOST) -> Moments:
    """The Gaussian distributions of contrast and offset of each angle given `most` of the draws.

    These are chosen evenly; each costs an evaluation of the data. The posterior has to be one with
    marginalised scaling.
    """
    flat = posterior.theta.reshape(-1, posterior.theta.shape[-1])
    chosen = np.linspace(0, len(flat) - 1, min(most, len(flat))).astype(int)
    mean, variance = _moments(posterior.density, flat[chosen])
    return Moments(np.asarray(mean), np.asarray(variance))


def marginalised_scaling(posterior: Posterior) -> tuple[Marginalised, ...]:
    """Contrast and offset by name; nothing where they were sampled or fixed.

    Mean: that of the conditional means; variance: mean of the conditional variances and variance of
    the conditional means.
    """
    if posterior.density.labels:
        return tuple(
            one._replace(name=f"{one.name}[{label}]")
            for label, part in posterior.parts.items()
            for one in marginalised_scaling(part)
        )
    if not isinstance(posterior.density.treatment, MarginalisedScaling):
        return ()
    found = conditional_scaling(posterior)
    mean = found.mean.mean(axis=0)
    sd = np.sqrt(found.variance.mean(axis=0) + found.mean.var(axis=0))
    single = isinstance(posterior.density.term.scaling, Averaged)
    return tuple(
        Marginalised(
            kind if single else f"{kind}[{a}]",
            float(mean[a, k]),
            float(sd[a, k]),
            posterior.per_angle[..., a, k],
        )
        for k, kind in enumerate(("contrast", "offset"))
        for a in range(1 if single else len(mean))
    )
