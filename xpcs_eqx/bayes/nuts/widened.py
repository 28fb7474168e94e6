"""A log posterior whose likelihood is as wide as the quoted errors of a fit are large."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...errors import ModelError
from ...fitting import Fit
from ...objective.combined import is_likelihood
from ...uncertainty import inverse_of
from ...uncertainty.uncertainty import touched
from ..density.likelihood import SampledSigma
from ..density.log_posterior import Adjustment, LogPosterior
from ..diagnostics import LARGER, widening
from .starts import information, local_coordinates


class Widened(NamedTuple):
    """A density with what is to be said of the width of its likelihood."""

    density: LogPosterior
    notes: tuple[str, ...]


def widened(
    density: LogPosterior,
    theta: Float[np.ndarray, "entry"],
    fit: Fit | None,
    asked: bool | None,
) -> Widened:
    """The density with its likelihood widened about the fit to the quoted errors.

    The prior stays as it is. By default that is done for the likelihood of speckle, which is that
    of Gaussian intensities, and for least squares without a sigma where the quoted errors are
    larger than those of independent pairs. What is on a bound of the fit stays at `theta`, which
    has coordinates.

    **Raises:** `ModelError` where it is `asked` for and there is no fit, or no finite errors.
    """
    if not (asked or (asked is None and fit is not None and _speckle(density, fit))):
        return Widened(density, ())
    try:
        density = dataclasses.replace(density, adjustment=_adjustment(density, theta, fit))
    except ModelError as error:
        if asked:
            raise
        return Widened(density, (str(error),))
    assert fit is not None
    if is_likelihood(fit.objective):
        what = "the likelihood of speckle is that of Gaussian intensities, and is"
    else:
        what = (
            "the likelihood takes pairs as independent, which would make draws up to "
            f"{widening(fit):.2g} times too narrow, and is"
        )
    return Widened(
        density,
        (
            f"{what} stretched about the fit until it is as wide as the quoted "
            f"({fit.uncertainty.chosen}) errors say (Chandler and Bate, 2007); the prior is not",
        ),
    )


def _speckle(density: LogPosterior, fit: Fit) -> bool:
    if is_likelihood(fit.objective):
        return True
    sampled, chosen = isinstance(density.noise, SampledSigma), fit.uncertainty.chosen
    return sampled and chosen != "classical" and widening(fit) >= LARGER


def _adjustment(density: LogPosterior, theta, fit: Fit | None) -> Adjustment:
    """C = (H⁻¹ V⁻¹)^½ with H the curvature of −ln likelihood and V the quoted covariance.

    That root, unlike those by Cholesky factors, is the same in any linear coordinates.

    **Raises:** `ModelError` without a fit, or where its errors are not finite.
    """
    if fit is None:
        raise ModelError(
            "the likelihood is stretched about a fit, and there is none; give the fit, or a start "
            "with one"
        )
    uncertainty, names = fit.uncertainty, density.names
    variance = float(uncertainty.residual_variance)
    if is_likelihood(fit.objective):
        # It is in units of probability, while classical errors follow the deviance.
        variance = 1.0
    elif not isinstance(density.noise, SampledSigma):
        variance = float(density.noise.sigma(jnp.zeros(0))) ** 2
    places = np.array([fit.names.index(name) for name in names if name in fit.names])
    inside, theta = np.asarray(theta), np.full(len(names), np.sqrt(variance))
    theta[: places.size] = np.asarray(fit.values)[places]
    quoted, inverse, own = _covariances(density, theta, fit, variance, places)
    held = np.setdiff1d(np.arange(places.size), own)
    theta[held] = inside[held]
    u, jacobian = (np.asarray(a) for a in local_coordinates(density.coordinates, theta))
    unit = np.sqrt(np.diagonal(quoted))
    factor = np.linalg.cholesky(quoted / np.outer(unit, unit))
    # Similar to H⁻¹ V⁻¹, and symmetric.
    turned = np.linalg.solve(factor, np.linalg.solve(factor, inverse / np.outer(unit, unit)).T)
    values, vectors = np.linalg.eigh(0.5 * (turned + turned.T))
    root = factor @ (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    root = unit[:, None] * np.linalg.solve(factor.T, root.T).T / unit
    slopes = jacobian[np.ix_(own, own)]
    matrix = np.eye(len(names))
    matrix[np.ix_(own, own)] = np.linalg.solve(slopes, root @ slopes)
    if not (np.isfinite(matrix).all() and np.isfinite(u).all()):
        raise ModelError(
            "the likelihood is not stretched to the quoted errors of the fit: it ended where "
            "parameters have no unconstrained coordinates, at an end of their priors"
        )
    return Adjustment(u, matrix)


def _covariances(density: LogPosterior, theta, fit: Fit, variance: float, places: np.ndarray):
    """V and H⁻¹ among the sampled entries that are not on a bound, and which these are."""
    every = np.asarray(fit.uncertainty.covariance)
    diagonal = np.diagonal(every)
    lost = [fit.names[i] for i in places if not np.isfinite(diagonal[i])]
    moving = diagonal > 0
    own = np.flatnonzero(moving[places])
    curvature = information(density, theta, fit, float(np.sqrt(variance)))
    chosen = np.zeros(len(density.names), bool)
    chosen[own] = True
    inverse, _, _, steps = inverse_of(curvature, chosen)
    lost += [density.names[i] for i in np.flatnonzero(touched(steps))]
    if lost or not own.size:
        raise ModelError(
            "the likelihood is not stretched to the quoted errors of the fit, which are not "
            f"finite: {', '.join(dict.fromkeys(lost)) or 'all is on its bounds'}"
        )
    quoted, inverse = every[np.ix_(places[own], places[own])], inverse[np.ix_(own, own)]
    if fit.objective.penalties:
        # They are a part of the prior: what the data alone would say has another covariance.
        with_penalties = inverse_of(np.asarray(fit.joint_hessian) / variance, moving)[0]
        with_penalties = with_penalties[np.ix_(places[own], places[own])]
        back = inverse @ np.linalg.inv(with_penalties)
        quoted = back @ quoted @ back.T
    return quoted, inverse, own
