"""What the hybrid optimiser returns."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..optimize import Status
from .gauss_newton import GaussNewtonHistory
from .statistics import BatchStatistics
from .telemetry import Telemetry
from .tournament import TournamentState

# Parameters that a printed result lists.
_SHOWN = 20


class HybridHistory(eqx.Module):
    """Relative losses of the warm-up by iteration, and Gauss–Newton by evaluation."""

    warm_up: Float[np.ndarray, "iteration"]
    gauss_newton: GaussNewtonHistory


class HybridResult(eqx.Module):
    """Parameters with cost, JᵀJ and errors found at them, and how they were reached.

    - `x`: parameters; `names` theirs; `at_bound`: which lie on a bound.
    - `fun`: the cost ½ Σ ρ, penalties included; `n_points`, `degrees_of_freedom` belong to it.
    - `hessian`: JᵀJ at `x` [1/unit²]; `pcov`, `perr`: covariance and standard errors, zero for a
        parameter on a bound, infinite along directions the data leave open and without degrees of
        freedom. All three are `None` where there are too many parameters to form a matrix (see
        `covariance_columns`).
    - `residual_variance`: v in the covariance v (JᵀJ)⁻¹ of parameters whose sigma is relative:
        2 `fun` over the degrees of freedom, for a robust loss E[ψ²]/E[ψ']² of the residuals, JᵀJ
        being that without its factors.
    - `message`: how the fit ended, and why errors are infinite where they are; `remark`: the latter
        alone.
    - `success`: only when Gauss–Newton converged, not when its iterations were used up.
    - `warm_up`: how the warm-up ended, in words.
    - `telemetry`: what the defences did; `statistics`: of the last passes over the data.
    - `tournament`: candidates and the table of its rounds, `None` without one.
    - `timings`: seconds by phase; `iterations`: iterations by phase; `evaluations`: passes asked
        for by each.
    """

    x: Float[np.ndarray, "parameter"]
    hessian: Float[np.ndarray, "parameter parameter"] | None
    pcov: Float[np.ndarray, "parameter parameter"] | None
    perr: Float[np.ndarray, "parameter"] | None
    history: HybridHistory
    telemetry: Telemetry
    statistics: BatchStatistics
    tournament: TournamentState | None
    fun: float = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    at_bound: tuple[bool, ...] = eqx.field(static=True)
    n_points: int = eqx.field(static=True)
    degrees_of_freedom: int = eqx.field(static=True)
    residual_variance: float = eqx.field(static=True)
    status: Status = eqx.field(static=True)
    message: str = eqx.field(static=True)
    warm_up: str = eqx.field(static=True)
    timings: tuple[tuple[str, float], ...] = eqx.field(static=True)
    iterations: tuple[tuple[str, int], ...] = eqx.field(static=True)
    evaluations: tuple[tuple[str, int], ...] = eqx.field(static=True)
    remark: str = eqx.field(static=True, default="")

    @property
    def success(self) -> bool:
        """Whether the fit converged."""
        return self.status.converged

    def __repr__(self) -> str:
        if not isinstance(self.x, np.ndarray):
            # Inside a transformation there are no values.
            return f"{type(self).__name__}({len(self.names)} parameters)"
        shown = self.names[:_SHOWN]
        errors = [float("nan")] * len(shown) if self.perr is None else self.perr
        rows = [
            f"  {name} = {value:.6g} ± {error:.2g}{' (on its bound)' if bound else ''}"
            for name, value, error, bound in zip(shown, self.x, errors, self.at_bound, strict=False)
        ]
        more = len(self.names) - len(shown)
        rows += [f"  and {more} more"] if more else []
        name = type(self).__name__
        head = f"{name} of {self.n_points} points: cost {self.fun:.8g}, {self.message}"
        return "\n".join([head, *rows])
