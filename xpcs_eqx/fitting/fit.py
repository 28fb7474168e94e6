"""The result of a fit as a plain value."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..data import map_of
from ..errors import FitError
from ..hybrid import HybridResult
from ..objective import JointObjective, MapTiles, ProjectedObjective, StoredTiles, on_one_device
from ..optimize import History, Status
from ..physics import AbstractCorrelation, correlation_map, time_floor
from ..scaling import IndexMap
from ..uncertainty import Uncertainty
from .attempts import RecoveryAction
from .outer import OuterHistory
from .scaling_check import ScalingCheck


class ParameterRow(NamedTuple):
    """One line of the parameter table; errors are NaN for what was not fitted."""

    name: str
    value: float
    error: float
    error_classical: float
    error_speckle: float
    error_dyadic: float
    unit: str
    lower: float
    upper: float
    start: float
    role: str
    at_bound: bool


class Quality(NamedTuple):
    """`flag` is good, marginal or poor; `findings` say why, in sentences."""

    flag: str
    findings: tuple[str, ...]

    def doubted(self, reasons: tuple[str, ...]) -> "Quality":
        """With further findings, for which a fit is marginal at best; the same without any.

        >>> from xpcs_eqx.fitting import Quality
        >>> Quality("good", ()).doubted(("there is another minimum",)).flag
        'marginal'
        """
        if not reasons:
            return self
        flag = "marginal" if self.flag == "good" else self.flag
        return Quality(flag, (*self.findings, *reasons))


def as_lines(head: str, rows: tuple[ParameterRow, ...]) -> str:
    """A heading with one line for each parameter below it."""
    lines = [
        f"  {row.name} = {row.value:.6g}"
        + (f" ({row.role})" if row.role in ("fixed", "tied") else f" ± {row.error:.2g}")
        + f" {row.unit}".rstrip()
        for row in rows
    ]
    return "\n".join([head, *lines])


class Fit(eqx.Module):
    """Parameters, error bars, and how they were found.

    - `model`: the model at the optimum; `contrast`, `offset`: scaling by angle.
    - `values`: the flat vector, laid out by `index` (scaling coefficients, free parameters).
    - `rows`: every parameter of the model and every scaling coefficient, ready for a table;
        `role` is free, fixed, tied or scaling.
    - `cost`: the minimised cost, penalties and robust loss included; `chi2`: Σ w r², each
        unordered pair once; `n_pairs`, `degrees_of_freedom` belong to it.
    - `reduced_chi2`: chi2 per degree of freedom when sigma is known, else NaN;
        `residual_sd`: standard deviation of the weighted residuals.
    - `joint_hessian`: JᵀWJ of the flat vector, penalties included.
    - `history`: every evaluation, of the hybrid optimiser those of its Gauss–Newton phase.
    - `timings`: seconds by phase.
    - `hybrid`: what the hybrid optimiser tells of its phases and defences, where it made the fit.
    - `outer`: outer iterations of a hierarchical fit.
    - `scaling_check`: whether the angles bear out a scaling that is not one pair for each.
    """

    objective: ProjectedObjective | JointObjective
    model: AbstractCorrelation
    contrast: Float[np.ndarray, "angle"]
    offset: Float[np.ndarray, "angle"]
    values: Float[np.ndarray, "entry"]
    uncertainty: Uncertainty
    cost: Float[Array, ""]
    chi2: Float[np.ndarray, ""]
    history: History
    joint_hessian: Float[np.ndarray, "entry entry"]
    index: IndexMap
    rows: tuple[ParameterRow, ...] = eqx.field(static=True)
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
    hybrid: HybridResult | None = None
    outer: OuterHistory | None = None
    scaling_check: ScalingCheck | None = None

    @property
    def success(self) -> bool:
        """Whether the solver converged."""
        return self.status.converged

    def __repr__(self) -> str:
        """The verdict and one line for each parameter."""
        name = type(self.model).__name__
        head = f"Fit of {name} to {self.n_pairs} pairs: {self.quality.flag}, {self.message}"
        return as_lines(head, self.rows)

    def __getitem__(self, name: str) -> ParameterRow:
        """The table row of a parameter or scaling coefficient.

        **Raises:** `KeyError` listing the names there are.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no parameter {name!r}; there are {', '.join(r.name for r in self.rows)}")

    def surface(self, angle: int | None = None) -> Float[np.ndarray, "*angle frame frame"]:
        """The fitted c2 over all frames and angles, or of one angle, as the solver saw it."""
        term = self.objective.term
        scaling = np.stack([self.contrast, self.offset], axis=1)
        if angle is None:
            return np.array(_surface(self.model, term.t, term.geometry, scaling))
        one = slice(angle, None) if angle == -1 else slice(angle, angle + 1)
        place = eqx.tree_at(lambda g: g.phi, term.geometry, term.geometry.phi[one])
        return np.array(_surface(self.model, term.t, place, scaling[one]))[0]

    def residuals(self, angle: int | None = None) -> Float[np.ndarray, "*angle frame frame"]:
        """c2 minus the fitted surface, NaN on the diagonal and where no pair counts.

        Of all angles, or of one, which is all that data in a file allow.

        **Raises:** `FitError` for pooled points and chunks, which form no maps, and for data in a
        file without an angle.
        """
        tiles = on_one_device(self.objective.term.tiles)
        if isinstance(tiles, StoredTiles):
            if angle is None:
                raise FitError(
                    "the maps stay in their file and are not all formed at once; ask for the "
                    "residuals of one angle after the other: residuals(angle)"
                )
            angle = range(tiles.n_angles)[angle]
            c2, keep = map_of(tiles.source, tiles.rule, angle)
            return np.where(keep, c2 - self.surface(angle), np.nan)
        if not isinstance(tiles, MapTiles):
            raise FitError("pooled points form no maps; compare data and surface point by point")
        which = slice(None) if angle is None else angle
        difference = np.asarray(tiles.c2[which], dtype=float) - self.surface(angle)
        n = difference.shape[-1]
        difference[..., np.arange(n), np.arange(n)] = np.nan
        if tiles.root_weights is not None:
            weights = np.triu(np.asarray(tiles.root_weights[which]), 1)
            difference[weights + np.swapaxes(weights, -1, -2) == 0] = np.nan
        return difference

    def rate(self, field: str) -> tuple[Float[np.ndarray, "frame"], Float[np.ndarray, "frame"]]:
        """A rate (`"transport"`, `"shear"`) at the frame times and its standard error.

        Times below half a frame spacing are taken there. The error comes from the quoted
        covariance of the free parameters.
        """
        x = np.asarray(self.values)[self.index.physical]
        covariance = np.asarray(self.index.physical_block(self.uncertainty.covariance))
        term = self.objective.term
        values, error = _rate_and_error(term.parameters, field, term.t, x, covariance)
        return np.asarray(values), np.asarray(error)


@quick_jit
def _surface(model, t, geometry, scaling):
    correlation = correlation_map(model, t, geometry)
    return scaling[:, 1, None, None] + scaling[:, 0, None, None] * correlation


@quick_jit
def _rate_and_error(parameters, field, t, x, covariance):
    times = jnp.maximum(t, time_floor(t))
    # An infinite variance times a derivative of zero is nothing.
    lost = jnp.isinf(jnp.diagonal(covariance))
    known = jnp.where(lost | lost[:, None], 0.0, covariance)

    def curve(x):
        return getattr(parameters.build(x), field)(times)

    jacobian = jax.jacfwd(curve)(x)
    variance = jnp.einsum("fa,ab,fb->f", jacobian, known, jacobian)
    open_ = jnp.any((jacobian != 0) & lost, axis=1)
    return curve(x), jnp.where(open_, jnp.inf, jnp.sqrt(jnp.maximum(variance, 0.0)))
