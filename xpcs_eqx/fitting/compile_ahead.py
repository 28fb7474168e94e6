"""Compiling what a fit needs later while its first evaluation is compiled."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..inherited import Inherited
from ..objective import AbstractObjective, JointObjective, MapTiles, ProjectedObjective
from ..optimize import TrustRegion, lower_iteration
from ..uncertainty import lower_uncertainty


@contextmanager
def compiled_ahead(
    solver: TrustRegion,
    objective: AbstractObjective,
    x: Float[np.ndarray, "variable"],
) -> Iterator[None]:
    """Compile the solver's step and the error bars on a second thread during the `with` block.

    On a first fit compilation takes longer than the arithmetic; with two cores this takes a third
    off it. JAX keeps what is compiled, so nothing is compiled twice and later fits find it ready.
    """
    with ThreadPoolExecutor(1) as pool:
        # For another precision than that of the fit it would be compiled in vain.
        step = Inherited(lower_iteration, solver, objective, jnp.asarray(x))
        futures = [pool.submit(step)]
        maps = isinstance(objective, ProjectedObjective | JointObjective)
        if maps and isinstance(objective.term.tiles, MapTiles):
            futures.append(pool.submit(Inherited(lower_uncertainty, objective)))
        yield
        for future in futures:
            future.result()
