"""Posterior draws with names and diagnostics, and what they say: precision, and surfaces."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..errors import ModelError
from ..fitting import Fit
from ..fitting.fit import Parts
from ..objective import ProjectedObjective, ShotScaling
from ..optimize import evaluated
from ..parameters.variables import coordinates_of
from ..physics import correlation_map
from ..showing import Table, as_block, figures_of, with_error
from ..uncertainty import Misfit, inverse_of, misfit_of, optimum, score_covariances
from .arviz_io import datatree, unique_labels
from .density.log_posterior import LogPosterior, local_draws, physical_draws
from .diagnostics import (
    Diagnostics,
    about_independence,
    against_fit,
    contradicted,
    diagnose_chains,
)
from .nuts.chains import Draws
from .shards.combiners import ShardDraws
from .shards.compare import ShardResults


class Posterior(eqx.Module):
    """How probable values of the parameters are, given the data: draws of them, and diagnostics.

    - `theta`: draws of the sampled entries (chain, draw, entry), named by `names`; draws that were
        combined from those of shards are one chain.
    - `per_angle`: contrast and offset of each draw (chain, draw, angle, 2), of several data sets
        with the angles of one after those of the other; those of marginalised scaling are drawn
        from their conditional distribution.
    - `draws`: unconstrained positions and statistics of each transition; of shards those of all
        their chains, shard after shard, never of combined draws. So are the `diagnostics`.
    - `density`: the log density that was sampled, with its priors, data and coordinates.
    - `step_size`, `metric`: after warm-up.
    - `fitted`: (name, value, classical error) of the fit, empty without one; `quoted`: (name,
        quoted error), larger where pairs are not independent.
    - `notes`: how it began, and what has to be known of its priors and of its likelihood.
        `timings`: seconds by phase.
    - `parts`: each data set as a `Posterior` of its own with its own names, from which surfaces and
        plots come; one data set is its only part. `label`: its name.
    - `shards`: what became of the shards, where the data were sampled in shards.
    """

    theta: Float[np.ndarray, "chain draw entry"]
    per_angle: Float[np.ndarray, "chain draw angle 2"]
    draws: Draws
    density: LogPosterior
    metric: Float[np.ndarray, "entry entry"]
    step_size: float
    diagnostics: Diagnostics
    fitted: tuple[tuple[str, float, float], ...] = eqx.field(static=True)
    notes: tuple[str, ...] = eqx.field(static=True)
    timings: tuple[tuple[str, float], ...] = eqx.field(static=True)
    quoted: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())
    data_sets: tuple["Posterior", ...] = ()
    label: str = eqx.field(static=True, default="1")
    shards: ShardResults | None = None

    def __repr__(self) -> str:
        """Status and findings, one line for each entry, and the notes."""
        chains, draws = self.theta.shape[-3:-1]
        what = [f"{chains} × {draws} draws"]
        if self.data_sets:
            what.insert(0, f"{len(self.data_sets)} data sets")
        if self.shards is not None:
            what.insert(0, f"{self.shards.division.n_shards} shards")
        rows: Any = ()
        # Inside a compiled function they have no numbers.
        if not isinstance(self.theta, jax.core.Tracer):
            flat = np.reshape(self.theta, (-1, len(self.names)))
            numbers = zip(flat.mean(axis=0), flat.std(axis=0), strict=True)
            said = (with_error(mean, sd) for mean, sd in numbers)
            rows = zip(self.names, said, self.units.values(), strict=True)
        return "\n".join(
            [
                f"Posterior of {', '.join(what)}: {self.status}",
                *(f"  {name} = {text} {unit}".rstrip() for name, text, unit in rows),
                *(f"  finding: {text}" for text in self.diagnostics.findings),
                *(f"  note: {text}" for text in self.notes),
            ]
        )

    def _repr_html_(self) -> str:
        """Status, findings and the table of parameters, as notebooks show it."""
        chains, draws = self.theta.shape[-3:-1]
        title = f"Posterior of {chains} × {draws} draws: {self.status.replace('_', ' ')}"
        good = self.status == "converged"
        return as_block(title, self.diagnostics.findings, self.summary(), good)

    @property
    def covariance(self) -> Float[np.ndarray, "entry entry"]:
        """Covariance of the draws, in the order of `names`."""
        flat = np.reshape(self.theta, (-1, len(self.names)))
        return np.atleast_2d(np.cov(flat, rowvar=False))

    @property
    def correlation(self) -> Float[np.ndarray, "entry entry"]:
        """Correlations of the draws, in the order of `names`."""
        sd = np.sqrt(np.diagonal(self.covariance))
        return self.covariance / np.outer(sd, sd)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sampled entries."""
        return self.density.names

    @property
    def units(self) -> dict[str, str]:
        """The unit of each sampled entry by name, empty where it has none."""
        parameters = self.density.parameters
        known = dict(zip(parameters.names, parameters.units, strict=True))
        return {name: known.get(name, "") for name in self.names}

    @property
    def status(self) -> str:
        """`converged`, `divergences`, `not_converged` or `contradictory`."""
        return self.diagnostics.status

    @property
    def parts(self) -> "Parts[Posterior]":
        """The data sets by label, in their order."""
        return Parts({one.label: one for one in self.data_sets or (self,)})

    def __getitem__(self, name: str) -> Float[np.ndarray, "chain draw ..."]:
        """Draws of a parameter, or of `contrast` or `offset` of all angles of a data set.

        **Raises:** `KeyError` listing the names there are.
        """
        found = self.variables()
        if name in found:
            return found[name]
        if name in self.names:
            return self.theta[..., self.names.index(name)]
        raise KeyError(f"no parameter {name!r}; there are {', '.join((*found, *self.names))}")

    def variables(self) -> dict[str, Float[np.ndarray, "chain draw ..."]]:
        """Draws by name: physical parameters, contrast and offset by angle, sigma.

        Coefficients of a Fourier scaling are there as well. What each of several data sets has for
        itself is called `contrast[label]` and so on.
        """
        p = self.density.parameters.n_free
        out = {name: self.theta[..., i] for i, name in enumerate(self.names[:p])}
        if self.data_sets:
            for part in self.data_sets:
                physical = part.names[: part.density.parameters.n_free]
                for name, draws in part.variables().items():
                    if name not in physical and name != "sigma":
                        out[f"{name}[{part.label}]"] = draws
        else:
            out["contrast"], out["offset"] = self.per_angle[..., 0], self.per_angle[..., 1]
        for i, name in enumerate(self.names[p:], start=p):
            # Those of single angles are in `contrast` and `offset`.
            if name not in out and ("[" not in name or name.startswith("shot[")):
                out[name] = self.theta[..., i]
        return out

    def summary(self) -> Table:
        """Mean, standard deviation, unit, central 94 %, R-hat and effective draws by parameter.

        It prints as a table.
        """
        found = self.diagnostics
        columns = zip(found.rhat, found.ess_bulk, found.ess_tail, self.units.values(), strict=True)
        rows = enumerate(zip(self.names, columns, strict=True))
        return Table({name: summary_of(self.theta[..., i], *row) for i, (name, row) in rows})

    def to_dataframe(self) -> Any:
        """`summary` as a pandas DataFrame; the draws are `to_xarray().to_dataframe()`.

        **Raises:** `ModelError` with what to install when pandas is missing.
        """
        return self.summary().to_dataframe()

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `summary` as CSV, a line for each parameter.

        **Raises:** `DataError` when the folder does not exist.
        """
        self.summary().to_csv(path)

    def to_xarray(self) -> Any:
        """The draws as an xarray Dataset with the dimensions chain and draw, named as `variables`.

        `to_datatree` has the statistics of the sampler beside them.

        **Raises:** `ModelError` with what to install when ArviZ is missing.
        """
        return self.to_datatree()["posterior"].to_dataset()

    def plot(self, *names: str) -> Any:
        """The figures of the posterior, as `Fit.plot`: densities of all pairs of parameters.

        **Raises:** `ModelError` for a name that is none, and with what to install when matplotlib
        is missing.
        """
        return figures_of(self, names)

    def to_datatree(self) -> Any:
        """An ArviZ DataTree; `contrast` and `offset` have the dimension `angle` [degrees].

        Where two angles are equal, they are labelled by their numbers 0, 1, …. Of several data sets
        names and dimensions are `contrast[label]` and `angle[label]`.

        Of shards the group `posterior` has the combined draws as one chain, without `sample_stats`,
        which they have none of. Under `shards` there are `posterior` and `sample_stats` of the
        shards in the result, with dimensions (shard, chain, draw): `tree["shards"].sel(shard=0)` is
        what ArviZ takes for one run.

        **Raises:** `ModelError` with what to install when ArviZ is missing.
        """
        statistics = {}
        # Combined draws have none: those of `draws` are of the chains of shards.
        if np.shape(self.draws.energy) == np.shape(self.theta)[:-1]:
            step_size = np.full(np.shape(self.draws.energy), self.step_size)
            statistics = {**_transition_stats(self.draws), "step_size": step_size}
        attributes = {"status": self.status, "notes": "; ".join(self.notes)}
        tree = datatree(self.variables(), statistics, *self._angles(), attributes)
        if self.shards is not None:
            coordinates, dims = self._angles()
            coordinates = {**coordinates, "shard": np.asarray(self.shards.draws.numbers)}
            theta = self.shard_draws()
            rows, n_draws = np.shape(self.draws.energy)
            each = _in_chains(self, theta, (len(theta), rows // len(theta), n_draws))
            stats = _transition_stats(each.draws)
            leading = ("shard", "chain", "draw")
            tree.attrs["about"] = _ABOUT
            tree["shards"] = datatree(each.variables(), stats, coordinates, dims, {}, leading)
        return tree

    def _angles(self) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        """The coordinates `angle` of labelled draws, and what has them as a dimension."""
        coordinates, dims = {}, {}
        for part in self.data_sets or (self,):
            after = f"[{part.label}]" if self.data_sets else ""
            angle = f"angle{after}"
            coordinates[angle] = unique_labels(np.asarray(part.density.term.geometry.phi))
            dims |= {f"contrast{after}": [angle], f"offset{after}": [angle]}
        return coordinates, dims

    def shard_draws(self) -> Float[np.ndarray, "shard draw entry"]:
        """Physical draws of the shards in the result, chains one after the other.

        **Raises:** `ModelError` for a posterior that was not sampled in shards.
        """
        if self.shards is None:
            raise ModelError("this posterior was sampled in one run, which has no shards")
        return draws_of_shards(self.density, self.shards.draws)


def _in_chains(posterior: Posterior, theta: np.ndarray, shape: tuple[int, ...]) -> Posterior:
    """The chains of shards (shard, draw, entry) in place of combined draws, of its parts too."""
    density, per_angle = posterior.density, []
    each = [np.asarray(own) for own in local_draws(density, theta)]
    for part, own in zip(density.parts, each, strict=True):
        p, scaling = part.parameters.n_free, part.term.scaling
        # In shards contrast and offset are never marginalised.
        coefficients = own[..., p : p + scaling.size]
        found = np.einsum("ask,...k->...as", np.asarray(scaling.basis), coefficients)
        per_angle.append(found + np.asarray(scaling.constant))
    own = zip(posterior.data_sets, each, strict=False)
    return dataclasses.replace(
        posterior,
        theta=theta.reshape(*shape, -1),
        per_angle=np.concatenate(per_angle, axis=-2).reshape(*shape, -1, 2),
        draws=Draws(*(np.reshape(v, (*shape, *np.shape(v)[2:])) for v in posterior.draws)),
        data_sets=tuple(_in_chains(part, mine, shape) for part, mine in own),
    )


def draws_of_shards(
    density: LogPosterior, shards: ShardDraws
) -> Float[np.ndarray, "shard draw entry"]:
    """Draws of shards as physical parameters."""
    z = density.coordinates.from_unconstrained(shards.draws)
    return np.asarray(physical_draws(density, z))


_ABOUT = (
    "posterior: combined draws, which are no chains; shards: posterior and sample_stats of the "
    "chains of every shard. What needs chains takes a shard: tree['shards'].sel(shard=0)"
)


_SHARDS_DIFFER = (
    "the shards contradict each other, and the result describes none of them: fit parts of the "
    "data by themselves (frames, angles), or a model that changes where they do",
)


def summary_of(
    draws: Float[np.ndarray, "chain draw"],
    rhat: float,
    ess_bulk: float,
    ess_tail: float,
    unit: str = "",
) -> dict[str, float | str]:
    """What `Posterior.summary` says of one entry."""
    low, high = np.quantile(draws, [0.03, 0.97])
    return {
        "mean": float(draws.mean()),
        "sd": float(draws.std()),
        "unit": unit,
        "low": float(low),
        "high": float(high),
        "rhat": float(rhat),
        "ess_bulk": float(ess_bulk),
        "ess_tail": float(ess_tail),
    }


def _transition_stats(draws: Draws) -> dict[str, np.ndarray]:
    """Statistics of transitions by the names that ArviZ knows."""
    return {
        "lp": draws.log_density,
        "diverging": draws.divergent,
        "energy": draws.energy,
        "tree_depth": draws.depth,
        "n_steps": draws.steps,
        "acceptance_rate": draws.acceptance,
    }


class Precision(NamedTuple):
    """One parameter of a posterior.

    - `contraction`: 1 − sd/sd of the prior; near 1 where data decide, near 0 where the prior does.
    - `z`: (posterior mean − fit)/posterior sd; `ratio`: posterior sd over the classical error of
        the fit, which takes pairs as independent as the likelihood does.
    - `covered`: whether the central 94 % of the draws hold the fitted value.
    - `quoted_ratio`: posterior sd over the quoted error of the fit; below 1 by as much as the
        posterior is too narrow because pairs that share speckles are not independent.

    These four are NaN, and `covered` None, without a fit or where it has no error.
    """

    name: str
    mean: float
    sd: float
    prior_sd: float
    contraction: float
    z: float
    ratio: float
    covered: bool | None
    quoted_ratio: float = float("nan")


def precision(posterior: Posterior) -> tuple[Precision, ...]:
    """Contraction of every sampled parameter and its comparison with the fit."""
    fitted = {name: (value, error) for name, value, error in posterior.fitted}
    quoted = dict(posterior.quoted)
    out = []
    for i, name in enumerate(posterior.names):
        draws = posterior.theta[..., i]
        mean, sd = float(draws.mean()), float(draws.std())
        prior_sd = float(posterior.density.priors[i].moments[1])
        value, error = fitted.get(name, (np.nan, np.nan))
        known = np.isfinite(error) and error > 0
        honest = quoted.get(name, np.nan)
        low, high = np.quantile(draws, [0.03, 0.97])
        out.append(
            Precision(
                name,
                mean,
                sd,
                prior_sd,
                1 - sd / prior_sd,
                (mean - value) / sd if known else np.nan,
                sd / error if known else np.nan,
                bool(low <= value <= high) if known else None,
                sd / honest if np.isfinite(honest) and honest > 0 else np.nan,
            )
        )
    return tuple(out)


def coverage(found: tuple[Precision, ...]) -> float:
    """Share of the compared parameters whose central 94 % hold the fitted value; NaN for none."""
    compared = [one.covered for one in found if one.covered is not None]
    return float(np.mean(compared)) if compared else float("nan")


def posterior_of(
    density: LogPosterior,
    theta: Float[np.ndarray, "chain draw entry"],
    per_angle: Float[np.ndarray, "chain draw angle 2"],
    draws: Draws,
    *,
    step_size: float,
    metric: Float[np.ndarray, "entry entry"],
    fit: Fit | None,
    max_depth: int = 10,
    diagnostics: Diagnostics | None = None,
    of_parts: Sequence[Diagnostics] = (),
    notes: tuple[str, ...] = (),
    timings: tuple[tuple[str, float], ...] = (),
    label: str = "1",
    shards: ShardResults | None = None,
    contradictions: tuple[str, ...] = (),
) -> Posterior:
    """Draws with their diagnostics, compared with the fit; of several data sets with their parts.

    `diagnostics`: of the chains, where they are not those of `theta`, and `of_parts` of them for
    each of several data sets; `contradictions` of shards.
    """
    rows = () if fit is None else fit.rows
    fitted = tuple((row.name, row.value, row.error_classical) for row in rows)
    if diagnostics is None:
        diagnostics = diagnose_chains(density.names, theta, draws, max_depth)
    found = against_fit(diagnostics, theta, fitted)
    found = contradicted(found, contradictions, _SHARDS_DIFFER)
    data_sets = ()
    if density.labels:
        angles = [part.term.geometry.phi.shape[0] for part in density.parts]
        each = zip(
            density.parts,
            density.labels,
            local_draws(density, theta),
            np.split(per_angle, np.cumsum(angles)[:-1], axis=2),
            [None] * len(density.parts) if fit is None else fit.data_sets,
            of_parts or [None] * len(density.parts),
            strict=True,
        )
        data_sets = tuple(
            posterior_of(
                part,
                np.asarray(own),
                own_angles,
                draws,
                step_size=step_size,
                metric=metric,
                fit=own_fit,
                max_depth=max_depth,
                diagnostics=of_chains,
                notes=(f"data set {name} of a joint posterior",),
                timings=timings,
                label=name,
            )
            for part, name, own, own_angles, own_fit, of_chains in each
        )
    return Posterior(
        theta=theta,
        per_angle=per_angle,
        draws=draws,
        density=density,
        metric=np.asarray(metric),
        step_size=float(step_size),
        diagnostics=found,
        fitted=fitted,
        notes=(*notes, *(about_independence(fit) if density.adjustment is None else ())),
        timings=timings,
        quoted=tuple((row.name, float(row.error)) for row in rows),
        data_sets=data_sets,
        label=label,
        shards=shards,
    )


_SHARE = (0.05, 0.95)


class Predictive(NamedTuple):
    """Posterior of the noise-free c2 at every pair (angle, frame, frame); `draws` went into it.

    `low`, `high`: 5th and 95th percentile.
    """

    mean: Float[np.ndarray, "angle frame frame"]
    sd: Float[np.ndarray, "angle frame frame"]
    low: Float[np.ndarray, "angle frame frame"]
    high: Float[np.ndarray, "angle frame frame"]
    draws: int

    def __repr__(self) -> str:
        shapes = (f"{name}={np.shape(value)}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({', '.join(shapes)})"


@quick_jit
def _surface(density, row, per_angle):
    parameters, term = density.parameters, density.term
    model = parameters.build(density.data.split(row)[0])
    correlation = correlation_map(model, term.t, term.geometry)
    return per_angle[:, 1, None, None] + per_angle[:, 0, None, None] * correlation


def model_tests(posterior: Posterior) -> dict[str, Misfit | None]:
    """Posterior predictive checks: the tests of a fit, at the posterior mean of each data set.

    Residuals there are compared with what the noise alone would leave, with what the parameters
    have followed taken out; contrast and offset are those that suit the mean best. None where maps
    cannot tell their noise.
    """
    found = {}
    for label, part in posterior.parts.items():
        term, followed = part.density.term, True
        if isinstance(term.scaling, ShotScaling):
            # Under the likelihood parameters do not follow the residuals of least squares.
            term, followed = dataclasses.replace(term, scaling=term.scaling.inner), False
        objective = ProjectedObjective(term.parameters, term, ())
        names = term.parameters.free_names
        mean = np.array([np.mean(part[name]) for name in names])
        y = coordinates_of(objective.variables, jnp.asarray(mean))
        _, memo = evaluated(objective, y, objective.memo)
        at = optimum(objective, y, memo)
        scores = score_covariances(objective, at)
        if scores.remains is None:
            found[label] = None
            continue
        inverse, *_ = inverse_of(scores.hessian, at.free)
        remains = scores.remains._replace(followed=followed)
        found[label] = misfit_of(remains, inverse, term)
    return found


def predictive(posterior: Posterior, draws: int = 200) -> Predictive | dict[str, Predictive]:
    """Mean, standard deviation and 5–95 % band of the surface over evenly chosen draws.

    Of several data sets those of each by its label. Draws are streamed. The tails of each pair are
    kept instead of all draws: memory is that of some 0.1·`draws` surfaces, and the percentiles are
    those of all the draws used.
    """
    if posterior.data_sets:
        return {label: surfaces(part, draws) for label, part in posterior.parts.items()}
    return surfaces(posterior, draws)


def surfaces(posterior: Posterior, draws: int) -> Predictive:
    """`predictive` of one data set."""
    rows = posterior.theta.reshape(-1, posterior.theta.shape[-1])
    scaling = posterior.per_angle.reshape(rows.shape[0], -1, 2)
    count = min(draws, rows.shape[0])
    chosen = np.linspace(0, rows.shape[0] - 1, count).astype(int)
    keep = int(np.floor(_SHARE[0] * (count - 1))) + 2

    def surface_of(i):
        return np.asarray(_surface(posterior.density, rows[i], scaling[i]))

    mean = np.array(surface_of(chosen[0]))
    squares = np.zeros_like(mean)
    low = high = mean[None].copy()
    for k, i in enumerate(chosen[1:], start=2):
        surface = surface_of(i)
        # Welford: no cancellation where the spread is small.
        step = surface - mean
        mean += step / k
        squares += step * (surface - mean)
        low = np.sort(np.concatenate([low, surface[None]]), axis=0)[:keep]
        high = np.sort(np.concatenate([high, surface[None]]), axis=0)[-keep:]
    place = _SHARE[0] * (count - 1)
    whole = int(place)
    share = place - whole

    def between(ordered):
        following = min(whole + 1, ordered.shape[0] - 1)
        return (1 - share) * ordered[whole] + share * ordered[following]

    return Predictive(
        mean, np.sqrt(squares / max(count - 1, 1)), between(low), between(high[::-1]), count
    )
