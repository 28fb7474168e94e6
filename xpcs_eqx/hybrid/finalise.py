"""Phase 3: back to physical units, with covariance and standard errors."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..uncertainty import inverse_of
from .problem import ScaledProblem, Survey
from .steps import Local


class Final(NamedTuple):
    """Parameters in their own units with everything that belongs to them.

    - `hessian`: JᵀJ [1/unit²]; `pcov`, `perr`: covariance and standard errors. All three are `None`
        where there are too many parameters to form a matrix.
    - `at_bound`: parameters on a bound; their variance is zero.
    - `variance`: residual variance, ½ Σ ρ counted twice over the degrees of freedom.
    """

    x: Float[np.ndarray, "p"]
    hessian: Float[np.ndarray, "p p"] | None
    pcov: Float[np.ndarray, "p p"] | None
    perr: Float[np.ndarray, "p"] | None
    at_bound: tuple[bool, ...]
    degrees_of_freedom: int
    variance: float


class Finalise(eqx.Module):
    """Covariance D C Dᵀ of x = centre + D z from C = (JᵀJ)⁻¹ in z.

    A parameter with a share in a direction that the data leave open has infinite variance.
    """

    def __call__(
        self,
        problem: ScaledProblem,
        z: Float[np.ndarray, "p"],
        local: Local,
        survey: Survey,
        absolute_sigma: bool = False,
    ) -> Final:
        """The result at `z`; `absolute_sigma` leaves the residual variance out."""
        x = problem.original(z)
        on_bound = (z <= problem.lower) | (z >= problem.upper)
        degrees = max(survey.count - int((~on_bound).sum()) - survey.eliminated, 1)
        variance = 2 * float(local.cost) / degrees
        bound = tuple(bool(b) for b in on_bound)
        if local.hessian is None:
            return Final(x, None, None, None, bound, degrees, variance)
        hessian = local.hessian / np.outer(problem.scale, problem.scale)
        if not local.finite:
            nothing = np.full(hessian.shape, np.inf)
            return Final(x, hessian, nothing, np.diagonal(nothing), bound, degrees, variance)
        inverse, *_, unknown = inverse_of(local.hessian, ~on_bound)
        covariance = inverse * np.outer(problem.scale, problem.scale)
        covariance = covariance * (1.0 if absolute_sigma else variance)
        covariance[unknown, unknown] = np.inf
        errors = np.sqrt(np.diagonal(covariance))
        return Final(x, hessian, covariance, errors, bound, degrees, variance)
