"""What to do about parameters that the data do not tell apart."""

from typing import Any, NamedTuple

import numpy as np

from ...parameters.leaves import Leaf
from ...physics import PowerLawRate
from ..fit import Fit

# An exponent within this many errors of zero makes a power law a constant.
_NEAR_ZERO = 3.0
_MATTERS = 0.1


class Advice(NamedTuple):
    """Something to do: why, and how in Python and in a configuration."""

    action: str
    reason: str
    python: str
    toml: str

    def sentence(self) -> str:
        """All of it."""
        ways = " or ".join(f"`{one}`" for one in (self.python, self.toml) if one)
        return f"{self.action}, since {self.reason}" + (f": {ways}" if ways else "")


class PowerLaw(NamedTuple):
    """Names of a rate amplitude·t^exponent + offset of a model, and the field it is."""

    field: str
    amplitude: str
    exponent: str
    offset: str
    unit: str

    @property
    def names(self) -> tuple[str, str, str]:
        """Its three parameters."""
        return self.amplitude, self.exponent, self.offset


def power_laws(leaves: tuple[Leaf, ...], model: Any) -> tuple[PowerLaw, ...]:
    """The power laws with offset of a model."""
    by_path = {leaf.path: leaf for leaf in leaves if leaf.index is None}
    found = []
    for path, leaf in by_path.items():
        parent = model
        for part in path[:-1]:
            parent = getattr(parent, part)
        if isinstance(parent, PowerLawRate) and path[-1] == "amplitude":
            exponent, offset = (by_path[(*path[:-1], part)] for part in ("exponent", "offset"))
            unit = offset.info.unit
            found.append(PowerLaw(path[0], leaf.name, exponent.name, offset.name, unit))
    return tuple(found)


def advice_on(
    fit: Fit, concerned: set[str], laws: tuple[PowerLaw, ...], individual: bool
) -> tuple[Advice, ...]:
    """Advice on the fitted numbers that take part in weak directions.

    `individual`: whether each of several angles has a pair of contrast and offset of its own.
    """
    out = []
    for law in laws:
        if len(concerned & set(law.names)) > 1:
            out += _on_power_law(fit, law)
    physical = [name for name in fit.index.physical_names if name in concerned]
    scaling = [name for name in fit.index.scaling_names if name in concerned]
    shear = [name for name in physical if name == "phi0"]
    if shear:
        out.append(
            Advice(
                "select more azimuths, or fix phi0",
                "the flow direction trades against the shear rate where only cos(φ0 − φ)·γ̇ counts",
                'parameter_map(..., fixed=("phi0",))',
                "[parameters.phi0] free = false",
            )
        )
    if scaling and physical:
        where = "its" if not individual else "each angle's"
        out.append(
            Advice(
                "take longer lags, or several q together",
                f"{where} contrast or offset trades against {', '.join(physical)}: the maps "
                "contain neither the plateau at short lags nor the baseline at long ones",
                "least_squares(two_time_objective(...))",
                "several tables [[data]], or q as a list",
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
    known = {name for law in laws for name in law.names} | {"phi0"}
    others = [name for name in physical if name not in known]
    if others:
        out.append(
            Advice(
                f"fix or tie one of {', '.join(others)}",
                "the data do not tell them apart",
                f'parameter_map(..., fixed=("{others[-1]}",))',
                f"[parameters.{others[-1]}] free = false",
            )
        )
    return tuple(out)


def _on_power_law(fit: Fit, law: PowerLaw) -> list[Advice]:
    roles = {row.name: row for row in fit.rows}
    amplitude, exponent, offset = (roles[name] for name in law.names)
    out = []
    if offset.role == "free":
        flat = not np.isfinite(exponent.error) or (
            abs(exponent.value) < max(_NEAR_ZERO * exponent.error, _MATTERS)
        )
        reason = (
            f"{law.exponent} = {exponent.value:.2g} ± {exponent.error:.1g} is all but zero, where "
            f"{law.amplitude}·t^{law.exponent} is a constant like {law.offset}, and only "
            f"{law.amplitude} + {law.offset} counts"
            if flat
            else f"a power law and a constant look alike over the ages measured: {law.offset} = "
            f"{offset.value:.3g} ± {offset.error:.2g}"
        )
        out.append(
            Advice(
                f"fix {law.offset} at zero",
                reason,
                f'parameter_map(..., fixed=("{law.offset}",))',
                f"[parameters.{law.offset}] start = 0.0, free = false",
            )
        )
    elif exponent.role == "free" and amplitude.role == "free":
        out.append(
            Advice(
                f"fix {law.exponent}",
                "the ages measured span too little for an exponent",
                f'parameter_map(..., fixed=("{law.exponent}",))',
                f"[parameters.{law.exponent}] free = false",
            )
        )
    out.append(
        Advice(
            "quote the rate instead of its parameters, and its profile-likelihood interval",
            f"{law.field}(t) is determined where its parameters are not; slope and reference-time "
            "coordinates keep the solver and the sampler on it",
            f'fit.rate("{law.field}"), parameter_map(model, t, rates=ReferenceTime)',
            '[solver] coordinates = "reference_time"',
        )
    )
    out.append(
        Advice(
            "fit several q or scans together",
            f"{', '.join(law.names)} are shared by them while their noise is not, and other decay "
            "times look at other ages",
            "least_squares(two_time_objective(shared_parameters(models, times), data))",
            "several tables [[data]], or q as a list",
        )
    )
    return out
