"""A curve over points that need not be in memory together."""

import dataclasses
import itertools
import logging
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..checkpoint import identity
from ..compiling import quick_jit
from ..errors import DataError, ModelError
from ..files import Retry
from ..objective import (
    AbstractLoss,
    AbstractPenalty,
    AbstractPoints,
    CurveModel,
    CurveObjective,
    Linear,
    Survey,
    objective_of_points,
)
from ..objective.curve import check_enough
from ..objective.points import check_groups, survey_of
from .sources import AbstractSource, as_source, source_fingerprint

log = logging.getLogger(__name__)


@quick_jit
def _add(function, model, parameters, chunk, total, *rest):
    found = function(model, parameters, chunk, *rest)
    return jax.tree.map(jnp.add, total, found)


class StreamedPoints(AbstractPoints):
    """Points of a source, chunk after chunk from Python; one chunk is in memory at a time.

    A chunk that cannot be read is read again, without those before it being summed twice.

    - `known`: count and spread, by an earlier pass; every pass must give as many points.
    - `retry`: how often a read that failed is tried again; `report`: hears of each failure.

    **Raises:** `DataError` for data that cannot be read, and for a pass over another number of
    points: sums of different data do not belong to one fit.
    """

    source: AbstractSource
    known: Survey | None = eqx.field(static=True, default=None)
    retry: Retry = Retry()
    report: Callable[[Exception], None] | None = eqx.field(static=True, default=None)

    @property
    def traceable(self):
        return False

    def chunks(self):
        given, reading = 0, None

        def following():
            nonlocal reading
            if reading is None:
                reading = itertools.islice(self.source.chunks(), given, None)
            return next(reading, None)

        def failed(error):
            nonlocal reading
            reading = None
            log.warning("chunk %d could not be read: %s", given, error)
            if self.report is not None:
                self.report(error)

        try:
            while (chunk := self.retry.run(following, failed)) is not None:
                given += 1
                yield chunk
        except OSError as error:
            raise DataError(
                f"the source could not be read in {self.retry.attempts + 1} attempts ({error}). "
                "Restore it and start again, from the last checkpoint if there is one."
            ) from error

    def total(self, function, model, parameters, zero, *rest):
        total, count = jax.tree.map(jnp.asarray, zero), 0
        for chunk in self.chunks():
            used = model.root_weights(chunk) > 0
            count += int(used.sum())
            if used.any():
                total = _add(function, model, parameters, chunk, total, *rest)
        if self.known is not None and count != self.known.count:
            raise DataError(
                f"the source gave {count} points with a weight in this pass over the data and "
                f"{self.known.count} in the first one; it must give the same points every time. "
                "Fit data that are still being written when they are complete, or a copy of them"
            )
        return total

    def survey(self, model):
        return survey_of(self.chunks(), model) if self.known is None else self.known


@identity.register
def _(points: StreamedPoints) -> str:
    # The points alone, however they are read.
    return source_fingerprint(points.source)


def streamed_objective(
    source: Any,
    model: Callable[..., Array],
    start: Float[np.ndarray, "parameter"],
    *,
    bounds: Any = None,
    loss: AbstractLoss | None = None,
    group_weights: Float[np.ndarray, "group"] | None = None,
    names: tuple[str, ...] | None = None,
    absolute_sigma: bool = False,
    penalties: tuple[AbstractPenalty, ...] = (),
    noise: float | None = None,
) -> CurveObjective:
    """Objective of a curve over the points of a source; one pass counts them.

    **Arguments:**

    - `source`: an `AbstractSource` or what `as_source` makes one of; or `StreamedPoints`, which
        say how a read that failed is tried again.
    - `model`: the `function` of a `curve_objective`; `start`, `bounds`, `loss`, `names` and
        `absolute_sigma` as there.
    - `group_weights`: weight of the squared residuals of each group.
    - `penalties`: terms beside the data, as functions of the parameters by name; `noise`:
        standard deviation of the weighted residuals, by which they are weighed, one by default.

    **Raises:** `DataError` for data that cannot be used; `PrecisionError` in single precision;
    `ModelError` for a start that is not finite or lies outside its bounds, for weights of groups
    below zero and for fewer points than parameters.
    """
    points = source if isinstance(source, StreamedPoints) else StreamedPoints(as_source(source))
    weights = None if group_weights is None else checked_group_weights(group_weights)
    objective = objective_of_points(
        points,
        CurveModel(model, Linear() if loss is None else loss, weights),
        start,
        bounds=bounds,
        names=names,
        absolute_sigma=absolute_sigma,
        penalties=penalties,
        noise=noise,
    )
    return surveyed(objective)


def surveyed(objective: CurveObjective) -> CurveObjective:
    """The objective of a source with the count that every further pass must find.

    **Raises:** `DataError` as `survey_of`; `ModelError` for fewer points than parameters.
    """
    points = objective.points
    assert isinstance(points, StreamedPoints)
    known = dataclasses.replace(points, known=None).survey(objective.model)
    check_enough(len(objective.names), known.count)
    return dataclasses.replace(objective, points=dataclasses.replace(points, known=known))


def checked_group_weights(weights: Any) -> Float[np.ndarray, "group"]:
    """Weights of groups as an array.

    **Raises:** `ModelError` for weights that are not finite or below zero.
    """
    found = np.asarray(weights, dtype=float)
    if found.ndim != 1 or not np.all(np.isfinite(found) & (found >= 0)):
        raise ModelError(f"weights of groups must be finite and not below 0: {weights}")
    return found


def with_group_weights(
    objective: CurveObjective, weights: Float[Array | np.ndarray, "group"] | None
) -> CurveObjective:
    """The objective of a source with Σ_g w[g] Σ ρ instead, for the next outer iteration.

    Weights are data: as long as their number stays, nothing is compiled again.

    **Raises:** `ModelError` for weights that are not finite or below zero; `DataError` for a group
    without one.
    """
    checked = None if weights is None else checked_group_weights(weights)
    model = dataclasses.replace(objective.model, group_weights=checked)
    return surveyed(dataclasses.replace(objective, model=model))


def _squares(model, parameters, chunk, numbers):
    _, _, root = model.points(chunk, parameters.dtype)
    r = model.residuals(chunk, parameters)(parameters)
    one = jnp.stack([r**2, (root > 0).astype(r.dtype)], axis=1)
    return jax.ops.segment_sum(one, chunk.group, numbers.shape[0])


def group_variances(
    objective: CurveObjective, x: Float[np.ndarray, "variable"], n_groups: int
) -> Float[np.ndarray, "group"]:
    """Mean square of the residuals of each group [σ²], by one pass; group weights are left out.

    Where σ is right it is one for each group; its inverse, as the weight of the group, makes it so.
    NaN for a group without points.

    **Raises:** `DataError` for a group of the source that is not below `n_groups`.
    """
    model = dataclasses.replace(objective.model, group_weights=None)
    parameters, numbers = jnp.asarray(x, dtype=float), np.arange(n_groups)
    total = jnp.asarray(np.zeros((n_groups, 2)))
    for chunk in objective.points.chunks():
        check_groups(chunk, n_groups)
        if np.any(np.asarray(chunk.root_weights) > 0):
            total = _add(_squares, model, parameters, chunk, total, numbers)
    squares, counts = np.asarray(total).T
    return np.divide(squares, counts, out=np.full(n_groups, np.nan), where=counts > 0)
