"""Profile-likelihood intervals: where the cost, minimised over the rest, has risen enough."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...arguments import checked, quiet_arithmetic
from ...compiling import quick_jit
from ...errors import FitError, ModelError
from ...objective import CurveObjective, Pull, with_penalties
from ...optimize import Status, TrustRegion, iterate_compiled, iterate_host
from ...parameters import ParameterMap, parameter_values
from ..fit import Fit

# Width of the pull that holds the profiled quantity, in units of its error. Every minimum with a
# pull lies on the profile, wherever the pull brought it, so it may be soft; a hard one would make
# the problem stiff and slow.
_WIDTH = 0.2
# Rise, in units of the residual variance, of one standard error.
ONE_ERROR = 1.0
# Width of the pull that leads the parameter along, as a part of the distance between two points.
_STIFF = 0.05
_EXPANSIONS = 24
_ROOT_STEPS = 24


# Covariances of which one may be quoted.
KINDS = ("classical", "speckle", "dyadic")


class ParameterValue(eqx.Module):
    """One parameter as a function of all; which one is data, so that all share one compilation."""

    names: tuple[str, ...] = eqx.field(static=True)
    selector: Float[np.ndarray, "parameter"]

    def __call__(self, values: Mapping[str, Array]) -> Array:
        """The value."""
        return jnp.stack([jnp.asarray(values[name]) for name in self.names]) @ self.selector


class ProfileInterval(NamedTuple):
    """An interval of given level; infinite, or at a bound, where the cost never rises enough.

    So it is without degrees of freedom, when no rise of the cost can be judged.
    """

    name: str
    level: float
    low: float
    high: float
    value: float


_solve_compiled = quick_jit(iterate_compiled)


class _Pulled(NamedTuple):
    """The fit of an objective while a pull holds h, a `function` of its parameters.

    - `name`: of h; `base`: Σ w r² and penalties at the best fit.
    """

    objective: Any
    function: Callable[[Mapping[str, Array]], Array]
    name: str
    solver: TrustRegion
    base: float

    def minimum(
        self, target: float, width: float, x: Float[np.ndarray, "variable"]
    ) -> tuple[Float[np.ndarray, "variable"], float, float]:
        """The minimum over x of cost(x) + ½ ((h(x) − target)/width)², looked for from `x`.

        Returns its x, h there, and how far twice the cost, without the pull, has risen.

        **Raises:** `FitError` when it is not finite there, or the minimisation did not converge.
        """
        # The width is in the unit of the cost here: ½ ((h − target)/width)² whatever the noise is.
        known = float(self.objective.noise)
        noise = known if known > 0 else 1.0
        pull = Pull(self.function, jnp.asarray(target), jnp.asarray(noise * width))
        held = with_penalties(self.objective, (*self.objective.penalties, pull), noise)
        iterate = iterate_host if held.in_parts else _solve_compiled
        state = iterate(self.solver, held, jnp.asarray(x))
        cost, status = float(state.equations.cost), Status(int(state.status))
        if not np.isfinite(cost) or status == Status.non_finite:
            raise FitError(f"the profile of {self.name} is not finite at {target:g}")
        if not status.converged:
            raise FitError(
                f"the minimisation on the profile of {self.name} at {float(target):g} did not "
                f"converge ({status.message}); give a solver with more evaluations or wider "
                "tolerances, or a narrower range"
            )
        x = np.asarray(held.variables.to_physical(state.y))
        parameters = self.objective.physical
        reached = float(self.function(_values(parameters, x[: parameters.n_free])))
        rise = 2 * cost - ((reached - target) / width) ** 2 - self.base
        return x, reached, max(rise, 0.0)


def physical_map(fit: Fit) -> ParameterMap:
    """The map of the free physical parameters, the last of the entries of a fit.

    **Raises:** `ModelError` for the fit of a curve, or of one of several data sets.
    """
    if fit.together:
        raise ModelError(
            f"the data set {fit.label!r} was fitted together with others, whose data hold its "
            "parameters as well: profile the fit of all of them, by public name"
        )
    if isinstance(fit.objective, CurveObjective):
        raise ModelError(
            "the parameters of a curve are held by no penalty, as a profile needs; bound the "
            "parameter to a narrow range around each value, and fit the curve anew"
        )
    return fit.objective.physical


def profiled_parameter(fit: Fit, name: str) -> "ParameterValue":
    """A free parameter as the function that a profile holds.

    **Raises:** `ModelError` listing the free ones when there is none of that name.
    """
    parameters = physical_map(fit)
    if name not in parameters.free_names:
        raise ModelError(
            f"no free parameter {name!r} to profile; free are {', '.join(parameters.free_names)}"
        )
    return ParameterValue(
        parameters.names, np.array([float(known == name) for known in parameters.names])
    )


@checked()
@quiet_arithmetic
def profile_interval(
    fit: Fit,
    quantity: str | Callable[[Mapping[str, Array]], Array],
    level: float = 0.682689492137086,
    *,
    kind: str = "classical",
    solver: TrustRegion | None = None,
) -> ProfileInterval:
    """Error interval of a parameter, or of a function of parameters, by profile likelihood.

    It follows bent valleys, where error bars from a covariance do not.

    **Arguments:**

    - `quantity`: name of a free parameter, or a function of the values by name.
    - `level`: probability content.
    - `kind`: `"classical"` takes pairs as independent; `"speckle"` and `"dyadic"` widen the
        threshold by the ratio of that variance to the classical one.

    **Raises:** `ModelError` for an unknown or fixed parameter or an impossible level; `FitError`
    when a minimisation along the profile does not converge.
    """
    if kind not in KINDS:
        raise ModelError(f"kind is {kind!r}; give one of {', '.join(KINDS)}")
    # Halves of what is left beside it must not be lost by rounding.
    if not 0 < level < 1 or 0.5 + 0.5 * level in (0.5, 1):
        raise ModelError(f"the level {level} of an interval must lie between 0 and 1")
    parameters = physical_map(fit)
    free = slice(len(fit.names) - parameters.n_free, None)
    x_best = np.asarray(fit.values)[free]
    low_bound, high_bound = -math.inf, math.inf
    if isinstance(quantity, str):
        name, function = quantity, profiled_parameter(fit, quantity)
        i = parameters.free_names.index(quantity)
        low_bound, high_bound = float(parameters.lower[i]), float(parameters.upper[i])
    else:
        name, function = getattr(quantity, "__name__", "function"), quantity
    centre = float(function(_values(parameters, x_best)))
    noise = float(fit.uncertainty.residual_variance)
    if not 0 < noise < math.inf:
        # Without noise any other value is excluded, without degrees of freedom none is.
        low, high = (low_bound, high_bound) if noise > 0 else (centre, centre)
        return ProfileInterval(name, level, low, high, centre)
    gradient = np.asarray(_gradient(parameters, function, jnp.asarray(x_best)))[None]

    def variance_of(kind: str) -> float:
        return float(fit.uncertainty.errors_of(gradient, kind)[0]) ** 2

    variance = variance_of("classical")
    if not (np.isfinite(variance) and variance > 0):
        variance = max(abs(centre), 1e-6) ** 2
    error = math.sqrt(variance)
    other = variance if kind == "classical" else variance_of(kind)
    inflate = other / variance if np.isfinite(other) else 1.0
    square = NormalDist().inv_cdf(0.5 + 0.5 * level) ** 2 * inflate
    solver = TrustRegion() if solver is None else solver
    pulled = _Pulled(fit.objective, function, name, solver, 2 * float(fit.cost))

    def side(sign: int, bound: float) -> float:
        """Where the profile reaches the threshold above (sign 1) or below the best value."""

        def look(distance, x):
            x, reached, rise = pulled.minimum(centre + sign * distance, _WIDTH * error, x)
            return sign * (reached - centre), math.sqrt(rise), x

        step, goal = error * math.sqrt(square), math.sqrt(square * noise)
        distance = _crossing(look, fit.x, step, goal, sign * (bound - centre))
        return bound if distance is None else centre + sign * distance

    return ProfileInterval(name, level, side(-1, low_bound), side(1, high_bound), centre)


def _crossing(look, x, step: float, goal: float, end: float) -> float | None:
    """The distance from the best value at which √rise reaches `goal`; None where it never does.

    √rise is close to linear in the distance, so that the secant in it converges fast.

    - `look`: (distance asked for, start) → (distance reached, √rise there, point there).
    - `step`: the first distance to look at; `end`: the last, where a bound lies.
    """
    near, far = (0.0, 0.0), None
    for _ in range(_EXPANSIONS):
        distance = min(near[0] + step, end)
        *point, there = look(distance, x)
        if point[1] >= goal:
            far = point
            break
        if distance >= end:
            return None
        near, x = point, there
        step *= 2.0
    if far is None:
        return math.inf
    for _ in range(_ROOT_STEPS):
        slope = (far[1] - near[1]) / (far[0] - near[0])
        distance = near[0] + (goal - near[1]) / slope
        # Away from the ends, so that the bracket shrinks on both sides.
        margin = 0.05 * (far[0] - near[0])
        distance = min(max(distance, near[0] + margin), far[0] - margin)
        *point, there = look(distance, x)
        if abs(point[1] - goal) < 1e-3 * goal:
            return point[0]
        if point[1] < goal:
            near, x = point, there
        else:
            far = point
        if far[0] - near[0] < 1e-4 * far[0]:
            break
    return 0.5 * (near[0] + far[0])


def _values(parameters, x):
    return parameter_values(parameters.build(jnp.asarray(x)))


@quick_jit
def _gradient(parameters, function, x):
    return jax.grad(lambda x: jnp.asarray(function(_values(parameters, x)), dtype=float))(x)


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

    def sentence(self) -> str:
        """The curve in words."""
        span = f"{float(self.values[0]):.4g} … {float(self.values[-1]):.4g} {self.unit}".rstrip()
        if self.flat:
            return (
                f"the profile of {self.name} is flat over {span}: chi² rises by no more than "
                f"{float(np.max(self.rise)):.2g} standard errors squared"
            )
        inside = np.append(self.values[self.rise <= ONE_ERROR], self.best)
        return (
            f"the profile of {self.name} over {span} stays within one standard error from "
            f"{np.min(inside):.4g} to {np.max(inside):.4g}"
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
    function, parameters = profiled_parameter(fit, name), physical_map(fit)
    solver = TrustRegion() if solver is None else solver
    pulled = _Pulled(fit.objective, function, name, solver, 2 * float(fit.cost))
    i, p = parameters.free_names.index(name), parameters.n_free
    wanted = np.unique(np.asarray(values, dtype=float))
    low, high = float(parameters.lower[i]), float(parameters.upper[i])
    wanted = wanted[(wanted >= low) & (wanted <= high)]
    best = fit[name].value
    reach = np.ptp(np.append(wanted, best))
    width = _STIFF * max(reach / max(wanted.size, 1), 1e-9 * max(abs(best), 1.0))
    points = []
    for side in (wanted[wanted < best][::-1], wanted[wanted >= best]):
        x = fit.x
        for target in side:
            x, reached, rise = pulled.minimum(float(target), width, x)
            points.append((reached, rise, x[:p]))
    points.sort(key=lambda point: point[0])
    risen, variance = np.array([point[1] for point in points]), fit.uncertainty.residual_variance
    # Any rise is beyond all measure where the residuals vanish.
    risen = risen / float(variance) if variance > 0 else np.where(risen > 0, np.inf, 0.0)
    return ProfileCurve(
        name,
        fit[name].unit,
        best,
        np.array([point[0] for point in points]),
        risen,
        parameters.free_names,
        np.array([point[2] for point in points]).reshape(-1, p),
    )
