"""The table of `contract.py` for priors, densities and posteriors."""

import jax.numpy as jnp
import numpy as np
from contract import Case, combined
from contract_consensus import MODULES, RECORDS, posterior

from xpcs_eqx import bayes


def density_at(prior):
    return prior.log_density(jnp.asarray(0.4, float))


def joint_posterior():
    density, theta = bayes.joint_log_posterior(combined())
    parts = (posterior(), posterior())
    return bayes.JointPosterior(
        theta=np.broadcast_to(theta, (2, 20, theta.size)).copy(),
        parts=parts,
        draws=parts[0].draws,
        density=density,
        metric=np.eye(theta.size),
        step_size=0.5,
        diagnostics=parts[0].diagnostics,
        labels=density.labels,
        notes=(),
        timings=(),
    )


MODULES |= {
    bayes.Beta: Case(lambda: bayes.Beta(2.0, 3.0), density_at),
    bayes.Coordinates: Case(lambda: posterior().density.coordinates, text=8000),
    bayes.HalfNormal: Case(lambda: bayes.HalfNormal(0.5), density_at),
    bayes.JointLogPosterior: Case(lambda: bayes.joint_log_posterior(combined())[0], text=40000),
    bayes.JointPosterior: Case(joint_posterior, text=2000),
    bayes.LogNormal: Case(lambda: bayes.LogNormal(0.0, 1.5), density_at),
    bayes.LogPosterior: Case(lambda: posterior().density, text=20000),
    bayes.Normal: Case(lambda: bayes.Normal(0.0, 2.0), density_at),
    bayes.Posterior: Case(posterior, text=2000),
    bayes.PriorSet: Case(lambda: bayes.PriorSet((bayes.Normal(0.0, 2.0),), ("a",))),
    bayes.Tempered: Case(lambda: bayes.Tempered(bayes.Normal(0.0, 2.0), 0.5), density_at),
    bayes.TruncatedNormal: Case(lambda: bayes.TruncatedNormal(0.0, 1.0, -1.0, 1.0), density_at),
    bayes.Uniform: Case(lambda: bayes.Uniform(0.0, 2.0), density_at),
}

RECORDS |= {
    bayes.Bimodality: lambda: bayes.bimodality("a", np.arange(50.0) % 7, 7.0),
    bayes.Diagnostics: lambda: posterior().diagnostics,
    bayes.Draws: lambda: posterior().draws,
    bayes.Precision: lambda: bayes.precision(posterior())[0],
    bayes.Predictive: lambda: bayes.predictive(posterior(), draws=2),
    bayes.Progress: lambda: bayes.Progress("warm-up", 1, 10, 0, 0.5, 7.0),
}
