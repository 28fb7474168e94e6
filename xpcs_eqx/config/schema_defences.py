"""The tables of a configuration for defences; each layer is asked for by its table."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Positive, Section, key

Names = Annotated[list[str], Field(min_length=1)]


class HierarchicalLayer(Section):
    """Physical parameters and scaling in turn instead of together."""

    outer: int = key(5, "a whole number from 1", "outer iterations at most", ge=1)
    tolerance: Positive = key(
        1e-6, "a number above zero", "relative change of the physical parameters at which to stop"
    )
    physical: Literal["lbfgs", "trust_region"] = key(
        "lbfgs", '"lbfgs" or "trust_region"', "how the physical parameters are fitted"
    )
    iterations: int = key(100, "a whole number from 1", "of that, at most", ge=1)
    finish: bool = key(
        True, "true or false", "whether the last steps take both together, to the minimum"
    )


class RegularisationLayer(Section):
    """Contrast and offset drawn together by their coefficient of variation over the angles."""

    mode: Literal["auto", "relative", "absolute"] = key(
        "auto",
        '"auto", "relative" or "absolute"',
        "λ·CV²·MSE·n; absolute: with MSE and mean of the fit before, so that scaling stays "
        "eliminated; auto: relative for more than 5 angles",
    )
    target_variation: Positive = key(
        0.10, "a number above zero", "coefficient of variation that is thought normal"
    )
    target_share: Positive = key(
        0.10,
        "a number above zero",
        "of the sum of squares, at that variation; λ = share/variation²",
    )
    largest_variation: Positive = key(
        0.20, "a number above zero", "variation above which the report warns"
    )
    groups: list[Literal["contrast", "offset"]] = key(
        ["contrast", "offset"],
        'a list of "contrast" and "offset"',
        "what is drawn together",
        min_length=1,
    )


class MonitorLayer(Section):
    """Gradient collapse: the scaling moves and the physics does not."""

    response: Literal["warn", "hierarchical", "reset", "abort"] = key(
        "warn",
        '"warn", "hierarchical", "reset" or "abort"',
        "what is done about it; reset: scaling to its mean, λ times reset_factor",
    )
    ratio: Annotated[float, Field(gt=0, lt=1)] = key(
        0.01, "a number between 0 and 1", "of the gradients, physics to scaling, that is too small"
    )
    consecutive: int = key(5, "a whole number from 1", "checks in a row that make a collapse", ge=1)
    watched: list[str] = key([], "a list of names", "free parameters watched one by one")
    flat: Positive = key(
        1e-8, "a number above zero", "relative change of the cost for a natural step that is none"
    )
    flat_checks: int = key(3, "a whole number from 1", "checks in a row that make an alarm", ge=1)
    after: int = key(5, "a whole number from 0", "checks that pass before they are watched", ge=0)
    limit: int = key(3, "a whole number from 1", "responses at most", ge=1)
    reset_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = key(
        10.0, "a number from 1", "of λ, at a reset"
    )


class ShearWeightsLayer(Section):
    """Weights of the angles by how much shear moves their maps."""

    minimum: Annotated[float, Field(gt=0, le=1)] = key(
        0.3, "a number above 0, at most 1", "weight across the flow"
    )
    exponent: Annotated[float, Field(ge=0, allow_inf_nan=False)] = key(
        1.0, "a number from 0", "power of |cos(phi0 - phi)|"
    )


class GroupVarianceLayer(Section):
    """Physical parameters drawn to the means of their groups."""

    groups: Annotated[list[Annotated[list[str], Field(min_length=2)]], Field(min_length=1)] = key(
        ..., "a list of lists of two or more names", "parameters of each group"
    )
    weight: Positive = key(
        ..., "a number above zero", "of the variance of each group in χ² [1/unit²]"
    )


class Defences(Section):
    """Layers of defence against degeneracy."""

    rounds: int = key(
        10, "a whole number from 1", "fits at most, each with weights and penalties made anew", ge=1
    )
    tolerance: Positive = key(
        1e-6, "a number above zero", "relative change of the physical parameters that ends them"
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


LAYERS = {
    "hierarchical": HierarchicalLayer,
    "regularisation": RegularisationLayer,
    "monitor": MonitorLayer,
    "shear_weights": ShearWeightsLayer,
    "group_variance": GroupVarianceLayer,
}
