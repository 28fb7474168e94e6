"""One fit for each angle, and their combination."""

import dataclasses
import time
from concurrent.futures import Executor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...compiling import quick_jit
from ...data import TwoTimeData
from ...errors import FitError, ModelError, XPCSError
from ...inherited import Inherited, received
from ...objective import AbstractLoss, two_time_objective
from ...optimize import Recovery, TrustRegion, iterate_compiled
from ...parameters import ParameterMap, snap
from ...scaling import CONTRAST_BOUNDS, OFFSET_BOUNDS, Individual
from ...uncertainty import optimum, score_covariances
from ..attempts import Ledger
from ..fit import Fit
from ..result import fit_of
from ..solution import Solution
from ..solve import checked_start, require_finite, solution_at, solve
from .combine import (
    AbstractCombination,
    AngleEstimate,
    InverseVariance,
    angle_estimate,
    heterogeneity,
)
from .result import FailedAngle, SequentialFit, sequential_rows

# Entries of all maps up to which the fits of all angles run in step in one compiled loop: beyond,
# waiting for the slowest of them costs more than starting each.
BATCHED_ENTRIES = 2_000_000


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
    - `executor`: any `concurrent.futures.Executor`, one angle a task. Without one, angles of
        small maps are fitted in one batch and those of large maps one after the other.
    - `start`: physical start values; by default those of the parameter map.

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
    found: list[tuple[Fit, AngleEstimate] | str] = []
    tasks: dict[int, Any] = {}
    for a in range(data.n_angles):
        one = _one_angle(data, a)
        unknowns = parameters.n_free + scaling.size
        if one.n_pairs < unknowns:
            found.append(f"{one.n_pairs} pairs count, fewer than {unknowns} parameters")
            continue
        objective = two_time_objective(parameters, one, scaling, loss=loss)
        both = np.concatenate([first, np.asarray(objective.start)[parameters.n_free :]])
        tasks[a] = (objective, checked_start(objective, jnp.asarray(both)))
        found.append("")
    for a, one in zip(tasks, _run(list(tasks.values()), solver, recovery, executor), strict=True):
        found[a] = one
    phi = np.asarray(data.geometry.phi)
    good = {a: one for a, one in enumerate(found) if isinstance(one, tuple)}
    failed = tuple(
        FailedAngle(a, float(phi[a]), one) for a, one in enumerate(found) if isinstance(one, str)
    )
    if len(good) < max(minimum_success_rate * data.n_angles, 1):
        raise FitError(
            f"{len(good)} of {data.n_angles} angles could be fitted by themselves, fewer than the "
            f"share {minimum_success_rate:g} asked for: "
            + "; ".join(f"angle {one.angle} ({one.phi:g} deg): {one.reason}" for one in failed[:5])
        )
    estimates = tuple(estimate for _, estimate in good.values())
    combined = combination(estimates)
    x, covariance = _physical(parameters, combined.value, combined.covariance)
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
        rows=sequential_rows(parameters, x, covariance, fits),
    )


def _run(tasks, solver, recovery, executor) -> list[tuple[Fit, AngleEstimate] | str]:
    if executor is not None:
        futures = [executor.submit(Inherited(_alone, *task, solver, recovery)) for task in tasks]
        return [received(future.result()) for future in futures]
    entries = sum(np.size(objective.term.tiles.c2) for objective, _ in tasks)
    if tasks and entries <= BATCHED_ENTRIES:
        objectives, starts = zip(*tasks, strict=True)
        return _batched(objectives, starts, solver, recovery)
    return [_alone(objective, first, solver, recovery) for objective, first in tasks]


def _one_angle(data: TwoTimeData, a: int) -> TwoTimeData:
    one = slice(a, a + 1)
    return dataclasses.replace(
        data,
        c2=data.c2[one],
        geometry=eqx.tree_at(lambda g: g.phi, data.geometry, data.geometry.phi[one]),
        diagonal=data.diagonal[one],
        root_weights=None if data.root_weights is None else data.root_weights[one],
    )


def _alone(objective, start, solver, recovery, first=None) -> tuple[Fit, AngleEstimate] | str:
    """The fit of an angle with its estimate, or why there is none.

    `first` is the end of the first attempt, where that has been made already.
    """
    try:
        found = solve(objective, start, solver=solver, recovery=recovery, first=first)
        found = require_finite(found)
    except XPCSError as error:
        return str(error)
    return _result(found) if found.status.converged else found.run.message


@quick_jit
def _in_step(solver, objectives, starts):
    return eqx.filter_vmap(iterate_compiled, in_axes=(None, eqx.if_array(0), 0))(
        solver, objectives, starts
    )


def _batched(objectives, starts, solver, recovery) -> list[tuple[Fit, AngleEstimate] | str]:
    """All angles in one compiled loop; those that fail there get another chance by themselves."""
    clock = time.perf_counter()
    arrays, rest = zip(*(eqx.partition(o, eqx.is_array) for o in objectives), strict=True)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *arrays)
    states = _in_step(solver, eqx.combine(stacked, rest[0]), np.stack(starts))
    states = jax.tree.map(np.asarray, states)
    seconds = (time.perf_counter() - clock) / len(objectives)
    out = []
    for a, (objective, start) in enumerate(zip(objectives, starts, strict=True)):
        state = jax.tree.map(lambda leaf, a=a: leaf[a], states)
        ledger = Ledger().finished(state)
        found = solution_at(objective, state, start, ledger, solver, seconds)
        # What its attempt in step with the others took counts, as with any other.
        done = found.status.converged
        out.append(
            _result(found) if done else _alone(objective, start, solver, recovery, first=state)
        )
    return out


def _result(found: Solution) -> tuple[Fit, AngleEstimate]:
    fit = fit_of(found)
    objective, kind = found.objective, fit.uncertainty.chosen
    at = optimum(objective, found.y, found.memo)
    k = at.coefficients.shape[0]
    # From parameters back to coordinates.
    turn = np.eye(fit.index.size)
    turn[k:, k:] = np.linalg.inv(np.asarray(at.columns)[0, :-2, k:])
    if not np.isfinite(fit.uncertainty.residual_variance):
        # Its residuals tell nothing of its errors: it has a value, and no weight in a combination.
        y, free = np.asarray(at.y), at.y.shape[0]
        return fit, AngleEstimate(y, np.zeros((free, free)), np.zeros(free, bool), fit.n_pairs)
    scores = score_covariances(objective, at)
    hessian = scores.hessian
    if kind == "classical":
        noise = float(fit.uncertainty.residual_variance) * hessian
    else:
        noise = getattr(scores, kind)
    coefficients = np.asarray(at.coefficients)
    low, high = (np.asarray(bound) for bound in objective.term.scaling.bounds)
    estimate = angle_estimate(
        np.asarray(at.y),
        turn.T @ np.asarray(at.joint.gradient),
        turn.T @ hessian @ turn,
        turn.T @ noise @ turn,
        (coefficients <= low) | (coefficients >= high),
        np.asarray(objective.term.parameters.coordinate_scale),
        fit.n_pairs,
    )
    return fit, estimate


def _physical(parameters: ParameterMap, y, covariance):
    """Parameters and their covariance from coordinates; infinite stays infinite."""
    x, jacobian = _there(parameters, jnp.asarray(y))
    jacobian = np.asarray(jacobian)
    lost = np.isinf(np.diagonal(covariance))
    known = np.where(lost | lost[:, None], 0.0, covariance)
    out = jacobian @ known @ jacobian.T
    hit = np.any(jacobian[:, lost] != 0, axis=1)
    out[hit, hit] = np.inf
    return np.asarray(x), out


@quick_jit
def _there(parameters, y):
    return snap(parameters, parameters.to_physical(y)), jax.jacfwd(parameters.to_physical)(y)
