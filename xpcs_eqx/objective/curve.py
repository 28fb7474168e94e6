"""Least squares for any curve `model(x, *parameters)`, by the same normal equations."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..errors import DataError, ModelError
from ..parameters import AbstractVariables, PlainVariables, box_of
from .equations import AbstractObjective, NormalEquations, require_double_precision
from .losses import AbstractLoss, InfluenceSums, Linear, influence_sums

CHUNK = 10_000
# What a function raises that wants numbers while it is traced.
_NOT_TRACEABLE = (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError)


class CurveObjective(AbstractObjective):
    """½ Σ ρ((model(x) − y)/σ) over points in chunks; the Jacobian of one chunk at a time."""

    variables: AbstractVariables
    function: Callable[..., Array]
    initial: Float[Array, "variable"]
    x: Float[Array, "chunk point *coordinate"]
    y: Float[Array, "chunk point"]
    root_weights: Float[Array, "chunk point"]
    loss: AbstractLoss
    parameter_names: tuple[str, ...] = eqx.field(static=True)
    absolute_sigma: bool = eqx.field(static=True, default=False)

    @property
    def traceable(self):
        return True

    @property
    def start(self):
        return self.initial

    @property
    def names(self):
        return self.parameter_names

    @property
    def memo(self):
        return None

    def _sum(self, function, zero):
        def body(total, chunk):
            return jax.tree.map(jnp.add, total, function(*chunk)), None

        return jax.lax.scan(body, zero, (self.x, self.y, self.root_weights))[0]

    def evaluate(self, y, memo):
        p = y.shape[0]
        parameters = self.variables.to_physical(y)
        turn = jax.jacfwd(self.variables.to_physical)(y)

        def chunk(x, data, root):
            equations = curve_equations(self.function, self.loss, x, data, root, parameters)
            return equations.transform(turn)

        return self._sum(chunk, NormalEquations.zero(p, dtype=y.dtype)), memo

    def influence(
        self, y: Float[Array, "variable"]
    ) -> tuple[Float[Array, "variable variable"], InfluenceSums]:
        """JᵀJ without any factor of the loss, by physical variables, and sums over influences."""
        parameters = self.variables.to_physical(y)

        def chunk(x, data, root):
            return curve_influence(self.function, self.loss, x, data, root, parameters)

        p = y.shape[0]
        return self._sum(chunk, (jnp.zeros((p, p), y.dtype), InfluenceSums.zero(y.dtype)))

    def cost(self, y, memo):
        parameters = self.variables.to_physical(y)

        def chunk(x, data, root):
            return curve_cost(self.function, self.loss, x, data, root, parameters)

        return self._sum(chunk, jnp.zeros((), y.dtype))


class VectorModel(eqx.Module):
    """A curve `function(x, parameters)` of one vector of parameters.

    For hundreds of them and more: compiling a function of as many scalars takes minutes.
    """

    function: Callable[[Array, Array], Array]

    def __call__(self, x: Float[Array, "point *coordinate"], parameters: Float[Array, "parameter"]):
        """Values at x."""
        return self.function(x, parameters)


def weighted_residuals(
    function: Callable[..., Array],
    x: Float[Array, "point *coordinate"],
    data: Float[Array, "point"],
    root: Float[Array, "point"],
    parameters: Float[Array, "parameter"],
) -> Float[Array, "point"]:
    """√w (function(x, *parameters) − data), exactly zero where the weight is.

    A `VectorModel` is given the parameters as one vector.

    **Raises:** `ModelError` for a model that is not written in `jax.numpy`, or whose values are not
    one for each point or one for all.
    """
    vector = isinstance(function, VectorModel)
    try:
        value = function(x, parameters) if vector else function(x, *parameters)
    except _NOT_TRACEABLE as error:
        raise ModelError(
            "the model asks for the numbers in its arguments, and cannot be differentiated; write "
            "it with jax.numpy instead of numpy or math, and with jnp.where instead of if"
        ) from error
    if jnp.shape(value) not in ((), data.shape):
        raise ModelError(
            f"the model gives values of shape {jnp.shape(value)} for x of shape {x.shape}; it must "
            f"give one for each point, {data.shape}. Of several coordinates x[:, k] is column k"
        )
    # Padding has weight zero; a model may be undefined there, so its value is not even multiplied.
    return jnp.where(root > 0, root * (value - data), 0.0)


def _linearised(function, x, data, root, parameters):
    """Weighted residuals of points and their Jacobian."""

    def residuals(b):
        return weighted_residuals(function, x, data, root, b)

    return residuals(parameters), jax.jacfwd(residuals)(parameters)


def curve_equations(
    function: Callable[..., Array],
    loss: AbstractLoss,
    x: Float[Array, "point *coordinate"],
    data: Float[Array, "point"],
    root: Float[Array, "point"],
    parameters: Float[Array, "parameter"],
) -> NormalEquations:
    """Normal equations of points in the parameters; J of these points exists meanwhile."""

    r, jacobian = _linearised(function, x, data, root, parameters)
    rescaled, row_factor = loss.rescale(r)
    if row_factor is not None:
        jacobian = row_factor[:, None] * jacobian
    return NormalEquations(
        jnp.sum(loss.density(r)),
        jacobian.T @ rescaled,
        jacobian.T @ jacobian,
        jnp.sum((root > 0).astype(r.dtype)),
    )


@quick_jit
def _finite_points(function, x, data, root, parameters):
    """Whether the residual and each derivative of it is finite, by point."""

    def residuals(b):
        return weighted_residuals(function, x, data, root, b)

    jacobian = jax.jacfwd(residuals)(parameters)
    return jnp.isfinite(residuals(parameters)), jnp.isfinite(jacobian)


def not_finite(objective: CurveObjective, y: Float[Array, "variable"]) -> str:
    """Which point of a curve is not finite at coordinates `y`, in words; empty where all are."""
    variables, names = objective.variables.to_physical(y), objective.names
    at = ", ".join(f"{name} = {float(v):.6g}" for name, v in zip(names, variables, strict=True))
    chunk = objective.y.shape[1]
    for k in range(objective.y.shape[0]):
        x, data, root = objective.x[k], objective.y[k], objective.root_weights[k]
        value, slope = map(np.asarray, _finite_points(objective.function, x, data, root, variables))
        bad = np.flatnonzero(~value | ~slope.all(axis=1))
        if not bad.size:
            continue
        i = int(bad[0])
        where = f"point {k * chunk + i} (x = {np.asarray(x[i]).tolist()})"
        if not value[i]:
            return f"; the model is not finite at {where} for {at}"
        by = ", ".join(name for name, ok in zip(names, slope[i], strict=True) if not ok)
        return f"; the derivative of the model by {by} is not finite at {where} for {at}"
    return ""


def curve_cost(
    function: Callable[..., Array],
    loss: AbstractLoss,
    x: Float[Array, "point *coordinate"],
    data: Float[Array, "point"],
    root: Float[Array, "point"],
    parameters: Float[Array, "parameter"],
) -> Float[Array, ""]:
    """½ Σ ρ of points."""
    return jnp.sum(loss.density(weighted_residuals(function, x, data, root, parameters)))


def curve_influence(
    function: Callable[..., Array],
    loss: AbstractLoss,
    x: Float[Array, "point *coordinate"],
    data: Float[Array, "point"],
    root: Float[Array, "point"],
    parameters: Float[Array, "parameter"],
) -> tuple[Float[Array, "parameter parameter"], InfluenceSums]:
    """JᵀJ of points without any factor of the loss, and sums over their influences."""

    r, jacobian = _linearised(function, x, data, root, parameters)
    return jacobian.T @ jacobian, influence_sums(loss, r, root)


def curve_objective(
    function: Callable[..., Array],
    x: Float[np.ndarray, "point *coordinate"],
    y: Float[np.ndarray, "point"],
    start: Float[np.ndarray, "variable"],
    *,
    sigma: Float[np.ndarray, "point"] | None = None,
    bounds: Any = None,
    loss: AbstractLoss | None = None,
    names: tuple[str, ...] | None = None,
    absolute_sigma: bool = False,
    chunk: int = CHUNK,
) -> CurveObjective:
    """Objective of a curve fit.

    **Arguments:**

    - `function`: `function(x, *parameters) -> y`, in `jax.numpy`.
    - `x`: abscissae (point,) or (point, k); `y`: ordinates; `sigma`: their standard deviations.
    - `start`: start values; `bounds`: lower and upper, numbers or one for each variable, or
        `scipy.optimize.Bounds`.
    - `names`: of the variables; by default p0, p1, ….
    - `absolute_sigma`: sigma is that of the data; otherwise their ratios alone count, and errors
        are scaled by the residuals.
    - `chunk`: points per chunk.

    **Raises:** `DataError` for arrays that do not belong together, non-finite values or sigma ≤ 0;
    `ModelError` for a start that is not finite or outside its bounds, or fewer points than
    parameters; `PrecisionError` in single precision.
    """
    require_double_precision("a curve")
    x, y, start = (np.asarray(a, dtype=float) for a in (x, y, start))
    if y.ndim != 1 or x.shape[:1] != y.shape:
        raise DataError(f"x {x.shape} and y {y.shape} must have one entry a point")
    root = np.ones(y.shape)
    if sigma is not None:
        spread = np.broadcast_to(np.asarray(sigma, dtype=float), y.shape)
        if not np.all(np.isfinite(spread) & (spread > 0)):
            raise DataError("sigma must be finite and positive at every point")
        root = 1.0 / spread
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise DataError("x and y must be finite; leave out the points that are not")
    if y.size < start.size:
        raise ModelError(f"{start.size} parameters cannot be fitted to {y.size} points")
    lower, upper = box_of(bounds, start.shape)
    if not np.all(np.isfinite(start) & (lower <= start) & (start <= upper) & (lower < upper)):
        raise ModelError(
            f"start {start} must lie inside bounds {lower} … {upper}, lower < upper, and be finite"
        )
    chunk = min(chunk, y.size)
    rest = -y.size % chunk

    def cut(array):
        # Padding repeats the last point, where the model is defined if it is anywhere.
        padded = np.concatenate([array, np.repeat(array[-1:], rest, axis=0)])
        return jnp.asarray(padded.reshape(-1, chunk, *array.shape[1:]))

    weights = np.concatenate([root, np.zeros(rest)]).reshape(-1, chunk)
    scale = np.where(start == 0, 1.0, np.abs(start))
    return CurveObjective(
        variables=PlainVariables(jnp.asarray(lower), jnp.asarray(upper), jnp.asarray(scale)),
        function=function,
        initial=jnp.asarray(start),
        x=cut(x),
        y=cut(y),
        root_weights=jnp.asarray(weights),
        loss=Linear() if loss is None else loss,
        parameter_names=names or tuple(f"p{i}" for i in range(start.size)),
        absolute_sigma=absolute_sigma,
    )
