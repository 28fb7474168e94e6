"""Numbers that follow from the parameters, with errors from their covariance: lags, rates, q."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...compiling import quick_jit
from ...data import Geometry
from ...errors import ModelError
from ...physics import (
    AbstractCorrelation,
    Ballistic,
    Caged,
    DoubleExponential,
    LaminarFlow,
    Static,
    StretchedExponential,
    correlation_rows,
    time_floor,
)
from ...physics.rates import rates_in
from ...showing import with_error
from ...uncertainty import chance
from ..fit import Fit

# Where maps begin, and after these parts of the window: beyond, lags soon leave the maps.
_AGES = (0.0, 0.25, 0.5)
# Lags that are looked at at a time, frames of a pair, and how often the first crossing is narrowed.
_LAGS, _STEPS, _ZOOMS = 161, 33, 5
# The relaxation rate Γ of c1 is the rate in a field times a factor and a power of q, which a model
# that fits each q by itself does not state.
_GAMMA = {
    Static: ("transport", 0.5, 2.0),
    LaminarFlow: ("transport", 0.5, 2.0),
    Caged: ("transport", 0.5, 2.0),
    Ballistic: ("spread", 1.0, 1.0),
    StretchedExponential: ("relaxation", 1.0, 0.0),
    DoubleExponential: ("relaxation", 1.0, 0.0),
}
# The age at which it is compared between data sets.
_MIDDLE = _AGES[1]
# Points that scatter more about their line than so rarely happens by chance are on no line.
_SCATTER = 1e-3


class Derived(NamedTuple):
    """Numbers of one data set.

    - `ages` [s]: at which `lags` [s] `(age, angle)` are those after which |c1|² is one half;
        infinite where it never is. `lag_errors` of them.
    - `rates`, `rate_errors`: by field of the model, at the ages.
    - `taus`, `tau_errors`: relaxation times 1/Γ of c1 at the ages [s], NaN where the model has
        none.
    - `means`, `mean_errors`: averages of the rates over the time of the maps.
    - `gamma`, `gamma_error`: relaxation rate Γ of c1 [1/s] at `gamma_age` [s], NaN where the model
        has none; `slopes`: derivatives of ln Γ by the free parameters.
    """

    q: float
    ages: Float[np.ndarray, "age"]
    lags: Float[np.ndarray, "age angle"]
    lag_errors: Float[np.ndarray, "age angle"]
    rates: dict[str, Float[np.ndarray, "age"]]
    rate_errors: dict[str, Float[np.ndarray, "age"]]
    taus: Float[np.ndarray, "age"]
    tau_errors: Float[np.ndarray, "age"]
    means: dict[str, float]
    mean_errors: dict[str, float]
    gamma: float
    gamma_error: float
    gamma_age: float
    slopes: Float[np.ndarray, "free"]


def _numbers(model, t, geometry, ages, lags):
    """|c1|² `(pair, angle)` of pairs whose first frame has an age and whose lag is given.

    Beside it rates at the ages, and their averages over the times `t`.
    """

    def level(age, lag):
        # Rates that are integrated on their grid need frames in between.
        frames = age + lag * jnp.linspace(0.0, 1.0, _STEPS)
        return correlation_rows(model, frames, geometry, jnp.zeros(1, int))[:, 0, -1]

    rates = rates_in(model)
    whole = {name: rate.integral(t) for name, rate in rates.items()}
    return {
        "levels": jax.vmap(level)(ages, lags),
        "rates": {name: rate(ages) for name, rate in rates.items()},
        "means": {name: (one[-1] - one[0]) / (t[-1] - t[0]) for name, one in whole.items()},
    }


_of_model = quick_jit(_numbers)


@quick_jit
def _of_parameters(parameters, t, geometry, x, ages, lags):
    return _numbers(parameters.build(x), t, geometry, ages, lags)


def half_decay_lags(
    model: AbstractCorrelation,
    t: Float[np.ndarray, "frame"],
    geometry: Geometry,
    ages: Float[np.ndarray, "age"],
) -> Float[np.ndarray, "age angle"]:
    """Lags [s] after which |c1|² of pairs whose first frame has an age [s] first falls to one half.

    Infinite where it does not within a hundred times the length of `t` [s].
    """
    return _half_decays(_of_model.bound(model, t, geometry), t, geometry, ages)


def _half_decays(
    numbers: Callable[[np.ndarray, np.ndarray], Any],
    t: Float[np.ndarray, "frame"],
    geometry: Geometry,
    ages: Float[np.ndarray, "age"],
) -> Float[np.ndarray, "age angle"]:
    """As `half_decay_lags`; `numbers` are `_numbers` of ages and lags, as many as `_LAGS`."""
    out = np.full((len(ages), geometry.phi.shape[0]), np.inf)
    widest = np.geomspace(0.01 * (t[1] - t[0]), 100 * (t[-1] - t[0]), _LAGS)
    for i, age in enumerate(ages):
        here = np.full(_LAGS, age)
        first = np.asarray(numbers(here, widest)["levels"])
        for angle in range(out.shape[1]):
            tried, levels = widest, first
            for step in range(_ZOOMS):
                if step:
                    levels = np.asarray(numbers(here, tried)["levels"])
                fallen = np.flatnonzero(levels[:, angle] < 0.5)
                if not fallen.size:
                    break
                high = max(int(fallen[0]), 1)
                tried = np.geomspace(tried[high - 1], tried[high], _LAGS)
            else:
                out[i, angle] = tried[_LAGS // 2]
    return out


def _ages(t: Float[np.ndarray, "frame"], ages: Sequence[float] | None) -> np.ndarray:
    """Ages that are asked for [s]."""
    if ages is None:
        return t[0] + np.array(_AGES) * (t[-1] - t[0])
    found = np.asarray(ages, dtype=float)
    if found.ndim != 1 or not found.size or not np.all(np.isfinite(found) & (found >= 0)):
        raise ModelError(f"ages = {ages}; give a list of times from 0 on [s]")
    # As the times of the maps: rates may have no value at zero.
    return np.maximum(found, float(time_floor(t)))


def _times(fit: Fit) -> np.ndarray:
    """Those of the frames [s]; rates may have no value at zero."""
    t = np.asarray(fit.objective.term.t, dtype=float)
    return np.maximum(t, float(time_floor(t)))


def common_age(fits: Sequence[Fit]) -> float | None:
    """After a quarter of the time that all data sets cover [s], None where that is none.

    Samples may age: rates of data sets are compared at one age.
    """
    every = [_times(one) for one in fits]
    first, last = max(t[0] for t in every), min(t[-1] for t in every)
    return _age_of_gamma(first, last) if last > first else None


def _age_of_gamma(first: float, last: float) -> float:
    return float(first + _MIDDLE * (last - first))


def derived_values(
    fit: Fit, ages: Sequence[float] | None = None, gamma_age: float | None = None
) -> Derived:
    """Half-decay lags, rates and their averages of the fit of one data set.

    Errors come from the quoted covariance, to first order.

    - `ages`: those at which they are wanted [s]; by default where the maps begin, and after a
        quarter and half of their time.
    - `gamma_age`: that of Γ [s]; by default after a quarter of the time of the maps.

    **Raises:** `ModelError` for ages that are no times from 0 on.
    """
    term = fit.objective.term
    x = np.asarray(fit.values)[fit.index.physical]
    errors = fit.uncertainty.errors()[fit.index.physical]
    lost = ~np.isfinite(errors)
    t = _times(fit)
    middle = _age_of_gamma(t[0], t[-1]) if gamma_age is None else float(gamma_age)
    when = _ages(t, ages)
    # Rates at the age at which Γ is taken stand before those at the ages that are asked for.
    rate_ages = np.append(middle, when)
    geometry, n_angles = jax.device_put(term.geometry), term.geometry.phi.shape[0]
    compiled = _of_parameters.bound(term.parameters, t, geometry)
    lags = _half_decays(partial(compiled, x), t, geometry, when)
    # Where it never falls, any lag will do. All pairs in an array as long as the one above.
    asked = np.where(np.isfinite(lags), lags, 1.0)
    first, last = np.repeat(when, n_angles), asked.ravel()
    own = np.tile(np.arange(n_angles), when.size)

    def numbers(x, first, last):
        room = (0, _LAGS - first.size)
        pairs = np.pad(first, room, "edge"), np.pad(last, room, "edge")
        return jax.tree.map(np.asarray, compiled(x, *pairs))

    def at(x, stretched=1.0):
        """All numbers at parameters x, in one array: levels, rates and averages, in that order."""
        out = []
        for here in (slice(k, k + _LAGS) for k in range(0, first.size, _LAGS)):
            levels = numbers(x, first[here], last[here] * stretched)["levels"]
            out.append(levels[np.arange(own[here].size), own[here]])
        parts = [rate_ages[k : k + _LAGS] for k in range(0, rate_ages.size, _LAGS)]
        found = [numbers(x, one, one) for one in parts]
        rates = [
            one["rates"][name][: part.size]
            for name in found[0]["rates"]
            for one, part in zip(found, parts, strict=True)
        ]
        return np.concatenate([*out, *rates, list(found[0]["means"].values())])

    values = at(x)
    step = np.where(lost, 1e-6 * np.maximum(np.abs(x), 1.0), 1e-3 * errors)
    step = np.where(step > 0, step, 1e-9)
    slopes = (
        np.stack(
            [
                (at(x + h * unit) - at(x - h * unit)) / (2 * h)
                for h, unit in zip(step, np.eye(x.size), strict=True)
            ],
            axis=1,
        )
        if x.size
        else np.zeros((values.size, 0))
    )
    # d lag/dx = −(dS/dx)/(dS/d lag), the implicit function theorem.
    count = first.size
    steepness = (at(x, 1 + 1e-4) - at(x, 1 - 1e-4))[:count] / (2e-4 * last)
    by_lag = (-slopes[:count] / steepness[:, None]).reshape(*lags.shape, x.size)

    def error(slope):
        each = slope.shape[:-1]
        found = fit.uncertainty.errors_of(slope.reshape(int(np.prod(each)), x.size))
        return found.reshape(each)

    # In the order in which JAX hands dictionaries back.
    fields, n = sorted(rates_in(fit.model)), rate_ages.size
    cut = n * len(fields)
    rates, means = np.split(values[count:], [cut])
    by_rate, by_mean = np.split(slopes[count:], [cut])
    gammas, by_gamma = np.full(n, np.nan), np.zeros((n, x.size))
    if type(fit.model) in _GAMMA:
        field, factor, power = _GAMMA[type(fit.model)]
        place = slice(fields.index(field) * n, (fields.index(field) + 1) * n)
        gammas = factor * float(term.geometry.q) ** power * rates[place]
        by_gamma = by_rate[place] / rates[place][:, None]
    of_gamma = error(by_gamma)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where nothing relaxes it takes for ever.
        taus = 1 / gammas[1:]
        tau_errors = np.abs(of_gamma[1:] * taus)
    by_field = rates.reshape(len(fields), n)[:, 1:], error(by_rate).reshape(len(fields), n)[:, 1:]
    return Derived(
        q=float(term.geometry.q),
        ages=when,
        lags=lags,
        lag_errors=np.where(np.isfinite(lags), error(by_lag), np.inf),
        rates=dict(zip(fields, by_field[0], strict=True)),
        rate_errors=dict(zip(fields, by_field[1], strict=True)),
        taus=taus,
        tau_errors=tau_errors,
        means=dict(zip(fields, map(float, means), strict=True)),
        mean_errors=dict(zip(fields, map(float, error(by_mean)), strict=True)),
        gamma=float(gammas[0]),
        gamma_error=float(abs(gammas[0]) * of_gamma[0]),
        gamma_age=middle,
        slopes=by_gamma[0],
    )


class Exponent(NamedTuple):
    """How relaxation depends on q: ln Γ = slope · ln q + constant.

    - `q` [1/Å], `gamma` [1/s], `error` [1/s]: of each data set.
    - `slope`, `slope_error`; `statistic`: squared distance from a straight line, χ² with `degrees`
        degrees of freedom.
    - `expected`: the slope that the model states, None where it states none.
    - `age`: at which Γ is compared [s], where that is known.
    """

    q: Float[np.ndarray, "set"]
    gamma: Float[np.ndarray, "set"]
    error: Float[np.ndarray, "set"]
    slope: float
    slope_error: float
    statistic: float
    degrees: int
    expected: float | None
    age: float | None = None

    @property
    def deviation(self) -> float | None:
        """Slope minus the one that the model states, in errors."""
        return None if self.expected is None else (self.slope - self.expected) / self.slope_error

    @property
    def straight(self) -> bool:
        """Whether the points lie on a line within their errors; else no slope describes them."""
        return chance(self.statistic, self.degrees) > _SCATTER

    @property
    def as_stated(self) -> bool:
        """Whether the slope is within three errors of what the model states, if it states one."""
        return abs(self.deviation or 0.0) <= 3

    def finding(self) -> str:
        """One sentence."""
        text = f"Γ ∝ q^({with_error(self.slope, self.slope_error)})"
        if not self.straight:
            return (
                f"{text} at best: the points lie further from the line than their errors allow, so "
                "that no exponent describes them, and its error does not hold"
            )
        if self.expected is None:
            return f"{text}; 2 is diffusion, 1 ballistic motion"
        if not self.as_stated:
            return (
                f"{text}, where the model has {self.expected:g}, {abs(self.deviation or 0.0):.1f} "
                "errors away: its dependence on q is another one"
            )
        return f"{text}, as the model has it ({self.expected:g})"


def line_of_logarithms(
    q: Float[np.ndarray, "set"],
    gamma: Float[np.ndarray, "set"],
    covariance: Float[np.ndarray, "set set"],
    expected: float | None = None,
    age: float | None = None,
) -> Exponent | None:
    """The straight line through ln Γ against ln q; None for fewer than two q.

    `covariance` is that of ln Γ; `expected` and `age` as of `Exponent`.
    """
    known = (gamma > 0) & np.isfinite(np.diagonal(covariance))
    q, gamma, covariance = q[known], gamma[known], covariance[np.ix_(known, known)]
    error = np.sqrt(np.diagonal(covariance))
    if np.unique(q).size < 2 or not np.all(error > 0):
        return None
    try:
        inverse = np.linalg.inv(covariance)
    except np.linalg.LinAlgError:
        return None
    # About the mean, so that slope and constant hardly know of each other.
    design = np.stack([np.log(q) - np.mean(np.log(q)), np.ones(q.size)], axis=1)
    own = np.linalg.inv(design.T @ inverse @ design)
    found = own @ (design.T @ inverse @ np.log(gamma))
    left = np.log(gamma) - design @ found
    return Exponent(
        q=q,
        gamma=gamma,
        error=gamma * error,
        slope=float(found[0]),
        slope_error=float(np.sqrt(own[0, 0])),
        statistic=float(left @ inverse @ left),
        degrees=q.size - 2,
        expected=expected,
        age=age,
    )


def stated_exponent(model: AbstractCorrelation) -> float | None:
    """The exponent of q in the relaxation rate that a model states."""
    return _GAMMA.get(type(model), ("", 0.0, 0.0))[2] or None


def q_exponent(fit: Fit, derived: Sequence[Derived]) -> Exponent | None:
    """How the relaxation rate of several data sets depends on q.

    `derived` are those of the data sets in their order; what they share makes their rates
    correlated, which counts. None where there are fewer than two q, where all of it is shared,
    so that the model alone decides, or where they are of different ages.
    """
    parts, age = tuple(fit.parts.values()), derived[0].gamma_age
    if len(parts) < 2 or not np.allclose([one.gamma_age for one in derived], age, rtol=1e-6):
        return None
    shared = fit.objective.parameters
    # Behind the scaling coefficients of all data sets.
    free = slice(fit.values.size - shared.whole.n_free, None)
    x = np.asarray(fit.values)[free]
    by_whole = np.asarray(jax.jacfwd(shared.whole.all_values)(jnp.asarray(x)))
    rows = []
    for k, one in enumerate(derived):
        public, names = dict(shared.public[k]), shared.whole.names
        own = by_whole[[names.index(public[n]) for n in shared.maps[k].free_names]]
        rows.append(one.slopes @ own)
    slopes = np.stack(rows)
    if np.linalg.matrix_rank(slopes) < len(rows):
        return None
    stated = {stated_exponent(part.model) for part in parts}
    return line_of_logarithms(
        np.array([one.q for one in derived]),
        np.array([one.gamma for one in derived]),
        fit.uncertainty.carried(slopes).covariance,
        stated.pop() if len(stated) == 1 else None,
        age,
    )
