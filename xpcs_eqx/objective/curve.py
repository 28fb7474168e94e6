"""Least squares for any curve `model(x, *parameters)`, by the same normal equations."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arguments import checked, quiet_arithmetic
from ..compiling import quick_jit
from ..errors import ModelError
from ..parameters import PlainVariables, box_of
from .equations import AbstractObjective, NormalEquations, require_double_precision
from .losses import AbstractLoss, InfluenceSums, Linear, influence_sums
from .penalties import AbstractPenalty, equations_of
from .points import AbstractPoints, ArrayPoints, CurveModel, check_points, filled_up

CHUNK = 10_000
# Columns of J formed together where only its column norms are wanted.
COLUMNS = 32

# What is summed over the chunks.


def _cost(model, parameters, chunk):
    return jnp.sum(model.loss.density(model.residuals(chunk, parameters)(parameters)))


def _cost_and_gradient(model, parameters, chunk):
    residuals = model.residuals(chunk, parameters)
    return jax.value_and_grad(lambda b: jnp.sum(model.loss.density(residuals(b))))(parameters)


def _linearised(model, parameters, chunk):
    """Weighted residuals of a chunk, their Jacobian, and the root weights."""
    residuals = model.residuals(chunk, parameters)
    root = model.points(chunk, parameters.dtype)[2]
    return residuals(parameters), jax.jacfwd(residuals)(parameters), root


def _equations(model, parameters, chunk):
    r, jacobian, root = _linearised(model, parameters, chunk)
    rescaled, row_factor = model.loss.rescale(r)
    if row_factor is not None:
        jacobian = row_factor[:, None] * jacobian
    return NormalEquations(
        jnp.sum(model.loss.density(r)),
        jacobian.T @ rescaled,
        jacobian.T @ jacobian,
        jnp.sum((root > 0).astype(r.dtype)),
    )


def _influence(model, parameters, chunk):
    r, jacobian, root = _linearised(model, parameters, chunk)
    # JᵀJ without any factor of the loss.
    return jacobian.T @ jacobian, influence_sums(model.loss, r, root)


def _influence_sums(model, parameters, chunk):
    _, _, root = model.points(chunk, parameters.dtype)
    return influence_sums(model.loss, model.residuals(chunk, parameters)(parameters), root)


def _rows(model, parameters, chunk):
    """The product v → J v at the parameters, rows weighted as the loss has it."""
    r, push = jax.linearize(model.residuals(chunk, parameters), parameters)
    _, factor = model.loss.rescale(r)
    return (lambda v: push(v)) if factor is None else (lambda v: factor * push(v))


def _product(model, parameters, chunk, v):
    rows = _rows(model, parameters, chunk)
    return jax.linear_transpose(rows, v)(rows(v))[0]


def _diagonal(model, parameters, chunk):
    rows = _rows(model, parameters, chunk)
    p = parameters.shape[0]

    def norms(block):
        unit = jax.nn.one_hot(block * COLUMNS + jnp.arange(COLUMNS), p, dtype=parameters.dtype)
        return jnp.sum(jax.vmap(rows)(unit) ** 2, axis=1)

    return jax.lax.map(norms, jnp.arange(-(-p // COLUMNS))).reshape(-1)[:p]


@eqx.filter_jit
def _penalty(penalties, noise, names, y):
    """Normal equations of penalties in the parameters by name."""
    # Names belong to the parameters, whatever these are to a model.
    return equations_of(penalties, lambda b: dict(zip(names, b, strict=True)), y, noise)


class CurveObjective(AbstractObjective):
    """½ Σ ρ(√w (model(x) − y)) over points, and penalties ½ σ² ‖residuals‖² in the parameters.

    - `model`: the curve with its loss and group weights; `points`: in memory or from a source.
    - `penalties`: functions of the parameters by name; `noise`: the standard deviation σ of the
        weighted residuals, by which they are weighed.
    """

    variables: PlainVariables  # pyright: ignore[reportIncompatibleVariableOverride]
    model: CurveModel
    points: AbstractPoints
    initial: Float[Array, "variable"]
    parameter_names: tuple[str, ...] = eqx.field(static=True)
    absolute_sigma: bool = eqx.field(static=True, default=False)
    penalties: tuple[AbstractPenalty, ...] = ()
    noise: Float[np.ndarray, ""] | float = 1.0

    @property
    def traceable(self):
        return self.points.traceable

    @property
    def loss(self) -> AbstractLoss:
        """The loss of the weighted residuals."""
        return self.model.loss

    @property
    def start(self):
        return self.initial

    @property
    def names(self):
        return self.parameter_names

    @property
    def memo(self):
        return None

    def _sum(self, function, y, zero, *rest):
        return self.points.total(function, self.model, jnp.asarray(y, float), zero, *rest)

    def penalty_equations(self, y: Float[Array, "variable"]) -> NormalEquations:
        """Normal equations of the penalties, which count as no point."""
        return _penalty(self.penalties, self.noise, self.names, jnp.asarray(y, float))

    def _penalised(self, found, y, part):
        """What was found of the data, and the same part of the equations of the penalties."""
        if not self.penalties:
            return found
        return jax.tree.map(jnp.add, found, part(self.penalty_equations(y)))

    def evaluate(self, y, memo):
        zero = NormalEquations.zero(y.shape[0], dtype=float)
        return self._penalised(self._sum(_equations, y, zero), y, lambda e: e), memo

    def cost(self, y, memo):
        return self._penalised(self._sum(_cost, y, jnp.zeros(())), y, lambda e: e.cost)

    def cost_and_gradient(self, y, memo):
        zero = (jnp.zeros(()), jnp.zeros(y.shape))
        found = self._sum(_cost_and_gradient, y, zero)
        return self._penalised(found, y, lambda e: (e.cost, e.gradient))

    def product(self, y, v):
        found = self._sum(_product, y, jnp.zeros(y.shape), jnp.asarray(v, float))
        return self._penalised(found, y, lambda e: e.hessian @ v)

    def diagonal(self, y):
        found = self._sum(_diagonal, y, jnp.zeros(y.shape))
        return self._penalised(found, y, lambda e: e.diagonal)

    def influence(
        self, y: Float[Array, "variable"]
    ) -> tuple[Float[Array, "variable variable"], InfluenceSums]:
        """JᵀJ of the data without any factor of the loss, and sums over influences."""
        zero = (jnp.zeros((y.shape[0],) * 2), InfluenceSums.zero(float))
        return self._sum(_influence, y, zero)

    def influence_sums(self, y: Float[Array, "variable"]) -> InfluenceSums:
        """Sums over influences alone."""
        return self._sum(_influence_sums, y, InfluenceSums.zero(float))

    def of_data(self) -> "CurveObjective":
        """Half the sum of squares of the data alone, without loss and penalties."""
        model = dataclasses.replace(self.model, loss=Linear())
        return dataclasses.replace(self, model=model, penalties=())

    def spread(self):
        return self.points.survey(self.model).spread


@quick_jit
def _finite_points(model, chunk, parameters):
    """Whether the residual and each derivative of it is finite, by point."""
    residuals = model.residuals(chunk, parameters)
    jacobian = jax.jacfwd(residuals)(parameters)
    return jnp.isfinite(residuals(parameters)), jnp.isfinite(jacobian)


def not_finite(objective: CurveObjective, y: Float[Array, "variable"]) -> str:
    """Which point of a curve is not finite at coordinates `y`, in words; empty where all are."""
    names, y = objective.names, jnp.asarray(y)
    at = ", ".join(f"{name} = {float(v):.6g}" for name, v in zip(names, y, strict=True))
    before = 0
    for chunk in objective.points.chunks():
        value, slope = map(np.asarray, _finite_points(objective.model, chunk, y))
        bad = np.flatnonzero(~value | ~slope.all(axis=1))
        if not bad.size:
            before += value.size
            continue
        i = int(bad[0])
        where = f"point {before + i} (x = {np.asarray(chunk.x[i]).tolist()})"
        if not value[i]:
            return f"; the model is not finite at {where} for {at}"
        by = ", ".join(name for name, ok in zip(names, slope[i], strict=True) if not ok)
        return f"; the derivative of the model by {by} is not finite at {where} for {at}"
    return ""


@checked()
@quiet_arithmetic
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
    """Objective of a curve fit to points in memory.

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
    points = check_points(x, y, sigma, where="arrays")
    count = points.y.size
    check_enough(np.size(start), count)
    chunk = min(chunk, count)
    filled = filled_up(points, count + -count % chunk)

    def cut(array):
        return jnp.asarray(np.asarray(array, float).reshape(-1, chunk, *array.shape[1:]))

    return objective_of_points(
        ArrayPoints(cut(filled.x), cut(filled.y), cut(filled.root_weights)),
        CurveModel(function, Linear() if loss is None else loss),
        start,
        bounds=bounds,
        names=names,
        absolute_sigma=absolute_sigma,
    )


def check_enough(parameters: int, points: int) -> None:
    """Raise `ModelError` for fewer points than parameters."""
    if points < parameters:
        raise ModelError(
            f"{parameters} parameters cannot be fitted to {points} points; fix some or give more "
            "data"
        )


def objective_of_points(
    points: AbstractPoints,
    model: CurveModel,
    start: Float[np.ndarray, "variable"],
    *,
    bounds: Any = None,
    names: tuple[str, ...] | None = None,
    absolute_sigma: bool = False,
    penalties: tuple[AbstractPenalty, ...] = (),
    noise: float | None = None,
) -> CurveObjective:
    """Objective of a curve and its points, wherever these are. Arguments as in `curve_objective`.

    **Raises:** `PrecisionError` in single precision; `ModelError` for a start that is not finite
    or lies outside its bounds, another number of names, and a noise that is not above zero.
    """
    require_double_precision("a curve")
    start = np.array(start, dtype=float, ndmin=1)
    names = names or tuple(f"p{i}" for i in range(start.size))
    if start.ndim != 1 or start.size == 0 or len(names) != start.size:
        raise ModelError(f"start values of shape {start.shape} for {len(names)} names")
    if noise is not None and not (np.isfinite(noise) and noise > 0):
        raise ModelError(f"noise = {noise}; it must be a finite number above 0")
    lower, upper = box_of(bounds, start.shape)
    inside = np.isfinite(start) & (lower <= start) & (start <= upper)
    wrong = np.flatnonzero(~(inside & (lower < upper)))
    if wrong.size:
        i = wrong[0]
        raise ModelError(
            f"{names[i]}: the start {start[i]:g} is not inside the bounds [{lower[i]:g}, "
            f"{upper[i]:g}]; it must lie inside bounds with lower < upper, and be finite"
        )
    scale = np.where(start == 0, 1.0, np.abs(start))
    return CurveObjective(
        variables=PlainVariables(jnp.asarray(lower), jnp.asarray(upper), jnp.asarray(scale)),
        model=model,
        points=points,
        initial=jnp.asarray(start),
        parameter_names=tuple(names),
        absolute_sigma=absolute_sigma,
        penalties=tuple(penalties),
        noise=1.0 if noise is None else float(noise),
    )
