"""The table `[defences]`: each layer is asked for by its table."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ...errors import ConfigError, ModelError
from ..section import SET, Names, Positive, Section, When, choice, key
from .search import search_settings
from .solver import STOPPING, Solver, solver_of

if TYPE_CHECKING:
    from ...defences import AbstractRegularisation, DefenceLayers, Hierarchical, Monitoring
    from ...objective import CombinedObjective, TwoTimeObjective
    from ...optimize import TrustRegion
    from ..read import Configuration
    from . import Settings

REGULARISATIONS = choice(
    auto="defences.regularisation_for",
    relative="defences.RelativeRegularisation",
    absolute="defences.AbsoluteRegularisation",
)
RESPONSES = choice(
    warn="defences.Warn",
    hierarchical="defences.GoHierarchical",
    reset="defences.ResetScaling",
    abort="defences.Abort",
)
_WATCHED = (When("watched", SET),)


class HierarchicalLayer(Section):
    """Physical parameters and scaling in turn instead of together."""

    outer: int = key(5, "outer iterations at most", ge=1)
    tolerance: Positive = key(1e-6, "relative change of the physical parameters at which to stop")
    physical: Literal["lbfgs", "trust_region"] = key(
        "lbfgs", "how the physical parameters are fitted"
    )
    iterations: int = key(100, "iterations of that, at most", ge=1)
    finish: bool = key(True, "whether the last steps take both together, to the minimum")


class RegularisationLayer(Section):
    """Contrast and offset drawn together by their coefficient of variation over the angles."""

    mode: Annotated[str, REGULARISATIONS] = key(
        "auto",
        "λ·CV²·MSE·n; absolute: with MSE and mean of the fit before, so that scaling stays "
        "eliminated; auto: relative for more than 5 angles",
    )
    target_variation: Positive = key(0.10, "coefficient of variation that is thought normal")
    target_share: Positive = key(
        0.10, "share of the sum of squares, at that variation; λ = share/variation²"
    )
    largest_variation: Positive = key(0.20, "variation above which the report warns")
    groups: list[Literal["contrast", "offset"]] = key(
        ["contrast", "offset"],
        "what is drawn together",
        expected='a list of "contrast" and "offset"',
        min_length=1,
    )


class MonitorLayer(Section):
    """Gradient collapse: the scaling moves and the physics does not."""

    response: Annotated[str, RESPONSES] = key(
        "warn", "what is done about it; reset: scaling to its mean, λ times reset_factor"
    )
    ratio: Annotated[float, Field(gt=0, lt=1)] = key(
        0.01, "ratio of the gradients, physics to scaling, that is too small"
    )
    consecutive: int = key(5, "checks in a row that make a collapse", ge=1)
    watched: Names = key([], "free parameters watched one by one", example=["alpha"])
    flat: Positive = key(
        1e-8, "relative change of the cost for a natural step that is none", when=_WATCHED
    )
    flat_checks: int = key(3, "checks in a row that make an alarm", when=_WATCHED, ge=1)
    after: int = key(5, "checks that pass before they are watched", when=_WATCHED, ge=0)
    limit: int = key(
        3, "responses at most", when=(When("response", ("warn", "hierarchical", "reset")),), ge=1
    )
    reset_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = key(
        10.0, "factor of λ, at a reset", when=(When("response", ("reset",)),)
    )


class ShearWeightsLayer(Section):
    """Weights of the angles by how much shear moves their maps."""

    minimum: Annotated[float, Field(gt=0, le=1)] = key(0.3, "weight across the flow")
    exponent: Annotated[float, Field(ge=0, allow_inf_nan=False)] = key(
        1.0, "power of |cos(phi0 - phi)|"
    )


class GroupVarianceLayer(Section):
    """Physical parameters drawn to the means of their groups."""

    groups: Annotated[list[Annotated[list[str], Field(min_length=2)]], Field(min_length=1)] = key(
        ...,
        "parameters of each group",
        expected="a list of lists of two or more names",
        example=[["J[0]", "J[1]", "J[2]"]],
    )
    weight: Positive = key(..., "weight of the variance of each group in χ² [1/unit²]", example=1.0)


class Defences(Section):
    """Layers of defence against degeneracy."""

    rounds: int = key(10, "fits at most, each with weights and penalties made anew", ge=1)
    tolerance: Positive = key(1e-6, "relative change of the physical parameters that ends them")
    hierarchical: HierarchicalLayer | None = None
    regularisation: RegularisationLayer | None = None
    monitor: MonitorLayer | None = None
    shear_weights: ShearWeightsLayer | None = None
    group_variance: GroupVarianceLayer | None = None

    @model_validator(mode="after")
    def _check(self) -> "Defences":
        if all(getattr(self, name) is None for name in LAYERS):
            tables = ", ".join(f"[defences.{name}]" for name in LAYERS)
            raise ValueError(f"names no layer; add one of the tables {tables}")
        monitor = self.monitor
        if monitor is not None and monitor.response == "reset" and self.regularisation is None:
            raise ValueError(
                'monitor.response = "reset" raises the weight of the regularisation, and there is '
                "none; add [defences.regularisation], or choose another response"
            )
        return self


LAYERS = ("hierarchical", "regularisation", "monitor", "shear_weights", "group_variance")


def excluded(settings: "Settings") -> Iterator[tuple[str, str]]:
    """What defences do not go together with, and what to say."""
    given = settings.defences
    if given is None:
        return
    if search_settings(settings).method != "local":
        yield (
            "defences",
            "[defences] defends one local fit, and [global] asks for many; leave one of them out",
        )
    if settings.solver.checkpoint is True:
        yield (
            "solver.checkpoint",
            "solver.checkpoint = true, but a fit with [defences] runs in several rounds, of which "
            "no checkpoint is written; leave one of them out",
        )
    if settings.solver.errors == "classical" and given.shear_weights is not None:
        yield (
            "solver.errors",
            'solver.errors = "classical" takes [defences.shear_weights] for inverse variances, '
            "which they are not; quote another error bar, or leave the weights out",
        )
    for name, without in () if given.hierarchical is None else _unused_by(given.hierarchical):
        if getattr(settings.solver, name) != getattr(Solver(), name):
            yield (
                f"solver.{name}",
                f"solver.{name} is of no effect with [defences.hierarchical]{without}; "
                "leave it out, or leave [defences.hierarchical] out",
            )
    for name in ("regularisation", "shear_weights"):
        if settings.bayes is not None and getattr(given, name) is not None:
            yield (
                f"defences.{name}",
                f"[defences.{name}] changes the sum of squares, which then is no likelihood for "
                "[bayes]; leave one of them out",
            )


def _unused_by(given: HierarchicalLayer) -> Iterator[tuple[str, str]]:
    """Keys of [solver] that an alternation makes nothing of, and what to add about it."""
    stopping = () if given.physical == "trust_region" else ("method", "metric", *STOPPING)
    without = "" if given.finish else " that is not finished by the solver"
    for name in ("recovery", *(() if given.finish else ("max_evaluations", *stopping))):
        yield name, without


def _hierarchical(given: HierarchicalLayer, solver: "TrustRegion") -> "Hierarchical":
    from ...defences import Hierarchical, LBFGSStage, TrustRegionStage

    stage = (
        LBFGSStage(given.iterations)
        if given.physical == "lbfgs"
        else TrustRegionStage(dataclasses.replace(solver, max_evaluations=given.iterations))
    )
    return Hierarchical(
        outer=given.outer,
        tolerance=given.tolerance,
        physical=stage,
        finish=solver if given.finish else None,
    )


def _regularisation(given: RegularisationLayer, n_angles: int) -> "AbstractRegularisation":
    made = REGULARISATIONS[given.mode]
    return made(
        # The automatic one goes by the number of angles.
        *((n_angles,) if given.mode == "auto" else ()),
        target_variation=given.target_variation,
        target_share=given.target_share,
        largest_variation=given.largest_variation,
        groups=tuple(given.groups),
    )


def _monitoring(given: MonitorLayer, solver: "TrustRegion") -> "Monitoring":
    from ...defences import GradientMonitor, Hierarchical, Monitoring

    fields: dict[str, tuple[Any, ...]] = {
        "hierarchical": (Hierarchical(finish=solver),),
        "reset": (given.reset_factor,),
    }
    monitor = GradientMonitor(
        ratio=given.ratio,
        consecutive=given.consecutive,
        flat=given.flat,
        flat_checks=given.flat_checks,
        after=given.after,
    )
    response = RESPONSES[given.response](*fields.get(given.response, ()))
    return Monitoring(monitor, response, tuple(given.watched), given.limit)


def layers_of(
    configuration: "Configuration", objective: "TwoTimeObjective | CombinedObjective"
) -> "DefenceLayers | None":
    """The layers that `[defences]` asks for, fit for an objective; None without the table.

    **Raises:** `ConfigError` for layers that the objective gives nothing to work on.
    """
    from ...defences import DefenceLayers, ShearWeights
    from ...defences.layers import check_layers
    from ...defences.several import parts_of
    from ...objective import GroupVariance

    given = configuration.settings.defences
    if given is None:
        return None
    weights, group = given.shear_weights, given.group_variance
    n_angles = min(part.term.reference.shape[0] for part in parts_of(objective))
    solver, layer = solver_of(configuration.settings.solver), None
    try:
        layers = {
            "hierarchical": given.hierarchical and _hierarchical(given.hierarchical, solver),
            "regularisation": given.regularisation
            and _regularisation(given.regularisation, n_angles),
            "monitoring": given.monitor and _monitoring(given.monitor, solver),
            "shear_weights": weights and ShearWeights(weights.minimum, weights.exponent),
            "group_variance": group
            and GroupVariance(tuple(map(tuple, group.groups)), group.weight),
        }
        for layer, value in layers.items():
            # One by one, so that the message names the table.
            resets = layer == "monitoring" and given.regularisation is not None
            more = {"regularisation": layers["regularisation"]} if resets else {}
            check_layers(objective, DefenceLayers(**{layer: value, **more}))
        return DefenceLayers(**layers, rounds=given.rounds, tolerance=given.tolerance)
    except ModelError as error:
        table = "monitor" if layer == "monitoring" else layer
        key = "defences" if table is None else f"defences.{table}"
        raise ConfigError(f"{configuration.source.where(key)}: [{key}]: {error}") from error
