"""Every component of the library is a Module one can name: an immutable value, as JAX has it."""

import dataclasses
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import MODULES, squares
from test_contract import same, scaled

from xpcs_eqx import bayes, hybrid, objective, optimize, parameters, physics, scaling

COMPONENTS = {
    "physics model": physics.LaminarFlow,
    "parameter mapper": parameters.ParameterMap,
    "coordinates of a rate": parameters.Slope,
    "Fourier reparameteriser": scaling.Fourier,
    "regulariser": objective.GroupVariance,
    "stratified residual": objective.ProjectedObjective,
    "trust region": optimize.TrustRegion,
    "warm-up": optimize.WarmUp,
    "streaming hybrid optimiser": hybrid.HybridOptimiser,
    "NUTS sampler": bayes.Nuts,
    "consensus combiner": bayes.RobustConsensus,
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_is_an_immutable_module(name):
    cls = COMPONENTS[name]
    assert issubclass(cls, eqx.Module)
    case = MODULES[cls]
    one, use = case.make(), case.use or squares
    assert type(one) is cls
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        setattr(one, dataclasses.fields(one)[0].name, None)
    assert same(pickle.loads(pickle.dumps(one)), one)
    # In and out of a compiled function it stays what it is.
    assert same(
        jax.tree.map(np.asarray, eqx.filter_jit(lambda it: it)(one)), jax.tree.map(np.asarray, one)
    )
    value = np.asarray(eqx.filter_jit(use)(one))
    if not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(one)):
        return
    # A batch of them is one with stacked leaves.
    batch = jax.tree.map(lambda a: jnp.stack([a, a]) if eqx.is_array(a) else a, one)
    np.testing.assert_allclose(
        eqx.filter_jit(eqx.filter_vmap(use))(batch), [value, value], rtol=1e-10
    )

    def total(it):
        return jnp.sum(use(it))

    slope = eqx.filter_jit(eqx.filter_grad(total))(one)
    pairs = zip(
        jax.tree.leaves(slope), jax.tree.leaves(eqx.filter(one, eqx.is_inexact_array)), strict=True
    )
    along = sum(float(np.sum(np.where(np.isfinite(x), g * x, 0.0))) for g, x in pairs)
    up, down = (float(eqx.filter_jit(total)(scaled(one, 1 + s * 1e-5))) for s in (1, -1))
    np.testing.assert_allclose(
        along, (up - down) / 2e-5, rtol=2e-6, atol=1e-6 * abs(float(np.sum(value)))
    )
