"""How the size of the trust region follows the success of its steps."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from .values import as_value


class NielsenState(eqx.Module):
    """`step_size` = 1/λ with λ the damping; `growth` = ν, by which the next rejection raises λ."""

    step_size: Float[Array, ""]
    growth: Float[Array, ""]


class NielsenSearch(optx.AbstractSearch[Any, Any, Any, NielsenState]):
    """Nielsen's update of the damping λ, by the gain ratio ρ of true to predicted reduction.

    - a step with ρ > `low` is accepted: λ ← λ · max(1/`growth`, 1 − (2ρ − 1)³), ν ← 2;
    - any other is rejected: λ ← λ · ν, ν ← 2ν.

    A good step opens the region as far as it was good, with no jump between two thresholds; a row
    of rejections closes it faster and faster, so that a wall costs few evaluations.

    H. B. Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, Technical University
    of Denmark (1999), equation 2.4, which has `growth` = 3. Normal equations predict well: ten
    takes fewer evaluations.
    """

    low: float = eqx.field(default=1e-3, converter=as_value)
    growth: float = eqx.field(default=10.0, converter=as_value)

    def init(self, y, f_info_struct):
        del f_info_struct
        dtype = jnp.result_type(y)
        return NielsenState(jnp.ones((), dtype), jnp.full((), 2.0, dtype))

    def step(self, first_step, y, y_eval, f_info, f_eval_info, state):
        step = y_eval - y
        predicted = -(f_info.grad @ step + 0.5 * step @ f_info.hessian.mv(step))
        actual = f_info.as_min() - f_eval_info.as_min()
        gain = jnp.where(predicted > 0, actual / jnp.where(predicted > 0, predicted, 1.0), -jnp.inf)
        # A trial that is not finite has the gain −∞; NaN compares as a rejection, too.
        accept = gain > self.low
        damping = jnp.maximum(1 / self.growth, 1 - (2 * gain - 1) ** 3)
        step_size = state.step_size / jnp.where(accept, damping, state.growth)
        growth = jnp.where(accept, 2.0, 2.0 * state.growth)
        return (
            jnp.where(first_step, state.step_size, step_size),
            accept | first_step,
            optx.RESULTS.successful,
            NielsenState(
                jnp.where(first_step, state.step_size, step_size),
                jnp.where(first_step, state.growth, growth),
            ),
        )


def default_search() -> optx.AbstractSearch:
    """The search of a `TrustRegion` by default: `NielsenSearch`."""
    return NielsenSearch()
