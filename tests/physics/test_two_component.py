"""The two-component model against a transcription of its formula, and its exact degeneracies."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import frame_times, make_data, mapped, values_of
from scipy.integrate import quad

from xpcs_eqx.data import Geometry
from xpcs_eqx.fitting import least_squares
from xpcs_eqx.objective import projected_objective
from xpcs_eqx.parameters import with_parameters
from xpcs_eqx.physics import TwoComponent, correlation_map, degeneracies, soft_clip
from xpcs_eqx.physics.field import field_correlation

TRUE = {
    "D0_ref": 2e3,
    "alpha_ref": 0.2,
    "D_offset_ref": 100.0,
    "D0_sample": 1.5e4,
    "alpha_sample": -0.3,
    "D_offset_sample": 500.0,
    "v0": 800.0,
    "v_beta": 0.2,
    "v_offset": 50.0,
    "f0": 0.4,
    "f1": -0.15,
    "f2": 5.0,
    "f3": 0.15,
    "phi0": 8.0,
}
PHI = np.array([0.0, 30.0, 60.0, 90.0])
GEOMETRY = Geometry(q=0.0054, phi=PHI)
T = 0.1 * np.arange(1, 25)
surface = jax.jit(correlation_map)


def two_component(**changes):
    return with_parameters(TwoComponent(), {**TRUE, **changes})


def clipped(x):
    """NumPy, with a definition of its own that cannot overflow."""
    return 0.01 * (np.logaddexp(0, x / 0.01) - np.logaddexp(0, (x - 1) / 0.01))


def increments(a, b, c):
    """∫ of a·t^b + c between all pairs of frames, in closed form."""
    whole = a * T ** (b + 1) / (b + 1) + c * T
    return whole[None, :] - whole[:, None]


def transcription(p):
    """|c1|² as physics states it, angle by angle."""
    q = float(GEOMETRY.q)
    sample = clipped(p["f0"] * np.exp(p["f1"] * (T - p["f2"])) + p["f3"])
    reference = 1 - sample
    h_r, h_s = (
        np.exp(-0.5 * q**2 * np.abs(increments(p["D0_" + x], p["alpha_" + x], p["D_offset_" + x])))
        for x in ("ref", "sample")
    )
    path = increments(p["v0"], p["v_beta"], p["v_offset"])
    rr, ss = np.outer(reference, reference), np.outer(sample, sample)
    norm = sample**2 + reference**2
    out = []
    for phi in PHI:
        cosine = np.cos(q * np.cos(np.deg2rad(phi + p["phi0"])) * path)
        top = rr**2 * h_r**2 + ss**2 * h_s**2 + 2 * rr * ss * h_r * h_s * cosine
        out.append(top / np.outer(norm, norm))
    return np.array(out)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"v0": -800.0, "v_offset": -50.0},
        {"f0": 0.9, "f1": 0.6, "f2": 0.0},
        {"f0": 0.6, "f1": -0.5, "f2": 2.0, "f3": -0.4},
        {"alpha_ref": 1.3, "alpha_sample": 0.0, "v_beta": -0.7},
    ],
    ids=["", "backwards", "clipped at one", "clipped at zero", "other exponents"],
)
def test_formula_against_a_transcription(changes):
    found = np.asarray(surface(two_component(**changes), T, GEOMETRY))
    np.testing.assert_allclose(found, transcription({**TRUE, **changes}), rtol=0, atol=1e-12)
    assert np.all(np.diagonal(found, axis1=1, axis2=2) == 1)
    # One at zero delay by itself, where the map puts the one by hand.
    near = np.array([1.0, 1.0 + 1e-9, 1.0 + 2e-9])
    np.testing.assert_allclose(surface(two_component(**changes), near, GEOMETRY), 1, atol=1e-9)


def test_field_of_a_simulation():
    model = two_component()
    field = np.asarray(jax.jit(field_correlation)(model, T, GEOMETRY))
    np.testing.assert_allclose(np.abs(field) ** 2, surface(model, T, GEOMETRY), atol=1e-12)
    np.testing.assert_allclose(field, np.conj(np.swapaxes(field, 1, 2)), atol=1e-15)
    # A sum over particles, each with a phase of its own: positive definite.
    assert np.linalg.eigvalsh(field).min() > 0


def test_soft_clip():
    x = np.linspace(-3, 4, 1001)
    found = np.asarray(soft_clip(jnp.asarray(x)))
    np.testing.assert_allclose(found, clipped(x), rtol=0, atol=1e-14)
    assert np.all((found >= 0) & (found <= 1 + 1e-15))
    assert np.all(np.diff(found) >= -1e-15)
    np.testing.assert_allclose(np.asarray(soft_clip(jnp.asarray(1 - x))), 1 - found, atol=1e-14)
    inside = (x >= 0.1) & (x <= 0.9)
    np.testing.assert_allclose(found[inside], x[inside], rtol=0, atol=5e-7)
    # The gradient leads back from outside.
    slope = jax.vmap(jax.grad(soft_clip))(jnp.array([-0.5, 0.5, 1.5]))
    assert np.all(np.asarray(slope) > 0)


def test_gradients_against_finite_differences():
    names = list(TRUE)
    weights = np.random.default_rng(0).normal(size=(PHI.size, T.size, T.size))

    @jax.jit
    def total(x):
        model = with_parameters(TwoComponent(), dict(zip(names, x, strict=True)))
        return jnp.sum(weights * correlation_map(model, T, GEOMETRY))

    x = np.array(list(TRUE.values()))
    found = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(x)))
    for i, name in enumerate(names):
        h = 1e-4 * max(abs(x[i]), 1e-2)
        at = [float(total(jnp.asarray(x + k * h * (np.arange(14) == i)))) for k in (-2, -1, 1, 2)]
        wanted = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
        assert found[i] == pytest.approx(wanted, rel=1e-6, abs=1e-9), name


def test_fraction_and_rates_have_their_units():
    model = two_component()
    t = jnp.asarray(T)
    np.testing.assert_allclose(model.fraction(t), clipped(0.4 * np.exp(-0.15 * (T - 5)) + 0.15))
    path = quad(lambda s: 800 * s**0.2 + 50, T[0], T[-1])[0]
    found = model.velocity.integral(t)
    assert float(found[-1] - found[0]) == pytest.approx(path, rel=1e-10)
    parameters = mapped(model, make_data(n=5))
    units = dict(zip(parameters.names, parameters.units, strict=True))
    assert units["v_offset"] == "Å/s"
    assert units["f1"] == "1/s"


# What the data determine: without offsets beside power laws, and with f2 kept.
KEPT = ("D_offset_ref", "alpha_ref", "D_offset_sample", "v_offset", "f2")


@cache
def fit_of(*kept, start=1.1, **changes):
    truth = two_component(**changes)
    data = make_data(truth, t=frame_times(51)[1:], phi=PHI, noise=0.005, seed=1)
    values = {
        name: value * (1 if name in kept else start) for name, value in values_of(truth).items()
    }
    parameters = mapped(with_parameters(truth, values), data, fixed=kept)
    return truth, least_squares(projected_objective(parameters, data))


@pytest.mark.slow
def test_truth_is_recovered():
    truth, fit = fit_of(*KEPT)
    assert fit.success
    wanted = values_of(truth)
    free = [row for row in fit.rows if row.role == "free"]
    assert len(free) == 9
    z = np.array([(row.value - wanted[row.name]) / row.error_classical for row in free])
    print(dict(zip([row.name for row in free], np.round(z, 2), strict=True)))
    assert np.max(np.abs(z)) < 4
    assert np.sqrt(np.mean(z**2)) < 2
    assert all(row.error < 0.2 * abs(row.value) for row in free)
    texts = " ".join(fit.quality.findings)
    assert "v with −v" in texts
    assert "f0 with f2" not in texts
    assert fit.quality.flag == "good"


@pytest.mark.long
def test_f0_and_f2_together_are_reported_by_name():
    _, fit = fit_of(*(name for name in KEPT if name != "f2"))
    assert fit.quality.flag == "poor"
    (finding,) = [text for text in fit.quality.findings if "f0 with f2" in text]
    assert "fix f2" in finding
    # Neither of them has an error bar, the rest is as good as before.
    assert np.isinf(fit["f0"].error)
    assert np.isinf(fit["f2"].error)
    assert np.isfinite(fit["f1"].error)


def named(model, free, geometry=GEOMETRY):
    bounds = free if isinstance(free, dict) else dict.fromkeys(free, (-np.inf, np.inf))
    return {one.name for one in degeneracies(model, T, geometry, bounds)}


def test_each_degeneracy_is_exact_and_named_only_where_it_bites():
    everything = dict.fromkeys(TRUE, (-1e9, 1e9))
    kept = {name: box for name, box in everything.items() if name != "f2"} | {"f0": (0.0, 1.0)}
    model = two_component()
    reference = np.asarray(surface(model, T, GEOMETRY))

    def same(other):
        np.testing.assert_allclose(surface(other, T, GEOMETRY), reference, rtol=0, atol=1e-12)

    assert "f0 with f2" in named(model, everything)
    same(two_component(f0=0.4 * np.exp(-0.15 * (3.0 - 5.0)), f2=3.0))
    assert named(model, kept) == {"v with −v"}
    same(two_component(v0=-800.0, v_offset=-50.0))
    assert named(model, ("D0_ref",)) == set()
    # A falling fraction is turned into a rising one where f0 may be negative.
    assert "reference with sample" in named(model, everything)
    swapped = {
        f"{name}_{a}": TRUE[f"{name}_{b}"]
        for name in ("D0", "alpha", "D_offset")
        for a, b in (("ref", "sample"), ("sample", "ref"))
    }
    same(two_component(**swapped, f0=-0.4, f3=1 - 0.15))


def test_degeneracies_of_a_constant_fraction_and_a_single_angle():
    constant = two_component(f1=0.0)
    free = dict.fromkeys(("D0_ref", "D0_sample", "f3"), (-1e9, 1e9)) | {"f0": (0.0, 1.0)}
    assert named(constant, free) == {"f0 with f3", "reference with sample"}
    swapped = {
        f"{name}_{a}": TRUE[f"{name}_{b}"]
        for name in ("D0", "alpha", "D_offset")
        for a, b in (("ref", "sample"), ("sample", "ref"))
    }
    np.testing.assert_allclose(
        surface(two_component(**swapped, f1=0.0, f0=1 - 0.4 - 2 * 0.15), T, GEOMETRY),
        surface(constant, T, GEOMETRY),
        rtol=0,
        atol=1e-12,
    )
    one = Geometry(q=0.0054, phi=np.array([20.0]))
    assert "v0 with phi0 at a single angle" in named(two_component(), ("v0", "phi0"), one)
    assert "v0 with phi0 at a single angle" not in named(two_component(), ("v0", "phi0"))
    assert "f1 at f0 = 0" in named(two_component(f0=0.0), ("f1",))
