"""Shards held near the fit: what is divided out again, and what it does for bent posteriors."""

from typing import Any

import jax
import numpy as np
import pytest
from helpers import make_data
from helpers_shards import bent_problem

from xpcs_eqx.bayes import (
    ConsensusAverage,
    GaussianProduct,
    GivenSigma,
    LaplaceAnchor,
    LockStepChains,
    NoAnchor,
    Normal,
    NumberOfShards,
    Nuts,
    PlanAsGiven,
    RobustConsensus,
    consensus,
    shard_draws,
)
from xpcs_eqx.bayes.anchors import Site, positive, site_of
from xpcs_eqx.errors import FitError, ModelError
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.physics import AbstractCorrelation, Features, parameter
from xpcs_eqx.scaling import Fixed

KEY = jax.random.key(7)
NOISE, CURVE = 0.5, 1.0


class Banana(AbstractCorrelation):
    """Linear in slope and bend + CURVE·slope²: a bent Gaussian whose moments are known."""

    slope: Any = parameter(start=0.1, bounds=(-1e3, 1e3))
    bend: Any = parameter(start=0.1, bounds=(-1e3, 1e3))

    def features(self, t, geometry):
        straight = self.bend + CURVE * self.slope**2
        return Features(increments=self.slope * t + straight * t**2)

    def kernel(self, pair):
        return pair.increments
