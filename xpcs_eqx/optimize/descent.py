"""A descent that Optimistix does not have: Gauss–Newton steps, shortened but never lengthened."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import optimistix as optx


class ShortenedNewtonDescent(optx.AbstractDescent[Any, Any, Any]):
    """The Newton step for step sizes of one and more, that fraction of it below.

    A trust region opens beyond one after good steps. Twice the Newton step has a predicted
    reduction of zero, which would look like the end of the fit.
    """

    newton: optx.NewtonDescent = eqx.field(
        default_factory=lambda: optx.NewtonDescent(linear_solver=lx.SVD())
    )

    def init(self, y, f_info_struct):
        return self.newton.init(y, f_info_struct)

    def query(self, y, f_info, state):
        return self.newton.query(y, f_info, state)

    def step(self, step_size, state):
        return self.newton.step(jnp.minimum(step_size, 1.0), state)
