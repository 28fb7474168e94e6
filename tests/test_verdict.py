"""A verdict to be trusted: right models are good, wrong ones are not, and the place is named."""

import importlib
from argparse import Namespace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import LAMINAR, PHI, SPECKLE, SPEED, frame_times, make_data, mapped
from helpers_data import data_of as maps_in_memory
from helpers_data import noisy_map
from scipy import stats

from xpcs_eqx.data import Geometry, Selection, from_dict
from xpcs_eqx.fitting import Thresholds, judge, least_squares
from xpcs_eqx.objective import Huber, projected_objective, two_time_objective
from xpcs_eqx.parameters import with_parameters
from xpcs_eqx.physics import PowerLawRate, Static, correlation_map
from xpcs_eqx.search import Auto, fit_maps, global_least_squares
from xpcs_eqx.simulation import simulate, simulate_speckle
from xpcs_eqx.uncertainty.evidence import agree
from xpcs_eqx.uncertainty.local_noise import ExpectedNoise, LocalSums
from xpcs_eqx.uncertainty.misfit import NoiseSize, _chance_beyond, zero_test
from xpcs_eqx.uncertainty.structure import MapInBlocks, pair_powers

CONTRAST, NOISE = 0.2, 0.005
# Of fits of the static kind that leave what a right model would not.
HELD = "held at a value: alpha = "


def data_of(c2, kind="static", baseline="auto", bad_frames="auto", **more):
    """Data of maps `(angle, frame, frame)`, or of one map."""
    _, _, t, geometry = SPECKLE[kind]
    c2 = np.asarray(c2)
    c2 = c2 if c2.ndim == 3 else c2[None]
    known = {"t1": t, "t2": t, "q": geometry.q, "phi": geometry.phi}
    selection = Selection(bad_frames=bad_frames)
    return from_dict({"g2": c2, **known, **more}, baseline=baseline, selection=selection)


def fitted_map(c2, kind="static", **more):
    """The fit of maps, as of `data_of`."""
    truth, fixed, *_ = SPECKLE[kind]
    data = data_of(c2, kind, **more)
    return least_squares(projected_objective(mapped(truth, data, fixed=fixed), data))


def with_noise(c2, seed, noise=NOISE):
    """A symmetric map with independent noise of each pair."""
    scatter = np.triu(np.random.default_rng(seed).normal(size=c2.shape), 1) * noise
    return c2 + scatter + np.swapaxes(scatter, -1, -2)


def surface(kind="static"):
    """|c1|² of the kind, and the lag and the mean of its pairs [frames]."""
    truth, _, t, geometry = SPECKLE[kind]
    frames = np.arange(t.size)
    lag, middle = np.abs(frames[:, None] - frames), 0.5 * (frames[:, None] + frames)
    return np.asarray(correlation_map(truth, t, geometry)), lag, middle


def simulated(kind, counts, contrast=0.25):
    """What makes the data of a seed: independent noise, or speckle at some counts."""
    truth, _, t, geometry = SPECKLE[kind]

    @partial(jax.jit, compiler_options=SPEED)
    def data(key):
        if counts == "independent":
            return simulate(truth, t, geometry, contrast, 1.0, noise=NOISE, key=key)
        return simulate_speckle(
            truth, t, geometry, contrast, n_pixels=2000, mean_counts=counts, key=key
        )

    return lambda seed: data(jax.random.key(seed))


def right_fits(kind, counts, sets):
    truth, fixed, *_ = SPECKLE[kind]
    make = simulated(kind, counts)
    for seed in range(sets):
        data = make(seed)
        yield least_squares(projected_objective(mapped(truth, data, fixed=fixed), data))


def benchmark(monkeypatch):
    """The benchmark of the tests, which draws photons and fits in bulk."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module("verdict")


def check_right(kind, counts, sets, fits=None):
    """No more right models doubted than chance has it, and probabilities that are uniform."""
    doubted, probabilities = 0, {}
    for fit in right_fits(kind, counts, sets) if fits is None else fits:
        doubted += fit.quality.flag != "good"
        for test in fit.fitted.misfit.tests:
            probabilities.setdefault(test.name, []).append(test.probability)
    assert doubted <= max(1, sets // 50), (kind, counts, doubted)
    of_several = {"map"} if kind == "laminar" else set()
    assert set(probabilities) == {"frame", "lag", "age", "angle", "scale"} | of_several
    for name, found in probabilities.items():
        assert stats.kstest(found, "uniform").pvalue > 1e-4, (kind, counts, name)


@pytest.mark.long
@pytest.mark.parametrize("counts", ["independent", 0.5, 5.0, 50.0, None])
@pytest.mark.parametrize("kind", SPECKLE)
def test_two_hundred_right_models_are_good(kind, counts):
    check_right(kind, counts, 200)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "pixels"), [("static", 11_000), ("laminar", 60_000)])
def test_right_models_are_good_where_hardly_a_pixel_has_a_photon(kind, pixels, monkeypatch):
    """0.05 counts a pixel and frame, of which D0 is known to a fifth."""
    truth, _, t, geometry = SPECKLE[kind]
    draw = benchmark(monkeypatch).maps_of(truth, t, geometry, "0.05", pixels, 0.0)
    errors = []

    def fits():
        for seed in range(200):
            fit = fitted_map(draw(seed), kind)
            errors.append(fit["D0"].error / truth.transport.amplitude)
            yield fit

    check_right(kind, 0.05, 200, fits())
    assert 0.15 < np.median(errors) < 0.25


@pytest.mark.parametrize("seed", range(3))
def test_white_noise_of_maps_that_decay_within_some_frames_is_told(seed):
    """Nothing but the size of residuals tells it from speckle without shot noise."""
    t = frame_times(102)[1:]
    geometry = Geometry(q=0.0054, phi=np.linspace(0.0, 90.0, 3), gap=2e6)
    data = simulate(LAMINAR, t, geometry, CONTRAST, 1.0, noise=0.01, key=jax.random.key(seed))
    fit = least_squares(projected_objective(mapped(LAMINAR, data), data))
    assert not fit.quality.doubtful, fit.quality.findings
    assert fit.misfit.noise == pytest.approx([0.01] * 3, rel=0.1)


def test_what_a_fit_leaves_of_the_diagonal_is_no_shot_noise():
    # The diagonal less contrast and offset, both fitted, scatters by 2e-3.
    for fit in right_fits("static", None, 3):
        assert np.all(fit.uncertainty.shot_noise < 1e-3)


def test_sums_measured_by_their_own_residuals_are_as_rare_as_is_said():
    """χ² of some of n residuals over the variance of all of them is no F of (some, n)."""
    random, some, n, found = np.random.default_rng(0), 12, 60, []
    for _ in range(4000):
        residuals = random.normal(size=n)
        variance = np.mean(residuals**2)
        covariance = variance * np.eye(some)
        size = NoiseSize(2 / n, -1 / n, 2 / n / variance)
        test = zero_test(residuals[:some], np.ones(some), covariance, covariance, size)
        found.append(test.probability)
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def test_the_spectrum_of_the_noise_of_all_pairs_is_exact():
    """Of single frames; what is pooled says nearly the same."""
    n, contrast, shot = 24, 0.2, 0.05
    frames = np.arange(n)
    field = np.exp(
        -0.05 * np.abs(frames[:, None] - frames) * (1 + 0.02 * (frames[:, None] + frames))
    )
    kernel = (contrast * field**2 + shot * np.eye(n)) / (contrast + shot)
    i, j = np.triu_indices(n, 1)
    noise = (
        kernel[np.ix_(i, i)] * kernel[np.ix_(j, j)] + kernel[np.ix_(i, j)] * kernel[np.ix_(j, i)]
    )
    values = np.linalg.eigvalsh(noise)

    def found(field, length):
        blocks = MapInBlocks(np.zeros(0), np.zeros(0), field, np.asarray(length, float), length[0])
        return np.asarray(pair_powers(blocks, np.asarray(contrast), np.asarray(shot))[0])

    exact = [np.sum(values**m) for m in range(1, 5)]
    assert found(field, [1] * n) == pytest.approx(exact, rel=1e-9)
    mean = np.sqrt(np.mean((field**2).reshape(12, 2, 12, 2), axis=(1, 3)))
    assert found(mean, [2] * 12) == pytest.approx(exact, rel=0.1)


def test_a_difference_beyond_others_that_share_its_frames_is_as_rare_as_is_said():
    """Of 16, which the same number of independent values in their mean square is no help for."""
    random, others, far = np.random.default_rng(0), 16, 14.0
    differences = np.diff(random.normal(size=(100_000, others + 2)), 2, axis=1)
    ratio = 6 * random.normal(size=len(differences)) ** 2 / np.mean(differences**2, axis=1)
    chance = _chance_beyond(far, np.array([-2 / 3, 1 / 6, 0.0]), others)
    assert chance * ratio.size == pytest.approx(np.sum(ratio > far), abs=65)


@pytest.mark.long
@pytest.mark.parametrize("counts", ["independent", "5"])
def test_right_models_fail_as_often_as_is_said(counts, monkeypatch):
    """By the benchmark: 2000 leave 2 ± 1.4 below 0.001, and 20 ± 4.5 below 0.01."""
    verdict = benchmark(monkeypatch)
    shape = {"frames": 60, "pixels": 2000, "noise": NOISE, "seed": 7, "batch": 100, "sets": 2000}
    found = verdict.probabilities(Namespace(kind="static", counts=counts, **shape))
    assert len(found) == 5
    for name, values in found.items():
        row = verdict.row(name, values)
        assert row["< 0.001"] <= 8, row
        assert 0.003 < row["< 0.01"] < 0.019, row


def test_noise_of_few_frames_scatters_more_and_white_noise_is_told():
    # Mean squares over each other: 2 by the shot noise that is told, 6 of white noise.
    expected = ExpectedNoise(np.array([1.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0]))

    def believed(ratio, alike):
        one, two = (np.array([600.0 * size, 600.0]) for size in (1.0, ratio))
        return bool(agree(LocalSums(one, two, one), expected, np.asarray(0.1), np.asarray(alike)))

    assert believed(2.0, 1.0)
    assert not believed(3.2, 1.0)
    assert believed(3.2, 8.0)
    assert not believed(5.0, 8.0)


@pytest.mark.parametrize("level", [0.6, 1.5])
def test_an_offset_far_from_one_is_doubted(level):
    c2 = level * with_noise(1 + CONTRAST * surface()[0], 1)
    fit = fitted_map(c2, baseline=1)
    assert fit.quality.flag == "marginal"
    assert "would be 1 in normalised maps" in fit.quality.findings[0]


def test_a_map_without_the_contrast_of_the_others_is_doubted():
    c1, *_ = surface("laminar")
    c2 = with_noise(1 + CONTRAST * c1, 1)
    assert fitted_map(c2, "laminar").quality.flag == "good"
    c2[1] = with_noise(1 + 0.1 * CONTRAST * c1[1:2], 2)[0]
    quality = fitted_map(c2, "laminar").quality
    assert quality.flag == "marginal"
    said = " ".join(quality.findings)
    assert "contrast[1] is 0.0196" in said
    assert "does not decay as they do" in said
    # Nor does one whose frames stand in no order, whose contrast is known but badly.
    c2 = with_noise(1 + CONTRAST * c1, 1)
    order = np.random.default_rng(2).permutation(len(c2[1]))
    c2[1] = 1 + 2 * (c2[1][np.ix_(order, order)] - 1)
    fit = fitted_map(c2, "laminar")
    assert fit["contrast[1]"].value + 5 * fit["contrast[1]"].error > 0.2 * CONTRAST
    assert any("does not decay as they do" in one for one in fit.quality.findings)


def wrong_maps(jumps=0.4, drifts=0.02, slopes=0.02):
    """Maps that no static model describes, by name: a function of the seed, and what is named."""
    (c1,), lag, middle = surface()
    exponent = -np.log(c1)
    jump = (lag > 0) & ((middle - lag / 2 < 35) & (middle + lag / 2 >= 35))

    def outliers(seed):
        random = np.random.default_rng(seed + 1000)
        hit = np.triu(random.random(c1.shape) < 0.05, 1) * random.exponential(0.05, c1.shape)
        return 1 + CONTRAST * c1 + hit + hit.T

    def dark(seed):
        out = 1 + CONTRAST * c1
        out[20], out[:, 20] = 0.0, 0.0
        return out

    return {
        "compressed decay": (lambda seed: 1 + CONTRAST * np.exp(-(exponent**1.5)), "lags"),
        "oscillation": (
            lambda seed: 1 + CONTRAST * c1 * (0.7 + 0.3 * np.cos(0.25 * lag)),
            "lags",
        ),
        "ageing": (
            lambda seed: 1 + CONTRAST * np.exp(-exponent * (0.5 + middle / 59)),
            "ages",
        ),
        "jump": (lambda seed: 1 + CONTRAST * c1 * (1 - jumps * jump), "ages"),
        "drift": (lambda seed: 1 + CONTRAST * c1 + drifts * (middle / 59 - 0.5), "ages"),
        "slope": (lambda seed: 1 + CONTRAST * c1 + slopes * lag / 59, "lags"),
        "outliers": (outliers, "scatter more"),
        "dark frame": (dark, "frame 21"),
    }


@pytest.mark.parametrize("name", wrong_maps())
def test_wrong_models_are_not_good_and_the_place_is_named(name):
    make, place = wrong_maps()[name]
    clean = fitted_map(with_noise(make(0), 0, 1e-6), bad_frames="off")
    for seed in range(3):
        # A dark frame would be masked.
        fit = fitted_map(with_noise(make(seed), seed), bad_frames="off")
        assert fit.quality.flag != "good"
        assert fit.quality.doubtful
        assert right_place(fit, clean, place), fit.quality.findings
        assert any(HELD in one for one in fit.quality.findings)


def right_place(fit, clean, place):
    """Whether a finding is of the right kind, and what it says is what is left without noise."""
    if place not in ("lags", "ages"):
        return any(place in one for one in fit.quality.findings)
    kind = place.removesuffix("s")
    found = next((one for one in fit.misfit.failed() if one.name == kind), None)
    if found is None:
        return False
    limits, left = (getattr(clean.misfit, name) for name in (place, f"by_{kind}"))
    (k,) = np.flatnonzero((limits == (found.where.low, found.where.high)).all(axis=1))
    mean, error = found.where.mean, found.where.error
    return bool(abs(mean - left[k, 0]) < 4 * error and mean * left[k, 0] > 0)


@pytest.mark.long
@pytest.mark.parametrize("counts", [None, 5.0])
@pytest.mark.parametrize("name", wrong_maps())
def test_forty_wrong_models_are_not_good_and_the_place_is_right(name, counts):
    # What moves D0 moves it by five of its errors at least. The others move nothing: they hide less
    # well, but are to be larger among speckle.
    make, place = (wrong_maps() if counts is None else wrong_maps(0.8, 0.06, 0.1))[name]
    (c1,), *_ = surface()
    clean = fitted_map(with_noise(make(0), 0, 1e-6), bad_frames="off")
    speckle = None if counts is None else simulated("static", counts, CONTRAST)
    missed = 0
    for seed in range(40):
        if speckle is None:
            c2 = with_noise(make(seed), seed)
        else:
            noise = np.asarray(speckle(seed).c2)[0] - 1 - CONTRAST * c1
            c2 = make(seed) + np.where(make(seed) == 0, 0.0, noise)
        # A dark frame would be masked.
        fit = fitted_map(c2, bad_frames="off")
        missed += fit.quality.flag == "good" or not right_place(fit, clean, place)
    assert missed <= 2


@pytest.mark.parametrize("sets", [2, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("counts", [None, 5.0])
@pytest.mark.parametrize("angle", [0, 1])
def test_one_azimuth_for_three_maps(angle, counts, sets):
    """Those of other azimuths are not what is said of them, and 90° least where flow is none."""
    c1, *_ = surface("laminar")
    wrong = 1 + CONTRAST * np.stack([c1[angle]] * 3)
    speckle = None if counts is None else simulated("laminar", counts, CONTRAST)
    missed = 0
    for seed in range(sets):
        if speckle is None:
            c2 = with_noise(wrong, seed)
        else:
            c2 = wrong + np.asarray(speckle(seed).c2) - 1 - CONTRAST * c1
        fit = fitted_map(c2, "laminar")
        missed += not fit.quality.doubtful
        missed += not any("maps ask for different values" in one for one in fit.quality.findings)
        odd = next((one for one in fit.misfit.failed() if one.name == "map"), None)
        missed += odd is None or not (np.isnan(odd.where.low) or odd.where.low != PHI[angle])
    assert missed <= sets // 20


@pytest.mark.parametrize("sets", [2, pytest.param(40, marks=pytest.mark.long)])
def test_a_map_of_another_q_is_the_odd_one(sets):
    """By 30 %, of which nothing but the parameters of that map tells at 90°."""
    truth, _, t, geometry = SPECKLE["laminar"]
    c1, *_ = surface("laminar")
    for odd in range(3):
        other = Geometry(1.3 * geometry.q, geometry.phi[[odd]], geometry.gap)
        wrong = np.array(c1)
        wrong[odd] = np.asarray(correlation_map(truth, t, other))[0]
        missed = 0
        for seed in range(sets):
            fit = fitted_map(with_noise(1 + CONTRAST * wrong, seed), "laminar")
            said = f"share, that at φ = {geometry.phi[odd]:g}° most"
            missed += not any(said in one for one in fit.quality.findings)
        assert missed <= sets // 20


NOTHING = {
    "noise": lambda c1, lag: 0.0 * c1,
    "frozen": lambda c1, lag: np.exp(-1e-6 * lag) + 0.0 * c1,
    "fast": lambda c1, lag: np.exp(-50.0 * lag) + 0.0 * c1,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NOTHING)
def test_maps_without_a_decay_are_poor(name, seed):
    c1, lag, _ = surface()
    fit = fitted_map(with_noise(1 + CONTRAST * NOTHING[name](c1, lag), seed))
    assert fit.quality.flag == "poor"
    assert any("no decay seen" in one for one in fit.quality.findings), fit.quality.findings


def speckle_without_a_decay(name, kind):
    """Counted photons at five a pixel: without contrast, at rest, or gone within a frame."""
    truth, _, t, geometry = SPECKLE[kind]
    still = {"D0": 1e-9} | ({"gamma_dot_t0": 1e-12} if kind == "laminar" else {})
    # |c1|² is below 1e-7 after one frame; a tenth as fast, D0 of laminar flow can be fitted.
    real = with_parameters(truth, still if name == "frozen" else {"D0": 1e7})

    @partial(jax.jit, compiler_options=SPEED)
    def speckle(key):
        return simulate_speckle(real, t, geometry, CONTRAST, n_pixels=2000, mean_counts=5, key=key)

    def uniform(seed):
        counts = np.random.default_rng(seed).poisson(5.0, (geometry.phi.size, t.size, 2000))
        relative = counts / np.mean(counts, axis=2, keepdims=True)
        return relative @ np.swapaxes(relative, 1, 2) / 2000

    return uniform if name == "noise" else lambda seed: np.asarray(speckle(jax.random.key(seed)).c2)


@pytest.mark.long
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("kind", SPECKLE)
@pytest.mark.parametrize("name", NOTHING)
def test_of_two_hundred_maps_without_a_decay_none_is_good(name, kind, counted):
    c1, lag, _ = surface(kind)
    white = 1 + CONTRAST * NOTHING[name](c1, lag)
    draw = speckle_without_a_decay(name, kind) if counted else partial(with_noise, white)
    good = sum(fitted_map(draw(seed), kind).quality.flag == "good" for seed in range(200))
    assert good == 0


def test_maps_without_their_baseline_are_named():
    (c1,), *_ = surface()
    for baseline, flag in (("auto", "good"), (1, "poor")):
        fit = fitted_map(with_noise(CONTRAST * c1, 0), baseline=baseline)
        assert fit.quality.flag == flag
        assert any("baseline" in one for one in fit.quality.findings)


def test_an_offset_on_its_bound_is_no_missing_baseline():
    """Maps that hardly decay, and never as the model does, leave contrast and offset open."""
    _, lag, _ = surface()
    fit = fitted_map(with_noise(1 + CONTRAST * np.exp(-((lag / (1.2 * lag.max())) ** 2)), 0))
    assert fit.offset[0] == pytest.approx(0.5, abs=1e-3)
    assert fit.quality.flag == "poor"
    assert any("they hardly decay" in one for one in fit.quality.findings)
    assert not any("c2 − 1" in one for one in fit.quality.findings)


def test_a_model_of_which_nothing_is_free_is_judged_by_what_it_leaves():
    truth, _, t, geometry = SPECKLE["static"]
    data = simulate(truth, t, geometry, CONTRAST, 1.0, noise=NOISE, key=jax.random.key(1))
    flags = []
    for D0 in (truth.transport.amplitude, 2 * truth.transport.amplitude):
        given = with_parameters(truth, {"D0": D0})
        parameters = mapped(given, data, fixed=("D0", "alpha", "D_offset"))
        quality = least_squares(projected_objective(parameters, data)).quality
        assert not any("the decay is not determined" in one for one in quality.findings)
        flags.append(quality.flag)
    assert flags == ["good", "poor"]


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_sigma_far_from_the_noise_is_said(factor):
    (c1,), *_ = surface()
    c2 = with_noise(1 + CONTRAST * c1, 0)
    fit = fitted_map(c2, sigma=np.full(c2.shape, factor * NOISE)[None])
    assert fit.quality.doubtful
    assert any("sigma is" in one and "noise" in one for one in fit.quality.findings)
    right = fitted_map(c2, sigma=np.full(c2.shape, NOISE)[None])
    assert right.quality.flag == "good"
    assert right.fitted.misfit.sigma_ratio == pytest.approx(1.0, abs=0.1)


@pytest.mark.long
def test_a_robust_loss_and_weights_change_no_verdict_of_a_right_model():
    data = make_data(n=41, noise=NOISE)
    start = mapped(LAMINAR, data)
    for loss in (Huber(2 * NOISE), Huber(0.5 * NOISE)):
        fit = least_squares(two_time_objective(start, data, loss=loss))
        assert not fit.fitted.misfit.failed()
    # Pairs whose noise grows with the lag, with a sigma known up to a factor.
    (c1,), lag, _ = surface()
    sigma = 0.002 * (1 + lag / 20)
    c2 = with_noise(1 + CONTRAST * c1, 0, sigma)
    fit = fitted_map(c2, sigma=3 * sigma[None], absolute_sigma=False)
    assert not fit.fitted.misfit.failed()


def test_thresholds_decide():
    make, _ = wrong_maps()["drift"]
    fit = fitted_map(with_noise(make(0), 0))
    failed = fit.fitted.misfit.failed()
    assert failed
    assert fit.fitted.misfit.failed(Thresholds.level) == failed
    lenient = judge(fit, Thresholds(level=1e-300))
    assert not any("the model does not fit" in one for one in lenient.findings)
    strict = judge(fit, Thresholds(excess=1.0))
    assert strict.flag == "poor"
    right = next(iter(right_fits("static", "independent", 1)))
    assert not any(HELD in one for one in right.quality.findings)
    assert judge(right, Thresholds(contrast=1e6)).flag == "poor"
    assert judge(right, Thresholds(rate=1e-6)).flag == "poor"


def test_a_local_fit_says_that_nothing_else_was_looked_at():
    truth, fixed, *_ = SPECKLE["static"]
    data = data_of(with_noise(1 + CONTRAST * surface()[0], 1))
    objective = projected_objective(mapped(truth, data, fixed=fixed), data)
    assert "not looked for" in repr(least_squares(objective))
    found = global_least_squares(objective, strategy=Auto(probes=2)).fit
    assert "looked for by fits from other starts to a sample" in repr(found)
    assert found.misfit is found.fitted.misfit
    assert found.signal.contrast > Thresholds.contrast


# Last, for what follows is optimised too.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        pytest.param("static", "independent", marks=pytest.mark.long),
        ("static", 0.5),
    ],
)
def test_right_models_are_good(kind, counts, optimised):
    check_right(kind, counts, 25)


def test_few_pairs_hide_no_decay_that_is_not_determined():
    """Too few to measure the noise by, they tell as well how far a decay is known."""
    data = maps_in_memory(*(noisy_map(4, seed=seed) for seed in (9, 10, 11)))
    fit = fit_maps(data, Static(PowerLawRate(6e4, 0.0, 0.0)), fixed=("alpha", "D_offset"))
    assert fit.quality.flag == "poor"
    assert "the decay is not determined" in fit.quality.findings[0]
