"""The table of a configuration for a search beyond the local fit."""

from typing import Annotated, Literal

from pydantic import Field, create_model

from .section import Section, key

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Global(Section):
    """Whether a minimum is looked for beyond the one next to the start values."""

    method: Literal["local", "multi_start", "cma_es", "selected", "auto"] = key(
        "local",
        '"local", "multi_start", "cma_es", "selected" or "auto"',
        "auto: as much search as the local fit leaves need of, within the budget",
    )
    starts: int | None = key(
        None,
        "a whole number from 1 to 100000",
        "starts over the bounds; 20, of auto 40",
        ge=1,
        le=100_000,
    )
    custom: list[dict[str, Finite]] | None = key(
        None,
        "a list of tables of finite numbers by parameter",
        "starts of your own, among the starts; what they leave out begins at its start",
    )
    sampler: Literal["latin_hypercube", "sobol", "halton"] = key(
        "latin_hypercube", '"latin_hypercube", "sobol" or "halton"', "how starts fill the bounds"
    )
    keep: Annotated[float, Field(gt=0, le=1)] = key(
        0.5, "a number above 0, at most 1", "share of the starts that is fitted, by cost"
    )
    least: int = key(3, "a whole number from 1", "starts that are fitted at least", ge=1)
    refine: int | None = key(
        None, "a whole number from 1", "fits carried to full tolerance; 3, or all starts", ge=1
    )
    preset: Literal["fast", "default", "global"] = key(
        "default", '"fast", "default" or "global"', "length of CMA-ES"
    )
    probes: int = key(
        8,
        "a whole number from 0",
        "starts with which auto looks beyond a fit that looks right",
        ge=0,
    )
    budget: int | None = key(
        None,
        "a whole number from 100",
        "evaluations of auto and of CMA-ES; 5000 for auto, that of the preset for CMA-ES",
        ge=100,
    )
    seed: int = key(0, "a whole number from 0", "of starts and of CMA-ES", ge=0)


# `global` is a keyword, which no class statement can declare as a field.
WithGlobal = create_model("WithGlobal", __base__=Section, **{"global": (Global, Global())})  # pyright: ignore


def search_settings(settings: Section) -> Global:
    """The table `[global]` of a configuration."""
    return getattr(settings, "global")
