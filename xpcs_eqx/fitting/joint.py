"""Fits of several data sets together."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..objective import CombinedObjective
from ..optimize import History, Status
from ..uncertainty import Uncertainty
from .attempts import RecoveryAction
from .fit import Fit, ParameterRow, Quality, as_lines
from .sharing import Sharing


class JointFit(eqx.Module):
    """Parameters of several data sets fitted together, and how they were found.

    - `fits`: one `Fit` for each data set, with its own names and with the error bars of the joint
        fit: surfaces, residuals, rates and plots come from them.
    - `values`: scaling coefficients of all data sets, then the free physical parameters; `names`
        belong to them, as does `uncertainty`.
    - `rows`: every parameter by public name; `role` is shared, separate, fixed or tied.
    - `sharing`: whether the data sets agree on what they share.
    - `cost`, `chi2`, `status`, …: as in `Fit`.
    """

    objective: CombinedObjective
    fits: tuple[Fit, ...]
    values: Float[np.ndarray, "entry"]
    uncertainty: Uncertainty
    cost: Float[Array, ""]
    chi2: Float[np.ndarray, ""]
    history: History
    names: tuple[str, ...] = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True)
    rows: tuple[ParameterRow, ...] = eqx.field(static=True)
    sharing: Sharing = eqx.field(static=True)
    status: Status = eqx.field(static=True)
    message: str = eqx.field(static=True)
    n_pairs: int = eqx.field(static=True)
    degrees_of_freedom: int = eqx.field(static=True)
    reduced_chi2: float = eqx.field(static=True)
    residual_sd: float = eqx.field(static=True)
    evaluations: int = eqx.field(static=True)
    iterations: int = eqx.field(static=True)
    timings: tuple[tuple[str, float], ...] = eqx.field(static=True)
    recovery: tuple[RecoveryAction, ...] = eqx.field(static=True)
    quality: Quality = eqx.field(static=True)
    solver_name: str = eqx.field(static=True)

    @property
    def success(self) -> bool:
        """Whether the solver converged."""
        return self.status.converged

    def __repr__(self) -> str:
        """The verdict and one line for each parameter."""
        what = f"JointFit of {len(self.labels)} data sets to {self.n_pairs} pairs"
        return as_lines(f"{what}: {self.quality.flag}, {self.message}", self.rows)

    def __getitem__(self, name: str) -> ParameterRow:
        """The table row of a parameter by public name.

        **Raises:** `KeyError` listing the names there are.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no parameter {name!r}; there are {', '.join(r.name for r in self.rows)}")

    def of(self, label: str) -> Fit:
        """The fit of one data set.

        **Raises:** `KeyError` listing the labels there are.
        """
        if label not in self.labels:
            raise KeyError(f"no data set {label!r}; there are {', '.join(self.labels)}")
        return self.fits[self.labels.index(label)]
