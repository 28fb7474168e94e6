"""A translated configuration ends in the minimum of the objective of homodyne 2.x itself.

Their objective is written here from its published formulas, in NumPy, and minimised by SciPy.
"""

from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import LAMINAR, make_data
from scipy.optimize import least_squares
from test_import import FLOW, template

import xpcs_eqx_command
from xpcs_eqx.config import read_configuration
from xpcs_eqx.data import write_own
from xpcs_eqx.physics import PowerLawRate, Static
from xpcs_eqx.program.task import task_of

Q, GAP, DT, SIGMA = 0.0054, 2e6, 0.1, 0.01
LAYERS = "optimization.nlsq.anti_degeneracy"
# Of the cost, as their templates have it.
TOLERANCE = 1e-8


def integral_between(rate, t):
    """|∫ rate dt| between all pairs of frames, by trapezoids; a rate is never below 1e-10."""
    values = np.maximum(rate(np.maximum(t, 0.5 * DT)), 1e-10)
    whole = np.append(0.0, np.cumsum(0.5 * DT * (values[1:] + values[:-1])))
    return np.abs(whole[:, None] - whole[None, :])


def squared_g1(values, t, phi):
    """g1² of every angle and pair: of diffusion exp(−½ q² ∫D dt), of shear sinc² of a phase."""
    D0, alpha, D_offset, *flow = values
    diffusion = integral_between(lambda s: D0 * s**alpha + D_offset, t)
    g1 = np.exp(-0.5 * Q**2 * diffusion)[None]
    if flow:
        rate, beta, offset, phi0 = flow
        shear = integral_between(lambda s: rate * s**beta + offset, t)
        cosine = np.cos(np.deg2rad(phi0 - phi))[:, None, None]
        # numpy's sinc is sin(πx)/(πx).
        g1 = g1 * np.sinc(Q * GAP * cosine / (2 * np.pi) * shear / np.pi) ** 2
    return np.broadcast_to(g1**2, (len(phi), t.size, t.size))


def angle_weights(phi, phi0, minimum=0.3, exponent=1.0):
    """Weights of the angles, whose mean is one."""
    weights = minimum + (1 - minimum) * np.abs(np.cos(np.deg2rad(phi0 - phi))) ** exponent
    return weights / np.mean(weights)


def residuals(x, c2, t, phi, physical, weights):
    """(c2 − offset − contrast g1²)/σ off the diagonal; x is physical, contrasts, offsets.

    One of each, or one for each angle.
    """
    contrast, offset = (v * np.ones(len(phi)) for v in np.split(x[physical:], 2))
    fitted = offset[:, None, None] + contrast[:, None, None] * squared_g1(x[:physical], t, phi)
    left = (c2 - fitted) / SIGMA * np.sqrt(weights)[:, None, None]
    return left[:, ~np.eye(t.size, dtype=bool)].ravel()


CASES = {
    # Template, what differs from it, whether it flows, pairs of contrast and offset.
    "each angle": ("s", {f"{LAYERS}.per_angle_mode": "individual"}, False, 3),
    "one scaling": ("l", {f"{LAYERS}.shear_weighting.enable": False}, True, 1),
    "weighted angles": ("l", {}, True, 1),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "one scaling" else pytest.mark.long) for n in CASES]
)
def test_the_minimum_is_that_of_their_objective(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    letter, more, flows, scalings = CASES[name]
    # Exact integrals and the exact average over the gap, which their model does not quite describe.
    truth = LAMINAR if flows else Static(PowerLawRate(6e3, -0.2, 200.0))
    phi, n = np.array([0.0, 45.0, 90.0]), 31
    data = make_data(truth, t=DT * np.arange(n), phi=phi, noise=SIGMA, seed=4)
    Path("data").mkdir()
    write_own("data/scan.hdf", data)
    names = FLOW if flows else FLOW[:3]
    starts = [1.5e4, -0.4, 200.0, 4e-3, 0.2, 1e-4, 2.0][: len(names)]
    given = {
        "analyzer_parameters.start_frame": 1,
        "analyzer_parameters.end_frame": n,
        "phi_filtering.enabled": False,
        "initial_parameters.values": starts,
    }
    Path("theirs.yaml").write_text(yaml.safe_dump(template(letter, **given, **more)[1]))
    assert xpcs_eqx_command.main(["import", "theirs.yaml"]) == 0
    Path("ours.toml").write_text(capsys.readouterr().out)
    fit = task_of(read_configuration("ours.toml")).run().fit
    assert fit.success
    scaling = [*fit.contrast[:scalings], *fit.offset[:scalings]]
    ours = np.array([*(fit[one].value for one in names), *scaling])
    # Those at the end: they follow the angle of the flow.
    weights = angle_weights(phi, fit["phi0"].value) if name == "weighted angles" else np.ones(3)

    def left(x):
        return residuals(x, np.asarray(data.c2), np.asarray(data.t), phi, len(names), weights)

    begun = np.array([*starts, *np.full(scalings, 0.3), *np.full(scalings, 1.0)])
    # A unit for each, since they differ by seven powers of ten.
    found = least_squares(
        left, begun, x_scale=np.abs(ours) + 1e-6, loss="soft_l1",
        ftol=1e-14, xtol=1e-14, gtol=1e-14, max_nfev=2000,
    )  # fmt: skip
    z = left(ours) ** 2
    cost = np.sum(np.sqrt(1 + z) - 1)
    assert cost <= found.cost * (1 + TOLERANCE)
    # Not below it either: both are the same function.
    assert cost >= found.cost * (1 - TOLERANCE)
    # As far as such a cost leaves the parameters free.
    near = np.sqrt(2 * TOLERANCE * found.cost)
    apart = found.jac @ (ours - found.x)
    assert np.linalg.norm(apart) < 2 * near
