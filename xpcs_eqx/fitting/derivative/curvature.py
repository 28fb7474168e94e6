"""The matrix that says how far a minimum moves: second derivative of the cost, or JᵀJ."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...objective import Block, Linear, Memo, NormalEquations, block_correlation, influence_sums
from ...objective.elimination import assemble, index_layout
from ...objective.kernel.blocks import block_equations, pair_features
from ...objective.kernel.frame_table import FrameTable, Part, call_kernel, frame_table
from ...parameters import ParameterMap
from .stationarity import (
    Problem,
    feature_rows,
    penalty_cost,
    scaling_penalty_cost,
    with_feature_rows,
)
from .tile_sum import tile_sum


class AbstractCurvature(eqx.Module):
    """Which matrix stands for the second derivative of the cost at an optimum."""

    @abstractmethod
    def matrix(self, problem: Problem, u: Float[Array, "entry"]) -> Float[Array, "entry entry"]:
        """The matrix at u = (scaling coefficients, physical parameters)."""


class FullCurvature(AbstractCurvature):
    """The second derivative itself: derivatives of a fit are exact, however large its residuals."""

    def matrix(self, problem, u):
        term = problem.term
        c, x = problem.split(u)
        p, k = x.shape[0], c.shape[0]
        per_angle = term.scaling.per_angle(c)
        table = frame_table(term.parameters, x, term.t, term.geometry)
        args = (table, per_angle, problem.loss)
        by_angle, slope = tile_sum(_second_order, args, term.tiles)
        # Columns of an angle (x, contrast, offset) from those of u.
        n_angles = per_angle.shape[0]
        top = jnp.broadcast_to(jnp.eye(p, p + k, k), (n_angles, p, p + k))
        bottom = jnp.concatenate([term.scaling.basis, jnp.zeros((n_angles, 2, p))], axis=2)
        matrix = jnp.concatenate([top, bottom], axis=1)
        hessian = jnp.einsum("acn,acd,adm->nm", matrix, by_angle, matrix)

        def curved(x):
            """What bends by itself: the features in x, weighted by the slope, and the penalties."""
            rows = feature_rows(frame_table(term.parameters, x, term.t, term.geometry, False))
            bent = sum(jnp.vdot(row, s) for row, s in zip(rows, slope, strict=True))
            return bent + penalty_cost(problem, x)

        bent = jax.hessian(lambda c: scaling_penalty_cost(problem, c))(c)
        return hessian.at[k:, k:].add(jax.hessian(curved)(x)).at[:k, :k].add(bent)


class GaussNewtonCurvature(AbstractCurvature):
    """JᵀJ: cheaper and never indefinite; off by what residuals times model curvature add up to."""

    def matrix(self, problem, u):
        equations, _ = equations_at(problem, u)
        return equations.hessian


class _Columns(eqx.Module):
    """Derivatives of one local quantity of a pair along the columns that move it.

    Each is a function of the first frame plus a function of the second, None for zero.
    """

    indices: tuple[int, ...] = eqx.field(static=True)
    at_first: Float[Array, "column first"] | None
    at_second: Float[Array, "column second"] | None


def _columns(table: FrameTable, block: Block) -> list[_Columns]:
    """Of increments, features at the first and at the second frame, scalars, contrast, offset."""
    out: list[_Columns] = []
    # Points have no two sides: all they are is a function of the "first".
    points = block.first.ndim == 1
    first = block.first if points else block.first[:, 0]
    second = block.second if points else block.second[0, :]

    def collect(part: Part, take):
        for k, used in enumerate(part.used):
            moving = tuple(a for a, u in enumerate(used) if u)
            out.append(_Columns(moving, *take(part.derivatives[k, jnp.array(moving, int)])))

    def increment(d):
        if points:
            return d[:, second] - d[:, first], None
        # Only differences count, so the digits shall be theirs.
        origin = d[:, first[-1:]]
        return origin - d[:, first], d[:, second] - origin

    def constant(d):
        return jnp.broadcast_to(d, (d.shape[0], first.shape[0])), None

    collect(table.increments, increment)
    collect(table.endpoints, lambda d: (d[:, first], None))
    collect(table.endpoints, lambda d: (d[:, second], None) if points else (None, d[:, second]))
    collect(table.scalars, lambda d: constant(d[:, block.angle][:, None]))
    for k in range(2):
        out.append(_Columns((table.columns + k,), *constant(jnp.ones((1, 1)))))
    return out


def _sum_of_products(weight, left: _Columns, right: _Columns):
    """Σ over pairs of weight · left · right: matrix products instead of columns pair by pair."""
    weight = weight.reshape(weight.shape[0], -1)
    total = jnp.zeros((len(left.indices), len(right.indices)), weight.dtype)
    if left.at_first is not None and right.at_first is not None:
        total += (left.at_first * jnp.sum(weight, axis=1)) @ right.at_first.T
    if left.at_second is not None and right.at_second is not None:
        total += (left.at_second * jnp.sum(weight, axis=0)) @ right.at_second.T
    if left.at_first is not None and right.at_second is not None:
        total += left.at_first @ (weight @ right.at_second.T)
    if left.at_second is not None and right.at_first is not None:
        total += (left.at_second @ weight.T) @ right.at_first.T
    return total


def _second_order(args, block: Block):
    """Second derivative of a block's cost along (x, contrast, offset) with straight features.

    Returns it by angle, and the slope of the cost by feature, shaped as the rows of the table.
    """
    table, scaling, loss = args
    contrast, offset = scaling[block.angle, 0], scaling[block.angle, 1]
    structure = jax.tree.structure(pair_features(table, block))

    def features(rows):
        return jax.tree.leaves(pair_features(with_feature_rows(table, rows), block))

    def kernel(*flat):
        return call_kernel(table, *jax.tree.unflatten(structure, flat))

    def slopes(*flat):
        value, pull = jax.vjp(kernel, *flat)
        return value, pull(jnp.ones_like(value))

    flat, back = jax.vjp(features, feature_rows(table))
    (value, first), push = jax.linearize(slopes, *flat)
    one, nothing = jnp.ones_like(value), jnp.zeros_like(value)
    n = len(flat)
    bent = [push(*(one if k == other else nothing for other in range(n)))[1] for k in range(n)]

    root = block.root_weights
    residual = root * (offset + contrast * value - block.values)

    def pull_of_density(r):
        return jax.vjp(loss.density, r)[1](one)[0]

    force, stiffness = jax.jvp(pull_of_density, (residual,), (one,))
    force, stiffness = root * force, root * root * stiffness
    # Derivatives of offset + contrast·|c1|² by each local quantity.
    model = [*(contrast * part for part in first), value, one]
    columns = _columns(table, block)
    size = table.columns + 2
    hessian = jnp.zeros((size, size), value.dtype)
    for k, left in enumerate(columns):
        for other, right in enumerate(columns[: k + 1]):
            if not (left.indices and right.indices):
                continue
            weight = stiffness * model[k] * model[other]
            if k < n:
                weight += force * contrast * bent[k][other]
            elif k == n and other < n:
                weight += force * first[other]
            part = _sum_of_products(weight, left, right)
            rows, places = jnp.array(left.indices), jnp.array(right.indices)
            hessian = hessian.at[rows[:, None], places].add(part)
            if other < k:
                hessian = hessian.at[places[:, None], rows].add(part.T)
    by_angle = jnp.zeros((scaling.shape[0], size, size), value.dtype)
    slope = back([force * part for part in model[:n]])[0]
    return by_angle.at[block.angle].set(hessian), slope


def _equations(args, block: Block):
    table, scaling, loss = args
    contrast, offset = scaling[block.angle, 0], scaling[block.angle, 1]
    mine = block_equations(table, block, contrast, offset, loss)
    # Kept apart by angle, whose contrasts differ.
    zero = NormalEquations.zero(mine.gradient.shape[0], (scaling.shape[0],), mine.cost.dtype)
    return jax.tree.map(lambda whole, part: whole.at[block.angle].set(part), zero, mine)


def equations_at(
    problem: Problem, u: Float[Array, "entry"]
) -> tuple[NormalEquations, Float[Array, ""]]:
    """Normal equations in u, and the cost of the data without penalties; differentiable."""
    term = problem.term
    c, x = problem.split(u)
    per_angle = term.scaling.per_angle(c)
    table = frame_table(term.parameters, x, term.t, term.geometry)
    by_angle = tile_sum(_equations, (table, per_angle, problem.loss), term.tiles)
    return _assembled(problem, by_angle, x, c, problem.parameters), jnp.sum(by_angle.cost)


def _influences(args, block: Block):
    table, scaling, loss = args
    contrast, offset = scaling[block.angle, 0], scaling[block.angle, 1]
    root = block.root_weights
    model = offset + contrast * block_correlation(table, block)
    mine = influence_sums(loss, root * (model - block.values), root)
    return jax.tree.map(lambda one: jnp.zeros(scaling.shape[0]).at[block.angle].set(one), mine)


def mean_curvature_at(
    problem: Problem, u: Float[Array, "entry"], parameters: Float[Array, ""]
) -> tuple[Float[Array, "entry entry"], Float[Array, ""]]:
    """A = Σ E[ψ′] JᵀJ with penalties, and E[ψ²]/E[ψ′] after a fit of `parameters` parameters.

    What error bars of a robust loss are made of: the covariance of independent pairs is the second
    times A⁻¹. The means are over the residuals, E[ψ′] by angle.
    """
    term = problem.term
    c, x = problem.split(u)
    per_angle = term.scaling.per_angle(c)
    table = frame_table(term.parameters, x, term.t, term.geometry)
    by_angle = tile_sum(_equations, (table, per_angle, Linear()), term.tiles)
    influences = tile_sum(_influences, (table, per_angle, problem.loss), term.tiles)
    slope = jnp.where(influences.count > 0, influences.mean_slope, 0.0)
    scaled = slope[:, None, None] * by_angle.hessian
    by_angle = eqx.tree_at(lambda e: e.hessian, by_angle, scaled)
    all_angles = jax.tree.map(jnp.sum, influences)
    variance = all_angles.mean_square(parameters) / all_angles.mean_slope
    return _assembled(problem, by_angle, x, c, problem.parameters).hessian, variance


def _assembled(problem, by_angle, y, coefficients, parameters):
    """Equations in u = (coefficients, x) from those of the angles in coordinates y."""
    term = problem.term
    penalties = (problem.penalties, problem.scaling_penalties, term.noise)
    data, added = assemble(by_angle, y, coefficients, parameters, term.scaling, *penalties)
    return (data + added).transform(index_layout(parameters, y, term.scaling.size))


def last_equations(
    problem: Problem, parameters: ParameterMap, y: Float[Array, "free"], memo: Memo
) -> NormalEquations:
    """Normal equations in u from what a solver knows of its point `y`, without the data."""
    return _assembled(problem, memo.equations, y, memo.coefficients, parameters)


def solve_free(
    matrix: Float[Array, "entry entry"],
    right: Float[Array, "entry column"],
    free: Bool[Array, "entry"],
) -> Float[Array, "entry column"]:
    """matrix⁻¹ · right within the `free` entries and zero elsewhere.

    NaN when the matrix is not positive definite there: the point is no isolated minimum.
    """
    diagonal = jnp.diagonal(matrix)
    # An entry nothing depends on stays where it is.
    free = free & (diagonal != 0)
    unit = jnp.sqrt(jnp.where(free, diagonal, 1.0))
    inside = free[:, None] & free[None, :]
    scaled = jnp.where(inside, matrix / jnp.outer(unit, unit), jnp.eye(matrix.shape[0]))
    scaled_right = jnp.where(free[:, None], right / unit[:, None], 0.0)
    solution = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(scaled), scaled_right)
    return jnp.where(free[:, None], solution / unit[:, None], 0.0)
