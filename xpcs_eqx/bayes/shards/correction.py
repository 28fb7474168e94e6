"""Correction of combined draws by the log posterior of all data."""

from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ...arguments import Count, Within, check_fields
from ...compiling import quick_jit
from ...errors import FitError
from ..arviz_io import psis
from ..density.log_posterior import LogPosterior
from .combiners import generator_of

# Above it importance weights say little about what they correct (Vehtari et al., JMLR 25 (2024)).
PARETO = 0.7


class Corrected(NamedTuple):
    """Draws with what is known of their weights."""

    draws: Float[np.ndarray, "draw entry"]
    pareto_k: float
    effective: float
    notes: tuple[str, ...]


@quick_jit
def _log_densities(density, positions):
    return jax.lax.map(lambda z: density(z), positions)


class _Weighted(NamedTuple):
    """Proposals of a round with their smoothed weights."""

    draws: Float[np.ndarray, "draw entry"]
    weights: Float[np.ndarray, "draw"]
    pareto_k: float

    @property
    def effective(self) -> float:
        return float(1 / np.sum(self.weights**2))


class ImportanceCorrection(eqx.Module):
    """Importance resampling with the log posterior of all data.

    `proposals` come from a Student distribution with `degrees` degrees of freedom, mean and
    covariance of the combined draws; each costs one pass over all data. Weights are smoothed by a
    generalised Pareto tail, whose k above 0.7 means that the proposals are too far off to be
    corrected (Vehtari et al., JMLR 25 (2024)). Then they are made anew, from the weighted mean and
    covariance, up to `rounds` times in all (population Monte Carlo, Cappé et al., J. Computational
    and Graphical Statistics 13, 907 (2004)); the round with the least k is the result.
    """

    proposals: Annotated[int, Within(ge=100)] = eqx.field(static=True, default=2000)
    degrees: Annotated[float, Within(gt=2, finite=False)] = eqx.field(static=True, default=8.0)
    rounds: Count = eqx.field(static=True, default=4)

    __check_init__ = check_fields

    def __call__(
        self, z: Float[np.ndarray, "draw entry"], density: LogPosterior, key: Key[Array, ""]
    ) -> Corrected:
        """Draws closer to `density`, which is a function of the same coordinates z."""
        generator = generator_of(key)
        mean, covariance = z.mean(axis=0), np.atleast_2d(np.cov(z.T))
        done: list[_Weighted] = []
        while True:
            done.append(self._round(mean, covariance, density, generator))
            if done[-1].pareto_k <= PARETO or len(done) == self.rounds:
                break
            mean, covariance = _refitted(done[-1], covariance)
        best = min(done, key=lambda one: one.pareto_k)
        chosen = generator.choice(self.proposals, self.proposals, p=best.weights)
        note = f"importance correction: Pareto k {best.pareto_k:.2f}, "
        note += f"{best.effective:.0f} effective draws"
        if len(done) > 1:
            note += f" (k of {len(done)} rounds: "
            note += ", ".join(f"{one.pareto_k:.2f}" for one in done) + ")"
        if best.pareto_k > PARETO:
            note += (
                f"; k above {PARETO} means that the consensus is too far from the posterior of all "
                "data to be corrected: take larger shards or one run on all data"
            )
        return Corrected(best.draws[chosen], best.pareto_k, best.effective, (note,))

    def _round(self, mean, covariance, density, generator) -> _Weighted:
        size, nu = len(mean), self.degrees
        factor = np.linalg.cholesky(covariance * (nu - 2) / nu)
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
        return _Weighted(proposed, weights / weights.sum(), k)


def _refitted(found: _Weighted, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance by the weights; of the covariance as much as so few draws can tell."""
    mean = found.weights @ found.draws
    away = found.draws - mean
    # One draw alone has no covariance, and two have half of it.
    free = found.effective - 1
    scatter = found.effective * (found.weights[:, None] * away).T @ away
    return mean, (scatter + 2.0 * len(mean) * covariance) / (free + 2.0 * len(mean))
