"""Whether draws can be trusted, and what to do when not."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..fitting import Fit
from ..showing import value_and_error, with_error
from .arviz_io import bfmi, ess, rhat
from .modes import bimodality
from .nuts.chains import Draws

RHAT, RHAT_WARN = 1.05, 1.01
ESS = 400.0
BFMI = 0.3
DIVERGENCES = (0.05, 0.10, 0.30)
# A decay that hardly shows in the window can be traded for contrast and offset, which then lie on a
# long bent valley where the covariance of the fit is no guide.
_WITHOUT_SCALING = (
    "contrast and offset are among the sampled entries, and slow wherever the decay is weak: one "
    'run can do without them with bayes.scaling = "marginalised" '
    '(MarginalisedScaling()); or begin elsewhere than at the fit with bayes.start = "pathfinder" '
    "(PathfinderStart())"
)


# Distance from the fit, in standard deviations, that no rounding and no prior of good faith makes.
AWAY = 5.0


class Diagnostics(NamedTuple):
    """Convergence of a set of chains.

    - `rhat`, `ess_bulk`, `ess_tail`: by sampled parameter, in the order of `names`.
    - `bfmi`: of each chain; `divergence_rate`: share of divergent transitions.
    - `deepest`: share of trajectories stopped by the depth allowed.
    - `status`: converged, divergences, not_converged, or contradictory: converged, but to what
        contradicts the fit, or from shards that contradict each other. `findings` say why,
        `recommendations` what to do.
    """

    names: tuple[str, ...]
    rhat: Float[np.ndarray, "entry"]
    ess_bulk: Float[np.ndarray, "entry"]
    ess_tail: Float[np.ndarray, "entry"]
    bfmi: Float[np.ndarray, "chain"]
    divergence_rate: float
    deepest: float
    acceptance: float
    status: str = ""
    findings: tuple[str, ...] = ()
    recommendations: tuple[str, ...] = ()


class Scope(NamedTuple):
    """Whose chains are judged, and by what: those of a run, or those of all shards.

    - `where`: added to findings; `ess`: effective samples that each parameter needs, of `kinds`.
    - `modes`: what to do about a large R-hat; `draws`: about too few effective samples;
        `diverging`: about divergences; `tails`: about a small BFMI.
    - `warns`: whether findings that leave the status alone are looked for.
    """

    where: str
    ess: float
    kinds: tuple[str, ...]
    modes: str
    draws: str
    diverging: str
    tails: str
    warns: bool


_RUN = Scope(
    "",
    ESS,
    ("bulk", "tail"),
    "run longer (warmup, draws); when it stays, look for several modes or an exact degeneracy, and "
    "fix a parameter or narrow a prior",
    "take more draws",
    "raise target_acceptance (0.95, 0.99), or narrow the prior of a weak parameter",
    "a longer warm-up, or other coordinates for the widest parameter",
    True,
)
_SHARDS = Scope(
    " in a shard",
    ESS / 4,
    ("bulk",),
    "MultimodalConsensus for shards with several modes, else a longer warm-up",
    "take more draws for each shard",
    "raise target_acceptance, or take larger shards",
    "a longer warm-up, or larger shards",
    False,
)


def _judged(found: Diagnostics, rate: float, typical: float, scope: Scope) -> Diagnostics:
    """The numbers with status, findings and advice.

    `rate` is the largest share of divergent transitions, `typical` that by which the status goes.
    """
    names, where = found.names, scope.where
    findings, advice = [], []

    def worst(values, rule):
        bad = [(v, n) for v, n in zip(values, names, strict=True) if rule(v)]
        shown = ", ".join(f"{n} ({v:.4g})" for v, n in bad[:4])
        return shown + (", …" if len(bad) > 4 else "")

    failed = not np.all(found.rhat <= RHAT)
    if failed:
        findings.append(f"R-hat above {RHAT}{where}: {worst(found.rhat, lambda v: not v <= RHAT)}")
        advice.append(scope.modes)
        if scope.warns and any(name.startswith(("contrast", "offset")) for name in names):
            advice.append(_WITHOUT_SCALING)
    elif scope.warns and np.any(found.rhat > RHAT_WARN):
        findings.append(f"R-hat above {RHAT_WARN}: {worst(found.rhat, lambda v: v > RHAT_WARN)}")
        advice.append("take more draws before quoting these")
    few = False
    for kind in scope.kinds:
        values = {"bulk": found.ess_bulk, "tail": found.ess_tail}[kind]
        if not np.all(values >= scope.ess):
            few = True
            findings.append(
                f"fewer than {scope.ess:g} effective samples{where} ({kind}): "
                f"{worst(values, lambda v: not v >= scope.ess)}"
            )
            if scope.draws not in advice:
                advice.append(scope.draws)
    level = sum(rate > limit for limit in DIVERGENCES)
    if level:
        how = ("some", "many", "most trajectories are unusable:")[level - 1]
        findings.append(f"{how} divergences: {100 * rate:.2g} % of the transitions{where}")
        advice.append(scope.diverging)
    elif scope.warns and rate > 0:
        findings.append(f"{100 * rate:.2g} % divergent transitions, which is acceptable")
    if not np.all(found.bfmi >= BFMI):
        least = float(np.min(found.bfmi))
        findings.append(f"BFMI {least:.2g} below {BFMI}{where}: tails are explored slowly")
        advice.append(scope.tails)
    if scope.warns and found.deepest > 0.01:
        findings.append(
            f"{100 * found.deepest:.2g} % of the trajectories reached the largest depth"
        )
        advice.append("a longer warm-up for a better metric, or a larger max_depth")
    diverged = typical > DIVERGENCES[0]
    status = "not_converged" if failed or few else "divergences" if diverged else "converged"
    return found._replace(status=status, findings=tuple(findings), recommendations=tuple(advice))


def diagnose_chains(
    names: tuple[str, ...],
    theta: Float[np.ndarray, "chain draw entry"],
    draws: Draws,
    max_depth: int,
) -> Diagnostics:
    """Diagnostics of the chains of a run, whose entries are `theta`.

    Not converged: R-hat above 1.05, or NaN, or fewer than 400 effective samples (bulk or tail) of a
    parameter. Divergences: more than 5 % of the transitions; 10 % and 30 % are named as worse. A
    BFMI below 0.3, R-hat above 1.01 and trajectories of full depth are findings that leave the
    status alone.
    """
    each = [theta[..., i] for i in range(len(names))]
    rate = float(np.mean(draws.divergent))
    found = Diagnostics(
        names,
        np.array([rhat(d) for d in each]),
        np.array([ess(d, "bulk") for d in each]),
        np.array([ess(d, "tail") for d in each]),
        bfmi(np.asarray(draws.energy)),
        rate,
        float(np.mean(np.asarray(draws.depth) >= max_depth)),
        float(np.mean(draws.acceptance)),
    )
    return _judged(found, rate, rate, _RUN)


def diagnose_shards(
    results: Sequence[Mapping[str, np.ndarray]], names: tuple[str, ...], max_depth: int
) -> Diagnostics:
    """Convergence of the chains of all shards: for each parameter that of the worst shard.

    Not converged: R-hat above 1.05 or fewer than 100 effective samples (bulk) in a shard.
    Divergences: more than 5 % of the transitions of more than half of the shards. Nothing is
    computed from combined draws, which would always look converged.
    """

    def every(name: str) -> np.ndarray:
        return np.stack([np.asarray(result[name]) for result in results])

    rates = every("divergent").mean(axis=(1, 2))
    found = Diagnostics(
        names,
        every("rhat").max(axis=0),
        every("ess_bulk").min(axis=0),
        every("ess_tail").min(axis=0),
        every("bfmi").min(axis=0),
        float(rates.mean()),
        float(np.mean(every("depth") >= max_depth)),
        float(every("acceptance").mean()),
    )
    return _judged(found, float(rates.max()), float(np.median(rates)), _SHARDS)


def why_unusable(
    found: Diagnostics, draws: Float[np.ndarray, "chain draw entry"], largest: float = RHAT
) -> str:
    """Why chains have to be run again; empty where they can be used.

    An R-hat above `largest`, or NaN, or more than 30 % divergent transitions.
    """
    if not np.all(found.rhat <= largest):
        worst = int(np.argmax(np.where(np.isnan(found.rhat), np.inf, found.rhat)))
        reason = f"R-hat of {found.names[worst]} is {found.rhat[worst]:.3g}, above {largest:g}"
        names = enumerate(found.names)
        split = [name for i, name in names if bimodality(name, draws[..., i]).bimodal]
        return reason + (f"; two modes in {', '.join(split)}" if split else "")
    if found.divergence_rate > DIVERGENCES[-1]:
        return f"{100 * found.divergence_rate:.0f} % of the trajectories diverged"
    return ""


def contradicted(found: Diagnostics, findings: Sequence[str], advice: Sequence[str]) -> Diagnostics:
    """The diagnostics with what contradicts the draws: no status of theirs is `converged` then."""
    if not findings:
        return found
    return found._replace(
        status="contradictory" if found.status == "converged" else found.status,
        findings=(*findings, *found.findings),
        recommendations=(*advice, *found.recommendations),
    )


def against_fit(
    found: Diagnostics,
    draws: Float[np.ndarray, "*draw entry"],
    fitted: Sequence[tuple[str, float, float]],
) -> Diagnostics:
    """The diagnostics with the entries whose mean is more than 5 standard deviations from the fit.

    `fitted`: (name, value, error) of the fit; entries without an error are not compared.
    """
    known = {name: value for name, value, error in fitted if np.isfinite(error) and error > 0}
    flat = np.reshape(draws, (-1, len(found.names)))
    findings = []
    for name, mean, sd in zip(found.names, flat.mean(axis=0), flat.std(axis=0), strict=True):
        away = (mean - known[name]) / sd if name in known and sd > 0 else 0.0
        if abs(away) > AWAY:
            findings.append(
                f"{name} = {with_error(mean, sd)} is {away:+.1f} standard deviations from "
                f"the fit ({value_and_error(known[name], sd)[0]})"
            )
    advice = (
        "the draws contradict the fit: look whether a prior excludes it, whether the fit has found "
        "another minimum, and whether chains have found a mode of their own"
    )
    return contradicted(found, findings, (advice,))


# Quoted errors larger than this, over the classical ones, are worth a word.
LARGER = 1.2


def widening(fit: Fit) -> float:
    """Largest quoted error of a physical parameter over its classical one; 1 where none is known.

    The classical error takes pairs as independent, as the likelihood does; the quoted one is a
    sandwich with the correlations that pairs of frames have by their common speckles.
    """
    ratios = [
        row.error / row.error_classical
        for row in fit.rows
        if row.varies and row.error_classical > 0 and math.isfinite(row.error)
    ]
    return max(ratios, default=1.0)


def about_independence(fit: Fit | None) -> tuple[str, ...]:
    """Words for a posterior that is too narrow since pairs are not independent; else nothing."""
    if fit is None or fit.uncertainty.chosen == "classical":
        return ()
    ratio = widening(fit)
    if ratio < LARGER:
        return ()
    return (
        "the likelihood takes pairs as independent, as the classical error does; the quoted "
        f"({fit.uncertainty.chosen}) errors of the fit are up to {ratio:.2g} times the "
        "classical ones, and the spread of the draws is too small by as much",
    )
