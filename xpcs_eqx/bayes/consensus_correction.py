"""Correction of combined draws by the log posterior of all data."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ..compiling import quick_jit
from ..errors import FitError, ModelError
from .arviz_io import psis
from .combiners import generator_of
from .log_posterior import LogPosterior

# Above it importance weights say little about what they correct (Vehtari et al., JMLR 25 (2024)).
PARETO = 0.7


class Corrected(NamedTuple):
    """Draws with what is known of their weights; `pareto_k` is NaN where there were none."""

    draws: Float[np.ndarray, "draw entry"]
    pareto_k: float
    effective: float
    notes: tuple[str, ...]


class AbstractCorrection(eqx.Module):
    """What is done to combined draws."""

    @abstractmethod
    def __call__(
        self, z: Float[np.ndarray, "draw entry"], density: LogPosterior, key: Key[Array, ""]
    ) -> Corrected:
        """Draws closer to `density`, which is a function of the same coordinates z."""


class NoCorrection(AbstractCorrection):
    """Combined draws as they are."""

    def __call__(self, z, density, key):
        return Corrected(z, float("nan"), float(len(z)), ())


@quick_jit
def _log_densities(density, positions):
    return jax.lax.map(lambda z: density(z), positions)


class ImportanceCorrection(AbstractCorrection):
    """Importance resampling with the log posterior of all data.

    `proposals` come from a Student distribution with `degrees` degrees of freedom, mean and
    covariance of the combined draws; each costs one pass over all data. Weights are smoothed by a
    generalised Pareto tail, whose k above 0.7 means that the combination is too far off to be
    corrected (Vehtari et al., JMLR 25 (2024)).
    """

    proposals: int = eqx.field(static=True, default=2000)
    degrees: float = eqx.field(static=True, default=8.0)

    def __check_init__(self):
        if self.proposals < 100 or not self.degrees > 2:
            raise ModelError(
                f"proposals = {self.proposals}, degrees = {self.degrees}; they must be at least "
                "100 and above 2"
            )

    def __call__(self, z, density, key):
        generator = generator_of(key)
        size, nu = z.shape[1], self.degrees
        mean = z.mean(axis=0)
        factor = np.linalg.cholesky(np.atleast_2d(np.cov(z.T)) * (nu - 2) / nu)
        normal = generator.standard_normal((self.proposals, size))
        spread = np.sqrt(nu / generator.chisquare(nu, self.proposals))[:, None]
        proposed = mean + (normal * spread) @ factor.T
        squares = np.sum((normal * spread) ** 2, axis=1)
        # Student's density up to a constant, which drops out of the weights.
        log_proposal = -0.5 * (nu + size) * np.log1p(squares / nu)
        log_weights = np.asarray(_log_densities(density, proposed)) - log_proposal
        finite = np.isfinite(log_weights)
        if not np.any(finite):
            raise FitError(
                "the log posterior of all data is not finite at any of the combined draws; the "
                "shards contradict each other: look at their means and at what was dropped"
            )
        log_weights = np.where(finite, log_weights, log_weights[finite].min() - 700.0)
        smoothed, k = psis(log_weights)
        weights = np.exp(smoothed - smoothed.max())
        weights /= weights.sum()
        effective = float(1 / np.sum(weights**2))
        chosen = generator.choice(self.proposals, self.proposals, p=weights)
        note = f"importance correction: Pareto k {k:.2f}, {effective:.0f} effective draws"
        if k > PARETO:
            note += (
                f"; k above {PARETO} means that the consensus is too far from the posterior of all "
                "data to be corrected: take larger shards or one run on all data"
            )
        return Corrected(proposed[chosen], k, effective, (note,))
