"""A model of one's own: stretched exponential decay, fitted to simulated maps.

Run it with `python examples/own_model.py`; it needs no file and prints the fit.
"""

from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

import xpcs_eqx as xe


class StretchedExponential(xe.AbstractCorrelation):
    """|c1|² = exp(−2 (Γ τ)^γ)."""

    Gamma: ScalarLike = xe.parameter(unit="1/s", start=1.0, bounds=(1e-6, 1e6))
    stretch: ScalarLike = xe.parameter(start=1.0, bounds=(0.1, 3.0))

    def features(self, t: Float[Array, "frame"], geometry: xe.Geometry) -> xe.Features:
        # What a pair needs of its two times enters as a difference of features.
        return xe.Features(increments=jnp.asarray(self.Gamma) * t, scalars=self.stretch)

    def kernel(self, pair: xe.Pair) -> Float[Array, "..."]:
        return jnp.exp(-2 * pair.increments**pair.scalars)


def main() -> xe.Fit:
    jax.config.update("jax_enable_x64", True)
    t = 0.1 * np.arange(61)
    geometry = xe.Geometry(q=0.0054, phi=np.array([0.0, 90.0]))
    truth = StretchedExponential(0.8, 0.7)
    data = xe.simulate(truth, t, geometry, 0.25, noise=0.01, key=jax.random.key(0))
    assert_type(data, xe.TwoTimeData)

    start = StretchedExponential(1.5, 1.0)
    parameters = xe.parameter_map(start, data.t, bounds={"stretch": (0.3, 2.0)})
    assert_type(parameters, xe.parameters.ParameterMap)

    fit = xe.least_squares(xe.projected_objective(parameters, data))
    assert_type(fit, xe.Fit)
    assert_type(fit["Gamma"].value, float)
    assert_type(fit.success, bool)
    return fit


if __name__ == "__main__":
    print(main())
