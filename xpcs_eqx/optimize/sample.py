"""The way of a fit to large maps from afar: on a sample of their tiles, which costs little."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float

from ..objective import AbstractObjective, NormalEquations
from ..objective.sampled import in_sample
from ..parameters.variables import physical_of
from .convergence import Status
from .loops import iterate_host
from .matrix_free import ConjugateGradient
from .recovery import at_bound
from .trust_region import TrustRegion

# Evaluations of a sample at most, and the relative reduction of its cost that says nothing more of
# where the minimum of all pairs is.
_EVALUATIONS, _COST = 40, 1e-5
# How much farther from the minimum than that of a sample a start has to be to be left.
_FARTHER = 4.0


def closer_start(
    solver: TrustRegion, objective: AbstractObjective, x: Float[np.ndarray, "variable"]
) -> Float[np.ndarray, "variable"] | None:
    """Where the fit of a sample of large maps ends that begins at physical variables `x`.

    The sample has the same minimum but for the noise: from there a fit to all pairs needs four or
    five evaluations, of the ten that it takes from afar, with whole steps. None where the data are
    not large, where the sample does not find a minimum inside the bounds, and where `x` is as near
    as that already.
    """
    by_products = isinstance(solver.descent, ConjugateGradient)
    sampled = None if by_products else in_sample(objective)
    if sampled is None:
        return None
    rough = dataclasses.replace(solver, cost_tol=max(float(solver.cost_tol), _COST))
    state = iterate_host(
        rough, sampled, jax.device_put(x), allowed=min(_EVALUATIONS, solver.max_evaluations)
    )
    variables = objective.variables
    found = np.asarray(physical_of(variables, state.y))
    stuck = at_bound(variables, found) & ~at_bound(variables, x)
    if not Status(int(state.status)).converged or np.any(stuck):
        return None
    equations = state.equations
    assert isinstance(equations, NormalEquations)
    first, last, pairs = map(
        float, (np.asarray(state.history.cost)[0], equations.cost, equations.count)
    )
    # In squared errors of a fit to the sample, of which its own minimum is some p away.
    away = (first - last) / last * pairs
    if not away > _FARTHER * max(x.size, 1):
        return None
    return found
