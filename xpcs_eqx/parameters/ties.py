"""Ties between parameters."""

from collections.abc import Mapping

import equinox as eqx
from jaxtyping import Array


class Proportional(eqx.Module):
    """A parameter that is `factor` times another: a tie for `parameter_map`."""

    name: str = eqx.field(static=True)
    factor: float = eqx.field(static=True, default=1.0)

    def __call__(self, values: Mapping[str, Array]) -> Array:
        """The value from the values of all parameters by name."""
        return self.factor * values[self.name]
