"""The layers of defence as one value, and the one objective they make of another."""

import dataclasses
import re
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..errors import ModelError
from ..objective import (
    AbstractLinearScalingPenalty,
    GroupVariance,
    Linear,
    TwoTimeObjective,
    check_one_data_set,
    joint_of,
    with_penalties,
)
from ..parameters.leaves import check_names
from ..parameters.variables import coordinates_of
from .frozen import angle_cost
from .hierarchical import Hierarchical
from .monitor import GradientMonitor
from .responses import AbstractResponse, ResetScaling, Warn
from .shear_weights import ShearWeights, check_shear_weights, root_angle_weights, with_shear_weights
from .variation import AbstractRegularisation


class Monitoring(eqx.Module):
    """A monitor and what is done when it sees a collapse.

    - `watched`: names of physical parameters to watch one by one.
    - `limit`: responses at most; later collapses are only reported.
    """

    monitor: GradientMonitor = GradientMonitor()
    response: AbstractResponse = Warn()
    watched: tuple[str, ...] = eqx.field(static=True, default=())
    limit: int = eqx.field(static=True, default=3)

    def __check_init__(self):
        if self.limit < 1:
            raise ModelError(f"limit = {self.limit} responses of a monitor; give 1 or more")


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
    rounds: int = eqx.field(static=True, default=10)
    tolerance: float = 1e-6

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
        if self.rounds < 1:
            raise ModelError(f"rounds = {self.rounds} of a defended fit; give 1 or more")
        if not (np.isfinite(self.tolerance) and self.tolerance > 0):
            raise ModelError(f"tolerance = {self.tolerance} of a defended fit; give one above zero")
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


class Prepared(NamedTuple):
    """An objective with its layers, and what refreshing them starts from.

    - `base`: square roots of the angle weights without shear weights, of maps.
    """

    objective: TwoTimeObjective
    base: Float[np.ndarray, "angle"] | None


class Refreshed(NamedTuple):
    """The objective of one round, and the numbers that went into it.

    - `squares`: sum of squared weighted residuals of the data; `weights`, `phi0` [degrees]: shear
        weights and the flow angle they belong to.
    """

    objective: TwoTimeObjective
    squares: float | None
    weights: Float[np.ndarray, "angle"] | None
    phi0: float | None


def _check_units(group: tuple[str, ...], units: dict[str, str]) -> None:
    # The unit of an amplitude has the name of its exponent in it, which a group would share.
    found = {name: re.sub(r"\(1\+\w+\)", "(1+exponent)", units[name]) for name in group}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} [{units[name] or '1'}]" for name in group)
        raise ModelError(
            f"the group {listed} has parameters of different units, whose mean and variance mean "
            "nothing; group parameters of one unit"
        )


def check_layers(objective: TwoTimeObjective, layers: DefenceLayers) -> None:
    """Refuse layers that the objective gives nothing to work on.

    **Raises:** `ModelError`.
    """
    check_one_data_set(objective, "a defended fit")
    parameters, scaling = objective.term.parameters, objective.term.scaling
    if layers.shear_weights is not None:
        check_shear_weights(objective)
    if layers.monitoring is not None:
        check_names(layers.monitoring.watched, parameters.free_names, "the fit")
    if layers.group_variance is not None:
        for group in layers.group_variance.groups:
            check_names(group, parameters.names, "the fit")
            _check_units(group, dict(zip(parameters.names, parameters.units, strict=True)))
    if scaling.size == 0 and (layers.regularisation or layers.hierarchical) is not None:
        raise ModelError(
            "contrast and offset are fixed, so there is nothing to draw together or to fit in "
            "turn; leave regularisation and hierarchical out, or let the scaling be fitted"
        )
    n_angles = objective.term.reference.shape[0]
    if n_angles < 2 and layers.regularisation is not None:
        raise ModelError("contrast and offset of one angle do not vary; leave regularisation out")
    if not objective.variables.lower.size or not parameters.n_free:
        raise ModelError("every physical parameter is fixed: there is nothing to defend")


def prepared(objective: TwoTimeObjective, layers: DefenceLayers) -> Prepared:
    """The objective with the layers that stay as they are during a fit.

    **Raises:** `ModelError` as `check_layers`.
    """
    check_layers(objective, layers)
    base = None if layers.shear_weights is None else root_angle_weights(objective)
    if layers.group_variance is not None:
        penalties = (*objective.penalties, layers.group_variance)
        objective = with_penalties(objective, penalties)
    if layers.regularisation is not None:
        linear = isinstance(
            layers.regularisation.penalty(1.0, 1, np.ones(2)), AbstractLinearScalingPenalty
        )
        objective = objective if linear else joint_of(objective)
    return Prepared(objective, base)


def squares_and_pairs(
    objective: TwoTimeObjective,
    x: Float[np.ndarray, "free"],
    per_angle: Float[np.ndarray, "angle 2"],
) -> tuple[float, int]:
    """Σ w r² of the data, whatever the loss, and the number of pairs."""
    y = coordinates_of(objective.term.parameters, jnp.asarray(x))
    equations = angle_cost(objective.term, y, jnp.asarray(per_angle), Linear())
    return 2 * float(np.sum(equations.cost)), int(np.sum(equations.count))


def refreshed(
    whole: Prepared,
    layers: DefenceLayers,
    x: Float[np.ndarray, "free"],
    per_angle: Float[np.ndarray, "angle 2"] | None,
) -> Refreshed:
    """The objective with weights and penalties for the point reached; nothing compiles anew.

    (contrast, offset) `per_angle` only serve the size of a penalty.
    """
    objective, base = whole
    weights = phi0 = squares = None
    if layers.shear_weights is not None and base is not None:
        objective, weights, phi0 = with_shear_weights(objective, layers.shear_weights, x, base)
    if layers.regularisation is not None and per_angle is not None:
        squares, pairs = squares_and_pairs(objective, x, per_angle)
        penalty = layers.regularisation.penalty(squares, pairs, np.mean(per_angle, axis=0))
        own = (*whole.objective.scaling_penalties, penalty)
        objective = dataclasses.replace(objective, scaling_penalties=own)
    return Refreshed(objective, squares, weights, phi0)
