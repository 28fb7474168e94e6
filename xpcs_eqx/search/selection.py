"""Which method of search suits a problem, as values with reasons."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from ..errors import how_to_install
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
    """A method, and why; what fails falls back on those behind it in `CHAIN`."""

    method: Method
    reason: str


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


def select_method(space: NormalisedSpace, *, cma_es_available: bool = True) -> Selection:
    """The method for bounds: CMA-ES where their scales are more than 1000 apart, else multi-start.

    What fails falls back along CMA-ES → multi-start → local.

    >>> from xpcs_eqx.search import Axis, NormalisedSpace, select_method
    >>> wide = NormalisedSpace((Axis(1.0, 1e6, scale=0), Axis(-2.0, 2.0)), ("D0", "alpha"))
    >>> select_method(wide).method, select_method(wide, cma_es_available=False).method
    ('cma_es', 'multi_start')
    """
    ratio = scale_ratio(*(space.from_unit(np.full(space.dimension, end)) for end in (0.0, 1.0)))
    text = f"the scales of the bounds are a factor {ratio:.3g} apart"
    if ratio <= SCALE_RATIO:
        return Selection("multi_start", f"{text}, not more than {SCALE_RATIO:g}")
    if cma_es_available:
        return Selection("cma_es", f"{text}, more than {SCALE_RATIO:g}")
    return Selection(
        "multi_start",
        f"{text}, more than {SCALE_RATIO:g}, which prefers CMA-ES, but its library is not "
        f"installed: {how_to_install('global')}",
    )


def is_lower(cost: float, than: float) -> bool:
    """Whether a cost is that of a lower minimum: by more than tolerance, `SAME_COST`.

    >>> from xpcs_eqx.search.selection import is_lower
    >>> is_lower(0.5, 1.0), is_lower(1.0 - 1e-9, 1.0), is_lower(1.0, float("inf"))
    (True, False, True)
    """
    if not np.isfinite(than):
        return bool(np.isfinite(cost))
    return bool(cost < than - SAME_COST * abs(than))


def skip_search(variance: float, noise: float, *, converged: bool, at_bound: bool) -> Skip:
    """Whether a fit from a warm start makes a search superfluous.

    It does when the fit converged inside the bounds and leaves no more than the noise: a residual
    variance of at most 1.1 times that of the data.

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
    if ratio > WARM_FACTOR:
        return Skip(False, f"it leaves {ratio:.3g} times the noise variance, above {WARM_FACTOR:g}")
    return Skip(True, f"it converged inside the bounds and leaves {ratio:.3g} times the noise")
