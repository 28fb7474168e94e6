"""Bounded trust region on normal equations: one pure state machine for every loop."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..arguments import Count, check_fields, plain
from ..errors import ModelError
from ..objective import NormalEquations
from ..parameters import AbstractVariables
from ..showing import with_numbers
from .bounded_step import bounded_step, function_info, move, step_problem
from .convergence import Convergence, Status, Tried, closeness
from .descents import AbstractMetric, NaturalMetric, NielsenSearch, as_value, damped_newton
from .matrix_free import ConjugateGradient, GradientEquations

# Evaluations that a history keeps at most: its length is that of arrays which every step carries.
LONGEST = 10_000


class History(eqx.Module):
    """Cost, projected gradient (a cosine), step size and acceptance of every evaluation."""

    cost: Float[Array, "evaluation"]
    gradient: Float[Array, "evaluation"]
    step_size: Float[Array, "evaluation"]
    accepted: Bool[Array, "evaluation"]


class TrustRegionState(eqx.Module):
    """The best accepted point with its own equations, the trial point, and the search.

    - `equations`: without JᵀJ where the descent makes its steps by products.
    - `step`, `curved`: to the trial point, in scaled coordinates, and JᵀJ times that.
    - `allowed`: evaluations at most, of this run.
    - `refused`: the last trial point at which the model was not finite, NaN before there is one.
    - `gradient_measure`: largest cosine between the residuals and a column of the Jacobian;
        `offset`: the cosine between the residuals and the space of all columns.
    - `physical`: for a callback of a fit: y as physical variables, each with its name.
    """

    y: Float[Array, "p"]
    equations: NormalEquations | GradientEquations
    memo: PyTree
    trial: Float[Array, "p"]
    step: Float[Array, "p"]
    curved: Float[Array, "p"]
    scale: Float[Array, "p"]
    largest: Float[Array, "p"]
    search: PyTree
    step_size: Float[Array, ""]
    evaluations: Int[Array, ""]
    allowed: Int[Array, ""]
    accepted: Int[Array, ""]
    rejected: Int[Array, ""]
    non_finite: Int[Array, ""]
    refused: Float[Array, "p"]
    gradient_measure: Float[Array, ""]
    offset: Float[Array, ""]
    status: Int[Array, ""]
    history: History
    physical: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())

    @property
    def values(self) -> dict[str, float]:
        """The physical variables by name, as a callback sees them."""
        return dict(self.physical)

    @property
    def best(self) -> Float[np.ndarray, "p"]:
        """The physical variables, as a callback sees them."""
        return np.array([value for _, value in self.physical])

    @property
    def summary(self) -> str:
        """Where it is, in one line."""
        return (
            f"evaluation {int(self.evaluations)}: cost {float(self.equations.cost):.8g}, "
            f"gradient {float(self.gradient_measure):.2e}"
        )


# With less damping than this the first step is that of Gauss and Newton to all digits that count.
LEAST_DAMPING = 1e-8


class TrustRegion(eqx.Module):
    """The solver of every fit: when it stops, how many evaluations it has, which steps it takes.

    Least squares by normal equations inside bounds. Descents and searches are those of Optimistix.

    Steps are taken in coordinates scaled by `metric`, since damping acts alike on all of them;
    bounds are those of the physical variables. `propose` names a point and
    `update` takes the normal equations found there; a compiled loop and a loop in Python over
    streamed data run the same machine.

    A run converges only at a minimum, however short its steps are; `convergence` has the rule.

    - `cost_tol`: relative reduction of the cost, true and predicted, at which to stop.
    - `step_tol`: step relative to the coordinates and their natural scale.
    - `gradient_tol`: largest cosine between the residuals and a column of the Jacobian.
    - `offset_tol`: cosine between the residuals and the space of all columns up to which a point is
        a minimum. Wider ones of the other tolerances widen it: up to √`cost_tol`, `gradient_tol`.
    - `damping`: initial damping relative to the largest curvature in the scaled coordinates.
    - `max_evaluations`: at most, over all attempts where a fit is tried again.
    - `recorded`: how many evaluations the history keeps, at least one, the first ones; by default
        all, or 10 000. A long history costs time in batches of small fits.
    """

    cost_tol: float = eqx.field(default=1e-12, converter=as_value)
    step_tol: float = eqx.field(default=1e-9, converter=as_value)
    gradient_tol: float = eqx.field(default=1e-10, converter=as_value)
    offset_tol: float = eqx.field(default=1e-6, converter=as_value)
    damping: float = eqx.field(default=0.1, converter=as_value)
    metric: AbstractMetric = NaturalMetric()
    max_evaluations: Count = eqx.field(static=True, default=200, converter=plain)
    recorded: Count | None = eqx.field(static=True, default=None, converter=plain)
    descent: optx.AbstractDescent | ConjugateGradient = eqx.field(default_factory=damped_newton)
    search: optx.AbstractSearch = eqx.field(default_factory=NielsenSearch)

    __check_init__ = check_fields

    def __repr__(self) -> str:
        return with_numbers(self)

    @property
    def convergence(self) -> Convergence:
        """The rule of convergence with the tolerances of this solver."""
        return Convergence(
            *map(jnp.asarray, (self.cost_tol, self.step_tol, self.gradient_tol, self.offset_tol))
        )

    def start(
        self,
        variables: AbstractVariables,
        x: Float[Array, "p"],
        columns: NormalEquations | GradientEquations,
        memo: PyTree,
    ) -> TrustRegionState:
        """The state before the first evaluation, at physical variables `x` inside the box.

        `columns` only gives the shapes of the equations.
        """
        y = variables.to_coordinates(jnp.clip(x, variables.lower, variables.upper))
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), columns)
        # Nothing is known yet: any finite cost is lower.
        empty = eqx.tree_at(lambda e: e.cost, empty, jnp.full_like(empty.cost, jnp.inf))
        ones = jnp.ones_like(y)
        length = min(self.max_evaluations, LONGEST) if self.recorded is None else self.recorded
        # Whole numbers of JAX end somewhere.
        allowed = min(self.max_evaluations, int(jnp.iinfo(jnp.asarray(0).dtype).max))
        blank = jnp.full((length,), jnp.nan, y.dtype)
        integer = jnp.asarray(0)
        state = TrustRegionState(
            y=y,
            equations=empty,
            memo=memo,
            trial=y,
            step=jnp.zeros_like(y),
            curved=jnp.zeros_like(y),
            scale=ones,
            largest=jnp.zeros_like(y),
            search=self.search.init(
                y, jax.eval_shape(lambda: function_info(y @ y, y, jnp.outer(y, y)))
            ),
            step_size=jnp.ones((), y.dtype),
            evaluations=integer,
            allowed=jnp.asarray(allowed),
            accepted=integer,
            rejected=integer,
            non_finite=integer,
            refused=jnp.full_like(y, jnp.nan),
            gradient_measure=jnp.asarray(jnp.inf, y.dtype),
            offset=jnp.asarray(jnp.inf, y.dtype),
            status=jnp.asarray(int(Status.running)),
            history=History(blank, blank, blank, jnp.zeros((length,), bool)),
        )
        # Without weak types, which a later state does not have: one compilation serves all steps.
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)

    def propose(self, variables: AbstractVariables, state: TrustRegionState) -> TrustRegionState:
        """Choose the next trial point from the accepted one."""
        if isinstance(self.descent, ConjugateGradient):
            # The step was made with the test of convergence, which asks for the same products.
            trial = jnp.clip(state.y + state.scale * state.step, variables.lower, variables.upper)
            return eqx.tree_at(lambda s: s.trial, state, trial)
        problem = step_problem(variables, state.y, state.scale, state.equations)
        step, fixed, target = bounded_step(self.descent, problem, state.step_size)
        trial = move(variables, state.y, state.scale * step, fixed, target)
        return eqx.tree_at(lambda s: (s.trial, s.step), state, (trial, step))

    def update(
        self,
        variables: AbstractVariables,
        state: TrustRegionState,
        equations: NormalEquations | GradientEquations,
        memo: PyTree,
        product: Callable[..., Float[Array, "p"]] | None = None,
    ) -> TrustRegionState:
        """Take the equations found at the trial point: accept or reject, and test for the end.

        `product` makes JᵀJ v of (y, v), for a descent that works by products.
        """
        if isinstance(self.descent, ConjugateGradient) and product is None:
            raise ModelError(
                "ConjugateGradient passes over the data for every product, from Python: use "
                "least_squares or iterate_host, or another descent where all is compiled"
            )
        first = state.evaluations == 0
        finite = jnp.isfinite(equations.cost)
        finite &= jnp.all(jnp.isfinite(equations.gradient))
        matrix = isinstance(equations, NormalEquations)
        finite &= jnp.all(jnp.isfinite(equations.hessian if matrix else equations.diagonal))
        cost = jnp.where(finite, equations.cost, jnp.inf)
        here = _local_model(state)
        origin = jnp.zeros_like(state.step)
        step_size, accept, _, search = self.search.step(
            first,
            origin,
            state.step,
            here,
            optx.FunctionInfo.Eval(cost),
            state.search,
        )
        # A step that rounding swallows is none, whatever the search makes of it.
        accept = ((accept & jnp.any(state.trial != state.y)) | first) & finite
        curved = here.hessian.mv(state.step)
        predicted = -(here.grad @ state.step + 0.5 * state.step @ curved)
        actual = state.equations.cost - cost

        def chosen(new, old):
            return jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)

        moved = state.trial - state.y
        y = chosen(state.trial, state.y)
        kept = chosen(equations, state.equations)
        largest = jnp.maximum(state.largest, jnp.where(finite, kept.diagonal, 0.0))
        scale = self.metric.scale(jnp.asarray(variables.coordinate_scale), largest) / jnp.sqrt(
            self.damping
        )
        used = state.evaluations + 1
        natural = jnp.asarray(variables.coordinate_scale)
        following = curved = jnp.zeros_like(state.step)
        if isinstance(self.descent, ConjugateGradient):
            assert product is not None
            made = self.descent.step(variables, y, scale, kept, largest, step_size, product)
            following, curved, near = made.z, made.curved, made.closeness
        else:
            problem = step_problem(variables, y, scale, kept)
            curvature = jnp.maximum(jnp.diagonal(problem.hessian), 0.0)
            negligible = self.metric.negligible(natural / scale, curvature)
            near = closeness(problem, y / scale, natural / scale, largest, negligible)
        tried = Tried(
            first=first,
            finite=finite,
            accepted=accept,
            size=jnp.max(jnp.abs(moved) / (natural + jnp.abs(state.y)), initial=0.0),
            cost=state.equations.cost,
            actual=actual,
            predicted=predicted,
        )
        status = self.convergence.status(near, tried)
        running = status == int(Status.running)
        status = jnp.where(running & (used >= state.allowed), int(Status.max_evaluations), status)
        row = (cost, near.cosine, step_size.astype(y.dtype), accept)
        columns = zip(jax.tree.leaves(state.history), row, strict=True)
        place = state.evaluations
        history = History(*(old.at[place].set(new, mode="drop") for old, new in columns))
        new = TrustRegionState(
            y=y,
            equations=kept,
            memo=chosen(memo, state.memo),
            trial=y,
            step=following,
            curved=curved,
            scale=scale,
            largest=largest,
            search=search,
            step_size=step_size,
            evaluations=used,
            allowed=state.allowed,
            accepted=state.accepted + accept,
            rejected=state.rejected + ~accept,
            non_finite=state.non_finite + ~finite,
            refused=jnp.where(finite, state.refused, state.trial),
            gradient_measure=near.cosine,
            offset=near.offset,
            status=status,
            history=history,
        )
        # The same types going in and out: the loop and its compiled body rely on it.
        return jax.tree.map(lambda leaf, old: jnp.asarray(leaf, old.dtype), new, state)


def _local_model(state: TrustRegionState) -> Any:
    """Cost, gradient and JᵀJ of the accepted point in scaled coordinates, for Optimistix."""
    gradient = state.scale * state.equations.gradient
    if isinstance(state.equations, NormalEquations):
        hessian = state.equations.hessian * jnp.outer(state.scale, state.scale)
        return function_info(state.equations.cost, gradient, hessian)
    # Of JᵀJ only its product with the step is known; a diagonal matrix that has the same.
    still = state.step == 0
    along = jnp.where(still, 0.0, state.curved / jnp.where(still, 1.0, state.step))
    operator = lx.DiagonalLinearOperator(along)
    return optx.FunctionInfo.EvalGradHessian(state.equations.cost, gradient, operator)
