"""What is known at the optimum of a likelihood of speckle: equations, and the scatter of pixels."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..objective import Linear, Memo, NormalEquations, ProjectedObjective
from ..objective.elimination import index_layout
from ..objective.likelihood import SpeckleLikelihood
from ..objective.pixels import pixel_scores
from ..objective.scatter import SHOT_BOUNDS
from ..parameters import snap
from ..physics import field_correlation, field_factor
from ..physics.field import FIELD_TOLERANCE
from ..simulation import mode_weights, speckle_pixels
from .covariance import Optimum, ScoreCovariances, optimum, score_covariances

# Entries of all simulated pixels together, and how few pixels are simulated at least: a variance
# from P pixels has an error of some √(10/P), for their scores have long tails.
_ENTRIES, _FEWEST, _MOST = 4e5, 2000, 20_000
# Pixels for each frame beyond which they count as many.
_MANY = 1e4
# Of an interval of logarithms: to rounding.
_HALVINGS = 60
# Beyond these times the number of pixels that least squares has found, something else is wrong.
_SCALES = (0.25, 4.0)


class _Laid(NamedTuple):
    """Equations in the layout of `IndexMap`, of all and of penalties, and its columns by angle."""

    joint: NormalEquations
    penalty: NormalEquations
    columns: Float[Array, "angle column entry"]


@quick_jit
def _laid_out(likelihood: SpeckleLikelihood, y, parts: NormalEquations) -> _Laid:
    parameters, penalty = likelihood.physical, likelihood.penalty(y)
    turn = index_layout(parameters, y[: parameters.n_free], likelihood.shot_scaling.size)
    total = (likelihood.together(parts) + penalty).transform(turn)
    return _Laid(total, penalty.transform(turn), likelihood.columns() @ turn)


@quick_jit
def _field(likelihood: SpeckleLikelihood, y):
    """F with F F† the field correlation of the model at each angle, and the error of |c1|²."""
    term = likelihood.term
    model = term.parameters.build_from_coordinates(y[: likelihood.physical.n_free])
    return jax.lax.map(field_factor, field_correlation(model, term.t, term.geometry))


def likelihood_optimum(
    likelihood: SpeckleLikelihood, y: Float[Array, "variable"], memo: NormalEquations
) -> Optimum:
    """As `optimum`, for a likelihood of speckle."""
    joint, penalty, columns = _laid_out(likelihood, y, memo)
    parameters, scaling = likelihood.physical, likelihood.shot_scaling
    p = parameters.n_free
    coefficients = jnp.clip(y[p:], *scaling.bounds)
    low, high = scaling.bounds
    cost = joint.cost - penalty.cost
    return Optimum(
        joint=joint,
        penalty=penalty.hessian,
        # Those of contrast 1, as least squares has them.
        columns=columns[:, :-1],
        data_cost=cost,
        residual_sum=2 * cost,
        y=y[:p],
        coefficients=coefficients,
        per_angle=scaling.per_angle(coefficients),
        values=jnp.concatenate([coefficients, snap(parameters, parameters.to_physical(y[:p]))]),
        lower=jnp.concatenate([low, jnp.asarray(parameters.lower)]),
        upper=jnp.concatenate([high, jnp.asarray(parameters.upper)]),
        start=likelihood.start[p:],
    )


def least_squares_at(
    likelihood: SpeckleLikelihood, at: Optimum
) -> tuple[ProjectedObjective, Optimum]:
    """The least squares of the same maps, at the same parameters, contrast and offset."""
    term = dataclasses.replace(likelihood.term, scaling=likelihood.shot_scaling.inner)
    objective = ProjectedObjective(term.parameters, term, ())
    coefficients = at.coefficients[: term.scaling.size]
    equations = _sums(term, at.y, at.per_angle)
    return objective, optimum(objective, at.y, Memo(at.per_angle, coefficients, equations))


@quick_jit
def _sums(term, y, per_angle) -> NormalEquations:
    return term.angle_equations(y, per_angle, Linear())


@quick_jit
def _intensities(factor, weights, n_pixels, key):
    return speckle_pixels(factor, weights, None, n_pixels, key)


@quick_jit
def _pixel_scores(likelihood, y, number, pixels):
    return pixel_scores(likelihood, y, number, pixels - 1)


def likelihood_scores(
    likelihood: SpeckleLikelihood, at: Optimum, memo: NormalEquations
) -> ScoreCovariances:
    """As `score_covariances`, for a likelihood of speckle; `memo` is that of the optimum.

    The scatter of the gradient is that of simulated pixels with the correlation, contrast and
    counts of the fitted model: third and fourth cumulants, photon noise and the division of frames
    by their mean are all in it. Its size follows from the deviance, which the same pixels foretell.
    Where no field has the correlation of the model it is that of Gaussian intensities.
    """
    term, y = likelihood.term, jnp.concatenate([at.y, at.coefficients])
    levels = np.asarray(likelihood.levels(y))
    factors, errors = _field(likelihood, y)
    turned = np.asarray(_laid_out(likelihood, y, memo).columns)
    hessian, penalty = np.asarray(at.joint.hessian), np.asarray(at.penalty)
    middle, slope, gaussian = np.zeros_like(hessian), np.array(penalty), list[int]()
    deviance = 0.0
    scale = np.ones(levels.shape[0])
    n, frames = term.t.shape[0], int(np.asarray(likelihood.blocks.kept).sum(axis=-1).max())
    n_pixels = int(np.clip(_ENTRIES / n, _FEWEST, _MOST))
    for a, (contrast, _, shot) in enumerate(levels):
        factor, columns = factors[a], turned[a]
        if not float(errors[a]) < FIELD_TOLERANCE or not contrast > 0:
            own = np.asarray(memo.hessian[a])
            one, its_slope = own, own
            gaussian.append(a)
            deviance = np.nan
        else:
            single = jnp.complex64 if jnp.iscomplexobj(factor) else jnp.float32
            weights = jnp.asarray(mode_weights(min(float(contrast), 1.0)))
            key = jax.random.fold_in(jax.random.key(0), a)
            pixels = _intensities(factor.astype(single), weights, n_pixels, key)
            if shot > 10 * SHOT_BOUNDS[0]:
                # NumPy counts photons ten times as fast.
                counted = np.random.default_rng(a).poisson(np.asarray(pixels, float) / shot)
                pixels = jnp.asarray(counted * shot, pixels.dtype)
            found = _pixel_scores(likelihood, y, jnp.asarray(a), pixels)
            one, its_slope = np.asarray(found.covariance), np.asarray(found.slope)
            foretold, own = float(found.deviance), float(likelihood.n_pixels[a])
            deviance += foretold * _above_second_order(own, frames)
            # All entries of a map say how large its noise is, once they are independent; least
            # squares knew it from few.
            number = _pixels_of(2 * float(memo.cost[a]) / own, foretold, frames)
            scale[a] = np.clip(own / number, *_SCALES)
            one = scale[a] * one
        middle += columns.T @ one @ columns
        slope += columns.T @ its_slope @ columns
    if not likelihood.known_diagonal.all():
        # The estimate solves equations that are no gradient: A⁻¹ B A⁻ᵀ in the form H⁻¹ M H⁻¹.
        free = at.free
        back = np.zeros_like(hessian)
        index = np.ix_(free, free)
        # In units of each parameter: what counts as no slope is none of them then.
        unit = np.sqrt(np.maximum(np.diagonal(hessian)[free], 0.0))
        unit = np.where(unit > 0, unit, 1.0)
        units = np.outer(unit, unit)
        back[index] = hessian[index] @ (np.linalg.pinv(slope[index] / units, rcond=1e-12) / units)
        middle = back @ middle @ back.T
    squares, there = least_squares_at(likelihood, at)
    seen = score_covariances(squares, there)
    size = at.coefficients.shape[0]
    inner, free = squares.term.scaling.size, term.parameters.n_free
    kept = np.concatenate([np.arange(inner), size + np.arange(free)])
    matrix = np.eye(size + free)[kept]
    remains, decays = seen.remains, seen.decays
    if remains is not None:
        remains = remains.with_columns(matrix)._replace(followed=False)
    if decays is not None:
        decays = decays._replace(entries=decays.entries @ matrix)
    return ScoreCovariances(
        speckle=middle,
        dyadic=np.full_like(hessian, np.nan),
        own=np.zeros_like(hessian),
        hessian=hessian,
        influence=None,
        n_pixels=likelihood.n_pixels / scale,
        shot_noise=levels[:, 2],
        chosen="speckle",
        reason=_reason(likelihood, gaussian),
        by_angle=seen.by_angle,
        gram=seen.gram,
        remains=remains,
        decays=decays,
        deviance=deviance,
    )


def _above_second_order(n_pixels: float, frames: int) -> float:
    """By how much the deviance of Gaussian intensities is larger than it is of many pixels.

    From N log det of the sample covariance of N pixels and T frames, for which the deviance is
    N (T log ½N − Σ_k ψ(½(N − k + 1))), k = 1 … T, and ½ T (T + 1) where N is large (Anderson,
    An Introduction to Multivariate Statistical Analysis, ch. 7.5).
    """
    from scipy.special import digamma

    if n_pixels > _MANY * frames:
        return 1.0
    digammas = float(np.sum(digamma(0.5 * (n_pixels - np.arange(frames)))))
    whole = n_pixels * (frames * np.log(0.5 * n_pixels) - digammas)
    return float(whole) / (0.5 * frames * (frames + 1))


def _pixels_of(of_pixel: float, foretold: float, frames: int) -> float:
    """Number of pixels for which the deviance is the one that is found.

    - `of_pixel`: deviance over a number of pixels that was assumed; `foretold`: that of many.
    """
    # Between as many as frames, which have no inverse of their covariance, and no excess at all.
    low, high = float(frames), 2 * max(_MANY * frames, foretold / max(of_pixel, 1e-300))
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        if middle * of_pixel < foretold * _above_second_order(middle, frames):
            low = middle
        else:
            high = middle
    return high


def _reason(likelihood: SpeckleLikelihood, gaussian: list[int]) -> str:
    text = (
        "the likelihood of speckle, with the scatter of its gradient from simulated pixels of the "
        "fitted model"
    )
    if gaussian:
        text += (
            f"; at angles {gaussian} that of Gaussian intensities, which makes errors too small, "
            "for no Gaussian field has the correlation of this model"
        )
    if likelihood.n_blocks > 1:
        text += (
            f"; in {likelihood.n_blocks} blocks of {likelihood.blocks.kept.shape[1]} frames, so "
            "that pairs of frames of different blocks are left out, and with them some of the "
            "precision"
        )
    missing = np.flatnonzero(~likelihood.known_diagonal)
    if missing.size:
        text += (
            f"; at angles {missing.tolist()} without the raw diagonal, which cannot be used, and "
            "with the shot noise that makes the scatter of the other entries most likely"
        )
    return text
