"""The hybrid optimiser as a way to a fit of two-time maps: the same as the trust region's."""

import equinox as eqx
import numpy as np
import pytest
from helpers import DOUBLE, LAMINAR, make_data, mapped, start_off

from xpcs_eqx.checkpoint import Checkpoints
from xpcs_eqx.data import open_stored, write_own
from xpcs_eqx.errors import CheckpointError, FitError, ModelError
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.hybrid import HybridOptimiser, Tournament, WarmUp
from xpcs_eqx.objective import two_time_objective

QUICK = HybridOptimiser(warm_up=WarmUp(minimum=3))


@pytest.fixture(scope="module")
def data():
    return make_data(n=31, diagonal=True)


@pytest.fixture(scope="module")
def parameters(data):
    return mapped(start_off(LAMINAR, 1.2), data)


@pytest.fixture(scope="module")
def objective(parameters, data):
    return two_time_objective(parameters, data)


@pytest.fixture(scope="module")
def reference(objective):
    return least_squares(objective)


@pytest.fixture(scope="module")
def fit(objective):
    return QUICK.minimise(objective)


def agree(fit, reference):
    errors = reference.uncertainty.errors("classical")
    assert fit.success
    np.testing.assert_array_less(np.abs(fit.values - reference.values), DOUBLE.optimum * errors)
    for kind in ("classical", "speckle", "dyadic"):
        own, wanted = fit.uncertainty.errors(kind), reference.uncertainty.errors(kind)
        np.testing.assert_allclose(own, wanted, rtol=1e-4, err_msg=kind)
    assert (fit.n_pairs, fit.degrees_of_freedom) == (
        reference.n_pairs,
        reference.degrees_of_freedom,
    )


def test_in_memory_it_is_the_fit_of_the_trust_region(fit, reference):
    agree(fit, reference)
    np.testing.assert_allclose(float(fit.chi2), float(reference.chi2), rtol=1e-10)
    assert [row[:1] + row[6:] for row in fit.rows] == [row[:1] + row[6:] for row in reference.rows]
    assert fit.solver_name.startswith("warm-up, trust region")
    assert reference.warm_up is None


def test_what_the_phases_did_is_in_the_result(fit):
    assert fit.evaluations == len(fit.history.cost) + int(fit.warm_up.evaluations)
    assert float(np.nanmin(fit.history.cost)) == pytest.approx(float(fit.cost), rel=1e-12)
    assert {"warm-up", "solver", "uncertainty"} <= set(dict(fit.timings))
    assert fit.telemetry.asked("warm start") == 1
    assert fit.warm_up.end.message.startswith("done")


def test_a_start_at_the_optimum_needs_no_warm_up(objective, reference):
    careful = eqx.tree_at(lambda o: o.warm_up.warm_start, QUICK, 10.0)
    start = np.asarray(reference.values)[reference.index.physical]
    fit = careful.minimise(objective, start)
    agree(fit, reference)
    assert fit.warm_up.end.message.startswith("skipped")
    assert fit.telemetry.fired("warm start") == 1
    np.testing.assert_array_equal(
        [fit[name].start for name in objective.names], start, "the start that was given"
    )


@pytest.mark.long
def test_stored_maps_give_the_same(tmp_path, parameters, data, reference):
    path = str(tmp_path / "maps.h5")
    write_own(path, data)
    stored = two_time_objective(parameters, open_stored(path))
    agree(QUICK.minimise(stored), reference)


def test_interrupted_and_gone_on_with_it_is_the_same_to_the_bit(tmp_path, objective, fit):
    checkpoints = Checkpoints(str(tmp_path / "states"))
    seen = []

    def stop(state):
        seen.append(state)
        return len(seen) == 2

    broken = QUICK.minimise(objective, callback=stop, checkpoints=checkpoints, every=2)
    assert not broken.success
    assert broken.warm_up.end.message == "stopped: interrupted"
    with pytest.raises(CheckpointError, match="of the hybrid optimiser, not of the trust region"):
        least_squares(objective, checkpoints=checkpoints, resume=True)
    again = QUICK.minimise(objective, checkpoints=checkpoints, resume=True)
    np.testing.assert_array_equal(again.values, fit.values)
    assert again.evaluations == fit.evaluations


def test_a_checkpoint_of_the_trust_region_is_refused(tmp_path, objective):
    checkpoints = Checkpoints(str(tmp_path / "states"))
    least_squares(objective, checkpoints=checkpoints, callback=lambda state: True)
    with pytest.raises(CheckpointError, match="of the trust region, not of the hybrid optimiser"):
        QUICK.minimise(objective, checkpoints=checkpoints, resume=True)


def test_starts_that_cannot_be_used(objective):
    with pytest.raises(ModelError, match="outside its bounds"):
        QUICK.minimise(objective, np.full(len(objective.names), 1e9))
    broken = eqx.tree_at(
        lambda o: o.term.tiles.c2, objective, np.full_like(objective.term.tiles.c2, np.nan)
    )
    with pytest.raises(FitError, match="no finite cost at the start"):
        QUICK.minimise(broken)


def test_a_tournament_chooses_the_start(objective, reference):
    optimum = np.asarray(reference.values)[reference.index.physical]
    chosen = eqx.tree_at(
        lambda o: o.tournament,
        QUICK,
        Tournament(candidates=5, rounds=2, custom=optimum),
        is_leaf=lambda leaf: leaf is None,
    )
    fit = chosen.minimise(objective)
    state = fit.prepared["tournament"]
    np.testing.assert_array_equal(state.best, optimum)
    # A cost is that of the fit at the same point, and each candidate is asked once.
    assert state.table[0, 0] == pytest.approx(float(reference.cost), rel=1e-9)
    assert np.isfinite(state.table[1]).sum() == 3
    agree(fit, reference)
