"""The starts of a search: those given, those that fill the box, and which are worth a fit."""

import math
from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ..arguments import Count, Share, check_fields
from ..compiling import quick_jit
from ..errors import ModelError
from ..objective import AbstractObjective
from .population import padded
from .space import NormalisedSpace

# More starts than this for each variable rarely find what fewer have not.
SENSIBLE = 100
# With more than this the evaluations of screening alone, at milliseconds each, take minutes, and
# no number of variables that a correlation model has asks for it.
MOST = 100_000


class AbstractSampler(eqx.Module):
    """Points that fill the unit cube evenly."""

    __check_init__ = check_fields

    @abstractmethod
    def unit(self, n: int, dimension: int, seed: int) -> Float[np.ndarray, "n dimension"]:
        """`n` points in [0, 1)ᵈ; equal for an equal seed."""


class LatinHypercube(AbstractSampler):
    """One point in each of n slices of every axis (McKay, Beckman & Conover 1979), scrambled."""

    def unit(self, n, dimension, seed):
        # Not of `scipy.stats`, which takes half a second to import and gives the same numbers.
        random = np.random.default_rng(seed).spawn(1)[0]
        within = random.uniform(size=(n, dimension))
        slices = np.tile(np.arange(1, n + 1), (dimension, 1))
        for axis in slices:
            random.shuffle(axis)
        return (slices.T - within) / n


class Sobol(AbstractSampler):
    """Sobol' sequence with Owen's scrambling; the first n points of a power of two."""

    def unit(self, n, dimension, seed):
        from scipy.stats import qmc

        sequence = qmc.Sobol(dimension, rng=np.random.default_rng(seed))
        # Drawn by a power of two, without which the sequence has no balance to keep.
        return sequence.random_base2(max(n - 1, 0).bit_length())[:n]


class Halton(AbstractSampler):
    """Halton sequence, scrambled."""

    def unit(self, n, dimension, seed):
        from scipy.stats import qmc

        return qmc.Halton(dimension, rng=np.random.default_rng(seed)).random(n)


def lowest(costs: Float[np.ndarray, "start"], given: int, wanted: int) -> Int[np.ndarray, "kept"]:
    """Numbers of the starts given, then of others from the lowest cost on, `wanted` in all."""
    order = given + np.argsort(costs[given:], kind="stable")
    order = order[np.isfinite(costs[order])]
    return np.concatenate([np.arange(given), order[: max(wanted - given, 0)]]).astype(int)


class Screening(eqx.Module):
    """Which starts are fitted: a fraction `keep` of them by cost, and `least` at least.

    Starts that were given are fitted whatever their cost, and count.

    **Raises:** `ModelError` for a fraction outside 0 … 1 or a number below one.

    >>> from xpcs_eqx.search import Screening
    >>> import numpy as np
    >>> costs = np.array([9.0, 3.0, 5.0, np.inf, 4.0])
    >>> Screening(keep=0.5, least=2).chosen(costs, given=1).tolist()
    [0, 1, 4]
    """

    keep: Share = eqx.field(static=True, default=0.5)
    least: Count = eqx.field(static=True, default=3)

    __check_init__ = check_fields

    def chosen(self, costs: Float[np.ndarray, "start"], given: int) -> Int[np.ndarray, "kept"]:
        """Numbers of the starts to fit: those given, then the others from the lowest cost on."""
        return lowest(costs, given, max(math.ceil(self.keep * costs.size), self.least))


def check_starts(starts: int, refine: int | None) -> None:
    """Refuse numbers of starts and of refined fits that make no sense.

    **Raises:** `ModelError` unless `starts` is 1 … 100 000 and `refine` 1 … `starts`.
    """
    if starts < 1:
        raise ModelError(f"starts = {starts}; give at least 1")
    if starts > MOST:
        raise ModelError(
            f"starts = {starts} is more than {MOST}: more than some {SENSIBLE} for each variable "
            "rarely find what fewer have not"
        )
    if refine is not None and not 1 <= refine <= starts:
        raise ModelError(
            f"refine = {refine} of {starts} starts; give at least 1 and no more than there are"
        )


def remark_on(starts: int, dimension: int) -> str | None:
    """What there is to say about a number of starts that is smaller or larger than sensible."""
    if starts < dimension:
        return (
            f"{starts} starts for {dimension} variables: fewer starts than variables leave most of "
            f"the box unseen; give at least {dimension}"
        )
    if starts <= SENSIBLE * dimension:
        return None
    return (
        f"{starts} starts for {dimension} variables: more than {SENSIBLE * dimension} rarely find "
        "what fewer have not, and each costs an evaluation and perhaps a fit"
    )


class Starts(NamedTuple):
    """Physical starts, those `given` first; `drawn` points were looked at for the others."""

    x: Float[np.ndarray, "start variable"]
    given: int
    drawn: int


@quick_jit
def _coordinates(variables, x):
    return jax.vmap(variables.to_coordinates)(x)


def has_coordinates(
    objective: AbstractObjective, x: Float[np.ndarray, "point variable"]
) -> Bool[np.ndarray, "point"]:
    """Which points a local fit can start from."""
    y = np.asarray(_coordinates(objective.variables, padded(x)))[: len(x)]
    return np.all(np.isfinite(y), axis=1)


def checked_custom(
    objective: AbstractObjective, custom: Float[np.ndarray, "start variable"] | tuple
) -> Float[np.ndarray, "start variable"]:
    """Starts of the user.

    **Raises:** `ModelError` for a wrong shape, values outside the bounds or not finite, and points
    without solver coordinates.
    """
    dimension = len(objective.names)
    try:
        given = np.asarray(custom, dtype=float)
    except ValueError as error:
        raise ModelError(f"custom starts of unequal length: {error}") from error
    given = np.zeros((0, dimension)) if given.size == 0 else np.atleast_2d(given)
    if given.ndim != 2 or given.shape[1] != dimension:
        raise ModelError(
            f"custom starts have shape {np.shape(custom)}; give one row of {dimension} numbers "
            f"each: {', '.join(objective.names)}"
        )
    lower, upper = np.asarray(objective.variables.lower), np.asarray(objective.variables.upper)
    wrong = ~((given >= lower) & (given <= upper))
    if wrong.any():
        row, i = (int(index) for index in np.argwhere(wrong)[0])
        raise ModelError(
            f"custom start {row + 1} has {objective.names[i]} = {given[row, i]:g}, outside its "
            f"bounds [{lower[i]:g}, {upper[i]:g}]"
        )
    without = ~has_coordinates(objective, given)
    if without.any():
        row = int(np.argmax(without))
        values = dict(zip(objective.names, given[row].tolist(), strict=True))
        raise ModelError(
            f"custom start {row + 1}, {values}, has no solver coordinates: a power law with an "
            "offset must be positive inside the time window. Change the start, or build the map "
            "with rates=SignedSlope"
        )
    return given


def starts_of(
    objective: AbstractObjective,
    space: NormalisedSpace,
    starts: int,
    custom: Float[np.ndarray, "start variable"] | tuple,
    sampler: AbstractSampler,
    seed: int,
) -> Starts:
    """The given starts and a sample that fills up to `starts`, of points a fit can start from.

    **Raises:** `ModelError` for custom starts that make no sense, and where hardly any point
    between the bounds can be started from.
    """
    given = checked_custom(objective, custom)
    wanted = max(starts - len(given), 0)
    sample, drawn = np.zeros((0, space.dimension)), 0
    # Whole samples, since a part of one would not fill the cube evenly.
    for factor in (1, 2, 4, 8, 16, 32):
        if len(sample) >= wanted:
            break
        drawn = factor * wanted
        sample = space.from_unit(sampler.unit(drawn, space.dimension, seed))
        sample = sample[has_coordinates(objective, sample)]
    if len(sample) < wanted and len(sample) + len(given) == 0:
        raise ModelError(
            f"of {drawn} points between the bounds none can be started from: at all of them a rate "
            "is negative where its coordinates need it positive. Narrow the bounds of its offset"
        )
    return Starts(np.concatenate([given, sample[:wanted]]), len(given), drawn)
