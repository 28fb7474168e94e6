"""g2(τ) at chosen ages, cut out of two-time maps, with a stretched exponential: usual practice."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ...arguments import named
from ...data import TwoTimeData, multi_tau
from ...errors import DataError, FitError, ModelError
from ...objective import projected_objective
from ...optimize import TrustRegion
from ...parameters import parameter_map, with_parameters
from ...physics import StretchedExponential
from ...scaling import half_decays
from ..fit import Fit
from ..least_squares import least_squares
from .derived import derived_values

# A window around an age that is given is so long by default, as a part of the time of the maps.
_WIDTH = 0.1
# Pairs below which nothing is fitted to a window.
_FEWEST = 12
# Distances of pairs that are looked at for what scatters together.
_NEIGHBOURS = 12
# Nothing ages within a window: Γ is one number there.
_STEADY = ("ageing", "Gamma_offset")


class AgedG2(NamedTuple):
    """g2(τ) of one angle at one age, and offset + contrast · exp(−2 (τ/τ0)^stretch) fitted to it.

    - `age`, `between`: middle and limits of the ages (t1 + t2)/2 whose pairs are averaged [s].
    - `angle`, `phi`: number of the angle and its azimuth [degrees].
    - `lag` [s], `g2`: means over pairs in steps of lag; `error` of `g2`, which counts that pairs of
        neighbouring frames scatter together; `pairs`: how many there are.
    - `curve`: what was fitted, and `beside`: the fit of the whole maps, averaged over the same
        pairs; the latter is NaN where none was given.
    - `tau`, `stretch`: τ0 [s] and the exponent; `half_decay`: lag at which the fitted curve has
        lost half of its contrast [s]. Each with its error, which counts that lags share frames.
    - `half_decay_beside`: that of `beside` [s], NaN where it does not fall so far in the window.
    - `fit`: the fit behind these numbers, with contrast, offset and a verdict.
    """

    age: float
    between: tuple[float, float]
    angle: int
    phi: float
    lag: Float[np.ndarray, "lag"]
    g2: Float[np.ndarray, "lag"]
    error: Float[np.ndarray, "lag"]
    pairs: Int[np.ndarray, "lag"]
    curve: Float[np.ndarray, "lag"]
    beside: Float[np.ndarray, "lag"]
    tau: float
    tau_error: float
    stretch: float
    stretch_error: float
    half_decay: float
    half_decay_error: float
    half_decay_beside: float
    fit: Fit


def age_windows(
    t: Float[np.ndarray, "frame"], ages: int | Sequence[float], width: float | None = None
) -> list[tuple[float, float]]:
    """Limits [s] of the ages that are averaged.

    - `ages`: number of equal windows over the time `t` [s] of the maps, or the middles of windows
        [s] that are `width` [s] long.

    **Raises:** `ModelError` for ages outside the maps and a width that is none.
    """
    begin, end = float(t[0]), float(t[-1])
    if isinstance(ages, int | np.integer):
        if ages < 1 or width is not None:
            raise ModelError(
                f"ages = {ages}, width = {width}; give a number of windows from 1 without a width, "
                "or a list of ages [s] with one"
            )
        edges = np.linspace(begin, end, ages + 1)
        return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    width = _WIDTH * (end - begin) if width is None else width
    if not (np.isfinite(width) and width > 0):
        raise ModelError(f"width = {width} s; give a length of time above 0")
    chosen = np.asarray(ages, dtype=float).ravel()
    if not chosen.size or not np.all((chosen >= begin) & (chosen <= end)):
        told = ", ".join(f"{one:g}" for one in chosen) or "none"
        raise ModelError(f"ages are {told} s; the maps have ages of {begin:.6g} … {end:.6g} s")
    return [(one - 0.5 * width, one + 0.5 * width) for one in chosen.tolist()]


class _Steps(NamedTuple):
    """Pairs of a window in steps of lag: frames, step and weight of each; how many steps."""

    first: Int[np.ndarray, "pair"]
    second: Int[np.ndarray, "pair"]
    step: Int[np.ndarray, "pair"]
    weight: Float[np.ndarray, "pair"]
    size: int

    @classmethod
    def of(cls, weights: Float[np.ndarray, "frame frame"]) -> "_Steps":
        """Pairs with a weight, in steps of a multi-tau correlator, empty ones left out."""
        first, second = np.nonzero(weights)
        edges = multi_tau(weights.shape[0])
        channel = np.searchsorted(edges, second - first, side="right") - 1
        _, step = np.unique(channel, return_inverse=True)
        return cls(first, second, step, weights[first, second], int(step.max()) + 1)

    def mean(self, values: Float[np.ndarray, "pair"]) -> Float[np.ndarray, "lag"]:
        """Weighted mean of each step."""
        total = np.bincount(self.step, self.weight * values, self.size)
        return total / np.bincount(self.step, self.weight, self.size)

    def error(
        self, left: Float[np.ndarray, "pair"], level: Float[np.ndarray, "frame"]
    ) -> Float[np.ndarray, "lag"]:
        """Standard error of the mean of each step, of what is left of its pairs.

        `level`: |c1|² of frames 0, 1, … apart. Speckle makes Cov[c2(i, j), c2(k, l)] proportional
        to K_ik K_jl + K_il K_jk with K = contrast |c1|² and shot noise on its diagonal: how much of
        it is shot noise, which scatters by itself, is seen in neighbouring pairs.
        """
        n, variance = level.size, float(np.mean(left**2))
        known = np.full((n, n), np.nan)
        known[self.first, self.second] = left
        reach = min(1 + int(np.count_nonzero(level[1:] > 0.5)), n - 1)
        products, expected = [], []
        for apart in np.unique(np.geomspace(1, reach, _NEIGHBOURS).astype(int)).tolist():
            beside = known[:-apart, :-apart] * known[apart:, apart:]
            there = np.isfinite(beside)
            if np.any(there):
                products.append(float(np.mean(beside[there])))
                expected.append(variance * level[apart] ** 2)
        size = float(np.dot(expected, expected))
        share = float(np.dot(products, expected)) / size if size > 0 else 0.0
        near = np.sqrt(np.clip(share, 0.0, 1.0)) * level
        near[0] = 1.0
        return np.sqrt(variance * self._spread(near))

    def _spread(self, near: Float[np.ndarray, "frame"]) -> Float[np.ndarray, "lag"]:
        """Variance of the mean of each step where that of one pair is one.

        `near`: correlation of frames 0, 1, … apart; pairs of a step are taken to be those of its
        lags at neighbouring times.
        """
        lags = self.second - self.first
        out = np.empty(self.size)
        for k in range(self.size):
            mine = lags[self.step == k]
            several = int(mine.max() - mine.min()) + 1
            times, lag = -(-mine.size // several), round(float(np.mean(mine)))
            h = np.arange(1 - times, times)
            total = 0.0
            for apart in range(1 - several, several):
                both = _at(near, h) * _at(near, h + apart)
                both += _at(near, h + lag + apart) * _at(near, h - lag)
                total += (several - abs(apart)) * float(np.sum((times - np.abs(h)) * both))
            out[k] = total / (times * several) ** 2
        return out


def _at(near: Float[np.ndarray, "frame"], apart: Int[np.ndarray, "pair"]) -> np.ndarray:
    """The correlation of frames that are so far apart, none beyond the longest lag."""
    apart = np.abs(apart)
    return np.where(apart < near.size, near[np.minimum(apart, near.size - 1)], 0.0)


def _falls_to_half(lag: np.ndarray, level: np.ndarray) -> float:
    """The lag [s] at which a level that begins at one falls to one half; NaN where it does not."""
    below = np.flatnonzero(level < 0.5)
    if not below.size or below[0] == 0:
        return float("nan")
    k = int(below[0])
    part = (level[k - 1] - 0.5) / (level[k - 1] - level[k])
    return float(lag[k - 1] * (lag[k] / lag[k - 1]) ** part)


def _window_fit(data: TwoTimeData, start: StretchedExponential, solver: TrustRegion | None) -> Fit:
    """One map, of which the pairs of a window count, by a stretched exponential without ageing."""
    values = start.starts(half_decays(data), data.geometry)
    parameters = parameter_map(with_parameters(start, values), data.t, fixed=_STEADY)
    return least_squares(projected_objective(parameters, data), solver=solver)


@named
def g2_at_ages(
    data: TwoTimeData,
    ages: int | Sequence[float] = 4,
    *,
    width: float | None = None,
    angles: Sequence[int] | None = None,
    beside: Fit | None = None,
    solver: TrustRegion | None = None,
) -> tuple[AgedG2, ...]:
    """Cut two-time maps at chosen ages and fit a stretched exponential to each g2(τ).

    This is what is usually done with two-time maps, for comparison with a fit of the whole: pairs
    of an age are averaged in steps of lag, and each angle at each age is fitted by itself as if
    nothing aged meanwhile, with a contrast and an offset of its own. Errors of the parameters are
    those of a fit of the pairs in the window.

    **Arguments:**

    - `data`: maps in memory.
    - `ages`: number of equal windows over the time of the maps, or ages (t1 + t2)/2 [s].
    - `width`: length of the windows around ages that are given [s]; by default a tenth of the time
        of the maps.
    - `angles`: numbers of the angles, from 0; by default all.
    - `beside`: a fit of the same maps by any model, whose mean over the same pairs stands beside.

    **Returns:** one for each age and angle, all angles of the first age first.

    **Raises:** `DataError` for data that are no maps in memory, and windows without pairs;
    `ModelError` for ages, a width or angles that cannot be.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> ageing = xe.Static(xe.PowerLawRate(8e4, -0.6, 0.0))
    >>> t, geometry = 0.1 * np.arange(1, 81), xe.Geometry(0.0054, [0.0])
    >>> maps = xe.simulate(ageing, t, geometry, 0.2, noise=0.004, key=jax.random.key(1))
    >>> early, late = xe.fitting.g2_at_ages(maps, [2.0, 6.0])
    >>> early.half_decay < late.half_decay
    True
    >>> abs(late.stretch - 1) < 4 * late.stretch_error
    True
    """
    if not isinstance(data, TwoTimeData):
        raise DataError(
            f"g2_at_ages takes maps in memory, not {type(data).__name__}; read them with load"
        )
    t = np.asarray(data.t, dtype=float)
    chosen = range(data.n_angles) if angles is None else angles
    if wrong := [one for one in chosen if not 0 <= one < data.n_angles]:
        raise ModelError(f"angles holds {wrong[0]}; there are 0 … {data.n_angles - 1}")
    age = 0.5 * (t[:, None] + t[None, :])
    later = np.triu(np.ones(age.shape, dtype=bool), 1)
    fitted = {} if beside is None else {a: _surface(beside, t.size, a) for a in chosen}
    out = []
    for low, high in age_windows(t, ages, width):
        window = later & (age >= low) & (age <= high)
        out += [_aged(data, a, (low, high), window, fitted.get(a), solver) for a in chosen]
    return tuple(out)


def _surface(fit: Fit, n_frames: int, a: int) -> tuple[np.ndarray, float, float]:
    """The map of one angle by a fit, with its contrast and its offset."""
    if len(fit.objective.term.t) != n_frames:
        raise ModelError(
            f"beside is a fit of {len(fit.objective.term.t)} frames, and the data have {n_frames}; "
            "give a fit of the same maps"
        )
    return np.asarray(fit.surface(a)), float(fit.contrast[a]), float(fit.offset[a])


def _aged(
    data: TwoTimeData,
    a: int,
    between: tuple[float, float],
    window: Bool[np.ndarray, "frame frame"],
    fitted: tuple[np.ndarray, float, float] | None,
    solver: TrustRegion | None,
) -> AgedG2:
    """g2(τ) of an angle from the pairs of a window of ages."""
    t, phi = np.asarray(data.t, dtype=float), float(np.asarray(data.geometry.phi)[a])
    root = np.ones(window.shape) if data.root_weights is None else np.asarray(data.root_weights[a])
    root = np.where(window, root, 0.0)
    where = f"ages of {between[0]:.6g} … {between[1]:.6g} s at φ = {phi:g}°"
    if np.count_nonzero(root) < _FEWEST:
        raise DataError(
            f"{where} have {np.count_nonzero(root)} pairs that count; at least {_FEWEST} are "
            "needed: take wider windows, or ages further from the ends of the maps"
        )
    # Symmetric, as those of maps are.
    weights = (root + root.T)[None].astype(data.c2.dtype)
    one = replace(data.angle(a), root_weights=weights)
    try:
        fit = _window_fit(one, StretchedExponential(), solver)
    except FitError as error:
        raise FitError(f"{where}: {error}") from error
    steps = _Steps.of(root**2)
    apart = t[steps.second] - t[steps.first]
    rate, stretch = fit["Gamma0"], fit["stretch"]
    contrast, offset = float(fit.contrast[0]), float(fit.offset[0])
    fall = np.exp(-2 * (rate.value * apart) ** stretch.value)
    values = np.asarray(one.c2, dtype=float)[0][steps.first, steps.second]
    derived = derived_values(fit)
    half, half_error = float(derived.lags[0, 0]), float(derived.lag_errors[0, 0])
    lag = steps.mean(apart)
    beside, half_beside = np.full(lag.size, np.nan), float("nan")
    if fitted is not None:
        surface, height, bottom = fitted
        beside = steps.mean(surface[steps.first, steps.second])
        half_beside = _falls_to_half(lag, (beside - bottom) / height)
    apart_by_frame = float(np.median(np.diff(t))) * np.arange(t.size)
    level = np.exp(-2 * (rate.value * apart_by_frame) ** stretch.value)
    return AgedG2(
        age=0.5 * (between[0] + between[1]),
        between=between,
        angle=a,
        phi=phi,
        lag=lag,
        g2=steps.mean(values),
        error=steps.error(values - offset - contrast * fall, level),
        pairs=np.bincount(steps.step, minlength=steps.size),
        curve=steps.mean(offset + contrast * fall),
        beside=beside,
        tau=1 / rate.value,
        tau_error=rate.error / rate.value**2,
        stretch=stretch.value,
        stretch_error=stretch.error,
        half_decay=half,
        half_decay_error=half_error,
        half_decay_beside=half_beside,
        fit=fit,
    )
