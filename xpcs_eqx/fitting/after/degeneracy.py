"""What the data of a fit leave open: directions, profiles, and what to do."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ...arguments import quiet_arithmetic
from ...parameters.shared import base_of
from ...physics import PowerLawRate
from ...physics.leaves import parameter_leaves
from ...scaling import Individual
from ...showing import curvature_text, per_frame, with_error
from ..fit import Fit, hessian_of_maps
from .profile import ProfileCurve, profile_curve, profiled_parameter

# An exponent within this many errors of zero makes a power law a constant.
_NEAR_ZERO = 3.0
_MATTERS = 0.1


class Advice(NamedTuple):
    """Something to do: why, and how in Python and in a configuration."""

    action: str
    reason: str
    python: str
    toml: str

    @classmethod
    def to_fix(cls, name: str, reason: str, action: str | None = None, to: str = "") -> "Advice":
        """To hold a parameter where it is, or at the value `to`."""
        python = f'parameter_map(..., fixed=("{name}",))'
        # In a key of TOML brackets want quotes.
        table = f'"{name}"' if "[" in name else name
        toml = f"[parameters.{table}] {f'start = {to}, ' if to else ''}free = false"
        return cls(action or f"fix {name}", reason, python, toml)

    def sentence(self) -> str:
        """All of it."""
        ways = " or ".join(f"`{one}`" for one in (self.python, self.toml) if one)
        return f"{self.action}, since {self.reason}" + (f": {ways}" if ways else "")


class PowerLaw(NamedTuple):
    """Names of a rate amplitude·t^exponent + offset in a fit, and the field it is in the model.

    `label`: of the data set, the first of those that share it.
    """

    field: str
    amplitude: str
    exponent: str
    offset: str
    unit: str
    label: str

    @property
    def names(self) -> tuple[str, str, str]:
        """Its three parameters."""
        return self.amplitude, self.exponent, self.offset


def power_laws(fit: Fit) -> tuple[PowerLaw, ...]:
    """The power laws with offset of the models of a fit, by public name, shared ones once."""
    found: dict[tuple[str, ...], PowerLaw] = {}
    for k, (label, part) in enumerate(fit.parts.items()):
        public = fit.objective.parameters.carriers(k) if fit.data_sets else {}
        leaves = {leaf.path: leaf for leaf in parameter_leaves(part.model)}
        for path in leaves:
            owner = reduce(getattr, path[:-1], part.model)
            if isinstance(owner, PowerLawRate) and path[-1] == "amplitude":
                own = [leaves[(*path[:-1], one)] for one in ("amplitude", "exponent", "offset")]
                names = [public.get(leaf.name, leaf.name) for leaf in own]
                law = PowerLaw(path[0], *names, unit=own[-1].info.unit, label=label)
                found.setdefault(law.names, law)
    return tuple(found.values())


def advice_on(fit: Fit, concerned: set[str], laws: tuple[PowerLaw, ...]) -> tuple[Advice, ...]:
    """Advice on the fitted numbers that take part in weak directions."""
    individual = any(
        isinstance(one.objective.term.scaling, Individual) and len(one.contrast) > 1
        for one in fit.parts.values()
    )
    out = []
    for law in laws:
        if len(concerned & set(law.names)) > 1:
            out += _on_power_law(fit, law)
    free = fit.objective.physical.free_names
    physical = [name for name in free if name in concerned]
    scaling = [row.name for row in fit.rows if row.role == "scaling" and row.name in concerned]
    directions = [name for name in physical if base_of(name) == "phi0"]
    for name in directions:
        reason = "the flow direction trades against the shear rate where only cos(φ0 − φ)·γ̇ counts"
        out.append(Advice.to_fix(name, reason, f"select more azimuths, or fix {name}"))
    if scaling and physical:
        where = "its" if not individual else "each angle's"
        out.append(
            Advice(
                "take longer lags, or several q together",
                f"{where} contrast or offset trades against {', '.join(physical)}: the maps "
                "contain neither the plateau at short lags nor the baseline at long ones",
                "least_squares(two_time_objective(...))",
                "[joint], or [[data]] for each",
            )
        )
        if individual:
            out.append(
                Advice(
                    "share contrast and offset between the angles, if the fit then says nothing "
                    "against it",
                    "one pair in place of one for each angle leaves more to the physics; where the "
                    "contrast really varies, the fit warns",
                    "Averaged(n_angles)",
                    '[scaling] mode = "averaged"',
                )
            )
    known = {*directions, *(name for law in laws for name in law.names)}
    others = [name for name in physical if name not in known]
    if others:
        what, reason = f"fix or tie one of {', '.join(others)}", "the data do not tell them apart"
        out.append(Advice.to_fix(others[-1], reason, what))
    if fit.data_sets:
        python = [one.python.replace("parameter_map(", "shared_parameters(") for one in out]
        out = [one._replace(python=how) for one, how in zip(out, python, strict=True)]
    return tuple(out)


def _on_power_law(fit: Fit, law: PowerLaw) -> list[Advice]:
    roles = {row.name: row for row in fit.rows}
    amplitude, exponent, offset = (roles[name] for name in law.names)
    part = f"fit.parts[{law.label!r}]" if fit.data_sets else "fit"
    out = []
    if offset.varies:
        flat = not np.isfinite(exponent.error) or (
            abs(exponent.value) < max(_NEAR_ZERO * exponent.error, _MATTERS)
        )
        reason = (
            f"{law.exponent} = {with_error(exponent.value, exponent.error)} is all but zero, where "
            f"{law.amplitude}·t^{law.exponent} is a constant like {law.offset}, and only "
            f"{law.amplitude} + {law.offset} counts"
            if flat
            else f"a power law and a constant look alike over the ages measured: {law.offset} = "
            f"{with_error(offset.value, offset.error)}"
        )
        out.append(Advice.to_fix(law.offset, reason, f"fix {law.offset} at zero", "0.0"))
    elif exponent.varies and amplitude.varies:
        reason = "the ages measured span too little for an exponent"
        out.append(Advice.to_fix(law.exponent, reason))
    out.append(
        Advice(
            "quote the rate instead of its parameters, and its profile-likelihood interval",
            f"{law.field}(t) is determined where its parameters are not; slope and reference-time "
            "coordinates keep the solver and the sampler on it",
            f'{part}.rate("{law.field}"), parameter_map(model, t, rates=ReferenceTime)',
            '[solver] coordinates = "reference_time"',
        )
    )
    if not fit.data_sets:
        out.append(
            Advice(
                "fit several q or scans together",
                f"{', '.join(law.names)} are shared by them while their noise is not, and other "
                "decay times look at other ages",
                "least_squares(two_time_objective(shared_parameters(models, times), data))",
                "[joint], or [[data]] for each",
            )
        )
    return out


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
    - `step`: change of each along one standard error of independent pairs; where the data say
        nothing, along any other length.
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
        """What of its two members is determined: they change together, this does not."""
        if len(self.names) != 2 or not all(self.step):
            return ""
        (a, b), ratio = self.names, self.step[0] / self.step[1]
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
        known = self.combination()
        head = f"{', '.join(self.names)} can hardly be told apart ({curvature_text(self.ratio)}): "
        if self.open:
            return f"{head}the data determine {known or 'combinations of them'} and nothing else"
        cost = f"changing {together} costs no more than one standard error"
        return head + cost + (f", while {known} is determined" if known else "")


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


@quiet_arithmetic
def degeneracy_report(
    fit: Fit, profiles: Sequence[str] | None = None, *, points: int = _POINTS
) -> DegeneracyReport:
    """What the data leave open, of one data set or of several, and what to do about it.

    The directions are those of the normal matrix of all fitted numbers, contrast and offset
    included, at unit diagonal; the identity D0·t^α + D_offset near α = 0, where only D0 + D_offset
    is determined, is the best known.

    **Arguments:**

    - `profiles`: free parameters whose profile is drawn, each of `points` fits; by default the
        leading ones of the weakest direction, and none where all is determined.

    **Raises:** `ModelError` for a parameter that is not free, and for the fit of a curve.

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
    directions, laws = weak_directions_of(fit), power_laws(fit)
    exact = tuple(f"{one.name}: {one.text}" for one in fit.remarks[1])
    if profiles is None:
        leading, free = directions[0].names if directions else (), fit.objective.physical.free_names
        profiles = [name for name in leading if name in free][:2]
    # An error that holds a partner on its bound says nothing of the valley.
    spoilt = (
        one
        for one in directions
        if one.open or not all(np.isfinite(fit[name].error) for name in one.names)
    )
    lost = {name for one in spoilt for name in one.names}
    for name in profiles:
        profiled_parameter(fit, name)
    curves = tuple(
        profile_curve(fit, name, _range(fit, name, points, name in lost)) for name in profiles
    )
    concerned = {name for one in directions for name in one.names}
    concerned |= {curve.name for curve in curves if curve.flat}
    return DegeneracyReport(
        directions,
        exact,
        tuple(text for law in laws if concerned & set(law.names) for text in _best_known(fit, law)),
        curves,
        advice_on(fit, concerned, laws),
        float(fit.uncertainty.condition_number),
    )


def weak_directions_of(fit: Fit) -> tuple[Direction, ...]:
    """Directions of the normal matrix at unit diagonal below `WEAK`, the weakest first."""
    hessian = np.asarray(hessian_of_maps(fit))
    names, units = fit.names, {row.name: row.unit for row in fit.rows}
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
        # All of them vanish where the data say nothing at all.
        ratio = value / float(values[-1]) if values[-1] > 0 else 0.0
        # Any length where the data say nothing.
        length = np.sqrt(variance / max(value, _NOTHING * float(values[-1]), 1e-300))
        steps = np.where(diagonal[order] > 0, length * vector[order] / unit[order], np.inf)
        found.append(
            Direction(
                ratio,
                tuple(names[j] for j in order),
                tuple(vector[order].tolist()),
                tuple(steps.tolist()),
                tuple(units[names[j]] for j in order),
            )
        )
    return tuple(found)


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
    part = fit.parts[law.label]
    value, error = part.rate(law.field)
    relative = np.where(value != 0, np.abs(error / np.where(value != 0, value, 1.0)), np.inf)
    if not np.any(np.isfinite(relative)):
        return ()
    k = int(np.nanargmin(relative))
    where = f" of {law.label}" if len(fit.parts) > 1 else ""
    said = (
        f"the {law.field} rate{where} as a whole is known best at "
        f"t = {float(part.objective.term.t[k]):.4g} s: "
        f"{with_error(float(value[k]), float(error[k]))} {law.unit}".rstrip()
    )
    return (per_frame(said) if part.counts_frames else said,)
