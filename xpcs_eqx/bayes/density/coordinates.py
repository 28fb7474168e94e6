"""Unconstrained coordinates for samplers, with the exact log-determinant."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...parameters import (
    AbstractBijection,
    Affine,
    Identity,
    ParameterMap,
    ReferenceAmplitude,
    ReferenceTime,
    Slope,
)
from ...parameters.parameter_map import Group
from ..priors.families import AbstractPrior, Number, stacked

# Positive parameters whose ends are further apart than this factor are spread logarithmically.
_DECADES = 100.0
# Starts are moved inside an interval by this share of it: its ends have no coordinates.
_MARGIN = 1e-3


class Interval(AbstractBijection):
    """lower + (upper − lower)·sigmoid(y)."""

    lower: Number
    upper: Number

    def forward(self, y):
        return (self.lower + (self.upper - self.lower) * jax.nn.sigmoid(y[0]),)

    def inverse(self, x):
        return (jnp.log(x[0] - self.lower) - jnp.log(self.upper - x[0]),)


class TanhInterval(AbstractBijection):
    """mid + half·tanh((y − mid)/half): y is x itself as long as x is far from the ends."""

    lower: Number
    upper: Number

    def forward(self, y):
        mid, half = 0.5 * (self.lower + self.upper), 0.5 * (self.upper - self.lower)
        return (mid + half * jnp.tanh((y[0] - mid) / half),)

    def inverse(self, x):
        mid, half = 0.5 * (self.lower + self.upper), 0.5 * (self.upper - self.lower)
        return (mid + half * jnp.arctanh((x[0] - mid) / half),)


class LogInterval(AbstractBijection):
    """`Interval` of ln x, for positive ends that are decades apart."""

    lower: Number
    upper: Number

    def _of_log(self) -> Interval:
        return Interval(jnp.log(self.lower), jnp.log(self.upper))

    def forward(self, y):
        return (jnp.exp(self._of_log().forward(y)[0]),)

    def inverse(self, x):
        return self._of_log().inverse((jnp.log(x[0]),))


class HalfLine(AbstractBijection):
    """end + sign·exp(y): above the end for `sign` 1, below it for −1."""

    end: Number
    sign: int = eqx.field(static=True)

    def forward(self, y):
        return (self.end + self.sign * jnp.exp(y[0]),)

    def inverse(self, x):
        return (jnp.log(self.sign * (x[0] - self.end)),)


class FreeSlope(AbstractBijection):
    """`Slope` without limits of its own: (ln ρ, s, v) → (a, b, c) with v = −ln(1 − c/ρ).

    `exponent` keeps b = forward(s·exp(v)) between its ends, where they are finite. `sign` 1 or −1
    keeps the offset above or below zero, 0 leaves it free. Every (ln ρ, s, v) is a rate that is
    positive at the reference time with a > 0.
    """

    slope: Slope
    exponent: AbstractBijection
    sign: int = eqx.field(static=True)

    def forward(self, y):
        v = y[2] if self.sign == 0 else self.sign * jax.nn.softplus(self.sign * y[2])
        (b,) = self.exponent.forward((y[1] * jnp.exp(v),))
        return self.slope.forward((y[0], b * jnp.exp(-v), -jnp.expm1(-v)))

    def inverse(self, x):
        log_rho, s, w = self.slope.inverse(x)
        v = -jnp.log1p(-w)
        (b,) = self.exponent.inverse((s * jnp.exp(v),))
        # The inverse of softplus.
        coordinate = v if self.sign == 0 else v + self.sign * jnp.log(-jnp.expm1(-self.sign * v))
        return log_rho, b * jnp.exp(-v), coordinate


class FreeReference(AbstractBijection):
    """`ReferenceTime` or `ReferenceAmplitude` without limits of its own.

    `exponent` keeps the exponent between its ends, where they are finite; the ratio of an offset is
    exp(v) − 1 > −1.
    """

    reference: ReferenceTime | ReferenceAmplitude
    exponent: AbstractBijection

    def forward(self, y):
        (b,) = self.exponent.forward((y[1],))
        return self.reference.forward((y[0], b, *map(jnp.expm1, y[2:])))

    def inverse(self, x):
        amplitude, b, *ratio = self.reference.inverse(x)
        (b,) = self.exponent.inverse((b,))
        return amplitude, b, *map(jnp.log1p, ratio)


class Coordinates(eqx.Module):
    """z ↔ physical entries θ: θ from u by the bijections of `groups`, u = centre + scale·z.

    With `centre` and `scale` from a fit every direction of z has a posterior of order one. `alone`
    are the entries with a coordinate of their own, those of one kind together.
    """

    groups: tuple[Group, ...]
    alone: tuple[Group, ...]
    centre: Float[Array | np.ndarray, "entry"]
    scale: Float[Array | np.ndarray, "entry"]

    def to_physical(self, z: Float[Array, "entry"]) -> Float[Array, "entry"]:
        """θ from z."""
        return self._apply(self.unconstrained(z), lambda g, part: g.bijection.forward(part))

    def from_physical(self, theta: Float[Array, "entry"]) -> Float[Array, "entry"]:
        """z from θ; NaN where θ has no coordinates."""
        return self.standardised(self._apply(theta, lambda g, part: g.bijection.inverse(part)))

    def unconstrained(self, z: Float[Array, "*draw entry"]) -> Float[Array, "*draw entry"]:
        """u from z."""
        return jnp.asarray(self.centre) + self.scale * z

    def standardised(self, u: Float[Array, "entry"]) -> Float[Array, "entry"]:
        """z from u."""
        return (u - jnp.asarray(self.centre)) / self.scale

    def from_unconstrained(
        self, u: Float[Array | np.ndarray, "*draw entry"]
    ) -> Float[np.ndarray, "*draw entry"]:
        """z from u of draws, the coordinates that shards share whatever centre and scale are."""
        return (np.asarray(u) - np.asarray(self.centre)) / np.asarray(self.scale)

    def log_det(self, z: Float[Array, "entry"]) -> Float[Array, ""]:
        """ln |det dθ/dz|."""
        u = self.unconstrained(z)
        total = jnp.sum(jnp.log(self.scale))
        for group in self.groups:
            total += group.bijection.log_det(tuple(u[i] for i in group.members))
        for group in self.alone:
            here = u[np.asarray(group.members)]
            _, slope = jax.jvp(group.bijection.forward, ((here,),), ((jnp.ones_like(here),),))
            total += jnp.sum(jnp.log(jnp.abs(slope[0])))
        return total

    def _apply(self, vector, function):
        out: list = [None] * self.centre.shape[0]
        for group in self.groups:
            part = function(group, tuple(vector[i] for i in group.members))
            for i, value in zip(group.members, part, strict=True):
                out[i] = value
        for group in self.alone:
            (part,) = function(group, (vector[np.asarray(group.members)],))
            for k, i in enumerate(group.members):
                out[i] = part[k]
        return jnp.stack(out)


def _spread(low: float, high: float) -> bool:
    """Whether the ends of a positive parameter are decades apart."""
    return low > 0 and high > _DECADES * low


def _alone(prior: AbstractPrior) -> AbstractBijection:
    """The bijection from the line to the support of a prior."""
    low, high = (float(end) for end in prior.support)
    if math.isfinite(high - low):
        kind = LogInterval if _spread(low, high) else Interval
        return kind(np.asarray(low), np.asarray(high))
    if math.isfinite(low):
        return HalfLine(np.asarray(low), 1)
    if math.isfinite(high):
        return HalfLine(np.asarray(high), -1)
    mean, sd = prior.moments
    return Affine(np.asarray(mean), np.asarray(sd))


def _together(group: Group, priors: tuple[AbstractPrior, ...]) -> AbstractBijection | None:
    """The bijection of a power law, or None when its priors reach where it has no coordinates."""
    inner = group.bijection
    supports = [tuple(float(end) for end in priors[i].support) for i in group.members]
    if not isinstance(inner, Slope | ReferenceTime | ReferenceAmplitude) or supports[0][0] < 0:
        return None
    lower, upper = supports[1]
    exponent: AbstractBijection = Identity()
    if math.isfinite(upper - lower):
        exponent = TanhInterval(np.asarray(lower), np.asarray(upper))
    if isinstance(inner, Slope):
        low, high = supports[2]
        return FreeSlope(inner, exponent, 1 if low == 0 else -1 if high == 0 else 0)
    return FreeReference(inner, exponent)


def _inside(start: float, prior: AbstractPrior) -> float:
    """A start moved off the ends of its interval."""
    low, high = (float(end) for end in prior.support)
    if not (math.isfinite(low) or math.isfinite(high)):
        return start
    bounded = math.isfinite(high - low)
    if bounded and _spread(low, high):
        return np.clip(start, low * (1 + _MARGIN), high * (1 - _MARGIN))
    margin = _MARGIN * (high - low if bounded else float(prior.moments[1]))
    return np.clip(start, low + margin, high - margin)


def coordinates_for(
    parameters: ParameterMap,
    priors: tuple[AbstractPrior, ...],
    start: Float[np.ndarray, "entry"],
) -> tuple[Coordinates, Float[np.ndarray, "entry"]]:
    """Coordinates of (free parameters, further entries) with the given priors, and a usable start.

    Power laws keep the coordinates `parameters` gives them (`Slope` by default, `ReferenceTime`
    as an option) where their amplitude is positive by its prior and at the start; everything else
    gets a map from the line onto the support of its prior. Both kinds of coordinates of a power law
    with offset confine it to rates that are positive at the reference time.

    The start is moved off the ends of its intervals.
    """
    start = np.array([_inside(*one) for one in zip(start, priors, strict=True)], float)
    groups: list[Group] = []
    for group in parameters.groups:
        if len(group.members) == 1:
            continue
        bijection = _together(group, priors)
        here = tuple(jnp.asarray(start[i]) for i in group.members)
        if bijection is not None and np.all(np.isfinite(np.asarray(bijection.inverse(here)))):
            groups.append(Group(group.members, bijection))
    taken = {i for group in groups for i in group.members}
    rest = [i for i in range(len(priors)) if i not in taken]
    alone = tuple(
        Group(tuple(rest[k] for k in where), bijection)
        for where, bijection in stacked([_alone(priors[i]) for i in rest])
    )
    size = len(priors)
    return Coordinates(tuple(groups), alone, np.zeros(size), np.ones(size)), start
