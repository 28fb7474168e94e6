"""One data set or several: an objective taken apart into those of data sets, and put together."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..objective import (
    AbstractObjective,
    CombinedObjective,
    Memo,
    check_one_data_set,
)
from ..objective.combined import AnyObjective, parts_of
from ..objective.two_time import JointVariables
from ..parameters.variables import coordinates_of

# (contrast, offset) of the angles of each data set.
Scalings = Sequence[Float[np.ndarray, "angle 2"]]


def check_two_time(objective: AbstractObjective, what: str) -> None:
    """Refuse a curve or anything else that has no contrast and offset; `what` was asked for it.

    **Raises:** `ModelError` saying what to do instead.
    """
    if not isinstance(objective, CombinedObjective):
        check_one_data_set(objective, what)


def is_joint(objective: AnyObjective) -> bool:
    """Whether the scaling coefficients are variables, and not eliminated."""
    return isinstance(objective.variables, JointVariables)


def memos_of(objective: AnyObjective, memo: Any) -> tuple[Memo, ...]:
    """The memo of each data set."""
    return memo if isinstance(objective, CombinedObjective) else (memo,)


def local_coordinates(
    objective: AnyObjective, x: Float[np.ndarray, "free"]
) -> tuple[Float[Array, "local"], ...]:
    """Coordinates of the physical parameters of each data set, at parameters of all of them."""
    y = coordinates_of(objective.physical, jnp.asarray(x))
    if not isinstance(objective, CombinedObjective):
        return (y,)
    return _local(objective.parameters, y)


@quick_jit
def _local(parameters, y):
    return tuple(parameters.local_coordinates(k, y) for k in range(len(parameters.maps)))


@quick_jit
def _per_angle(scalings, coefficients):
    return tuple(one.per_angle(part) for one, part in zip(scalings, coefficients, strict=True))


def split(
    objective: AnyObjective, coefficients: Float[np.ndarray, "coefficient"]
) -> list[Float[np.ndarray, "coefficient"]]:
    """The scaling coefficients of each data set, of those of all in their order."""
    ends = np.cumsum([part.term.scaling.size for part in parts_of(objective)])
    return np.split(np.asarray(coefficients), ends[:-1])


def per_angle_of(
    objective: AnyObjective, coefficients: Float[np.ndarray, "coefficient"]
) -> Scalings:
    """(contrast, offset) by angle of each data set."""
    scalings = tuple(part.term.scaling for part in parts_of(objective))
    found = _per_angle(scalings, tuple(split(objective, coefficients)))
    return [np.asarray(one) for one in found]


@quick_jit
def _closest(scalings, per_angle):
    return tuple(one.from_per_angle(part) for one, part in zip(scalings, per_angle, strict=True))


def coefficients_of(
    objective: AnyObjective, per_angle: Scalings
) -> Float[np.ndarray, "coefficient"]:
    """Scaling coefficients of all data sets, closest to (contrast, offset) of each."""
    scalings = tuple(part.term.scaling for part in parts_of(objective))
    found = _closest(scalings, tuple(jnp.asarray(one) for one in per_angle))
    return np.concatenate([np.asarray(one) for one in found])


def variables_at(
    objective: AnyObjective,
    x: Float[np.ndarray, "free"],
    coefficients: Float[np.ndarray, "coefficient"],
) -> Float[np.ndarray, "variable"]:
    """The physical variables of an objective from both groups."""
    return np.concatenate([x, coefficients]) if is_joint(objective) else np.asarray(x, float)
