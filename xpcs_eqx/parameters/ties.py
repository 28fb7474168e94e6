"""Ties between parameters."""

from collections.abc import Callable, Mapping

import equinox as eqx
from jaxtyping import Array

from ..errors import ModelError

Tie = Callable[[Mapping[str, Array]], Array]


class Proportional(eqx.Module):
    """A parameter that is `factor` times another: a tie for `parameter_map`.

    >>> import xpcs_eqx as xe
    >>> from xpcs_eqx.parameters import Proportional
    >>> model = xe.Static(xe.PowerLawRate(1e4, -0.2, 0.0))
    >>> ties = {"D_offset": Proportional("D0", 0.1)}
    >>> parameters = xe.parameter_map(model, ties=ties, fixed=("alpha",), bounds={"D0": (1, 1e5)})
    >>> parameters.names, parameters.free_names
    (('D0', 'alpha', 'D_offset'), ('D0',))
    >>> round(float(parameters.build(parameters.start).transport.offset), 6)
    1000.0
    """

    name: str = eqx.field(static=True)
    factor: float = eqx.field(static=True, default=1.0)

    def __call__(self, values: Mapping[str, Array]) -> Array:
        """The value from the values of all parameters by name."""
        return self.factor * values[self.name]


def tied(name: str, tie: Tie, values: Mapping[str, Array]) -> Array:
    """The value of the parameter `name` by its tie.

    **Raises:** `ModelError` for a tie that asks for a parameter that is not there.
    """
    try:
        return tie(values)
    except KeyError as error:
        raise ModelError(
            f"the tie of {name} asks for {error}; what it may use is {', '.join(values)}"
        ) from error
