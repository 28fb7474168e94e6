"""The layers of defence as one value, what answers a collapse, and the objective they make."""

import dataclasses
import re
from abc import abstractmethod
from typing import Annotated, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..arguments import Count, Positive, Within, check_fields
from ..errors import ModelError
from ..objective import (
    AbstractLinearScalingPenalty,
    GroupVariance,
    Linear,
    joint_of,
    with_penalties,
)
from ..objective.combined import AnyObjective, parts_of, with_parts
from ..parameters.leaves import check_names
from ..parameters.variables import physical_of
from .hierarchical import Hierarchical
from .monitor import GradientMonitor
from .report import WeightsReport
from .several import (
    Scalings,
    check_two_time,
    coefficients_of,
    is_joint,
    local_coordinates,
    per_angle_of,
    variables_at,
)
from .shear_weights import ShearWeights, check_shear_weights, with_shear_weights
from .stages import angle_cost
from .variation import AbstractRegularisation


class AbstractResponse(eqx.Module):
    """What is done about a collapse. `interrupts`: whether the fit under way is left for it."""

    interrupts: ClassVar[bool]

    __check_init__ = check_fields

    @property
    @abstractmethod
    def name(self) -> str:
        """What it does, as a phrase."""

    @abstractmethod
    def after(
        self, layers: "DefenceLayers", objective: AnyObjective, x: Float[np.ndarray, "variable"]
    ) -> tuple["DefenceLayers", Float[np.ndarray, "variable"]] | None:
        """The layers and the variables with which to go on; None ends the fit.

        `objective` is the one whose gradients have collapsed, `x` its variables at the best so far.
        """


class Warn(AbstractResponse):
    """The fit goes on, and the report says so."""

    interrupts: ClassVar[bool] = False

    @property
    def name(self):
        return "warned, the fit went on"

    def after(self, layers, objective, x):
        return layers, x


class GoHierarchical(AbstractResponse):
    """The fit goes on with physical parameters and scaling in turn.

    - `method`: the alternation; one that is in force already is kept.
    """

    interrupts: ClassVar[bool] = True
    method: Hierarchical = Hierarchical()

    @property
    def name(self):
        return "went on with physical parameters and scaling in turn"

    def after(self, layers, objective, x):
        return dataclasses.replace(layers, hierarchical=layers.hierarchical or self.method), x


class ResetScaling(AbstractResponse):
    """Contrast and offset go to their means over the angles, and λ of the regularisation grows.

    - `factor`: of λ. Without it the fit would only collapse again: `DefenceLayers` refuse a reset
        without regularisation.

    **Raises:** `ModelError` for a factor below one.
    """

    interrupts: ClassVar[bool] = True
    factor: Annotated[float, Within(ge=1)] = 10.0

    @property
    def name(self):
        return f"reset the scaling to its mean, λ times {self.factor:g}"

    def after(self, layers, objective, x):
        chosen = layers.regularisation
        if chosen is not None:
            chosen = dataclasses.replace(chosen, factor=chosen.factor * self.factor)
        if is_joint(objective):
            p = objective.physical.n_free
            per_angle = per_angle_of(objective, x[p:])
            means = [np.broadcast_to(np.mean(one, axis=0), one.shape) for one in per_angle]
            x = variables_at(objective, x[:p], coefficients_of(objective, means))
        return dataclasses.replace(layers, regularisation=chosen), x


class Abort(AbstractResponse):
    """The fit ends with the best point so far, as not converged."""

    interrupts: ClassVar[bool] = True

    @property
    def name(self):
        return "ended the fit at the best point so far"

    def after(self, layers, objective, x):
        return None


class Monitoring(eqx.Module):
    """A monitor and what is done when it sees a collapse.

    - `watched`: names of physical parameters to watch one by one.
    - `limit`: responses at most; later collapses are only reported.
    """

    monitor: GradientMonitor = GradientMonitor()
    response: AbstractResponse = Warn()
    watched: tuple[str, ...] = eqx.field(static=True, default=())
    limit: Count = eqx.field(static=True, default=3)

    __check_init__ = check_fields


class DefenceLayers(eqx.Module):
    """Which layers defend a fit; None leaves one out.

    - `hierarchical`: physical parameters and scaling in turn instead of together.
    - `regularisation`: contrast and offset drawn together by their coefficient of variation.
    - `monitoring`: for gradient collapse.
    - `shear_weights`: of the angles, by the flow angle found so far.
    - `group_variance`: physical parameters drawn to the means of their groups.
    - `rounds`: at most, each with weights and penalties made from the fit before; one that is left
        for a response to a collapse is not counted. `tolerance`: relative change of the physical
        parameters at which these are taken to have settled.

    **Raises:** `ModelError` for numbers outside their range, and for a reset that has no
    regularisation to raise.
    """

    hierarchical: Hierarchical | None = None
    regularisation: AbstractRegularisation | None = None
    monitoring: Monitoring | None = None
    shear_weights: ShearWeights | None = None
    group_variance: GroupVariance | None = None
    rounds: Count = eqx.field(static=True, default=10)
    tolerance: Positive = 1e-6

    def plan(self) -> str:
        """What will defend a fit, a line for each layer."""
        said = {}
        if self.hierarchical is not None:
            one = self.hierarchical
            last = "left there" if one.finish is None else "finished by the trust region"
            said["hierarchical"] = f"{one.outer} outer iterations at most, {last}"
        if self.regularisation is not None:
            one = self.regularisation
            groups = " and ".join(one.groups)
            said["regularisation"] = f"{type(one).__name__} of {groups}, λ = {one.weight:g}"
        if self.monitoring is not None:
            watched = ", ".join(self.monitoring.watched)
            said["monitor"] = type(self.monitoring.response).__name__
            said["monitor"] += f", watching {watched}" if watched else ""
        if self.shear_weights is not None:
            one = self.shear_weights
            said["shear weights"] = f"from {one.minimum:g} across the flow, power {one.exponent:g}"
        if self.group_variance is not None:
            groups = "; ".join(", ".join(group) for group in self.group_variance.groups)
            weight = np.asarray(self.group_variance.weight).item()
            said["group variance"] = f"{groups}, λ = {weight:g}"
        listed = "".join(f"\n    {name}: {text}" for name, text in said.items())
        return f"defended in {self.rounds} rounds at most by{listed}"

    def __check_init__(self):
        check_fields(self)
        resets = self.monitoring is not None and isinstance(self.monitoring.response, ResetScaling)
        if resets and self.regularisation is None:
            raise ModelError(
                "a reset after a collapse raises the weight of the regularisation, and there is "
                "none: add a regularisation, or choose another response"
            )

    @property
    def refreshing(self) -> bool:
        """Whether anything is made anew from the fit before."""
        return self.regularisation is not None or self.shear_weights is not None


def _check_units(group: tuple[str, ...], units: dict[str, str]) -> None:
    # The unit of an amplitude has the name of its exponent in it, which a group would share.
    found = {name: re.sub(r"\(1\+\w+\)", "(1+exponent)", units[name]) for name in group}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} [{units[name] or '1'}]" for name in group)
        raise ModelError(
            f"the group {listed} has parameters of different units, whose mean and variance mean "
            "nothing; group parameters of one unit"
        )


def check_layers(objective: AnyObjective, layers: DefenceLayers) -> None:
    """Refuse layers that the objective gives nothing to work on.

    **Raises:** `ModelError`.
    """
    check_two_time(objective, "a defended fit")
    parameters, parts = objective.physical, parts_of(objective)
    if layers.shear_weights is not None:
        for part in parts:
            check_shear_weights(part)
    if layers.monitoring is not None:
        check_names(layers.monitoring.watched, parameters.free_names, "the fit")
    if layers.group_variance is not None:
        for group in layers.group_variance.groups:
            check_names(group, parameters.names, "the fit")
            _check_units(group, dict(zip(parameters.names, parameters.units, strict=True)))
    fixed = any(part.term.scaling.size == 0 for part in parts)
    if fixed and (layers.regularisation or layers.hierarchical) is not None:
        raise ModelError(
            "contrast and offset are fixed, so there is nothing to draw together or to fit in "
            "turn; leave regularisation and hierarchical out, or let the scaling be fitted"
        )
    fewest = min(part.term.reference.shape[0] for part in parts)
    if fewest < 2 and layers.regularisation is not None:
        raise ModelError("contrast and offset of one angle do not vary; leave regularisation out")
    if not parameters.n_free:
        raise ModelError("every physical parameter is fixed: there is nothing to defend")


def prepared(objective: AnyObjective, layers: DefenceLayers) -> AnyObjective:
    """The objective with the layers that stay as they are during a fit.

    **Raises:** `ModelError` as `check_layers`.
    """
    check_layers(objective, layers)
    if layers.group_variance is not None:
        penalties = (*objective.penalties, layers.group_variance)
        objective = with_penalties(objective, penalties)
    if layers.regularisation is None:
        return objective
    penalty = layers.regularisation.penalty(1.0, 1, np.ones(2))
    if isinstance(penalty, AbstractLinearScalingPenalty):
        return objective
    return with_parts(objective, [joint_of(part) for part in parts_of(objective)])


def refreshed(
    whole: AnyObjective, layers: DefenceLayers, x: Float[np.ndarray, "free"], per_angle: Scalings
) -> tuple[AnyObjective, tuple[WeightsReport, ...]]:
    """The objective with weights and penalties for the point reached; nothing compiles anew.

    (contrast, offset) `per_angle` only serve the size of a penalty: by Σ w r² of the data, whatever
    the loss, and the number of pairs.

    **Returns:** the objective, and the shear weights in it of each data set.
    """
    if not layers.refreshing:
        return whole, ()
    parts, weighted = [], []
    own = zip(parts_of(whole), local_coordinates(whole, x), per_angle, strict=True)
    for part, y, held in own:
        made = part
        if layers.shear_weights is not None:
            local = np.asarray(physical_of(part.physical, y))
            made, weights, phi0 = with_shear_weights(part, layers.shear_weights, local)
            weighted.append(WeightsReport(phi0, weights))
        if layers.regularisation is not None:
            equations = angle_cost(made.term, y, jnp.asarray(held), Linear())
            squares, pairs = 2 * float(np.sum(equations.cost)), int(np.sum(equations.count))
            penalty = layers.regularisation.penalty(squares, pairs, np.mean(held, axis=0))
            penalties = (*part.scaling_penalties, penalty)
            made = dataclasses.replace(made, scaling_penalties=penalties)
        parts.append(made)
    return with_parts(whole, parts), tuple(weighted)
