"""The table `[global]` to a strategy of search."""

from ..errors import ConfigError, ModelError
from ..hybrid import AbstractSampler, Halton, LatinHypercube, Sobol
from ..objective import JointObjective, ProjectedObjective
from ..search import (
    CMA_PRESETS,
    AbstractStrategy,
    Auto,
    CmaEs,
    MultiStart,
    Screening,
    normalised_space,
)
from ..search.trial import cma_es_available
from .read import Configuration, JointConfiguration
from .schema_search import Global, search_settings
from .streaming import is_hybrid

SAMPLERS: dict[str, type[AbstractSampler]] = {
    "latin_hypercube": LatinHypercube,
    "sobol": Sobol,
    "halton": Halton,
}
_STARTS = ("starts", "sampler", "keep", "refine")
# Keys that each method looks at, beside the seed.
_USED = {
    "local": (),
    "multi_start": _STARTS,
    "cma_es": ("preset", "budget"),
    "auto": (*_STARTS, "preset", "budget"),
}


def _refuse(configuration: Configuration | JointConfiguration, name: str, text: str) -> ConfigError:
    return ConfigError(f"{configuration.source.where(('global', name))}: global.{name} {text}")


def refuse_search(configuration: JointConfiguration) -> None:
    """A search is for one data set. **Raises:** `ConfigError`."""
    given = search_settings(configuration.settings)
    if given.method != "local":
        raise _refuse(
            configuration,
            "method",
            f'= "{given.method}" is for one data set; fit them one by one with it first and start '
            "the joint fit from what they found, or leave [global] out",
        )


def strategy_of(
    configuration: Configuration, objective: ProjectedObjective | JointObjective
) -> AbstractStrategy | None:
    """The strategy that `[global]` asks for; None for the local fit alone.

    **Raises:** `ConfigError` for keys without effect, numbers that do not go together, the hybrid
    optimiser, bounds that cannot be searched, and CMA-ES without its library.
    """
    given = search_settings(configuration.settings)
    used = (*_USED[given.method], "method", *(() if given.method == "local" else ("seed",)))
    for name in sorted(given.model_fields_set - set(used)):
        if getattr(given, name) != getattr(Global(), name):
            raise _refuse(
                configuration,
                name,
                f'is of no effect with global.method = "{given.method}"; leave it out, or choose '
                "another method",
            )
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
    try:
        normalised_space(objective)
    except ModelError as error:
        raise _refuse(configuration, "method", f'= "{given.method}": {error}') from error
    return _strategy(configuration, given)


def _strategy(configuration: Configuration, given: Global) -> AbstractStrategy:
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
        screening=Screening(keep=given.keep),
        refine=given.refine,
        seed=given.seed if given.method == "multi_start" else 0,
    )
    if given.method == "multi_start":
        return multi
    budget = Auto().budget if given.budget is None else given.budget
    return Auto(budget=budget, multi=multi, preset=preset, seed=given.seed)
