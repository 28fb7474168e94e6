"""What the likelihood leaves out of the spread of the draws, measured by the errors of the fit."""

import math

from ..fitting import Fit

# Quoted errors larger than this, over the classical ones, are worth a word.
LARGER = 1.2
_VARYING = ("free", "shared", "separate")


def widening(fit: Fit) -> float:
    """Largest quoted error of a physical parameter over its classical one; 1 where none is known.

    The classical error takes pairs as independent, as the likelihood does; the quoted one is a
    sandwich with the correlations that pairs of frames have by their common speckles.
    """
    ratios = [
        row.error / row.error_classical
        for row in fit.rows
        if row.role in _VARYING and row.error_classical > 0 and math.isfinite(row.error)
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


def quoted_errors(fit: Fit | None) -> tuple[tuple[str, float], ...]:
    """The quoted error of every entry of a fit by name."""
    return () if fit is None else tuple((row.name, float(row.error)) for row in fit.rows)
