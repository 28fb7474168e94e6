"""What keeps the chains of a shard where the posterior of all data is, and its removal.

In K shards a posterior is √K times as wide as that of all data, so that it leaves the region in
which that one is Gaussian: its mean is shifted by skewness K times as far, and so is the product.
"""

from abc import abstractmethod
from typing import NamedTuple, TypeAlias

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ...arguments import Share, check_fields
from ...errors import FitError
from ..density.coordinates import Coordinates
from .combiners import Matrices, ShardDraws, modified_z_scores

# Least precision of a shard along any direction, in units of the mean of all shards.
_LEAST = 0.01
# Modified z-score above which a shard is no measure for the others.
_LIMIT = 3.5


Matrix: TypeAlias = Float[np.ndarray, "entry entry"]


class Site(NamedTuple):
    """The Gaussian a shard stands for: its log density is pull·z − ½ zᵀ·precision·z + const.

    `effective` is the number of independent draws whose covariance would be known as well.
    """

    precision: Float[np.ndarray, "... entry entry"]
    pull: Float[np.ndarray, "... entry"]
    effective: Float[np.ndarray, "..."]


def site_of(
    z: Float[np.ndarray, "draw entry"], gradient: Float[np.ndarray, "draw entry"], share: float
) -> Site:
    """The line −gradient ≈ precision·z − pull through draws of any density.

    By Stein's identity Cov(z, −∇ ln p) is the unit matrix for draws of p, so that the slope is the
    inverse covariance and the root the mean of p. A Gaussian factor of p adds its own precision
    and pull exactly, whatever the draws: left out of the gradient, it is divided out of p, without
    the noise that a difference of sample moments would have. `share` is that of effective draws.
    """
    n, size = z.shape
    centre, sd = z.mean(axis=0), z.std(axis=0)
    white = (z - centre) / sd
    slope = np.linalg.lstsq(white, -(gradient * sd), rcond=None)[0]
    left = -(gradient - gradient.mean(axis=0)) * sd - white @ slope
    precision = 0.5 * (slope + slope.T)
    # Squared errors of the slope in units of the precision, summed over its entries.
    values, vectors = np.linalg.eigh(precision)
    inverse = vectors / np.maximum(np.abs(values), 1e-300) @ vectors.T
    spread = np.linalg.pinv(white.T @ white)
    noise = np.trace(inverse @ left.T @ left) * np.trace(inverse @ spread)
    noise /= max(n - size - 1, 1) * share
    effective = (size**2 + size) / max(noise, 1e-9)
    precision = precision / np.outer(sd, sd)
    return Site(precision, gradient.mean(axis=0) + precision @ centre, np.asarray(effective))


class NoCommonMaximum(FitError):
    """Shards whose product has no maximum near the fit, so that their anchor cannot be removed."""


class AbstractAnchor(eqx.Module):
    """A Gaussian about z = 0 that the density of every shard is multiplied with."""

    @abstractmethod
    def precision(self, metric: Matrix, n_shards: int) -> Matrix:
        """Its precision, from the covariance of the whole posterior at its start."""

    @abstractmethod
    def removed(
        self, shards: ShardDraws, sites: Site, coordinates: Coordinates
    ) -> tuple[ShardDraws, tuple[str, ...]]:
        """Draws as from the shards without it, and what is to be said of it.

        **Raises:** `NoCommonMaximum` where the shards contradict each other so much that this is
        not possible.
        """


class NoAnchor(AbstractAnchor):
    """Shards by themselves: for starts without a fit, and where shards may have several modes."""

    def precision(self, metric, n_shards):
        return np.zeros_like(metric)

    def removed(self, shards, sites, coordinates):
        return shards, ()


class LaplaceAnchor(AbstractAnchor):
    """The Laplace approximation of the fit, without the part of a shard: the cavity of EP.

    A pass of expectation propagation (Vehtari et al., JMLR 21, 17 (2020)). With the factor
    1 − 1/K of the precision of all data every shard is about as wide as the whole posterior, and
    the skewness of all shards together counts once. `share` of that factor is taken; a smaller one
    trusts the fit less and counts the skewness K/(1 + share·(K − 1)) times.

    The data are not used twice: the factor is divided out again, exactly to Gaussian order
    (`site_of`), and the draws are moved to the mean and covariance that are left, before anything
    is combined or set aside. What remains of the fit is where the chains were. A mode far from the
    fit is therefore not seen: sample with `NoAnchor()` to look for one.

    One pass accounts for the shift and for the width to first order in curvature. A posterior bent
    by more than its own width comes out too narrow, which `ImportanceCorrection` puts right.
    """

    share: Share = eqx.field(static=True, default=1.0)

    __check_init__ = check_fields

    def precision(self, metric, n_shards):
        return self.share * (1 - 1 / n_shards) * np.linalg.inv(metric)

    def removed(self, shards, sites, coordinates):
        precisions, note = positive(sites.precision)
        covariances = np.linalg.inv(precisions)
        means = np.einsum("kef,kf->ke", covariances, sites.pull)
        centre, scale = (np.asarray(a) for a in (coordinates.centre, coordinates.scale))
        draws = np.stack(
            [
                centre + scale * moved((draws - centre) / scale, mean, covariance)
                for draws, mean, covariance in zip(shards.draws, means, covariances, strict=True)
            ]
        )
        notes = (
            f"each of {len(draws)} shards anchored at the fit (share {self.share:g}), and the "
            "anchor divided out" + note,
        )
        return shards._replace(draws=draws, effective=sites.effective), notes


def moved(
    draws: Float[np.ndarray, "draw entry"], mean: Float[np.ndarray, "entry"], covariance: Matrix
) -> Float[np.ndarray, "draw entry"]:
    """Draws mapped linearly so that they have this mean and covariance."""
    factor = between(np.atleast_2d(np.cov(draws.T)), covariance)
    return mean + (draws - draws.mean(axis=0)) @ factor.T


def between(covariance: Matrix, wanted: Matrix) -> Matrix:
    """The linear map from a Gaussian of one covariance to that of the other."""
    return np.linalg.cholesky(wanted) @ np.linalg.inv(np.linalg.cholesky(covariance))


def positive(precisions: Matrices) -> tuple[Matrices, str]:
    """Precisions drawn towards their mean until each is positive, and words for it.

    By one share for all, which leaves their sum as it is: that some shards alone would have no
    maximum is chance, which cancels. Shards far from the others have a share of their own.

    **Raises:** `NoCommonMaximum` when not even the sum is positive.
    """
    middle = np.median(precisions, axis=0)
    sd = 1 / np.sqrt(np.abs(np.diagonal(middle)))
    away = np.linalg.norm((precisions - middle) * np.outer(sd, sd), axis=(1, 2))
    regular = modified_z_scores(away, np.finfo(float).eps) <= _LIMIT
    target = precisions[regular].mean(axis=0)
    if np.linalg.eigvalsh(target * np.outer(sd, sd))[0] <= 0:
        raise NoCommonMaximum(
            "the shards together have no maximum near the fit, so that the anchor cannot be "
            "divided out; narrow the priors, or sample with anchor=NoAnchor()"
        )
    # Eigenvalues where the target is the unit matrix.
    inverse = np.linalg.inv(np.linalg.cholesky(target))
    least = np.linalg.eigvalsh(inverse @ precisions @ inverse.T)[:, 0]
    needed = np.where(least < _LEAST, (_LEAST - least) / (1 - least), 0.0)
    # What chance has made negative stays uncertain by as much, and is to be no more than half.
    below = 2 * np.maximum(-least, 0.0)
    needed = np.maximum(needed, below / (1 + below))
    common = needed[regular].max()
    share = np.where(regular, common, np.maximum(needed, common))
    note = f"; precisions drawn towards their mean by {100 * common:.0f} %" if common > 0 else ""
    weight = share[:, None, None]
    return (1 - weight) * precisions + weight * target, note
