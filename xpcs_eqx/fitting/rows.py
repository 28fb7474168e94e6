"""Lines of the parameter table."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ..uncertainty import Uncertainty
from .fit import ParameterRow

_NAN = float("nan")


class Entries(NamedTuple):
    """The fitted entries of a flat vector with all that a table says of them."""

    names: tuple[str, ...]
    values: Float[np.ndarray, "entry"]
    lower: Float[np.ndarray, "entry"]
    upper: Float[np.ndarray, "entry"]
    start: Float[np.ndarray, "entry"]
    bound: Bool[np.ndarray, "entry"]
    uncertainty: Uncertainty

    def row(self, i: int, unit: str, role: str) -> ParameterRow:
        """The line of entry `i`; an entry on its bound has no error."""

        def error(kind: str) -> float:
            return _NAN if self.bound[i] else float(self.uncertainty.errors(kind)[i])

        return ParameterRow(
            name=self.names[i],
            value=float(self.values[i]),
            error=error(self.uncertainty.chosen),
            error_classical=error("classical"),
            error_speckle=error("speckle"),
            error_dyadic=error("dyadic"),
            unit=unit,
            lower=float(self.lower[i]),
            upper=float(self.upper[i]),
            start=float(self.start[i]),
            role=role,
            at_bound=bool(self.bound[i]),
        )


def held_row(name: str, value: float, unit: str, start: float, role: str) -> ParameterRow:
    """The line of a parameter that was not fitted by itself."""
    return ParameterRow(name, value, _NAN, _NAN, _NAN, _NAN, unit, _NAN, _NAN, start, role, False)
