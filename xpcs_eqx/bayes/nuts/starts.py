"""Where chains begin and which metric they begin with."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...arguments import check_fields
from ...compiling import quick_jit
from ...errors import ModelError
from ...fitting import Fit
from ...objective.penalties import penalty_equations
from ...parameters.parameter_map import plain_parameters
from ..density.log_posterior import LogPosterior

# Width of a prior in unconstrained coordinates, which are logarithms, logits and the like.
PRIOR_WIDTH = 2.0
# Steps uphill at most, and the gain in ln density below which they are not worth their cost.
_STEPS, _GAIN = 50, 0.1
# Length of the first step at most, in standard deviations: the Gaussian is no guide further away,
# unless longer and longer steps are found good.
_FAR = 4.0


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

    __check_init__ = check_fields

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
def local_coordinates(coordinates, theta):
    u = coordinates.from_physical(theta)
    return u, jax.jacfwd(coordinates.to_physical)(u)


@quick_jit
def _inside(coordinates, z):
    """Whether places are far enough from the ends of all intervals to be told from them."""
    back = jax.vmap(lambda one: coordinates.from_physical(coordinates.to_physical(one)))(z)
    return jnp.all(jnp.abs(back - z) < 0.01, axis=1)


@quick_jit
def _physical(coordinates, z):
    return coordinates.to_physical(z)


@quick_jit
def _prior(density, theta):
    """Gradient and curvature of ln prior, the penalties included."""
    gradient = jax.grad(density.log_prior)
    return gradient(theta), jax.jacfwd(gradient)(theta)


def recentred(density: LogPosterior, centre, scale) -> LogPosterior:
    """The density with its coordinates z = 0 at `centre` and in units of `scale`."""
    return eqx.tree_at(
        lambda d: (d.coordinates.centre, d.coordinates.scale),
        density,
        (np.asarray(centre), np.asarray(scale)),
    )


@quick_jit
def _of_penalties(parameters, penalties, noise, x):
    """What penalties add to the curvature of the cost in the physical parameters."""
    return penalty_equations(penalties, plain_parameters(parameters), x, noise).hessian


@quick_jit
def _links(density, theta):
    """Derivatives of the entries of each data set by those of the whole."""
    return jax.jacfwd(density.local)(theta)


def information(density: LogPosterior, theta: np.ndarray, fit: Fit, sigma: float) -> np.ndarray:
    """Curvature of −ln likelihood in the entries at the fit, marginalised coefficients left out.

    `theta`: the entries there; `sigma`: of the residuals. Before any `Adjustment`.
    """
    if not density.labels:
        return _of_data_set(density, fit, sigma)
    links = (np.asarray(link) for link in _links(density, theta))
    each = zip(density.parts, fit.data_sets, links, strict=True)
    found = [link.T @ _of_data_set(part, own, sigma) @ link for part, own, link in each]
    return np.sum(found, axis=0)


def _of_data_set(density: LogPosterior, fit: Fit, sigma: float) -> np.ndarray:
    """`information` of one data set."""
    p, k = density.parameters.n_free, fit.index.scaling.stop
    order = np.r_[k : k + p, 0:k]
    whole = np.array(fit.joint_hessian)[np.ix_(order, order)]
    if fit.objective.penalties:
        # They are a part of the prior.
        x = np.asarray(fit.values)[fit.index.physical]
        term = fit.objective.term
        whole[:p, :p] -= _of_penalties(term.parameters, fit.objective.penalties, term.noise, x)
    whole /= sigma**2
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


def _gaussian(density: LogPosterior, theta: np.ndarray, fit: Fit):
    """The Gaussian about a place in coordinates u: centre, scale and correlations.

    And the gradient of the prior there in these units. Directions in which the prior is not
    log-concave are left to the data.
    """
    u, jacobian = (np.asarray(a) for a in local_coordinates(density.coordinates, theta))
    gradient, curvature = (np.asarray(a) for a in _prior(density, theta))
    values, vectors = np.linalg.eigh(-0.5 * (curvature + curvature.T))
    convex = vectors * np.maximum(values, 0.0) @ vectors.T
    # Of a sigma that is given it does not matter which entry is last.
    sigma = float(density.noise.sigma(jnp.asarray(theta[-1:])))
    seen = jacobian.T @ information(density, theta, fit, sigma) @ jacobian
    if density.adjustment is not None:
        stretched = np.asarray(density.adjustment.matrix)
        seen = stretched.T @ seen @ stretched
    precision = seen + jacobian.T @ convex @ jacobian + np.eye(len(u)) / PRIOR_WIDTH**2
    covariance = np.linalg.inv(precision)
    scale = np.sqrt(np.diagonal(covariance))
    return u, scale, covariance / np.outer(scale, scale), scale * (jacobian.T @ gradient)


def _climbed(density: LogPosterior, metric: np.ndarray, count: int) -> np.ndarray:
    """A place of higher density than zero: steps along metric · gradient, `count` lengths at once.

    No more than is needed to leave a place that the prior all but excludes.
    """
    from .nuts import values_at

    z = np.zeros(len(metric))
    values, gradients = values_at(density, np.tile(z, (count, 1)))
    best, gradient = values[0], gradients[0]
    lengths, far = 0.25 ** np.arange(count), _FAR
    for _ in range(_STEPS):
        if not np.all(np.isfinite(gradient)):
            break
        step = metric @ gradient
        step *= min(1.0, far / np.sqrt(gradient @ step))
        tried = z + lengths[:, None] * step
        values, gradients = values_at(density, tried)
        usable = np.isfinite(values) & np.asarray(_inside(density.coordinates, tried))
        k = int(np.argmax(np.where(usable, values, -np.inf)))
        if usable[k] and values[k] > best + _GAIN:
            z, best, gradient = tried[k], values[k], gradients[k]
            lengths, far = 0.25 ** np.arange(count), (4 * far if k == 0 else _FAR)
        elif lengths[0] < 1e-6:
            break
        else:
            lengths = lengths * lengths[-1] / 4
    return z


class LaplaceStart(AbstractStart):
    """From the least-squares fit: its optimum, and its covariance as dense metric.

    Where the priors contradict the fit by more than a standard deviation, from a place uphill of
    it. Weak directions are kept finite by a prior of width 2 in unconstrained coordinates. Chains
    begin `spread` times as far out as the posterior is wide.
    """

    wants_fit: ClassVar[bool] = True
    spread: float = 1.5

    def begin(self, density, theta, fit, chains, key):
        if fit is None:
            raise ModelError("LaplaceStart needs the fit whose covariance it uses")
        u, scale, metric, pull = _gaussian(density, np.asarray(theta), fit)
        if not pull @ metric @ pull < 1.0:
            here = recentred(density, u, scale)
            theta = np.asarray(_physical(here.coordinates, _climbed(here, metric, chains)))
            u, scale, metric, _ = _gaussian(density, theta, fit)
        normal = np.asarray(jax.random.normal(key, (chains, len(u))))
        positions = self.spread * normal @ np.linalg.cholesky(metric).T
        return Beginning(
            recentred(density, u, scale),
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
        u, _ = (np.asarray(a) for a in local_coordinates(density.coordinates, theta))
        size = len(u)
        away = jax.random.uniform(key, (chains, size), float, -self.jitter, self.jitter)
        density = recentred(density, u, np.ones(size))
        return Beginning(density, np.asarray(away), np.eye(size), 0.1, "window adaptation alone")


class PathfinderStart(AbstractStart):
    """From the Gaussian that Pathfinder finds along an L-BFGS path from the start values.

    `draws` from it make the metric; the chains begin at the first of them.
    """

    wants_fit: ClassVar[bool] = False
    draws: int = eqx.field(static=True, default=1000)

    def begin(self, density, theta, fit, chains, key):
        from .nuts import pathfinder_draws

        u, _ = (np.asarray(a) for a in local_coordinates(density.coordinates, theta))
        size = len(u)
        density = recentred(density, u, np.ones(size))
        found = np.asarray(pathfinder_draws(density, jnp.zeros(size), self.draws, key))
        centre, spread = found.mean(axis=0), found.std(axis=0)
        density = recentred(density, u + centre, spread)
        scaled = (found - centre) / spread
        metric = np.cov(scaled.T) + 1e-6 * np.eye(size)
        step_size = 1.0 / size**0.25
        return Beginning(density, scaled[:chains], metric, step_size, "start from Pathfinder")
