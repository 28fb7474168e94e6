"""Covariances against dense formulas, and profiles against them where the problem is linear."""

import dataclasses
import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Stretched, dense_residual, frame_times, make_data, mapped, pooled

from xpcs_eqx.data import Geometry
from xpcs_eqx.errors import ModelError
from xpcs_eqx.fitting import least_squares, profile_interval
from xpcs_eqx.objective import Linear, projected_objective
from xpcs_eqx.parameters import parameter_map
from xpcs_eqx.physics import AbstractCorrelation, Features, PowerLawRate, Static, parameter
from xpcs_eqx.scaling import Fixed
from xpcs_eqx.simulation import simulate_speckle
from xpcs_eqx.uncertainty import ScoreCovariances, sandwiches
from xpcs_eqx.uncertainty.scores import speckle_scores
from xpcs_eqx.uncertainty.speckle_noise import (
    beyond_gaussian,
    shared_frame_coefficients,
    variance_coefficients,
)

TRUTH = Stretched(tau=2.0, stretch=0.8)
N = 14


@pytest.fixture(scope="module")
def data():
    found = make_data(TRUTH, t=frame_times(N, 3.0), phi=[0.0], noise=0.01)
    # A raw diagonal: offset, contrast, and shot noise 0.4.
    raw = 1.2 + 0.4 + 0.01 * np.random.default_rng(3).normal(size=(1, N))
    return eqx.tree_at(lambda d: d.diagonal, found, raw)


@pytest.fixture(scope="module")
def fit(data):
    return least_squares(projected_objective(mapped(TRUTH, data), data))


@pytest.fixture(scope="module")
def dense(fit, data):
    """Residuals and Jacobian of the upper triangle, columns (contrast, offset, tau, stretch)."""
    term = fit.objective.term
    scaling, x = jnp.asarray(fit.values[:2]), jnp.asarray(fit.values[2:])

    @jax.jit
    def both(x, c):
        def residuals(x, c):
            return dense_residual(term, data, term.parameters.to_coordinates(x), c)

        physical, linear = jax.jacfwd(residuals, (0, 1))(x, c)
        return residuals(x, c), jnp.concatenate([linear, physical], axis=1)

    r, columns = both(x, scaling)
    return np.asarray(r), np.asarray(columns)


def assert_covariance(found, wanted, rtol):
    errors = np.sqrt(np.diagonal(wanted))
    np.testing.assert_allclose(
        found / np.outer(errors, errors), wanted / np.outer(errors, errors), atol=rtol
    )


def test_classical_covariance(fit, dense):
    r, columns = dense
    variance = r @ r / (r.size - 4)
    wanted = variance * np.linalg.inv(columns.T @ columns)
    assert_covariance(fit.uncertainty.classical, wanted, 1e-6)
    np.testing.assert_allclose(fit.residual_sd, np.sqrt(variance), rtol=1e-8)
    np.testing.assert_allclose(fit["tau"].error_classical, np.sqrt(wanted[2, 2]), rtol=1e-6)


def test_absolute_sigma_is_not_rescaled(data, dense):
    r, columns = dense
    weights = np.full(data.c2.shape, 1 / 0.03)
    absolute = dataclasses.replace(data, root_weights=weights, absolute_sigma=True)
    fit = least_squares(projected_objective(mapped(TRUTH, absolute), absolute))
    wanted = 0.03**2 * np.linalg.inv(columns.T @ columns)
    assert_covariance(fit.uncertainty.classical, wanted, 1e-5)
    np.testing.assert_allclose(fit.reduced_chi2, r @ r / 0.03**2 / (r.size - 4), rtol=1e-6)


def pairs():
    return np.array(np.triu_indices(N, 1)).T


def test_dyadic_covariance_by_brute_force(fit, dense):
    r, columns = dense
    scores, where = columns * r[:, None], pairs()
    shares = (where[:, None, :, None] == where[None, :, None, :]).any(axis=(2, 3))
    # A fit follows the noise and so takes 4/n of it out of the sums by frame, to first order.
    middle = (1 + 4 / N) * scores.T @ shares @ scores
    inverse = np.linalg.inv(columns.T @ columns)
    scale = np.sqrt(np.diagonal(fit.uncertainty.classical))
    found = fit.uncertainty.dyadic / np.outer(scale, scale)
    np.testing.assert_allclose(
        found, inverse @ middle @ inverse / np.outer(scale, scale), atol=1e-5
    )


def test_dyadic_errors_of_few_frames_are_numbers():
    # Sums over few frames leave variances below zero, of any sign in some direction.
    own = np.diag([4.0, 1.0])
    dyadic = np.array([[-1.0, 0.2], [0.2, 1.5]])
    scores = ScoreCovariances(
        *(dyadic, dyadic, own, np.diag([2.0, 1.0]), None),
        *(np.ones(1), np.ones(1), "speckle", ""),
    )
    u = sandwiches(scores, 1.0, np.ones(2, bool), ("a", "b"))
    errors = u.errors("dyadic")
    assert errors[0] == pytest.approx(np.sqrt(0.1 * 4) / 2, rel=0.05)
    # What does not scatter below a tenth of independent pairs stays as it is.
    assert errors[1] == pytest.approx(np.sqrt(1.5), rel=0.01)


def speckle_noise(g, contrast, shot, where):
    """N Cov of c2 of all pairs with all, from joint cumulants of intensities and counts.

    A joint cumulant of counts is the sum over all ways to put positions of equal frame together,
    shot to the power of what was put together times that of the intensities.
    """
    k = contrast * np.abs(g) ** 2

    def of_intensity(*frames):
        first, *others = frames
        if not others:
            return 1.0
        cycles = []
        for order in itertools.permutations(others):
            path = (first, *order, first)
            cycles.append(np.prod([g[a, b] for a, b in itertools.pairwise(path)]))
        return contrast ** len(others) * np.sum(cycles).real

    def groups(positions):
        if not positions:
            yield []
            return
        first, *rest = positions
        for found in groups(rest):
            yield [[first], *found]
            for m in range(len(found)):
                yield [*found[:m], [first, *found[m]], *found[m + 1 :]]

    @functools.cache
    def cumulant(*frames):
        total = 0.0
        for found in groups(list(range(len(frames)))):
            if all(len({frames[i] for i in group}) == 1 for group in found):
                heads = [frames[group[0]] for group in found]
                total += shot ** (len(frames) - len(found)) * of_intensity(*heads)
        return total

    def covariance(i, j, m, n):
        third = k[i, j] * (cumulant(i, m, n) + cumulant(j, m, n))
        third += k[m, n] * (cumulant(i, j, m) + cumulant(i, j, n))
        second = [cumulant(*sorted(pair)) for pair in ((i, m), (j, n), (i, n), (j, m))]
        both = second[0] * second[1] + second[2] * second[3]
        return both + cumulant(i, j, m, n) - third + k[i, j] * k[m, n] * sum(second)

    return np.array([[covariance(*p, *q) for q in where.tolist()] for p in where.tolist()])


def random_field(n, *, is_complex):
    rng = np.random.default_rng(5)
    modes = rng.normal(size=(n, 3)) + (1j * rng.normal(size=(n, 3)) if is_complex else 0)
    modes /= np.linalg.norm(modes, axis=1)[:, None]
    return modes @ modes.conj().T


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize(("contrast", "shot"), [(0.25, 0.0), (0.7, 0.4)])
def test_sums_of_correlations_vary_as_the_sum_over_all_pairs_says(is_complex, contrast, shot):
    n = 5
    g = random_field(n, is_complex=is_complex)
    columns = np.random.default_rng(6).normal(size=(2, n, n))
    columns = columns + np.swapaxes(columns, 1, 2)
    columns[:, np.arange(n), np.arange(n)] = 0
    where = np.array(np.triu_indices(n, 1)).T
    noise = speckle_noise(g, contrast, shot, where)
    flat = columns[:, where[:, 0], where[:, 1]]
    k = contrast * np.abs(g) ** 2 + shot * np.eye(n)
    gaussian = 0.5 * np.einsum("ij,ajk,kl,bli->ab", k, columns, k, columns)
    beyond = jax.jit(beyond_gaussian)(columns, g, np.ones(n), contrast, shot)
    np.testing.assert_allclose(gaussian + beyond, flat @ noise @ flat.T, rtol=1e-10)

    signal = contrast * np.abs(g[where[:, 0], where[:, 1]]) ** 2
    means = np.array([np.mean(signal**m) for m in (1, 2, 3)])
    parts = variance_coefficients(jnp.asarray(contrast), means, True)
    variance = sum(part * shot**m for m, part in enumerate(parts))
    np.testing.assert_allclose(variance, np.mean(np.diagonal(noise)), rtol=1e-12)

    shares = (where[:, None, :, None] == where[None, :, None, :]).any(axis=(2, 3))
    np.fill_diagonal(shares, False)
    off = contrast * np.abs(g) ** 2 * (1 - np.eye(n))
    open_pairs = np.sum(off.sum(0) ** 2) - np.sum(off**2)
    means = np.array([np.mean(signal), open_pairs / (n * (n - 1) * (n - 2))])
    parts = shared_frame_coefficients(jnp.asarray(contrast), means, g, True)
    np.testing.assert_allclose(parts[0] + shot * parts[1], np.mean(noise[shares]), rtol=1e-12)


def test_speckle_covariance_is_the_sum_over_all_pairs_of_pairs(fit, dense):
    _, columns = dense
    u = fit.uncertainty
    contrast, shot = float(fit.contrast[0]), float(u.shot_noise[0])
    correlation = (fit.surface()[0] - float(fit.offset[0])) / contrast
    noise = speckle_noise(np.sqrt(correlation), contrast, shot, pairs()) / float(u.n_pixels[0])
    inverse = np.linalg.inv(columns.T @ columns)
    wanted = inverse @ columns.T @ noise @ columns @ inverse
    assert_covariance(u.speckle, wanted, 1e-5)
    # N: what noise of N pixels leaves once the fit has followed what it can are the residuals.
    left = np.eye(columns.shape[0]) - columns @ inverse @ columns.T
    np.testing.assert_allclose(np.trace(left @ noise @ left), float(fit.chi2), rtol=1e-5)


class NoField(AbstractCorrelation):
    """Correlated up to a delay and then not at all, which no field is."""

    width: float = parameter(start=0.5, bounds=(0.01, 10.0))

    def features(self, t, geometry):
        return Features(increments=t / self.width)

    def kernel(self, pair):
        return jnp.exp(-(pair.increments**6))


def test_a_model_without_a_field_keeps_the_gaussian_part_and_says_so():
    data = make_data(NoField(0.5), t=frame_times(N, 3.0), phi=[0.0], noise=0.01)
    fit = least_squares(projected_objective(mapped(NoField(0.6), data), data))
    u = fit.uncertainty
    assert "no Gaussian field" in u.reason
    term = fit.objective.term

    def residuals(x, c):
        return dense_residual(term, data, term.parameters.to_coordinates(x), c)

    x, c = jnp.asarray(fit.values[2:]), jnp.asarray(fit.values[:2])
    physical, linear = jax.jit(jax.jacfwd(residuals, (0, 1)))(x, c)
    columns = np.concatenate([linear, physical], axis=1)
    k = fit.surface()[0] - float(fit.offset[0]) + float(u.shot_noise[0]) * np.eye(N)
    i, j = pairs().T
    noise = k[np.ix_(i, i)] * k[np.ix_(j, j)] + k[np.ix_(i, j)] * k[np.ix_(j, i)]
    inverse = np.linalg.inv(columns.T @ columns)
    wanted = inverse @ columns.T @ noise @ columns @ inverse / float(u.n_pixels[0])
    assert_covariance(u.speckle, wanted, 1e-5)


@pytest.mark.parametrize("counts", [5.0, 50.0])
def test_without_a_diagonal_the_shot_noise_is_no_larger_than_it_is(counts):
    """A fit follows what residuals have in common, which looked as if that were not there."""
    truth, t = Static(PowerLawRate(1e3, 0.0, 0.0)), np.arange(1.0, 31.0)
    how = {"n_pixels": 2000, "mean_counts": counts}
    simulate = jax.jit(
        lambda key: simulate_speckle(truth, t, Geometry(0.01, np.zeros(1)), 0.25, key=key, **how)
    )
    shot, off, errors = [], [], []
    for key in jax.random.split(jax.random.key(0), 16):
        data = dataclasses.replace(simulate(key), diagonal=np.full((1, 30), np.nan))
        start = mapped(truth, data, fixed=("alpha", "D_offset"))
        fit = least_squares(projected_objective(start, data))
        shot.append(float(fit.uncertainty.shot_noise[0]))
        off.append(fit["D0"].value - 1e3)
        errors.append(fit["D0"].error)
    assert 0.5 < np.median(shot) * counts < 1.6
    # Of 16 a standard deviation is known to 18 %; it was 1.5 times as large as the errors.
    assert 0.7 < np.std(off) / np.sqrt(np.mean(np.square(errors))) < 1.35


def test_overwritten_diagonals_are_noticed(data):
    def reason(diagonal):
        other = eqx.tree_at(lambda d: d.diagonal, data, diagonal)
        fit = least_squares(projected_objective(mapped(TRUTH, other), other))
        assert fit.uncertainty.chosen == "speckle"
        assert np.all(np.isfinite(fit.uncertainty.shot_noise))
        return fit.uncertainty.reason

    side = np.diagonal(data.c2[0], offset=1)
    mean = 0.5 * (np.append(side, side[-1]) + np.insert(side, 0, side[0]))
    for copied in (mean, np.append(side, side[-1]), np.full(N, 1.0)):
        text = reason(copied[None])
        assert "overwritten" in text
        assert "shot noise from the residuals" in text
    assert "no diagonal" in reason(np.full((1, N), np.nan))
    assert "below offset + contrast" in reason(data.diagonal - 0.9)


def test_pooled_points_quote_the_dyadic_errors(data, fit):
    points = pooled(data)
    other = least_squares(projected_objective(mapped(TRUTH, points), points))
    assert other.uncertainty.chosen == "dyadic"
    assert "pooled points" in other.uncertainty.reason
    np.testing.assert_allclose(other.values, fit.values, rtol=1e-5)
    assert_covariance(other.uncertainty.classical, fit.uncertainty.classical, 1e-4)
    assert np.all(np.isnan(other.uncertainty.speckle))
    # Neither their residuals nor their decay are tested, which a good verdict does not hide.
    (said,) = [one for one in other.quality.findings if "is not tested" in one]
    assert "pairs without their frames" in said
    assert not any("is not tested" in one for one in fit.quality.findings)


class Line(AbstractCorrelation):
    """Linear in its parameter, so that profile and standard error are the same."""

    slope: float = parameter(start=0.1, bounds=(-5.0, 5.0))

    def features(self, t, geometry):
        return Features(increments=t, scalars=self.slope)

    def kernel(self, pair):
        return 1 - pair.scalars * pair.increments + 0.01 * pair.increments**2


@pytest.mark.parametrize(("level", "width"), [(0.682689492137086, 1.0), (0.954499736, 2.0)])
def test_profile_of_a_linear_problem(level, width):
    data = make_data(Line(0.05), n=N, phi=[0.0], noise=0.01)
    scaling = Fixed(np.array([0.2]), np.array([1.0]))
    fit = least_squares(projected_objective(mapped(Line(0.1), data), data, scaling))
    row = fit["slope"]
    found = profile_interval(fit, "slope", level)
    np.testing.assert_allclose(
        [found.low, found.high],
        row.value + np.array([-1, 1]) * width * row.error_classical,
        atol=2e-3 * row.error_classical,
    )
    assert found.value == pytest.approx(row.value)
    wider = profile_interval(fit, "slope", level, kind="dyadic")
    ratio = (wider.high - wider.low) / (found.high - found.low)
    np.testing.assert_allclose(ratio, row.error_dyadic / row.error_classical, rtol=5e-3)


def test_profile_arguments(fit):
    with pytest.raises(ModelError, match="no free parameter 'tao'"):
        profile_interval(fit, "tao")
    with pytest.raises(ModelError, match=r"level 1\.5"):
        profile_interval(fit, "tau", 1.5)


class Double(AbstractCorrelation):
    """Two parameters that enter only as a product."""

    speed: float = parameter(start=0.5, bounds=(0.01, 10.0))
    factor: float = parameter(start=1.0, bounds=(0.01, 10.0))

    def features(self, t, geometry):
        return Features(increments=self.speed * self.factor * t)

    def kernel(self, pair):
        return jnp.exp(-pair.increments)


def test_what_the_data_do_not_determine_is_named(data):
    fit = least_squares(projected_objective(mapped(Double(0.6, 1.2), data), data))
    assert np.isinf(fit["speed"].error_classical)
    assert np.isinf(fit["factor"].error_classical)
    assert np.isfinite(fit["offset[0]"].error_classical)
    (direction,) = fit.uncertainty.weak_directions
    assert "speed" in direction
    assert "factor" in direction
    assert "offset" not in direction
    assert fit.quality.flag == "poor"
    assert any("do not determine speed" in finding for finding in fit.quality.findings)


def test_correlations(fit):
    matrix = fit.uncertainty.correlation("classical")
    np.testing.assert_allclose(np.diagonal(matrix), 1.0)
    assert np.all(np.abs(matrix) <= 1 + 1e-12)
    assert fit.uncertainty.condition_number >= 1


def test_error_of_a_rate():
    model = Static()
    data = make_data(model, n=31, phi=[0.0])
    fit = least_squares(projected_objective(mapped(model, data, fixed=("alpha", "D_offset")), data))
    rate, error = fit.rate("transport")
    np.testing.assert_allclose(rate, fit["D0"].value, rtol=1e-12)
    np.testing.assert_allclose(error, fit["D0"].error, rtol=1e-6)


@pytest.mark.long
def test_pooling_frames_hardly_changes_the_speckle_covariance():
    model = Static()
    data = make_data(model, n=120, phi=[0.0])
    fit = least_squares(projected_objective(mapped(model, data, fixed=("alpha", "D_offset")), data))
    term = fit.objective.term
    y = term.parameters.to_coordinates(jnp.asarray(fit.values[fit.index.physical]))
    per_angle = jnp.stack([jnp.asarray(fit.contrast), jnp.asarray(fit.offset)], axis=1)
    find = eqx.filter_jit(speckle_scores)
    whole, by_two = (
        find(term, y, per_angle, Linear(), jnp.array([0.3]), pooled_side=side) for side in (120, 60)
    )
    np.testing.assert_allclose(by_two.n_pixels, whole.n_pixels, rtol=1e-6)
    errors = [np.sqrt(np.diagonal(found.covariance[0])) for found in (whole, by_two)]
    np.testing.assert_allclose(errors[1], errors[0], rtol=0.03)


@pytest.mark.long
def test_noise_that_a_fit_follows_is_counted():
    # Slow speckle at high counts: few independent numbers in a map, of which a fit follows most.
    # What it leaves is a fifth of the noise.
    model = Static(PowerLawRate(1.5e4, -0.3, 0.0))
    t, geometry = 0.1 * np.arange(1, 22), Geometry(0.0054, np.array([0.0]))
    found = []
    for seed in range(16):
        key = jax.random.key(seed)
        data = simulate_speckle(model, t, geometry, 0.5, n_pixels=2000, mean_counts=50, key=key)
        parameters = parameter_map(model, t, fixed=("D_offset",))
        fit = least_squares(projected_objective(parameters, data))
        found.append(float(fit.uncertainty.n_pixels[0]))
    # A single map knows its N to a factor of two.
    assert 1300 < np.median(found) < 3000
