"""What each layer of defence did, as a plain value."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..showing import counted
from .variation import GROUPS


class VariationReport(NamedTuple):
    """What the regularisation came to.

    - `kind`: class of the penalty; `weight`: λ in λ·CV²·MSE·n.
    - `variation`: coefficient of variation of contrast and offset at the end.
    - `share`: of the penalty in the minimised cost; `largest`: variation above which to warn.
    - `unpenalised`: coefficient of variation that contrast and offset would have without the
        penalty, by one Gauss–Newton step; `variation` where that is no more than chance.
    """

    kind: str
    weight: float
    variation: tuple[float, float]
    share: float
    largest: float
    unpenalised: tuple[float, float]

    @property
    def text(self) -> str:
        """The numbers in a sentence."""
        (contrast, offset), free = self.variation, self.unpenalised
        return (
            f"{self.kind}, λ = {self.weight:.4g}: {self.share:.3g} of the cost; coefficient of "
            f"variation {contrast:.3g} (contrast), {offset:.3g} (offset); {free[0]:.3g}, "
            f"{free[1]:.3g} without the penalty"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Groups that vary more than they should, or would if the penalty let them."""
        return tuple(
            f"{name} varies by {free:.1%} over the angles, or {held:.1%} under the penalty, and "
            f"more than {self.largest:.0%} was not expected: the scaling may be taking up what the "
            "model should explain, or it really differs"
            for name, held, free in zip(GROUPS, self.variation, self.unpenalised, strict=True)
            if max(held, free) > self.largest
        )


class MonitorReport(NamedTuple):
    """What the monitor saw: checks, the smallest ratio, and each alarm (check, what was done).

    - `ratios`: the last ratios of the gradients, oldest first.
    - `eliminated`: whether the scaling was eliminated, so that it had no gradient.
    """

    checks: int
    smallest: float
    alarms: tuple[tuple[int, str], ...]
    ratios: Float[np.ndarray, "recorded"]
    eliminated: bool


class WeightsReport(NamedTuple):
    """Shear weights by angle at the end, and the flow angle [degrees] they belong to."""

    phi0: float
    weights: Float[np.ndarray, "angle"]

    @property
    def text(self) -> str:
        """Their range in a phrase."""
        low, high = float(np.min(self.weights)), float(np.max(self.weights))
        return f"{low:.3g} … {high:.3g} for φ0 = {self.phi0:.4g}°"


class DataSetReport(NamedTuple):
    """What was done to contrast and offset of a data set, and to the weights of its angles."""

    label: str = ""
    regularisation: VariationReport | None = None
    shear_weights: WeightsReport | None = None

    def document(self) -> dict[str, Any]:
        """The same as plain numbers."""
        parts = {"regularisation": self.regularisation, "shear_weights": self.shear_weights}
        return {name: part._asdict() for name, part in parts.items() if part is not None}


class DefenceReport(NamedTuple):
    """Diagnostics of every layer that was on; None for the others.

    - `rounds`: fits with weights and penalties made anew; `change`: relative change of the physical
        parameters in the last of them; `settled`: whether that was small enough.
    - `hierarchical`: number of outer iterations.
    - `group_share`: share of the group-variance penalty in the cost.
    - `data_sets`: what the layers did to each.
    """

    rounds: int
    change: float
    settled: bool
    hierarchical: int | None = None
    monitor: MonitorReport | None = None
    group_share: float | None = None
    data_sets: tuple[DataSetReport, ...] = (DataSetReport(),)

    @property
    def regularisation(self) -> VariationReport | None:
        """That of the one data set; of several each has its own in `data_sets`."""
        return self.data_sets[0].regularisation if len(self.data_sets) == 1 else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the fit must know, in sentences."""
        out = []
        for one in self.data_sets:
            found = () if one.regularisation is None else one.regularisation.warnings
            out += [f"{one.label}: {text}" if one.label else text for text in found]
        if self.monitor is not None:
            out += [f"at check {check}: {text}" for check, text in self.monitor.alarms]
        if not self.settled:
            out.append(
                f"weights and penalties had not settled after {self.rounds} rounds: the physical "
                f"parameters still changed by {self.change:.1e}; allow more rounds"
            )
        return tuple(out)

    def entries(self) -> list[tuple[str, str]]:
        """Name and text of each layer, for a report."""
        out = []
        if self.hierarchical is not None:
            out.append(("hierarchical", counted(self.hierarchical, "outer iteration")))
        out += self._by_data_set("regularisation")
        if self.monitor is not None:
            one = self.monitor
            text = f"{one.checks} checks, smallest ratio of gradients {one.smallest:.3g}"
            if one.eliminated:
                text = f"{one.checks} checks; the scaling is eliminated and has no gradient to win"
            alarms = "; ".join(f"check {check}: {what}" for check, what in one.alarms)
            out.append(("monitor", f"{text}; {alarms or 'no alarm'}"))
        out += self._by_data_set("shear_weights")
        if self.group_share is not None:
            out.append(("group variance", f"{self.group_share:.3g} of the cost"))
        if self.rounds > 1 or not self.settled:
            state = "settled" if self.settled else "not settled"
            out.append(("rounds", f"{self.rounds}, {state}; last change {self.change:.1e}"))
        return out

    def _by_data_set(self, layer: str) -> list[tuple[str, str]]:
        name, found = layer.replace("_", " "), []
        for one in self.data_sets:
            part = getattr(one, layer)
            if part is not None:
                found.append((f"{name} [{one.label}]" if one.label else name, part.text))
        return found

    def document(self) -> dict[str, Any]:
        """The same as plain numbers."""
        out: dict[str, Any] = {
            "rounds": self.rounds,
            "change": self.change,
            "settled": self.settled,
            "warnings": list(self.warnings),
        }
        if self.hierarchical is not None:
            out["hierarchical"] = {"outer_iterations": self.hierarchical}
        if self.monitor is not None:
            out["monitor"] = self.monitor._asdict()
        if self.group_share is not None:
            out["group_variance"] = {"share": self.group_share}
        if len(self.data_sets) == 1:
            return out | self.data_sets[0].document()
        return out | {"data_sets": {one.label: one.document() for one in self.data_sets}}
