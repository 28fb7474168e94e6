"""Any curve `model(x, *parameters)` over chunks that need not be in memory together."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..errors import DataError, ModelError
from ..objective import (
    AbstractLoss,
    InfluenceSums,
    Linear,
    NormalEquations,
    influence_sums,
    require_double_precision,
)
from ..objective.curve import (
    curve_cost,
    curve_equations,
    curve_influence,
    weighted_residuals,
)
from ..parameters import box_of
from .points import Chunk, check_groups, checked_group_weights
from .problem import AbstractProblem, Influence, Survey
from .sources import AbstractSource

# Columns of J formed together where only its column norms are wanted.
COLUMNS = 32


class CurveKernel(eqx.Module):
    """The model, its loss and the weights of groups: what a chunk is summed with."""

    function: Callable[..., Array]
    loss: AbstractLoss
    group_weights: Float[Array | np.ndarray, "group"] | None

    def root_weights(self, chunk: Chunk) -> Float[np.ndarray, "point"]:
        """Root weights of a chunk, those of its groups among them."""
        root = np.asarray(chunk.root_weights, dtype=float)
        if self.group_weights is None:
            return root
        return root * np.sqrt(np.asarray(self.group_weights))[np.asarray(chunk.group)]

    def points(self, chunk: Chunk, dtype: Any) -> tuple[Array, Array, Array]:
        """x, y and root weights of a chunk in the precision of the sum."""
        x, y, root = (jnp.asarray(a, dtype) for a in (chunk.x, chunk.y, chunk.root_weights))
        if self.group_weights is not None:
            root = root * jnp.sqrt(jnp.asarray(self.group_weights, dtype)[chunk.group])
        # Where the weight is zero the model is evaluated at a point that counts: the derivative of
        # a model outside its domain is not finite, and zero times that is not zero.
        safe = x[jnp.argmax(root > 0)]
        inside = (root > 0).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(inside, x, safe), y, root


@quick_jit
def _add_cost_and_gradient(kernel, parameters, chunk, total):
    x, y, root = kernel.points(chunk, parameters.dtype)

    def cost(b):
        return curve_cost(kernel.function, kernel.loss, x, y, root, b)

    return jax.tree.map(jnp.add, total, jax.value_and_grad(cost)(parameters))


@quick_jit
def _add_equations(kernel, parameters, chunk, total):
    x, y, root = kernel.points(chunk, parameters.dtype)
    return total + curve_equations(kernel.function, kernel.loss, x, y, root, parameters)


@quick_jit
def _add_influence(kernel, parameters, chunk, total):
    x, y, root = kernel.points(chunk, parameters.dtype)
    found = curve_influence(kernel.function, kernel.loss, x, y, root, parameters)
    return jax.tree.map(jnp.add, total, found)


@quick_jit
def _add_influence_sums(kernel, parameters, chunk, total):
    x, y, root = kernel.points(chunk, parameters.dtype)
    r = weighted_residuals(kernel.function, x, y, root, parameters)
    return total + influence_sums(kernel.loss, r, root)


def _rows(kernel, chunk, parameters):
    """The product v → J v at the parameters, rows weighted as the loss has it."""
    x, y, root = kernel.points(chunk, parameters.dtype)

    def residuals(b):
        return weighted_residuals(kernel.function, x, y, root, b)

    r, push = jax.linearize(residuals, parameters)
    _, factor = kernel.loss.rescale(r)
    return (lambda v: push(v)) if factor is None else (lambda v: factor * push(v))


@quick_jit
def _add_hessian_vector(kernel, parameters, chunk, total, v):
    rows = _rows(kernel, chunk, parameters)
    product, pull = rows(v), jax.linear_transpose(rows, v)
    return total + pull(product)[0]


@quick_jit
def _add_diagonal(kernel, parameters, chunk, total):
    rows = _rows(kernel, chunk, parameters)
    p = parameters.shape[0]
    blocks = -(-p // COLUMNS)

    def norms(block):
        unit = jax.nn.one_hot(block * COLUMNS + jnp.arange(COLUMNS), p, dtype=parameters.dtype)
        return jnp.sum(jax.vmap(rows)(unit) ** 2, axis=1)

    return total + jax.lax.map(norms, jnp.arange(blocks)).reshape(-1)[:p]


class CurveProblem(AbstractProblem):
    """½ Σ ρ(√w (model(x) − y)) over a source; J of one chunk exists at a time.

    Stored numbers may be float32; the sums are in float64.

    - `expected`: points with a weight that every pass has to give; None when nothing is known.

    **Raises:** `DataError` for a pass over another number of points: sums of different data do not
    belong to one fit.
    """

    kernel: CurveKernel
    source: AbstractSource
    lower: Float[np.ndarray, "variable"]
    upper: Float[np.ndarray, "variable"]
    start: Float[np.ndarray, "variable"]
    names: tuple[str, ...] = eqx.field(static=True)
    expected: int | None = eqx.field(static=True, default=None)

    def _sum(self, add, y, zero, *rest):
        parameters = jnp.asarray(y, dtype=float)
        total = jax.tree.map(jnp.asarray, zero)
        count = 0
        for chunk in self.source.chunks():
            used = self.kernel.root_weights(chunk) > 0
            count += int(used.sum())
            if used.any():
                total = add(self.kernel, parameters, chunk, total, *rest)
        if self.expected is not None and count != self.expected:
            raise DataError(
                f"the source gave {count} points with a weight in this pass over the data and "
                f"{self.expected} in the first one; it must give the same points every time. Fit "
                "data that are still being written when they are complete, or a copy of them"
            )
        return jax.tree.map(np.asarray, total)

    def survey(self):
        weight = total = square = 0.0
        count = 0
        shift = None
        for number, chunk in enumerate(self.source.chunks()):
            if self.kernel.group_weights is not None:
                check_groups(chunk, len(self.kernel.group_weights))
            root, y = self.kernel.root_weights(chunk), np.asarray(chunk.y, dtype=float)
            used = root > 0
            if not used.any():
                continue
            finite = np.isfinite(np.asarray(chunk.x, dtype=float)).reshape(y.size, -1).all(axis=1)
            bad = np.flatnonzero(used & ~(finite & np.isfinite(y) & np.isfinite(root)))
            if bad.size:
                raise DataError(
                    f"chunk {number}, entry {bad[0]}: x, y and the weight must be finite; found "
                    f"x {chunk.x[bad[0]]}, y {y[bad[0]]}. Leave such points out"
                )
            # About a value of the data, or the square of a large mean would swallow the variance.
            shift = y[used][0] if shift is None else shift
            w, difference = root[used] ** 2, y[used] - shift
            count += int(used.sum())
            weight += float(w.sum())
            total += float(w @ difference)
            square += float(w @ difference**2)
        if not count:
            raise DataError("no point of the source has a weight; there is nothing to fit")
        return Survey(count, max(square - total**2 / weight, 0.0) / count)

    def cost_and_gradient(self, y):
        cost, gradient = self._sum(_add_cost_and_gradient, y, (np.zeros(()), np.zeros(y.shape)))
        return float(cost), gradient

    def equations(self, y):
        return self._sum(_add_equations, y, NormalEquations.zero(y.size, dtype=float))

    def influence(self, y, matrix=True):
        if isinstance(self.kernel.loss, Linear):
            return None
        if not matrix:
            return Influence(None, self._sum(_add_influence_sums, y, InfluenceSums.zero()))
        zero = (np.zeros((y.size, y.size)), InfluenceSums.zero())
        return Influence(*self._sum(_add_influence, y, zero))

    def hessian_vector(self, y, v):
        return self._sum(_add_hessian_vector, y, np.zeros(y.shape), jnp.asarray(v, dtype=float))

    def diagonal(self, y):
        return self._sum(_add_diagonal, y, np.zeros(y.shape))


def curve_problem(
    source: AbstractSource,
    model: Callable[..., Array],
    start: Float[np.ndarray, "variable"],
    *,
    bounds: Any = None,
    loss: AbstractLoss | None = None,
    group_weights: Float[np.ndarray, "group"] | None = None,
    names: tuple[str, ...] | None = None,
) -> CurveProblem:
    """A streamed curve fit.

    **Arguments:**

    - `model`: `model(x, *parameters) -> y`, in `jax.numpy`; x is (point,) or (point, k).
    - `start`: start values; `bounds`: lower and upper, numbers or one for each parameter, or
        `scipy.optimize.Bounds`.
    - `group_weights`: weight of the squared residuals of each group of the source.

    **Raises:** `PrecisionError` in single precision; `ModelError` for a start that is not finite
    or lies outside its bounds, and for weights of groups below zero.
    """
    require_double_precision("a curve")
    start = np.array(start, dtype=float, ndmin=1)
    names = names or tuple(f"p{i}" for i in range(start.size))
    if start.ndim != 1 or start.size == 0 or len(names) != start.size:
        raise ModelError(f"start values of shape {start.shape} for {len(names)} names")
    lower, upper = box_of(bounds, start.shape)
    wrong = np.flatnonzero(~(np.isfinite(start) & (lower <= start) & (start <= upper)))
    wrong = np.concatenate([wrong, np.flatnonzero(~(lower < upper))])
    if wrong.size:
        i = wrong[0]
        raise ModelError(
            f"{names[i]}: the start {start[i]:g} must be finite and lie inside the bounds "
            f"[{lower[i]:g}, {upper[i]:g}], lower < upper"
        )
    if group_weights is not None:
        group_weights = checked_group_weights(group_weights)
    kernel = CurveKernel(model, Linear() if loss is None else loss, group_weights)
    return CurveProblem(
        kernel=kernel, source=source, lower=lower, upper=upper, start=start, names=names
    )
