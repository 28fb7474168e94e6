"""What the tests of the core share: models, scalings, losses, small data sets, tolerances."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from xpcs_eqx.data import Geometry, PooledData, TwoTimeData
from xpcs_eqx.objective import Arctan, Cauchy, Huber, Linear, SoftL1, two_time_objective
from xpcs_eqx.parameters import ParameterMap, parameter_map, parameter_values, with_parameters
from xpcs_eqx.physics import (
    AbstractCorrelation,
    Features,
    Homodyne,
    LaminarFlow,
    PowerLawRate,
    Static,
    Trapezoid,
    correlation_map,
    parameter,
)
from xpcs_eqx.scaling import Averaged, Fixed, Fourier, Individual

# Options of a compiler that is not asked for speed otherwise, for `jax.jit` of what runs long.
SPEED = {"xla_backend_optimization_level": 1}

# Contrast and offset as variables, whatever the loss.
joint_objective = partial(two_time_objective, eliminate=False)


class Tolerance(NamedTuple):
    """Relative agreement expected of one precision.

    - `same`: the same sum in another order;
    - `derivative`: an exact derivative found in another way;
    - `difference`: an exact derivative against finite differences;
    - `optimum`: the same optimum from two solvers, in units of the standard errors.
    """

    same: float
    derivative: float
    difference: float
    optimum: float


TOLERANCES = {
    "float64": Tolerance(same=1e-10, derivative=1e-8, difference=2e-6, optimum=1e-3),
    "float32": Tolerance(same=2e-5, derivative=1e-3, difference=1e-2, optimum=3e-2),
}
DOUBLE = TOLERANCES["float64"]
SINGLE = TOLERANCES["float32"]


# Options of the compiler for small shapes, where compiling takes longer than running.
QUICK_TO_COMPILE = {"xla_llvm_disable_expensive_passes": True}


class Stretched(AbstractCorrelation):
    """A user's model in ten lines: exp(−2 (τ/τ0)^s)."""

    tau: Any = parameter(unit="s", start=2.0, bounds=(1e-2, 1e3))
    stretch: Any = parameter(start=1.0, bounds=(0.2, 2.0))

    def features(self, t, geometry):
        return Features(increments=t, scalars=(self.tau, self.stretch))

    def kernel(self, pair):
        tau, stretch = pair.scalars
        return jnp.exp(-2 * (pair.increments / tau) ** stretch)


class Fading(AbstractCorrelation):
    """A decaying part whose share changes in time: features at both ends of a pair."""

    speed: Any = parameter(unit="1/s", start=0.3, bounds=(1e-3, 10.0))
    level: Any = parameter(start=0.2, bounds=(-5.0, 5.0))
    trend: Any = parameter(unit="1/s", start=0.1, bounds=(-2.0, 2.0))

    def features(self, t, geometry):
        share = jax.nn.sigmoid(self.level + self.trend * t)
        return Features(increments=self.speed * t, endpoints=share)

    def kernel(self, pair):
        moving = pair.first * pair.second * jnp.exp(-pair.increments)
        still = (1 - pair.first) * (1 - pair.second)
        norm = (pair.first**2 + (1 - pair.first) ** 2) * (pair.second**2 + (1 - pair.second) ** 2)
        return (moving + still) ** 2 / norm


TRANSPORT = PowerLawRate(1.5e4, -0.3, 500.0)
SHEAR = PowerLawRate(2.8e-3, 0.3, 1e-4)
LAMINAR = LaminarFlow(TRANSPORT, SHEAR, 5.0)

# Every model at true values.
MODELS = {
    "static": Static(TRANSPORT),
    "laminar": LAMINAR,
    "laminar-trapezoid-homodyne": LaminarFlow(
        Trapezoid(TRANSPORT), Trapezoid(PowerLawRate(6e-3, 0.3, 1e-4)), 5.0, Homodyne()
    ),
    "stretched": Stretched(tau=2.0, stretch=0.8),
    "fading": Fading(speed=0.5, level=0.5, trend=-0.2),
}

PHI = np.array([0.0, 45.0, 90.0])

STATIC = Static(PowerLawRate(1e3, 0.0, 0.0))  # 1/e of c2 after five frames
FLOWING = LaminarFlow(PowerLawRate(1.2e4, -0.3, 0.0), PowerLawRate(3e-4, 0.2, 0.0), 5.0)
# Model, parameters that are fixed, frame times, geometry.
SPECKLE = {
    "static": (
        STATIC,
        ("alpha", "D_offset"),
        np.arange(60.0),
        Geometry(q=0.01, phi=np.array([0.0])),
    ),
    "laminar": (
        FLOWING,
        ("D_offset", "gamma_dot_t_offset"),
        0.1 * np.arange(1, 62),
        Geometry(q=0.0054, phi=PHI),
    ),
}
SCALINGS = {
    "individual": Individual(3),
    "averaged": Averaged(3),
    "fixed": Fixed(np.array([0.2, 0.21, 0.19]), np.array([1.0, 1.01, 0.99])),
    "fourier": Fourier(PHI, order=1),
}
LOSSES = {
    "linear": Linear(),
    "soft_l1": SoftL1(0.01),
    "huber": Huber(0.01),
    "cauchy": Cauchy(0.01),
    "arctan": Arctan(0.02),
}


def frame_times(n: int, span: float = 10.0) -> np.ndarray:
    """n equidistant times from 0 to `span` [s]."""
    return np.linspace(0.0, span, n)


def make_data(
    model=LAMINAR,
    *,
    t=None,
    n=31,
    phi=PHI,
    contrast=0.2,
    offset=1.0,
    noise=0.005,
    seed=0,
    dtype=np.float64,
    diagonal=False,
    q=0.0054,
) -> TwoTimeData:
    """Surface of a model with Gaussian noise drawn by NumPy, once for each unordered pair."""
    t = frame_times(n) if t is None else np.asarray(t)
    geometry = Geometry(q=q, phi=np.asarray(phi, float))
    one = np.ones(len(geometry.phi))
    contrast, offset = (np.asarray(v * one)[:, None, None] for v in (contrast, offset))
    c2 = offset + contrast * np.asarray(_surface(model, t, geometry))
    draw = np.triu(np.random.default_rng(seed).normal(0, noise, c2.shape), 1)
    c2 = (c2 + draw + np.swapaxes(draw, 1, 2)).astype(dtype)
    raw = np.diagonal(c2, axis1=1, axis2=2).astype(float)
    return TwoTimeData(
        c2=c2,
        t=t,
        geometry=geometry,
        root_weights=None,
        diagonal=raw if diagonal else np.full_like(raw, np.nan),
    )


_surface = jax.jit(correlation_map)


def pooled(data: TwoTimeData, keep=None, seed=0) -> PooledData:
    """The pairs of maps as points in random order; `keep` is a mask over (angle, frame, frame)."""
    n = data.n_frames
    mask = np.broadcast_to(np.triu(np.ones((n, n), bool), 1), data.c2.shape)
    if keep is not None:
        mask = mask & keep
    angle, first, second = np.random.default_rng(seed).permutation(np.stack(np.nonzero(mask), 1)).T
    return PooledData(
        values=np.asarray(data.c2)[angle, first, second],
        first=first,
        second=second,
        angle=angle,
        t=data.t,
        geometry=data.geometry,
    )


def start_off(model, factor: float = 1.4):
    """The model with every non-zero parameter `factor` times its value, inside default bounds."""
    return with_parameters(
        model, {name: float(value) * factor for name, value in parameter_values(model).items()}
    )


def mapped(model, data, **keywords) -> ParameterMap:
    """A parameter map at the frame times of `data`."""
    return parameter_map(model, data.t, **keywords)


def values_of(model) -> dict[str, float]:
    """Parameter values as numbers."""
    return {name: float(value) for name, value in parameter_values(model).items()}


def dense_residual(term, data, y, coefficients):
    """All residuals of the upper triangle from whole surfaces: what the tiles must add up to."""
    model = term.parameters.build(term.parameters.to_physical(y))
    correlation = correlation_map(model, term.t, term.geometry)
    per_angle = term.scaling.per_angle(coefficients)
    surface = per_angle[:, 1, None, None] + per_angle[:, 0, None, None] * correlation
    i, j = np.triu_indices(data.n_frames, 1)
    return (surface - jnp.asarray(data.c2, float))[:, i, j].ravel()


def assert_close(found, wanted, rtol, scale=None):
    """Agreement relative to the largest entry, or to `scale` entry by entry."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    scale = np.max(np.abs(wanted), initial=1e-300) if scale is None else scale
    np.testing.assert_array_less(np.abs(found - wanted) / scale, rtol)
