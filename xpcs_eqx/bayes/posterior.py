"""Posterior draws with names and diagnostics."""

from typing import Any

import equinox as eqx
import jax.core
import numpy as np
from jaxtyping import Float

from ..fitting import Fit
from .arviz_io import datatree, unique_labels
from .density.log_posterior import LogPosterior
from .diagnostics import Diagnostics, about_independence, against_fit, diagnose, quoted_errors
from .nuts.chains import Draws


class Posterior(eqx.Module):
    """Draws of the physical parameters and what is known about them.

    - `theta`: draws of the sampled entries (chain, draw, entry), named by `names`.
    - `per_angle`: contrast and offset of each draw (chain, draw, angle, 2); those of marginalised
        scaling are drawn from their conditional distribution.
    - `draws`: unconstrained positions and statistics of each transition.
    - `density`: the log density that was sampled, with its priors, data and coordinates.
    - `step_size`, `metric`: after warm-up.
    - `fitted`: (name, value, classical error) of the fit, empty without one; `quoted`: (name,
        quoted error), larger where pairs are not independent.
    - `notes`: how it began, and what has to be known of its priors and of its likelihood.
        `timings`: seconds by phase.
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

    def __getitem__(self, name: str) -> Float[np.ndarray, "chain draw ..."]:
        """Draws of a parameter, or of `contrast` or `offset` of all angles.

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

        Coefficients of a Fourier scaling are there as well.
        """
        p = self.density.parameters.n_free
        out = {name: self.theta[..., i] for i, name in enumerate(self.names[:p])}
        out["contrast"], out["offset"] = self.per_angle[..., 0], self.per_angle[..., 1]
        for i, name in enumerate(self.names[p:], start=p):
            # Those of single angles are in `contrast` and `offset`.
            if name not in out and "[" not in name:
                out[name] = self.theta[..., i]
        return out

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean, standard deviation, central 94 %, R-hat and effective samples by parameter."""
        found = self.diagnostics
        out = {}
        for i, name in enumerate(self.names):
            draws = self.theta[..., i]
            low, high = np.quantile(draws, [0.03, 0.97])
            out[name] = {
                "mean": float(draws.mean()),
                "sd": float(draws.std()),
                "low": float(low),
                "high": float(high),
                "rhat": float(found.rhat[i]),
                "ess_bulk": float(found.ess_bulk[i]),
                "ess_tail": float(found.ess_tail[i]),
            }
        return out

    def to_datatree(self) -> Any:
        """An ArviZ DataTree; `contrast` and `offset` have the dimension `angle` [degrees].

        Where two angles are equal, they are labelled by their numbers 0, 1, …. Draws that were
        combined from those of shards have no `sample_stats`.

        **Raises:** `ModelError` with what to install when ArviZ is missing.
        """
        own = np.shape(self.draws.energy) == self.theta.shape[:2]
        step_size = np.full(np.shape(self.draws.energy), self.step_size)
        return datatree(
            self.variables(),
            {**transition_stats(self.draws), "step_size": step_size} if own else {},
            self.angle_labels(),
            ANGLE_DIMS,
            {"status": self.status, "notes": "; ".join(self.notes)},
        )

    def angle_labels(self) -> dict[str, np.ndarray]:
        """The coordinate `angle` of labelled draws."""
        return {"angle": unique_labels(np.asarray(self.density.term.geometry.phi))}


ANGLE_DIMS = {"contrast": ["angle"], "offset": ["angle"]}


def transition_stats(draws: Draws) -> dict[str, np.ndarray]:
    """Statistics of transitions by the names that ArviZ knows."""
    return {
        "lp": draws.log_density,
        "diverging": draws.divergent,
        "energy": draws.energy,
        "tree_depth": draws.depth,
        "n_steps": draws.steps,
        "acceptance_rate": draws.acceptance,
    }


def draws_in_lines(
    head: str,
    names: tuple[str, ...],
    theta: Float[np.ndarray, "chain draw entry"],
    diagnostics: Diagnostics,
    notes: tuple[str, ...],
) -> str:
    """What is printed of draws: status and findings, mean ± sd of each entry, notes."""
    chains, draws = theta.shape[-3:-1]
    rows: Any = ()
    # Inside a compiled function they have no numbers.
    if not isinstance(theta, jax.core.Tracer):
        flat = np.reshape(theta, (-1, len(names)))
        rows = zip(names, flat.mean(axis=0), flat.std(axis=0), strict=True)
    return "\n".join(
        [
            f"{head} of {chains} × {draws} draws: {diagnostics.status}",
            *(f"  {name} = {mean:.6g} ± {sd:.2g}" for name, mean, sd in rows),
            *(f"  finding: {text}" for text in diagnostics.findings),
            *(f"  note: {text}" for text in notes),
        ]
    )


def posterior_of(
    density: LogPosterior,
    theta: Float[np.ndarray, "chain draw entry"],
    per_angle: Float[np.ndarray, "chain draw angle 2"],
    draws: Draws,
    *,
    step_size: float,
    metric: Float[np.ndarray, "entry entry"],
    fit: Fit | None,
    max_depth: int,
    notes: tuple[str, ...],
    timings: tuple[tuple[str, float], ...],
) -> Posterior:
    """Draws with their diagnostics, compared with the fit."""
    rows = () if fit is None else fit.rows
    fitted = tuple((row.name, row.value, row.error_classical) for row in rows)
    found = diagnose(
        density.names,
        theta,
        np.asarray(draws.divergent),
        np.asarray(draws.energy),
        np.asarray(draws.depth),
        np.asarray(draws.acceptance),
        max_depth,
    )
    return Posterior(
        theta=theta,
        per_angle=per_angle,
        draws=draws,
        density=density,
        metric=np.asarray(metric),
        step_size=float(step_size),
        diagnostics=against_fit(found, theta, fitted),
        fitted=fitted,
        notes=(*notes, *about_independence(fit)),
        timings=timings,
        quoted=quoted_errors(fit),
    )
