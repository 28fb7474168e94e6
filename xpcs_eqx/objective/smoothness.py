"""Penalties on rates that bend between their knots."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from ..errors import ModelError
from ..parameters.leaves import check_names, parameter_leaves
from ..physics import AbstractCorrelation
from .penalties import AbstractPenalty


def _at_knots(values: Mapping[str, Array], names: tuple[str, ...]) -> Float[Array, "knot"]:
    check_names(names, values, "the fit")
    return jnp.stack([jnp.asarray(values[name]) for name in names])


class Smoothness(AbstractPenalty):
    """Second differences of neighbouring values over `width`, their expected size.

    A Gaussian prior of standard deviation `width` on each second difference, whether sigma is
    known or not.

    - `names`: of the values in the order of their knots; at least three.
    - `width`: in the unit of the values.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    width: ScalarLike

    def residuals(self, values):
        return jnp.diff(_at_knots(values, self.names), 2) / self.width


class LogSmoothness(AbstractPenalty):
    """As `Smoothness` for the logarithms of positive values; `width` is a number.

    On knots at equal ratios of time a power law costs nothing, at equal distances an exponential.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    width: ScalarLike

    def residuals(self, values):
        return jnp.diff(jnp.log(_at_knots(values, self.names)), 2) / self.width


def smoothness(
    model: AbstractCorrelation, field: str, width: ScalarLike
) -> Smoothness | LogSmoothness:
    """The penalty for the values at knots of a rate of a model.

    **Arguments:**

    - `field`: the rate by its field in the model: `"transport"`, `"shear"`, …
    - `width`: expected size of second differences between knots, of ln values for rates that are
        stepped in their logarithms, else of the values.

    **Raises:** `ModelError` when the rate has no values at knots, or fewer than three.
    """
    mine = [
        leaf
        for leaf in parameter_leaves(model)
        if leaf.path[0] == field and leaf.path[-1] == "values" and leaf.index is not None
    ]
    if len(mine) < 3:
        raise ModelError(
            f"{type(model).__name__} has {len(mine)} values at knots in its rate {field!r}; "
            "smoothness needs a spline or piecewise rate with at least 3"
        )
    names = tuple(leaf.name for leaf in mine)
    if all(leaf.info.logarithmic for leaf in mine):
        return LogSmoothness(names, width)
    return Smoothness(names, width)
