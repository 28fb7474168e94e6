"""Terms beside the data in the sum of squares: in the parameters, and in contrast and offset."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..arguments import check_fields, checked
from ..errors import ModelError
from ..parameters import ParameterMap, parameter_values
from ..parameters.leaves import check_names
from ..physics import AbstractCorrelation, as_inexact
from ..physics.leaves import parameter_leaves
from ..scaling import AbstractScaling
from .equations import NormalEquations


class AbstractPenalty(eqx.Module):
    """½‖residuals‖² as a function of the physical parameters: −ln of a Gaussian prior.

    Residuals are distances over what is expected of them, numbers without unit, whatever is known
    of the noise. To the cost of data, which is σ² times −ln of their likelihood where residuals
    have the standard deviation σ, ½σ²‖residuals‖² is added: σ is one where sigma is absolute, else
    it is estimated from the data themselves (`noise_of`) or given (`noise`).
    """

    __check_init__ = check_fields

    @abstractmethod
    def residuals(self, values: Mapping[str, Array]) -> Float[Array, "residual"]:
        """Residuals from the values of all parameters by name."""


class Pull(AbstractPenalty):
    """(h(parameters) − target)/width for a scalar function h: a prior, or a soft constraint.

    - `target`, `width`: in the unit of h: target ± width is what is known of h.
    """

    function: Callable[[Mapping[str, Array]], Array]
    target: Float[Array, ""] = eqx.field(converter=as_inexact)
    width: Float[Array, ""] = eqx.field(converter=as_inexact)

    def residuals(self, values):
        return jnp.atleast_1d((self.function(values) - self.target) / self.width)


class GroupVariance(AbstractPenalty):
    """λ Σ Var(parameters of a group) in χ²: a group is drawn to its own mean.

    Var is the mean square about the mean of the group. Cost, gradient and curvature all follow from
    the residuals √(λ/n) (pᵢ − p̄), which are linear: JᵀJ is the exact curvature.

    - `groups`: names of the n parameters in each group, which must have one unit to be compared.
    - `weight`: λ [1/unit², the unit of the parameters]: n/s² expects members within s of their
        mean.

    **Raises:** `ModelError` for a group of fewer than two, a name that appears twice in a group, a
    negative weight, and, when evaluated, a name the parameters do not have.
    """

    groups: tuple[tuple[str, ...], ...] = eqx.field(static=True)
    weight: ScalarLike = eqx.field(converter=as_inexact)

    def __check_init__(self):
        check_fields(self)
        for group in self.groups:
            if isinstance(group, str) or len(group) < 2 or len(set(group)) < len(group):
                raise ModelError(f"group {group!r}; give at least two different names a group")
        negative = not isinstance(self.weight, jax.core.Tracer) and np.any(
            ~(np.asarray(self.weight) >= 0)
        )
        if negative:
            raise ModelError(f"weight {self.weight} of a group variance; it must not be below 0")

    def residuals(self, values):
        parts = [jnp.zeros((0,))]
        for group in self.groups:
            check_names(group, values, "the fit")
            members = jnp.stack([jnp.asarray(values[name]) for name in group])
            root = jnp.sqrt(jnp.asarray(self.weight) / len(group))
            parts.append(root * (members - jnp.mean(members)))
        return jnp.concatenate(parts)


def equations_of(
    penalties: tuple["AbstractPenalty | AbstractScalingPenalty", ...],
    values_of: Callable[[Float[Array, "free"]], Any],
    y: Float[Array, "free"],
    noise: Float[Array, ""] | float = 1.0,
) -> NormalEquations:
    """Normal equations of penalties on what `values_of` makes of `y`; they count as no pair.

    `noise` is the standard deviation of the residuals of the data beside them.
    """
    if not penalties:
        return NormalEquations.zero(y.shape[0], dtype=y.dtype)

    def residuals(y):
        values = values_of(y)
        return noise * jnp.concatenate([penalty.residuals(values) for penalty in penalties])

    r, jacobian = residuals(y), jax.jacfwd(residuals)(y)
    return NormalEquations(
        0.5 * r @ r, jacobian.T @ r, jacobian.T @ jacobian, jnp.zeros_like(r @ r)
    )


def penalty_squares(
    penalties: tuple[AbstractPenalty, ...],
    values: Mapping[str, Array],
    noise: Float[Array, ""] | float = 1.0,
) -> Float[Array, ""]:
    """Σ‖σ residuals‖² of all penalties, from the values of all parameters by name.

    `noise` is σ: 1 for −2 ln of their density; beside the cost of data as in `penalty_equations`.
    Without penalties it need not be known, and may be NaN.
    """
    squares = (jnp.sum((noise * penalty.residuals(values)) ** 2) for penalty in penalties)
    return sum(squares, jnp.zeros(()))


def penalty_equations(
    penalties: tuple[AbstractPenalty, ...],
    parameters: ParameterMap,
    y: Float[Array, "free"],
    noise: Float[Array, ""],
) -> NormalEquations:
    """Normal equations of the penalties in the coordinates of `parameters`, as `equations_of`."""

    def values_of(y):
        return parameter_values(parameters.build_from_coordinates(y))

    return equations_of(penalties, values_of, y, noise)


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


@checked()
def smoothness(
    model: AbstractCorrelation, field: str, width: ScalarLike
) -> Smoothness | LogSmoothness:
    """A penalty that keeps a rate given by its values at knots smooth.

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


class AbstractScalingPenalty(eqx.Module):
    """½‖residuals‖² as a function of contrast and offset by angle, added to the cost.

    Whatever the scaling mode, it sees the values at each angle.
    """

    __check_init__ = check_fields

    @abstractmethod
    def residuals(self, per_angle: Float[Array, "angle 2"]) -> Float[Array, "residual"]:
        """Residuals from (contrast, offset) by angle."""


class AbstractLinearScalingPenalty(AbstractScalingPenalty):
    """One whose residuals are linear: contrast and offset can still be eliminated exactly."""


def scaling_penalty_equations(
    penalties: tuple[AbstractScalingPenalty, ...],
    scaling: AbstractScaling,
    coefficients: Float[Array, "coefficient"],
) -> NormalEquations:
    """Normal equations of the penalties in the scaling coefficients."""
    return equations_of(penalties, scaling.per_angle, coefficients)
