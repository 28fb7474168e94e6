"""How starts fill a box: points of the unit cube by Latin hypercube, Sobol' or Halton."""

from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Float


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
