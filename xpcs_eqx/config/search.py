"""The table `[global]` to a strategy of search."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ConfigError, ModelError
from ..objective import JointObjective, ProjectedObjective
from ..search import (
    CMA_PRESETS,
    AbstractSampler,
    AbstractStrategy,
    Auto,
    CmaEs,
    Halton,
    LatinHypercube,
    MultiStart,
    Screening,
    Selected,
    Sobol,
    normalised_space,
)
from ..search.starts import checked_custom
from ..search.trial import cma_es_available
from .read import Configuration, JointConfiguration
from .schema import Parameter
from .schema_search import Global, search_settings
from .source import nearest
from .streaming import is_hybrid

SAMPLERS: dict[str, type[AbstractSampler]] = {
    "latin_hypercube": LatinHypercube,
    "sobol": Sobol,
    "halton": Halton,
}
_STARTS = ("starts", "custom", "sampler", "keep", "least", "refine")
# Keys that each method looks at, beside the seed.
_USED = {
    "local": (),
    "multi_start": _STARTS,
    "cma_es": ("preset", "budget"),
    "selected": (*_STARTS, "preset", "budget"),
    "auto": (*_STARTS, "preset", "budget", "probes"),
}


def _refuse(configuration: Configuration | JointConfiguration, name: str, text: str) -> ConfigError:
    return ConfigError(f"{configuration.source.where(('global', name))}: global.{name} {text}")


def refuse_search(configuration: JointConfiguration) -> None:
    """A search is for one data set. **Raises:** `ConfigError`."""
    given = search_settings(configuration.settings)
    _refuse_unused(configuration, given)
    if given.method != "local":
        raise _refuse(
            configuration,
            "method",
            f'= "{given.method}" is for one data set; fit them one by one with it first and start '
            "the joint fit from what they found, or leave [global] out",
        )


def kept_by_bounds(parameters: Mapping[str, Parameter]) -> tuple[str, ...]:
    """What there is to say about parameters whose bounds leave them no room."""
    return tuple(
        f"{name} is kept at {one.bounds[0]:g}, since its bounds are equal; widen them to fit it"
        for name, one in parameters.items()
        if one.flat and one.bounds is not None
    )


def _refuse_bounds(
    configuration: Configuration, given: Global, objective: ProjectedObjective | JointObjective
) -> None:
    """Refuse bounds that cannot be searched, each by its own key."""

    def refuse(name: str, bounds: Any, why: str, remedy: str) -> ConfigError:
        low, high = (f"{float(one):.12g}" for one in bounds)
        place = configuration.source.where(("parameters", name, "bounds"))
        return ConfigError(
            f"{place}: parameters.{name}.bounds = [{low}, {high}] {why}, and global.method = "
            f'"{given.method}" searches all of the bounds; {remedy}'
        )

    for name, one in configuration.settings.parameters.items():
        if one.flat:
            raise refuse(
                name, one.bounds, "leaves no room", "widen them, or keep it there with free = false"
            )
    variables, own = objective.variables, objective.term.parameters.free_names
    limits = zip(objective.names, variables.lower, variables.upper, strict=True)
    for name, *bounds in limits:
        if name in own and not np.isfinite(bounds).all():
            raise refuse(name, bounds, "is not finite", "give two finite numbers")


def strategy_of(
    configuration: Configuration, objective: ProjectedObjective | JointObjective
) -> AbstractStrategy | None:
    """The strategy that `[global]` asks for; None for the local fit alone.

    **Raises:** `ConfigError` for keys without effect, numbers that do not go together, the hybrid
    optimiser, bounds that cannot be searched, and CMA-ES without its library.
    """
    given = search_settings(configuration.settings)
    _refuse_unused(configuration, given)
    if given.method == "local":
        return None
    if is_hybrid(configuration.settings):
        raise _refuse(
            configuration,
            "method",
            f'= "{given.method}" works with the trust region, not with the hybrid optimiser, which '
            "has hybrid.candidates of its own; leave one of them out",
        )
    if given.method == "cma_es" and not cma_es_available():
        raise _refuse(
            configuration,
            "method",
            '= "cma_es" needs the library pycma: pip install "xpcs_eqx[global]"',
        )
    _refuse_bounds(configuration, given, objective)
    try:
        normalised_space(objective)
    except ModelError as error:
        raise _refuse(configuration, "method", f'= "{given.method}": {error}') from error
    if configuration.settings.solver.checkpoint is True:
        raise ConfigError(
            f"{configuration.source.where('solver.checkpoint')}: solver.checkpoint = true, but of "
            f'a search with global.method = "{given.method}" only the first local fit could be '
            "gone on with; leave one of them out"
        )
    return _strategy(configuration, given, _custom(configuration, given, objective))


def _refuse_unused(configuration: Configuration | JointConfiguration, given: Global) -> None:
    """Keys that the method does not look at."""
    used = (*_USED[given.method], "method", *(() if given.method == "local" else ("seed",)))
    for name in sorted(given.model_fields_set - set(used)):
        if getattr(given, name) != getattr(Global(), name):
            raise _refuse(
                configuration,
                name,
                f'is of no effect with global.method = "{given.method}"; leave it out, or choose '
                "another method",
            )


def _custom(
    configuration: Configuration, given: Global, objective: ProjectedObjective | JointObjective
) -> tuple[tuple[float, ...], ...]:
    """Starts of the user, with the objective's own values where they say nothing."""
    start = dict(zip(objective.names, np.asarray(objective.start).tolist(), strict=True))
    for number, one in enumerate(given.custom or (), 1):
        for name in one:
            if name not in start:
                known = nearest(name, start)
                raise _refuse(configuration, "custom", f"{number} gives {name!r}{known}")
    rows = [list({**start, **one}.values()) for one in given.custom or ()]
    try:
        checked_custom(objective, np.asarray(rows))
    except ModelError as error:
        raise _refuse(configuration, "custom", f"has a start that cannot be: {error}") from error
    return tuple(map(tuple, rows))


def _strategy(
    configuration: Configuration, given: Global, custom: tuple[tuple[float, ...], ...]
) -> AbstractStrategy:
    preset = CMA_PRESETS[given.preset]
    if given.method == "cma_es":
        return CmaEs(preset, given.seed, given.budget)
    default = Auto().multi if given.method == "auto" else MultiStart()
    starts = default.starts if given.starts is None else given.starts
    if given.refine is not None and given.refine > starts:
        raise _refuse(
            configuration,
            "refine",
            f"= {given.refine} is more than the {starts} starts there are; lower it",
        )
    # Auto adds its seed to that of its multi-starts, and gives it to CMA-ES.
    multi = MultiStart(
        starts=starts,
        sampler=SAMPLERS[given.sampler](),
        custom=custom,
        screening=Screening(given.keep, given.least),
        refine=given.refine,
        seed=0 if given.method == "auto" else given.seed,
    )
    if given.method == "multi_start":
        return multi
    if given.method == "selected":
        return Selected(multi, CmaEs(preset, given.seed, given.budget))
    budget = Auto().budget if given.budget is None else given.budget
    return Auto(budget=budget, multi=multi, preset=preset, probes=given.probes, seed=given.seed)
