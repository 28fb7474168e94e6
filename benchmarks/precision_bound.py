"""How precise least squares and the likelihood of speckle are by theory, and how precise any fit
of the same maps could be.

    python benchmarks/precision_bound.py [--counts 0.05,0.5,5,50] [--contrasts 0.1,0.25,0.5]
        [--models static,laminar] [--decays slow,medium,fast] [--frames 61] [--at-once 31]

Nothing is simulated. The exact covariance of all entries of a map of N pixels, to first order in
1/N, follows from the cumulants of speckle and photon counts (the sum over all quadruples of frames,
so that 61 frames take 10 s and 100 MB), and from it the standard deviation of any estimate that is
linear in the map about the truth: least squares, the likelihood, and generalised least squares with
that covariance, which nothing unbiased that is made of the map can beat (Gauss and Markov). The
likelihood takes all frames, or with `--at-once` blocks of at most so many. For each cell, medians
over the free parameters:

- ratio: of the likelihood to least squares; `best`: of the best there is to least squares;
- missed: by which factor the likelihood is worse than the best;
- gaussian: what Fisher's information of Gaussian intensities claims of the true error.
"""

import itertools
import json
from typing import Any

import numpy as np
from common import machine, table
from precision import parser_of, truth_of

KINDS = ("squares", "likelihood", "gaussian", "best")


def cumulants(field: Any, contrast: float, shot: float) -> tuple[Any, Any, Any]:
    """Joint cumulants of two, three and four frames of counts over their mean.

    Those of intensities are 2β² Re ggg and β³ Σ gggg over the cyclic orders; those of counts are
    the sum over all ways to put positions of the same frame together, each with a factor of shot
    noise.
    """
    e, positions = np.eye(len(field)), "ijkl"
    second = contrast * np.abs(field) ** 2
    third = 2 * contrast**2 * np.real(np.einsum("ij,jk,ki->ijk", field, field, field))

    def cycle(i, j, k, l):
        order = f"{i}{j},{j}{k},{k}{l},{l}{i}->ijkl"
        return np.real(np.einsum(order, *[field] * 4, optimize=True))

    # The other three run the other way round.
    fourth = 2 * contrast**3 * sum(cycle(*one) for one in ("ijkl", "ijlk", "ikjl"))
    for pair in itertools.combinations(positions, 2):
        a, b = pair
        c, d = (one for one in positions if one not in pair)
        fourth += shot * np.einsum(f"{a}{b},{a}{c}{d}->ijkl", e, third)
        if a == "i":
            fourth += shot**2 * np.einsum(f"{a}{b},{c}{d},{a}{c}->ijkl", e, e, second)
    for d in positions:
        a, b, c = (one for one in positions if one != d)
        fourth += shot**2 * np.einsum(f"{a}{b},{b}{c},{a}{d}->ijkl", e, e, second)
    fourth += shot**3 * np.einsum("ij,jk,kl->ijkl", e, e, e)
    for a, b, c in ("ijk", "jki", "kij"):
        third = third + shot * np.einsum(f"{a}{b},{a}{c}->ijk", e, second)
    third += shot**2 * np.einsum("ij,jk->ijk", e, e)
    return second + shot * e, third, fourth


def covariance(field: Any, contrast: float, shot: float, rows: Any, columns: Any) -> Any:
    """N times the covariance of c2 of some pairs, whose frames are divided by their means."""
    k, third, fourth = cumulants(field, contrast, shot)
    i, j, m, n = rows[:, None], columns[:, None], rows, columns
    out = fourth[i, j, m, n] + k[i, m] * k[j, n] + k[i, n] * k[j, m]
    out -= k[i, j] * (third[m, n, i] + third[m, n, j]) + k[m, n] * (third[i, j, m] + third[i, j, n])
    return out + k[i, j] * k[m, n] * (k[i, m] + k[i, n] + k[j, m] + k[j, n])


def exact_errors(model, fixed, t, geometry, levels, at_once=None) -> dict[bool, dict[str, Any]]:
    """Standard deviations of the free parameters by kind of fit, with a free offset and without.

    Each angle has a contrast, an offset and a level of shot noise of its own; `levels` are the
    contrast, the shot noise and the number of pixels of each, at offset one; `at_once` frames at
    most are in a block of the likelihood.
    """
    import jax
    import jax.numpy as jnp

    from xpcs_eqx.objective.likelihood import blocks_of_frames
    from xpcs_eqx.parameters import parameter_values, with_parameters
    from xpcs_eqx.physics import correlation_map, field_correlation

    known = parameter_values(model)
    names = [name for name in known if name not in fixed]
    values = np.array([float(known[name]) for name in names])

    def surface(factors):
        moved = with_parameters(model, dict(zip(names, factors * values, strict=True)))
        return correlation_map(moved, jnp.asarray(t), geometry)

    one = jnp.ones(len(names))
    maps, slopes = np.asarray(surface(one)), np.asarray(jax.jacfwd(surface)(one))
    fields = np.asarray(field_correlation(model, jnp.asarray(t), geometry))
    angles, frames = maps.shape[:2]
    free, size = len(names), len(names) + 3 * angles
    rows, columns = np.triu_indices(frames)
    pairs = rows != columns
    bread = {kind: np.zeros((size, size)) for kind in KINDS}
    filling = {kind: np.zeros((size, size)) for kind in KINDS}
    for a, (contrast, shot, pixels) in enumerate(levels):
        by_pair = covariance(fields[a], contrast, shot, rows, columns) / pixels
        derivative = np.zeros((size, frames, frames))
        derivative[:free] = contrast * np.moveaxis(slopes[a], -1, 0)
        derivative[free + a], derivative[free + angles + a] = maps[a], 1.0
        derivative[free + 2 * angles + a] = np.eye(frames)
        entries = derivative[:, rows, columns]
        expected = contrast * maps[a] + shot * np.eye(frames)
        gradient = np.zeros_like(derivative)
        for block, there in zip(*blocks_of_frames(frames, at_once), strict=True):
            own = np.ix_(block[there], block[there])
            inverse = np.linalg.inv(expected[own])
            gradient[:, *own] = 0.5 * pixels * inverse @ derivative[:, *own] @ inverse
        weights = {
            "squares": entries * pairs,
            "likelihood": gradient[:, rows, columns] * (1.0 + pairs),
            "best": np.linalg.solve(by_pair, entries.T).T,
        }
        weights["gaussian"] = weights["likelihood"]
        for kind, own in weights.items():
            bread[kind] += own @ entries.T
            # Fisher's information takes itself for the scatter of the gradient.
            scatter = entries.T if kind == "gaussian" else by_pair @ own.T
            filling[kind] += own @ scatter

    def errors(kind: str, offset: bool) -> Any:
        kept = [*range(free + angles), *(range(free + angles, free + 2 * angles) if offset else ())]
        # Least squares leaves out the diagonal, which alone knows the shot noise.
        kept += [] if kind == "squares" else range(free + 2 * angles, size)
        index = np.ix_(kept, kept)
        back = np.linalg.inv(bread[kind][index])
        scaled = np.diag(back @ filling[kind][index] @ back.T)[:free]
        return np.abs(values) * np.sqrt(scaled)

    return {
        offset: {"names": names, **{kind: errors(kind, offset) for kind in KINDS}}
        for offset in (True, False)
    }


def main() -> None:
    """Print a table and one JSON line."""
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=61)
    parser.add_argument("--at-once", type=int, help="frames that the likelihood takes, all if none")
    given = parser.parse_args()

    import jax

    jax.config.update("jax_enable_x64", True)
    from xpcs_eqx import Geometry

    found, rows = [], []
    header = ("model", "decay", "contrast", "counts", "offset", "ratio", "best", "missed")
    header += ("gaussian",)
    lists = given.models.split(","), given.decays.split(","), given.contrasts, given.counts
    for model, decay, contrast, counts in itertools.product(*lists):
        truth, fixed, q, step, phi = truth_of(model, decay)
        t, geometry = step * np.arange(1, given.frames + 1), Geometry(q, np.array(phi))
        levels = [(contrast, 1 / counts, given.pixels)] * len(phi)
        both = exact_errors(truth, fixed, t, geometry, levels, given.at_once)
        for free, here in both.items():
            squares, likelihood, gaussian, best = (here[kind] for kind in KINDS)
            ratios = (likelihood / squares, best / squares, likelihood / best)
            middle = [float(np.median(one)) for one in (*ratios, gaussian / likelihood)]
            row = [model, decay, contrast, counts, "free" if free else "fixed", *middle]
            rows.append(row)
            sd = {kind: here[kind].tolist() for kind in KINDS}
            cell = dict(zip(header, row, strict=True))
            found.append(cell | {"names": here["names"], "sd": sd})
            print(*(f"{v:.3g}" if isinstance(v, float) else v for v in row), flush=True)
    print("\n" + table(header, rows) + "\n")
    about = {"benchmark": "precision_bound", "frames": given.frames, "at_once": given.at_once}
    about["pixels"] = given.pixels
    print(json.dumps({**about, **machine(), "cells": found}))


if __name__ == "__main__":
    main()
