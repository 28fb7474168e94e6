"""A problem with terms beside the data in its sum."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..objective import NormalEquations
from ..objective.penalties import AbstractPenalty, residual_equations
from .problem import AbstractProblem


def _residuals(penalties, noise, names, y):
    # Names belong to the variables of the problem, whatever these are to a model.
    values = {name: y[i] for i, name in enumerate(names)}
    return noise * jnp.concatenate([penalty.residuals(values) for penalty in penalties])


@quick_jit
def _equations(penalties, noise, names, y):
    return residual_equations(lambda b: _residuals(penalties, noise, names, b), y)


@quick_jit
def _cost_and_gradient(penalties, noise, names, y):
    r, pull = jax.vjp(lambda b: _residuals(penalties, noise, names, b), y)
    return 0.5 * r @ r, pull(r)[0]


@quick_jit
def _hessian_vector(penalties, noise, names, y, v):
    def residuals(b):
        return _residuals(penalties, noise, names, b)

    return jax.vjp(residuals, y)[1](jax.jvp(residuals, (y,), (v,))[1])[0]


class PenalisedProblem(AbstractProblem):
    """Another problem plus ½ σ² ‖residuals‖² of each penalty in its variables.

    Cost, gradient, JᵀJ and JᵀJ v all follow from the residuals of the penalties. Points are those
    of the data alone.

    - `sd`: the standard deviation σ of the residuals of the data; by default `noise` of the
        problem.
    """

    problem: AbstractProblem
    penalties: tuple[AbstractPenalty, ...]
    sd: Float[np.ndarray, ""]

    def __init__(
        self,
        problem: AbstractProblem,
        penalties: tuple[AbstractPenalty, ...],
        sd: float | None = None,
    ):
        self.problem, self.penalties = problem, penalties
        self.sd = np.asarray(problem.noise if sd is None else sd, float)

    @property
    def noise(self):
        return float(self.sd)

    @property
    def lower(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.lower

    @property
    def upper(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.upper

    @property
    def start(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.start

    @property
    def names(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.names

    def survey(self):
        return self.problem.survey()

    def _on_host(self, function, *vectors):
        vectors = (jnp.asarray(v, float) for v in vectors)
        found = function(self.penalties, self.sd, self.names, *vectors)
        return jax.tree.map(np.asarray, found)

    def cost_and_gradient(self, y):
        cost, gradient = self.problem.cost_and_gradient(y)
        more, slope = self._on_host(_cost_and_gradient, y)
        return cost + float(more), gradient + slope

    def equations(self, y):
        found: NormalEquations = self._on_host(_equations, y)
        return self.problem.equations(y) + found

    def influence(self, y, matrix=True):
        found = self.problem.influence(y, matrix)
        if found is None or not matrix:
            return found
        return found._replace(penalty=self._on_host(_equations, y).hessian)

    def hessian_vector(self, y, v):
        return self.problem.hessian_vector(y, v) + self._on_host(_hessian_vector, y, v)

    def diagonal(self, y):
        own = self._on_host(_equations, y).hessian
        return self.problem.diagonal(y) + np.diagonal(own)
