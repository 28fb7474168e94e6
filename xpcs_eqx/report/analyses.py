"""Sections of what goes with a fit: phases, search, defences, degeneracy, angles, likelihood."""

import csv
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..defences import DefenceReport
from ..fitting import (
    AgedG2,
    Bootstrap,
    Comparison,
    DegeneracyReport,
    Diagnostics,
    Fit,
    SequentialFit,
    gain_of_offsets,
)
from ..optimize import SinglePrecisionState
from ..search import GlobalFit, TournamentState
from .sections import (
    APPENDIX,
    HEAD,
    Block,
    Drawing,
    Entry,
    Section,
    Table,
    items,
    number,
    plotting,
    value_and_error,
)

# What each layer of the defences does when it fires, in words.
_LAYERS = {
    "cost guard": "the warm-up was stopped since the loss grew",
    "step clip": "a step of the warm-up was shortened",
    "memory reset": "the warm-up forgot the curvature it had gathered",
    "finite loss": "the loss was not finite",
    "finite gradient": "the gradient was not finite",
    "finite equations": "the normal equations were not finite",
}
# How fits of single angles become one, in words.
_COMBINED = {
    "InverseVariance": "their full covariance matrices",
    "Uniform": "the mean over the angles",
    "ByPoints": "the mean weighted by the pairs of each angle",
}


def prepared_section(fit: Fit) -> Section:
    """What came before the trust region, how it ended, and which defences fired."""
    tournament, warm_up = fit.prepared.get("tournament"), fit.warm_up
    passes = {phase: int(state.evaluations) for phase, state in fit.prepared.items()}
    document: dict[str, Any] = {"passes": passes, "telemetry": fit.telemetry.export()}
    lines: list[Block] = []
    if isinstance(tournament, TournamentState):
        said = (
            f"{len(tournament.candidates)} starts in {int(tournament.round)} rounds; number "
            f"{tournament.winner + 1} was taken"
        )
        lines.append(Entry("tournament", said))
    if warm_up is not None:
        losses, iterations = warm_up.losses, int(warm_up.iteration)
        said = (
            f"{warm_up.end.message}; {iterations} iterations, {passes['warm-up']} passes; "
            f"loss / variance of the data {losses[0]:.4g} → {np.min(losses):.4g}"
        )
        lines.append(Entry("warm-up", said))
        document["warm_up"] = warm_up.end.message
        document["iterations"] = {"warm-up": iterations}
        document["warm_up_losses"] = losses
    single = fit.prepared.get("single precision")
    if isinstance(single, SinglePrecisionState):
        said = f"{passes['single precision']} evaluations: {single.status.message}"
        lines.append(Entry("single precision", said))
    fired = [
        f"{_LAYERS[layer]} ({count} of {asked} times)"
        for layer, asked, count in fit.telemetry.counts
        if count and layer in _LAYERS
    ]
    if fired or warm_up is not None:
        lines.append(Entry("defences", "; ".join(fired) or "none had to fire"))
    return Section("Before the trust region", lines, {"hybrid": document}, place=APPENDIX)


def search_section(found: GlobalFit) -> Section:
    """Decisions of a search for other minima, its evaluations, the tables of minima and of runs."""
    content: list[Block] = [*items(found.sentences())]
    content += [Table(header, rows) for header, *rows in found.cells()]
    document: dict[str, Any] = {
        "method": found.method,
        "decisions": found.decisions,
        "evaluations": found.evaluations,
        "spent": [one._asdict() for one in found.spent],
        "minima": [],
        "multi_start": None,
        "reason": None,
        "degenerate": None,
        "cma_es": None if found.cma is None else [run._asdict() for run in found.cma.runs],
    }
    if (search := found.search) is not None:

        def by_name(values: Sequence[float]) -> dict[str, float]:
            return dict(zip(search.names, values, strict=True))

        document["minima"] = [
            {**basin._asdict(), "values": by_name(basin.values)} for basin in search.basins
        ]
        document["multi_start"] = {
            "spent": [one._asdict() for one in search.spent],
            "noise": search.noise,
            "unfinished": search.unfinished,
            "starts": [by_name(row) for row in search.starts.tolist()],
            "costs": search.costs.tolist(),
        }
        document |= {"reason": search.reason, "degenerate": search.degenerate}
    return Section("Search for other minima", content, {"global": document}, place=APPENDIX)


def defence_section(report: DefenceReport, fit: Fit) -> Section:
    """What each layer of defence did, and the outer iterations."""
    content: list[Block] = [Entry(name, said) for name, said in report.entries()]
    document, outer = report.document(), fit.outer
    if outer is not None:
        header, *rows = outer.cells()
        content.append(Table(header, rows))
        document["outer"] = dict(outer.__dict__)
    return Section("Defences", content, {"defences": document}, place=APPENDIX)


def degeneracy_sections(report: DegeneracyReport) -> list[Section]:
    """What the data leave open, with the profiles drawn, and what to do about it."""

    def figures() -> Sequence[Drawing]:
        rise = (
            "Rise of χ² when one parameter is moved and all others follow, with the fit in red: "
            "where it stays below the dashed line, the data do not decide."
        )
        bars = "The bars show which parameters can be moved together."
        caption = " ".join([*[rise][: len(report.profiles)], *[bars][: len(report.directions)]])
        drawn = [Drawing("degeneracy", lambda: plotting().degeneracy_figure(report), caption)]
        return drawn if report.degenerate else ()

    files = {"fit/degeneracy.json": report.document()}
    said = items(report.sentences())
    out = [Section("What the data leave open", said, {}, files, figures, place=HEAD)]
    if report.advice:
        said = items([one.sentence() for one in report.advice])
        out.append(Section("What to do about it", said, place=HEAD))
    return out


def diagnostics_section(found: Diagnostics) -> Section:
    """Sensitivities, gradients and scales of the parameters."""
    header, *rows = found.cells()
    condition = f"{found.condition_number:.3g}; ratio of gradients {found.imbalance:.3g}"
    content = [Table(header, rows), Entry("condition", condition)]
    files = {"fit/diagnostics.json": found._asdict()}
    return Section("Diagnostics", content, {}, files, place=APPENDIX)


def sequential_section(fit: SequentialFit, label: str = "", name: str = "") -> Section:
    """Fits of single angles: their combination, then a line for each angle.

    `label`, `name`: of one of several data sets, and of its folder.
    """
    combined = [
        (
            one.name,
            *value_and_error(one.value, one.error),
            one.unit,
            str(one.angles),
        )
        for one in fit.rows
    ]

    header, *each = fit.cells()
    content: list[Block] = [
        Table(("parameter", "value", "error", "unit", "angles that determine it"), combined),
        f"{len(fit.fits)} of {len(fit.phi)} angles fitted by themselves, combined by "
        f"{_COMBINED.get(fit.combination, fit.combination)}",
        Table(header, each),
        *items(fit.findings),
    ]
    document: dict[str, Any] = {
        "combination": fit.combination,
        "success_rate": fit.success_rate,
        "parameters": {
            row.name: {k: v for k, v in row._asdict().items() if k != "name"} for row in fit.rows
        },
        "covariance": fit.covariance,
        "heterogeneity": fit.heterogeneity._asdict(),
        "angles": [
            {
                "phi_deg": float(fit.phi[a]),
                "parameters": {
                    n: {"value": one[n].value, "error": one[n].error}
                    for n in fit.parameters.free_names
                },
                "contrast": one.contrast[0],
                "offset": one.offset[0],
                "residual_sd": one.residual_sd,
            }
            for a, one in zip(fit.angles, fit.fits, strict=True)
        ],
        "failed": [one._asdict() for one in fit.failed],
        "findings": fit.findings,
    }
    title = "Each angle by itself" + (f", {label}" if name else "")
    inside = f"fit/{name}" if name else "fit"
    return Section(title, content, {}, {f"{inside}/sequential.json": document})


def likelihood_section(compared: Comparison) -> Section:
    """Least squares and the likelihood of speckle side by side."""
    what = "least squares" if compared.likelihood is None else "likelihood of speckle"
    lines: list[Block] = [Entry("quoted", f"{what}: {compared.reason}")]
    expected = compared.expected
    document: dict[str, Any] = {
        "quoted": what,
        "reason": compared.reason,
        "expected_gain": expected,
    }
    if compared.likelihood is not None:
        rows, document["parameters"] = [], {}
        values = zip(compared.names, compared.gain, compared.difference, strict=True)
        for name, gain, difference in values:
            one, other = compared.squares[name], compared.likelihood[name]
            document["parameters"][name] = {
                "least_squares": {"value": one.value, "error": one.error},
                "likelihood": {"value": other.value, "error": other.error},
                "gain": gain,
                "difference_in_errors": difference,
            }
            pairs = (value_and_error(each.value, each.error) for each in (one, other))
            cells = (cell for pair in pairs for cell in pair)
            rows.append((name, *cells, number(gain, 3), f"{difference:+.2f}"))
        header = (
            "parameter",
            "least squares",
            "error",
            "likelihood",
            "error",
            "gain",
            "difference [errors]",
        )
        lines.append(Table(header, rows))
        lines.append(Entry("errors", compared.likelihood.uncertainty.reason))
    fits = {"least squares": compared.squares, "the likelihood": compared.likelihood}
    gains = {who: None if fit is None else gain_of_offsets(fit) for who, fit in fits.items()}
    document["gain_of_offsets_held_at_one"] = gains
    said = [f"{gain:.3g} ({who})" for who, gain in gains.items() if gain is not None]
    if said:
        lines.append(
            Entry(
                "offset",
                "one within its errors, as it is where every frame is divided by its own mean; if "
                "that was done, offset_bounds = [1.0, 1.0] in [scaling] divides the errors by "
                f"{' and '.join(said)}",
            )
        )
    return Section("Likelihood of speckle", lines, {"likelihood": document})


def bootstrap_section(found: Bootstrap, fit: Fit) -> Section:
    """Errors of fits of simulated maps beside those that the fit quotes."""
    made = len(found.values)
    said = f"{made} maps simulated from the fit and fitted again"
    if found.failed:
        said += f"; {found.failed} more could not be fitted"
    rows, parameters = [], {}
    errors = zip(found.names, found.fitted, found.errors, found.bias, strict=True)
    for name, value, error, bias in errors:
        low, high = found.interval(name)
        quoted = fit[name].error
        parameters[name] = {"error": error, "quoted": quoted, "bias": bias, "low": low}
        parameters[name]["high"] = high
        if fit[name].role == "scaling":
            continue
        ratio = error / quoted if quoted > 0 else float("nan")
        between = " … ".join(value_and_error(end, error)[0] for end in (low, high))
        cells = value_and_error(value, quoted)[1], value_and_error(value, error)[1]
        rows.append((name, *cells, number(ratio, 3), f"{bias / error:+.2f}", between))
    header = ("parameter", "quoted", "of simulated maps", "ratio", "bias [errors]", "68 % interval")
    document = {"fits": made, "failed": found.failed, "parameters": parameters}
    content = [Entry("bootstrap", said), Table(header, rows)]
    return Section("Errors of simulated maps", content, {"bootstrap": document})


# Angles of which curves are cut out.
G2_ANGLES = 4
_HEADER = ("age [s]", "phi [deg]", "τ0 [s]", "error", "stretch", "error", "half-decay [s]", "error")
_MEANING = (
    "The usual practice, for comparison: c2 of pairs of an age (t1 + t2)/2, averaged in steps of "
    "lag, and offset + contrast · exp(−2 (τ/τ0)^stretch) fitted to each angle by itself as if "
    "nothing aged within the window. The last column but one is the half-decay of the fit of the "
    "whole maps over the same pairs; the curves are in {}."
)
_CAPTION = (
    "g2(τ) at chosen ages: points with one standard error, solid lines the stretched exponential "
    "of each window, dashed ones the fit of the whole maps over the same pairs. Where dashed lines "
    "miss their points the ageing of the model is not that of the sample."
)


def _row(one: AgedG2) -> tuple[str, ...]:
    found = [(one.tau, one.tau_error), (one.stretch, one.stretch_error)]
    found.append((one.half_decay, one.half_decay_error))
    cells = [text for value, error in found for text in value_and_error(value, error)]
    age = f"{number(one.between[0], 4)} … {number(one.between[1], 4)}"
    return (age, number(one.phi, 4), *cells, number(one.half_decay_beside, 4), one.fit.quality.flag)


def _write(path: str, curves: Sequence[AgedG2]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        unit = "frames" if any(one.fit.counts_frames for one in curves) else "s"
        of_g2 = ("g2", "error", "pairs", "stretched", "fit_of_maps")
        writer.writerow((f"age_{unit}", "phi_deg", f"lag_{unit}", *of_g2))
        for one in curves:
            columns = (one.lag, one.g2, one.error, one.pairs, one.curve, one.beside)
            for row in zip(*columns, strict=True):
                cells = ("" if np.isnan(cell) else cell.item() for cell in row)
                writer.writerow((one.age, one.phi, *cells))


def g2_section(curves: Sequence[AgedG2], label: str = "", name: str = "") -> Section:
    """A line for each age and angle, their curves as a file, and a figure.

    `label`, `name`: of one of several data sets, and of its folder.
    """
    inside = f"fit/{name}" if name else "fit"
    header = (*_HEADER, "of the maps [s]", "verdict")
    content: list[Block] = [
        _MEANING.format(f"{inside}/g2.csv"),
        Table(header, [_row(one) for one in curves]),
    ]
    kept = ("age", "between", "phi", "tau", "tau_error", "stretch", "stretch_error")
    kept += ("half_decay", "half_decay_error", "half_decay_beside")
    units = {"age": "age_s", "between": "between_s", "phi": "phi_deg", "tau": "tau_s"}
    units |= {n: f"{n}_s" for n in kept if n.startswith("half") or n == "tau_error"}
    found = [
        {
            **{units.get(n, n): getattr(one, n) for n in kept},
            "contrast": one.fit.contrast[0],
            "offset": one.fit.offset[0],
            "verdict": one.fit.quality.flag,
            "findings": one.fit.quality.findings,
        }
        for one in curves
    ]
    return Section(
        "g2(τ) at chosen ages" + (f", {label}" if name else ""),
        content,
        {},
        {
            f"{inside}/g2.csv": lambda path: _write(path, curves),
            f"{inside}/g2.json": {"curves": found},
        },
        figures=lambda: (Drawing("g2", lambda: plotting().g2_figure(curves), _CAPTION),),
        folder=name,
    )
