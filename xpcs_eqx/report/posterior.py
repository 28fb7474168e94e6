"""A posterior in words and columns, and its folder."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..bayes import Posterior, precision, write_posterior
from ..bayes.arviz_io import PLOTS, shown_names
from ..bayes.diagnostics import about_independence
from ..bayes.marginalised import MARGINALISED, Marginalised, marginalised_scaling
from ..bayes.posterior import Precision, model_tests
from ..bayes.shards.compare import ShardResults
from ..bayes.write import plot_posterior
from ..fitting import Fit
from .folder import write_files
from .page import Picture, page
from .sections import (
    APPENDIX,
    FIGURES,
    HEAD,
    Block,
    Entry,
    Section,
    Table,
    items,
    text,
    value_and_error,
)

log = logging.getLogger(__name__)

# Entries whose spread is nearly that of their prior.
_PRIOR_DECIDES = 0.1
_MOST = 15


def _row(
    one: Precision | Marginalised,
    draws: np.ndarray,
    chains: tuple[str, str],
    z: float,
    ratio: float,
    unit: str = "",
) -> tuple:
    """A line of the table: mean, sd and limits of an entry; what its `chains` and the fit say."""
    # Limits to a tenth of an sd, as the mean.
    places = map(float, np.quantile(draws, [0.05, 0.95]))
    limits = [value_and_error(value, one.sd)[0] for value in places]
    fit = ("-" if math.isnan(z) else f"{z:+.2f}", "-" if math.isnan(ratio) else f"{ratio:.2f}")
    return (one.name, *value_and_error(one.mean, one.sd), *limits, unit, *chains, *fit)


def _parameter_table(posterior: Posterior) -> list[Block]:
    diagnostics = posterior.diagnostics
    rows = []
    for i, one in enumerate(precision(posterior)):
        chains = f"{diagnostics.ess_bulk[i]:.0f}", f"{diagnostics.rhat[i]:.3f}"
        unit = posterior.units[one.name]
        rows.append(_row(one, posterior.theta[..., i], chains, one.z, one.ratio, unit))
    # Contrast and offset that were marginalised; their draws are no chains of their own.
    integrated = marginalised_scaling(posterior)
    fitted = {name: (value, error) for name, value, error in posterior.fitted}
    for one in integrated:
        value, error = fitted.get(one.name, (math.nan, math.nan))
        known = math.isfinite(error) and error > 0
        z, ratio = ((one.mean - value) / one.sd, one.sd / error) if known else (math.nan, math.nan)
        rows.append(_row(one, one.draws, ("-", "-"), z, ratio))
    header = ("parameter", "mean", "sd", "5 %", "95 %", "unit", "ESS", "R-hat", "z", "ratio")
    told = "z: (mean − fit)/sd; ratio: sd over the error that the fit has of independent noise"
    return [Table(header, rows), told, *(items([MARGINALISED]) if integrated else [])]


def _shard_lines(found: ShardResults) -> list[Entry]:
    dropped = found.dropped
    used = f"{len(found.combined.used)} of {found.division.n_shards} in the result"
    lines = [Entry("shards", used)]
    lines += [Entry("dropped", f"shard {n}: {reason}") for n, reason in dropped[:_MOST]]
    if len(dropped) > _MOST:
        lines.append(Entry("dropped", f"and {len(dropped) - _MOST} more, in bayes/shards.json"))
    if not math.isnan(found.pareto_k):
        lines.append(Entry("Pareto k", f"{found.pareto_k:.2f} of the importance correction"))
    return lines


def posterior_sections(
    posterior: Posterior,
    fit: Fit,
    plan: Sequence[str] = (),
    *,
    plots: bool = True,
    form: str = "png",
    predictive: int = 200,
    wording: Callable[[str], str] = str,
) -> list[Section]:
    """What there is to say about a posterior, with its folder `bayes`, and how it was sampled.

    **Arguments:**

    - `fit`: that was sampled from; its quoted errors are compared with the classical ones.
    - `plan`: what was decided beforehand, in sentences.
    - `plots`: whether to draw it; `form`: png, svg or pdf.
    - `predictive`: draws that make the band of the surface; 0 for none.
    - `wording`: from what the library says to do, to the words of who reads it.
    """
    diagnostics = posterior.diagnostics
    content: list[Block] = [Entry("status", diagnostics.status.upper().replace("_", " "))]
    # Draws that converged can be used: advice is for the sake of more digits.
    do = "to improve it" if diagnostics.status == "converged" else "do"
    said = [*diagnostics.findings, *(f"{do}: {text}" for text in diagnostics.recommendations)]
    content += items([wording(text) for text in said])
    content += _parameter_table(posterior)
    weak = [one for one in precision(posterior) if one.contraction < _PRIOR_DECIDES]
    if weak:
        named = ", ".join(f"{one.name} ({one.contraction:.2f})" for one in weak)
        content += items([f"the prior decides, not the data: contraction of {named}"])
    for label, misfit in model_tests(posterior).items():
        where = f"{label}: " if len(posterior.parts) > 1 else ""
        if misfit is not None:
            content += items([f"{where}{misfit.sentence(test)}" for test in misfit.failed()])
    chains, draws = np.shape(posterior.draws.energy)
    of = "of all data" if posterior.shards is None else "of all shards"
    how: list[Block] = [Entry("plan", text) for text in plan]
    how.append(
        Entry(
            "chains",
            f"{chains} {of}, {draws} draws each; {100 * diagnostics.divergence_rate:.2g} % "
            f"divergent, acceptance {diagnostics.acceptance:.2f}, smallest BFMI "
            f"{float(np.min(diagnostics.bfmi)):.2f}, "
            f"{int(np.sum(posterior.draws.steps))} gradients",
        )
    )
    if posterior.shards is not None:
        how += _shard_lines(posterior.shards)
    notes = dict.fromkeys(posterior.notes)
    how += [Entry("note", wording(text)) for text in notes if text not in plan]
    if posterior.density.adjustment is None:
        # That draws are too narrow is no detail.
        content += items([wording(text) for text in about_independence(fit)])
    told = [
        Section("Posterior", content),
        Section("How the posterior was sampled", how, place=APPENDIX),
    ]

    def write(folder: str) -> None:
        """The new folder of the posterior: files of `write_posterior`, report, plots."""
        os.mkdir(folder)
        chosen: dict[str, Any] = {"fitted_data": predictive > 0, "predictive_draws": predictive}
        write_posterior(folder, posterior, plots=(), **chosen)
        drawn = _draw(os.path.join(folder, "plots"), posterior, form) if plots else []
        first = replace(told[0], place=HEAD, title="What was found")
        several = f" of {len(posterior.parts)} data sets" if posterior.data_sets else ""
        title, shown = f"Posterior{several}", [first, told[1], Section("Figures", place=FIGURES)]
        report = text(title, shown)
        pictures = zip(shown, ([], [], drawn), strict=True)
        write_files(folder, {"report.txt": report, "report.html": page(title, pictures)})

    return [replace(told[0], files={"bayes": write}), told[1]]


# In the order of reading, with what to see in them; those of ArviZ by its names.
_CAPTIONS = {
    "corner": "",
    "shards": "",
    "forest": "Interval of each parameter, chain by chain: chains that agree lie on one another.",
    "trace": "Every draw of every chain: they should look alike, and wander nowhere.",
    "rank": "Ranks of the draws of each chain among those of all: inside the band they agree.",
    "ess": "Effective draws at each quantile: every point should lie above the dashed line.",
    "autocorr": "Correlation of draws some steps apart: it should fall to zero at once.",
    "energy": "Left: how well each chain moves between energies (BFMI), right of the dashed line "
    "in all. Right: energy of the draws, and its change from draw to draw, of one width.",
}


# What the corner plot does not show: the pair plot of ArviZ is that with less to read.
_BY_ARVIZ = tuple(name for name in PLOTS if name != "pair")


def _draw(folder: str, posterior: Posterior, form: str) -> list[Picture]:
    """Draw a posterior into a new folder; the pictures, what a reader wants first first.

    Draws may have taken hours: plots that cannot be made are a message in the log, not an error.
    """
    # Not at the top: importing matplotlib takes a third of a second.
    from .plots import picture_of, posterior_drawings, save_figures

    drawn, _ = save_figures(folder, lambda: posterior_drawings(posterior), form)
    found = {one.name: one for one in drawn}
    without = ""
    try:
        plot_posterior(folder, posterior, _BY_ARVIZ, form)
        names = tuple(posterior.variables())
        shown = shown_names(posterior.to_datatree(), names)
        if hidden := [name for name in names if name not in shown]:
            without = f" Not shown: {', '.join(hidden)}."
    except Exception as error:
        log.exception("plots of the posterior are missing in %s: %s", folder, error)
    paths = {os.path.splitext(name)[0]: os.path.join(folder, name) for name in os.listdir(folder)}
    return [
        found[name]
        if name in found
        else picture_of(paths[name], caption + (without if name != "energy" else ""))
        for name, caption in _CAPTIONS.items()
        if name in paths
    ]
