"""The models that come along: diffusion at rest and under shear."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from math import log, pi, sqrt
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..arguments import check_fields
from .correlation import AbstractCorrelation, Features
from .leaves import ParameterInfo, parameter
from .rates import AbstractRate, PowerLawRate
from .trigonometry import cos_degrees, sinc

# Fields of rates, which take the public names of a table such as `TRANSPORT` in this order: those
# of a power law, values at knots, and those of exponential ageing.
_FIELDS = ("amplitude", "exponent", "offset", "values", "initial", "tau")

TRANSPORT = {
    "D0": ParameterInfo("Å²/s^(1+alpha)", 1e4, 1.0, 1e6),
    "alpha": ParameterInfo("", 0.0, -2.0, 2.0),
    "D_offset": ParameterInfo("Å²/s", 0.0, -1e5, 1e5, 1e3),
    "J": ParameterInfo("Å²/s", 1e4, 1e-3, 1e9, logarithmic=True),
    "J_initial": ParameterInfo("Å²/s", 1e4, -1e9, 1e9),
    "J_tau": ParameterInfo("s", 10.0, 1e-6, 1e9),
}
SHEAR = {
    "gamma_dot_t0": ParameterInfo("1/s^(1+beta)", 1e-3, 1e-6, 0.5),
    "beta": ParameterInfo("", 0.0, -2.0, 2.0),
    "gamma_dot_t_offset": ParameterInfo("1/s", 0.0, -0.1, 0.1, 1e-3),
    "gamma_dot": ParameterInfo("1/s", 1e-3, -10.0, 10.0),
    "gamma_dot_initial": ParameterInfo("1/s", 1e-3, -10.0, 10.0),
    "gamma_dot_tau": ParameterInfo("s", 10.0, 1e-6, 1e9),
}


def rate_names(field: str, infos: Mapping[str, ParameterInfo]) -> dict[str, str]:
    """Public names of the parameters of a rate held in `field`, alone or inside `Trapezoid`."""
    return {
        f"{field}.{inner}{path}": name
        for inner in ("", "rate.")
        for path, name in zip(_FIELDS, infos, strict=True)
    }


def power_law_of(infos: Mapping[str, ParameterInfo]) -> Callable[[], AbstractRate]:
    """A factory of the power law at the start values of its first three parameters.

    An array made at import time would fix the precision before the user sets it.
    """
    amplitude, exponent, offset = (info.start for info in list(infos.values())[:3])
    return lambda: PowerLawRate(amplitude, exponent, offset)


class AbstractShearKernel(eqx.Module):
    """The shear factor of |c1|² as a function of the phase x = ½ q L cos(φ0−φ) ΔG [rad]."""

    __check_init__ = check_fields

    @abstractmethod
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The factor by which shear lowers |c1|²; 1 at x = 0."""


class GapAveraged(AbstractShearKernel):
    """(sin x / x)²: the exact average over a linear velocity profile.

    It is |⟨exp(i q v t)⟩|² over the gap; He et al., PNAS 121, e2401162121 (2024).
    """

    def __call__(self, x):
        value = sinc(x)
        return value * value


class Homodyne(AbstractShearKernel):
    """(sin y / y)⁴ with y = x/π: the kernel of homodyne 2.x, for reproducing its results.

    Shear rates from it come out larger by about π/√2 than with `GapAveraged`.
    """

    def __call__(self, x):
        value = sinc(x / pi)
        square = value * value
        return square * square


class Static(AbstractCorrelation):
    """Diffusion without flow: |c1|² = exp(−q² ∫ J dt).

    J(t) [Å²/s] is the growth rate of the displacement variance along q; 2D for Brownian motion.
    """

    transport: AbstractRate = eqx.field(default_factory=power_law_of(TRANSPORT))

    names: ClassVar[dict[str, str]] = rate_names("transport", TRANSPORT)
    infos: ClassVar[dict[str, ParameterInfo]] = TRANSPORT
    positive_rates: ClassVar[tuple[str, ...]] = ("transport",)

    def features(self, t, geometry):
        return Features(increments=geometry.q**2 * self.transport.integral(t))

    def kernel(self, pair):
        return jnp.exp(-jnp.abs(pair.increments))

    def starts(self, half, geometry):
        return {"D0": log(2.0) / (float(geometry.q) ** 2 * float(np.max(half)))}


class LaminarFlow(AbstractCorrelation):
    """Diffusion under laminar shear, a linear velocity profile across the gap.

    |c1|² = exp(−q² ∫ J dt) · S(½ q L cos(φ0−φ) ∫ γ̇ dt), with S the shear kernel;
    He et al., PNAS 121, e2401162121 (2024). The shear term is even in the cosine.

    >>> import xpcs_eqx as xe
    >>> model = xe.LaminarFlow(xe.PowerLawRate(1e4, -0.3, 500.0), xe.PowerLawRate(2e-3), phi0=5.0)
    >>> {name: round(float(value), 4) for name, value in xe.parameter_values(model).items()}
    {'D0': 10000.0, 'alpha': -0.3, 'D_offset': 500.0, 'gamma_dot_t0': 0.002, 'beta': 0.0, \
'gamma_dot_t_offset': 0.0, 'phi0': 5.0}
    """

    transport: AbstractRate = eqx.field(default_factory=power_law_of(TRANSPORT))
    shear: AbstractRate = eqx.field(default_factory=power_law_of(SHEAR))
    phi0: ScalarLike = parameter(unit="deg", start=0.0, bounds=(-30.0, 30.0), scale=10.0)
    shear_kernel: AbstractShearKernel = GapAveraged()

    names: ClassVar[dict[str, str]] = {
        **rate_names("transport", TRANSPORT),
        **rate_names("shear", SHEAR),
    }
    infos: ClassVar[dict[str, ParameterInfo]] = TRANSPORT | SHEAR
    positive_rates: ClassVar[tuple[str, ...]] = ("transport",)

    def features(self, t, geometry):
        phase = 0.5 * geometry.q * geometry.gap * self.shear.integral(t)
        direction = cos_degrees(jnp.asarray(self.phi0 - geometry.phi))
        return Features(
            increments=(geometry.q**2 * self.transport.integral(t), phase), scalars=direction
        )

    def kernel(self, pair):
        spread, phase = pair.increments
        return jnp.exp(-jnp.abs(spread)) * self.shear_kernel(pair.scalars * phase)

    def starts(self, half, geometry):
        # Diffusion alone across the flow; along it (sin x / x)² is one half at x = 1.39.
        q, slowest, fastest = float(geometry.q), float(np.max(half)), float(np.min(half))
        phase = 1.39 * sqrt(max(1 - fastest / slowest, 0.01))
        shear = 2 * phase / (q * float(geometry.gap) * fastest)
        return {"D0": log(2.0) / (q**2 * slowest), "gamma_dot_t0": shear}
