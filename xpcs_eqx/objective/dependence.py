"""Which outputs of a function depend on which inputs, read off its jaxpr."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal


def dependence(function: Callable[..., list], *args: Any) -> np.ndarray:
    """Boolean table (output, input): False only where an output cannot depend on an input.

    Inner calls are taken as a whole: every output of a call depends on all its inputs.
    """
    closed = jax.make_jaxpr(function)(*args)
    jaxpr = closed.jaxpr
    none = frozenset()
    reached: dict[Any, frozenset[int]] = {v: frozenset({i}) for i, v in enumerate(jaxpr.invars)}

    def inputs_of(variable):
        # Literals are not hashable keys of the table and depend on nothing.
        return none if isinstance(variable, Literal) else reached.get(variable, none)

    for equation in jaxpr.eqns:
        union = none.union(*(inputs_of(v) for v in equation.invars))
        for out in equation.outvars:
            reached[out] = union
    table = np.zeros((len(jaxpr.outvars), len(jaxpr.invars)), dtype=bool)
    for row, out in enumerate(jaxpr.outvars):
        table[row, sorted(inputs_of(out))] = True
    return table
