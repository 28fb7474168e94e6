"""The data sets of a fit at its optimum, how they make up the whole, and whether they agree."""

from functools import reduce
from operator import add
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ..compiling import plain_jit
from ..objective import CombinedObjective, Memo, SpeckleLikelihood
from ..objective.combined import OneObjective
from ..objective.penalties import penalty_equations
from ..parameters import ParameterMap, snap
from ..showing import probability_text
from ..uncertainty import (
    Optimum,
    ScoreCovariances,
    Uncertainty,
    classical_scores,
    inverse_of,
    likelihood_optimum,
    likelihood_scores,
    optimum,
    score_covariances,
    uncertainty_from,
    wald,
)
from .solution import Solution

# Which error bars are made.
Errors = Literal["all", "classical"]
# A probability below which data sets are said to disagree.
DISAGREEMENT = 1e-3


class Entries(NamedTuple):
    """The fitted numbers of a flat vector with all that a table says of them.

    - `bound`: which are on a bound.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "entry"]
    lower: Float[np.ndarray, "entry"]
    upper: Float[np.ndarray, "entry"]
    start: Float[np.ndarray, "entry"]
    bound: Bool[np.ndarray, "entry"]
    uncertainty: Uncertainty


class Part(NamedTuple):
    """One data set at the optimum.

    - `label`: of the data set; `names`: of its varying parameters, by themselves.
    - `objective`, `memo`: of the data set alone; `at`, `scores`: what is known of it there.
    - `matrix`: the derivative of its entries (scaling coefficients, varying parameters) by those of
        the whole.
    """

    label: str
    names: tuple[str, ...]
    objective: OneObjective
    memo: Memo
    at: Optimum
    scores: ScoreCovariances
    matrix: Float[np.ndarray, "local entry"]

    @property
    def size(self) -> int:
        """Number of scaling coefficients."""
        return self.at.coefficients.shape[0]

    @property
    def noise(self) -> Float[np.ndarray, "local local"]:
        """The quoted covariance of the gradient by its entries."""
        chosen = self.scores.chosen
        return self.scores.own if chosen == "classical" else getattr(self.scores, chosen)

    def gathered(self, matrix) -> Float[np.ndarray, "entry entry"]:
        """A curvature, or the covariance of a gradient, as entries of the whole."""
        return self.matrix.T @ np.asarray(matrix) @ self.matrix

    def on_bound(self, bound: Bool[np.ndarray, "entry"]) -> Bool[np.ndarray, "local"]:
        """Which of its entries follow entries of the whole that are on a bound."""
        return np.any(self.matrix[:, bound] != 0, axis=1)


class Whole(NamedTuple):
    """All data sets of a fit at its optimum.

    - `parameters`: the map of the free parameters.
    - `entries`: the scaling coefficients of every data set in turn, then the free parameters.
    - `slope`, `curvature`: of the minimised cost by the entries; `hessian`: mean curvature, which
        differs from it for a robust loss.
    - `ties`: derivative of all its `parameters`, in the order of their names, by the free ones;
        empty for one data set without ties.
    - `absolute`: whether sigma is known, of all data sets; `n_pairs`: that count, of all of them;
        `data_cost`: the cost without penalties.
    """

    parts: tuple[Part, ...]
    parameters: ParameterMap
    entries: Entries
    slope: Float[np.ndarray, "entry"]
    curvature: Float[np.ndarray, "entry entry"]
    hessian: Float[np.ndarray, "entry entry"]
    ties: Float[np.ndarray, "parameter free"]
    absolute: bool
    n_pairs: int
    data_cost: float

    @property
    def x(self) -> Float[np.ndarray, "free"]:
        """The free parameters."""
        return self.entries.values[self.entries.values.size - self.parameters.n_free :]

    def places(self, k: int) -> Int[np.ndarray, "coefficient"]:
        """Which entries are the scaling coefficients of data set `k`."""
        begin = sum(part.size for part in self.parts[:k])
        return np.arange(begin, begin + self.parts[k].size)


def _together(parts: list[Part], penalty: Float[np.ndarray, "entry entry"]) -> ScoreCovariances:
    """The covariance of the gradient of the whole: data sets are independent.

    `penalty` is what penalties on the parameters of all add to the curvature.
    """
    reasons: dict[str, list[str]] = {}
    for part in parts:
        reasons.setdefault(part.scores.reason, []).append(part.label)
    texts = [
        reason if len(reasons) == 1 else f"{', '.join(labels)}: {reason}"
        for reason, labels in reasons.items()
    ]

    def whole(name):
        return np.sum([part.gathered(getattr(part.scores, name)) for part in parts], axis=0)

    scores = [part.scores for part in parts]
    # One kind must serve for all: the one that every data set has.
    kinds = {one.chosen for one in scores}
    chosen = next(kind for kind in ("classical", "dyadic", "speckle") if kind in kinds)
    robust = [one.influence for one in scores if one.influence is not None]
    return ScoreCovariances(
        speckle=whole("speckle"),
        dyadic=whole("dyadic"),
        own=whole("own"),
        hessian=whole("hessian") + penalty,
        influence=reduce(add, robust) if len(robust) == len(scores) else None,
        n_pixels=np.concatenate([one.n_pixels for one in scores]),
        shot_noise=np.concatenate([one.shot_noise for one in scores]),
        chosen=chosen,
        reason="; ".join(texts),
    )


def _optimum(objective, y, memo) -> Optimum:
    if isinstance(objective, SpeckleLikelihood):
        return likelihood_optimum(objective, y, memo)
    return optimum(objective, y, memo)


def _scores(objective, at: Optimum, memo, errors: Errors) -> ScoreCovariances:
    if isinstance(objective, SpeckleLikelihood):
        return likelihood_scores(objective, at, memo)
    if errors == "classical":
        return classical_scores(objective, at)
    return score_covariances(objective, at)


def whole_at(solution: Solution, errors: Errors = "all") -> Whole:
    """The data sets, one or several, at the optimum of their fit."""
    objective = solution.objective
    several = isinstance(objective, CombinedObjective)
    if several:
        parameters, labels = objective.parameters.whole, objective.parameters.labels
        objectives, memos = objective.parts, solution.memo
        points, _ = objective.local(solution.y)
    else:
        parameters, labels = objective.term.parameters, ("1",)
        objectives, memos, points = (objective,), (solution.memo,), (solution.y,)
    optima = [_optimum(*one) for one in zip(objectives, points, memos, strict=True)]
    sizes = [at.coefficients.shape[0] for at in optima]
    count, free = sum(sizes), parameters.n_free
    slope, penalty = np.zeros(count + free), np.zeros((count + free,) * 2)
    if several:
        x, on_whole = _physical(objective, solution.y)
        slope[count:], penalty[count:, count:] = on_whole.gradient, on_whole.hessian
    else:
        x = np.asarray(optima[0].values)[count:]
    tied = several or bool(parameters.ties)
    ties = np.asarray(_ties(parameters, x)) if tied else np.zeros((0, free))
    parts, names = [], []
    for k, (one, at, memo) in enumerate(zip(objectives, optima, memos, strict=True)):
        own, begin = one.term.parameters.free_names, sum(sizes[:k])
        matrix = np.zeros((sizes[k] + len(own), count + free))
        matrix[: sizes[k], begin : begin + sizes[k]] = np.eye(sizes[k])
        by_whole = np.eye(free)
        if several:
            public = dict(objective.parameters.public[k])
            by_whole = ties[[parameters.names.index(public[name]) for name in own]]
        matrix[sizes[k] :, count:] = by_whole
        scores = _scores(one, at, memo, errors)
        parts.append(Part(labels[k], own, one, memo, at, scores, matrix))
        names += [f"{n}[{labels[k]}]" if several else n for n in one.term.scaling.names]

    def joined(field, physical):
        own = [np.asarray(getattr(at, field))[:k] for at, k in zip(optima, sizes, strict=True)]
        return np.concatenate([*own, np.asarray(physical)])

    values, start = joined("values", x), joined("start", solution.run.start[:free])
    lower, upper = (joined(side, getattr(parameters, side)) for side in ("lower", "upper"))
    bound, every = (values <= lower) | (values >= upper), (*names, *parameters.free_names)
    absolute = all(one.term.absolute_sigma for one in objectives)
    n_pairs = sum(int(at.joint.count) for at in optima)
    cost = sum(float(at.data_cost) for at in optima)
    scores = _together(parts, penalty)
    uncertainty = uncertainty_from(scores, absolute, cost, n_pairs, ~bound, every)
    return Whole(
        parts=tuple(parts),
        parameters=parameters,
        entries=Entries(every, values, lower, upper, start, bound, uncertainty),
        slope=slope + sum(part.matrix.T @ np.asarray(part.at.joint.gradient) for part in parts),
        curvature=penalty + sum(part.gathered(part.at.joint.hessian) for part in parts),
        hessian=scores.hessian,
        ties=ties,
        absolute=absolute,
        n_pairs=n_pairs,
        data_cost=cost,
    )


@plain_jit
def _ties(parameters, x):
    return jax.jacfwd(parameters.all_values)(x)


@plain_jit
def _physical(objective, y):
    """Parameters x of several data sets, and the equations of penalties by x."""
    whole = objective.parameters.whole
    y = y[: whole.n_free]
    penalty = penalty_equations(objective.penalties, whole, y, objective.noise)
    if whole.n_free:
        penalty = penalty.transform(jnp.linalg.inv(jax.jacfwd(whole.to_physical)(y)))
    return snap(whole, whole.to_physical(y)), penalty


class Distance(NamedTuple):
    """How far the estimate of one data set lies from the joint one.

    - `statistic`: squared distance in units of its covariance, for `degrees` parameters.
    - `name`, `deviation`: the parameter furthest away, in its own errors.
    """

    label: str
    statistic: float
    degrees: int
    name: str
    deviation: float


class Sharing(NamedTuple):
    """A test of the hypothesis that the shared parameters are the same in all data sets.

    - `statistic`: squared distance of the separate estimates from what sharing allows, in units
        of their covariance; χ² with `degrees` degrees of freedom when sharing is right.
    - `probability`: of a larger one by chance.
    - `distances`: of each data set, in their order.
    """

    statistic: float
    degrees: int
    probability: float
    distances: tuple[Distance, ...]

    @property
    def agree(self) -> bool:
        """Whether nothing speaks against sharing."""
        return self.degrees == 0 or self.probability > DISAGREEMENT

    def finding(self) -> str:
        """One sentence."""
        if self.degrees == 0:
            return "no parameter is shared, so that there is nothing to compare"
        text = (
            f"χ² = {self.statistic:.4g} with {self.degrees} degrees of freedom, "
            f"p {probability_text(self.probability)}"
        )
        if self.agree:
            return f"the data sets agree on what they share: {text}"
        worst = sorted(self.distances, key=lambda d: -d.statistic / d.degrees)[:3]
        parts = ", ".join(
            f"{d.label} (χ² = {d.statistic:.3g} for {d.degrees} parameters, most in {d.name})"
            for d in worst
        )
        return (
            f"the data sets disagree on what they share ({text}); furthest from the others: "
            f"{parts}. Let parameters be separate, or tie them by the right function"
        )


class _Estimate(NamedTuple):
    """What one data set says by itself, to first order around the joint optimum.

    - `distance`: its own estimate minus the joint one; `covariance`: of its own estimate.
    - `derivative`: of its parameters by the free ones of the whole.
    """

    distance: Float[np.ndarray, "local"]
    covariance: Float[np.ndarray, "local local"]
    derivative: Float[np.ndarray, "local free"]


def sharing_test(whole: Whole) -> Sharing:
    """Compare the separate estimates of data sets with what shared parameters can reach.

    With d the separate minus the joint estimates of all data sets, V their covariance and T the
    derivative of all their parameters by the shared ones, d lies in the span of T but for chance
    when sharing is right (a Wald test, from one Gauss–Newton step of each data set). Data sets
    with no more pairs than parameters have no errors to compare by, and are left out.
    """
    # Not at the top: fits of one data set do without.
    from scipy.linalg import block_diag

    bound, distances, estimates = whole.entries.bound, [], []
    for part in whole.parts:
        free = ~part.on_bound(bound)
        if float(part.at.joint.count) <= np.count_nonzero(free):
            continue
        inverse, *_ = inverse_of(part.scores.hessian, free)
        moving = np.flatnonzero(free[part.size :]) + part.size
        distance = -(inverse @ np.asarray(part.at.joint.gradient))[moving]
        covariance = (inverse @ part.noise @ inverse)[np.ix_(moving, moving)]
        estimates.append(_Estimate(distance, covariance, part.matrix[moving][:, ~bound]))
        if moving.size:
            statistic, degrees, _ = wald(distance, covariance)
            error = np.sqrt(np.diagonal(covariance))
            ratio = distance / np.where(error > 0, error, 1.0)
            i = int(np.argmax(np.abs(ratio)))
            name = part.names[moving[i] - part.size]
            distances.append(Distance(part.label, statistic, degrees, name, float(ratio[i])))
    if not estimates:
        return Sharing(0.0, 0, 1.0, ())
    distance, derivative = (
        np.concatenate([getattr(one, field) for one in estimates])
        for field in ("distance", "derivative")
    )
    covariance = np.asarray(block_diag(*(one.covariance for one in estimates)))
    return Sharing(*wald(distance, covariance, derivative), tuple(distances))
