"""Error bars mean what they say: z-scores and coverage over dozens of simulated data sets."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, SPECKLE, SPEED, STATIC, frame_times, make_data, mapped, values_of

from xpcs_eqx.fitting import classical_covariance, least_squares, profile_interval
from xpcs_eqx.objective import (
    Arctan,
    Cauchy,
    Huber,
    Linear,
    SoftL1,
    projected_objective,
    two_time_objective,
)
from xpcs_eqx.physics import PowerLawRate, Static, correlation_map
from xpcs_eqx.simulation import simulate, simulate_speckle
from xpcs_eqx.uncertainty.speckle_noise import variance_coefficients

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]

SETS = 100
CONTENT = (0.58, 0.78)  # of 68 % intervals over 100 sets: ± 2 binomial standard deviations
TRUE = {**values_of(LAMINAR), "contrast": 0.2, "offset": 1.0}


def true_value(name, values):
    return values[name.split("[")[0]]


@pytest.fixture(scope="module")
def laminar_fits(optimised):
    t = frame_times(61)
    fits = []
    for seed in range(60):
        data = make_data(t=t, noise=0.005, seed=seed)
        objective = projected_objective(mapped(LAMINAR, data), data)
        fits.append(least_squares(objective, errors="classical"))
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


@pytest.mark.long
@pytest.mark.parametrize("name", values_of(LAMINAR))
def test_profile_intervals(laminar_fits, name):
    intervals = [profile_interval(fit, name) for fit in laminar_fits]
    inside = np.mean([i.low <= TRUE[name] <= i.high for i in intervals])
    print(f"{name:20s} covered {inside:.2f}")
    assert CONTENT[0] <= inside <= CONTENT[1]


def covered(name, contrast, mean_counts, sets):
    """Parts of the sets in which an interval holds the truth: by kind of error and parameter."""
    truth, fixed, t, geometry = SPECKLE[name]
    true = {**values_of(truth), "contrast": contrast, "offset": 1.0}

    @partial(jax.jit, compiler_options=SPEED)
    def simulated(key):
        return simulate_speckle(
            truth, t, geometry, contrast, n_pixels=2000, mean_counts=mean_counts, key=key
        )

    inside = {"speckle": [], "classical": []}
    for seed in range(sets):
        data = simulated(jax.random.key(seed))
        fit = least_squares(projected_objective(mapped(truth, data, fixed=fixed), data))
        rows = [row for row in fit.rows if row.role in ("free", "scaling")]
        distance = np.array([abs(row.value - true_value(row.name, true)) for row in rows])
        for kind, all_sets in inside.items():
            all_sets.append(distance < np.array([getattr(row, f"error_{kind}") for row in rows]))
    parts = {kind: np.mean(all_sets, axis=0) for kind, all_sets in inside.items()}
    print(name, contrast, mean_counts, {kind: np.round(p, 2) for kind, p in parts.items()})
    return parts


@pytest.mark.parametrize(
    ("contrast", "mean_counts"),
    [
        (0.25, 5.0),
        *(pytest.param(*cell, marks=pytest.mark.long) for cell in ((0.25, 0.5), (0.5, None))),
    ],
)
def test_speckle_sandwich(contrast, mean_counts):
    inside = covered("static", contrast, mean_counts, SETS)
    assert np.all(inside["speckle"] >= CONTENT[0])
    assert np.all(inside["speckle"] <= CONTENT[1])
    # Pairs taken as independent promise too much, the more so the more counts there are.
    assert np.max(inside["classical"]) < CONTENT[0]


@pytest.mark.long
@pytest.mark.parametrize("name", SPECKLE)
def test_speckle_errors_cover_at_every_contrast_and_count(name):
    cells = {
        (contrast, counts): np.mean(covered(name, contrast, counts, 200)["speckle"])
        for contrast in (0.1, 0.25, 0.5)
        for counts in (0.5, 5.0, 50.0, None)
    }
    wrong = {cell: part for cell, part in cells.items() if not CONTENT[0] <= part <= CONTENT[1]}
    assert not wrong
    assert 0.65 <= np.mean(list(cells.values())) <= 0.71


@pytest.mark.parametrize(
    ("contrast", "mean_counts", "n_pixels"),
    [
        (0.5, None, 500),
        *(
            pytest.param(contrast, counts, 4000, marks=pytest.mark.long)
            for contrast, counts in (
                *((0.25, None), (0.5, None), (1.0, None)),
                *((0.5, 0.5), (0.5, 5.0), (0.5, 50.0)),
            )
        ),
    ],
)
def test_variance_of_simulated_correlations_by_lag(contrast, mean_counts, n_pixels):
    n = 6
    t = 5.0 * np.arange(n)
    geometry = SPECKLE["static"][3]

    def one(key):
        return simulate_speckle(
            STATIC, t, geometry, contrast, n_pixels=n_pixels, mean_counts=mean_counts, key=key
        ).c2[0]

    @partial(jax.jit, compiler_options=SPEED)
    def simulated(keys):
        return jax.lax.map(jax.vmap(one), keys)

    keys = jax.random.split(jax.random.key(1), (40, 100))
    maps = np.concatenate(simulated(keys))
    signal = contrast * np.asarray(correlation_map(STATIC, t, geometry))[0]
    shot = 0.0 if mean_counts is None else 1 / mean_counts
    for lag in range(1, n):
        found = np.mean(np.diagonal(maps.var(axis=0, ddof=1), lag)) * n_pixels
        k = signal[0, lag]
        parts = variance_coefficients(jnp.asarray(contrast), jnp.array([k, k**2, k**3]), True)
        wanted = sum(float(part) * shot**m for m, part in enumerate(parts))
        print(f"contrast {contrast}, counts {mean_counts}, lag {lag}: {found / wanted:.3f}")
        assert abs(found / wanted - 1) < 0.05


LOSSES = (Linear(), SoftL1(), Huber(), Cauchy(), Arctan())


@pytest.mark.parametrize(
    ("loss", "sets"),
    [
        pytest.param(Cauchy(), 25, id="Cauchy"),
        *(
            pytest.param(loss, 400, id=f"{type(loss).__name__}-many", marks=pytest.mark.long)
            for loss in LOSSES
        ),
    ],
)
def test_errors_mean_the_same_under_every_loss(loss, sets):
    n, noise = 40, 0.01
    t, geometry = 0.1 * np.arange(1, n + 1), SPECKLE["static"][3]
    truth = Static(PowerLawRate(1e4, 0.0, 0.0))
    bare = simulate(truth, t, geometry, 0.2, noise=0.0, key=jax.random.key(0))
    weights = np.full(bare.c2.shape, 1 / noise)
    data = dataclasses.replace(bare, root_weights=weights, absolute_sigma=True)
    parameters = mapped(truth, data, fixed=("alpha", "D_offset"))
    objective = two_time_objective(parameters, data, loss=loss, eliminate=False)

    def with_maps(c2):
        return eqx.tree_at(lambda o: o.term.tiles.c2, objective, c2)

    @jax.jit
    def simulated(key):
        return simulate(truth, t, geometry, 0.2, noise=noise, key=key).c2

    maps = [simulated(key) for key in jax.random.split(jax.random.key(1), sets)]
    fits = [least_squares(with_maps(c2)) for c2 in maps]
    assert all(fit.success for fit in fits)
    true = np.std([fit.values for fit in fits], axis=0, ddof=1)
    # Of m sets it is known to 1/√(2m), here three of it; the limits are meant for 400.
    more = 3 * ((2 * sets) ** -0.5 - 800**-0.5)
    for kind, low, high in (
        ("classical", 0.9, 1.12),
        ("speckle", 0.9, 1.12),
        ("dyadic", 0.8, 1.15),
    ):
        quoted = np.array([fit.uncertainty.errors(kind) for fit in fits])
        assert not np.any(np.isnan(quoted))
        ratio = np.mean(quoted, axis=0) / true
        print(type(loss).__name__, sets, kind, np.round(ratio, 3))
        assert np.all((ratio > low - more) & (ratio < high + more)), kind
    covariance = classical_covariance(with_maps(maps[-1]), fits[-1].values)
    quoted = fits[-1].uncertainty.errors("classical")
    np.testing.assert_allclose(quoted, np.sqrt(np.diagonal(covariance)), rtol=1e-4)
