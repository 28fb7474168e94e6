"""What was fitted, by which model, and how the minimum was found."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..data import Provenance
from ..fitting import Fit
from ..objective import Linear, has_bins
from ..objective.combined import is_likelihood
from ..objective.two_time import loss_of
from ..physics import AbstractCorrelation, LaminarFlow, PowerLawRate, Trapezoid
from ..physics.rates import rates_in
from ..showing import without_q
from .maps import has_maps, has_weights
from .sections import APPENDIX, Block, Entry, Section, Table, counted, number, plotting

STRONG_CORRELATION = 0.9


@dataclass(frozen=True)
class Origin:
    """What is known of a data set beside its fit.

    - `provenance`: where it came from.
    - `scaling`: which scaling ran, and why.
    - `weight`: of its squared residuals, as it was given; chi² contains it, the standard deviation
        of residuals does not.
    """

    provenance: Provenance = field(default_factory=Provenance)
    scaling: str = ""
    weight: float = 1.0

    @property
    def has_q(self) -> bool:
        """Whether q is known; where it is not, 1 stands for it."""
        return self.provenance.has_q


def model_name(model: AbstractCorrelation) -> str:
    """The model, rates other than power laws, and, where it has one, its shear kernel."""
    name = type(model).__name__
    for field_name, rate in rates_in(model).items():
        if not isinstance(rate, PowerLawRate):
            name += f", {field_name} {type(rate).__name__}"
            if isinstance(rate, Trapezoid):
                name += f" of {type(rate.rate).__name__}"
    if isinstance(model, LaminarFlow):
        name += f", shear kernel {type(model.shear_kernel).__name__}"
    return name


def sigma_text(fit: Fit) -> str:
    """Whether sigma is known, and what becomes of errors and chi²."""
    term = fit.objective.term
    if is_likelihood(fit.objective):
        return "not used: the likelihood knows the noise of speckle"
    if term.absolute_sigma:
        return "given: chi² and errors are absolute"
    if has_weights(term.tiles):
        return "relative or estimated: it weighs the pairs, errors are scaled by the residuals"
    return "not given: errors are scaled by the residuals"


def told(model: AbstractCorrelation) -> str:
    """What a model describes, by the first sentence of its class, and its name."""
    said = (type(model).__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    first = " ".join(said.split()).rstrip(".")
    return f"{first} ({model_name(model)})" if first else model_name(model)


def every_pair(fit: Fit) -> int:
    """Pairs of frames of all angles of a data set, masked or not."""
    term = fit.objective.term
    return term.geometry.phi.shape[0] * math.comb(term.t.shape[0], 2)


def called(part: Fit) -> str:
    """A data set in a title: by its label, or by its q where that is its label."""
    q = f"{float(part.objective.term.geometry.q):.6g}"
    return f"q = {q} 1/Å" if part.label == q else part.label


def unit_of(fit: Fit, unit: str) -> str:
    """The unit of a rate of a fit, without the length that it has not where q is not known."""
    known = any("Å" in row.unit for row in fit.rows)
    return unit if known else without_q(unit)


def strong_correlations(fit: Fit) -> list[tuple[str, str, float]]:
    """Pairs of entries whose quoted correlation exceeds 0.9, strongest first."""
    matrix, names = fit.uncertainty.correlation(), fit.names
    found = [
        (names[j], names[i], float(matrix[i, j]))
        for i in range(len(names))
        for j in range(i)
        if abs(matrix[i, j]) > STRONG_CORRELATION
    ]
    return sorted(found, key=lambda entry: -abs(entry[2]))


def data_section(fit: Fit, origins: Sequence[Origin]) -> Section:
    """What was fitted: a line for each property of one data set, or for each of several."""
    if fit.data_sets:
        return Section("Data sets", _several_data(fit, origins))
    (origin,) = origins
    provenance, term = origin.provenance, fit.objective.term
    t, phi, content = np.asarray(term.t), term.geometry.phi, []
    if provenance.path or provenance.layout:
        name = f"{os.path.basename(provenance.path)} ({provenance.layout})"
        sha = f", sha256 {provenance.sha256[:16]}…" if provenance.sha256 else ""
        content.append(Entry("file", name + sha))
    likelihood = is_likelihood(fit.objective)
    diagonal = (
        "with the diagonal where that of the data is known"
        if likelihood
        else "without the diagonal"
    )
    pairs = f"{fit.n_pairs}, each unordered pair once, {diagonal}"
    if has_maps(fit) and not likelihood:
        pairs += f"; {every_pair(fit) - fit.n_pairs} masked"
    if has_bins(term.tiles):
        pairs = f"{fit.n_pairs} bins of age and lag, each a mean over its pairs of frames"
    frames = counted(t.shape[0], "frame")
    times = f"{frames}, {t[0]:.6g} … {t[-1]:.6g} s"
    content.append(Entry("maps", f"{counted(phi.shape[0], 'angle')}, {times}"))
    if origin.has_q:
        content.append(Entry("q", f"{float(term.geometry.q):.6g} 1/Å"))
    if _has_gap(fit.model):
        content.append(Entry("gap", f"{float(term.geometry.gap):.6g} Å"))
    content += [
        Entry("pairs", pairs),
        Entry("sigma", sigma_text(fit)),
        *(Entry("note", note) for note in provenance.notes),
    ]
    place = {"q_per_angstrom": term.geometry.q} if origin.has_q else {}
    place |= {
        "gap_angstrom": term.geometry.gap,
        "phi_deg": phi,
        "frames": t.shape[0],
        "first_s": t[0],
        "last_s": t[-1],
    }
    file = os.path.basename(provenance.path)
    return Section("Data", content, {"data": {"file": file, **place}}, place=APPENDIX)


def _has_gap(model: AbstractCorrelation) -> bool:
    """Whether the gap of the cell enters; of models that are not of this package it may."""
    return isinstance(model, LaminarFlow) or not type(model).__module__.startswith("xpcs_eqx.")


def _several_data(fit: Fit, origins: Sequence[Origin]) -> list[Block]:
    header = ["data set", "file", "q [1/Å]", "angles", "frames", "pairs"]
    rows, notes, known = [], {}, fit.data_sets[0].objective.term.absolute_sigma
    # A likelihood has no weights, and a deviance in place of squares.
    squares = not is_likelihood(fit.objective)
    header += ["weight", "residual sd"] if squares else []
    for (label, one), origin in zip(fit.parts.items(), origins, strict=True):
        term = one.objective.term
        row = [
            label,
            os.path.basename(origin.provenance.path) or origin.provenance.layout,
            number(float(term.geometry.q)) if origin.has_q else "-",
            str(term.geometry.phi.shape[0]),
            str(term.t.shape[0]),
            str(one.n_pairs),
        ]
        if squares:
            # Residuals of the fit are multiplied by the root of the weight.
            spread = one.residual_sd / np.sqrt(origin.weight)
            row += [number(origin.weight, 4), number(spread, 4)]
        # Without sigma it is a mere sum of squares.
        rows.append([*row, number(float(one.chi2), 6)] if known else row)
        notes[label] = origin.provenance.notes
    sigma = Entry("sigma", sigma_text(fit.data_sets[0]))
    header += ["χ²"] if known else []
    return [Table(header, rows), sigma, *_by_value("note", notes)]


def model_section(fit: Fit, origins: Sequence[Origin], decisions: Sequence[str]) -> Section:
    """Models and scalings, and what else was chosen without the user."""
    content = _by_value("model", {k: [told(one.model)] for k, one in fit.parts.items()})
    content += _by_value("knots", {k: _knots(one.model) for k, one in fit.parts.items()})
    scalings = {
        label: [origin.scaling or type(one.objective.term.scaling).__name__]
        for (label, one), origin in zip(fit.parts.items(), origins, strict=True)
    }
    content += _by_value("scaling", scalings)
    content += [Entry("note", one) for one in decisions]
    return Section("Model", content, place=APPENDIX)


def _knots(model: AbstractCorrelation) -> list[str]:
    """The ages that the values of a rate belong to, of each rate that is given by values.

    >>> from xpcs_eqx.physics import PiecewiseConstantRate, SplineRate, Static
    >>> _knots(Static(SplineRate([1.0, 10.0], 1e4))), _knots(Static(PowerLawRate(1e4)))
    (['transport at the ages 1, 10 s'], [])
    >>> _knots(Static(PiecewiseConstantRate([2.5], 1e4)))
    ['transport with steps at 2.5 s']
    """
    found = []
    for name, rate in rates_in(model).items():
        for what, at in (("knots", "at the ages"), ("breaks", "with steps at")):
            if (ages := getattr(rate, what, None)) is not None:
                every = ", ".join(number(float(age), 4) for age in ages)
                found.append(f"{name} {at} {every} s")
    return found


def _by_value(what: str, said: Mapping[str, Sequence[str]]) -> list[Entry]:
    """An entry for each text, with the labels of the data sets that say it where not all do."""
    labels: dict[str, list[str]] = {}
    for label, one in ((label, one) for label, texts in said.items() for one in texts):
        labels.setdefault(one, []).append(label)
    return [
        Entry(what, one if len(those) == len(said) else f"{one} ({', '.join(those)})")
        for one, those in labels.items()
    ]


# Of a fit and of its uncertainty, what stands in the document by the same name.
_NUMBERS = ("cost", "chi2", "degrees_of_freedom", "reduced_chi2", "residual_sd")
_NUMBERS += ("evaluations", "iterations")
_DOUBTS = ("condition_number", "weak_directions", "shot_noise")
# The steps of a solver as the literature calls them.
_STEPS = {
    "DampedNewtonDescent": "Levenberg–Marquardt steps",
    "DoglegDescent": "dogleg steps",
    "ShortenedNewtonDescent": "Gauss–Newton steps",
}


def solver_section(fit: Fit) -> Section:
    """How the minimum was found, and how good it is."""
    # One loss serves for all data sets.
    loss, uncertainty = loss_of(next(iter(fit.parts.values())).objective), fit.uncertainty
    name = type(loss).__name__
    name = "least squares" if isinstance(loss, Linear) else f"robust loss {name}"
    likelihood = is_likelihood(fit.objective)
    if likelihood:
        name = "likelihood of speckle"
    if "scale" in vars(loss):
        name += f", bending at {float(vars(loss)['scale']):.4g}"
    *before, steps = fit.solver_name.split(", ")
    content: list[Block] = [
        Entry("ended", fit.message),
        Entry("minimised", name),
        Entry("solver", ", ".join([*before, _STEPS.get(steps, steps)])),
        Entry("evaluations", f"{fit.evaluations}, {fit.iterations} accepted"),
        Entry("freedom", f"{fit.degrees_of_freedom} degrees of freedom"),
    ]
    if likelihood:
        content.append(Entry("deviance", f"{float(fit.chi2):.8g}"))
    elif math.isfinite(fit.reduced_chi2):
        content.append(Entry("χ²", f"{float(fit.chi2):.8g}"))
    content += [
        Entry("condition", f"{float(uncertainty.condition_number):.3g} of the normal matrix"),
        Entry("error", f"{uncertainty.chosen}: {uncertainty.reason}"),
    ]

    return Section(
        "Fit",
        content,
        {
            "quoted_error": uncertainty.chosen,
            "quoted_error_reason": uncertainty.reason,
            "pairs": fit.n_pairs,
            **{name: getattr(fit, name) for name in _NUMBERS},
            **{name: getattr(uncertainty, name) for name in _DOUBTS},
            "strong_correlations": strong_correlations(fit),
            "pixels": uncertainty.n_pixels,
            "solver": fit.solver_name,
            "recovery": [action._asdict() for action in fit.recovery],
            "timings_s": dict(fit.timings),
            "history": fit.history.__dict__,
        },
        figures=lambda: plotting().solver_drawings(fit),
        place=APPENDIX,
    )
