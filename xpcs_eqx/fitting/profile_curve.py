"""The profile of a parameter as a curve: how the fit worsens as it is led away from its best."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..optimize import TrustRegion
from .fit import Fit
from .profile import physical_map, profiled_parameter, pulled_minimum

# Rise, in units of the residual variance, of one standard error.
ONE_ERROR = 1.0
# Width of the pull that leads the parameter along, as a part of the distance between two points.
_WIDTH = 0.05


class ProfileCurve(NamedTuple):
    """Rise of chi² along a parameter, all other parameters and the scaling fitted anew.

    - `values`: of the parameter; `rise`: of Σ w r² above its minimum, over the residual variance,
        so that 1 is one standard error of independent pairs.
    - `others`: values of the free parameters `names` there.
    - `best`: value of the fit.
    """

    name: str
    unit: str
    best: float
    values: Float[np.ndarray, "point"]
    rise: Float[np.ndarray, "point"]
    names: tuple[str, ...]
    others: Float[np.ndarray, "point free"]

    @property
    def flat(self) -> bool:
        """Whether no value looked at is a standard error away from the best."""
        return bool(np.max(self.rise, initial=0.0) < ONE_ERROR)

    def allowed(self) -> tuple[float, float]:
        """The range of the values looked at that lie within one standard error."""
        inside = self.values[self.rise <= ONE_ERROR]
        return float(np.min(inside, initial=self.best)), float(np.max(inside, initial=self.best))

    def sentence(self) -> str:
        """The curve in words."""
        low, high = self.allowed()
        span = f"{float(self.values[0]):.4g} … {float(self.values[-1]):.4g} {self.unit}".rstrip()
        if self.flat:
            return (
                f"the profile of {self.name} is flat over {span}: chi² rises by no more than "
                f"{float(np.max(self.rise)):.2g} standard errors squared"
            )
        return (
            f"the profile of {self.name} over {span} stays within one standard error from "
            f"{low:.4g} to {high:.4g}"
        )


def profile_curve(
    fit: Fit,
    name: str,
    values: Sequence[float] | Float[np.ndarray, "point"],
    *,
    solver: TrustRegion | None = None,
) -> ProfileCurve:
    """Cost against the value of a free parameter, the rest fitted anew at each.

    It goes outwards from the best value on either side, each point starting from its neighbour.
    Values outside the bounds are left out, and the parameter is led to each by a stiff spring,
    so that the curve holds the values it reached.

    **Raises:** `ModelError` for a parameter that is not free; `FitError` when a minimisation is
    not finite or does not converge.
    """
    function, objective = profiled_parameter(fit, name), fit.objective
    solver = TrustRegion() if solver is None else solver
    parameters = physical_map(fit)
    i, p = parameters.free_names.index(name), parameters.n_free
    wanted = np.unique(np.asarray(values, dtype=float))
    low, high = float(parameters.lower[i]), float(parameters.upper[i])
    wanted = wanted[(wanted >= low) & (wanted <= high)]
    best, base = float(fit.x[i]), 2 * float(fit.cost)
    reach = np.ptp(np.append(wanted, best))
    width = _WIDTH * max(reach / max(wanted.size, 1), 1e-9 * max(abs(best), 1.0))
    points = []
    for side in (wanted[wanted < best][::-1], wanted[wanted >= best]):
        x = fit.x
        for target in side:
            x, cost = pulled_minimum(objective, function, name, float(target), width, x, solver)
            risen = 2 * cost - ((x[i] - target) / width) ** 2 - base
            points.append((float(x[i]), max(risen, 0.0), x[:p]))
    points.sort(key=lambda point: point[0])
    variance = float(fit.uncertainty.residual_variance)
    units = dict(zip(parameters.names, parameters.units, strict=True))
    return ProfileCurve(
        name,
        units[name],
        best,
        np.array([point[0] for point in points]),
        _in_variances(np.array([point[1] for point in points]), variance),
        parameters.free_names,
        np.array([point[2] for point in points]).reshape(-1, p),
    )


def _in_variances(risen, variance):
    """Rises in units of the residual variance; any is infinite where the residuals vanish."""
    if variance > 0:
        return risen / variance
    return np.where(risen > 0, np.inf, 0.0)
