"""What the steps of a trust region are made by: descents, searches and metrics."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float


def as_value(number: Any) -> Any:
    """A number of Python as one of NumPy; anything else as it is.

    That is data to a compiled function, so that another one compiles nothing anew, and can still be
    hashed.
    """
    return np.float64(number) if isinstance(number, float | int) else number


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


def damped_newton() -> optx.AbstractDescent:
    """Levenberg–Marquardt steps: (H + λI) z = −g with λ the inverse step size."""
    return optx.DampedNewtonDescent(lx.Cholesky())


def dogleg() -> optx.AbstractDescent:
    """Powell's dogleg between the steepest-descent and the Gauss–Newton step."""
    return optx.DoglegDescent(linear_solver=lx.SVD())


def gauss_newton() -> optx.AbstractDescent:
    """Gauss–Newton steps shortened along their direction."""
    return ShortenedNewtonDescent()


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


# Gradient along a natural step, relative to that along the best determined one.
_OPEN = 1e-9


class AbstractMetric(eqx.Module):
    """Units for the coordinates of a trust region."""

    @abstractmethod
    def scale(self, natural: Float[Array, "p"], largest: Float[Array, "p"]) -> Float[Array, "p"]:
        """Unit of each coordinate, such that the largest scaled curvature is one.

        - `natural`: natural step of each coordinate.
        - `largest`: largest diagonal of the normal matrix seen so far.
        """

    @abstractmethod
    def negligible(
        self, natural: Float[Array, "p"], curvature: Float[Array, "p"]
    ) -> Float[Array, "p"]:
        """Gradient of each coordinate, relative to ‖r‖, that counts as none.

        - `curvature`: diagonal of the normal matrix.
        """


class NaturalMetric(AbstractMetric):
    """The natural steps of the coordinates, whatever the data say.

    Right for logarithms, slopes and ratios: a direction that the data leave open is not taken far.
    """

    def scale(self, natural, largest):
        top = jnp.max(largest * natural**2, initial=0.0)
        return natural / jnp.sqrt(jnp.maximum(top, jnp.finfo(largest.dtype).tiny))

    def negligible(self, natural, curvature):
        # A natural step along such a coordinate changes next to nothing: it is left open.
        return _OPEN * jnp.sqrt(jnp.max(curvature * natural**2, initial=0.0)) / natural


class JacobianMetric(AbstractMetric):
    """Column norms of the Jacobian, as in MINPACK: invariant under the units of the variables."""

    def scale(self, natural, largest):
        # A coordinate without curvature so far gets a step comparable with its natural one
        # instead of an infinite one.
        floor = 1e-16 * jnp.max(largest * natural**2, initial=0.0) / natural**2
        return 1.0 / jnp.sqrt(jnp.maximum(largest, jnp.maximum(floor, 1e-300)))

    def negligible(self, natural, curvature):
        return jnp.zeros_like(natural)
