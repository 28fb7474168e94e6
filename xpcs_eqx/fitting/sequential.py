"""One fit for each angle, and their combination."""

from concurrent.futures import Executor
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..data import TwoTimeData
from ..errors import FitError, ModelError, XPCSError
from ..inherited import Inherited, received
from ..objective import AbstractLoss, two_time_objective
from ..optimize import Recovery, TrustRegion
from ..parameters import ParameterMap
from ..parameters.variables import with_slopes
from ..physics import AbstractCorrelation
from ..scaling import CONTRAST_BOUNDS, OFFSET_BOUNDS, Individual
from ..showing import in_columns, with_error
from ..uncertainty import carried, inverse_of
from .combination import (
    AbstractCombination,
    AngleEstimate,
    Heterogeneity,
    InverseVariance,
    estimated_step,
    heterogeneity,
)
from .fit import Fit
from .joint import Part, whole_at
from .result import fit_of
from .solve import checked_start, require_finite, solve


class FailedAngle(NamedTuple):
    """An angle that was set aside: its number, azimuth [degrees], and why."""

    angle: int
    phi: float
    reason: str


class SequentialRow(NamedTuple):
    """A parameter of the combination; `error` is infinite where nothing determines it.

    `angles`: how many of the angles determine it within its bounds by themselves.
    """

    name: str
    value: float
    error: float
    unit: str
    angles: int


class SequentialFit(eqx.Module):
    """Fits to single angles and what they say together.

    - `model`: at the combined parameters; `values`, `covariance`: of the free ones.
    - `fits`: of the angles that succeeded, whose numbers are in `angles`; `phi`: azimuths of all
        angles [degrees]; `failed`: the others, with reasons.
    - `estimates`: what was combined, in coordinates of `parameters`.
    - `heterogeneity`: whether the angles agree.
    - `combination`: class of the combination; `rows`: its parameters, ready for a table.
    """

    parameters: ParameterMap
    model: AbstractCorrelation
    values: Float[np.ndarray, "free"]
    covariance: Float[np.ndarray, "free free"]
    fits: tuple[Fit, ...]
    estimates: tuple[AngleEstimate, ...]
    phi: Float[np.ndarray, "angle"]
    heterogeneity: Heterogeneity
    angles: tuple[int, ...] = eqx.field(static=True)
    failed: tuple[FailedAngle, ...] = eqx.field(static=True)
    combination: str = eqx.field(static=True)
    rows: tuple[SequentialRow, ...] = eqx.field(static=True)

    @property
    def success_rate(self) -> float:
        """Share of the angles that could be fitted by themselves."""
        return len(self.fits) / len(self.phi)

    @property
    def findings(self) -> tuple[str, ...]:
        """What to know about the combination, in sentences."""
        out = [self.heterogeneity.finding()]
        rows = self.rows
        lone = [row.name for row in rows if row.angles == 0 and np.isfinite(row.error)]
        if lone:
            out.append(
                f"no single angle determines {', '.join(lone)}: only a combination of them is, and "
                "their values follow from how it differs between angles, to first order; fit all "
                "angles together (least_squares)"
            )
        for row in rows:
            if not np.isfinite(row.error):
                out.append(
                    f"{row.name} is not determined by the angles, alone or together: fix it or "
                    "change the model"
                )
        for one in self.failed:
            out.append(f"angle {one.angle} ({one.phi:g} deg) was set aside: {one.reason}")
        return tuple(out)

    def __getitem__(self, name: str) -> SequentialRow:
        """The row of a free parameter.

        **Raises:** `KeyError` listing the names there are.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no parameter {name!r}; there are {', '.join(r.name for r in self.rows)}")

    def cells(self) -> list[list[str]]:
        """A header and a row for each angle; nothing where it leaves a parameter open."""
        names = self.parameters.free_names
        rows = [["phi [deg]", *names]]
        for a, fit in zip(self.angles, self.fits, strict=True):
            pairs = [(fit[n].value, fit[n].error) for n in names]
            alone = [with_error(*pair) if np.isfinite(pair[1]) else "-" for pair in pairs]
            rows.append([f"{self.phi[a]:.4g}", *alone])
        return rows

    def table(self) -> list[str]:
        """Combined parameters, then those of each angle, line by line."""
        combined = [["parameter", "value", "unit", "angles that determine it"]]
        for row in self.rows:
            said = with_error(row.value, row.error)
            combined.append([row.name, said, row.unit, str(row.angles)])
        return [
            f"{len(self.fits)} of {len(self.phi)} angles fitted by themselves, combined by "
            f"{self.combination}",
            *in_columns(combined, names=True).splitlines(),
            *in_columns(self.cells()).splitlines(),
        ]

    def report(self) -> str:
        """The table, and what to know about the combination."""
        return "\n".join([*self.table(), *(f"  {text}" for text in self.findings)])

    def __repr__(self) -> str:
        """The combined parameters."""
        lines = [f"SequentialFit of {len(self.fits)} of {len(self.phi)} angles"]
        lines += [
            f"  {r.name} = {with_error(r.value, r.error)} {r.unit}".rstrip() for r in self.rows
        ]
        return "\n".join(lines)


def sequential_least_squares(
    parameters: ParameterMap,
    data: TwoTimeData,
    *,
    combination: AbstractCombination | None = None,
    minimum_success_rate: float = 0.5,
    loss: AbstractLoss | None = None,
    contrast_bounds: tuple[float, float] = CONTRAST_BOUNDS,
    offset_bounds: tuple[float, float] = OFFSET_BOUNDS,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    executor: Executor | None = None,
    start: Float[Array | np.ndarray, "free"] | None = None,
) -> SequentialFit:
    """Fit each angle by itself, with its own contrast and offset, and combine the parameters.

    A check of a model, more than a way to its parameters: a fit to all angles together uses the
    data better, and parameters that need several angles (flow direction and shear rate of laminar
    flow) are left open by each of them. Such a direction has no information in
    `InverseVariance()`, so that its arbitrary value at an angle does not enter; it becomes
    determined where the angles differ, to first order about the values they ended at.

    The combination is made in the coordinates of the parameter map, in which estimates of
    power laws scatter far more evenly than in the parameters themselves.

    **Arguments:**

    - `parameters`, `data`: as for an objective; all angles share one compilation.
    - `combination`: `InverseVariance()` by default, `Uniform()`, `ByPoints()`.
    - `minimum_success_rate`: share of the angles whose fit must succeed, 0 to 1. The others are
        set aside with the reason.
    - `executor`: any `concurrent.futures.Executor`, one angle a task; without one, they are fitted
        one after the other.
    - `start`: physical start values; by default those of the parameter map.

    Several data sets are looked at one by one: `fit.parts[label].objective.term.parameters` are the
    parameters of each in a joint fit.

    Where every angle leaves the same parameters open, as laminar flow does with a free `phi0`, the
    fits end far apart and the combination is not to be trusted: its `findings` say so. Fix one
    (`fixed=("phi0",)`) or fit all angles together.

    **Raises:** `ModelError` for a rate outside 0 to 1, data that are not maps in memory, or no
    free parameter; `FitError` with the reasons when too few angles succeed.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> truth = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0))
    >>> t, geometry = 0.2 * np.arange(20), xe.Geometry(0.0054, np.array([0.0, 60.0, 120.0]))
    >>> data = xe.simulate(truth, t, geometry, 0.2, noise=0.002, key=jax.random.key(0))
    >>> parameters = xe.parameter_map(truth, data.t, fixed=("D_offset",))
    >>> fit = xe.fitting.sequential_least_squares(parameters, data)
    >>> len(fit.fits), fit.heterogeneity.degrees
    (3, 4)
    >>> abs(fit["alpha"].value + 0.3) < 4 * fit["alpha"].error
    True
    """
    if not 0 <= minimum_success_rate <= 1:
        raise ModelError(f"minimum_success_rate = {minimum_success_rate}; it is a share, 0 to 1")
    if not isinstance(data, TwoTimeData):
        raise ModelError(
            f"fits of single angles take maps in memory (TwoTimeData), not {type(data).__name__}; "
            "read some angles with load"
        )
    if parameters.n_free == 0:
        raise ModelError("no parameter is free, so that there is nothing to combine")
    solver = TrustRegion() if solver is None else solver
    recovery = Recovery() if recovery is None else recovery
    combination = InverseVariance() if combination is None else combination
    scaling = Individual(1, contrast_bounds, offset_bounds)
    first = np.asarray(parameters.start if start is None else start)
    reasons: dict[int, str] = {}
    tasks: dict[int, Any] = {}
    for a in range(data.n_angles):
        one = data.angle(a)
        unknowns = parameters.n_free + scaling.size
        if one.n_pairs < unknowns:
            reasons[a] = f"{one.n_pairs} pairs count, fewer than {unknowns} parameters"
            continue
        objective = two_time_objective(parameters, one, scaling, loss=loss)
        both = np.concatenate([first, np.asarray(objective.start)[parameters.n_free :]])
        begin = checked_start(objective, jnp.asarray(both))
        tasks[a] = (objective, begin, solver, recovery)
    if executor is None:
        results = [_alone(*task) for task in tasks.values()]
    else:
        futures = [executor.submit(Inherited(_alone, *task)) for task in tasks.values()]
        results = [received(future.result()) for future in futures]
    found = dict(zip(tasks, results, strict=True))
    good = {a: one for a, one in found.items() if isinstance(one, tuple)}
    reasons |= {a: one for a, one in found.items() if isinstance(one, str)}
    phi = np.asarray(data.geometry.phi)
    failed = tuple(FailedAngle(a, float(phi[a]), reasons[a]) for a in sorted(reasons))
    if len(good) < max(minimum_success_rate * data.n_angles, 1):
        raise FitError(
            f"{len(good)} of {data.n_angles} angles could be fitted by themselves, fewer than the "
            f"share {minimum_success_rate:g} asked for: "
            + "; ".join(f"angle {one.angle} ({one.phi:g} deg): {one.reason}" for one in failed[:5])
        )
    estimates = tuple(estimate for _, estimate in good.values())
    combined = combination(estimates)
    x, slopes = map(np.asarray, with_slopes(parameters, jnp.asarray(combined.value)))
    covariance = carried(slopes, combined.covariance)
    fits = tuple(fit for fit, _ in good.values())
    return SequentialFit(
        parameters=parameters,
        model=parameters.build(jnp.asarray(x)),
        values=x,
        covariance=covariance,
        fits=fits,
        estimates=estimates,
        angles=tuple(good),
        phi=phi,
        failed=failed,
        heterogeneity=heterogeneity(estimates),
        combination=type(combination).__name__,
        rows=_rows(parameters, x, covariance, fits),
    )


def _rows(parameters, values, covariance, fits) -> tuple[SequentialRow, ...]:
    """The table of the combined parameters."""
    errors = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    units = dict(zip(parameters.names, parameters.units, strict=True))
    rows = []
    for name, value, error in zip(parameters.free_names, values, errors, strict=True):
        own = [fit[name] for fit in fits]
        # Those with an error that is smaller than what the bounds leave.
        angles = sum(bool(one.error < one.upper - one.lower) for one in own)
        rows.append(SequentialRow(name, float(value), float(error), units[name], angles))
    return tuple(rows)


def _alone(objective, start, solver, recovery) -> tuple[Fit, AngleEstimate] | str:
    """The fit of an angle with its estimate, or why there is none."""
    try:
        found = require_finite(solve(objective, start, solver=solver, recovery=recovery))
    except XPCSError as error:
        return str(error)
    if not found.status.converged:
        return found.run.message
    whole = whole_at(found)
    fit = fit_of(found, whole)
    return fit, _estimate(whole.parts[0], fit)


def _estimate(part: Part, fit: Fit) -> AngleEstimate:
    """What an angle says, from its equations by (scaling coefficients, coordinates)."""
    at, scores, kind = part.at, part.scores, fit.uncertainty.chosen
    y, free = np.asarray(at.y), at.y.shape[0]
    variance = float(fit.uncertainty.residual_variance)
    if not np.isfinite(variance):
        # Its residuals tell nothing of its errors: it has a value, and no weight in a combination.
        return AngleEstimate(y, np.zeros((free, free)), np.zeros(free, bool), fit.n_pairs)
    k = at.coefficients.shape[0]
    noise = variance * scores.hessian if kind == "classical" else getattr(scores, kind)
    # From parameters back to coordinates, and contrast and offset eliminated.
    turn = np.eye(fit.index.size)
    turn[k:, k:] = np.linalg.inv(np.asarray(at.columns)[0, :-2, k:])
    hessian = turn.T @ scores.hessian @ turn
    inner, *_ = inverse_of(hessian[:k, :k], at.free[:k])
    back = np.concatenate([-hessian[k:, :k] @ inner, np.eye(free)], axis=1)
    step, information, determined = estimated_step(
        back @ turn.T @ np.asarray(at.joint.gradient),
        back @ hessian @ back.T,
        back @ turn.T @ noise @ turn @ back.T,
        np.asarray(part.objective.term.parameters.coordinate_scale),
    )
    return AngleEstimate(y + step, information, determined, fit.n_pairs)
