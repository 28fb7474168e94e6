"""What the data added to the prior, and how a posterior compares with a fit."""

from typing import NamedTuple

import numpy as np

from .posterior import Posterior


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
