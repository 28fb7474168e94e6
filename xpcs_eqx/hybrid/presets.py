"""Configured optimisers for common wishes: ordinary values, their fields yours to change."""

from ..optimize import WarmUp
from .optimiser import HybridOptimiser


def default() -> HybridOptimiser:
    """The optimiser with the defaults of its fields."""
    return HybridOptimiser()


def aggressive() -> HybridOptimiser:
    """Few passes over the data: a short warm-up in longer steps, looser tolerances."""
    return HybridOptimiser(
        warm_up=WarmUp(plateau_close=0.5, gradient=1e-2, max_iterations=100, clip=0.5),
        tolerance=1e-6,
        max_evaluations=100,
    )


def conservative() -> HybridOptimiser:
    """A longer warm-up in shorter steps, tighter tolerances."""
    return HybridOptimiser(
        warm_up=WarmUp(
            plateau=1e-3,
            plateau_close=1e-3,
            window=5,
            gradient=1e-5,
            max_iterations=1000,
            clip=0.05,
        ),
        tolerance=1e-10,
    )


def memory_optimised() -> HybridOptimiser:
    """Small chunks, arrays kept in float32, a short memory of L-BFGS; the sums stay in float64.

    float32 rounds data and abscissae to seven digits: not for abscissae that need more.
    """
    return HybridOptimiser(warm_up=WarmUp(memory=5), chunk=1000, stored_as="float32")


def scientific() -> HybridOptimiser:
    """As exact as rounding allows, whatever the number of passes."""
    return HybridOptimiser(warm_up=WarmUp(plateau=1e-4, window=5, gradient=1e-6), tolerance=1e-12)
