"""Profile-likelihood intervals: where the cost, minimised over the rest, has risen enough."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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


@quick_jit
def _solve_compiled(solver, objective, x):
    return iterate_compiled(solver, objective, x)


def _solve(solver, objective, x):
    iterate = _solve_compiled if objective.traceable else iterate_host
    state = iterate(solver, objective, x)
    return objective.variables.to_physical(state.y), state.equations.cost, state.status


def pulled_minimum(
    objective, function, name: str, target, width, x, solver: TrustRegion
) -> tuple[Float[np.ndarray, "variable"], float]:
    """The minimum over x of cost(x) + ½ ((h(x) − target)/width)², looked for from `x`.

    Returns its x and the value there, pull included; h is `function`, `name` is what it is called.

    **Raises:** `FitError` when it is not finite there, or the minimisation did not converge.
    """
    # The width is in the unit of the cost here: ½ ((h − target)/width)² whatever the noise is.
    known = float(objective.noise)
    noise = known if known > 0 else 1.0
    pull = Pull(function, jnp.asarray(target), jnp.asarray(noise * width))
    held = with_penalties(objective, (*objective.penalties, pull), noise)
    x, cost, status = _solve(solver, held, jnp.asarray(x))
    if not np.isfinite(float(cost)) or int(status) == Status.non_finite:
        raise FitError(f"the profile of {name} is not finite at {target:g}")
    if not Status(int(status)).converged:
        raise FitError(
            f"the minimisation on the profile of {name} at {float(target):g} did not converge "
            f"({Status(int(status)).message}); give a solver with more evaluations or wider "
            "tolerances, or a narrower range"
        )
    return np.asarray(x), float(cost)


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


def profile_interval(
    fit: Fit,
    quantity: str | Callable[[Mapping[str, Array]], Array],
    level: float = 0.682689492137086,
    *,
    kind: str = "classical",
    solver: TrustRegion | None = None,
) -> ProfileInterval:
    """Profile-likelihood interval of a parameter, or of any scalar function of the parameters.

    It follows bent valleys, where error bars from a covariance do not.

    **Arguments:**

    - `quantity`: name of a free parameter, or a function of the values by name.
    - `level`: probability content.
    - `kind`: `"classical"` takes pairs as independent; `"speckle"` and `"dyadic"` widen the
        threshold by the ratio of that variance to the classical one.

    **Raises:** `ModelError` for an unknown or fixed parameter or an impossible level; `FitError`
    when a minimisation along the profile does not converge.
    """
    if not 0 < level < 1:
        raise ModelError(f"the level {level} of an interval must lie between 0 and 1")
    objective, parameters = fit.objective, physical_map(fit)
    free = slice(len(fit.names) - parameters.n_free, None)
    if isinstance(quantity, str):
        name, function = quantity, profiled_parameter(fit, quantity)
    else:
        name, function = getattr(quantity, "__name__", "function"), quantity
    solver = TrustRegion() if solver is None else solver

    x_best = np.asarray(fit.values)[free]

    def value_of(x):
        return float(function(_values(parameters, x[: x_best.size])))

    centre = value_of(x_best)
    low_bound, high_bound = -math.inf, math.inf
    if isinstance(quantity, str):
        i = parameters.free_names.index(quantity)
        low_bound, high_bound = float(parameters.lower[i]), float(parameters.upper[i])
    noise = float(fit.uncertainty.residual_variance)
    if not 0 < noise < math.inf:
        # Without noise any other value is excluded, without degrees of freedom none is.
        low, high = (low_bound, high_bound) if noise > 0 else (centre, centre)
        return ProfileInterval(name, level, low, high, centre)
    gradient = np.asarray(_gradient(parameters, function, jnp.asarray(x_best)))
    block = np.asarray(fit.uncertainty.classical)[free, free]
    variance = _quadratic(gradient, block)
    if not (np.isfinite(variance) and variance > 0):
        variance = max(abs(centre), 1e-6) ** 2
    error = math.sqrt(variance)
    inflate = 1.0
    if kind != "classical":
        other = _quadratic(gradient, np.asarray(getattr(fit.uncertainty, kind))[free, free])
        inflate = other / variance if np.isfinite(other) else 1.0
    square = NormalDist().inv_cdf(0.5 + 0.5 * level) ** 2 * inflate
    base, width = 2 * float(fit.cost), _WIDTH * error

    def side(sign: int, bound: float) -> float:
        """Where the profile reaches the threshold above (sign 1) or below the best value."""

        def look(distance, x):
            target = centre + sign * distance
            x, cost = pulled_minimum(objective, function, name, target, width, x, solver)
            reached = value_of(x)
            rise = 2 * cost - ((reached - target) / width) ** 2 - base
            return sign * (reached - centre), math.sqrt(max(rise, 0.0)), x

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


def _quadratic(gradient, block):
    used = gradient != 0
    return float(gradient[used] @ block[np.ix_(used, used)] @ gradient[used])


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
    width = _STIFF * max(reach / max(wanted.size, 1), 1e-9 * max(abs(best), 1.0))
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
