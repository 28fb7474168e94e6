"""J(t) and γ̇(t) of a fit with their errors."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..fitting import Fit
from ..physics import AbstractRate

# What is on the axis; a rate of another name stands there by that name.
LABELS = {"transport": "J(t) [Å²/s]", "shear": "γ̇(t) [1/s]"}


@dataclass(frozen=True)
class RateCurve:
    """A rate at the frame times `t` [s] with its quoted standard error."""

    field: str
    label: str
    t: Float[np.ndarray, "frame"]
    value: Float[np.ndarray, "frame"]
    error: Float[np.ndarray, "frame"]


def rate_curves(fit: Fit) -> tuple[RateCurve, ...]:
    """The rates that the model of a fit has."""
    names = [field.name for field in dataclasses.fields(fit.model)]
    fields = tuple(name for name in names if isinstance(getattr(fit.model, name), AbstractRate))
    t = np.asarray(fit.objective.term.t)
    t = np.maximum(t, 0.5 * (t[1] - t[0]))
    return tuple(
        RateCurve(field, LABELS.get(field, f"{field}(t)"), t, value, error)
        for field, (value, error) in zip(fields, map(fit.rate, fields), strict=True)
    )
