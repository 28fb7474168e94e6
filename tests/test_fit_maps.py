"""One call from data to a fit: it asks for what the functions that it puts together make."""

import dataclasses
import inspect
from typing import Any

import jax
import numpy as np
import pytest
from helpers_data import two_time

import xpcs_eqx as xe
from xpcs_eqx.data import from_dict, with_sigma, write_npz

DATA = two_time(n=12)
OTHER = dataclasses.replace(DATA, geometry=dataclasses.replace(DATA.geometry, q=0.006))
MODEL = xe.Static(xe.PowerLawRate(1e4, 0.0, 0.0))
HELD: dict[str, Any] = {"fixed": ["D_offset"]}


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """What would be fitted, and how, in place of fits, which compile for long."""

    def kept(objective, **how):
        return objective, how

    monkeypatch.setattr("xpcs_eqx.search.maps.least_squares", kept)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_of_one_data_set():
    box, scaling = {"D0": (1.0, 1e6)}, xe.Averaged(DATA.n_angles)
    found, how = xe.fit_maps(DATA, MODEL, bounds=box, scaling=scaling, **HELD)
    parameters = xe.parameter_map(MODEL, DATA.t, bounds=box, **HELD)
    same(found, xe.two_time_objective(parameters, DATA, scaling))
    # What was not said is left to the fit.
    told = inspect.signature(xe.least_squares).parameters
    assert {name: told[name].default for name in how} == how


def test_of_several_by_label():
    sets = {"cold": DATA, "hot": OTHER}
    found, _ = xe.fit_maps(sets, MODEL, shared=["alpha"], weights=[1.0, 2.0], **HELD)
    whole = xe.shared_parameters(
        [MODEL] * 2, [DATA.t] * 2, shared=["alpha"], labels=list(sets), **HELD
    )
    same(found, xe.two_time_objective(whole, [DATA, OTHER], weights=[1.0, 2.0]))
    listed, _ = xe.fit_maps([DATA, OTHER], MODEL, **HELD)
    assert listed.parameters.labels == ("1", "2")
    fixed = {"hot": xe.Fixed([0.2] * DATA.n_angles, [1.0] * DATA.n_angles)}
    box = {"D0[hot]": (1e5, 1e6)}
    models = {"cold": MODEL, "hot": xe.Static}
    held, _ = xe.fit_maps(sets, models, scaling=fixed, shared=[], bounds=box, **HELD)
    assert [part.term.scaling.size for part in held.parts] == [2 * DATA.n_angles, 0]
    start = dict(zip(held.names, np.asarray(held.start), strict=True))
    assert start["D0[cold]"] == 1e4
    assert start["D0[hot]"] == 1e5


def test_a_class_begins_where_the_maps_decay(tmp_path):
    write_npz(tmp_path / "maps.npz", DATA)
    found, _ = xe.fit_maps(tmp_path / "maps.npz", xe.Static, **HELD)
    begun = xe.Static().starts(xe.scaling.half_decays(DATA), DATA.geometry)["D0"]
    assert found.start[0] == pytest.approx(begun)
    box = {"D0": (2 * begun, 1e6)}
    found, _ = xe.fit_maps(DATA, xe.Static, bounds=box, **HELD)
    assert found.start[0] == pytest.approx(2 * begun)


def test_what_is_asked_for_is_handed_on(monkeypatch):
    how: dict[str, Any] = {
        "solver": xe.TrustRegion(max_evaluations=3),
        "warm_up": xe.WarmUp(),
        "callback": print,
        "checkpoints": xe.Checkpoints("kept"),
        "every": 5,
        "resume": True,
        "progress": True,
    }
    found, given = xe.fit_maps(DATA, MODEL, loss=xe.SoftL1(0.02), **how, **HELD)
    same(found.loss, xe.SoftL1(0.02))
    rest = {"recovery": None, "errors": "all"}
    assert given == {**how, **rest}
    # All that a local fit can be told can be said here.
    assert set(given) == set(inspect.signature(xe.least_squares).parameters) - {
        "objective",
        "start",
    }
    assert xe.fit_maps(DATA, MODEL, errors="classical", **HELD)[1]["errors"] == "classical"

    class Found:
        fit = None

    asked = []

    def searched(objective, **how):
        asked.append(how)
        return Found

    monkeypatch.setattr("xpcs_eqx.search.maps.global_least_squares", searched)
    for search in (True, xe.search.MultiStart()):
        xe.fit_maps(DATA, MODEL, search=search, **how, **HELD)
    assert [type(one.pop("strategy")).__name__ for one in asked] == ["Auto", "MultiStart"]
    assert asked == [{**how, **rest}] * 2


def test_a_search_goes_by_tests_that_classical_errors_are_without():
    with pytest.raises(xe.ModelError, match="a search goes by the tests of residuals"):
        xe.fit_maps(DATA, MODEL, search=True, errors="classical", **HELD)


def test_a_fit_that_was_stopped_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr("xpcs_eqx.search.maps.least_squares", xe.least_squares)
    how: dict[str, Any] = {**HELD, "solver": xe.TrustRegion(max_evaluations=60)}
    whole = xe.fit_maps(DATA, MODEL, **how)
    kept = xe.Checkpoints(tmp_path, interval=0.0)
    stopped = xe.fit_maps(
        DATA, MODEL, checkpoints=kept, callback=lambda state: int(state.evaluations) >= 3, **how
    )
    assert stopped.evaluations == 3 < whole.evaluations
    with pytest.raises(xe.CheckpointError):
        xe.fit_maps(DATA, MODEL, checkpoints=kept, **how)
    on = xe.fit_maps(DATA, MODEL, checkpoints=kept, resume=True, **how)
    assert on.evaluations == whole.evaluations
    np.testing.assert_array_equal(on.values, whole.values)


def test_sigma_takes_the_place_of_what_was_known():
    found, _ = xe.fit_maps(DATA, MODEL, sigma=0.5, **HELD)
    assert found.term.absolute_sigma
    np.testing.assert_array_equal(found.term.tiles.root_weights, 2.0)
    masked = dataclasses.replace(DATA, root_weights=np.tri(12) * np.ones(DATA.c2.shape))
    given = with_sigma(masked, np.full((12, 12), 0.5))
    np.testing.assert_array_equal(given.root_weights, 2 * masked.root_weights)
    points = {"data": [1.1, 1.0], "t1": [0.0, 0.0], "t2": [0.1, 0.2]}
    assert with_sigma(from_dict(points), 0.5).root_weights.tolist() == [2.0, 2.0]
    for wrong in (0.0, np.nan, "x", np.ones(5)):
        with pytest.raises(xe.DataError, match="sigma"):
            with_sigma(DATA, wrong)
    with pytest.raises(xe.DataError, match="open_stored"):
        with_sigma(MODEL, 1.0)
