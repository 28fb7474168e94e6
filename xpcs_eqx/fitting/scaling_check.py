"""Whether the angles bear out a scaling that does not let each of them have a pair of its own."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..compiling import quick_jit
from ..objective import SpeckleLikelihood, scaling_penalty_equations
from ..showing import value_and_error
from ..uncertainty import (
    Optimum,
    inverse_of,
    residual_variance,
    score_covariances,
    wald,
)
from ..uncertainty.uncertainty import touched
from .joint import Whole

# Below this probability of no difference there is one: a scan of thousands of fits stays silent.
SIGNIFICANT = 1e-4
# A parameter that freeing the scaling would move by less than this part of its error is not biased.
BIASED = 0.5
# Relative eigenvalue of the curvature of penalties below which only rounding is left.
_RANK = 1e-10


class Departure(NamedTuple):
    """How far contrast or offset, left to each angle, goes from what a fit made of it.

    - `kind`: contrast or offset; `used`: what the fit has at each angle.
    - `estimate`, `error`: what each angle would have, and its standard error.
    - `statistic`, `degrees`, `probability`: Wald test that the scaling of the fit can follow.
    - `varies`: whether a shift common to all angles would not mend it.
    """

    kind: str
    used: Float[np.ndarray, "angle"]
    estimate: Float[np.ndarray, "angle"]
    error: Float[np.ndarray, "angle"]
    statistic: float
    degrees: int
    probability: float
    varies: bool

    @property
    def significant(self) -> bool:
        """Whether chance does not explain it."""
        return self.probability < SIGNIFICANT

    @property
    def variation(self) -> float:
        """Coefficient of variation of the estimates, chance included."""
        known = self.estimate[np.isfinite(self.estimate)]
        if known.size < 2:
            return 0.0
        return float(np.std(known)) / max(abs(float(np.mean(known))), np.finfo(float).tiny)

    def sentence(self, scaling: str) -> str:
        """What the angles say, with figures; `scaling` names what the fit made of them."""
        head = f"{self.kind} " + (
            f"varies with angle beyond what {scaling} follows"
            if self.varies
            else f"is not where {scaling} has it"
        )

        error = float(np.nanmedian(self.error))

        def span(values):
            ends = float(np.nanmin(values)), float(np.nanmax(values))
            low, high = (value_and_error(end, error)[0] for end in ends)
            return low if low == high else f"{low} … {high}"

        return (
            f"{head}: angles by themselves have {span(self.estimate)} "
            f"(each ± {value_and_error(0.0, error)[1]}), this fit {span(self.used)} "
            f"(chi² {self.statistic:.4g} with {self.degrees} degrees of freedom)"
        )


class ScalingCheck(NamedTuple):
    """The test of a scaling, and of penalties on it, against one free pair for each angle.

    It takes one Gauss–Newton step from the optimum towards the fit with individual scaling and
    without penalties on it, by the equations of each angle that the fit has made anyway. Only where
    the angles then differ by more than independent pairs would, the data are passed over once more,
    for the quoted covariance at the point that the step leads to: at the optimum a misfit would
    inflate its own error.

    - `scaling`: class of the scaling that ran.
    - `contrast`, `offset`: what came of either.
    - `names`, `shifts`: free parameters, and how far each would move, in its quoted errors.
    - `penalties`: classes of the penalties that contrast and offset are under.
    """

    scaling: str
    contrast: Departure
    offset: Departure
    names: tuple[str, ...]
    shifts: Float[np.ndarray, "free"]
    penalties: tuple[str, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether contrast or offset differ by more than chance."""
        return self.contrast.significant or self.offset.significant

    @property
    def biased(self) -> bool:
        """Whether that moves a parameter of the model."""
        return self.significant and bool(np.any(self.shifts > BIASED))

    def finding(self) -> str:
        """The verdict as a sentence; empty where the angles agree with the scaling."""
        if not self.significant:
            return ""
        under = f"{self.scaling} scaling"
        if self.penalties:
            under += f" under {' and '.join(self.penalties)}"
        parts = [one.sentence(under) for one in (self.contrast, self.offset) if one.significant]
        text = "; ".join(parts)
        if not self.biased:
            return f"{text}; the parameters of the model hardly depend on it"
        order = [i for i in np.argsort(-self.shifts) if self.shifts[i] > BIASED][:3]
        moved = ", ".join(f"{self.names[i]} {self.shifts[i]:.2g}" for i in order)
        advice = (
            'give each angle its own pair (Individual, [scaling] mode = "individual"), which is '
            "eliminated exactly"
        )
        if self.scaling == "Individual":
            advice = "leave the equal bounds out that fix one of the two"
        if self.penalties:
            less = "leave the penalty out or lower its share ([defences.regularisation])"
            advice = less if self.scaling == "Individual" else f"{less}, or {advice}"
        return (
            f"{text}; the parameters are biased by it, in units of their errors by about {moved}: "
            f"{advice}"
        )


def scaling_check(whole: Whole, k: int) -> ScalingCheck | None:
    """Test the scaling of a data set; None where each angle has a free pair of its own already, or
    where no degree of freedom would be left with one.

    **Arguments:**

    - `whole`, `k`: the data sets at their optimum, and which of them is meant. What the others say
        of the parameters counts, and so does that their scaling follows.
    """
    objective, at = whole.parts[k].objective, whole.parts[k].at
    if isinstance(objective, SpeckleLikelihood):
        # It begins at a fit by least squares, where this has been looked at.
        return None
    scaling, penalties = objective.term.scaling, objective.scaling_penalties
    basis = np.asarray(scaling.basis)
    n, size = basis.shape[0], basis.shape[2]
    if size >= 2 * n and not penalties:
        return None
    free, own, uncertainty = ~whole.entries.bound, whole.places(k), whole.entries.uncertainty
    wide = _Wide.of(whole, k)
    gradient, hessian = wide.equations(whole, k)
    all_free = np.concatenate([np.ones(2 * n, bool), free[wide.rest]])
    inverse, _, _, steps = inverse_of(hessian, all_free)
    unknown = touched(steps)
    step = -inverse @ gradient
    variance = 1.0
    if not whole.absolute:
        left = 2 * whole.data_cost + float(gradient @ step)
        degrees = whole.n_pairs - unknown.size
        if degrees <= 0:
            # With a pair of its own for each angle no residual would be left to judge by.
            return None
        variance = residual_variance(max(left, 0.0), degrees)
    basis_free = basis[:, :, free[own]] @ _unpenalised(objective, at, free[own])
    physical = slice(step.size - whole.parameters.n_free, None)
    errors = uncertainty.errors()[free.size - whole.parameters.n_free :]

    def checked(covariance) -> ScalingCheck:
        used = np.asarray(at.per_angle)
        contrast, offset = (
            _departure(kind, used[:, s], basis_free[:, s], step, covariance, unknown)
            for s, kind in enumerate(("contrast", "offset"))
        )
        usable = np.isfinite(errors) & (errors > 0)
        shifts = np.abs(np.where(usable, step[physical], 0.0)) / np.where(usable, errors, 1.0)
        names = whole.parameters.free_names
        held = tuple(dict.fromkeys(type(one).__name__ for one in penalties))
        return ScalingCheck(type(scaling).__name__, contrast, offset, names, shifts, held)

    found = checked(variance * inverse)
    if not found.significant or uncertainty.chosen == "classical":
        return found
    noise = wide.noise(whole, k, step)
    return checked(inverse @ noise @ inverse) if np.all(np.isfinite(noise)) else found


_on_scaling = quick_jit(scaling_penalty_equations)


def _unpenalised(objective, at: Optimum, free) -> Float[np.ndarray, "free left"]:
    """Directions of the free scaling coefficients along which no penalty grows."""
    scaling, penalties = objective.term.scaling, objective.scaling_penalties
    hessian = np.asarray(_on_scaling(penalties, scaling, at.coefficients).hessian)
    values, vectors = np.linalg.eigh(hessian[np.ix_(free, free)])
    return vectors[:, values <= _RANK * max(np.max(values, initial=0.0), 1e-300)]


def _departure(kind: str, used, basis, step, covariance, unknown) -> Departure:
    n = used.size
    here = np.arange(n) + (n if kind == "offset" else 0)
    known = ~unknown[here] & (np.diagonal(covariance)[here] > 0)
    inside = here[known]
    block = covariance[np.ix_(inside, inside)]
    common = np.concatenate([basis[known], np.ones((inside.size, 1))], axis=1)
    error = np.full(n, np.nan)
    error[known] = np.sqrt(np.diagonal(block))
    return Departure(
        kind,
        used,
        np.where(known, used + step[here], np.nan),
        error,
        *wald(step[inside], block, basis[known]),
        varies=wald(step[inside], block, common)[2] < SIGNIFICANT,
    )


class _Wide(NamedTuple):
    """The entries of a fit in which each angle of one data set has a pair of its own.

    Contrasts, offsets, then the other entries of the whole, whose numbers are `rest`.

    - `turn`: derivative of the coordinates of the data set by these, the same at each angle.
    """

    rest: Int[np.ndarray, "rest"]
    turn: Float[np.ndarray, "coordinate rest"]

    @classmethod
    def of(cls, whole: Whole, k: int) -> "_Wide":
        """Those for data set `k`."""
        part = whole.parts[k]
        rest = np.delete(np.arange(whole.entries.values.size), whole.places(k))
        columns = np.asarray(part.at.columns)[0, :-2, part.size :]
        return cls(rest, columns @ part.matrix[part.size :, rest])

    def placed(self, matrix, blocks, cross):
        """The matrix of the whole with those of each angle, and between angles and parameters."""
        n, rest = blocks.shape[0], matrix[np.ix_(self.rest, self.rest)]
        out = np.zeros((2 * n + self.rest.size,) * 2)
        out[2 * n :, 2 * n :] = rest
        angle, cross = np.arange(n), np.einsum("acs,cx->axs", cross, self.turn)
        for s in range(2):
            for t in range(2):
                out[s * n + angle, t * n + angle] = blocks[:, s, t]
            out[s * n : (s + 1) * n, 2 * n :] = cross[:, :, s]
            out[2 * n :, s * n : (s + 1) * n] = cross[:, :, s].T
        return out

    def equations(self, whole: Whole, k: int):
        """Gradient and Hessian, by the equations of each angle that the fit has made anyway."""
        part = whole.parts[k]
        slope = np.asarray(part.memo.equations.gradient)
        curvature = np.asarray(part.memo.equations.hessian)
        contrast = np.asarray(part.at.per_angle)[:, 0, None, None]
        gradient = np.concatenate([slope[:, -2:].T.reshape(-1), whole.slope[self.rest]])
        cross = contrast * curvature[:, :-2, -2:]
        return gradient, self.placed(whole.curvature, curvature[:, -2:, -2:], cross)

    def noise(self, whole: Whole, k: int, step):
        """Covariance of that gradient where `step` leads."""
        part = whole.parts[k]
        used = np.asarray(part.at.per_angle)
        n = used.shape[0]
        y = np.asarray(part.at.y) + self.turn @ step[2 * n :]
        point = (jnp.asarray(y), jnp.asarray(used + step[: 2 * n].reshape(2, n).T))
        there = eqx.tree_at(lambda o: (o.y, o.per_angle), part.at, point)
        assert not isinstance(part.objective, SpeckleLikelihood)
        moved = part._replace(scores=score_covariances(part.objective, there))
        assert moved.scores.by_angle is not None
        score = np.asarray(moved.scores.by_angle)
        parts = (*whole.parts[:k], moved, *whole.parts[k + 1 :])
        total = np.sum([one.gathered(one.noise) for one in parts], axis=0)
        return self.placed(total, score[:, -2:, -2:], score[:, :-2, -2:])
