"""How precise least squares and the likelihood of speckle are, on simulated speckle.

    python benchmarks/precision.py [--counts 0.05,0.5,5,50] [--contrasts 0.1,0.25,0.5]
        [--models static,laminar] [--decays slow,medium,fast] [--frames 61,201] [--maps 200]
        [--pixels 2000] [--offset free|fixed|both] [--quick] [--one 1001]

Maps of one angle (static) or three (laminar flow), 1/e of c2 after five frames or so (medium), four
times as many (slow) or a quarter (fast); each is fitted by least squares and from there by the
likelihood, either with a free offset or with the offset fixed at one, as the normalisation by frame
makes it. For each cell, over the free parameters:

- ratio: true standard deviation of the likelihood over that of least squares, median, and its
  standard error by leaving maps out one by one;
- sd: standard deviations of both;
- bias of the likelihood in its standard deviations, the largest; `bias_error`: what chance allows;
- coverage: share of values within the quoted error of the truth, of both;
- z: mean and standard deviation of (value − truth)/error of the likelihood, by parameter;
- seconds of processor time of either fit once compiled (the likelihood beginning where least
  squares ended), and evaluations of the likelihood; maps where it was set aside (not converged, or
  its deviance says that the noise is another one) are counted and left in.

`--one` fits a single set of maps of so many frames instead, laminar flow at 5 counts and contrast
0.25, twice: seconds of both fits by the clock and of the processor, errors included, the first time
with compilation; the largest memory, and the gradient of the likelihood where it begins against
differences of its cost.
"""

import argparse
import json
import time
import warnings

from common import machine, median, peak_memory, table

DECAYS = {"slow": 0.25, "medium": 1.0, "fast": 4.0}


def truth_of(model: str, decay: str) -> tuple:
    """Model, parameters that are fixed, q, step of time and azimuths."""
    import xpcs_eqx as xe

    speed = DECAYS[decay]
    if model == "static":
        diffusion = xe.Static(xe.PowerLawRate(1e3 * speed, 0.0, 0.0))
        return diffusion, ("alpha", "D_offset"), 0.01, 1.0, [0.0]
    rates = xe.PowerLawRate(1.2e4 * speed, -0.3, 0.0), xe.PowerLawRate(3e-4 * speed, 0.2, 0.0)
    fixed = ("D_offset", "gamma_dot_t_offset")
    return xe.LaminarFlow(*rates, 5.0), fixed, 0.0054, 0.1, [0.0, 45.0, 90.0]


def fits(model, decay, frames, contrast, counts, offset, maps, pixels, seed) -> dict:
    """Both fits of many maps: `off` from the truth and `errors`, each `(map, fit, parameter)`."""
    import jax
    import numpy as np

    import xpcs_eqx as xe
    from xpcs_eqx.parameters import parameter_values

    truth, fixed, q, step, phi = truth_of(model, decay)
    geometry, t = xe.Geometry(q, np.array(phi)), step * np.arange(1, frames + 1)
    how = {"n_pixels": pixels, "mean_counts": counts}
    simulate = jax.jit(
        lambda key: xe.simulate_speckle(truth, t, geometry, contrast, key=key, **how)
    )
    scaling = xe.Individual(len(phi), offset_bounds=(1.0, 1.0) if offset == "fixed" else (0.5, 1.5))
    keys = jax.random.split(jax.random.key(seed), maps)
    values, errors, seconds, evaluations, aside = [], [], [], [], 0
    for key in keys:
        data = jax.block_until_ready(simulate(key))
        start = xe.parameter_map(truth, data.t, fixed=fixed)
        objective = xe.projected_objective(start, data, scaling)
        clock = time.process_time()
        squares = xe.least_squares(objective)
        between = time.process_time()
        better = xe.maximum_likelihood(squares)
        end = time.process_time()
        names = objective.names
        values.append([[one[n].value for n in names] for one in (squares, better)])
        errors.append([[one[n].error for n in names] for one in (squares, better)])
        seconds.append((between - clock, end - between))
        evaluations.append(better.evaluations)
        aside += not better.success or any("deviance" in one for one in better.doubts)
    off = np.asarray(values) - np.array([float(parameter_values(truth)[n]) for n in names])
    return {
        "names": names,
        "off": off,
        "errors": np.asarray(errors),
        "seconds": np.asarray(seconds),
        "evaluations": evaluations,
        "aside": int(aside),
    }


def cell(model, decay, frames, contrast, counts, offset, maps, pixels, seed) -> dict:
    """What many maps of one kind say."""
    import numpy as np

    found = fits(model, decay, frames, contrast, counts, offset, maps, pixels, seed)
    names, off, errors = (found[key] for key in ("names", "off", "errors"))
    sd = off.std(axis=0, ddof=1)
    # Leaving out one map after the other.
    part = [np.delete(off, k, axis=0).std(axis=0, ddof=1) for k in range(maps)]
    ratios = np.array([np.median(one[1] / one[0]) for one in part])
    inside = np.mean(np.abs(off) <= errors, axis=(0, 2))
    z = off[:, 1] / errors[:, 1]
    by_name = zip(names, z.mean(axis=0).tolist(), z.std(axis=0, ddof=1).tolist(), strict=True)
    bias = np.abs(off[:, 1].mean(axis=0)) / sd[1]
    # The first fits compile.
    squares, likelihood = (median(found["seconds"][1:, k].tolist()) for k in (0, 1))
    return {
        "model": model,
        "decay": decay,
        "frames": frames,
        "contrast": contrast,
        "counts": counts,
        "offset": offset,
        "maps": maps,
        "ratio": float(np.median(sd[1] / sd[0])),
        "ratio_error": float(np.sqrt((maps - 1) * np.var(ratios))),
        "sd": {n: sd[:, i].tolist() for i, n in enumerate(names)},
        "bias": float(bias.max()),
        "bias_error": maps**-0.5,
        "coverage": inside.tolist(),
        "z": {name: [mean, scatter] for name, mean, scatter in by_name},
        "seconds": [squares, likelihood],
        "evaluations": median(found["evaluations"]),
        "aside": found["aside"],
    }


def of_one(frames: int, pixels: int) -> dict:
    """What both fits of large maps take, and how far the gradient of the likelihood is off."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import xpcs_eqx as xe
    from xpcs_eqx.fitting import likelihood_of
    from xpcs_eqx.optimize import evaluated

    truth, fixed, q, step, phi = truth_of("laminar", "medium")
    geometry, t = xe.Geometry(q, np.array(phi)), step * np.arange(1, frames + 1)
    how = {"n_pixels": pixels, "mean_counts": 5.0, "key": jax.random.key(0)}
    data = xe.simulate_speckle(truth, t, geometry, 0.25, **how)
    objective = xe.projected_objective(xe.parameter_map(truth, t, fixed=fixed), data)
    before, seconds, squares, better = peak_memory(), [], None, None
    for _ in range(2):
        clocks = [(time.perf_counter(), time.process_time())]
        squares = xe.least_squares(objective)
        clocks.append((time.perf_counter(), time.process_time()))
        better = xe.maximum_likelihood(squares, frames=None)
        clocks.append((time.perf_counter(), time.process_time()))
        seconds.append(np.diff(clocks, axis=0).round(2).tolist())
    report = {
        "frames": frames,
        "seconds": dict(zip(("first", "compiled"), seconds, strict=True)),
        "evaluations": better.evaluations,
        "memory": {"simulated": before, "fitted": peak_memory()},
    }
    likelihood = likelihood_of(squares, None)
    y = likelihood.variables.to_coordinates(jnp.asarray(likelihood.start))
    equations, _ = evaluated(likelihood, y, likelihood.memo)
    cost = jax.jit(lambda y: likelihood.cost(y, ()))
    # In units of what the likelihood leaves open of each variable.
    units = np.asarray(jnp.diagonal(equations.hessian)) ** -0.5
    off = []
    for k, unit in enumerate(units):
        # To the sixth order.
        steps = unit * np.array([1.0, 2.0, 3.0])
        each = [float(cost(y.at[k].add(s)) - cost(y.at[k].add(-s))) for s in steps]
        slope = (45 * each[0] - 9 * each[1] + each[2]) / 60
        off.append(abs(slope - float(equations.gradient[k]) * unit))
    scale = np.abs(np.asarray(equations.gradient) * units).max()
    return report | {"gradient_off": max(off) / scale}


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [float(one) for one in text.split(",")]


def parser_of(about: str) -> argparse.ArgumentParser:
    """A parser of what cells there are."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--counts", type=numbers, default=[0.05, 0.5, 5.0, 50.0], help="a pixel")
    parser.add_argument("--contrasts", type=numbers, default=[0.1, 0.25, 0.5])
    parser.add_argument("--models", default="static,laminar")
    parser.add_argument("--decays", default="medium", help=f"of {', '.join(DECAYS)}")
    parser.add_argument("--pixels", type=int, default=2000)
    return parser


def main() -> None:
    """Measure, print a table and one JSON line."""
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--frames", type=numbers, default=[61, 201])
    parser.add_argument("--maps", type=int, default=200, help="of each cell")
    parser.add_argument("--offset", choices=("free", "fixed", "both"), default="both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="20 static maps at 5 counts")
    parser.add_argument("--one", type=int, help="frames of the maps of a single fit")
    given = parser.parse_args()
    if given.quick:
        given.counts, given.contrasts, given.frames = [5.0], [0.25], [61]
        given.models, given.maps = "static", 20

    import jax

    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    if given.one is not None:
        report = {"benchmark": "precision", "pixels": given.pixels, **machine()}
        print(json.dumps(report | of_one(given.one, given.pixels)))
        return
    offsets = ("free", "fixed") if given.offset == "both" else (given.offset,)
    cells = [
        (model, decay, int(frames), contrast, counts, offset)
        for model in given.models.split(",")
        for decay in given.decays.split(",")
        for frames in given.frames
        for contrast in given.contrasts
        for counts in given.counts
        for offset in offsets
    ]
    found, rows = [], []
    header = ("model", "decay", "frames", "contrast", "counts", "offset", "ratio", "±", "bias")
    header += ("covered", "of squares", "seconds", "of squares", "evaluations", "set aside")
    for one in cells:
        here = cell(*one, given.maps, given.pixels, given.seed)
        found.append(here)
        row = [*one, *(here[k] for k in ("ratio", "ratio_error", "bias"))]
        row += [*here["coverage"][::-1], *here["seconds"][::-1], here["evaluations"], here["aside"]]
        rows.append(row)
        print(*(f"{v:.3g}" if isinstance(v, float) else v for v in row), flush=True)
    print("\n" + table(header, rows) + "\n")
    covered = [one["coverage"][1] for one in found]
    report = {"benchmark": "precision", "maps": given.maps, "pixels": given.pixels, **machine()}
    report |= {"mean_coverage": sum(covered) / len(covered), "cells": found}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
