"""The three covariances of a fit, from the equations at its optimum."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..compiled import Later
from ..compiling import plain_jit, quick_jit, zeros_like
from ..objective import (
    AbstractLoss,
    AbstractPieces,
    InfluenceSums,
    Linear,
    MapTiles,
    Memo,
    NormalEquations,
    StoredTiles,
    TwoTimeObjective,
    TwoTimeTerm,
    has_bins,
    on_one_device,
)
from ..objective.elimination import assemble, index_layout
from ..objective.two_time import angle_cost, loss_of
from ..parameters import snap
from .dyadic import (
    DyadicScores,
    ResidualSums,
    block_scores,
    dyadic_scores,
    mean_slopes,
    robust_noise,
    summed,
)
from .evidence import Evidence
from .misfit import Remains, powers_left
from .scores import SpeckleScores, lower_speckle_scores, speckle_scores
from .speckle_noise import diagonal_above
from .uncertainty import (
    BY_AGE,
    NO_DEGREES_OF_FREEDOM,
    NOTHING_HOLDS,
    OF_BINS,
    ONLY_CLASSICAL,
    ONLY_SIGMA,
    UNDETERMINED,
    Uncertainty,
    describe,
    inverse_of,
    residual_variance,
    scaled_inverse,
    with_open,
)

# A fit that has followed all but this part of the noise, in variance, cannot be judged by what it
# left: the size of the noise is then no better known than that, which is said.
_MOST_LOST = 100.0
# Ages of bins below which their scatter tells nothing.
_FEWEST_AGES = 4
# Eigenvalues of the dyadic covariance below this part of that of independent pairs are scatter.
_LEAST_DYADIC = 0.1


class Optimum(eqx.Module):
    """Everything about an optimum that error bars and tables need, in the layout of `IndexMap`.

    - `joint`: equations of (scaling coefficients, free physical parameters); `penalty`: the part
        of penalties in its matrix.
    - `columns`: matrix by angle from (coordinates, contrast, offset) columns to that layout.
    - `residual_sum`: Σ w r² whatever the loss.
    """

    joint: NormalEquations
    penalty: Float[Array, "entry entry"]
    columns: Float[Array, "angle column entry"]
    data_cost: Float[Array, ""]
    residual_sum: Float[Array, ""]
    y: Float[Array, "free"]
    coefficients: Float[Array, "coefficient"]
    per_angle: Float[Array, "angle 2"]
    values: Float[Array, "entry"]
    lower: Float[Array, "entry"]
    upper: Float[Array, "entry"]
    start: Float[Array, "coefficient"]

    @property
    def free(self) -> Bool[np.ndarray, "entry"]:
        """Which entries are not on a bound."""
        values = np.asarray(self.values)
        return (values > np.asarray(self.lower)) & (values < np.asarray(self.upper))


def optimum(objective: TwoTimeObjective, y: Float[Array, "variable"], memo: Memo) -> Optimum:
    """Collect what is known at the coordinates `y` from the memo of their evaluation."""
    term, linear_cost = objective.term, memo.equations.cost
    if not isinstance(loss_of(objective), Linear):
        part = y[: term.parameters.n_free]
        linear_cost = angle_cost(term, part, memo.scaling, Linear()).cost
    penalties = (objective.penalties, objective.scaling_penalties)
    return _optimum(
        term.parameters, term.scaling, term.reference, penalties, term.noise, y, memo, linear_cost
    )


@plain_jit
def _optimum(
    parameters, scaling, reference, penalties, noise, y, memo: Memo, linear_cost
) -> Optimum:
    y = y[: parameters.n_free]
    coefficients = jnp.clip(memo.coefficients, *scaling.bounds)
    per_angle = scaling.per_angle(coefficients)
    equations = memo.equations
    p, k = y.shape[0], scaling.size
    on_parameters, on_scaling = penalties
    data, penalty = assemble(
        equations, y, coefficients, parameters, scaling, on_parameters, on_scaling, noise
    )
    turn = index_layout(parameters, y, k)
    n_angles = per_angle.shape[0]
    # Columns of an angle (y, contrast, offset): the score stack already holds the contrast.
    wide = jnp.concatenate(
        [
            jnp.concatenate(
                [jnp.broadcast_to(jnp.eye(p), (n_angles, p, p)), jnp.zeros((n_angles, p, k))], 2
            ),
            jnp.concatenate([jnp.zeros((n_angles, 2, p)), scaling.basis], 2),
        ],
        axis=1,
    )
    x = snap(parameters, parameters.to_physical(y))
    low, high = scaling.bounds
    return Optimum(
        joint=(data + penalty).transform(turn),
        penalty=penalty.transform(turn).hessian,
        columns=wide @ turn,
        data_cost=jnp.sum(equations.cost),
        residual_sum=2 * jnp.sum(linear_cost),
        y=y,
        coefficients=coefficients,
        per_angle=per_angle,
        values=jnp.concatenate([coefficients, x]),
        lower=jnp.concatenate([low, jnp.asarray(parameters.lower)]),
        upper=jnp.concatenate([high, jnp.asarray(parameters.upper)]),
        start=scaling.from_per_angle(reference),
    )


_dyadic = quick_jit(dyadic_scores)


def _dyadic_of(term: TwoTimeTerm, at: Optimum, loss: AbstractLoss) -> DyadicScores:
    """`dyadic_scores` at an optimum, compiled but where pieces are read from Python."""
    find = dyadic_scores if isinstance(term.tiles, AbstractPieces) else _dyadic
    return find(term, at.y, at.per_angle, loss)


def lower_optimum(objective: TwoTimeObjective, later: Later) -> None:
    """Compile what `optimum` runs, without running it; `later` is given what takes long."""
    term = objective.term
    memo = zeros_like(eqx.filter_eval_shape(lambda o: o.memo, objective))
    y = np.zeros(objective.variables.lower.shape)
    _optimum.prepare(
        term.parameters,
        term.scaling,
        term.reference,
        (objective.penalties, objective.scaling_penalties),
        term.noise,
        y,
        memo,
        memo.equations.cost,
        later=later,
    )


def lower_scores(objective: TwoTimeObjective, later: Later) -> None:
    """Compile what `score_covariances` runs on maps in memory, as `lower_speckle_scores`."""
    term = objective.term
    lower_speckle_scores(term, np.zeros(term.parameters.n_free), loss_of(objective), later)


class Decays(NamedTuple):
    """|c1|² of some groups of pairs, row by row, each of which is of one angle.

    - `angle`: of each row; `sums`: Σ w ∂c2 by the coordinates, over `weight`, Σ w; `entries`: from
        coordinates to entries of the fit.
    - `nearest`: largest |c1|² of neighbouring frames, or of bins; `farthest`: the least.
    """

    angle: Int[np.ndarray, "row"]
    correlation: Float[np.ndarray, "row group"]
    sums: Float[np.ndarray, "row column group"]
    weight: Float[np.ndarray, "row group"]
    entries: Float[np.ndarray, "row column entry"]
    nearest: float
    farthest: float

    def columns(self, contrast: Float[np.ndarray, "angle"]) -> Float[np.ndarray, "..."]:
        """The derivative of |c1|² by the coordinates, zero where nothing is known of it."""
        unit = contrast[self.angle, None] * self.weight
        there = np.broadcast_to(unit[:, None] != 0, self.sums.shape)
        return np.divide(self.sums, unit[:, None], out=np.zeros(self.sums.shape), where=there)


def _decays_of_maps(evidence: Evidence, columns: np.ndarray) -> Decays:
    return Decays(
        np.arange(columns.shape[0]),
        np.asarray(evidence.decay),
        np.asarray(evidence.decay_columns),
        np.asarray(evidence.decay_weight),
        columns,
        float(np.asarray(evidence.nearest).max()),
        float(np.asarray(evidence.farthest).min()),
    )


@quick_jit
def _bins(term, y, per_angle, loss):
    table = term.table(y)

    def one(row):
        block = term.tiles.block(row)
        found = block_scores(table, block, per_angle, loss)
        root = block.root_weights
        return block.angle, found.correlation, root * found.columns[:-2], root**2

    return jax.lax.map(one, jnp.asarray(term.tiles.table))


def _decays_of_bins(term: TwoTimeTerm, at: Optimum, loss: AbstractLoss) -> Decays:
    angle, correlation, sums, weight = map(np.asarray, _bins(term, at.y, at.per_angle, loss))
    # Of those that are there.
    known = correlation[weight > 0]
    ends = float(np.max(known)), float(np.min(known))
    correlation = np.where(weight > 0, correlation, 0.0)
    return Decays(angle, correlation, sums, weight, np.asarray(at.columns)[angle], *ends)


class ScoreCovariances(eqx.Module):
    """Covariance of the gradient of one data set at its optimum, in the layout of `Optimum`.

    - `speckle`, `dyadic`: from the noise of intensity correlations, and from scores summed by
        shared frame, of bins by age; the first is NaN for pooled points.
    - `own`: Σ of the score of each pair with itself, what the second would be for independent
        pairs.
    - `hessian`: mean curvature of the cost, A = Σ E[ψ′] JᵀJ with penalties; JᵀWJ for the linear
        loss.
    - `influence`: of a robust loss on the residuals, else `None`.
    - `chosen`: the one to quote, `reason` why.
    - `by_angle`: that one for (coordinates, contrast, offset) of each angle, of one data set.
    - `gram`: curvature by angle for the same columns.
    - `remains`: what tests of the model need, of one data set of maps.
    - `deviance`: that of a likelihood which a right model has on average, NaN where not known.
    - `decays`: what tells of a decay, of one data set of maps or of bins.
    """

    speckle: Float[np.ndarray, "entry entry"]
    dyadic: Float[np.ndarray, "entry entry"]
    own: Float[np.ndarray, "entry entry"]
    hessian: Float[np.ndarray, "entry entry"]
    influence: InfluenceSums | None
    n_pixels: Float[np.ndarray, "angle"]
    shot_noise: Float[np.ndarray, "angle"]
    chosen: str = eqx.field(static=True)
    reason: str = eqx.field(static=True)
    by_angle: Float[np.ndarray, "angle column column"] | None = None
    gram: Float[np.ndarray, "angle column column"] | None = None
    remains: Remains | None = None
    deviance: float = eqx.field(static=True, default=float("nan"))
    decays: Decays | None = None


def _influence(loss: AbstractLoss, residuals: ResidualSums) -> InfluenceSums | None:
    """That of a robust loss on the residuals of all angles, None for the linear one."""
    if isinstance(loss, Linear):
        return None
    return jax.tree.map(lambda leaf: np.sum(leaf), residuals.influence)


def _curvature(at: Optimum, loss: AbstractLoss, residuals: ResidualSums) -> np.ndarray:
    if isinstance(loss, Linear):
        return np.asarray(at.joint.hessian)
    by_angle = mean_slopes(loss, residuals)[:, None, None] * np.asarray(residuals.gram)
    return summed(np.asarray(at.columns), by_angle) + np.asarray(at.penalty)


def remains_of(at: Optimum, scores: SpeckleScores, loss: AbstractLoss) -> Remains:
    """What a fit has left, and how much larger each angle's noise is, which a fit makes smaller.

    A fit takes from the residuals what it can follow: of noise Σ with r = (1 − J H⁻¹ Jᵀ) ε is left
    E Σ r² = tr Σ − 2 tr(H⁻¹B) + tr(H⁻¹ B H⁻¹ G), B the covariance of the score and G the part of
    an angle in H. Where pairs share frames that is far more than one pair for each parameter. The
    equations of all angles together give the size of the noise at each.

    Of sums over J and over cells, whose curvature is G too, B − GH⁻¹B − BH⁻¹G + GH⁻¹B_all H⁻¹G is
    left. Σ λᵐ of what is left of the residuals is tr((G⁻¹B)ᵐ) of that, and elsewhere that of
    Gaussian intensities.
    """
    columns, residuals = np.asarray(at.columns), scores.dyadic.residuals
    gram = [c.T @ g @ c for c, g in zip(columns, np.asarray(residuals.gram), strict=True)]
    covariance = np.asarray(scores.covariance)
    score = [c.T @ b @ c for c, b in zip(columns, covariance, strict=True)]
    hessian = np.sum(gram, axis=0) + np.asarray(at.penalty)
    inverse, *_ = inverse_of(hessian, at.free)
    # In the unit of weighted residuals: the mean weight stands for that of each pair.
    count = np.maximum(np.asarray(residuals.influence.count), 1.0)
    weight = np.asarray(residuals.weight) / count
    total = weight * np.asarray(scores.variance_sum) / np.asarray(scores.n_pixels)
    total = np.where(total > 0, total, 1.0)
    followed = [inverse @ b for b in score]
    matrix = np.array([[np.sum(f @ inverse * g) for f in followed] for g in gram])
    matrix = matrix - 2 * np.diag([np.trace(f) for f in followed])
    factor = np.linalg.solve(np.eye(total.size) + matrix / total[:, None], np.ones(total.size))
    # Without any noise left the equations have no positive solution.
    factor = np.where(
        np.isfinite(factor) & (factor > 0), np.clip(factor, 1.0, _MOST_LOST), _MOST_LOST
    )
    pixels = np.asarray(scores.n_pixels) / factor
    powers = powers_left(scores.evidence, residuals, columns, inverse, pixels)
    return Remains(scores.evidence, residuals, loss, columns, factor, powers)


def _of_followed_frames(at: Optimum, loss, n_frames: int, dyadic: DyadicScores) -> np.ndarray:
    """Dyadic covariance by angle, with what a fit takes from the sums by frame given back.

    A fit follows the noise: with S the score that noise alone would have, H the curvature and G_i
    the part of frame i in it, the sum of a frame is S_i − G_i H⁻¹ S. Frames that matter alike have
    G_i = 2G/n, a pair being counted at both of its frames, and Cov(S_i, S) = 2B/n, so that for an
    angle with the curvature G and the covariance B

        Σ_i S_i S_iᵀ lacks (4/n) (B H⁻¹ G + G H⁻¹ B − G H⁻¹ B_all H⁻¹ G),

    4/n of the covariance when there is one angle. To first order B is what was found.
    """
    columns, residuals = np.asarray(at.columns), dyadic.residuals
    inverse, *_ = inverse_of(_curvature(at, loss, residuals), at.free)
    slopes = mean_slopes(loss, residuals)[:, None, None]
    gram, found = slopes * np.asarray(residuals.gram), np.asarray(dyadic.covariance)
    # Where the model is not finite nothing is found either.
    with np.errstate(invalid="ignore", over="ignore"):
        followed = gram @ columns @ inverse  # G H⁻¹ of each angle
        across = followed @ np.swapaxes(columns, 1, 2) @ found
        common = followed @ summed(columns, found) @ np.swapaxes(followed, 1, 2)
    return found + 4 / n_frames * (across + np.swapaxes(across, 1, 2) - common)


def classical_scores(objective: TwoTimeObjective, at: Optimum) -> ScoreCovariances:
    """As `score_covariances` for independent pairs, whose noise is taken from their residuals.

    The linear loss needs no further pass over the data for it.
    """
    (term, at), loss = on_one_device((objective.term, at)), loss_of(objective)
    hessian, influence = np.asarray(at.joint.hessian), None
    if isinstance(loss, Linear):
        cost, count = 0.5 * float(at.residual_sum), float(at.joint.count)
        free = int(np.count_nonzero(at.free))
        variance = variance_of_residual(None, term.absolute_sigma, cost, count, free)
        own = variance * (hessian - np.asarray(at.penalty))
    else:
        found = _dyadic_of(term, at, loss)
        hessian = _curvature(at, loss, found.residuals)
        own = summed(np.asarray(at.columns), found.own)
        influence = _influence(loss, found.residuals)
    unknown = np.full(at.per_angle.shape[0], np.nan)
    return ScoreCovariances(
        speckle=np.full_like(hessian, np.nan),
        dyadic=np.full_like(hessian, np.nan),
        own=own,
        hessian=hessian,
        influence=influence,
        n_pixels=unknown,
        shot_noise=unknown,
        chosen="classical",
        reason=ONLY_CLASSICAL,
    )


def score_covariances(objective: TwoTimeObjective, at: Optimum) -> ScoreCovariances:
    """What the noise of the data does to the gradient at an optimum."""
    # Maps that are shared out over devices are put together again.
    (term, at), loss = on_one_device((objective.term, at)), loss_of(objective)
    columns, decays, remains = np.asarray(at.columns), None, None
    speckle = np.full((columns.shape[2],) * 2, np.nan)
    n_pixels = shot_noise = np.full((at.per_angle.shape[0],), np.nan)
    if isinstance(term.tiles, MapTiles | StoredTiles):
        above, why = diagonal_above(term, np.asarray(at.per_angle))
        scores = speckle_scores(term, at.y, at.per_angle, loss, above)
        dyadic = scores.dyadic
        shared = _of_followed_frames(at, loss, term.t.shape[0], dyadic)
        remains = remains_of(at, scores, loss)
        factor = remains.factor
        covariance = factor[:, None, None] * np.asarray(scores.covariance)
        by_angle = robust_noise(loss, dyadic.residuals, covariance, dyadic.residuals.gram)
        speckle = summed(columns, by_angle)
        n_pixels, shot_noise = np.asarray(scores.n_pixels) / factor, np.asarray(scores.shot)
        chosen, reason = "speckle", _speckle_reason(scores, why)
        decays = _decays_of_maps(scores.evidence, columns)
        if np.any(factor >= _MOST_LOST):
            reason += (
                "; the fit has followed nearly all of the noise, so that its size is a guess: "
                "errors may be far too small or too large"
            )
    elif has_bins(term.tiles):
        dyadic = _dyadic(term, at.y, at.per_angle, loss)
        tiles: Any = term.tiles
        ages = np.unique(np.asarray(tiles.means.age)).size
        # What a fit takes from sums over few ages is given back as the variance of a sample has it.
        larger = ages / max(ages - 1, 1)
        own = np.asarray(dyadic.own)
        found = larger * (np.asarray(dyadic.covariance) + own)
        # What bins have in common only adds to their own noise.
        by_angle = shared = np.stack([_floored(*one, 1.0) for one in zip(found, own, strict=True)])
        chosen, reason = "dyadic", BY_AGE.format(ages)
        if ages < _FEWEST_AGES:
            chosen, reason, by_angle = "classical", OF_BINS, own
        decays = _decays_of_bins(term, at, loss)
    else:
        dyadic = _dyadic_of(term, at, loss)
        by_angle = shared = _of_followed_frames(at, loss, term.t.shape[0], dyadic)
        chosen = "dyadic"
        reason = (
            "pooled points do not form maps, which would tell the noise of speckle; that of frames "
            "is told from the residuals"
        )
    slopes = mean_slopes(loss, dyadic.residuals)[:, None, None]
    return ScoreCovariances(
        speckle=speckle,
        dyadic=summed(columns, shared),
        own=summed(columns, dyadic.own),
        hessian=_curvature(at, loss, dyadic.residuals),
        influence=_influence(loss, dyadic.residuals),
        n_pixels=n_pixels,
        shot_noise=shot_noise,
        chosen=chosen,
        reason=reason,
        by_angle=by_angle,
        gram=slopes * np.asarray(dyadic.residuals.gram),
        remains=remains,
        decays=decays,
    )


def variance_of_residual(
    influence: InfluenceSums | None, absolute: bool, cost: float, count: float, parameters: int
) -> float:
    """What independent pairs multiply the inverse curvature with to make a covariance.

    1 where sigma is known, else 2 cost over the degrees of freedom. Under a robust loss it is
    E[ψ²]/E[ψ′] from the residuals in either case. Without degrees of freedom the model goes through
    the data under any loss: 1 where sigma is known, else infinite.
    """
    if count <= parameters:
        return 1.0 if absolute else np.inf
    if influence is not None:
        if not influence.holds(parameters):
            return np.inf
        return float(influence.mean_square(parameters) / influence.mean_slope)
    return 1.0 if absolute else residual_variance(2 * cost, count - parameters)


def uncertainty_from(
    scores: ScoreCovariances,
    absolute: bool,
    cost: float,
    count: float,
    free: Bool[np.ndarray, "entry"],
    names: tuple[str, ...],
) -> Uncertainty:
    """Error bars from the covariance of the gradient, of one data set or of several.

    - `absolute`: whether sigma is known; `cost`: of the data; `count`: of their pairs.
    - `free`: entries of the flat vector that are not on a bound; `names`: of all entries, for the
        weak directions.
    """
    parameters = int(free.sum())
    variance = variance_of_residual(scores.influence, absolute, cost, count, parameters)
    found = sandwiches(scores, variance, free, names)
    if count > parameters:
        return found
    # Sandwiches rest on residuals. What is left are classical errors from a sigma that is known.
    nothing = np.where(free & free[:, None], np.inf, 0.0)
    reason = ONLY_SIGMA if np.isfinite(variance) else NO_DEGREES_OF_FREEDOM
    return dataclasses.replace(
        found,
        **with_open(found.open, found.classical, nothing, nothing),
        chosen="classical",
        reason=reason,
    )


def _floored(covariance, own, least=_LEAST_DYADIC):
    """The dyadic covariance with its eigenvalues, in units of `own`, raised to `least`.

    Sums over few frames scatter, below zero as well. Independent pairs give the eigenvalue 1, and
    pairs that share a frame speckle make it larger.
    """
    if np.isnan(covariance).any():
        return covariance
    size = np.sqrt(np.maximum(np.diagonal(own), 0.0))
    size = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(own / np.outer(size, size))
    seen = values > UNDETERMINED * values[-1]
    root, vectors = np.sqrt(values[seen]), vectors[:, seen]
    there, back = (vectors / root).T / size, size[:, None] * vectors * root
    size, turn = np.linalg.eigh(there @ covariance @ there.T)
    turn = back @ turn
    return (turn * np.maximum(size, least)) @ turn.T


def sandwiches(
    scores: ScoreCovariances,
    variance: float,
    free: Bool[np.ndarray, "entry"],
    names: tuple[str, ...],
) -> Uncertainty:
    """Error bars from curvature, covariance of the gradient and the variance of a residual."""
    hessian = scores.hessian
    inverse, condition, weak, steps = inverse_of(hessian, free)
    if not free.all():
        # A bound hides a degeneracy from the errors, but it is there all the same.
        _, condition, weak, _ = inverse_of(hessian, np.ones_like(free))
    classical = scaled_inverse(inverse, variance, free)
    floored = _floored(scores.dyadic, scores.own)
    speckle, dyadic = (inverse @ m @ inverse for m in (scores.speckle, floored))
    negative = np.diagonal(inverse @ scores.dyadic @ inverse) < 0
    chosen, reason = scores.chosen, scores.reason
    if not np.isfinite(variance):
        # The sandwiches take the size of the noise from the residuals as well.
        speckle, dyadic, reason = classical, classical, NOTHING_HOLDS
    if chosen == "dyadic" and negative.any():
        chosen = "classical"
        reason = (
            "pooled points do not form maps, which would tell the noise of speckle, and there are "
            "too few to tell that of frames: pairs are taken as independent, which is optimistic"
        )
    return Uncertainty(
        **with_open(steps, classical, speckle, dyadic),
        residual_variance=np.asarray(variance),
        condition_number=np.asarray(condition),
        n_pixels=scores.n_pixels,
        shot_noise=scores.shot_noise,
        chosen=chosen,
        reason=reason,
        weak_directions=describe(weak, names),
    )


def _speckle_reason(scores: SpeckleScores, why: tuple[str, ...]) -> str:
    text = "entries that share a frame are correlated, which is counted: " + _cumulants(
        np.flatnonzero(np.asarray(scores.gaussian_only)), scores.shot.shape[0]
    )
    replaced = np.flatnonzero(np.asarray(scores.from_residuals))
    if replaced.size == 0:
        return text + ", with the shot noise from the raw diagonal"
    if why:
        return text + (
            ", with the shot noise from the residuals, since the "
            f"raw diagonal cannot be used ({'; '.join(why[:3])}{'; …' if len(why) > 3 else ''})"
        )
    every = replaced.size == scores.shot.shape[0]
    where = "" if every else f" at angles {replaced.tolist()}"
    return text + (
        f", with the shot noise{where} from the residuals, whose correlation "
        "is far smaller than the raw diagonal implies"
    )


def _cumulants(without: np.ndarray, n_angles: int) -> str:
    whole = (
        "all cumulants of speckle intensities and of photon counts, each frame divided by its mean"
    )
    if without.size == 0:
        return whole
    where = "" if without.size == n_angles else f" at angles {without.tolist()}"
    return (
        ("" if not where else f"{whole}; ")
        + f"only the covariance of Gaussian intensities{where}, which makes errors too small by "
        "√(1 + contrast) or more, for no Gaussian field has the correlation of this model "
        "(`physics.field_correlation`)"
    )
