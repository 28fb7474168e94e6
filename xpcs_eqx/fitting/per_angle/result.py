"""The result of fits to single angles: parameters of all of them, and of each."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ...parameters import ParameterMap
from ...physics import AbstractCorrelation
from ..fit import Fit, ParameterRow
from .combine import AngleEstimate, Heterogeneity


class FailedAngle(NamedTuple):
    """An angle that was set aside: its number, azimuth [degrees], and why."""

    angle: int
    phi: float
    reason: str


class SequentialRow(NamedTuple):
    """A parameter of the combination; `error` is infinite where nothing determines it.

    `angles`: how many of the angles determine it within its bounds by themselves.
    """

    name: str
    value: float
    error: float
    unit: str
    angles: int


def _determined(row: ParameterRow) -> bool:
    """Whether an error is there, and smaller than what the bounds leave."""
    return bool(np.isfinite(row.error) and row.error < row.upper - row.lower)


def sequential_rows(
    parameters: ParameterMap,
    values: Float[np.ndarray, "free"],
    covariance: Float[np.ndarray, "free free"],
    fits: tuple[Fit, ...],
) -> tuple[SequentialRow, ...]:
    """The table of the combined parameters."""
    errors = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    units = dict(zip(parameters.names, parameters.units, strict=True))
    return tuple(
        SequentialRow(
            name,
            float(values[i]),
            float(errors[i]),
            units[name],
            sum(_determined(fit[name]) for fit in fits),
        )
        for i, name in enumerate(parameters.free_names)
    )


class SequentialFit(eqx.Module):
    """Fits to single angles and what they say together.

    - `model`: at the combined parameters; `values`, `covariance`: of the free ones.
    - `fits`: of the angles that succeeded, whose numbers are in `angles`; `phi`: azimuths of all
        angles [degrees]; `failed`: the others, with reasons.
    - `estimates`: what was combined, in coordinates of `parameters`.
    - `heterogeneity`: whether the angles agree.
    - `combination`: class of the combination; `rows`: its parameters, ready for a table.
    """

    parameters: ParameterMap
    model: AbstractCorrelation
    values: Float[np.ndarray, "free"]
    covariance: Float[np.ndarray, "free free"]
    fits: tuple[Fit, ...]
    estimates: tuple[AngleEstimate, ...]
    phi: Float[np.ndarray, "angle"]
    heterogeneity: Heterogeneity
    angles: tuple[int, ...] = eqx.field(static=True)
    failed: tuple[FailedAngle, ...] = eqx.field(static=True)
    combination: str = eqx.field(static=True)
    rows: tuple[SequentialRow, ...] = eqx.field(static=True)

    @property
    def success_rate(self) -> float:
        """Share of the angles that could be fitted by themselves."""
        return len(self.fits) / len(self.phi)

    @property
    def findings(self) -> tuple[str, ...]:
        """What to know about the combination, in sentences."""
        out = [self.heterogeneity.finding()]
        rows = self.rows
        lone = [row.name for row in rows if row.angles == 0 and np.isfinite(row.error)]
        if lone:
            out.append(
                f"no single angle determines {', '.join(lone)}: only a combination of them is, and "
                "their values follow from how it differs between angles, to first order; fit all "
                "angles together (least_squares)"
            )
        for row in rows:
            if not np.isfinite(row.error):
                out.append(
                    f"{row.name} is not determined by the angles, alone or together: fix it or "
                    "change the model"
                )
        for one in self.failed:
            out.append(f"angle {one.angle} ({one.phi:g} deg) was set aside: {one.reason}")
        return tuple(out)

    def __getitem__(self, name: str) -> SequentialRow:
        """The row of a free parameter.

        **Raises:** `KeyError` listing the names there are.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no parameter {name!r}; there are {', '.join(r.name for r in self.rows)}")

    def report(self) -> str:
        """Combined parameters, then those of each angle, as tables."""
        names = self.parameters.free_names
        lines = [
            f"{len(self.fits)} of {len(self.phi)} angles fitted by themselves, combined by "
            f"{self.combination}"
        ]
        for row in self.rows:
            lines.append(
                f"  {row.name:20s} {row.value:12.6g} ± {row.error:<9.3g} {row.unit:14s} "
                f"determined at {row.angles} angles"
            )
        lines.append("  " + f"{'phi [deg]':>10s} " + " ".join(f"{n:>24s}" for n in names))
        for a, fit in zip(self.angles, self.fits, strict=True):
            cells = [f"{fit[n].value:.5g} ± {fit[n].error:.2g}" for n in names]
            lines.append(f"  {self.phi[a]:10.4g} " + " ".join(f"{cell:>24s}" for cell in cells))
        return "\n".join([*lines, *(f"  {text}" for text in self.findings)])

    def __repr__(self) -> str:
        """The combined parameters."""
        lines = [f"SequentialFit of {len(self.fits)} of {len(self.phi)} angles"]
        lines += [
            f"  {r.name} = {r.value:.6g} ± {r.error:.2g} {r.unit}".rstrip() for r in self.rows
        ]
        return "\n".join(lines)
