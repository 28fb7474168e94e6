"""Default priors of joint fits, and what they are sampled to."""

import numpy as np
import pytest
from helpers import MODELS, frame_times, make_data

from xpcs_eqx.bayes import (
    LogNormal,
    MarginalisedScaling,
    Normal,
    Nuts,
    SampledScaling,
    TruncatedNormal,
    default_priors,
    log_posterior,
    sample,
)
from xpcs_eqx.bayes.marginalised import marginalised_scaling
from xpcs_eqx.bayes.nuts.chains import LockStepChains
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import two_time_objective
from xpcs_eqx.parameters import shared_parameters
from xpcs_eqx.physics import PowerLawRate, Static

CONTRASTS = [f"{kind}[0][{label}]" for kind in ("contrast", "offset") for label in "ab"]
TRUTH = Static(PowerLawRate(7.5e4, -0.2, 0.0))
START = Static(PowerLawRate(8e4, -0.2, 0.0))


def two_static(n=21, **keywords):
    t = frame_times(n)
    sets = [make_data(TRUTH, t=t, phi=[0.0], noise=0.01, seed=k) for k in (1, 2)]
    parameters = shared_parameters(
        [START] * 2, [t] * 2, labels=["a", "b"], fixed=("D_offset",), **keywords
    )
    return two_time_objective(parameters, sets)


def test_joint_priors_have_the_bounds_of_the_whole():
    objective = two_static(bounds={"D0": (1.0, 1e6), "alpha": (-1.5, 1.0)})
    found = default_priors(objective)
    assert isinstance(found["D0"], LogNormal)
    assert tuple(map(float, found["D0"].support)) == (1.0, 1e6)
    assert float(found["D0"].location) == pytest.approx(np.log(8e4))
    assert tuple(map(float, found["alpha"].support)) == (-1.5, 1.0)
    for label in "ab":
        assert tuple(map(float, found[f"contrast[0][{label}]"].support)) == (0.0, 1.0)
    # Each data set has them as well, by its own names, and those that are given instead.
    given = {"alpha": Normal(0.1, 0.3), "contrast[0][b]": Normal(0.2, 0.1)}
    density, _ = log_posterior(objective, given)
    for k, part in enumerate(density.parts):
        own = dict(zip(part.names, part.priors, strict=True))
        assert isinstance(own["D0"], LogNormal)
        assert float(own["alpha"].sd) == 0.3
        assert isinstance(own["contrast[0]"], (TruncatedNormal, Normal)[k])


def test_offsets_are_as_wide_as_the_first_of_their_rates():
    t = frame_times(9)
    models = [Static(PowerLawRate(amplitude, 0.0, 0.0)) for amplitude in (2e4, 5e3)]
    sets = [make_data(MODELS["static"], t=t, phi=[0.0], seed=k) for k in (1, 2)]
    for shared, wanted in ((("D_offset",), {"D_offset": 2e4}), ((), {})):
        parameters = shared_parameters(models, [t] * 2, shared=shared, labels=("a", "b"))
        found = default_priors(two_time_objective(parameters, sets, weights=(1.0, 1.0)))
        names = wanted or {"D_offset[a]": 2e4, "D_offset[b]": 5e3}
        for name, width in names.items():
            assert float(found[name].sd) == pytest.approx(width)


@pytest.mark.long
@pytest.mark.parametrize("scaling", [SampledScaling(), MarginalisedScaling()])
def test_a_joint_posterior_is_that_of_the_joint_fit(scaling):
    objective = two_static(bounds={"D0": (1.0, 1e6)})
    fit = least_squares(objective)
    sampler = Nuts(warmup=200, draws=400, parallel=LockStepChains())
    found = sample(fit, sampler=sampler, scaling=scaling, key=1)
    assert found.status == "converged"
    for name in ("D0", "alpha"):
        row = next(one for one in fit.rows if one.name == name)
        draws = found[name]
        assert abs(draws.mean() - row.value) < 0.2 * row.error_classical
        assert draws.std() == pytest.approx(row.error_classical, rel=0.1)
    assert repr(found).splitlines()[0] == "Posterior of 2 data sets, 4 × 400 draws: converged"
    for label, part in found.parts.items():
        row = fit.parts[label]["contrast[0]"]
        draws = part["contrast"]
        assert abs(draws.mean() - row.value) < 0.3 * row.error_classical
        assert draws.std() == pytest.approx(row.error_classical, rel=0.15)
    integrated = {one.name for one in marginalised_scaling(found)}
    assert integrated == (set() if isinstance(scaling, SampledScaling) else {*CONTRASTS})
