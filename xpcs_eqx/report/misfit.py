"""What the tests of a fit found: whether the residuals could be those of a right model."""

from ..fitting import Fit
from ..uncertainty import Misfit
from .sections import Drawing, Section, entry, folder_names, number, table

# Probabilities below which the report says where.
_SMALL = 0.05
_WHAT = {
    "frame": "a frame unlike its neighbours",
    "lag": "mean residual by lag",
    "age": "mean residual by age",
    "angle": "lag and age, angle by angle",
    "scale": "scatter against neighbours",
}


def misfit_section(fit: Fit) -> Section:
    """The tests of each data set, with a figure of the mean residuals."""
    misfits = {label: part.misfit for label, part in fit.parts.items()}
    found = {label: misfit for label, misfit in misfits.items() if misfit is not None}
    if not found:
        return Section(document={"misfit": None})
    lines = []
    for label, misfit in found.items():
        if len(fit.parts) > 1:
            lines.append(f"  {label}")
        lines += [*_table(misfit), "", *_noise(misfit)]
    return Section(
        "Does the model fit?",
        lines,
        document={"misfit": {label: _document(misfit) for label, misfit in found.items()}},
        figures=lambda: _drawings(found),
    )


def _table(misfit: Misfit) -> list[str]:
    rows = [
        (
            _WHAT.get(test.name, test.name),
            number(test.statistic, 4),
            str(test.degrees),
            number(test.probability, 2),
        )
        for test in misfit.tests
    ]
    header = ("test", "statistic", "degrees", "probability")
    lines = table(header, rows)
    # Where it is small, the largest is chance like the others.
    told = [test.where.text for test in misfit.tests if test.where and test.probability < _SMALL]
    return [*lines, *(entry("largest", one) for one in told)]


def _noise(misfit: Misfit) -> list[str]:
    noise = ", ".join(f"{one:.3g}" for one in misfit.noise[:6])
    more = "" if misfit.noise.size <= 6 else ", …"
    ratio = f"{misfit.excess:.4g}"
    return [
        entry("noise of c2", f"{noise}{more} by angle, from differences of neighbouring entries"),
        entry("variance", f"the residuals have {ratio} times that of the noise"),
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


def _drawings(found: dict[str, Misfit]) -> list[Drawing]:
    from .plots.curves import misfit_figure

    names = folder_names(tuple(found))
    return [
        Drawing(
            "mean_residuals" if len(found) == 1 else f"{name}/mean_residuals",
            lambda misfit=misfit: misfit_figure(misfit),
        )
        for name, misfit in zip(names, found.values(), strict=True)
    ]
