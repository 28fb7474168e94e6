"""The table `[verdict]`: where a fit is no longer good."""

from typing import Annotated

from pydantic import Field

from ...fitting import Thresholds
from ..section import Positive, Section, key, made

Share = Annotated[float, Field(gt=0, lt=1)]


class Verdict(Section):
    """Where a verdict changes; a number that may be wrong makes exit code 1."""

    level: Share = key(
        Thresholds.level, "probability that a right model fails one of the tests of its residuals"
    )
    excess: Positive = key(
        Thresholds.excess, "variance of the residuals over that of the noise that is poor"
    )
    reduced_chi2: Annotated[list[Positive], Field(min_length=2, max_length=2)] = key(
        list(Thresholds.reduced_chi2), "above the first marginal, above the second poor"
    )
    contrast: Positive = key(Thresholds.contrast, "errors that a contrast must be above zero")
    rate: Positive = key(Thresholds.rate, "relative error of a decay that is not determined")
    sigma: Annotated[float, Field(gt=1)] = key(
        Thresholds.sigma, "factor between a given sigma and the noise of the maps, either way"
    )
    condition: Annotated[float, Field(gt=1)] = key(
        Thresholds.condition, "condition number of degenerate parameters"
    )
    correlation: Share = key(
        Thresholds.correlation, "correlation of parameters that are all but one"
    )


def thresholds_of(given: Verdict) -> Thresholds:
    """The thresholds of the settings."""
    return made(Thresholds, given)
