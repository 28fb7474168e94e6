"""From a fit by least squares to one by the likelihood of speckle, which is more precise."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..arguments import Within, checked, quiet_arithmetic
from ..errors import FitError, ModelError
from ..objective import (
    CombinedObjective,
    JointObjective,
    Linear,
    MapTiles,
    ProjectedObjective,
    SpeckleLikelihood,
    TwoTimeTerm,
    speckle_likelihood,
)
from ..objective.combined import parts_of, with_parts
from ..objective.likelihood import kept_frames
from ..optimize import TrustRegion, evaluated
from ..parameters.variables import coordinates_of, with_slopes
from ..progress import in_one_line
from ..uncertainty import inverse_of
from ..uncertainty.speckle_noise import diagonal_above
from .fit import Fit
from .result import fit_of
from .solve import solve

# A diagonal that is not known is that of the model, found anew until nothing moves by more than
# this part of an error.
_SETTLED, _ROUNDS = 0.01, 10
# Where nothing else is said, the likelihood is taken for maps of at most so many frames, as its
# time grows with their third power, and where it promises errors smaller by this factor.
LARGEST, WORTH = 300, 1.1
# Maps of more frames are cut into blocks: as one block, three angles of so many take a minute and
# 3 GB.
WHOLE = 1500
# Gain below which it is not quoted even where it was asked for.
_LOSS = 0.9
# Pixels for each frame that there have to be, for their sample covariance to tell all of them.
_PIXELS = 1.5
# Errors of an offset within which it may be one.
_ONE = 3.0
# Errors of their difference by which both may differ.
_DISAGREE = 5.0
# The shot noise of a fit is that of the raw diagonal where both differ by less than this part of
# what a frame has with itself: one from residuals, where the diagonal is not believed, is far off.
_SAME = 0.1


def believed_diagonal(fit: Fit, term: TwoTimeTerm) -> Bool[np.ndarray, "angle"]:
    """At which angles the shot noise of a fit by least squares is that of the raw diagonal."""
    above, _ = diagonal_above(term, np.stack([fit.contrast, fit.offset], axis=1))
    used = np.asarray(fit.uncertainty.shot_noise)
    with np.errstate(invalid="ignore"):
        return np.abs(above - used) <= _SAME * (fit.contrast + used)


def _diagonal(
    fit: Fit, term, per_angle: Float[np.ndarray, "angle 2"], shot: Float[np.ndarray, "angle"]
) -> tuple[Float[np.ndarray, "angle frame"], Bool[np.ndarray, "angle"]]:
    """c2 of each frame with itself, and at which angles it is that of the data."""
    n = term.t.shape[0]
    level = np.sum(per_angle, axis=1) + shot
    model = np.broadcast_to(level[:, None], (level.size, n))
    known = believed_diagonal(fit, term)
    if term.diagonal is None:
        return np.array(model), known
    raw = np.asarray(term.diagonal)
    if isinstance(term.tiles, MapTiles):
        # What one frame has with itself tells nothing of another.
        known &= np.all(np.isfinite(raw) | ~kept_frames(term.tiles), axis=1)
    usable = known[:, None] & np.isfinite(raw)
    return np.where(usable, raw, model), known


def _refuse_what_is_lost(objective: ProjectedObjective | JointObjective) -> None:
    """Refuse least squares of which the likelihood would leave out a part.

    **Raises:** `ModelError`.
    """
    lost = []
    if isinstance(objective, JointObjective) and not isinstance(objective.loss, Linear):
        lost.append(f"the loss {objective.loss}")
    if objective.scaling_penalties:
        lost.append("penalties on contrast and offset")
    tiles = objective.term.tiles
    if isinstance(tiles, MapTiles) and np.ptp(np.asarray(tiles.root_angle_weights)) > 0:
        lost.append("weights of the angles")
    if lost:
        raise ModelError(
            f"this fit by least squares has {' and '.join(lost)}, and the likelihood of speckle "
            "has not: leave that out, or stay with least squares"
        )


def likelihood_of(fit: Fit, frames: int | None = WHOLE) -> SpeckleLikelihood | CombinedObjective:
    """The likelihood of the pixels behind the maps of a fit by least squares, begun where it ended.

    Of several data sets it is the sum of theirs. Number of pixels and shot noise are those that the
    fit has found; where the raw diagonal of the maps can be used, the shot noise is a variable, and
    elsewhere the one that makes the scatter of the other entries most likely.

    Maps of more than so many `frames` are cut into as few blocks of frames as can be, and pairs of
    frames of different blocks are left out.

    **Raises:** `ModelError` for the fit of a curve, for points, maps in a file and maps whose pairs
    are masked one by one, with the name of the data set where there are several; `FitError` for a
    fit that says nothing of the noise.
    """
    objective, several = fit.objective, len(fit.parts) > 1
    found = []
    for label, part in fit.parts.items():
        try:
            found.append(_of_one(part, frames))
        except (ModelError, FitError) as error:
            if several:
                raise type(error)(f"data set {label}: {error}") from error
            raise
    if not isinstance(objective, CombinedObjective):
        return found[0] if found else _of_one(fit, frames)
    # Penalties are on the parameters of all, and weighed as those of one data set.
    together = with_parts(objective, found)
    return dataclasses.replace(together, noise=np.ones(()))


def start_of(likelihood: SpeckleLikelihood | CombinedObjective, fit: Fit) -> np.ndarray:
    """Where it begins: at the parameters of the fit, with the scaling of each data set."""
    values = np.asarray(fit.values)
    physical = values[values.size - likelihood.physical.n_free :]
    own = [part.begin[part.physical.n_free :] for part in parts_of(likelihood)]
    start = np.concatenate([physical, *own])
    return np.clip(start, likelihood.variables.lower, likelihood.variables.upper)


def _of_one(fit: Fit, frames: int | None) -> SpeckleLikelihood:
    """`likelihood_of` one data set."""
    objective = fit.objective
    if not isinstance(objective, ProjectedObjective | JointObjective):
        raise ModelError(
            "the likelihood of speckle begins at a least-squares fit of maps, and "
            f"this fit minimised a {type(objective).__name__}; fit with projected_objective first"
        )
    _refuse_what_is_lost(objective)
    term, shot = objective.term, np.asarray(fit.uncertainty.shot_noise)
    n_pixels = np.asarray(fit.uncertainty.n_pixels)
    if not np.all(np.isfinite(n_pixels) & (n_pixels > 0) & np.isfinite(shot)):
        raise FitError(
            f"the fit has found no number of independent pixels ({n_pixels.tolist()}), which the "
            "likelihood of speckle needs: it is known for maps, not for points, and where "
            "least_squares made all errors"
        )
    size = term.t.shape[0]
    size = size if frames is None else min(size, frames)
    if not n_pixels.min() > _PIXELS * size:
        raise ModelError(
            f"the maps are those of {n_pixels.min():.3g} independent pixels, which say little of "
            f"{size} frames at once: for the likelihood of speckle there have to be {_PIXELS:g} "
            "times as many pixels as frames. Let it take fewer at once (frames=, likelihood_frames "
            "in [solver]), or average frames"
        )
    per_angle = np.stack([fit.contrast, fit.offset], axis=1)
    diagonal, known = _diagonal(fit, term, per_angle, shot)
    values = np.asarray(fit.values)
    found = speckle_likelihood(
        term,
        values[fit.index.physical],
        values[fit.index.scaling],
        shot,
        n_pixels,
        diagonal,
        known,
        objective.penalties,
        frames,
    )
    if known.all():
        return found
    return found.with_diagonal_of(coordinates_of(found.variables, jnp.asarray(found.begin)))


@checked()
@quiet_arithmetic
def maximum_likelihood(
    fit: Fit,
    *,
    frames: Annotated[int, Within(ge=2)] | None = WHOLE,
    solver: TrustRegion | None = None,
    callback: Callable[[Any], Any] | None = None,
    progress: bool = False,
) -> Fit:
    """Get more precise parameters out of the same maps, by the likelihood of speckle.

    It begins where a least-squares fit of the maps has ended.

    Least squares takes a map as a picture. It is the sample covariance of the intensities of many
    pixels, and its likelihood uses that whole: at several counts a pixel the parameters come out
    two to five times as precise, at half a count hardly more so. Errors are those of the scatter of
    simulated pixels of the fitted model; `uncertainty.classical` has what the likelihood itself
    would claim, scaled by the deviance.

    **Arguments:**

    - `fit`: by least squares, of one data set of maps in memory or of several together.
    - `frames`: maps of more are cut into blocks of at most so many frames along their diagonal, as
        time grows with the third power of that and memory with the second: pairs of frames of
        different blocks are left out, of which the errors know; `None` never cuts.
    - `solver`: by default a `TrustRegion` that ends where −log L falls by less than 1e-6.
    - `callback`, `progress`: as in `least_squares`.

    **Returns:** a `Fit` whose scaling coefficients are followed by levels of shot noise; `chi2` is
    the deviance, twice the log of the likelihood ratio against the maps themselves.

    **Raises:** as `likelihood_of`.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> truth = xe.Static(xe.PowerLawRate(1e4, 0.0, 0.0))
    >>> t, geometry = 0.1 * np.arange(24), xe.Geometry(0.0054, np.array([0.0]))
    >>> data = xe.simulate_speckle(
    ...     truth, t, geometry, 0.25, n_pixels=2000, mean_counts=5.0, key=jax.random.key(0)
    ... )
    >>> start = xe.parameter_map(truth, data.t, fixed=("alpha", "D_offset"))
    >>> fit = xe.least_squares(xe.projected_objective(start, data))
    >>> better = xe.maximum_likelihood(fit)
    >>> better.success, better["D0"].error < 0.8 * fit["D0"].error
    (True, True)
    """
    likelihood = likelihood_of(fit, frames)
    start = start_of(likelihood, fit)
    with in_one_line(progress, callback) as seen:
        solution = solve(likelihood, start, solver=solver, callback=seen)
        known = all(part.known_diagonal.all() for part in parts_of(likelihood))
        for _ in range(0 if known else _ROUNDS):
            likelihood, before = _with_diagonals(likelihood, solution.y), solution
            begin = np.asarray(likelihood.variables.to_physical(solution.y))
            begin = np.clip(begin, likelihood.variables.lower, likelihood.variables.upper)
            solution = solve(likelihood, begin, solver=solver, callback=seen)
            step = np.asarray(solution.y - before.y)
            if step @ np.asarray(solution.equations.hessian) @ step <= _SETTLED**2:
                break
        found = fit_of(solution)
    return dataclasses.replace(found, looked=fit.looked).doubted(fit.doubts)


def _with_diagonals(likelihood: Any, y: Float[Array, "variable"]) -> Any:
    """As `SpeckleLikelihood.with_diagonal_of`, of all data sets."""
    if isinstance(likelihood, SpeckleLikelihood):
        return likelihood.with_diagonal_of(y)
    each = zip(likelihood.parts, likelihood.local(y)[0], strict=True)
    return with_parts(likelihood, [part.with_diagonal_of(own) for part, own in each])


class Comparison(NamedTuple):
    """Least squares and the likelihood of speckle on the same maps.

    - `squares`, `likelihood`: either fit, the second None where it was not made.
    - `reason`: why which of them is quoted; `asked`: whether the likelihood was asked for by name.
    - `expected`: by the free parameters, how many times smaller the errors should become: those of
        least squares over what Fisher's information at its end allows.
    """

    squares: Fit
    likelihood: Fit | None
    reason: str
    asked: bool
    expected: Float[np.ndarray, "free"] | None

    @property
    def quoted(self) -> Fit:
        """The fit to quote."""
        if self.likelihood is None:
            unmet = (f"the likelihood of speckle was asked for, and {self.reason}",)
            return self.squares.doubted(unmet) if self.asked else self.squares
        far = [
            f"{name} by {value:.1f}"
            for name, value in zip(self.names, self.difference, strict=True)
            if abs(value) > _DISAGREE
        ]
        doubts = (
            "the likelihood and least squares disagree, in errors of their difference: "
            + ", ".join(far),
        )
        return self.likelihood.doubted(doubts if far else ())

    @property
    def names(self) -> tuple[str, ...]:
        """The free parameters."""
        return self.squares.objective.physical.free_names

    def _of(self, field: str) -> tuple[Float[np.ndarray, "free"], Float[np.ndarray, "free"]]:
        if self.likelihood is None:
            raise ModelError(f"there is no fit of the likelihood to compare with: {self.reason}")
        fits = (self.squares, self.likelihood)
        one, other = (np.array([getattr(fit[n], field) for n in self.names]) for fit in fits)
        return one, other

    @property
    def gain(self) -> Float[np.ndarray, "free"]:
        """Errors of least squares over those of the likelihood."""
        squares, likelihood = self._of("error")
        with np.errstate(divide="ignore", invalid="ignore"):
            return squares / likelihood

    @property
    def difference(self) -> Float[np.ndarray, "free"]:
        """Likelihood minus least squares, in errors of that difference (Hausman, 1978)."""
        (before, after), (wide, narrow) = self._of("value"), self._of("error")
        with np.errstate(invalid="ignore"):
            # The more precise of two has nothing to do with their difference; half of an error is
            # left to what is not quite so.
            error = np.sqrt(np.maximum(wide**2 - narrow**2, 0.25 * narrow**2))
            return np.nan_to_num((after - before) / error)


def gain_of_offsets(fit: Fit) -> float | None:
    """How many times smaller errors would be with every offset held at one, in the median.

    None where an offset is not fitted, or is not one within three errors.
    """
    names = [name for name in fit.names if name.split("[")[0] == "offset"]
    rows = [fit[name] for name in names]
    if not rows or not all(abs(row.value - 1) <= _ONE * row.error < np.inf for row in rows):
        return None
    bound = np.array([fit[name].at_bound for name in fit.names])
    held = bound | np.isin(fit.names, names)
    curvature, covariance = np.asarray(fit.joint_hessian), fit.uncertainty.covariance
    if not np.isfinite(covariance).all():
        return None
    # Of the gradient: those of the errors are made of it.
    scatter = curvature @ covariance @ curvature
    inverse, *_ = inverse_of(curvature, ~held)
    after = np.sqrt(np.diagonal(inverse @ scatter @ inverse))
    before = fit.uncertainty.errors()
    free = [fit.names.index(name) for name in fit.objective.physical.free_names]
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = (before / after)[free]
    gains = gains[np.isfinite(gains)]
    return float(np.median(gains)) if gains.size else None


def expected_gain(
    fit: Fit, likelihood: SpeckleLikelihood | CombinedObjective
) -> Float[np.ndarray, "free"]:
    """How many times smaller the likelihood should make the errors of the free parameters."""
    variables, n = likelihood.variables, likelihood.physical.n_free
    start = start_of(likelihood, fit)
    y = coordinates_of(variables, jnp.asarray(start))
    equations, _ = evaluated(likelihood, y, likelihood.memo)
    free = (start > np.asarray(variables.lower)) & (start < np.asarray(variables.upper))
    inverse, *_ = inverse_of(np.asarray(equations.hessian), free)
    slopes = np.asarray(with_slopes(variables, y)[1])[:n]
    best = np.sqrt(np.maximum(np.einsum("xy,yz,xz->x", slopes, inverse, slopes), 0.0))
    errors = np.array([fit[name].error for name in likelihood.physical.free_names])
    with np.errstate(divide="ignore", invalid="ignore"):
        return errors / best


def compare_likelihood(
    fit: Fit, *, asked: bool = False, frames: int | None = WHOLE, **how: Any
) -> Comparison:
    """Fit the likelihood of speckle after least squares where it can be used and is worth it.

    **Arguments:**

    - `fit`: by least squares.
    - `asked`: whether to take it for any number of frames, and however little it promises.
    - `frames`, `how`: as of `maximum_likelihood`.
    """

    def squares(reason: str, expected=None) -> Comparison:
        return Comparison(fit, None, reason, asked, expected)

    if not fit.success:
        return squares("least squares has not converged, from whose end it would begin")
    try:
        likelihood = likelihood_of(fit, frames)
    except (ModelError, FitError) as error:
        return squares(f"it cannot be used: {error}")
    largest = max(part.term.t.shape[0] for part in parts_of(likelihood))
    if largest > LARGEST and not asked:
        return squares(
            f"it is not tried by itself for {largest} frames, as its time grows with their third "
            f'power; likelihood = "speckle" asks for it'
        )
    expected = expected_gain(fit, likelihood)
    known = expected[np.isfinite(expected) & (expected > 0)]
    if expected.size and not known.size:
        why = "what it would make of the errors cannot be told where least squares has ended"
        below = min(float(np.min(part.offset)) for part in fit.parts.values())
        if below < 1:
            why += (
                f": with an offset of {below:.4g}, below one, what pixels have in common is no "
                "covariance; see to the normalisation of the maps"
            )
        return squares(why, np.full(expected.shape, np.nan))
    typical = float(np.median(known)) if known.size else 1.0
    if typical < WORTH and not asked:
        return squares(
            f"it promises errors that are smaller by a factor of {typical:.3g} only", expected
        )
    found = maximum_likelihood(fit, frames=frames, **how)
    if not found.success:
        return squares(f"it has not converged ({found.message})", expected)
    own = [one for one in found.doubts if one not in fit.doubts]
    if own:
        return squares(f"it does not hold: {own[0]}", expected)
    compared = Comparison(fit, found, "", asked, expected)
    gains = compared.gain[np.isfinite(compared.gain)]
    gain = float(np.median(gains)) if gains.size else 1.0
    blocks = ""
    if any(part.n_blocks > 1 for part in parts_of(likelihood)):
        blocks = ", as blocks of frames were taken for independent of each other"
    if gain < (_LOSS if asked else 1.0):
        return squares(f"its errors are larger, by a factor of {1 / gain:.3g}{blocks}", expected)
    reason = f"errors were expected to be smaller by a factor of {typical:.3g}"
    if blocks:
        reason += f" at most{blocks}"
    return compared._replace(reason=reason)
