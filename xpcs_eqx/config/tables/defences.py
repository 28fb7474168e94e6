"""The table `[defences]`: each layer is asked for by its table."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ... import defences
from ...defences import (
    DefenceLayers,
    GradientMonitor,
    Hierarchical,
    LBFGSStage,
    Monitoring,
    RelativeRegularisation,
    ShearWeights,
    TrustRegionStage,
)
from ...defences.layers import check_layers
from ...objective import CombinedObjective, GroupVariance, TwoTimeObjective
from ...objective.combined import parts_of
from ...optimize import TrustRegion
from ..section import SET, Choice, Names, Positive, Section, When, key, made
from .search import search_settings
from .solver import STOPPING, Solver, solver_of

if TYPE_CHECKING:
    from ..read import Configuration
    from . import Settings

REGULARISATIONS = Choice(
    auto=defences.regularisation_for,
    relative=RelativeRegularisation,
    absolute=defences.AbsoluteRegularisation,
)
RESPONSES = Choice(
    warn=defences.Warn,
    hierarchical=defences.GoHierarchical,
    reset=defences.ResetScaling,
    abort=defences.Abort,
)
_WATCHED = (When("watched", SET),)


class HierarchicalLayer(Section):
    """Physical parameters and scaling in turn instead of together."""

    outer: int = key(Hierarchical.outer, "outer iterations at most", ge=1)
    tolerance: Positive = key(
        Hierarchical.tolerance, "relative change of the physical parameters at which to stop"
    )
    physical: Literal["lbfgs", "trust_region"] = key(
        "lbfgs", "how the physical parameters are fitted"
    )
    iterations: int = key(LBFGSStage.iterations, "iterations of that, at most", ge=1)
    finish: bool = key(True, "whether the last steps take both together, to the minimum")


class RegularisationLayer(Section):
    """Contrast and offset drawn together by their coefficient of variation over the angles."""

    mode: Annotated[str, REGULARISATIONS] = key(
        "auto",
        "λ·CV²·MSE·n; absolute: with MSE and mean of the fit before, so that scaling stays "
        "eliminated; auto: relative for more than 5 angles",
    )
    target_variation: Positive = key(
        RelativeRegularisation.target_variation, "coefficient of variation that is thought normal"
    )
    target_share: Positive = key(
        RelativeRegularisation.target_share,
        "share of the sum of squares, at that variation; λ = share/variation²",
    )
    largest_variation: Positive = key(
        RelativeRegularisation.largest_variation, "variation above which the report warns"
    )
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
        GradientMonitor.ratio, "ratio of the gradients, physics to scaling, that is too small"
    )
    consecutive: int = key(
        GradientMonitor.consecutive, "checks in a row that make a collapse", ge=1
    )
    watched: Names = key([], "free parameters watched one by one", example=["alpha"])
    flat: Positive = key(
        GradientMonitor.flat,
        "relative change of the cost for a natural step that is none",
        when=_WATCHED,
    )
    flat_checks: int = key(
        GradientMonitor.flat_checks, "checks in a row that make an alarm", when=_WATCHED, ge=1
    )
    after: int = key(
        GradientMonitor.after, "checks that pass before they are watched", when=_WATCHED, ge=0
    )
    limit: int = key(
        Monitoring.limit,
        "responses at most",
        when=(When("response", ("warn", "hierarchical", "reset")),),
        ge=1,
    )
    reset_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = key(
        10.0, "factor of λ, at a reset", when=(When("response", ("reset",)),)
    )


class ShearWeightsLayer(Section):
    """Weights of the angles by how much shear moves their maps."""

    minimum: Annotated[float, Field(gt=0, le=1)] = key(
        ShearWeights.minimum, "weight across the flow"
    )
    exponent: Annotated[float, Field(ge=0, allow_inf_nan=False)] = key(
        ShearWeights.exponent, "power of |cos(phi0 - phi)|"
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

    rounds: int = key(
        DefenceLayers.rounds, "fits at most, each with weights and penalties made anew", ge=1
    )
    tolerance: Positive = key(
        DefenceLayers.tolerance, "relative change of the physical parameters that ends them"
    )
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

    def excluded(self, settings: "Settings") -> Iterator[tuple[str, str]]:
        """What defences do not go together with."""
        solver = settings.solver
        search = search_settings(settings)
        if search.asked and search.method != "local":
            yield (
                "defences",
                "[defences] defends one local fit, and [global] asks for many; leave one of them "
                "out",
            )
        if solver.checkpoint is True:
            yield (
                "solver.checkpoint",
                "solver.checkpoint = true, but a fit with [defences] runs in several rounds, of "
                "which no checkpoint is written; leave one of them out",
            )
        if solver.errors == "classical" and self.shear_weights is not None:
            yield (
                "solver.errors",
                'solver.errors = "classical" takes [defences.shear_weights] for inverse '
                "variances, which they are not; quote another error bar, or leave the weights out",
            )
        for name, without in () if self.hierarchical is None else _unused_by(self.hierarchical):
            if getattr(solver, name) != getattr(Solver(), name):
                yield (
                    f"solver.{name}",
                    f"solver.{name} is of no effect with [defences.hierarchical]{without}; "
                    "leave it out, or leave [defences.hierarchical] out",
                )
        for name in ("regularisation", "shear_weights"):
            if settings.bayes is not None and getattr(self, name) is not None:
                yield (
                    f"defences.{name}",
                    f"[defences.{name}] changes the sum of squares, which then is no likelihood "
                    "for [bayes]; leave one of them out",
                )


LAYERS = tuple(n for n, info in Defences.model_fields.items() if info.json_schema_extra is None)


def _unused_by(given: HierarchicalLayer) -> Iterator[tuple[str, str]]:
    """Keys of [solver] that an alternation makes nothing of, and what to add about it."""
    stopping = () if given.physical == "trust_region" else ("method", "metric", *STOPPING)
    without = "" if given.finish else " that is not finished by the solver"
    for name in ("recovery", *(() if given.finish else ("max_evaluations", *stopping))):
        yield name, without


def _hierarchical(given: HierarchicalLayer, solver: TrustRegion) -> Hierarchical:
    stage = (
        LBFGSStage(given.iterations)
        if given.physical == "lbfgs"
        else TrustRegionStage(dataclasses.replace(solver, max_evaluations=given.iterations))
    )
    return made(Hierarchical, given, physical=stage, finish=solver if given.finish else None)


def _regularisation(given: RegularisationLayer, n_angles: int) -> Any:
    return REGULARISATIONS[given.mode](
        # The automatic one goes by the number of angles.
        *((n_angles,) if given.mode == "auto" else ()),
        target_variation=given.target_variation,
        target_share=given.target_share,
        largest_variation=given.largest_variation,
        groups=tuple(given.groups),
    )


def _monitoring(given: MonitorLayer, solver: TrustRegion) -> Monitoring:
    of = {"hierarchical": [Hierarchical(finish=solver)], "reset": [given.reset_factor]}
    # Which parameters it watches is known when there is a fit.
    monitor = made(GradientMonitor, given, watched=())
    response = RESPONSES[given.response](*of.get(given.response, ()))
    return Monitoring(monitor, response, tuple(given.watched), given.limit)


def layers_of(
    configuration: "Configuration", objective: TwoTimeObjective | CombinedObjective
) -> DefenceLayers | None:
    """The layers that `[defences]` asks for, fit for an objective; None without the table.

    **Raises:** `ConfigError` for layers that the objective gives nothing to work on.
    """
    given = configuration.settings.defences
    if given is None:
        return None
    solver, source = solver_of(configuration.settings.solver), configuration.source
    n_angles = min(part.term.reference.shape[0] for part in parts_of(objective))
    make = {
        "hierarchical": lambda one: _hierarchical(one, solver),
        "regularisation": lambda one: _regularisation(one, n_angles),
        "monitor": lambda one: _monitoring(one, solver),
        "shear_weights": lambda one: made(ShearWeights, one),
        "group_variance": lambda one: GroupVariance(tuple(map(tuple, one.groups)), one.weight),
    }
    layers: dict[str, Any] = {}
    for layer in LAYERS:
        table = getattr(given, layer)
        with source.placed(f"defences.{layer}", f"[defences.{layer}]"):
            if table is not None:
                layers["monitoring" if layer == "monitor" else layer] = make[layer](table)
                check_layers(objective, DefenceLayers(**layers))
    return DefenceLayers(**layers, rounds=given.rounds, tolerance=given.tolerance)
