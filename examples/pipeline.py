"""From a file to a report: load, choose, map the parameters, fit, judge, write.

Run it with `python examples/pipeline.py [FILE [FOLDER]]`; without a file it takes the bundled one.
"""

import sys
from pathlib import Path
from typing import assert_type

import jax
import numpy as np

import xpcs_eqx as xe
from xpcs_eqx.fitting import ParameterRow, ProfileInterval
from xpcs_eqx.objective import ProjectedObjective
from xpcs_eqx.report import text_report

HERE = Path(__file__).parent


def main(path: Path = HERE / "laminar_aps_u.hdf", folder: Path | None = None) -> xe.Fit:
    jax.config.update("jax_enable_x64", True)

    # Every second map would be another selection; frames and bad pixels are chosen the same way.
    data = xe.load(path, selection=xe.Selection(end_frame=61, min_lag=1))
    assert_type(data, xe.TwoTimeData)
    print(f"{data.n_angles} maps of {data.n_frames} frames, {data.n_pairs} pairs")

    start = xe.LaminarFlow(
        transport=xe.PowerLawRate(2e4, -0.2, 0.0), shear=xe.PowerLawRate(2e-3, 0.2, 0.0), phi0=2.0
    )
    # Over a short window the offsets are hardly determined: they stay where they start.
    parameters = xe.parameter_map(start, data.t, fixed=("D_offset", "gamma_dot_t_offset"))
    objective = xe.projected_objective(parameters, data, xe.Individual(data.n_angles))
    assert_type(objective, ProjectedObjective)

    fit = xe.least_squares(objective)
    row = fit["D0"]
    assert_type(row, ParameterRow)
    assert_type(row.value, float)
    assert_type(row.error, float)
    assert_type(row.at_bound, bool)
    assert_type(fit.quality.findings, tuple[str, ...])
    assert_type(fit.n_pairs, int)

    interval = xe.profile_interval(fit, "alpha")
    assert_type(interval, ProfileInterval)
    print(f"alpha between {interval.low:.3f} and {interval.high:.3f} ({interval.level:.0%})")

    rate, error = fit.rate("transport")
    print(f"J falls from {rate[1]:.4g} to {rate[-1]:.4g} ± {error[-1]:.2g} Å²/s")
    print(f"largest residual {np.nanmax(np.abs(fit.residuals())):.3f}")

    report = text_report(fit)
    assert_type(report, str)
    print(report)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.txt").write_text(report, encoding="utf-8")
    return fit


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
