"""Phase 3: back to physical units, with covariance and standard errors."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..uncertainty import curve_errors, variance_of_fit
from ..uncertainty.uncertainty import NO_DEGREES_OF_FREEDOM
from .problem import ScaledProblem, Survey
from .steps import Local


class Final(NamedTuple):
    """Parameters in their own units with everything that belongs to them.

    - `hessian`: JᵀJ [1/unit²], with the factors of a robust loss; `pcov`, `perr`: covariance and
        standard errors. All three are `None` where there are too many parameters to form a matrix.
    - `at_bound`: parameters on a bound; their variance is zero.
    - `degrees_of_freedom`: points less free parameters.
    - `variance`: of a residual of unit weight, as in `HybridResult`.
    - `remark`: why errors are infinite, empty where none is.
    """

    x: Float[np.ndarray, "p"]
    hessian: Float[np.ndarray, "p p"] | None
    pcov: Float[np.ndarray, "p p"] | None
    perr: Float[np.ndarray, "p"] | None
    at_bound: tuple[bool, ...]
    degrees_of_freedom: int
    variance: float
    remark: str = ""


class Finalise(eqx.Module):
    """Covariance D C Dᵀ of x = centre + D z from the covariance C of z, v (JᵀJ)⁻¹.

    v is the residual variance, for a robust loss E[ψ²]/E[ψ']² of the residuals. A parameter with a
    share in a direction that the data leave open has infinite variance, and so has every one
    without degrees of freedom, unless sigma is absolute.
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
        bound, cost = tuple(bool(b) for b in on_bound), float(local.cost)
        parameters = int((~on_bound).sum()) + survey.eliminated
        degrees = survey.count - parameters
        matrix = local.hessian is not None
        found = problem.influence(z, matrix) if local.finite else None
        hessian = local.hessian if found is None else found.hessian
        sums = None if found is None else found.sums
        if local.hessian is None or hessian is None:
            variance = variance_of_fit(cost, survey.count, parameters, sums)
            known = absolute_sigma or degrees > 0
            remark = "" if known else NO_DEGREES_OF_FREEDOM
            return Final(x, None, None, None, bound, degrees, variance, remark)
        outer = np.outer(problem.scale, problem.scale)
        errors = curve_errors(
            hessian,
            ~on_bound,
            problem.names,
            cost=cost,
            count=survey.count,
            absolute_sigma=absolute_sigma,
            eliminated=survey.eliminated,
            sums=sums,
            penalty=None if found is None else found.penalty,
        )
        covariance = errors.covariance * outer
        perr = np.sqrt(np.diagonal(covariance))
        return Final(
            x,
            local.hessian / outer,
            covariance,
            perr,
            bound,
            degrees,
            errors.variance,
            errors.remark,
        )
