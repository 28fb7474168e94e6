"""Gaussian likelihood of a data set, with what becomes of contrast and offset, and of sigma."""

import math
from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...arguments import check_fields
from ...errors import ModelError
from ...objective import (
    AbstractTiles,
    NormalEquations,
    ShotScaling,
    TwoTimeTerm,
    block_correlation,
)
from ...objective.kernel.frame_table import FrameTable, frame_table
from ...objective.likelihood import SampleCovariances, half_deviance
from ...parameters import ParameterMap
from ...scaling import AbstractScaling
from ..priors.families import AbstractPrior, HalfNormal, Normal, Number, TruncatedNormal, number
from .tile_likelihood import data_cost, scaling_statistics

_LOG_2PI = math.log(2 * math.pi)


class AbstractScalingTreatment(eqx.Module):
    """What a sampler does with the coefficients of a scaling."""

    @abstractmethod
    def sampled_names(self, scaling: AbstractScaling) -> tuple[str, ...]:
        """Names of the coefficients that are entries of the sampled vector."""

    @abstractmethod
    def prepare(
        self, scaling: AbstractScaling, priors: tuple[AbstractPrior, ...]
    ) -> "AbstractScalingTreatment":
        """This, knowing the priors of all coefficients of the scaling.

        **Raises:** `ModelError` for priors it cannot work with.
        """

    @abstractmethod
    def chi2(
        self,
        term: TwoTimeTerm,
        table: FrameTable,
        coefficients: Float[Array, "sampled"],
        sigma: Float[Array, ""],
    ) -> Float[Array, ""]:
        """−2 ln of the likelihood, without the factor (2πσ²)^(−n/2)."""

    @abstractmethod
    def per_angle(
        self,
        term: TwoTimeTerm,
        table: FrameTable,
        coefficients: Float[Array, "sampled"],
        sigma: Float[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, "angle 2"]:
        """(contrast, offset) of each angle that belong to one draw."""


class _AbstractSampled(AbstractScalingTreatment):
    """Coefficients are sampled like any parameter; with `Fixed` scaling there are none."""

    def sampled_names(self, scaling):
        return scaling.names

    def prepare(self, scaling, priors):
        return self

    def per_angle(self, term, table, coefficients, sigma, key):
        return term.scaling.per_angle(coefficients)


class SampledScaling(_AbstractSampled):
    """Coefficients are sampled like any parameter, under least squares."""

    def chi2(self, term, table, coefficients, sigma):
        tiles = _in_memory(term)
        return 2 * data_cost(table, term.scaling.per_angle(coefficients), tiles) / sigma**2


class SpecklePixels(_AbstractSampled):
    """As `SampledScaling` under the likelihood of speckle, which needs levels of shot noise too.

    - `blocks`: the maps as sample covariances of their pixels.
    """

    blocks: SampleCovariances

    def chi2(self, term, table, coefficients, sigma):
        assert isinstance(term.scaling, ShotScaling)
        return 2 * half_deviance(table, term.scaling.levels(coefficients), self.blocks) / sigma**2


class Conditional(NamedTuple):
    """The Gaussian of coefficients given everything else.

    With D = diag(`unit`) and L = `factor` its precision is D L Lᵀ D, and its mean
    `origin` + D⁻¹ L⁻ᵀ·`half`.
    """

    origin: Float[Array, "coefficient"]
    unit: Float[Array, "coefficient"]
    factor: Float[Array, "coefficient coefficient"]
    half: Float[Array, "coefficient"]

    def mean(self, noise: Float[Array, "coefficient"] | float = 0.0) -> Float[Array, "coefficient"]:
        """The mean; with standard normal `noise` a draw."""
        right = self.half + noise
        away = jax.scipy.linalg.solve_triangular(self.factor, right, lower=True, trans=1)
        return self.origin + away / self.unit

    def variances(self, rows: Float[Array, "number coefficient"]) -> Float[Array, "number"]:
        """Variance of rows·coefficients, which is |L⁻¹ D⁻¹ row|²."""
        spread = jax.scipy.linalg.solve_triangular(self.factor, (rows / self.unit).T, lower=True)
        return jnp.sum(spread**2, axis=0)


class MarginalisedScaling(AbstractScalingTreatment):
    """Coefficients are integrated out under Gaussian priors, exactly.

    The likelihood is Gaussian in them, so that with e the coefficients less those at the reference,
    chi² = 2C + 2gᵀe + eᵀHe and e ~ N(m, S) the integral is that of a Gaussian with precision
    H/σ² + S⁻¹. The integral is over the whole line: `sample` refuses truncated priors whose ends
    (by default the bounds of the fit) are within six standard deviations of the fit, and remarks on
    draws beyond an end. Draws of contrast and offset are made afterwards from their conditional
    distribution. Each gradient takes two passes over the data.

    - `mean`, `sd`, `lower`, `upper`: of the priors, which `prepare` fills in.
    """

    mean: Float[Array | np.ndarray, "coefficient"] | None = None
    sd: Float[Array | np.ndarray, "coefficient"] | None = None
    lower: Float[Array | np.ndarray, "coefficient"] | None = None
    upper: Float[Array | np.ndarray, "coefficient"] | None = None

    def sampled_names(self, scaling):
        return ()

    def prepare(self, scaling, priors):
        if scaling.size == 0:
            return SampledScaling()
        found = [_gaussian(name, p) for name, p in zip(scaling.names, priors, strict=True)]
        rows = [(p.mean, p.sd, *p.support) for p in found]
        return MarginalisedScaling(*np.asarray(rows, float).reshape(-1, 4).T)

    def conditional(
        self, term: TwoTimeTerm, table: FrameTable, sigma: Float[Array, ""]
    ) -> tuple[Float[Array, ""], "Conditional"]:
        """Chi² with the coefficients integrated out, and their Gaussian given all else."""
        assert self.mean is not None
        assert self.sd is not None
        sums = scaling_statistics(table, term.reference, _in_memory(term))
        constant, gradient, hessian, origin = _in_coefficients(sums, term)
        mean = self.mean - origin
        precision = hessian / sigma**2 + jnp.diag(1 / self.sd**2)
        right = mean / self.sd**2 - gradient / sigma**2
        # With unit diagonal, which keeps contrasts and offsets of any scale apart.
        unit = jnp.sqrt(jnp.diagonal(precision))
        factor = jnp.linalg.cholesky(precision / jnp.outer(unit, unit))
        half = jax.scipy.linalg.solve_triangular(factor, right / unit, lower=True)
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)) + jnp.log(unit) + jnp.log(self.sd))
        chi2 = 2 * constant / sigma**2 + jnp.sum((mean / self.sd) ** 2) - half @ half + log_det
        return chi2, Conditional(origin, unit, factor, half)

    def chi2(self, term, table, coefficients, sigma):
        return self.conditional(term, table, sigma)[0]

    def per_angle(self, term, table, coefficients, sigma, key):
        _, found = self.conditional(term, table, sigma)
        noise = jax.random.normal(key, found.half.shape, found.half.dtype)
        return term.scaling.per_angle(found.mean(noise))


def _in_memory(term: TwoTimeTerm) -> AbstractTiles:
    assert isinstance(term.tiles, AbstractTiles)
    return term.tiles


def _gaussian(name: str, prior: AbstractPrior) -> Normal | TruncatedNormal:
    if not isinstance(prior, Normal | TruncatedNormal):
        raise ModelError(
            f"the prior of {name} is a {type(prior).__name__}, but marginalised scaling needs "
            "Gaussian ones; give a Normal prior or use SampledScaling"
        )
    return prior


def _in_coefficients(sums: NormalEquations, term: TwoTimeTerm):
    """Cost at the origin, gradient and curvature in the coefficients, and the origin."""
    scaling = term.scaling
    # Near the reference, about which the sums were formed: what is subtracted stays small.
    origin = scaling.from_per_angle(term.reference)
    step = scaling.per_angle(origin) - term.reference
    curved = jnp.einsum("ast,at->as", sums.hessian, step)
    cost = jnp.sum(sums.cost) + jnp.sum(step * (sums.gradient + 0.5 * curved))
    gradient = jnp.einsum("ask,as->k", scaling.basis, sums.gradient + curved)
    hessian = jnp.einsum("ask,ast,atl->kl", scaling.basis, sums.hessian, scaling.basis)
    return cost, gradient, hessian, origin


class AbstractNoise(eqx.Module):
    """The standard deviation of the weighted residuals."""

    @abstractmethod
    def prior(self, scale: float) -> AbstractPrior | None:
        """Prior of sigma, from a robust scale of the residuals; None when it is no parameter."""

    @abstractmethod
    def sigma(self, entries: Float[Array, "sampled"]) -> Float[Array, ""]:
        """Sigma from its entries of the sampled vector, one or none."""


class SampledSigma(AbstractNoise):
    """One unknown factor of all sigmas, with a half-normal prior from the residuals by default."""

    given: AbstractPrior | None = None

    __check_init__ = check_fields

    def prior(self, scale):
        return HalfNormal(scale) if self.given is None else self.given

    def sigma(self, entries):
        return entries[0]


class GivenSigma(AbstractNoise):
    """A known sigma in units of the weights: 1 when the data carry absolute ones."""

    value: Number = number(1.0)

    def __check_init__(self):
        # The same rule as for the width of a prior.
        HalfNormal(self.value)

    def prior(self, scale):
        return None

    def sigma(self, entries):
        return jnp.asarray(self.value)


class DataLikelihood(eqx.Module):
    """ln p(data | θ) of one data set with θ = (free parameters, sampled coefficients, sigma).

    Sigma is an entry where it is sampled. `n_pairs`: number of pairs with a weight.
    """

    term: TwoTimeTerm
    treatment: AbstractScalingTreatment
    noise: AbstractNoise
    n_pairs: Number

    @property
    def parameters(self) -> ParameterMap:
        """The free physical parameters, which are their own coordinates here."""
        return self.term.parameters

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Names of the sampled coefficients of contrast and offset."""
        return self.treatment.sampled_names(self.term.scaling)

    def split(self, theta: Float[Array, "entry"]):
        """Physical parameters, scaling coefficients, sigma."""
        p = self.parameters.n_free
        k = p + len(self.coefficients)
        return theta[:p], theta[p:k], self.noise.sigma(theta[k:])

    def table(self, x: Float[Array, "free"]) -> FrameTable:
        """Features of the model at physical parameters."""
        return frame_table(self.parameters, x, self.term.t, self.term.geometry, False)

    def __call__(self, theta: Float[Array, "entry"]) -> Float[Array, ""]:
        """The log likelihood, marginalised coefficients integrated out."""
        x, coefficients, sigma = self.split(theta)
        chi2 = self.treatment.chi2(self.term, self.table(x), coefficients, sigma)
        # −n ln σ − n/2 ln 2π comes before the exponent.
        return -self.n_pairs * (jnp.log(sigma) + 0.5 * _LOG_2PI) - 0.5 * chi2


@eqx.filter_jit
def _residuals(term, table, per_angle, rows):
    def one(row):
        block = term.tiles.block(row)
        scaling = per_angle[block.angle]
        model = scaling[1] + scaling[0] * block_correlation(table, block)
        return block.root_weights * (model - block.values), block.root_weights > 0

    return jax.lax.map(one, rows)


# Enough for a median, few enough for memory.
_TILES = 48


def residual_scale(
    term: TwoTimeTerm, table: FrameTable, per_angle: Float[Array, "angle 2"]
) -> float:
    """Robust standard deviation of the weighted residuals: 1.4826 times their median size."""
    rows = np.asarray(_in_memory(term).table)
    rows = rows[:: -(-rows.shape[0] // _TILES)]
    residuals, used = _residuals(term, table, per_angle, rows)
    sizes = np.abs(np.asarray(residuals)[np.asarray(used)])
    return 1.482602218505602 * float(np.median(sizes))
