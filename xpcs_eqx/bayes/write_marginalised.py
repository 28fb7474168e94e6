"""Contrast and offset that were integrated out: what is known of them all the same."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..scaling import Averaged
from .arviz_io import ess, rhat
from .density.likelihood import MarginalisedScaling
from .density.log_posterior import LogPosterior
from .posterior import Posterior

# Draws that moments are averaged over: enough, since nothing but the conditional means scatters.
_MOST = 1000
MARGINALISED = (
    "contrast and offset were marginalised, not sampled: mean and sd are those of their Gaussian "
    "distributions given each draw, by the laws of total expectation and variance; the other "
    "numbers are of one value of each drawn from these"
)


class Conditional(NamedTuple):
    """Mean and variance of contrast and offset given each draw."""

    mean: Float[np.ndarray, "draw angle 2"]
    variance: Float[np.ndarray, "draw angle 2"]


def is_marginalised(density: LogPosterior) -> bool:
    """Whether contrast and offset are unknown and no entries of the sampled vector."""
    return isinstance(density.treatment, MarginalisedScaling) and density.term.scaling.size > 0


@quick_jit
def _conditional(density: LogPosterior, theta: Float[Array, "draw entry"]):
    scaling = density.term.scaling
    treatment = density.treatment
    assert isinstance(treatment, MarginalisedScaling)

    def one(row):
        x, _, sigma = density.split(row)
        _, half, factor, unit, origin = treatment._gaussian(density.term, density.table(x), sigma)
        solved = jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans=1)
        # Of coefficients with precision (unit F)(unit F)ᵀ: |F⁻¹ b/unit|² for each row b.
        rows = (scaling.basis / unit).reshape(-1, scaling.size)
        spread = jax.scipy.linalg.solve_triangular(factor, rows.T, lower=True)
        variance = jnp.sum(spread**2, axis=0).reshape(-1, 2)
        return scaling.per_angle(origin + solved / unit), variance

    return jax.lax.map(one, theta)


class Marginalised(NamedTuple):
    """Contrast or offset of an angle that was integrated out; `draws` of it are conditional."""

    name: str
    mean: float
    sd: float
    draws: Float[np.ndarray, "chain draw"]

    def summary(self) -> dict[str, float | bool]:
        """As one entry of `Posterior.summary`."""
        low, high = np.quantile(self.draws, [0.03, 0.97])
        return {
            "mean": self.mean,
            "sd": self.sd,
            "low": float(low),
            "high": float(high),
            "rhat": rhat(self.draws),
            "ess_bulk": ess(self.draws, "bulk"),
            "ess_tail": ess(self.draws, "tail"),
            "marginalised": True,
        }


def conditional_scaling(posterior: Posterior, most: int = _MOST) -> Conditional:
    """The Gaussian distributions of contrast and offset of each angle given `most` of the draws.

    These are chosen evenly; each costs an evaluation of the data. The posterior has to be one with
    marginalised scaling.
    """
    flat = posterior.theta.reshape(-1, posterior.theta.shape[-1])
    chosen = np.linspace(0, len(flat) - 1, min(most, len(flat))).astype(int)
    mean, variance = _conditional(posterior.density, flat[chosen])
    return Conditional(np.asarray(mean), np.asarray(variance))


def marginalised_scaling(posterior: Posterior) -> tuple[Marginalised, ...]:
    """Contrast and offset by name; nothing where they were sampled or fixed.

    Mean: that of the conditional means; variance: mean of the conditional variances and variance of
    the conditional means.
    """
    if not is_marginalised(posterior.density):
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
