"""The table of `contract.py` for priors, densities and posteriors."""

import importlib
import inspect
import pkgutil
import sys

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from contract import Case, combined, needs_nothing
from contract_consensus import MODULES, RECORDS, posterior

from xpcs_eqx import bayes
from xpcs_eqx.bayes.density.coordinates import Coordinates
from xpcs_eqx.bayes.diagnostics import Diagnostics
from xpcs_eqx.bayes.modes import Bimodality, bimodality
from xpcs_eqx.bayes.nuts.chains import Draws, SamplingProgress
from xpcs_eqx.bayes.posterior import Precision, Predictive, posterior_of


def density_at(prior):
    return prior.log_density(jnp.asarray(0.4, float))


def joint_posterior():
    density, theta = bayes.log_posterior(combined())
    angles = sum(part.term.geometry.phi.shape[0] for part in density.parts)
    one = posterior()
    rng = np.random.default_rng(1)
    entries = theta * (1 + 0.01 * rng.normal(size=(2, 20, theta.size)))
    return posterior_of(
        density,
        entries,
        np.ones((2, 20, angles, 2)),
        one.draws,
        step_size=0.5,
        metric=np.eye(theta.size),
        fit=None,
    )


MODULES |= {
    Coordinates: Case(lambda: posterior().density.coordinates, text=8000),
    bayes.Beta: Case(lambda: bayes.Beta(2.0, 3.0), density_at),
    bayes.HalfNormal: Case(lambda: bayes.HalfNormal(0.5), density_at),
    bayes.LogNormal: Case(lambda: bayes.LogNormal(0.0, 1.5), density_at),
    bayes.LogPosterior: Case(lambda: bayes.log_posterior(combined())[0], text=40000),
    bayes.Normal: Case(lambda: bayes.Normal(0.0, 2.0), density_at),
    bayes.Posterior: Case(joint_posterior, text=2000),
    bayes.PriorSet: Case(lambda: bayes.PriorSet((bayes.Normal(0.0, 2.0),), ("a",))),
    bayes.TruncatedNormal: Case(lambda: bayes.TruncatedNormal(0.0, 1.0, -1.0, 1.0), density_at),
    bayes.Uniform: Case(lambda: bayes.Uniform(0.0, 2.0), density_at),
}

RECORDS |= {
    Bimodality: lambda: bimodality("a", np.arange(50.0) % 7, 7.0),
    Diagnostics: lambda: posterior().diagnostics,
    Draws: lambda: posterior().draws,
    Precision: lambda: bayes.precision(posterior())[0],
    Predictive: lambda: bayes.predictive(posterior(), draws=2),
    SamplingProgress: lambda: SamplingProgress("warm-up", 1, 10, 0, 0.5, 7.0),
}

# What needs no arguments, wherever in the folders it lives.
_PATH = sys.modules["xpcs_eqx.bayes"].__path__
for _info in pkgutil.walk_packages(_PATH, "xpcs_eqx.bayes."):
    for _cls in vars(importlib.import_module(_info.name)).values():
        is_module = inspect.isclass(_cls) and issubclass(_cls, eqx.Module)
        if is_module and _cls.__module__ == _info.name and needs_nothing(_cls):
            MODULES.setdefault(_cls, Case(_cls))
