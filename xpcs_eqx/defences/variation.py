"""Adaptive regularisation: contrast and offset drawn together by their coefficient of variation."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..arguments import Positive, check_fields
from ..errors import ModelError
from ..objective import AbstractLinearScalingPenalty, AbstractScalingPenalty
from ..physics import as_inexact

GROUPS = ("contrast", "offset")
# Above this number of angles the relative form is the better one: its own unit is well known then.
MANY_ANGLES = 5
# Around zero a relative spread has no meaning, and no value.
_SMALL = np.finfo(np.float32).tiny ** 0.25


def _columns(groups: tuple[str, ...]) -> tuple[int, ...]:
    for name in groups:
        if name not in GROUPS:
            raise ModelError(f"no group {name!r} of the scaling; there are 'contrast' and 'offset'")
    if not groups or len(set(groups)) < len(groups):
        raise ModelError(f"groups {groups!r} of a penalty; name 'contrast', 'offset' or both, once")
    return tuple(GROUPS.index(name) for name in groups)


def coefficient_of_variation(per_angle: Float[Array, "angle 2"]) -> Float[Array, "2"]:
    """Standard deviation over |mean| of contrast and of offset over the angles.

    The standard deviation is that of the angles themselves (divided by their number).
    """
    mean = jnp.mean(per_angle, axis=0)
    return jnp.std(per_angle, axis=0) / jnp.maximum(jnp.abs(mean), jnp.finfo(mean.dtype).tiny)


class RelativeVariation(AbstractScalingPenalty):
    """λ·CV²·S added to the sum of squares for each group, with S = MSE·n = Σ w r² of the data.

    S is a number here, not a function of the parameters: with S moving along, the cost would be a
    product and no sum of squares, and making the fit worse would be one way of making the penalty
    large. Whoever runs the fit puts it in, and again when the fit is better.
    Cost, gradient and curvature follow from the residuals √(λS/n_φ)·(v − v̄)/v̄.

    - `weight`: λ; `squares`: S [squared weighted residuals].

    **Raises:** `ModelError` for groups that do not exist.
    """

    weight: ScalarLike = eqx.field(converter=as_inexact)
    squares: ScalarLike = eqx.field(converter=as_inexact)
    groups: tuple[str, ...] = eqx.field(static=True, default=GROUPS)

    def __check_init__(self):
        check_fields(self)
        _columns(self.groups)

    def residuals(self, per_angle):
        chosen = per_angle[:, np.array(_columns(self.groups))]
        mean = jnp.mean(chosen, axis=0)
        safe = jnp.where(jnp.abs(mean) > _SMALL, mean, _SMALL)
        root = jnp.sqrt(self.weight * self.squares / per_angle.shape[0])
        return jnp.ravel(root * (chosen - mean) / safe)


class AbsoluteVariation(AbstractLinearScalingPenalty):
    """λ·Var·n added to the sum of squares for each group, with n the number of pairs.

    The residuals √(λn/n_φ)·(v − v̄) are linear, so that the elimination of contrast and offset stays
    exact.

    - `weight`: λ of all groups, or of each [squared weighted residual per c2²]: MSE/v̄² at the fit
        before makes it the λ of `RelativeVariation`; `pairs`: n.

    **Raises:** `ModelError` for groups that do not exist.
    """

    weight: Float[Array | np.ndarray, "*group"] = eqx.field(converter=as_inexact)
    pairs: ScalarLike = eqx.field(converter=as_inexact)
    groups: tuple[str, ...] = eqx.field(static=True, default=GROUPS)

    def __check_init__(self):
        check_fields(self)
        _columns(self.groups)

    def residuals(self, per_angle):
        chosen = per_angle[:, np.array(_columns(self.groups))]
        root = jnp.sqrt(self.weight * self.pairs / per_angle.shape[0])
        return jnp.ravel(root * (chosen - jnp.mean(chosen, axis=0)))


class AbstractRegularisation(eqx.Module):
    """What contrast and offset are drawn together by, before the data are known.

    - `target_variation`, `target_share`: at a coefficient of variation of the one, the penalty adds
        the other to the sum of squares, as a fraction of it; λ = share/variation².
    - `largest_variation`: coefficient of variation above which the report warns.
    - `factor`: of λ; a reset after a collapse raises it.
    - `groups`: `"contrast"`, `"offset"` or both.
    """

    target_variation: Positive = 0.10
    target_share: Positive = 0.10
    largest_variation: Positive = 0.20
    factor: Positive = 1.0
    groups: tuple[str, ...] = eqx.field(static=True, default=GROUPS)

    def __check_init__(self):
        check_fields(self)
        _columns(self.groups)

    @property
    def weight(self) -> float:
        """λ in λ·CV²·MSE·n."""
        return self.factor * self.target_share / self.target_variation**2

    @abstractmethod
    def penalty(
        self, squares: float, pairs: int, mean: Float[np.ndarray, "2"]
    ) -> AbstractScalingPenalty:
        """The penalty for data with a sum of squares of `squares` over `pairs`.

        `mean` are contrast and offset of the fit before, averaged over the angles.
        """


class RelativeRegularisation(AbstractRegularisation):
    """λ·CV²·MSE·n; see `RelativeVariation`."""

    def penalty(self, squares, pairs, mean):
        return RelativeVariation(np.asarray(self.weight), np.asarray(squares, float), self.groups)


class AbsoluteRegularisation(AbstractRegularisation):
    """λ·Var/v̄²·MSE·n with MSE and mean v̄ of the fit before; see `AbsoluteVariation`.

    A target share means what it means in the relative form, and the penalty is linear.
    """

    def penalty(self, squares, pairs, mean):
        size = np.maximum(np.abs(np.asarray(mean)[list(_columns(self.groups))]), _SMALL)
        weight = self.weight * squares / pairs / size**2
        return AbsoluteVariation(weight, np.asarray(pairs, float), self.groups)


def regularisation_for(n_angles: int, **fields: Any) -> AbstractRegularisation:
    """Relative for more than 5 angles, else absolute; `fields` as of either class."""
    chosen = RelativeRegularisation if n_angles > MANY_ANGLES else AbsoluteRegularisation
    return chosen(**fields)
