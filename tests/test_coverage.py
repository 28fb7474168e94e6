"""Error bars mean what they say: z-scores and coverage over a hundred simulated data sets."""

import jax
import numpy as np
import pytest
from helpers import LAMINAR, frame_times, make_data, mapped, values_of

from xpcs_eqx.data import Geometry
from xpcs_eqx.fitting import least_squares, profile_interval
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.physics import PowerLawRate, Static
from xpcs_eqx.simulation import simulate_speckle

pytestmark = pytest.mark.slow

SETS = 100
CONTENT = (0.58, 0.78)  # of 68 % intervals over 100 sets: ± 2 binomial standard deviations
TRUE = {**values_of(LAMINAR), "contrast": 0.2, "offset": 1.0}


def true_value(name, values):
    return values[name.split("[")[0]]


@pytest.fixture(scope="module")
def laminar_fits():
    t = frame_times(101)
    fits = []
    for seed in range(SETS):
        data = make_data(t=t, noise=0.005, seed=seed)
        fits.append(least_squares(projected_objective(mapped(LAMINAR, data), data)))
    return fits


def test_z_scores_of_independent_noise(laminar_fits):
    assert all(fit.success for fit in laminar_fits)
    for k, row in enumerate(laminar_fits[0].rows):
        rows = [fit.rows[k] for fit in laminar_fits]
        true = true_value(row.name, TRUE)
        z = np.array([(r.value - true) / r.error_classical for r in rows])
        print(f"{row.name:20s} median {np.median(z):6.2f}  sd {np.std(z):5.2f}")
        assert abs(np.median(z)) <= 0.3, row.name
        assert 0.7 <= np.std(z) <= 1.3, row.name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "D0" else pytest.mark.long)
        for name in values_of(LAMINAR)
    ],
)
def test_profile_intervals(laminar_fits, name):
    intervals = [profile_interval(fit, name) for fit in laminar_fits]
    inside = np.mean([i.low <= TRUE[name] <= i.high for i in intervals])
    print(f"{name:20s} covered {inside:.2f}")
    assert CONTENT[0] <= inside <= CONTENT[1]


@pytest.mark.parametrize("mean_counts", [0.5, 5.0])
def test_speckle_sandwich(mean_counts):
    t = np.arange(60.0)
    geometry = Geometry(q=0.01, phi=np.array([0.0]))
    truth = Static(PowerLawRate(1e3, 0.0, 0.0))  # 1/e of c2 after ten frames
    true = {**values_of(truth), "contrast": 0.25, "offset": 1.0}

    @jax.jit
    def simulated(key):
        return simulate_speckle(
            truth, t, geometry, 0.25, n_pixels=2000, mean_counts=mean_counts, key=key
        )

    fits = []
    for seed in range(SETS):
        data = simulated(jax.random.key(seed))
        parameters = mapped(truth, data, fixed=("alpha", "D_offset"))
        fits.append(least_squares(projected_objective(parameters, data)))
    narrow = []
    for k, row in enumerate(fits[0].rows):
        if row.role not in ("free", "scaling"):
            continue
        rows = [fit.rows[k] for fit in fits]
        distance = np.array([abs(r.value - true_value(row.name, true)) for r in rows])
        inside = {
            kind: float(np.mean(distance < np.array([getattr(r, f"error_{kind}") for r in rows])))
            for kind in ("speckle", "dyadic", "classical")
        }
        print(f"{mean_counts} counts, {row.name:12s}", inside)
        assert CONTENT[0] <= inside["speckle"] <= CONTENT[1], row.name
        narrow.append(inside["classical"])
    # Pairs taken as independent promise too much, the more so the more counts there are.
    assert max(narrow) < CONTENT[0]
