"""What the outer iterations of a hierarchical fit came to."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int


class OuterHistory(eqx.Module):
    """One row for each outer iteration of alternating physical parameters and scaling.

    - `physical`: physical parameters after the iteration; `scaling`: scaling coefficients.
    - `cost_physical`, `cost_scaling`: the cost after each of the two stages.
    - `change`: largest relative change of a physical parameter.
    - `passes`: evaluations of both stages.
    """

    physical: Float[np.ndarray, "outer free"]
    scaling: Float[np.ndarray, "outer coefficient"]
    cost_physical: Float[np.ndarray, "outer"]
    cost_scaling: Float[np.ndarray, "outer"]
    change: Float[np.ndarray, "outer"]
    passes: Int[np.ndarray, "outer 2"]

    @property
    def size(self) -> int:
        """Number of outer iterations."""
        return self.change.shape[0]

    def report(self) -> str:
        """A table for people."""
        lines = [
            f"{'outer':>5s} {'cost, physics':>16s} {'cost, scaling':>16s} {'change':>9s} passes"
        ]
        for i in range(self.size):
            lines.append(
                f"{i + 1:5d} {self.cost_physical[i]:16.10g} {self.cost_scaling[i]:16.10g} "
                f"{self.change[i]:9.1e} {self.passes[i, 0]} + {self.passes[i, 1]}"
            )
        return "\n".join(lines)
