"""Start values to choose from: how they fill a box, and which box."""

from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..errors import ModelError


class AbstractSampler(eqx.Module):
    """Points that fill the unit cube evenly."""

    @abstractmethod
    def unit(self, n: int, dimension: int, seed: int) -> Float[np.ndarray, "n dimension"]:
        """`n` points in [0, 1)ᵈ; equal for an equal seed."""


class LatinHypercube(AbstractSampler):
    """One point in each of n slices of every axis (McKay, Beckman & Conover 1979), scrambled."""

    def unit(self, n, dimension, seed):
        from scipy.stats import qmc

        return qmc.LatinHypercube(dimension, rng=np.random.default_rng(seed)).random(n)


class Sobol(AbstractSampler):
    """Sobol' sequence with Owen's scrambling; the first n points of a power of two."""

    def unit(self, n, dimension, seed):
        from scipy.stats import qmc

        sequence = qmc.Sobol(dimension, rng=np.random.default_rng(seed))
        # Drawn by a power of two, without which the sequence has no balance to keep.
        return sequence.random_base2(max(n - 1, 0).bit_length())[:n]


class Halton(AbstractSampler):
    """Halton sequence, scrambled."""

    def unit(self, n, dimension, seed):
        from scipy.stats import qmc

        return qmc.Halton(dimension, rng=np.random.default_rng(seed)).random(n)


class AbstractSpread(eqx.Module):
    """The box that candidates fill."""

    @abstractmethod
    def box(
        self,
        start: Float[np.ndarray, "variable"],
        lower: Float[np.ndarray, "variable"],
        upper: Float[np.ndarray, "variable"],
    ) -> tuple[Float[np.ndarray, "variable"], Float[np.ndarray, "variable"]]:
        """Its lower and upper corner, inside the bounds."""


class AroundStart(AbstractSpread):
    """start ± factor·|start|, inside the bounds; ± factor where the start is zero."""

    factor: float = 0.5

    def __check_init__(self):
        if not self.factor > 0:
            raise ModelError(f"factor {self.factor} of the spread; give one above 0")

    def box(self, start, lower, upper):
        reach = self.factor * np.where(start == 0, 1.0, np.abs(start))
        return np.maximum(start - reach, lower), np.minimum(start + reach, upper)


class OverBounds(AbstractSpread):
    """All of the bounds, which must be finite."""

    def box(self, start, lower, upper):
        missing = np.flatnonzero(~(np.isfinite(lower) & np.isfinite(upper)))
        if missing.size:
            raise ModelError(
                f"parameter {missing[0]} has bounds [{lower[missing[0]]}, {upper[missing[0]]}]; "
                "candidates over the bounds need finite ones. Give them or use AroundStart"
            )
        return lower, upper
