"""The tables `[streaming]` and `[hybrid]`: where maps are kept, which optimiser runs on them.

Both are decided before any map is read.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ... import hybrid, optimize
from ...data import MapSize
from ...errors import ConfigError
from ...hybrid import HybridOptimiser
from ...objective import HostLoop, Strategy, choose_strategy
from ...objective.drivers.strategy import VARIABLE
from ...optimize import WarmUp
from ...physics.leaves import parameter_leaves
from ...search import Tournament
from ..section import Choice, Positive, Section, When, key
from .model import AT_KNOTS, model_of
from .solver import is_hybrid

if TYPE_CHECKING:
    from ..read import Configuration
    from . import Settings

PRESETS = Choice(
    default=hybrid.default,
    aggressive=hybrid.aggressive,
    conservative=hybrid.conservative,
    memory_optimised=hybrid.memory_optimised,
    scientific=hybrid.scientific,
)
DEFENCES = Choice(
    default=None,
    strict=hybrid.strict_defences,
    relaxed=hybrid.relaxed_defences,
    disabled=hybrid.no_defences,
)
UNITS = Choice(
    auto=optimize.automatic,
    bounds=optimize.by_bounds,
    start=optimize.by_start,
    none=optimize.as_given,
)
_FROM_FILE = (When("strategy", ("auto", "out_of_core", "hybrid")),)


class Streaming(Section):
    """Whether the maps are read into memory or stay in their file."""

    strategy: Literal["auto", "in_memory", "out_of_core", "hybrid"] = key(
        "auto",
        "auto: from the file when they do not fit; hybrid: by that optimiser, wherever they are",
    )
    memory_fraction: Annotated[float, Field(ge=0.1, le=0.9)] = key(
        0.75,
        "share of the memory that data may take; the variable XPCS_EQX_MEMORY_FRACTION goes before "
        "it",
        when=(When("strategy", ("auto", "hybrid")),),
    )
    piece: Annotated[float, Field(gt=0, le=1e6)] | None = key(
        None,
        "size of what is read from the file at once [MB]; 8 by default",
        example=8.0,
        when=_FROM_FILE,
    )
    read_ahead: int = key(
        HostLoop.ahead, "pieces read while one is worked on", when=_FROM_FILE, ge=0, le=1000
    )


class Hybrid(Section):
    """The hybrid optimiser: L-BFGS from afar, then the trust region (solver.method = "hybrid")."""

    acts: ClassVar[tuple[When, ...]] = (
        When(
            "solver.method",
            ("hybrid",),
            unless=("streaming.strategy", "hybrid"),
            remedy='set solver.method = "hybrid", or leave [hybrid] out',
            changed=True,
        ),
    )

    preset: Annotated[str, PRESETS] = key(
        "default", "where the numbers below come from when they are not given"
    )
    warm_up_minimum: int | None = key(None, "iterations before L-BFGS may end", example=3, ge=0)
    warm_up_iterations: int | None = key(
        None, "iterations at which L-BFGS ends at the latest", example=500, ge=1
    )
    max_iterations: int | None = key(None, "evaluations of the trust region", example=200, ge=1)
    tolerance: Positive | None = key(
        None, "of the trust region: gradient as a cosine, and relative step", example=1e-8
    )
    normalisation: Annotated[str, UNITS] = key(
        "auto",
        "unit of the variables of L-BFGS; auto: the smaller of start and width of the bounds",
    )
    candidates: int = key(
        1, "starts to choose from, each costing one pass over the data", ge=1, le=10_000
    )
    defences: Annotated[str, DEFENCES] = key(
        "default", "what keeps L-BFGS from doing harm; default: those of the preset"
    )


@dataclass(frozen=True)
class Plan:
    """How a fit is carried out.

    - `strategy`: the decision with its numbers; `stored`: whether the maps stay in their file.
    - `optimiser`: the hybrid one, or None for the trust region.
    - `driver`, `piece`: how maps in a file are summed; None for the defaults.
    - `decisions`: the decision and what follows from it, in sentences.
    """

    strategy: Strategy
    stored: bool
    optimiser: HybridOptimiser | None
    driver: HostLoop | None
    piece: int | None
    decisions: tuple[str, ...]


def _parameter_count(settings: "Settings", n_angles: int) -> int:
    """Parameters of the fit, for the estimate of a stored Jacobian."""
    model = model_of(settings.model)
    knots = sum(rate.knots for rate in settings.rates.values() if rate.kind in AT_KNOTS)
    return len(parameter_leaves(model)) + knots + 2 * n_angles


def _known(**numbers: float | None) -> dict[str, Any]:
    return {name: value for name, value in numbers.items() if value is not None}


def optimiser_of(given: Hybrid) -> HybridOptimiser:
    """The hybrid optimiser that a table `[hybrid]` describes."""
    out = PRESETS[given.preset]()
    warm_up = WarmUp() if out.warm_up is None else out.warm_up
    if defences := DEFENCES[given.defences]:
        warm_up = defences(warm_up)
    numbers = _known(max_iterations=given.warm_up_iterations, minimum=given.warm_up_minimum)
    warm_up = dataclasses.replace(warm_up, units=UNITS[given.normalisation], **numbers)
    numbers = _known(max_evaluations=given.max_iterations, tolerance=given.tolerance)
    tournament = Tournament(candidates=given.candidates) if given.candidates > 1 else None
    return dataclasses.replace(out, warm_up=warm_up, tournament=tournament, **numbers)


def _phases(given: Hybrid, optimiser: HybridOptimiser) -> str:
    """What the hybrid optimiser will do, in words."""
    warm_up, tournament, most = optimiser.warm_up, optimiser.tournament, optimiser.max_evaluations
    assert warm_up is not None
    chosen = (
        f"the best of {tournament.candidates} candidates in {tournament.rounds} rounds, "
        if tournament
        else ""
    )
    limit = "" if most is None else f", at most {most} evaluations"
    return (
        f"preset {given.preset}: {chosen}L-BFGS of {warm_up.minimum} to {warm_up.max_iterations} "
        f"iterations ({given.defences} defences), then the trust region{limit}, to a tolerance of "
        f"{optimiser.tolerance:g}"
    )


def plan_of(configuration: "Configuration", sizes: Sequence[MapSize]) -> Plan:
    """Decide from the sizes of all data sets, the memory and the configuration.

    **Raises:** `ConfigError` for a strategy that the file does not allow.
    """
    settings, source = configuration.settings, configuration.source
    given = settings.streaming
    forced = None if given.strategy == "auto" else given.strategy
    # What is set for a machine wins over what is set for a fit.
    fraction = None if VARIABLE in os.environ else given.memory_fraction
    strategy = choose_strategy(
        sum(size.n_entries for size in sizes),
        max(size.itemsize for size in sizes),
        _parameter_count(settings, sum(size.n_angles for size in sizes)),
        forced=forced,
        fraction=fraction,
    )
    large = strategy.needed > strategy.threshold
    stored = strategy.choice == "out_of_core" or (strategy.choice == "hybrid" and large)
    notes = []
    if stored and not all(size.in_parts for size in sizes):
        # Several q of one file have one table.
        paths = zip(configuration.parts, sizes, strict=False)
        whole = next(part.data_path for part, size in paths if not size.in_parts)
        text = (
            f"{whole} is an NPZ or NPY file, which cannot be read in parts; write its maps to "
            "HDF5 once with xpcs_eqx.data.write_own(path, load(...))"
        )
        if forced == "out_of_core":
            where = source.where("streaming.strategy")
            raise ConfigError(f'{where}: streaming.strategy = "out_of_core", but {text}')
        notes.append(f"read into memory all the same: {text}")
        stored = False
    if stored and settings.output.fitted_data is None:
        notes.append(
            "fit/fitted_data is not written since the maps stay in their file; "
            "output.fitted_data = true writes it as HDF5"
        )
    optimiser = optimiser_of(settings.hybrid) if is_hybrid(settings) else None
    if optimiser is not None:
        place = "from the file" if stored else "in memory"
        notes.append(
            f"the hybrid optimiser runs as asked for, on maps {place}, "
            f"{_phases(settings.hybrid, optimiser)}"
        )
    return Plan(
        strategy=strategy,
        stored=stored,
        optimiser=optimiser,
        driver=HostLoop(given.read_ahead) if stored else None,
        piece=None if given.piece is None else int(1e6 * given.piece),
        decisions=(strategy.report(), *notes),
    )
