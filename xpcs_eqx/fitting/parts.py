"""One data set of a joint fit at the optimum, and how its entries belong to the whole."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from ..objective import CombinedObjective, InfluenceSums
from ..uncertainty import (
    Optimum,
    ScoreCovariances,
    Uncertainty,
    inverse_of,
    optimum,
    score_covariances,
)
from .sharing import Estimate
from .solution import Solution


class Part(NamedTuple):
    """One data set at the optimum.

    `matrix` is the derivative of its entries (scaling coefficients, varying parameters) by those
    of the whole.
    """

    label: str
    names: tuple[str, ...]
    at: Optimum
    scores: ScoreCovariances
    matrix: Float[np.ndarray, "local entry"]

    @property
    def size(self) -> int:
        """Number of scaling coefficients."""
        return self.at.coefficients.shape[0]

    def gathered(self, matrix) -> Float[np.ndarray, "entry entry"]:
        """A curvature, or the covariance of a gradient, as entries of the whole."""
        return self.matrix.T @ np.asarray(matrix) @ self.matrix

    def on_bound(self, bound: Bool[np.ndarray, "entry"]) -> Bool[np.ndarray, "local"]:
        """Which of its entries follow entries of the whole that are on a bound."""
        return np.any(self.matrix[:, bound] != 0, axis=1)

    def judged(self, bound: Bool[np.ndarray, "entry"]) -> bool:
        """Whether residuals are left to judge it by itself."""
        free = int(np.count_nonzero(~self.on_bound(bound)))
        return float(self.at.joint.count) > free

    def estimate(self, bound: Bool[np.ndarray, "entry"]) -> Estimate:
        """What it says by itself, one Gauss–Newton step away from the joint optimum."""
        free = ~self.on_bound(bound)
        inverse, *_ = inverse_of(self.scores.hessian, free)
        middle = getattr(self.scores, self.scores.chosen)
        moving = np.flatnonzero(free[self.size :]) + self.size
        block = np.ix_(moving, moving)
        return Estimate(
            self.label,
            tuple(self.names[i - self.size] for i in moving),
            -(inverse @ np.asarray(self.at.joint.gradient))[moving],
            (inverse @ middle @ inverse)[block],
            self.matrix[moving][:, ~bound],
        )

    def carried(self, uncertainty: Uncertainty) -> Uncertainty:
        """The error bars of its entries, from those of the whole."""

        def carry(covariance):
            variance = np.diagonal(covariance)
            lost = ~np.isfinite(variance)
            out = self.matrix @ np.where(lost | lost[:, None], 0.0, covariance) @ self.matrix.T
            for value in (np.inf, np.nan):
                same = np.isinf(variance) if value == np.inf else np.isnan(variance)
                hit = np.any(self.matrix[:, same] != 0, axis=1)
                out[hit, hit] = value
            return out

        return Uncertainty(
            classical=carry(uncertainty.classical),
            speckle=carry(uncertainty.speckle),
            dyadic=carry(uncertainty.dyadic),
            residual_variance=uncertainty.residual_variance,
            condition_number=uncertainty.condition_number,
            n_pixels=self.scores.n_pixels,
            shot_noise=self.scores.shot_noise,
            chosen=uncertainty.chosen,
            reason=uncertainty.reason,
            weak_directions=uncertainty.weak_directions,
        )


def parts_of(
    objective: CombinedObjective,
    solution: Solution,
    derivatives: tuple[Float[Array, "local free"], ...],
) -> list[Part]:
    """The data sets at an optimum, from the derivatives of their own parameters."""
    sizes = [part.term.scaling.size for part in objective.parts]
    count = sum(sizes)
    out = []
    for k, (part, y, memo) in enumerate(
        zip(objective.parts, objective.local(solution.y)[0], solution.memo, strict=True)
    ):
        derivative = np.asarray(derivatives[k])
        matrix = np.zeros((sizes[k] + derivative.shape[0], count + derivative.shape[1]))
        begin = sum(sizes[:k])
        matrix[: sizes[k], begin : begin + sizes[k]] = np.eye(sizes[k])
        matrix[sizes[k] :, count:] = derivative
        at = optimum(part, y, memo)
        names = objective.parameters.maps[k].free_names
        label = objective.parameters.labels[k]
        out.append(Part(label, names, at, score_covariances(part, at), matrix))
    return out


def _all_influences(parts: list[Part]) -> InfluenceSums | None:
    found = [part.scores.influence for part in parts]
    robust = [one for one in found if one is not None]
    return jax.tree.map(lambda *one: sum(one), *robust) if len(robust) == len(found) else None


def together(parts: list[Part], penalty: Float[np.ndarray, "entry entry"]) -> ScoreCovariances:
    """The covariance of the gradient of the whole: data sets are independent.

    `penalty` is what penalties on the whole add to the curvature.
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

    return ScoreCovariances(
        speckle=whole("speckle"),
        dyadic=whole("dyadic"),
        own=whole("own"),
        hessian=whole("hessian") + penalty,
        influence=_all_influences(parts),
        n_pixels=np.concatenate([part.scores.n_pixels for part in parts]),
        shot_noise=np.concatenate([part.scores.shot_noise for part in parts]),
        # One kind must serve for all: the one that every data set has.
        chosen="speckle" if all(part.scores.chosen == "speckle" for part in parts) else "dyadic",
        reason="; ".join(texts),
    )
