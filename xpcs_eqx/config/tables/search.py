"""The table `[global]`: whether a minimum is looked for beyond the one next to the start values."""

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, create_model

from ... import search
from ...errors import ConfigError, DataError, ModelError, how_to_install
from ...objective import CombinedObjective, TwoTimeObjective
from ...objective.combined import parts_of
from ...search.starts import checked_custom
from ...search.trial import cma_es_available
from ..section import Finite, Path, Section, When, choice_of, key, made
from ..source import Source, nearest
from .solver import is_hybrid

if TYPE_CHECKING:
    from . import Settings

SAMPLERS = choice_of(search, search.AbstractSampler)


def _with(*methods: str) -> tuple[When, ...]:
    """That a key acts with some methods."""
    remedy = "leave it out, or choose another method"
    return (When("method", methods, remedy=remedy, changed=True),)


_STARTS = _with("multi_start", "selected", "auto")
_CMA_ES = _with("cma_es", "selected", "auto")


class Global(Section):
    """Whether a minimum is looked for beyond the one next to the start values."""

    method: Literal["local", "multi_start", "cma_es", "selected", "auto"] = key(
        "auto",
        "auto: a cheap look around the local fit, and more search where it leaves need of it, "
        "within the budget; left out where it cannot be, which is said",
    )
    starts: int | None = key(
        None,
        "starts over the bounds; by default 20, of auto 40",
        example=20,
        when=_STARTS,
        ge=1,
        le=100_000,
    )
    custom: list[dict[str, Finite]] | None = key(
        None,
        "starts of your own, among the starts; what they leave out begins at its start",
        expected="a list of tables of finite numbers by parameter",
        example=[{"D0": 1e4, "alpha": 0.5}],
        when=_STARTS,
    )
    starts_from: Path | None = key(
        None,
        "parameters.json of an earlier search, whose minima are starts like those of custom",
        example="earlier/fit/parameters.json",
        when=_STARTS,
    )
    sampler: Annotated[str, SAMPLERS] = key(
        "latin_hypercube", "how starts fill the bounds", when=_STARTS
    )
    keep: Annotated[float, Field(gt=0, le=1)] = key(
        search.Screening.keep, "share of the starts that is fitted, by cost", when=_STARTS
    )
    least: int = key(search.Screening.least, "starts that are fitted at least", when=_STARTS, ge=1)
    refine: int | None = key(
        None,
        "fits carried to full tolerance; by default 3, or all starts",
        example=3,
        when=_STARTS,
        ge=1,
    )
    preset: Literal["fast", "default", "global"] = key("default", "length of CMA-ES", when=_CMA_ES)
    probes: int = key(
        search.Auto.probes,
        "starts with which auto looks beyond a fit that looks right",
        when=_with("auto"),
        ge=0,
        le=100_000,
    )
    budget: int | None = key(
        None,
        "evaluations of auto and of CMA-ES; by default 5000 for auto, that of the preset for "
        "CMA-ES",
        example=5000,
        when=_CMA_ES,
        ge=100,
    )
    seed: int = key(
        0, "of starts and of CMA-ES", when=_with("multi_start", "cma_es", "selected", "auto"), ge=0
    )

    @property
    def asked(self) -> bool:
        """Whether a method was asked for; that by default goes where it can."""
        return "method" in self.model_fields_set

    def excluded(self, settings: "Settings") -> Iterator[tuple[str, str]]:
        """What a search that was asked for does not go together with."""
        if self.method == "local" or not self.asked:
            return
        if is_hybrid(settings):
            yield (
                "global.method",
                f'global.method = "{self.method}" works with the trust region, not with the '
                "hybrid optimiser, which has hybrid.candidates of its own; leave one of them out",
            )
        if settings.solver.checkpoint is True:
            yield (
                "solver.checkpoint",
                "solver.checkpoint = true, but of a search with global.method = "
                f'"{self.method}" only the first local fit could be gone on with; leave one of '
                "them out",
            )


# `global` is a keyword, which no class statement can declare as a field.
WithGlobal = create_model("WithGlobal", __base__=Section, **{"global": (Global, Global())})  # pyright: ignore


def search_settings(settings: Section) -> Global:
    """The table `[global]` of a configuration."""
    return getattr(settings, "global")


def _check_bounds(
    settings: "Settings", objective: TwoTimeObjective | CombinedObjective, source: Source
) -> None:
    """Refuse bounds that cannot be searched, each by its own key."""
    room = "leaves no room", "widen them, or keep it there with free = false"
    wrong: dict[str, tuple[Any, str, str]]
    wrong = {n: (one.bounds, *room) for n, one in settings.parameters.items() if one.flat}
    variables, own = objective.variables, objective.physical.free_names
    for name, *bounds in zip(objective.names, variables.lower, variables.upper, strict=True):
        if name in own and not np.isfinite(bounds).all():
            wrong.setdefault(name, (bounds, "is not finite", "give two finite numbers"))
    for name, (bounds, why, remedy) in wrong.items():
        low, high = (f"{float(one):.12g}" for one in bounds or ())
        raise ConfigError(
            f"{source.where(('parameters', name, 'bounds'))}: parameters.{name}.bounds = "
            f'[{low}, {high}] {why}, and global.method = "{search_settings(settings).method}" '
            f"searches all of the bounds; {remedy}"
        )


def strategy_of(
    settings: "Settings", objective: TwoTimeObjective | CombinedObjective, source: Source
) -> tuple[search.AbstractStrategy | None, tuple[str, ...]]:
    """The strategy of `[global]`, None for the local fit alone, and what there is to say.

    A search that was not asked for is left out where there is no room for it.

    **Raises:** `ConfigError` for numbers that do not go together, bounds that cannot be searched,
    and CMA-ES without its library.
    """
    given = search_settings(settings)
    if given.method == "local" or is_hybrid(settings):
        return None, ()
    if not given.asked:
        why = _no_room(settings, objective)
        if why:
            return None, (f"no other minimum was looked for: {why} ([global])",)
    with source.placed("global.method", f'global.method = "{given.method}"'):
        if given.method == "cma_es" and not cma_es_available():
            raise ModelError(f"needs the library pycma: {how_to_install('global')}")
        if given.asked:
            _check_bounds(settings, objective, source)
        search.normalised_space(objective)
    return _strategy(given, _custom(given, objective, source), source), ()


def _no_room(settings: "Settings", objective: TwoTimeObjective | CombinedObjective) -> str:
    """Why a cheap look around cannot be; empty where it can."""
    if settings.defences is not None:
        return "[defences] defends one local fit"
    if not objective.names:
        return "no parameter is free"
    if not all(part.traceable for part in parts_of(objective)):
        return "of maps in a file no sample is drawn"
    if isinstance(objective, CombinedObjective):
        return "several data sets are fitted from one start unless a method is asked for"
    try:
        search.normalised_space(objective)
    except ModelError as error:
        return str(error)
    return ""


def _custom(
    given: Global, objective: TwoTimeObjective | CombinedObjective, source: Source
) -> tuple[tuple[float, ...], ...]:
    """Starts of the user, with the objective's own values where they say nothing."""
    start = dict(zip(objective.names, np.asarray(objective.start).tolist(), strict=True))
    with source.placed("global.custom", "global.custom"):
        for number, one in enumerate(given.custom or (), 1):
            for name in one:
                if name not in start:
                    raise ModelError(f"{number} gives {name!r}{nearest(name, start)}")
        starts = [*(given.custom or ()), *_earlier_minima(given, start, source)]
        rows = [list({**start, **one}.values()) for one in starts]
        checked_custom(objective, np.asarray(rows))
    return tuple(map(tuple, rows))


def _earlier_minima(
    given: Global, known: Collection[str], source: Source
) -> list[dict[str, float]]:
    """Minima that an earlier search found, as far as they are of parameters `known` here."""
    if given.starts_from is None:
        return []
    with source.placed("global.starts_from", "global.starts_from"):
        try:
            with open(source.absolute(given.starts_from), encoding="utf-8") as stream:
                minima = json.load(stream)["global"]["minima"]
            own = [{n: float(v) for n, v in one["values"].items() if n in known} for one in minima]
        except OSError as error:
            raise DataError(f"cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"no parameters.json of a search, which has its minima under global ({error!r})"
            ) from error
        if not any(own):
            raise DataError("has no minimum of parameters of this fit")
    return own


def _strategy(
    given: Global, custom: tuple[tuple[float, ...], ...], source: Source
) -> search.AbstractStrategy:
    preset = search.CMA_PRESETS[given.preset]
    if given.method == "cma_es":
        return search.CmaEs(preset, given.seed, given.budget)
    default = search.Auto.multi if given.method == "auto" else search.MultiStart()
    starts = default.starts if given.starts is None else given.starts
    if given.refine is not None and given.refine > starts:
        raise ConfigError(
            f"{source.where('global.refine')}: global.refine = {given.refine} is more than the "
            f"{starts} starts there are; lower it"
        )
    # search.Auto adds its seed to that of its multi-starts, and gives it to CMA-ES.
    multi = search.MultiStart(
        starts=starts,
        sampler=SAMPLERS[given.sampler](),
        custom=custom,
        screening=made(search.Screening, given),
        refine=given.refine,
        seed=0 if given.method == "auto" else given.seed,
    )
    if given.method == "multi_start":
        return multi
    if given.method == "selected":
        return search.Selected(multi, search.CmaEs(preset, given.seed, given.budget))
    budget = search.Auto.budget if given.budget is None else given.budget
    return search.Auto(
        budget=budget, multi=multi, preset=preset, probes=given.probes, seed=given.seed
    )
