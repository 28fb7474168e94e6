"""Particles that diffuse in a sheared gap, one by one: the check that shares no formula with the
library."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers_particles import intensities, power_integral

from xpcs_eqx.data import Geometry
from xpcs_eqx.physics import GapAveraged, Homodyne, LaminarFlow, PowerLawRate, correlation_map

Q, GAP, PHI0 = 0.0054, 2e6, 8.0
D0, ALPHA, D_OFFSET = 6000.0, -0.4, 1500.0
SHEAR0, BETA, SHEAR_OFFSET = 1.2e-4, 0.5, 4e-5
T = 2.0 + 0.5 * np.arange(12)
ANGLES = np.array([0.0, 50.0, 98.0])
PARTICLES, PATTERNS, BATCH = 32, 16_000, 4_000
FIRST, SECOND = np.triu_indices(T.size, 1)


def products(phi, rng):
    """δ(t1) δ(t2) of every speckle and every pair of frames, `(pattern, pair)`."""
    travelled = power_integral(T, D0, ALPHA, D_OFFSET)
    strain = power_integral(T, SHEAR0, BETA, SHEAR_OFFSET)
    along = GAP * np.cos(np.radians(PHI0 - phi)) * strain
    out = []
    for _ in range(PATTERNS // BATCH):
        delta = intensities(T, Q, travelled, along, BATCH, PARTICLES, rng) - 1
        out.append(delta[:, FIRST] * delta[:, SECOND])
    return np.concatenate(out)


def expected(kernel, shear=1.0):
    """c2 − 1 of all angles and pairs; P particles have (1 − 1/P) |c1|² exactly."""
    model = LaminarFlow(
        PowerLawRate(D0, ALPHA, D_OFFSET),
        PowerLawRate(shear * SHEAR0, BETA, shear * SHEAR_OFFSET),
        phi0=PHI0,
        shear_kernel=kernel,
    )
    geometry = Geometry(q=Q, phi=ANGLES, gap=GAP)
    maps = np.asarray(correlation_map(model, jnp.asarray(T), geometry))
    return (1 - 1 / PARTICLES) * maps[:, FIRST, SECOND]


@pytest.fixture(scope="module")
def measured():
    """Mean and covariance of the mean of c2 − 1 at each angle, the noise from the patterns."""
    rng = np.random.default_rng(3)
    found = []
    for phi in ANGLES:
        one = products(phi, rng)
        found.append((one.mean(0), np.cov(one, rowvar=False) / PATTERNS))
    return found


def chi_squares(measured, prediction):
    """χ² of each angle with the full covariance, so that it follows χ² with one degree a pair."""
    return np.array(
        [
            (mean - model) @ np.linalg.solve(covariance, mean - model)
            for (mean, covariance), model in zip(measured, prediction, strict=True)
        ]
    )


def test_the_kernel_is_seen_at_all():
    shear = expected(GapAveraged()) / expected(GapAveraged(), shear=0.0)
    assert shear[0].min() < 0.01
    assert shear[1].min() < 0.2
    assert shear[2].min() > 0.98  # 90 degrees from the flow there is only diffusion
    assert 0.1 < expected(GapAveraged(), shear=0.0).min() < 0.6


def test_gap_averaged_kernel_is_what_particles_do(measured):
    n = FIRST.size
    chi = chi_squares(measured, expected(GapAveraged()))
    # five standard deviations of χ², sqrt(2 n)
    assert np.all(np.abs(chi / n - 1) < 5 * np.sqrt(2 / n))
    for (mean, covariance), model in zip(measured, expected(GapAveraged()), strict=True):
        z = (mean - model) / np.sqrt(np.diag(covariance))
        assert np.abs(z).max() < 4.5


def test_homodyne_kernel_is_rejected(measured):
    n = FIRST.size
    chi = chi_squares(measured, expected(Homodyne()))
    assert np.all((chi[:2] - n) / np.sqrt(2 * n) > 50)
    # the same for every shear rate, the one included that agrees at short delays (π/√2)
    for factor in np.append(np.linspace(0.5, 4.0, 36), np.pi / np.sqrt(2)):
        chi = chi_squares(measured, expected(Homodyne(), factor))
        assert (chi.sum() - 3 * n) / np.sqrt(6 * n) > 20
