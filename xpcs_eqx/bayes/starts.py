"""Where chains begin and which metric they begin with."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..compiling import quick_jit
from ..errors import ModelError
from ..fitting import Fit
from .log_posterior import LogPosterior

# Width of a prior in unconstrained coordinates, which are logarithms, logits and the like.
_PRIOR_WIDTH = 2.0


class Beginning(NamedTuple):
    """A log density with coordinates about the start, positions, metric and step size."""

    density: LogPosterior
    positions: Float[np.ndarray, "chain entry"]
    metric: Float[np.ndarray, "entry entry"]
    step_size: float
    note: str


class AbstractStart(eqx.Module):
    """How a sampler begins; `wants_fit` asks for a least-squares fit beforehand."""

    wants_fit: ClassVar[bool]

    @abstractmethod
    def begin(
        self,
        density: LogPosterior,
        theta: Float[np.ndarray, "entry"],
        fit: Fit | None,
        chains: int,
        key: Key[Array, ""],
    ) -> Beginning:
        """Positions of the chains from a physical start `theta`."""


@quick_jit
def _local(coordinates, theta):
    u = coordinates.from_physical(theta)
    return u, jax.jacfwd(coordinates.to_physical)(u)


def _recentred(density: LogPosterior, centre, scale) -> LogPosterior:
    return eqx.tree_at(
        lambda d: (d.coordinates.centre, d.coordinates.scale),
        density,
        (np.asarray(centre), np.asarray(scale)),
    )


def _information(density: LogPosterior, fit: Fit, sigma: float) -> np.ndarray:
    """Curvature of −ln likelihood in the entries at the fit, marginalised coefficients left out."""
    p, k = density.parameters.n_free, fit.index.scaling.stop
    order = np.r_[k : k + p, 0:k]
    whole = np.asarray(fit.joint_hessian)[np.ix_(order, order)] / sigma**2
    sampled = len(density.treatment.sampled_names(density.term.scaling))
    if sampled < k:
        widths = np.asarray(getattr(density.treatment, "sd"))  # noqa: B009
        rest = whole[p:, p:] + np.diag(widths**-2.0)
        whole = whole[:p, :p] - whole[:p, p:] @ np.linalg.solve(rest, whole[p:, :p])
    size = len(density.names)
    out = np.zeros((size, size))
    out[: len(whole), : len(whole)] = whole
    if size > len(whole):  # sigma comes last
        out[-1, -1] = 2 * float(density.n_pairs) / sigma**2
    return out


class LaplaceStart(AbstractStart):
    """From the least-squares fit: its optimum, and its covariance as dense metric.

    Weak directions are kept finite by a prior of width 2 in unconstrained coordinates. Chains begin
    `spread` times as far out as the posterior is wide.
    """

    wants_fit: ClassVar[bool] = True
    spread: float = 1.5

    def begin(self, density, theta, fit, chains, key):
        if fit is None:
            raise ModelError("LaplaceStart needs the fit whose covariance it uses")
        u, jacobian = (np.asarray(a) for a in _local(density.coordinates, theta))
        if "sigma" in density.names:
            sigma = float(theta[-1])
        else:
            sigma = float(density.noise.sigma(jnp.zeros(0)))
        information = jacobian.T @ _information(density, fit, sigma) @ jacobian
        precision = information + np.eye(len(u)) / _PRIOR_WIDTH**2
        covariance = np.linalg.inv(precision)
        scale = np.sqrt(np.diagonal(covariance))
        metric = covariance / np.outer(scale, scale)
        normal = np.asarray(jax.random.normal(key, (chains, len(u))))
        positions = self.spread * normal @ np.linalg.cholesky(metric).T
        return Beginning(
            _recentred(density, u, scale),
            positions,
            metric,
            # Near the stability limit over the fourth root of the dimension.
            1.0 / len(u) ** 0.25,
            "start and metric from the least-squares fit",
        )


class PlainStart(AbstractStart):
    """From the start values of the objective with a unit metric, jittered by ±`jitter`."""

    wants_fit: ClassVar[bool] = False
    jitter: float = 0.1

    def begin(self, density, theta, fit, chains, key):
        u, _ = (np.asarray(a) for a in _local(density.coordinates, theta))
        size = len(u)
        away = jax.random.uniform(key, (chains, size), float, -self.jitter, self.jitter)
        density = _recentred(density, u, np.ones(size))
        return Beginning(density, np.asarray(away), np.eye(size), 0.1, "window adaptation alone")


class PathfinderStart(AbstractStart):
    """From the Gaussian that Pathfinder finds along an L-BFGS path from the start values.

    `draws` from it make the metric; the chains begin at the first of them.
    """

    wants_fit: ClassVar[bool] = False
    draws: int = eqx.field(static=True, default=1000)

    def begin(self, density, theta, fit, chains, key):
        from .nuts import pathfinder_draws

        u, _ = (np.asarray(a) for a in _local(density.coordinates, theta))
        size = len(u)
        density = _recentred(density, u, np.ones(size))
        found = np.asarray(pathfinder_draws(density, jnp.zeros(size), self.draws, key))
        centre, spread = found.mean(axis=0), found.std(axis=0)
        density = _recentred(density, u + centre, spread)
        scaled = (found - centre) / spread
        metric = np.cov(scaled.T) + 1e-6 * np.eye(size)
        step_size = 1.0 / size**0.25
        return Beginning(density, scaled[:chains], metric, step_size, "start from Pathfinder")
