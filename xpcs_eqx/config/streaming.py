"""Where the data of a fit are kept and which optimiser runs: decided before any map is read."""

import dataclasses
import os
from dataclasses import dataclass

from .. import hybrid
from ..data import MapSize
from ..errors import ConfigError
from ..hybrid import HybridOptimiser, Tournament, WarmUp
from ..objective import HostLoop, Strategy, choose_strategy
from ..objective.drivers.strategy import VARIABLE
from ..optimize import as_given, automatic, by_bounds, by_start
from ..parameters.leaves import parameter_leaves
from .models import AT_KNOTS, model_of
from .read import Configuration, JointConfiguration
from .schema import Common, Solver
from .schema_streaming import Hybrid

PRESETS = {
    "default": hybrid.default,
    "aggressive": hybrid.aggressive,
    "conservative": hybrid.conservative,
    "memory_optimised": hybrid.memory_optimised,
    "scientific": hybrid.scientific,
}
DEFENCES = {
    "strict": hybrid.strict_defences,
    "relaxed": hybrid.relaxed_defences,
    "disabled": hybrid.no_defences,
}
UNITS = {"auto": automatic, "bounds": by_bounds, "start": by_start, "none": as_given}


@dataclass(frozen=True)
class Plan:
    """How a fit is carried out.

    - `strategy`: the decision with its numbers; `stored`: whether the maps stay in their file.
    - `optimiser`: the hybrid one, or None for the trust region.
    - `driver`, `piece`: how maps in a file are summed; None for the defaults.
    - `notes`: what follows from it, in sentences.
    """

    strategy: Strategy
    stored: bool
    optimiser: HybridOptimiser | None
    driver: HostLoop | None
    piece: int | None
    notes: tuple[str, ...]

    @property
    def decisions(self) -> tuple[str, ...]:
        """The decision and its consequences in words."""
        return (self.strategy.report(), *self.notes)


def _parameter_count(settings: Common, n_angles: int) -> int:
    """Parameters of the fit, for the estimate of a stored Jacobian."""
    model = model_of(settings.model.mode)
    kinds = (*AT_KNOTS, "piecewise_constant")
    knots = sum(rate.knots for rate in settings.rates.values() if rate.kind in kinds)
    return len(parameter_leaves(model)) + knots + 2 * n_angles


def optimiser_of(given: Hybrid) -> HybridOptimiser:
    """The hybrid optimiser that a table `[hybrid]` describes."""
    out = PRESETS[given.preset]()
    warm_up = WarmUp() if out.warm_up is None else out.warm_up
    if given.defences in DEFENCES:
        warm_up = DEFENCES[given.defences](warm_up)
    given_numbers = {
        "max_iterations": given.warm_up_iterations,
        "minimum": given.warm_up_minimum,
    }
    changes = {name: value for name, value in given_numbers.items() if value is not None}
    warm_up = dataclasses.replace(warm_up, units=UNITS[given.normalisation], **changes)
    numbers = {"max_evaluations": given.max_iterations, "tolerance": given.tolerance}
    changes = {name: value for name, value in numbers.items() if value is not None}
    tournament = Tournament(candidates=given.candidates) if given.candidates > 1 else None
    return dataclasses.replace(out, warm_up=warm_up, tournament=tournament, **changes)


def is_hybrid(settings: Common) -> bool:
    """Whether the hybrid optimiser is asked for."""
    return "hybrid" in (settings.solver.method, settings.streaming.strategy)


def refuse_hybrid(configuration: Configuration | JointConfiguration) -> None:
    """Refuse keys of `[hybrid]` where it does not run, and of the trust region where it does.

    **Raises:** `ConfigError`.
    """
    settings, source = configuration.settings, configuration.source
    solver = settings.solver
    if not is_hybrid(settings):
        default = Hybrid()
        for name in Hybrid.model_fields:
            if getattr(settings.hybrid, name) != getattr(default, name):
                raise ConfigError(
                    f"{source.where(('hybrid', name))}: hybrid.{name} is of no effect with "
                    f'solver.method = "{solver.method}"; set solver.method = "hybrid", or leave '
                    "[hybrid] out"
                )
        return
    if solver.method not in ("hybrid", Solver().method):
        raise ConfigError(
            f'{source.where("solver.method")}: solver.method = "{solver.method}" is not the '
            'hybrid optimiser that streaming.strategy = "hybrid" asks for; leave one of them out'
        )
    for name in ("cost_tol", "step_tol", "gradient_tol", "max_evaluations"):
        if getattr(solver, name) is not None:
            raise ConfigError(
                f"{source.where(('solver', name))}: solver.{name} belongs to the trust region; "
                "the hybrid optimiser has hybrid.tolerance and hybrid.max_iterations"
            )


def plan_of(configuration: Configuration, size: MapSize) -> Plan:
    """Decide from the size of the data, the memory and the configuration.

    **Raises:** `ConfigError` for a strategy that the file does not allow, and for keys of another
    optimiser.
    """
    refuse_hybrid(configuration)
    settings, source = configuration.settings, configuration.source
    given = settings.streaming
    forced = None if given.strategy == "auto" else given.strategy
    # What is set for a machine wins over what is set for a fit.
    fraction = None if VARIABLE in os.environ else given.memory_fraction
    strategy = choose_strategy(
        size.n_entries,
        size.itemsize,
        _parameter_count(settings, size.n_angles),
        forced=forced,
        fraction=fraction,
    )
    large = strategy.needed > strategy.threshold
    stored = strategy.choice == "out_of_core" or (strategy.choice == "hybrid" and large)
    notes = []
    if stored and not size.in_parts:
        text = (
            f"{configuration.data_path} is an NPZ or NPY file, which cannot be read in parts; "
            "write its maps to HDF5 once with xpcs_eqx.data.write_own(path, load(...))"
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
            f"the hybrid optimiser runs as asked for, preset {settings.hybrid.preset}, on maps "
            f"{place}"
        )
    return Plan(
        strategy=strategy,
        stored=stored,
        optimiser=optimiser,
        driver=HostLoop(given.read_ahead) if stored else None,
        piece=None if given.piece is None else int(1e6 * given.piece),
        notes=tuple(notes),
    )
