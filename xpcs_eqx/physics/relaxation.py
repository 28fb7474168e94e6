"""The forms that one-time functions are usually fitted with, here with ages."""

from math import log, sqrt
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import ScalarLike

from .correlation import AbstractCorrelation, Features
from .diffusion import TRANSPORT, power_law_of, rate_names
from .leaves import ParameterInfo, parameter
from .rates import AbstractRate

_LN2 = log(2.0)

RELAXATION = {
    "Gamma0": ParameterInfo("1/s^(1+ageing)", 1.0, 1e-12, 1e12),
    "ageing": ParameterInfo("", 0.0, -2.0, 2.0),
    "Gamma_offset": ParameterInfo("1/s", 0.0, -1e6, 1e6),
    "Gamma": ParameterInfo("1/s", 1.0, 1e-12, 1e12, logarithmic=True),
    "Gamma_initial": ParameterInfo("1/s", 1.0, -1e12, 1e12),
    "Gamma_tau": ParameterInfo("s", 10.0, 1e-6, 1e9),
}
SPREAD = {
    "w0": ParameterInfo("Å/s^(1+w_ageing)", 10.0, 1e-9, 1e12),
    "w_ageing": ParameterInfo("", 0.0, -2.0, 2.0),
    "w_offset": ParameterInfo("Å/s", 0.0, -1e6, 1e6),
    "w": ParameterInfo("Å/s", 10.0, 1e-9, 1e12, logarithmic=True),
    "w_initial": ParameterInfo("Å/s", 10.0, -1e12, 1e12),
    "w_tau": ParameterInfo("s", 10.0, 1e-6, 1e9),
}
# The transport of the other models, with room for maps without q, whose coefficients are rates.
CAGED = TRANSPORT | {"D0": TRANSPORT["D0"]._replace(lower=1e-9, upper=1e12)}


class StretchedExponential(AbstractCorrelation):
    """Kohlrausch, Williams and Watts: |c1|² = exp(−2 (∫ Γ dt)^stretch).

    Γ(t) [1/s] is the relaxation rate of c1 at age t, whatever its dependence on q. A Gaussian field
    has this correlation for 0 < stretch ≤ 2 only: beyond 2 exp(−τ^stretch) is not positive
    definite, which no scatterer can have. 1 is diffusion, above 1 compressed, 2 ballistic.
    """

    relaxation: AbstractRate = eqx.field(default_factory=power_law_of(RELAXATION))
    stretch: ScalarLike = parameter(start=1.0, bounds=(0.1, 2.0), scale=0.3)

    names: ClassVar[dict[str, str]] = rate_names("relaxation", RELAXATION)
    infos: ClassVar[dict[str, ParameterInfo]] = RELAXATION
    positive_rates: ClassVar[tuple[str, ...]] = ("relaxation",)

    def features(self, t, geometry):
        return Features(increments=self.relaxation.integral(t), scalars=self.stretch)

    def kernel(self, pair):
        # No power of zero, whose derivative by the exponent is none.
        size = jnp.maximum(jnp.abs(pair.increments), jnp.finfo(pair.increments.dtype).tiny)
        return jnp.exp(-2 * jnp.exp(pair.scalars * jnp.log(size)))

    def starts(self, half, geometry):
        exponent = 1 / float(np.asarray(self.stretch))
        return {"Gamma0": (0.5 * _LN2) ** exponent / float(np.max(half))}


class DoubleExponential(AbstractCorrelation):
    """Two relaxations: |c1|² = [(1 − slow) exp(−ratio ∫ Γ dt) + slow exp(−∫ Γ dt)]².

    Γ(t) [1/s] is the slower rate of c1 at age t, `ratio` how many times faster the other is, `slow`
    the share of c1 that decays slowly. A ratio of at least one tells which is which.
    """

    relaxation: AbstractRate = eqx.field(default_factory=power_law_of(RELAXATION))
    ratio: ScalarLike = parameter(start=10.0, bounds=(1.0, 1e6), logarithmic=True)
    slow: ScalarLike = parameter(start=0.5, bounds=(0.0, 1.0), scale=0.1)

    names: ClassVar[dict[str, str]] = rate_names("relaxation", RELAXATION)
    infos: ClassVar[dict[str, ParameterInfo]] = RELAXATION
    positive_rates: ClassVar[tuple[str, ...]] = ("relaxation",)

    def features(self, t, geometry):
        return Features(increments=self.relaxation.integral(t), scalars=(self.ratio, self.slow))

    def kernel(self, pair):
        ratio, slow = pair.scalars
        x = jnp.abs(pair.increments)
        field = (1 - slow) * jnp.exp(-ratio * x) + slow * jnp.exp(-x)
        return field * field

    def starts(self, half, geometry):
        # Between the two rates, in ratio.
        between = sqrt(float(np.asarray(self.ratio)))
        return {"Gamma0": 0.5 * _LN2 / (float(np.max(half)) * between)}


class Ballistic(AbstractCorrelation):
    """Motion in straight lines: |c1|² = exp(−(q ∫ w dt)²).

    w(t) [Å/s] is the standard deviation of the velocity along q at age t, normally distributed.
    """

    spread: AbstractRate = eqx.field(default_factory=power_law_of(SPREAD))

    names: ClassVar[dict[str, str]] = rate_names("spread", SPREAD)
    infos: ClassVar[dict[str, ParameterInfo]] = SPREAD
    positive_rates: ClassVar[tuple[str, ...]] = ("spread",)

    def features(self, t, geometry):
        return Features(increments=geometry.q * self.spread.integral(t))

    def kernel(self, pair):
        return jnp.exp(-(pair.increments**2))

    def starts(self, half, geometry):
        return {"w0": sqrt(_LN2) / (float(geometry.q) * float(np.max(half)))}


class Caged(AbstractCorrelation):
    """Diffusion out of cages: |c1|² = exp(−q² [cage² (1 − exp(−τ/cage_time)) + ∫ J dt]).

    The variance of the displacement along q first grows to cage² [Å²] within `cage_time` [s],
    which leaves a plateau of exp(−q² cage²), and then by J(t) [Å²/s] as in `Static`.
    """

    transport: AbstractRate = eqx.field(default_factory=power_law_of(CAGED))
    cage: ScalarLike = parameter(unit="Å", start=100.0, bounds=(1e-6, 1e6), logarithmic=True)
    cage_time: ScalarLike = parameter(unit="s", start=0.1, bounds=(1e-9, 1e9), logarithmic=True)

    names: ClassVar[dict[str, str]] = rate_names("transport", CAGED)
    infos: ClassVar[dict[str, ParameterInfo]] = CAGED
    positive_rates: ClassVar[tuple[str, ...]] = ("transport",)

    def features(self, t, geometry):
        q2 = geometry.q**2
        return Features(
            increments=(q2 * self.transport.integral(t), t / self.cage_time),
            scalars=q2 * self.cage**2,
        )

    def kernel(self, pair):
        spread, delay = pair.increments
        return jnp.exp(-jnp.abs(spread) + pair.scalars * jnp.expm1(-delay))

    def starts(self, half, geometry):
        # Half of the loss in the cage, the rest by leaving it.
        q, slowest = float(geometry.q), float(np.max(half))
        transport = 0.5 * _LN2 / (q**2 * slowest)
        return {"D0": transport, "cage": sqrt(0.5 * _LN2) / q, "cage_time": 0.1 * slowest}
