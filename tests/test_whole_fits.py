"""Whole fits: drivers, memory short, invariances, the bundled example, odd models."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import frame_times, make_data, mapped, pooled

import xpcs_eqx as xe
from xpcs_eqx.fitting import attempts
from xpcs_eqx.parameters import Identity

solving = sys.modules["xpcs_eqx.fitting.solve"]

TRUTH = xe.Static(xe.PowerLawRate(6e3, -0.4, 0.0))
NOISE = 0.003


@pytest.fixture(scope="module")
def data():
    return make_data(TRUTH, t=frame_times(31), noise=NOISE)


def fitted(data, **keywords):
    start = xe.Static(xe.PowerLawRate(9e3, -0.2, 0.0))
    parameters = mapped(start, data, fixed=("D_offset",))
    return xe.least_squares(xe.two_time_objective(parameters, data, **keywords))


@pytest.fixture(scope="module")
def reference(data):
    return fitted(data)


def assert_same(fit, reference, rtol=1e-7):
    np.testing.assert_allclose(fit.values, reference.values, rtol=rtol)
    np.testing.assert_allclose(fit.chi2, reference.chi2, rtol=1e-9)


@pytest.mark.parametrize("loss", [None, xe.SoftL1(0.003)])
def test_host_loop_gives_the_same_fit(data, loss):
    plain = fitted(data, loss=loss, tile=16)
    assert_same(fitted(data, loss=loss, tile=16, driver=xe.objective.HostLoop()), plain)


def test_short_memory_falls_back_to_the_host_loop(data, reference, monkeypatch):
    whole = attempts.iterate_host

    def short(solver, objective, x, **keywords):
        if isinstance(objective.term.driver, xe.objective.Scan):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return whole(solver, objective, x, **keywords)

    monkeypatch.setattr(attempts, "iterate_host", short)
    fit = fitted(data)
    assert_same(fit, reference)
    assert [action.cause for action in fit.recovery] == ["out of memory"]


def test_memory_that_is_short_while_compiling_ahead_ends_no_fit(data, reference, monkeypatch):
    begun = []

    def short(*_):
        begun.append(True)
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(solving, "lower_evaluation", short)
    assert_same(fitted(data), reference)
    assert begun


def test_an_interrupt_waits_for_nothing_that_was_not_begun(data, monkeypatch):
    done = []

    def interrupted(*_):
        raise KeyboardInterrupt

    def slow(*_):
        time.sleep(0.2)
        done.append(True)

    monkeypatch.setattr(solving, "attempt_all", interrupted)
    for name in ("lower_iteration", "lower_scores", "lower_optimum"):
        monkeypatch.setattr(solving, name, slow)
    with pytest.raises(KeyboardInterrupt):
        fitted(data)
    assert len(done) <= 1


def test_other_runtime_errors_are_not_taken_for_short_memory(data, monkeypatch):
    def broken(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(attempts, "iterate_host", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        fitted(data)


def test_permuted_angles(data, reference):
    order = np.array([2, 0, 1])
    mixed = xe.TwoTimeData(
        data.c2[order],
        data.t,
        xe.Geometry(data.geometry.q, data.geometry.phi[order]),
        None,
        data.diagonal[order],
    )
    fit = fitted(mixed)
    np.testing.assert_allclose(fit.contrast, reference.contrast[order], rtol=1e-7)
    assert fit["D0"].value == pytest.approx(reference["D0"].value, rel=1e-7)


def test_half_storage_and_tiles(data, reference):
    half = eqx.tree_at(lambda d: d.c2, data, np.triu(data.c2))
    assert_same(fitted(half), reference)
    assert_same(fitted(data, tile=7), reference)
    points = fitted(pooled(data))
    assert_same(points, reference)
    assert points.uncertainty.chosen == "dyadic"


def test_single_precision_storage(data, reference):
    single = eqx.tree_at(lambda d: d.c2, data, data.c2.astype(np.float32))
    fit = fitted(single)
    difference = np.abs(fit.values - reference.values)
    assert np.all(difference < 1e-3 * reference.uncertainty.errors("classical"))


def test_other_units_of_time(data, reference):
    factor = 1000.0
    slow = eqx.tree_at(lambda d: d.t, data, data.t * factor)
    start = xe.Static(xe.PowerLawRate(9e3 / factor ** (1 - 0.2), -0.2, 0.0))
    parameters = mapped(start, slow, fixed=("D_offset",), bounds={"D0": (1e-3, 1e6)})
    fit = xe.least_squares(xe.projected_objective(parameters, slow))
    alpha = fit["alpha"].value
    assert alpha == pytest.approx(reference["alpha"].value, rel=1e-6)
    assert fit["D0"].value * factor ** (1 + alpha) == pytest.approx(reference["D0"].value, rel=1e-6)


def test_a_scale_of_ones_own_is_used(data):
    parameters = mapped(TRUTH, data, scale={"D0": 123.0, "alpha": 0.7})
    assert all(isinstance(group.bijection, Identity) for group in parameters.groups)
    np.testing.assert_array_equal(parameters.coordinate_scale[:2], [123.0, 0.7])


class Carried(xe.AbstractCorrelation):
    """A model whose parameter has the name of another model's rate."""

    transport: jax.Array = xe.parameter(start=1.0, bounds=(0.0, 10.0))

    def features(self, t, geometry):
        return xe.Features(increments=self.transport * t)

    def kernel(self, pair):
        return jnp.exp(-pair.increments)


def test_a_model_with_a_parameter_called_transport():
    data = make_data(Carried(0.8), t=frame_times(21), noise=NOISE)
    fit = xe.least_squares(xe.projected_objective(mapped(Carried(1.2), data), data))
    assert abs(fit["transport"].value - 0.8) < 5 * fit["transport"].error_classical


def test_a_negative_rate_is_named(data):
    start = xe.Static(xe.PowerLawRate(6e3, -0.4, -4e3))
    parameters = mapped(start, data, fixed=("D0", "alpha", "D_offset"))
    fit = xe.least_squares(xe.projected_objective(parameters, data))
    assert any("transport rate is negative" in finding for finding in fit.quality.findings)


@pytest.mark.long
def test_the_bundled_example_from_outside(tmp_path):
    """The program on the bundled file: the truth, little memory, and seconds of processor time."""
    example = Path(__file__).parents[1] / "examples" / "laminar.toml"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "xpcs_eqx.fit", str(example), "--output", "out", "--quiet"]
    subprocess.run(command, cwd=tmp_path, check=True, env=dict(os.environ))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Nearly all is compilation, a third of it for the look around other minima. Wall time is for
    # the benchmarks, where nothing else runs.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 45
    found = json.loads((tmp_path / "out" / "fit" / "parameters.json").read_text())
    truth = {
        "D0": 4000.0,
        "alpha": -0.8,
        "D_offset": 1000.0,
        "gamma_dot_t0": 1e-4,
        "beta": 0.8,
        "gamma_dot_t_offset": 2e-4,
        "phi0": 5.0,
    }
    for name, value in truth.items():
        row = found["parameters"][name]
        assert abs(row["value"] - value) < 4 * row["error"], name
    assert len(list((tmp_path / "out" / "plots").glob("*.png"))) >= 6
