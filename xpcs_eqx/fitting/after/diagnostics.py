"""What the data say about each parameter: sensitivities, gradients, their noise and scales."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ...arguments import checked, quiet_arithmetic
from ...optimize import evaluated
from ...parameters.shared import base_of
from ...parameters.variables import with_slopes
from ...showing import in_columns
from ..fit import Fit, hessian_of_maps

# Beyond this ratio of largest to smallest gradient the variables are badly scaled.
IMBALANCE = 10.0
# Whose column norms are the unit of the recommended scales, as far as they are free.
_UNIT = ("D0", "D_offset", "phi0")
_SAMPLES, _KICK = 5, 1e-6
# Part of its natural step below which a parameter counts as zero.
_ZERO = 1e-3


class Diagnostics(NamedTuple):
    """Diagnostics of the free physical parameters, in the order of `names`.

    - `column_norms`: √Σ w J², in c2 per unit of the parameter.
    - `sensitivities`: share of a column that no other parameter (scaling included) can imitate,
        0 to 1: the square root of one over the variance inflation factor.
    - `gradients`: |∂cost/∂parameter| at the point looked at, times the size of the parameter: its
        value, or its natural step where the value is zero beside that.
    - `imbalance`: largest over smallest of those; above 10 the scales deserve attention.
    - `recommended_scales`: inverse column norms relative to the geometric mean of those of D0,
        D_offset and phi0 (of all where none of them is free), within 1e-8 … 1e2.
    - `condition_number`: of the normal matrix scaled to unit diagonal.
    - `gradient_noise`: standard deviation of the gradient, relative to its scale, under relative
        perturbations of the parameters by 1e-6: what rounding and curvature make of it.
    """

    names: tuple[str, ...]
    column_norms: Float[np.ndarray, "free"]
    sensitivities: Float[np.ndarray, "free"]
    gradients: Float[np.ndarray, "free"]
    imbalance: float
    recommended_scales: Float[np.ndarray, "free"]
    condition_number: float
    gradient_noise: Float[np.ndarray, "free"]

    def cells(self) -> list[list[str]]:
        """A header and a row for each parameter."""
        columns = (self.column_norms, self.sensitivities, self.gradients)
        columns += (self.gradient_noise, self.recommended_scales)
        rows = [["parameter", "column norm", "sensitivity", "gradient", "noise", "scale"]]
        for name, a, b, c, d, e in zip(self.names, *columns, strict=True):
            rows.append([name, f"{a:.4g}", f"{b:.4f}", f"{c:.2e}", f"{d:.1e}", f"{e:.2e}"])
        return rows

    def report(self) -> str:
        """A table for people."""
        verdict = "imbalanced" if self.imbalance > IMBALANCE else "balanced"
        return (
            f"{in_columns(self.cells(), names=True)}\ncondition number "
            f"{self.condition_number:.3g}; gradients {verdict} (ratio {self.imbalance:.3g})"
        )


def _scales(names: tuple[str, ...], columns: np.ndarray) -> np.ndarray:
    inverse = np.where(columns > 0, 1 / np.where(columns > 0, columns, 1.0), np.inf)
    known = np.isfinite(inverse)
    chosen = np.array([base_of(name) in _UNIT for name in names], dtype=bool) & known
    chosen = chosen if chosen.any() else known
    unit = np.exp(np.mean(np.log(inverse[chosen]))) if chosen.any() else 1.0
    return np.clip(inverse / unit, 1e-8, 1e2)


@checked()
@quiet_arithmetic
def diagnose(
    fit: Fit, x: Float[np.ndarray, "variable"] | None = None, *, key: Key[Array, ""] | None = None
) -> Diagnostics:
    """How sensitive a fit is to each parameter, of one data set or of several.

    Gradients are looked at in `x` (physical), by default the start. `key` draws the five
    perturbations for the gradient noise.

    **Raises:** `ModelError` for the fit of a curve.
    """
    objective = fit.objective
    hessian = np.asarray(hessian_of_maps(fit))
    names = objective.physical.free_names
    p = len(names)
    variables, memo = objective.variables, objective.memo
    x = np.asarray(objective.start if x is None else x, dtype=float)
    y = variables.to_coordinates(jnp.asarray(x))
    jacobian = np.asarray(with_slopes(variables, y)[1])

    def gradient_at(y):
        equations, _ = evaluated(objective, y, memo)
        return np.linalg.solve(jacobian.T, np.asarray(equations.gradient))

    # What is zero has a size as well: that of its natural step.
    natural = np.abs(jacobian) @ np.asarray(variables.coordinate_scale)
    scale = np.where(np.abs(x) > _ZERO * natural, np.abs(x), natural)
    gradients = np.abs(gradient_at(y) * scale)[:p]
    diagonal = np.diagonal(hessian)
    norms = np.sqrt(np.maximum(diagonal, 0.0))
    unit = np.where(norms > 0, norms, 1.0)
    inverse = np.linalg.pinv(hessian / np.outer(unit, unit), hermitian=True)
    inflation = np.maximum(np.diagonal(inverse), 1.0)
    # Scaling coefficients come first.
    physical = slice(len(fit.names) - p, None)
    sensitivities = np.where(norms > 0, 1 / np.sqrt(inflation), 0.0)[physical]
    columns = norms[physical]
    key = jax.random.key(0) if key is None else key
    kicks = _KICK * np.asarray(jax.random.normal(key, (_SAMPLES, x.size)))
    kicks = kicks * np.maximum(np.abs(np.asarray(y)), np.asarray(variables.coordinate_scale))
    noisy = np.stack([gradient_at(y + jnp.asarray(kick)) for kick in kicks])
    spread = np.std(noisy, axis=0)[:p]
    size = np.maximum(np.abs(np.mean(noisy, axis=0))[:p], 1e-300)
    smallest = np.min(gradients) if p else 1.0
    return Diagnostics(
        names,
        columns,
        sensitivities,
        gradients,
        float(np.max(gradients) / max(smallest, 1e-300)) if p else 1.0,
        _scales(names, columns),
        float(fit.uncertainty.condition_number),
        spread / size,
    )
