"""What the tests of a fit found: whether the residuals could be those of a right model."""

from ..fitting import Fit
from ..uncertainty import Misfit
from .method import called
from .sections import (
    Block,
    Drawing,
    Entry,
    Heading,
    Section,
    Table,
    folder_names,
    number,
    probability_text,
)

# Probabilities below which the report says where.
_SMALL = 0.05
_WHAT = {
    "frame": "a frame unlike its neighbours",
    "lag": "mean residual by lag",
    "age": "mean residual by age",
    "angle": "lag and age, angle by angle",
    "map": "parameters, map by map",
    "scale": "scatter against neighbours",
}


def misfit_section(fit: Fit) -> Section:
    """The tests of each data set, with a figure of the mean residuals."""
    misfits = {label: part.misfit for label, part in fit.parts.items()}
    found = {label: misfit for label, misfit in misfits.items() if misfit is not None}
    if not found:
        return Section(document={"misfit": None})
    content: list[Block] = []
    titles = {label: called(fit.parts[label]) for label in found}
    for label, misfit in found.items():
        if len(fit.parts) > 1:
            content.append(Heading(titles[label]))
        content += _tests(misfit)
    return Section(
        "Does the model fit?",
        content,
        document={"misfit": {label: _document(misfit) for label, misfit in found.items()}},
        figures=lambda: _drawings(found, titles),
    )


def _tests(misfit: Misfit) -> list[Block]:
    rows = [
        (
            _WHAT.get(test.name, test.name),
            number(test.statistic, 4),
            str(test.degrees),
            probability_text(test.probability).removeprefix("= "),
        )
        for test in misfit.tests
    ]
    # Where it is small, the largest is chance like the others.
    told = [
        Entry(test.name, test.where.text)
        for test in misfit.tests
        if test.where and test.probability < _SMALL
    ]
    noise = ", ".join(f"{one:#.3g}" for one in misfit.noise[:6])
    more = "" if misfit.noise.size <= 6 else ", …"
    return [
        Table(("test", "statistic", "degrees", "probability of a right model"), rows),
        *told,
        Entry("noise of c2", f"{noise}{more} by angle, from differences of neighbouring entries"),
        Entry("variance", f"the residuals have {misfit.excess:.4g} times that of the noise"),
    ]


def _document(misfit: Misfit) -> dict:
    return {
        "tests": {
            test.name: {
                **{name: value for name, value in test._asdict().items() if name != "name"},
                "where": None if test.where is None else test.where._asdict(),
            }
            for test in misfit.tests
        },
        "noise": misfit.noise,
        "variance_ratio": misfit.excess,
        "sigma_ratio": misfit.sigma_ratio,
    }


def _drawings(found: dict[str, Misfit], titles: dict[str, str]) -> list[Drawing]:
    from .plots.curves import misfit_figure

    names = folder_names(tuple(found))
    return [
        Drawing(
            "mean_residuals" if len(found) == 1 else f"{name}/mean_residuals",
            lambda misfit=misfit: misfit_figure(misfit),
            (f"{titles[label]}: m" if len(found) > 1 else "M")
            + "ean residual by lag and by age, with the errors that a right model would have. "
            "Red points lie more than three of them from zero: there the model does not fit.",
        )
        for name, (label, misfit) in zip(names, found.items(), strict=True)
    ]
