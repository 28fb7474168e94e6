"""Settings to layers of defence, and what does not go together with them."""

import dataclasses

from ..defences import (
    Abort,
    AbsoluteRegularisation,
    AbstractRegularisation,
    AbstractResponse,
    DefenceLayers,
    GoHierarchical,
    GradientMonitor,
    Hierarchical,
    LBFGSStage,
    Monitoring,
    RelativeRegularisation,
    ResetScaling,
    ShearWeights,
    TrustRegionStage,
    Warn,
    regularisation_for,
)
from ..defences.layers import check_layers
from ..errors import ConfigError, ModelError
from ..objective import GroupVariance, JointObjective, ProjectedObjective
from ..optimize import TrustRegion
from .read import Configuration, JointConfiguration
from .schema import Solver
from .schema_defences import HierarchicalLayer, MonitorLayer, RegularisationLayer
from .schema_search import search_settings
from .solving import solver_of
from .streaming import is_hybrid


def refuse_defences(configuration: Configuration | JointConfiguration) -> None:
    """Refuse, before any work, what defences do not go together with.

    **Raises:** `ConfigError` for several data sets, the hybrid optimiser, a search, a posterior of
        weights or penalties, checkpoints, classical errors of shear weights, and keys of [solver]
        that are of no effect.
    """
    settings, source = configuration.settings, configuration.source
    given = settings.defences
    if given is None:
        return

    def refuse(key: str, text: str) -> None:
        raise ConfigError(f"{source.where(key)}: {text}")

    if isinstance(configuration, JointConfiguration):
        refuse(
            "defences",
            "[defences] defends the fit of one data set, but several are fitted together here; "
            "leave [defences] out, or run each data set by itself",
        )
    if is_hybrid(settings):
        refuse(
            "defences",
            "[defences] surrounds the trust region, but the hybrid optimiser is asked for, which "
            "has defences of its own (hybrid.defences); leave one of them out",
        )
    if search_settings(settings).method != "local":
        refuse(
            "defences",
            "[defences] defends one local fit, and [global] asks for many; leave one of them out",
        )
    if settings.solver.checkpoint is True:
        refuse(
            "solver.checkpoint",
            "solver.checkpoint = true, but a fit with [defences] runs in several rounds, of which "
            "no checkpoint is written; leave one of them out",
        )
    if settings.solver.errors == "classical" and given.shear_weights is not None:
        refuse(
            "solver.errors",
            'solver.errors = "classical" takes [defences.shear_weights] for inverse variances, '
            "which they are not; quote another error bar, or leave the weights out",
        )
    turns = given.hierarchical
    open_ended = turns is not None and not turns.finish
    for name in () if turns is None else _unused_by(turns):
        if getattr(settings.solver, name) != getattr(Solver(), name):
            refuse(
                f"solver.{name}",
                f"solver.{name} is of no effect with [defences.hierarchical]"
                f"{' that is not finished by the solver' if open_ended else ''}; "
                "leave it out, or leave [defences.hierarchical] out",
            )
    for name in ("regularisation", "shear_weights"):
        if settings.bayes is not None and getattr(given, name) is not None:
            refuse(
                f"defences.{name}",
                f"[defences.{name}] changes the sum of squares, which then is no likelihood for "
                "[bayes]; leave one of them out",
            )


# Keys of [solver] that say how the trust region goes, but for the number of its evaluations.
_STEPS = ("method", "metric", "cost_tol", "step_tol", "gradient_tol")


def _unused_by(given: HierarchicalLayer) -> tuple[str, ...]:
    """Keys of [solver] that an alternation makes nothing of."""
    if given.finish:
        return ("recovery",)
    stage = () if given.physical == "trust_region" else _STEPS
    return ("recovery", "max_evaluations", *stage)


def _hierarchical(given: HierarchicalLayer, solver: TrustRegion) -> Hierarchical:
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


def _regularisation(given: RegularisationLayer, n_angles: int) -> AbstractRegularisation:
    fields = {
        "target_variation": given.target_variation,
        "target_share": given.target_share,
        "largest_variation": given.largest_variation,
        "groups": tuple(given.groups),
    }
    if given.mode == "auto":
        return regularisation_for(n_angles, **fields)
    kinds = {"relative": RelativeRegularisation, "absolute": AbsoluteRegularisation}
    return kinds[given.mode](**fields)


def _monitoring(given: MonitorLayer, solver: TrustRegion) -> Monitoring:
    responses: dict[str, AbstractResponse] = {
        "warn": Warn(),
        "hierarchical": GoHierarchical(Hierarchical(finish=solver)),
        "reset": ResetScaling(given.reset_factor),
        "abort": Abort(),
    }
    monitor = GradientMonitor(
        ratio=given.ratio,
        consecutive=given.consecutive,
        flat=given.flat,
        flat_checks=given.flat_checks,
        after=given.after,
    )
    return Monitoring(monitor, responses[given.response], tuple(given.watched), given.limit)


def layers_of(
    configuration: Configuration, objective: ProjectedObjective | JointObjective
) -> DefenceLayers | None:
    """The layers that `[defences]` asks for, fit for an objective; None without the table.

    **Raises:** `ConfigError` as `refuse_defences`, and for layers that the objective gives nothing
    to work on.
    """
    given = configuration.settings.defences
    if given is None:
        return None
    refuse_defences(configuration)
    weights, group = given.shear_weights, given.group_variance
    n_angles = objective.term.reference.shape[0]
    solver, layer = solver_of(configuration.settings), None
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
