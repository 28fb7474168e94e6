"""What no data of a kind can tell apart, said by the model that has it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ..data import Geometry


class Circumstances(NamedTuple):
    """What a degeneracy may depend on.

    - `t`: frame times [s]; `geometry`: of the data.
    - `bounds`: (lower, upper) of every free parameter by name; fixed and tied ones are not in it.
    """

    t: Float[np.ndarray, "frame"]
    geometry: Geometry
    bounds: Mapping[str, tuple[float, float]]

    def all_free(self, *names: str) -> bool:
        """Whether all of these are free."""
        return all(name in self.bounds for name in names)

    def any_free(self, *names: str) -> bool:
        """Whether one of these is free."""
        return any(name in self.bounds for name in names)


class Degeneracy(NamedTuple):
    """Parameters that leave the correlation exactly as it is when they change together.

    - `name`: the parameters, as a short name: ``"f0 with f2"``.
    - `text`: what is not determined, and what to do.
    - `bites`: whether it is there, from the model at its values and the circumstances.
    - `continuous`: a whole line of solutions, which leaves no error bar; else a mirrored one.
    """

    name: str
    text: str
    bites: Callable[[Any, Circumstances], bool | Array]
    continuous: bool


def degeneracies(
    model: Any,
    t: Float[np.ndarray, "frame"],
    geometry: Geometry,
    bounds: Mapping[str, tuple[float, float]],
) -> tuple[Degeneracy, ...]:
    """The exact degeneracies of a model that bite at its values.

    **Arguments:**

    - `model`: at the values to look at; its class lists what it may have in `degeneracies`.
    - `t`, `geometry`: frame times [s] and geometry of the data.
    - `bounds`: of the free parameters by name.
    """
    here = Circumstances(np.asarray(t, dtype=float), geometry, dict(bounds))
    return tuple(one for one in model.degeneracies if bool(one.bites(model, here)))
