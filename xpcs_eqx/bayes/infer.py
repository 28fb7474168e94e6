"""One run on all data, or shards: by the number of pairs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ..errors import ModelError
from ..fitting import Fit, least_squares
from ..objective import AbstractTiles, CombinedObjective, JointObjective, ProjectedObjective
from ..scaling import AbstractScaling
from .consensus.pairs import pairs_of
from .consensus.run import consensus
from .consensus.settings import Consensus
from .density.likelihood import AbstractNoise, AbstractScalingTreatment
from .density.log_posterior import count_pairs
from .nuts.chains import SamplingProgress
from .nuts.sample import Nuts, sample
from .nuts.starts import AbstractStart
from .posterior import Posterior
from .priors.families import AbstractPrior
from .priors.prior_set import PriorSet, Samplable
from .workers.base import Outcome


def _n_pairs(problem: Samplable | Fit) -> int:
    if isinstance(problem, Fit):
        return problem.n_pairs
    if isinstance(problem, CombinedObjective):
        return sum(map(_n_pairs, problem.parts))
    if not isinstance(problem, ProjectedObjective | JointObjective):
        # `sample` says what is wrong with it.
        return 0
    tiles = problem.term.tiles
    if isinstance(tiles, AbstractTiles):
        return int(count_pairs(tiles))
    # Refuses pieces of which no shards can be made, as `consensus` would.
    return pairs_of(tiles).n_pairs


def infer(
    problem: Samplable | Fit,
    priors: PriorSet | Mapping[str, AbstractPrior] | None = None,
    method: Consensus | None = None,
    *,
    sampler: Nuts | None = None,
    start: AbstractStart | None = None,
    scaling: AbstractScalingTreatment | None = None,
    noise: AbstractNoise | None = None,
    folder: str | None = None,
    key: Key[Array, ""] | int = 0,
    callback: Callable[[SamplingProgress | Outcome], Any] | None = None,
) -> Posterior:
    """Draws from the posterior of an objective, by `sample` or by `consensus`.

    **Arguments:**

    - `problem`, `priors`, `sampler`, `start`, `scaling`, `noise`, `key`: as in `sample`.
    - `method`: above how many pairs shards are sampled, by default 500 000, and how. Several data
        sets are sampled in one run, unless `threshold` is 0.
    - `folder`: finished shards, or pieces of the run, are kept there, and read when the same run is
        made again.
    - `callback`: sees the `SamplingProgress` of one run, or the `Outcome` of each shard.

    **Raises:** what `sample` and `consensus` raise.
    """
    common: dict[str, Any] = {
        "sampler": sampler,
        "start": start,
        "scaling": scaling,
        "noise": noise,
        "folder": folder,
        "key": key,
        "callback": callback,
    }
    method = Consensus() if method is None else method
    several = isinstance(getattr(problem, "objective", problem), CombinedObjective)
    if (several and method.threshold != 0) or not method.in_shards(_n_pairs(problem)):
        return sample(problem, priors, **common)
    return consensus(problem, priors, method, **common)  # pyright: ignore[reportArgumentType]


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
