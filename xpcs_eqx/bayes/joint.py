"""The posterior of several data sets with parameters in common."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ..compiling import quick_jit
from ..errors import ModelError
from ..fitting import Fit, least_squares
from ..objective import CombinedObjective
from .abstract_prior import AbstractPrior
from .diagnostics import Diagnostics, against_fit, diagnose
from .draws import Draws, Progress
from .independence import about_independence
from .joint_density import JointLogPosterior, joint_log_posterior
from .likelihood import AbstractNoise
from .posterior import Posterior, draws_in_lines, posterior_of
from .sample import Nuts, key_of, physical_draws, require_blackjax, run_chains, scaling_draws
from .starts import PRIOR_WIDTH, local_coordinates, recentred


class JointPosterior(eqx.Module):
    """Posterior draws of several data sets with parameters in common.

    - `theta`: draws of all entries (chain, draw, entry), named by `names`: free parameters by
        public name, scaling coefficients as `name[label]`, sigma.
    - `parts`: the same draws as a `Posterior` of each data set by its own names, from which
        predictive surfaces, files and plots come. Its diagnostics are of its own entries.
    - `draws`, `density`, `diagnostics`, `step_size`, `metric`, `notes`, `timings`: as in
        `Posterior`. `labels`: names of the data sets.
    """

    theta: Float[np.ndarray, "chain draw entry"]
    parts: tuple[Posterior, ...]
    draws: Draws
    density: JointLogPosterior
    metric: Float[np.ndarray, "entry entry"]
    step_size: float
    diagnostics: Diagnostics
    labels: tuple[str, ...] = eqx.field(static=True)
    notes: tuple[str, ...] = eqx.field(static=True)
    timings: tuple[tuple[str, float], ...] = eqx.field(static=True)

    def __repr__(self) -> str:
        """Status and findings, one line for each entry, and the notes."""
        head = type(self).__name__
        return draws_in_lines(head, self.names, self.theta, self.diagnostics, self.notes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sampled entries."""
        return self.density.names

    @property
    def status(self) -> str:
        """`converged`, `divergences`, `not_converged` or `contradictory`."""
        return self.diagnostics.status

    def __getitem__(self, name: str) -> Float[np.ndarray, "chain draw"]:
        """Draws of an entry.

        **Raises:** `KeyError` listing the names there are.
        """
        if name not in self.names:
            raise KeyError(f"no parameter {name!r}; there are {', '.join(self.names)}")
        return self.theta[..., self.names.index(name)]


def _information(fit: Fit) -> Float[np.ndarray, "entry entry"]:
    """Inverse of the classical covariance, free parameters first; 0 where the fit knows nothing."""
    count = len(fit.names) - fit.objective.parameters.whole.n_free
    order = np.r_[count : len(fit.names), 0:count]
    covariance = np.asarray(fit.uncertainty.classical)[np.ix_(order, order)]
    variance = np.diagonal(covariance)
    good = np.flatnonzero(np.isfinite(variance) & (variance > 0))
    out = np.zeros_like(covariance)
    sd = np.sqrt(variance[good])
    inner = covariance[np.ix_(good, good)] / np.outer(sd, sd)
    out[np.ix_(good, good)] = np.linalg.pinv(inner, hermitian=True) / np.outer(sd, sd)
    return out


def _begin(density: JointLogPosterior, theta, fit: Fit, chains: int, key):
    """Coordinates about the fit, positions and metric from its covariance."""
    u, jacobian = (np.asarray(a) for a in local_coordinates(density.coordinates, theta))
    known = _information(fit)
    information = np.zeros((u.size, u.size))
    information[: len(known), : len(known)] = known
    if u.size > len(known):  # sigma comes last
        information[-1, -1] = 2 * fit.n_pairs / theta[-1] ** 2
    precision = jacobian.T @ information @ jacobian + np.eye(u.size) / PRIOR_WIDTH**2
    covariance = np.linalg.inv(precision)
    scale = np.sqrt(np.diagonal(covariance))
    metric = covariance / np.outer(scale, scale)
    normal = np.asarray(jax.random.normal(key, (chains, u.size)))
    positions = 1.5 * normal @ np.linalg.cholesky(metric).T
    return recentred(density, u, scale), positions, metric


@quick_jit
def _local_draws(density: JointLogPosterior, theta):
    return jax.vmap(jax.vmap(density.local))(theta)


def joint_sample(
    problem: CombinedObjective | Fit,
    priors: Mapping[str, AbstractPrior] | None = None,
    *,
    sampler: Nuts | None = None,
    noise: AbstractNoise | None = None,
    key: Key[Array, ""] | int = 0,
    callback: Callable[[Progress], Any] | None = None,
) -> JointPosterior:
    """Draws from the posterior of several data sets together, by NUTS.

    Contrast and offset of every data set are sampled; sigma is one factor of all weights. Chains
    begin at the joint fit with its covariance.

    **Arguments:**

    - `problem`: from `two_time_objective`, which is fitted first, or the `Fit` of one.
    - `priors`: by public name (`D0`, `alpha[1]`, `contrast[0][2]`, `sigma`), instead of the
        default ones of the first data set that has the parameter.
    - `sampler`, `noise`, `key`, `callback`: as in `sample`.

    **Raises:** `ModelError` for priors or data that cannot be sampled.
    """
    clock = time.perf_counter()
    require_blackjax()
    sampler = Nuts() if sampler is None else sampler
    key = key_of(key)
    objective = problem.objective if isinstance(problem, Fit) else problem
    if not isinstance(objective, CombinedObjective):
        raise ModelError(
            f"{type(objective).__name__} is no objective of several data sets; use sample()"
        )
    joint_log_posterior(objective, priors, noise=noise)
    fit = problem if isinstance(problem, Fit) else least_squares(objective)
    density, theta = joint_log_posterior(objective, priors, noise=noise, start=fit.values)
    for_start, for_chains, for_scaling = jax.random.split(key, 3)
    density, positions, metric = _begin(density, theta, fit, sampler.chains, for_start)
    prepared = time.perf_counter()
    target = max(sampler.target(part.parameters.model) for part in density.parts)
    step_size = 1.0 / len(theta) ** 0.25
    run = run_chains(density, positions, step_size, metric, target, sampler, for_chains, callback)
    drawn = np.asarray(physical_draws(density, run.draws.position))
    timings = (
        ("preparation", prepared - clock),
        ("warm-up", run.warm_up),
        ("sampling", run.sampling),
    )
    parts = []
    for k, own in enumerate(_local_draws(density, drawn)):
        part = density.parts[k]
        per_angle = scaling_draws(part, own, jax.random.fold_in(for_scaling, k))
        parts.append(
            posterior_of(
                part,
                np.asarray(own),
                np.asarray(per_angle),
                run.draws,
                step_size=run.step_size,
                metric=run.metric,
                fit=fit.data_sets[k],
                max_depth=sampler.max_depth,
                notes=(f"data set {density.labels[k]} of a joint posterior",),
                timings=timings,
            )
        )
    found = diagnose(
        density.names,
        drawn,
        np.asarray(run.draws.divergent),
        np.asarray(run.draws.energy),
        np.asarray(run.draws.depth),
        np.asarray(run.draws.acceptance),
        sampler.max_depth,
    )
    return JointPosterior(
        theta=drawn,
        parts=tuple(parts),
        draws=run.draws,
        density=density,
        metric=np.asarray(run.metric),
        step_size=float(run.step_size),
        diagnostics=against_fit(
            found, drawn, [(row.name, row.value, row.error_classical) for row in fit.rows]
        ),
        labels=density.labels,
        notes=("start and metric from the joint fit", *about_independence(fit)),
        timings=timings,
    )
