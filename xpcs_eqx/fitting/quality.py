"""A verdict on a fit, with reasons."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arguments import check_fields
from ..compiling import plain_jit
from ..data import DOUBTS, Geometry
from ..objective import AbstractPenalty, AbstractScalingPenalty
from ..physics import AbstractCorrelation, Degeneracy, degeneracies, time_floor
from ..showing import with_error
from ..uncertainty import Misfit, Signal
from ..uncertainty.misfit import LEVEL
from ..uncertainty.uncertainty import NO_DEGREES_OF_FREEDOM
from .fit import Fit, Quality

# Names of rates that are negative where they must not be, and exact degeneracies.
Remarks = tuple[tuple[str, ...], tuple[Degeneracy, ...]]


class Thresholds(eqx.Module):
    """Where a verdict changes.

    - `reduced_chi2`: above the first a fit with known sigma is marginal, above the second poor.
    - `level`: probability, over all tests of all data sets, that a right model is doubted.
    - `excess`: variance of residuals over that of the noise, above which a fit that fails a test is
        poor.
    - `contrast`: errors by which a contrast has to be above zero.
    - `rate`: relative error of a decay above which it is not determined.
    - `sigma`: factor by which a given sigma and the noise of the maps may differ, either way.
    - `condition`, `correlation`: condition number and correlation of nearly degenerate parameters.
    """

    reduced_chi2: tuple[float, float] = (2.0, 10.0)
    level: float = LEVEL
    excess: float = 10.0
    contrast: float = 5.0
    rate: float = 0.35
    sigma: float = 2.0
    condition: float = 1e6
    correlation: float = 0.999

    __check_init__ = check_fields


class _Reasons:
    """Reasons for a flag as they are found: poor, doubts, cautions, and mere remarks.

    A doubt is a reason for which a number may be wrong; a caution is one for which its error is
    large, and right.
    """

    def __init__(self):
        self.poor: list[str] = []
        self.doubts: list[str] = []
        self.cautions: list[str] = []
        self.remarks: list[str] = []

    def quality(self, conditions: tuple[str, ...]) -> Quality:
        marginal = self.doubts or self.cautions
        flag = "poor" if self.poor else "marginal" if marginal else "good"
        findings = (*self.poor, *self.doubts, *self.cautions, *self.remarks, *conditions)
        return Quality(flag, findings, bool(self.poor or self.doubts))


def judge(fit: Fit, thresholds: Thresholds = Thresholds()) -> Quality:  # noqa: B008
    """Good, marginal or poor, with the reasons.

    - Poor: not converged; reduced chi² or residuals far above the noise; no contrast or no decay to
        be seen; maps without their baseline; an infinite error, also for lack of degrees of
        freedom.
    - Marginal, with a doubt: data that contradict themselves or leave their baseline open; offsets
        far from 1; a map without the contrast of the others; residuals that a right model would
        hardly leave; a moderately high reduced chi²; a sigma far from the noise of the maps; data
        sets that disagree on what they share; a parameter on a bound; a negative transport
        coefficient; parameters biased by a scaling that the angles do not bear out.
    - Marginal, with a caution: nearly or exactly degenerate directions.

    Insignificant parameters and mirrored solutions are mentioned and change nothing.
    """
    found = _Reasons()
    if not fit.status.converged:
        found.poor.append(fit.status.message)
    if fit.sharing is not None and not fit.sharing.agree:
        found.doubts.append(fit.sharing.finding())
    negative, degenerate = fit.remarks
    # First of all: they are the cause of much of what follows.
    for one in degenerate:
        if one.continuous:
            found.cautions.append(f"exactly degenerate, {one.name}: {one.text}")
        else:
            found.remarks.append(f"mirrored solution, {one.name}: {one.text}")
    _judge_scaling(found, fit, thresholds)
    _judge_chi2(found, fit, thresholds)
    _judge_maps(found, fit, thresholds)
    _judge_parameters(found, fit)
    _judge_degeneracy(found, fit, thresholds)
    for name in negative:
        found.doubts.append(
            f"the {name} rate is negative inside the time window, which is unphysical"
        )
    found.doubts += fit.doubts
    return found.quality(fit.conditions)


def judged(fit: Fit, thresholds: Thresholds) -> Fit:
    """A fit, and each data set in it, with the verdict by other thresholds."""
    parts = tuple(judged(one, thresholds) for one in fit.data_sets)
    fit = dataclasses.replace(fit, data_sets=parts)
    return dataclasses.replace(fit, quality=judge(fit, thresholds))


def _judge_scaling(found: _Reasons, fit: Fit, thresholds: Thresholds) -> None:
    """Whether offsets are those of normalised maps, and whether all of them have a contrast."""
    scaling = [row for row in fit.rows if row.role == "scaling"]
    offsets = [row for row in scaling if row.name.startswith("offset")]
    contrasts = [row for row in scaling if row.name.startswith("contrast")]
    if any(row.value <= _NO_BASELINE for row in offsets):
        least = min(offsets, key=lambda row: row.value)
        of = least.name.replace("offset", "contrast")
        # No c2 − 1 is above one.
        decayed = least.value + sum(row.value for row in contrasts if row.name == of) <= 1
        found.poor.append(
            f"the offset is {least.value:.3g}, and would be 1 in maps with their baseline: "
            + (
                "they look like c2 − 1, so add 1 to them"
                if decayed
                else "they hardly decay, which leaves contrast and offset open; fix one of them"
            )
        )
        return
    far, (low, high) = thresholds.contrast, _NORMALISED
    # Those on a bound have no error, and are doubted for that.
    strange = [
        row
        for row in offsets
        if row.value + far * row.error < low or row.value - far * row.error > high
    ]
    if strange:
        found.doubts.append(
            f"{strange[0].name} is {strange[0].value:.3g}{_and_more(strange)}, and would be 1 in "
            "normalised maps: the contrast is off by as much, and what was done to the maps may "
            "have changed more"
        )
    typical = float(np.median([row.value for row in contrasts])) if contrasts else 0.0

    def unlike(row: Any) -> bool:
        most, seen = row.value + far * row.error, row.value > far * row.error
        return most < _UNLIKE * typical or (most < typical and not seen)

    without = [row for row in contrasts if unlike(row)]
    if without:
        found.doubts.append(
            f"{without[0].name} is {with_error(without[0].value, without[0].error)}"
            f"{_and_more(without)}, far below that of the other maps, {typical:.2g}: such a map "
            "does not decay as they do; look at it, or leave it out"
        )


def _and_more(rows: list[Any]) -> str:
    return f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""


def _judge_chi2(found: _Reasons, fit: Fit, thresholds: Thresholds) -> None:
    value, (fair, bad) = fit.reduced_chi2, thresholds.reduced_chi2
    if not np.isfinite(value):
        return
    if value > bad:
        found.poor.append(f"reduced chi² {value:.3g} is above {bad:g}: the model does not fit")
    elif value > fair:
        found.doubts.append(f"reduced chi² {value:.3g} is above {fair:g}: a doubtful fit")


def _judge_maps(found: _Reasons, fit: Fit, thresholds: Thresholds) -> None:
    """What the residuals of each data set say."""
    known = np.isfinite(fit.uncertainty.residual_variance)
    # All data sets together doubt a right model as rarely as one does.
    level, missed = thresholds.level / max(len(fit.parts), 1), False
    for label, part in fit.parts.items():
        where = f"{label}: " if len(fit.parts) > 1 else ""
        found.doubts += [f"{where}{DOUBTS[about]}" for about in part.objective.term.doubts]
        scaling = part.scaling_check
        if scaling is not None and scaling.significant:
            reasons = found.doubts if scaling.biased else found.remarks
            reasons.append(f"{where}{scaling.finding()}")
        # Without residuals nothing can be measured by them.
        if not known or part.degrees_of_freedom <= 0:
            continue
        _judge_signal(found, part.signal, where, thresholds)
        if part.n_pairs >= _FEW:
            _judge_misfit(found, part.misfit, where, level, thresholds)
            _judge_scatter(found, part, where)
            missed |= part.misfit is not None and bool(part.misfit.failed(level))
    held = [f"{row.name} = {row.value:.6g}" for row in fit.rows if row.role == "fixed"]
    if missed and held:
        found.remarks.append(
            f"held at a value: {', '.join(held)}; what is held may be what the model lacks, so let "
            "it be free to see"
        )


def _judge_signal(
    found: _Reasons, signal: Signal | None, where: str, thresholds: Thresholds
) -> None:
    """Whether there is a contrast and a decay to be seen."""
    if signal is None:
        return
    if signal.nearest < _GONE_AT_ONCE:
        why = (
            f"faster than a frame: |c1|² between neighbouring frames is {signal.nearest:.2g} at "
            "most; take frames closer in time"
        )
    elif signal.farthest > _STILL_THERE:
        why = (
            f"slower than the window: |c1|² of the first and the last frame is still "
            f"{signal.farthest:.3g}; measure longer"
        )
    elif np.isinf(signal.rate) and signal.contrast > thresholds.contrast:
        why = "it depends on parameters that the data leave open"
    else:
        why = (
            "the maps are compatible with a constant: nothing decays within the window, all of it "
            "does within a frame, or there is no contrast"
        )
    if not signal.contrast > thresholds.contrast:
        found.poor.append(
            f"{where}no decay seen: the contrast is {signal.contrast:.2g} of its errors above "
            f"zero, {thresholds.contrast:g} are asked for ({why})"
        )
    elif not signal.rate < thresholds.rate:
        error = "infinite" if np.isinf(signal.rate) else f"{signal.rate:.2g}"
        found.poor.append(
            f"{where}the decay is not determined: the relative error of its exponent is {error}, "
            f"at most {thresholds.rate:g} is asked for ({why})"
        )


def _judge_misfit(
    found: _Reasons, misfit: Misfit | None, where: str, level: float, thresholds: Thresholds
) -> None:
    """What a right model would hardly leave."""
    if misfit is None:
        return
    failed = misfit.failed(level)
    far = bool(failed) and misfit.excess > thresholds.excess
    for test in failed:
        (found.poor if far else found.doubts).append(f"{where}{misfit.sentence(test)}")
    ratio = misfit.sigma_ratio
    if np.isfinite(ratio) and not 1 / thresholds.sigma < ratio < thresholds.sigma:
        found.doubts.append(
            f"{where}the given sigma is {ratio:.3g} times the noise that the maps show "
            f"({', '.join(f'{one:.2g}' for one in misfit.noise[:4])}): errors and chi² follow the "
            'given one; check it, or leave the noise to the maps (sigma = "mad", or none)'
        )
    if failed and not np.isfinite(ratio):
        found.remarks.append(
            f"{where}errors are scaled by the residuals of a fit that does not describe the data"
        )


def _judge_scatter(found: _Reasons, part: Fit, where: str) -> None:
    """Bins whose residuals are far above what neighbouring ages differ by."""
    scatter = part.fitted.scatter if part.fitted is not None else float("nan")
    if scatter > _FAR:
        found.doubts.append(
            f"{where}the residuals of bins scatter {scatter:.3g} times more than bins of "
            "neighbouring ages do: the model does not fit, or noise is common to many ages, which "
            "means cannot tell apart; fit maps of two times"
        )


def _judge_parameters(found: _Reasons, fit: Fit) -> None:
    known = bool(np.isfinite(fit.uncertainty.residual_variance))
    if not known:
        found.poor.append(NO_DEGREES_OF_FREEDOM)
    weak = []
    for row in fit.rows:
        if row.at_bound and row.name.startswith("shot[") and row.value <= row.lower:
            found.remarks.append(f"{row.name}: the diagonal shows no shot noise")
        elif row.at_bound:
            bound = row.lower if row.value <= row.lower else row.upper
            found.doubts.append(
                f"{row.name} ended on its bound {bound:g}; its error is not defined and the other "
                "errors hold for it fixed there: widen the bound, or fix the parameter on purpose"
            )
        elif np.isinf(row.error) and known:
            found.poor.append(f"the data do not determine {row.name}: fix it or change the model")
        elif row.role == "free" and known and row.error > abs(row.value) > 0:
            weak.append(f"{row.name} = {with_error(row.value, row.error)}")
    if weak:
        found.remarks.append(f"smaller than its error: {', '.join(weak)}")


def _judge_degeneracy(found: _Reasons, fit: Fit, thresholds: Thresholds) -> None:
    uncertainty, names, strong = fit.uncertainty, fit.names, []
    if uncertainty.formed:
        correlation = np.abs(np.asarray(uncertainty.correlation("classical")))
        pairs = zip(*np.nonzero(np.tril(correlation, -1) > thresholds.correlation), strict=True)
        strong = [(correlation[i, j], names[i], names[j]) for i, j in pairs]
    condition = float(uncertainty.condition_number)
    if condition > thresholds.condition or strong:
        pairs = ", ".join(f"{b} with {a} ({c:.4f})" for c, a, b in sorted(strong, reverse=True)[:4])
        text = f"degenerate: the normal matrix has condition number {condition:.2g}"
        if pairs:
            text += f", and parameters are all but interchangeable: {pairs}"
        found.cautions.append(
            text + "; quote profile-likelihood intervals, fix one of them, or use a simpler model"
        )
    for direction in uncertainty.weak_directions:
        found.cautions.append(f"weakly determined direction: {direction}")


# |c1|² between neighbouring frames below which, and over the window above which, no decay is seen.
_GONE_AT_ONCE, _STILL_THERE = 0.1, 0.9
# Residuals of bins over what neighbouring ages differ by, above which they are doubted: slow
# speckle, which all ages have in common, leaves up to 3.4 of a right model.
_FAR = 4.0
# Pairs below which a map says too little of its noise to be measured by it.
_FEW = 20
# An offset below this is that of a map without its baseline.
_NO_BASELINE = 0.5
# Offsets that normalisation leaves in measured maps.
_NORMALISED = (0.8, 1.25)
# A contrast below this part of the others is none, and so is one below them that is not seen.
_UNLIKE = 0.2


# What is not tested of data that form no maps.
UNTESTED_BINS = (
    "the data are means over bins of age and lag: errors know of noise that neighbouring ages "
    "have in common, not of noise common to all, and may be a few times too small; whether "
    "residuals depend on frame, age and lag is not tested. Both need maps of two times"
)
UNTESTED_POINTS = (
    "the data are pairs without their frames: whether residuals depend on frame, age and lag, and "
    "whether there is a decay to be seen, is not tested. Both need maps of two times"
)
UNTESTED_CURVE = (
    "whether residuals depend on where they are along the curve is not tested: look at them"
)


def conditions_of(
    penalties: tuple[AbstractPenalty, ...],
    on_scaling: tuple[AbstractScalingPenalty, ...] = (),
    baseline_guessed: bool = False,
    untested: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """On what a fit depends: penalties, a baseline that was guessed, and what is not tested."""
    drawn = {
        "contrast and offset are drawn together": on_scaling,
        "parameters of the model are drawn to what is expected of them": penalties,
    }
    guessed = (
        "1 was added to the maps, which look as if they were stored without their baseline, as "
        "c2 − 1; baseline = 1 leaves them as they are",
    )
    penalised = tuple(
        f"{what} by a penalty ({', '.join(dict.fromkeys(type(one).__name__ for one in by))}): the "
        "covariance is conditional on it, and a bias that it brings is in no error bar"
        for what, by in drawn.items()
        if by
    )
    return (*(guessed if baseline_guessed else ()), *untested, *penalised)


@plain_jit
def _rate(rate, t):
    return rate(jnp.maximum(t, time_floor(t)))


def remarks_on(
    model: AbstractCorrelation,
    t: Float[Array | np.ndarray, "frame"],
    geometry: Geometry,
    bounds: Mapping[str, tuple[float, float]],
) -> Remarks:
    """Rates that are negative at a frame time and must not be, and exact degeneracies.

    `bounds` are those of the free parameters by name.
    """
    negative = tuple(
        name
        for name in model.positive_rates
        if np.any(np.asarray(_rate(getattr(model, name), t)) < 0)
    )
    return negative, degeneracies(model, np.asarray(t), geometry, bounds)
