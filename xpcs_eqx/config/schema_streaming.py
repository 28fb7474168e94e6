"""The tables of a configuration for data larger than memory and for the hybrid optimiser."""

from typing import Annotated, Literal

from pydantic import Field

from .section import Positive, Section, key


class Streaming(Section):
    """Whether the maps are read into memory or stay in their file."""

    strategy: Literal["auto", "in_memory", "out_of_core", "hybrid"] = key(
        "auto",
        '"auto", "in_memory", "out_of_core" or "hybrid"',
        "auto: from the file when they do not fit; hybrid: by that optimiser, wherever they are",
    )
    memory_fraction: Annotated[float, Field(ge=0.1, le=0.9)] = key(
        0.75,
        "a number from 0.1 to 0.9",
        "of the memory that data may take; the variable XPCS_EQX_MEMORY_FRACTION goes before it",
    )
    piece: Positive | None = key(
        None, "a number above zero", "size of what is read from the file at once [MB]; 8"
    )
    read_ahead: int = key(1, "a whole number from 0", "pieces read while one is worked on", ge=0)


class Hybrid(Section):
    """The hybrid optimiser: L-BFGS from afar, then the trust region (solver.method = "hybrid")."""

    preset: Literal["default", "aggressive", "conservative", "memory_optimised", "scientific"] = (
        key(
            "default",
            '"default", "aggressive", "conservative", "memory_optimised" or "scientific"',
            "where the numbers below come from when they are not given",
        )
    )
    warm_up_minimum: int | None = key(
        None, "a whole number from 0", "iterations before L-BFGS may end", ge=0
    )
    warm_up_iterations: int | None = key(
        None, "a whole number from 1", "iterations at which L-BFGS ends at the latest", ge=1
    )
    max_iterations: int | None = key(
        None, "a whole number from 1", "evaluations of the trust region", ge=1
    )
    tolerance: Positive | None = key(
        None, "a number above zero", "of the trust region: gradient as a cosine, and relative step"
    )
    normalisation: Literal["auto", "bounds", "start", "none"] = key(
        "auto",
        '"auto", "bounds", "start" or "none"',
        "unit of the variables of L-BFGS; auto: the smaller of start and width of the bounds",
    )
    candidates: int = key(
        1,
        "a whole number from 1",
        "starts to choose from, each costing one pass over the data",
        ge=1,
    )
    defences: Literal["default", "strict", "relaxed", "disabled"] = key(
        "default",
        '"default", "strict", "relaxed" or "disabled"',
        "what keeps L-BFGS from doing harm; default: those of the preset",
    )
