"""A posterior written and read back, and priors from the results of an earlier run."""

import json
from typing import Any

import numpy as np
import pytest
from helpers import MODELS, make_data, mapped

from xpcs_eqx.bayes import (
    GivenSigma,
    LockStepChains,
    MarginalisedScaling,
    Normal,
    Nuts,
    PlainStart,
    TruncatedNormal,
    precision,
    predictive,
    read_posterior,
    sample,
    saved_priors,
    write_posterior,
)
from xpcs_eqx.bayes.priors.families import AbstractPrior, Number, number
from xpcs_eqx.errors import DataError, ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective, two_time_objective
from xpcs_eqx.parameters import parameter_values, saved_values, shared_parameters, with_parameters
from xpcs_eqx.physics import PowerLawRate, Static
from xpcs_eqx.scaling import Averaged

SHORT = Nuts(chains=2, warmup=40, draws=60, parallel=LockStepChains())


def same_numbers(one: Any, other: Any):
    """Equal in every number, NaN included."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            same_numbers(one[name], other[name])
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same_numbers(a, b)
    elif isinstance(one, str) or one is None:
        assert one == other
    else:
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), rtol=1e-9)


def assert_same(found, again, surfaces=True):
    assert again.names == found.names
    assert again.status == found.status
    assert repr(again) == repr(found)
    np.testing.assert_array_equal(again.theta, found.theta)
    same_numbers(again.summary(), found.summary())
    same_numbers(precision(again), precision(found))
    same_numbers(again.diagnostics, found.diagnostics)
    same_numbers(again.variables(), found.variables())
    if surfaces:
        for one, other in zip(again.parts.values(), found.parts.values(), strict=True):
            same_numbers(predictive(one, 5), predictive(other, 5))


@pytest.fixture(scope="module")
def static():
    data = make_data(MODELS["static"], n=9, phi=[0.0, 50.0])
    return least_squares(projected_objective(mapped(MODELS["static"], data), data))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "sampled",
        *(
            pytest.param(kind, marks=pytest.mark.long)
            for kind in ("marginalised", "given sigma", "plain")
        ),
    ],
)
def test_what_is_read_back_is_what_was_written(static, tmp_path, kind):
    settings: dict[str, dict[str, Any]] = {
        "sampled": {"priors": {"alpha": Normal(-0.3, 0.4)}},
        "marginalised": {"scaling": MarginalisedScaling(), "priors": {"contrast": Normal(0.3, 1)}},
        "given sigma": {"noise": GivenSigma(0.01)},
        "plain": {"start": PlainStart()},
    }
    found = sample(static, sampler=SHORT, key=1, **settings[kind])
    write_posterior(str(tmp_path), found, plots=(), fitted_data=False)
    path = str(tmp_path / "posterior.nc")
    again = read_posterior(path, static)
    assert_same(found, again)
    # The density is the same function of the same coordinates.
    z = found.draws.position[0, -1]
    assert float(again.density(z)) == pytest.approx(float(found.density(z)), rel=1e-9)
    np.testing.assert_array_equal(again.draws.position, found.draws.position)


@pytest.mark.long
def test_several_data_sets_are_read_back(tmp_path):
    truth = Static(PowerLawRate(7.5e4, -0.2, 0.0))
    sets = [make_data(truth, n=9, phi=phi, seed=k) for k, phi in enumerate(([0.0], [0.0, 60.0]))]
    shared = shared_parameters(
        [truth] * 2, [one.t for one in sets], labels=["cold", "hot"], fixed=("D_offset",)
    )
    fit = least_squares(two_time_objective(shared, sets))
    found = sample(fit, sampler=SHORT, key=2)
    assert list(found.parts) == ["cold", "hot"]
    assert found["contrast[hot]"].shape == (2, 60, 2)
    tree = found.to_datatree()
    assert tree["posterior"]["offset[hot]"].dims == ("chain", "draw", "angle[hot]")
    assert predictive(found, 3)["hot"].mean.shape == (2, 9, 9)
    write_posterior(str(tmp_path), found, plots=(), predictive_draws=3)
    assert (tmp_path / "fitted_data-2.npz").exists()
    again = read_posterior(str(tmp_path / "posterior.nc"), fit)
    assert_same(found, again)
    with pytest.raises(KeyError, match="there are cold, hot"):
        again.parts["warm"]
    with pytest.raises(ModelError, match="of several data sets"):
        _ = again.density.term


class Triangle(AbstractPrior):
    """A prior that no file knows."""

    end: Number = number()

    @property
    def support(self):
        return 0.0, self.end

    @property
    def moments(self):
        return Normal(self.end / 2, self.end / 4).moments

    def log_density(self, x):
        return TruncatedNormal(self.end / 2, self.end / 4, 0.0, self.end).log_density(x)

    def sample(self, key, shape=()):
        return Normal(0.0, 1.0).sample(key, shape)


def test_what_cannot_be_read_back_is_refused(static, tmp_path):
    path = str(tmp_path / "posterior.nc")
    with pytest.raises(DataError, match="no such file"):
        read_posterior(path, static)
    (tmp_path / "posterior.nc").write_bytes(b"no NetCDF")
    with pytest.raises(DataError, match="not a NetCDF file"):
        read_posterior(path, static)
    own = {"D0": Triangle(1e6)}
    short = Nuts(chains=2, warmup=0, draws=6, max_depth=1, parallel=LockStepChains())
    found = sample(static, own, sampler=short, key=1)
    write_posterior(str(tmp_path), found, plots=(), fitted_data=False)
    with pytest.raises(ModelError, match=r"Triangle, which a file cannot make again.*'D0'"):
        read_posterior(path, static)
    assert_same(found, read_posterior(path, static, own), surfaces=False)
    other = make_data(MODELS["static"], n=8, phi=[0.0, 50.0])
    objective = projected_objective(mapped(MODELS["static"], other), other)
    with pytest.raises(ModelError, match="of another problem"):
        read_posterior(path, objective, own)
    averaged = projected_objective(mapped(MODELS["static"], other), other, Averaged(2))
    with pytest.raises(ModelError, match=r"of another problem|no prior"):
        read_posterior(path, averaged, own)
    found.to_datatree().to_netcdf(str(tmp_path / "other.nc"), engine="h5netcdf")
    with pytest.raises(DataError, match="no posterior that write_posterior made"):
        read_posterior(str(tmp_path / "other.nc"), static)


def _parameters_file(folder, rows):
    path = folder / "parameters.json"
    path.write_text(json.dumps({"parameters": rows}))
    return str(path)


def test_priors_and_starts_from_an_earlier_file(tmp_path):
    rows = {
        "D0": {"value": 2.0, "error": 0.1, "role": "free", "bounds": [1.0, 10.0]},
        "alpha": {"value": -0.3, "error": 0.01, "role": "free", "bounds": [None, None]},
        "D_offset": {"value": 0.0, "error": None, "role": "fixed", "bounds": [None, None]},
    }
    path = _parameters_file(tmp_path, rows)
    found = saved_priors(path, 3.0)
    assert found.names == ("D0", "alpha")
    assert isinstance(found["D0"], TruncatedNormal)
    assert tuple(map(float, found["D0"].support)) == (1.0, 10.0)
    assert float(found["D0"].sd) == pytest.approx(0.3)
    assert isinstance(found["alpha"], Normal)
    assert "used twice" in found.notes[0]
    assert saved_priors(path, names=["alpha"]).names == ("alpha",)
    with pytest.raises(ModelError, match="no value with an error of D_offset"):
        saved_priors(path, names=["D_offset"])
    with pytest.raises(ModelError, match="above 0"):
        saved_priors(path, 0.0)
    values = {name: one.value for name, one in saved_values(path).items()}
    model = with_parameters(MODELS["static"], values)
    assert {n: float(v) for n, v in parameter_values(model).items()} == values
    # Of a posterior: mean and standard deviation.
    rows = {"D0": {"mean": 2.0, "sd": 0.1}, "sigma": {"mean": 1.0, "sd": 0.1}}
    path = _parameters_file(tmp_path, rows)
    assert saved_values(path)["D0"].role == "sampled"
    assert saved_priors(path).names == ("D0",)
    assert saved_priors(path, names=["sigma"]).names == ("sigma",)
    for wrong in ("{}", "no json", '{"parameters": {"D0": 3}}'):
        (tmp_path / "parameters.json").write_text(wrong)
        with pytest.raises(DataError, match=r"not the parameters\.json"):
            saved_values(path)
    with pytest.raises(DataError, match="cannot be read"):
        saved_values(str(tmp_path / "nothing.json"))
