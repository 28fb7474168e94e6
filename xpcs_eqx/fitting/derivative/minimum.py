"""What a fit minimises, as a differentiable function of its own numbers and of all inputs."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, PyTree

from ...errors import ModelError
from ...objective import (
    AbstractLoss,
    AbstractObjective,
    AbstractPenalty,
    AbstractScalingPenalty,
    Block,
    CombinedObjective,
    CurveObjective,
    InfluenceSums,
    Linear,
    NormalEquations,
    ProjectedObjective,
    SpeckleLikelihood,
    TwoTimeObjective,
    TwoTimeTerm,
    block_correlation,
    influence_sums,
)
from ...objective.elimination import assemble, index_layout
from ...objective.kernel.blocks import block_equations
from ...objective.kernel.frame_table import frame_table
from ...objective.penalties import penalty_equations, penalty_squares
from ...objective.two_time import loss_of
from ...parameters import (
    AbstractVariables,
    ParameterMap,
    PlainVariables,
    SharedParameters,
    parameter_values,
    snap,
)
from ...parameters.parameter_map import plain_parameters
from .second_order import feature_rows, second_order, with_feature_rows
from .tile_sum import tile_sum


class AbstractMinimum(eqx.Module):
    """The cost as a function of u, the fitted numbers in the units and the order of a `Fit`.

    u = (scaling coefficients, free physical parameters), whatever an objective eliminates and in
    whatever coordinates its solver works. Every array the minimum depends on is a leaf; derivatives
    by u are given by the methods, those by everything else are JAX's.
    """

    lower: AbstractVar[Float[Array | np.ndarray, "entry"]]
    upper: AbstractVar[Float[Array | np.ndarray, "entry"]]

    @abstractmethod
    def cost(self, u: Float[Array, "entry"]) -> Float[Array, ""]:
        """The cost of data and penalties."""

    @abstractmethod
    def gradient(self, u: Float[Array, "entry"]) -> Float[Array, "entry"]:
        """Its gradient: zero along every free direction of a minimum."""

    @abstractmethod
    def hessian(self, u: Float[Array, "entry"]) -> Float[Array, "entry entry"]:
        """Its second derivative."""

    @abstractmethod
    def equations(self, u: Float[Array, "entry"]) -> tuple[NormalEquations, Float[Array, ""]]:
        """Normal equations in u, penalties included, and the cost of the data alone."""

    @abstractmethod
    def mean_curvature(
        self, u: Float[Array, "entry"]
    ) -> tuple[Float[Array, "entry entry"], InfluenceSums]:
        """A = Σ E[ψ′] JᵀJ with penalties, of a robust loss, and sums over its influence."""

    @abstractmethod
    def last(
        self, y: Float[Array, "variable"], memo: PyTree, equations: NormalEquations
    ) -> tuple[Float[Array, "entry"], NormalEquations]:
        """u and normal equations in u from what a solver knows of its point, without the data."""


def minimum_of(objective: AbstractObjective) -> AbstractMinimum:
    """What an objective minimises, without the coordinates of its solver.

    **Raises:** `ModelError` for an objective of another kind.
    """
    if isinstance(objective, TwoTimeObjective | SpeckleLikelihood):
        return _of_maps(objective)
    if isinstance(objective, CombinedObjective):
        parts = tuple(_of_maps(part) for part in objective.parts)
        whole = objective.parameters.whole

        def bounds(side: str) -> Float[Array, "entry"]:
            own = [getattr(part, side)[: part.term.scaling.size] for part in parts]
            return jnp.concatenate([*own, jnp.asarray(getattr(whole, side))])

        return JointMinimum(
            parts=parts,
            parameters=objective.parameters,
            whole=plain_parameters(whole),
            penalties=objective.penalties,
            noise=objective.noise,
            lower=bounds("lower"),
            upper=bounds("upper"),
        )
    if isinstance(objective, CurveObjective):
        box = objective.variables
        sides = (box.lower, box.upper, box.coordinate_scale)
        plain = PlainVariables(*map(jnp.asarray, sides))
        curve = eqx.tree_at(lambda o: o.variables, objective, plain)
        lower, upper = jnp.asarray(box.lower), jnp.asarray(box.upper)
        return CurveMinimum(curve=curve, coordinates=box, lower=lower, upper=upper)
    raise ModelError(
        f"a differentiable fit of an objective of type {type(objective).__name__} is not known; "
        "give one of projected_objective, two_time_objective or curve_objective"
    )


def _of_maps(objective: Any) -> "MapMinimum | LikelihoodMinimum":
    term, variables = objective.term, objective.variables
    lower, upper = (jnp.asarray(bound) for bound in (variables.lower, variables.upper))
    if isinstance(objective, ProjectedObjective):
        low, high = term.scaling.bounds
        lower, upper = jnp.concatenate([low, lower]), jnp.concatenate([high, upper])
    else:
        lower, upper = (jnp.roll(bound, term.scaling.size) for bound in (lower, upper))
    if isinstance(objective, SpeckleLikelihood):
        plain = plain_parameters(term.parameters)
        likelihood = eqx.tree_at(
            lambda o: (o.term.parameters, o.variables.parameters), objective, (plain, plain)
        )
        return LikelihoodMinimum(
            likelihood=likelihood, coordinates=term.parameters, lower=lower, upper=upper
        )
    return MapMinimum(
        term=eqx.tree_at(lambda t: t.parameters, term, plain_parameters(term.parameters)),
        coordinates=term.parameters,
        penalties=objective.penalties,
        scaling_penalties=objective.scaling_penalties,
        loss=loss_of(objective),
        lower=lower,
        upper=upper,
    )


def _residuals(table, scaling, block: Block):
    contrast, offset = scaling[block.angle, 0], scaling[block.angle, 1]
    model = offset + contrast * block_correlation(table, block)
    return block.root_weights * (model - block.values)


def _density(args, block: Block):
    table, scaling, loss = args
    return jnp.sum(loss.density(_residuals(table, scaling, block)))


def _slope(args, block: Block):
    """Derivative of the cost of a block with respect to features and scaling."""
    (rows, scaling), table, loss = args
    return jax.grad(
        lambda rows, s: _density((with_feature_rows(table, rows), s, loss), block), (0, 1)
    )(rows, scaling)


def _equations(args, block: Block):
    table, scaling, loss = args
    contrast, offset = scaling[block.angle, 0], scaling[block.angle, 1]
    mine = block_equations(table, block, contrast, offset, loss)
    # Kept apart by angle, whose contrasts differ.
    zero = NormalEquations.zero(mine.gradient.shape[0], (scaling.shape[0],), mine.cost.dtype)
    return jax.tree.map(
        lambda whole, part: jnp.asarray(whole).at[block.angle].set(part), zero, mine
    )


def _influences(args, block: Block):
    table, scaling, loss = args
    mine = influence_sums(loss, _residuals(table, scaling, block), block.root_weights)
    return jax.tree.map(lambda one: jnp.zeros(scaling.shape[0]).at[block.angle].set(one), mine)


class MapMinimum(AbstractMinimum):
    """Of one two-time data set.

    - `term`: model and data, its parameters being their own coordinates; `coordinates`: the map
        with those of the solver.
    """

    term: TwoTimeTerm
    coordinates: ParameterMap
    penalties: tuple[AbstractPenalty, ...]
    scaling_penalties: tuple[AbstractScalingPenalty, ...]
    loss: AbstractLoss
    lower: Float[Array | np.ndarray, "entry"]
    upper: Float[Array | np.ndarray, "entry"]

    def split(self, u: Float[Array, "entry"]) -> tuple[Float[Array, "k"], Float[Array, "free"]]:
        """Scaling coefficients and physical parameters."""
        k = self.term.scaling.size
        return u[:k], u[k:]

    def _table(self, x, differentiate=True):
        term = self.term
        return frame_table(term.parameters, x, term.t, term.geometry, differentiate)

    def _on_parameters(self, x):
        values = parameter_values(self.term.parameters.build(x))
        return 0.5 * penalty_squares(self.penalties, values, self.term.noise)

    def _on_scaling(self, c):
        per_angle = self.term.scaling.per_angle(c)
        rows = [penalty.residuals(per_angle) for penalty in self.scaling_penalties]
        return sum((0.5 * jnp.sum(row**2) for row in rows), jnp.zeros(()))

    def _assembled(self, by_angle, y, coefficients, parameters):
        """Equations in u from those of the angles in coordinates y."""
        scaling = self.term.scaling
        penalties = (self.penalties, self.scaling_penalties, self.term.noise)
        data, added = assemble(by_angle, y, coefficients, parameters, scaling, *penalties)
        return (data + added).transform(index_layout(parameters, y, scaling.size))

    def cost(self, u):
        c, x = self.split(u)
        args = (self._table(x, False), self.term.scaling.per_angle(c), self.loss)
        return (
            tile_sum(_density, args, self.term.tiles) + self._on_parameters(x) + self._on_scaling(c)
        )

    def gradient(self, u):
        # Derivatives of the model reach the pairs by the features at each frame, as in the normal
        # equations, and only those of one tile exist at any moment.
        scaling = self.term.scaling

        def features(u):
            c, x = self.split(u)
            return feature_rows(self._table(x, False)), scaling.per_angle(c)

        here, pull = jax.vjp(features, u)
        c, x = self.split(u)
        slope = tile_sum(_slope, (here, self._table(x, False), self.loss), self.term.tiles)
        penalties = [jax.grad(self._on_scaling)(c), jax.grad(self._on_parameters)(x)]
        return pull(slope)[0] + jnp.concatenate(penalties)

    def hessian(self, u):
        scaling = self.term.scaling
        c, x = self.split(u)
        p, k = x.shape[0], c.shape[0]
        per_angle = scaling.per_angle(c)
        args = (self._table(x), per_angle, self.loss)
        by_angle, slope = tile_sum(second_order, args, self.term.tiles)
        # Columns of an angle (x, contrast, offset) from those of u.
        n_angles = per_angle.shape[0]
        top = jnp.broadcast_to(jnp.eye(p, p + k, k), (n_angles, p, p + k))
        bottom = jnp.concatenate([scaling.basis, jnp.zeros((n_angles, 2, p))], axis=2)
        matrix = jnp.concatenate([top, bottom], axis=1)
        hessian = jnp.einsum("acn,acd,adm->nm", matrix, by_angle, matrix)

        def curved(x):
            """What bends by itself: the features in x, weighted by the slope, and the penalties."""
            rows = feature_rows(self._table(x, False))
            bent = sum(jnp.vdot(row, s) for row, s in zip(rows, slope, strict=True))
            return bent + self._on_parameters(x)

        bent = jax.hessian(self._on_scaling)(c)
        return hessian.at[k:, k:].add(jax.hessian(curved)(x)).at[:k, :k].add(bent)

    def equations(self, u):
        c, x = self.split(u)
        args = (self._table(x), self.term.scaling.per_angle(c), self.loss)
        by_angle = tile_sum(_equations, args, self.term.tiles)
        return self._assembled(by_angle, x, c, self.term.parameters), jnp.sum(by_angle.cost)

    def mean_curvature(self, u):
        # E[ψ′] by angle: angles may have noise of their own.
        c, x = self.split(u)
        table, per_angle = self._table(x), self.term.scaling.per_angle(c)
        by_angle = tile_sum(_equations, (table, per_angle, Linear()), self.term.tiles)
        influences = tile_sum(_influences, (table, per_angle, self.loss), self.term.tiles)
        slope = jnp.where(influences.count > 0, influences.mean_slope, 0.0)
        scaled = slope[:, None, None] * by_angle.hessian
        by_angle = eqx.tree_at(lambda e: e.hessian, by_angle, scaled)
        hessian = self._assembled(by_angle, x, c, self.term.parameters).hessian
        return hessian, jax.tree.map(jnp.sum, influences)

    def last(self, y, memo, equations):
        del equations
        y = y[: self.coordinates.n_free]
        x = snap(self.coordinates, self.coordinates.to_physical(y))
        u = jnp.concatenate([jnp.clip(memo.coefficients, *self.term.scaling.bounds), x])
        return u, self._assembled(memo.equations, y, memo.coefficients, self.coordinates)


class LikelihoodMinimum(AbstractMinimum):
    """Of the likelihood of speckle of one two-time data set.

    - `likelihood`: model and data, its parameters being their own coordinates; `coordinates`: the
        map with those of the solver.
    """

    likelihood: SpeckleLikelihood
    coordinates: ParameterMap
    lower: Float[Array | np.ndarray, "entry"]
    upper: Float[Array | np.ndarray, "entry"]

    @property
    def term(self) -> TwoTimeTerm:
        """Model and data."""
        return self.likelihood.term

    def _variables(self, u):
        # The variables of the objective are (free physical parameters, scaling coefficients).
        return jnp.roll(u, -self.term.scaling.size, axis=0)

    def cost(self, u):
        return self.likelihood.cost(self._variables(u), None)

    def gradient(self, u):
        return self.equations(u)[0].gradient

    def hessian(self, u):
        return jax.jacfwd(self.gradient)(u)

    def _penalty(self, u):
        own = self.likelihood.penalty(self._variables(u))
        return own.transform(self._variables(jnp.eye(u.shape[0])))

    def equations(self, u):
        likelihood = self.likelihood
        data = likelihood.together(likelihood.angle_equations(self._variables(u)))
        turned = data.transform(self._variables(jnp.eye(u.shape[0])))
        return turned + self._penalty(u), data.cost

    def mean_curvature(self, u):
        raise ModelError("the likelihood of speckle has no robust loss, whose curvature this is")

    def last(self, y, memo, equations):
        del equations
        n, scaling = self.coordinates.n_free, self.term.scaling
        x = snap(self.coordinates, self.coordinates.to_physical(y[:n]))
        u = jnp.concatenate([jnp.clip(y[n:], *scaling.bounds), x])
        layout = index_layout(self.coordinates, y[:n], scaling.size)
        return u, self.likelihood.together(memo).transform(layout) + self._penalty(u)


class JointMinimum(AbstractMinimum):
    """Of several two-time data sets: u has the scaling coefficients of each, then the parameters.

    A part sees u_k = (its coefficients, its own parameters), a function of u:
    ∇ = Σ L_kᵀ ∇_k and H = Σ L_kᵀ H_k L_k + Σ ∇_k·d²u_k/du², with L_k = du_k/du.
    """

    parts: tuple[MapMinimum | LikelihoodMinimum, ...]
    parameters: SharedParameters
    whole: ParameterMap
    penalties: tuple[AbstractPenalty, ...]
    noise: Float[Array, ""]
    lower: Float[Array | np.ndarray, "entry"]
    upper: Float[Array | np.ndarray, "entry"]

    def _local(self, u):
        ends = np.cumsum([0, *(part.term.scaling.size for part in self.parts)])
        x = u[ends[-1] :]
        return tuple(
            jnp.concatenate([u[ends[k] : ends[k + 1]], self.parameters.local(k, x)])
            for k in range(len(self.parts))
        )

    def _parameters_of(self, u):
        return u[u.shape[0] - self.whole.n_free :]

    def _penalty(self, u):
        values = parameter_values(self.whole.build(self._parameters_of(u)))
        return 0.5 * penalty_squares(self.penalties, values, self.noise)

    def _added(self, u):
        x = self._parameters_of(u)
        own = penalty_equations(self.penalties, self.whole, x, self.noise)
        return own.transform(jnp.eye(x.shape[0], u.shape[0], u.shape[0] - x.shape[0]))

    def _carried(self, u, equations):
        """Equations in u from those of the parts in their own numbers."""
        turns = jax.jacfwd(self._local)(u)
        return sum(
            (own.transform(turn) for own, turn in zip(equations, turns, strict=True)),
            self._added(u),
        )

    def cost(self, u):
        own = zip(self.parts, self._local(u), strict=True)
        return sum((part.cost(here) for part, here in own), self._penalty(u))

    def gradient(self, u):
        own, pull = jax.vjp(self._local, u)
        slopes = tuple(part.gradient(u) for part, u in zip(self.parts, own, strict=True))
        return pull(slopes)[0] + jax.grad(self._penalty)(u)

    def hessian(self, u):
        each = list(zip(self.parts, self._local(u), jax.jacfwd(self._local)(u), strict=True))
        slopes = [part.gradient(own) for part, own, _ in each]

        def bent(u):
            pairs = zip(slopes, self._local(u), strict=True)
            return sum((jnp.vdot(slope, here) for slope, here in pairs), self._penalty(u))

        total: Array = jax.hessian(bent)(u)
        for part, own, turn in each:
            total = total + turn.T @ part.hessian(own) @ turn
        return total

    def equations(self, u):
        found = [part.equations(own) for part, own in zip(self.parts, self._local(u), strict=True)]
        return self._carried(u, [one for one, _ in found]), sum(
            (cost for _, cost in found), jnp.zeros(())
        )

    def mean_curvature(self, u):
        turns, each = jax.jacfwd(self._local)(u), zip(self.parts, self._local(u), strict=True)
        found = [part.mean_curvature(own) for part, own in each]
        own = (turn.T @ one @ turn for (one, _), turn in zip(found, turns, strict=True))
        hessian = sum(own, self._added(u).hessian)
        return hessian, jax.tree.map(lambda *one: sum(one), *(sums for _, sums in found))

    def last(self, y, memo, equations):
        coordinates, n = self.parameters.whole, self.whole.n_free
        x = snap(coordinates, coordinates.to_physical(y[:n]))
        sizes = [part.term.scaling.size for part in self.parts]
        ends, own = n + np.cumsum([0, *sizes]), []
        for k, part in enumerate(self.parts):
            # The scaling of each follows where it is among the variables, else there is no more.
            scaling = y[ends[k] : ends[k + 1]]
            here = jnp.concatenate([self.parameters.local_coordinates(k, y[:n]), scaling])
            own.append(part.last(here, memo[k], equations))
        coefficients = [u[:size] for (u, _), size in zip(own, sizes, strict=True)]
        u = jnp.concatenate([*coefficients, x])
        return u, self._carried(u, [one for _, one in own])


class CurveMinimum(AbstractMinimum):
    """Of a curve: u are its variables, which `curve` has as their own coordinates."""

    curve: CurveObjective
    coordinates: AbstractVariables
    lower: Float[Array | np.ndarray, "entry"]
    upper: Float[Array | np.ndarray, "entry"]

    def cost(self, u):
        return self.curve.cost(u, None)

    def gradient(self, u):
        return jax.grad(self.cost)(u)

    def hessian(self, u):
        return jax.hessian(self.cost)(u)

    def equations(self, u):
        equations, _ = self.curve.evaluate(u, None)
        return equations, equations.cost

    def mean_curvature(self, u):
        hessian, sums = self.curve.influence(u)
        return sums.mean_slope * hessian, sums

    def last(self, y, memo, equations):
        turn = jnp.linalg.inv(jax.jacfwd(self.coordinates.to_physical)(y))
        u = snap(self.coordinates, self.coordinates.to_physical(y))
        return jnp.asarray(u), equations.transform(turn)


class AbstractCurvature(eqx.Module):
    """Which matrix stands for the second derivative of the cost at an optimum."""

    @abstractmethod
    def matrix(
        self, minimum: AbstractMinimum, u: Float[Array, "entry"]
    ) -> Float[Array, "entry entry"]:
        """The matrix at u = (scaling coefficients, physical parameters)."""


class FullCurvature(AbstractCurvature):
    """The second derivative itself: derivatives of a fit are exact, however large its residuals."""

    def matrix(self, minimum, u):
        return minimum.hessian(u)


class GaussNewtonCurvature(AbstractCurvature):
    """JᵀJ: cheaper and never indefinite; off by what residuals times model curvature add up to."""

    def matrix(self, minimum, u):
        equations, _ = minimum.equations(u)
        return equations.hessian


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
