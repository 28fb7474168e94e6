"""One run on all data, or shards: by the number of pairs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ..errors import ModelError
from ..fitting import Fit, least_squares
from ..objective import AbstractTiles, JointObjective, ProjectedObjective
from ..scaling import AbstractScaling
from .consensus.anchors import AbstractAnchor
from .consensus.combiners import AbstractCombiner
from .consensus.correction import AbstractCorrection
from .consensus.pairs import pairs_of
from .consensus.plan import AbstractPlan, AbstractRoute, AbstractTempering, AutomaticRoute
from .consensus.run import ConsensusPosterior, consensus
from .consensus.shards import AbstractSharding, AbstractShardSize
from .density.likelihood import AbstractNoise, AbstractScalingTreatment
from .density.log_posterior import AnyObjective, count_pairs
from .nuts.chains import Progress
from .nuts.sample import Nuts, sample
from .nuts.starts import AbstractStart
from .posterior import Posterior
from .priors.base import AbstractPrior
from .priors.prior_set import PriorSet
from .workers.base import AbstractWorkers
from .workers.limits import Limits, Outcome


class InShards(eqx.Module):
    """What `consensus` is given beside what it shares with `sample`; None for its defaults."""

    sharding: AbstractSharding | None = None
    size: AbstractShardSize | None = None
    plan: AbstractPlan | None = None
    anchor: AbstractAnchor | None = None
    temper: AbstractTempering | None = None
    combiner: AbstractCombiner | None = None
    correction: AbstractCorrection | None = None
    workers: AbstractWorkers | None = None
    limits: Limits | None = None
    folder: str | None = eqx.field(static=True, default=None)


def _n_pairs(problem: AnyObjective | Fit) -> int:
    if isinstance(problem, Fit):
        return problem.n_pairs
    if not isinstance(problem, ProjectedObjective | JointObjective):
        # `sample` says what is wrong with it.
        return 0
    tiles = problem.term.tiles
    if isinstance(tiles, AbstractTiles):
        return int(count_pairs(tiles))
    # Refuses pieces of which no shards can be made, as `consensus` would.
    return pairs_of(tiles).n_pairs


def infer(
    problem: AnyObjective | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    *,
    route: AbstractRoute | None = None,
    sampler: Nuts | None = None,
    start: AbstractStart | None = None,
    scaling: AbstractScalingTreatment | None = None,
    noise: AbstractNoise | None = None,
    in_shards: InShards | None = None,
    key: Key[Array, ""] | int = 0,
    callback: Callable[[Progress | Outcome], Any] | None = None,
) -> Posterior | ConsensusPosterior:
    """Draws from the posterior of an objective, by `sample` or by `consensus`.

    **Arguments:**

    - `problem`, `priors`, `sampler`, `start`, `scaling`, `noise`, `key`: as in `sample`.
    - `route`: which of the two; `AutomaticRoute()` by default: shards above 500 000 pairs.
    - `in_shards`: what `consensus` takes beside them.
    - `callback`: sees the `Progress` of one run, or the `Outcome` of each shard.

    **Returns:** a `Posterior`, or a `ConsensusPosterior` that holds one.

    **Raises:** what `sample` and `consensus` raise.
    """
    common: dict[str, Any] = {
        "sampler": sampler,
        "start": start,
        "scaling": scaling,
        "noise": noise,
        "key": key,
        "callback": callback,
    }
    route = AutomaticRoute() if route is None else route
    if not route.decide(_n_pairs(problem)).consensus:
        return sample(problem, priors, **common)
    given = InShards() if in_shards is None else in_shards
    own = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    return consensus(problem, priors, **common, **own)


def with_scaling(fit: Fit, scaling: AbstractScaling) -> Fit:
    """The same data fitted again with another scaling, from where the fit ended.

    A posterior of one contrast and offset for all angles begins at
    `with_scaling(fit, Averaged(n_angles))`, one with both held at the fit at
    `with_scaling(fit, Fixed(fit.contrast, fit.offset))`. The start of the objective, on which
    default priors are centred, stays.

    **Raises:** `ModelError` for a fit with a robust loss, and what `least_squares` raises.
    """
    objective = rescaled(fit.objective, scaling)
    return least_squares(objective, jnp.asarray(np.asarray(fit.values)[fit.index.physical]))


def rescaled(objective: Any, scaling: AbstractScaling) -> ProjectedObjective:
    """The objective with another scaling. **Raises:** `ModelError` for one with a robust loss."""
    if not isinstance(objective, ProjectedObjective):
        raise ModelError(
            f"the scaling of a {type(objective).__name__} cannot be replaced; make an objective "
            "with the linear loss and the scaling that is wanted"
        )
    return dataclasses.replace(objective, term=dataclasses.replace(objective.term, scaling=scaling))
