"""What the data of a fit leave open: directions, profiles, and what to do."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ...parameters.leaves import parameter_leaves
from ...physics import degeneracies
from ...scaling import Individual
from ..fit import Fit
from .degeneracy_advice import Advice, PowerLaw, advice_on, power_laws
from .profile import ProfileCurve, profile_curve, profiled_parameter

# Eigenvalue of the normal matrix at unit diagonal, over the largest, below which a direction is
# listed: errors along it are then a hundred times those of its parameters by themselves.
WEAK = 1e-4
# Below this the data say nothing.
_NOTHING = 1e-12
# Parameters with less than this part of a direction are not named.
_PART = 0.2
_POINTS = 11
# Half the width of a profile of its own accord, in standard errors, and as a part of the bounds.
_ERRORS, _BOUNDS = 2.0, 0.25


class Direction(NamedTuple):
    """A direction in the space of all fitted numbers that the data hardly determine.

    - `ratio`: its eigenvalue over the largest, of the normal matrix at unit diagonal.
    - `names`, `shares`: who takes part, and by how much (parts of a unit vector at unit diagonal).
    - `step`: change of each along one standard error of independent pairs; infinite when
        nothing is known.
    """

    ratio: float
    names: tuple[str, ...]
    shares: tuple[float, ...]
    step: tuple[float, ...]
    units: tuple[str, ...]

    @property
    def open(self) -> bool:
        """Whether the data say nothing at all along it."""
        return self.ratio < _NOTHING

    def combination(self) -> str:
        """What of its two leading members is determined: they change together, this does not."""
        if len(self.names) < 2:
            return ""
        (a, b), ratio = self.names[:2], self.shares[0] / self.shares[1]
        if np.all(np.isfinite(self.step[:2])):
            ratio = self.step[0] / self.step[1]
        factor = "" if abs(abs(ratio) - 1) < 0.02 else f"{abs(ratio):.3g}·"
        return f"{a} {'+' if ratio < 0 else '−'} {factor}{b}"

    def sentence(self) -> str:
        """The direction in words."""
        if len(self.names) == 1:
            return f"the data say nothing of {self.names[0]} by themselves"
        together = " and ".join(
            f"{name} by {step:+.3g} {unit}".rstrip()
            for name, step, unit in zip(self.names, self.step, self.units, strict=True)
        )
        head = f"{', '.join(self.names)} can hardly be told apart (relative curvature "
        head += f"{self.ratio:.1e}): "
        if self.open:
            return head + f"the data determine {self.combination()} and nothing across it"
        return head + (
            f"changing {together} costs no more than one standard error, while "
            f"{self.combination()} is determined"
        )


class DegeneracyReport(NamedTuple):
    """Directions, exact degeneracies, profiles and advice of a fit.

    - `exact`: what no data of the kind can tell, from the model, in sentences.
    - `determined`: what is well known all the same, in sentences.
    """

    directions: tuple[Direction, ...]
    exact: tuple[str, ...]
    determined: tuple[str, ...]
    profiles: tuple[ProfileCurve, ...]
    advice: tuple[Advice, ...]
    condition_number: float

    @property
    def degenerate(self) -> bool:
        """Whether something is left open."""
        return bool(self.directions or self.exact or any(p.flat for p in self.profiles))

    def sentences(self) -> tuple[str, ...]:
        """Everything but the advice."""
        if not self.degenerate:
            return (
                f"every direction is determined (condition number {self.condition_number:.3g})",
                *(curve.sentence() for curve in self.profiles),
            )
        return (
            *self.exact,
            *(one.sentence() for one in self.directions),
            *(curve.sentence() for curve in self.profiles),
            *self.determined,
        )

    def report(self) -> str:
        """A text for people."""
        lines = [f"- {text}" for text in self.sentences()]
        if self.advice:
            lines += ["What to do:", *(f"- {one.sentence()}" for one in self.advice)]
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """The same in plain values, for JSON."""
        return {
            "degenerate": self.degenerate,
            "condition_number": self.condition_number,
            "exact": self.exact,
            "directions": [{**one._asdict(), "text": one.sentence()} for one in self.directions],
            "determined": self.determined,
            "profiles": [
                {**one._asdict(), "flat": one.flat, "text": one.sentence()} for one in self.profiles
            ],
            "advice": [one._asdict() for one in self.advice],
        }


def degeneracy_report(
    fit: Fit, profiles: Sequence[str] | None = None, *, points: int = _POINTS
) -> DegeneracyReport:
    """What the data leave open, and what to do about it.

    The directions are those of the normal matrix of all fitted numbers, contrast and offset
    included, at unit diagonal; the identity D0·t^α + D_offset near α = 0, where only D0 + D_offset
    is determined, is the best known.

    **Arguments:**

    - `profiles`: free parameters whose profile is drawn, each of `points` fits; by default the
        leading ones of the weakest direction, and none where all is determined.

    **Raises:** `ModelError` for a parameter that is not free.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> truth = xe.Static(xe.PowerLawRate(1e4, 0.0, 5e3))
    >>> t, geometry = 0.2 * np.arange(20), xe.Geometry(0.0054, np.array([0.0]))
    >>> data = xe.simulate(truth, t, geometry, 0.2, noise=0.002, key=jax.random.key(0))
    >>> fit = xe.least_squares(xe.projected_objective(xe.parameter_map(truth, data.t), data))
    >>> found = xe.fitting.degeneracy_report(fit, profiles=())
    >>> found.degenerate, found.directions[0].names[:2]
    (True, ('D0', 'D_offset'))
    """
    directions = weak_directions_of(fit)
    term = fit.objective.term
    laws = power_laws(parameter_leaves(fit.model), fit.model)
    bounds = {row.name: (row.lower, row.upper) for row in fit.rows if row.role == "free"}
    exact = tuple(
        f"{one.name}: {one.text}"
        for one in degeneracies(fit.model, np.asarray(term.t), term.geometry, bounds)
    )
    if profiles is None:
        leading = directions[0].names if directions else ()
        profiles = [name for name in leading if name in fit.index.physical_names][:2]
    # An error that holds a partner on its bound says nothing of the valley.
    lost = {name for one in directions for name in one.names if _spoilt(fit, one)}
    for name in profiles:
        profiled_parameter(fit, name)
    curves = tuple(
        profile_curve(fit, name, _range(fit, name, points, name in lost)) for name in profiles
    )
    individual = isinstance(term.scaling, Individual) and len(fit.contrast) > 1
    concerned = {name for one in directions for name in one.names}
    concerned |= {curve.name for curve in curves if curve.flat}
    return DegeneracyReport(
        directions,
        exact,
        tuple(text for law in laws if concerned & set(law.names) for text in _best_known(fit, law)),
        curves,
        advice_on(fit, concerned, laws, individual),
        float(fit.uncertainty.condition_number),
    )


def weak_directions_of(fit: Fit) -> tuple[Direction, ...]:
    """Directions of the normal matrix at unit diagonal below `WEAK`, the weakest first."""
    hessian = np.asarray(fit.joint_hessian)
    names, units = fit.index.names, {row.name: row.unit for row in fit.rows}
    diagonal = np.sqrt(np.maximum(np.diagonal(hessian), 0.0))
    unit = np.where(diagonal > 0, diagonal, 1.0)
    scaled = hessian / np.outer(unit, unit)
    values, vectors = np.linalg.eigh(0.5 * (scaled + scaled.T))
    variance = float(fit.uncertainty.residual_variance)
    found = []
    for i in np.flatnonzero(values < WEAK * max(values[-1], 1e-300)):
        vector, value = vectors[:, i], max(float(values[i]), 0.0)
        order = [j for j in np.argsort(-np.abs(vector)) if abs(vector[j]) > _PART][:4]
        vector = vector * np.sign(vector[order[0]])
        ratio = value / float(values[-1])
        length = np.sqrt(variance / value) if ratio > _NOTHING else np.inf
        steps = [
            float(length * vector[j] / diagonal[j]) if diagonal[j] > 0 else float("inf")
            for j in order
        ]
        found.append(
            Direction(
                ratio,
                tuple(names[j] for j in order),
                tuple(float(vector[j]) for j in order),
                tuple(steps),
                tuple(units[names[j]] for j in order),
            )
        )
    return tuple(found)


def _spoilt(fit: Fit, one: Direction) -> bool:
    return one.open or any(not np.isfinite(fit[name].error) for name in one.names)


def _range(fit: Fit, name: str, points: int, wide: bool) -> Float[np.ndarray, "point"]:
    """Values to look at: two standard errors either way, and within a quarter of finite bounds."""
    row = fit[name]
    half = _ERRORS * row.error if np.isfinite(row.error) and not wide else np.inf
    width = row.upper - row.lower
    if np.isfinite(width):
        half = min(half, _BOUNDS * width)
    if not np.isfinite(half):
        half = max(abs(row.value), 1.0)
    low, high = max(row.value - half, row.lower), min(row.value + half, row.upper)
    return np.linspace(low, high, points)


def _best_known(fit: Fit, law: PowerLaw) -> tuple[str, ...]:
    """The time at which the rate itself is known best."""
    value, error = fit.rate(law.field)
    relative = np.where(value != 0, np.abs(error / np.where(value != 0, value, 1.0)), np.inf)
    if not np.any(np.isfinite(relative)):
        return ()
    k = int(np.nanargmin(relative))
    return (
        f"the {law.field} rate as a whole is known best at t = {float(fit.objective.term.t[k]):.4g}"
        f" s: {float(value[k]):.5g} ± {float(error[k]):.2g} {law.unit}".rstrip(),
    )
