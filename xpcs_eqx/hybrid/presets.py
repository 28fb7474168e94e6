"""Configured optimisers for common wishes: ordinary values, their fields yours to change."""

import equinox as eqx
import numpy as np

from .criteria import MaxIterations, Plateau, SmallGradient
from .defences import CostGuard, Defences, FirstStep, StepClip, WarmStart
from .gauss_newton import GaussNewton
from .optimiser import HybridOptimiser
from .warm_up import WarmUp


def default() -> HybridOptimiser:
    """The optimiser with the defaults of its fields."""
    return HybridOptimiser()


def aggressive() -> HybridOptimiser:
    """Few passes over the data: a short warm-up, longer steps, looser tolerances."""
    return HybridOptimiser(
        warm_up=WarmUp(
            criteria=(Plateau(1e-2), SmallGradient(1e-2), MaxIterations(100)),
            defences=Defences(clip=StepClip(0.5)),
            minimum=20,
        ),
        gauss_newton=GaussNewton(tolerance=1e-6, max_iterations=50),
    )


def conservative() -> HybridOptimiser:
    """A longer warm-up in shorter steps, tighter tolerances, three times the Gauss–Newton steps."""
    return HybridOptimiser(
        warm_up=WarmUp(
            criteria=(Plateau(1e-6), SmallGradient(1e-5), MaxIterations(1000)),
            defences=Defences(clip=StepClip(0.05)),
        ),
        gauss_newton=GaussNewton(tolerance=1e-10, max_iterations=300),
    )


def memory_optimised() -> HybridOptimiser:
    """Small chunks, arrays kept in float32, a short memory of L-BFGS; the sums stay in float64.

    float32 rounds data and abscissae to seven digits: not for abscissae that need more.
    """
    return HybridOptimiser(warm_up=WarmUp(memory=5), chunk=1000, stored_as="float32")


def scientific() -> HybridOptimiser:
    """As exact as rounding allows, whatever the number of passes."""
    return HybridOptimiser(
        warm_up=WarmUp(criteria=(Plateau(1e-8), SmallGradient(1e-6), MaxIterations(500))),
        gauss_newton=GaussNewton(tolerance=1e-12, tikhonov=1e-12, max_iterations=300),
    )


def strict_defences() -> Defences:
    """Early to stop and slow to move; a warm start must be a tenth as far off to count as one."""
    return Defences(WarmStart(0.001), FirstStep(0.5, 0.2, 0.05), CostGuard(1.01), StepClip(0.05))


def relaxed_defences() -> Defences:
    """Room to move: steps five times as long, and a loss that may grow by half."""
    return Defences(WarmStart(0.01), FirstStep(1.0, 1.0, 0.5), CostGuard(1.5), StepClip(0.5))


def no_defences() -> Defences:
    """None of them ever applies."""
    return Defences(WarmStart(0.0), FirstStep(1.0, 1.0, 1.0), CostGuard(np.inf), StepClip(np.inf))


def with_defences(optimiser: HybridOptimiser, defences: Defences) -> HybridOptimiser:
    """The optimiser with other defences."""
    return eqx.tree_at(lambda o: o.warm_up.defences, optimiser, defences)
