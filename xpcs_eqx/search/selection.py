"""Which method of search suits a problem, as values with reasons."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from ..errors import ModelError
from .space import NormalisedSpace

Method = Literal["cma_es", "multi_start", "local"]
CHAIN: tuple[Method, ...] = get_args(Method)

# Ratio of the widest to the narrowest bounds above which CMA-ES, which learns the scales, is asked
# before multi-start.
SCALE_RATIO = 1000.0
# Relative difference of costs below which two minima are the same.
SAME_COST = 1e-6
# Times the noise variance a start may leave and still need no search.
WARM_FACTOR = 1.1


class Selection(NamedTuple):
    """A method, why, and what to fall back on in this order."""

    method: Method
    reason: str
    chain: tuple[Method, ...]


class Skip(NamedTuple):
    """Whether a search is not needed, and why."""

    skip: bool
    reason: str


def scale_ratio(
    lower: Float[np.ndarray, "variable"], upper: Float[np.ndarray, "variable"]
) -> float:
    """Largest ratio of scales of bounds: between the widths of two, or within one of one sign.

    >>> import numpy as np
    >>> from xpcs_eqx.search import scale_ratio
    >>> scale_ratio(np.array([1.0, -2.0]), np.array([1e6, 2.0]))
    1000000.0
    """
    lower, upper = np.asarray(lower, float), np.asarray(upper, float)
    width = upper - lower
    between = float(np.max(width) / np.min(width))
    positive = lower > 0
    within = float(np.max(upper[positive] / lower[positive], initial=1.0))
    return max(between, within)


def bounds_of(space: NormalisedSpace) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of a space."""
    corners = [np.zeros(space.dimension), np.ones(space.dimension)]
    low, high = (space.from_unit(corner) for corner in corners)
    return low, high


def select_method(space: NormalisedSpace, *, cma_es_available: bool = True) -> Selection:
    """The method for bounds: CMA-ES where their scales are more than 1000 apart, else multi-start.

    What fails falls back along CMA-ES → multi-start → local.

    >>> from xpcs_eqx.search import LinearAxis, LogAxis, NormalisedSpace, select_method
    >>> wide = NormalisedSpace((LogAxis(1.0, 1e6), LinearAxis(-2.0, 2.0)), ("D0", "alpha"))
    >>> select_method(wide).method, select_method(wide, cma_es_available=False).method
    ('cma_es', 'multi_start')
    """
    ratio = scale_ratio(*bounds_of(space))
    text = f"the scales of the bounds are a factor {ratio:.3g} apart"
    if ratio <= SCALE_RATIO:
        chosen: Method = "multi_start"
        reason = f"{text}, not more than {SCALE_RATIO:g}"
    elif cma_es_available:
        chosen, reason = "cma_es", f"{text}, more than {SCALE_RATIO:g}"
    else:
        chosen = "multi_start"
        reason = (
            f"{text}, more than {SCALE_RATIO:g}, which prefers CMA-ES, but its library is not "
            "installed: pip install xpcs_eqx[global]"
        )
    return Selection(chosen, reason, CHAIN[CHAIN.index(chosen) :])


def fall_back(selection: Selection, failed: Method, why: str) -> Selection:
    """The next method of the chain after one that failed.

    **Raises:** `ModelError` when nothing is left.

    >>> from xpcs_eqx.search import Selection, fall_back
    >>> chosen = Selection("cma_es", "", ("cma_es", "multi_start", "local"))
    >>> fall_back(chosen, "cma_es", "no").method
    'multi_start'
    """
    rest = selection.chain[selection.chain.index(failed) + 1 :]
    if not rest:
        raise ModelError(f"{failed} failed ({why}), and there is no method to fall back on")
    return Selection(rest[0], f"{failed} failed: {why}", rest)


def is_lower(cost: float, than: float) -> bool:
    """Whether a cost is that of a lower minimum: by more than tolerance, `SAME_COST`.

    >>> from xpcs_eqx.search.selection import is_lower
    >>> is_lower(0.5, 1.0), is_lower(1.0 - 1e-9, 1.0), is_lower(1.0, float("inf"))
    (True, False, True)
    """
    if not np.isfinite(than):
        return bool(np.isfinite(cost))
    return bool(cost < than - SAME_COST * abs(than))


def skip_search(
    variance: float, noise: float, *, converged: bool, at_bound: bool, factor: float = WARM_FACTOR
) -> Skip:
    """Whether a fit from a warm start makes a search superfluous.

    It does when the fit converged inside the bounds and leaves no more than the noise: a residual
    variance of at most `factor` times that of the data.

    **Arguments:**

    - `variance`: of the residuals, NaN without degrees of freedom; `noise`: of the data, NaN where
      it is not known.

    >>> from xpcs_eqx.search import skip_search
    >>> skip_search(1.02e-4, 1e-4, converged=True, at_bound=False).skip
    True
    >>> skip_search(1.5e-4, 1e-4, converged=True, at_bound=False).reason
    'it leaves 1.5 times the noise variance, above 1.1'
    """
    if not converged:
        return Skip(False, "it did not converge")
    if at_bound:
        return Skip(False, "it ended on a bound")
    if np.isnan(noise):
        return Skip(False, "the noise of the data is not known, so its residuals prove nothing")
    if np.isnan(variance):
        return Skip(False, "it leaves no degree of freedom, so that its residuals prove nothing")
    # Without noise only residuals that vanish are those of the right model.
    ratio = variance / noise if noise > 0 else (np.inf if variance > 0 else 1.0)
    if ratio > factor:
        return Skip(False, f"it leaves {ratio:.3g} times the noise variance, above {factor:g}")
    return Skip(True, f"it converged inside the bounds and leaves {ratio:.3g} times the noise")
