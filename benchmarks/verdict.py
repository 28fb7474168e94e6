"""How often a right model fails each test of what a fit leaves: fits of many simulated maps.

    python benchmarks/verdict.py [--kind static] [--counts independent] [--sets 20000]

Static flow is one map, laminar flow three. `--counts` is `independent` (white noise of every pair),
`none` (speckle without shot noise) or the mean count of a pixel. Fits and the sums that tests need
are vmapped; the tests themselves are those of a fit. Printed are, for each test, how many of the
probabilities are below 0.001, the parts below 0.01, 0.05 and 0.1 and above 0.9, and the
probability of the Kolmogorov–Smirnov statistic against uniform ones. The last line is JSON. Two
thousand sets take about 80 s of a processor.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from common import CONTRAST, machine, table

PARTS = (0.01, 0.05, 0.1)


def truth(kind: str, n_frames: int) -> tuple[Any, tuple[str, ...], Any, Any]:
    """Model, fixed parameters, frame times and geometry; the decay takes some frames."""
    import numpy as np

    from xpcs_eqx import Geometry, LaminarFlow, PowerLawRate, Static

    if kind == "static":
        model = Static(PowerLawRate(1e3, 0.0, 0.0))
        return model, ("alpha", "D_offset"), np.arange(float(n_frames)), Geometry(0.01, [0.0])
    model = LaminarFlow(PowerLawRate(1.2e4, -0.3, 0.0), PowerLawRate(3e-4, 0.2, 0.0), 5.0)
    t = 6.1 / n_frames * np.arange(1, n_frames + 1)
    geometry = Geometry(0.0054, [0.0, 45.0, 90.0], 2e6)
    return model, ("D_offset", "gamma_dot_t_offset"), t, geometry


def maps_of(model, t, geometry, counts: str, pixels: int, noise: float) -> Callable[[int], Any]:
    """Maps (angle, frame, frame) of a seed."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from xpcs_eqx import simulate
    from xpcs_eqx.compiling import quick_jit
    from xpcs_eqx.physics import field_correlation, field_factor
    from xpcs_eqx.simulation.maps import correlated, mode_weights, speckle_pixels

    if counts == "independent":
        white = quick_jit(
            lambda key: simulate(model, t, geometry, CONTRAST, noise=noise, key=key).c2
        )
        return lambda seed: np.asarray(white(jax.random.key(seed)))
    factor = field_factor(field_correlation(model, t, geometry))[0].astype(np.float32)
    weights = jnp.asarray(mode_weights(CONTRAST))
    draw = quick_jit(lambda one, key: speckle_pixels(one, weights, None, pixels, key))
    mean = None if counts == "none" else np.float32(counts)

    def speckle(seed: int):
        random, out = np.random.default_rng(seed), []
        keys = jax.random.split(jax.random.key(seed), len(factor))
        for one, key in zip(factor, keys, strict=True):
            intensity = np.asarray(draw(one, key))
            # NumPy draws photons ten times as fast as JAX does.
            counted = intensity if mean is None else random.poisson(intensity * mean)
            out.append(np.asarray(correlated(jnp.asarray(counted, np.float32))))
        return np.stack(out)

    return speckle


def probabilities(options: argparse.Namespace) -> dict[str, list[float]]:
    """Of each test, for every set whose fit converged."""
    import equinox as eqx
    import jax
    import numpy as np

    from xpcs_eqx import fitted, parameter_map, projected_objective, simulate, with_values
    from xpcs_eqx.compiling import quick_jit
    from xpcs_eqx.objective import Linear
    from xpcs_eqx.uncertainty import inverse_of, misfit_of, optimum
    from xpcs_eqx.uncertainty.covariance import remains_of
    from xpcs_eqx.uncertainty.scores import speckle_scores
    from xpcs_eqx.uncertainty.speckle_noise import diagonal_above

    model, fixed, t, geometry = truth(options.kind, options.frames)
    draw = maps_of(model, t, geometry, options.counts, options.pixels, options.noise)
    data = simulate(model, t, geometry, CONTRAST, noise=options.noise, key=jax.random.key(0))
    objective = projected_objective(parameter_map(model, t, fixed=fixed), data)
    size = objective.term.scaling.size

    def fit(c2):
        changed = with_values(objective, c2=c2)
        found = fitted(changed)
        y = changed.term.parameters.to_coordinates(found.values[size:])
        return found.status, y, changed.evaluate(y, changed.memo)[1]

    def scores(c2, y, per_angle, above):
        term = with_values(objective, c2=c2).term
        return speckle_scores(term, y, per_angle, Linear(), above)

    def above(c2, per_angle):
        diagonal = np.diagonal(c2, axis1=1, axis2=2)
        term = eqx.tree_at(lambda o: (o.tiles.c2, o.diagonal), objective.term, (c2, diagonal))
        return diagonal_above(term, per_angle)[0]

    fits, sums = quick_jit(jax.vmap(fit)), quick_jit(jax.vmap(scores))
    found: dict[str, list[float]] = {}
    for begin in range(0, options.sets, options.batch):
        c2 = np.stack([draw(options.seed + begin + k) for k in range(options.batch)])
        status, y, memo = jax.device_get(fits(c2))
        ends = [
            jax.device_get(optimum(objective, y[k], jax.tree.map(itemgetter(k), memo)))
            for k in range(options.batch)
        ]
        per_angle = np.stack([at.per_angle for at in ends])
        levels = np.stack([above(*one) for one in zip(c2, per_angle, strict=True)])
        left = jax.device_get(sums(c2, y, per_angle, levels))
        for k, at in enumerate(ends):
            if status[k] > 0:
                own = jax.tree.map(itemgetter(k), left)
                inverse, *_ = inverse_of(np.asarray(at.joint.hessian), at.free)
                misfit = misfit_of(remains_of(at, own, Linear()), inverse, objective.term)
                for test in misfit.tests if misfit is not None else ():
                    found.setdefault(test.name, []).append(test.probability)
    return found


def row(name: str, values: list[float]) -> dict[str, Any]:
    """What is printed of one test."""
    import numpy as np
    from scipy import stats

    p = np.array(values)
    parts = {f"< {part:g}": float(np.mean(p < part)) for part in PARTS}
    return {
        "test": name,
        "sets": p.size,
        "< 0.001": int(np.sum(p < 1e-3)),
        **parts,
        "> 0.9": float(np.mean(p > 0.9)),
        "uniform": float(stats.kstest(p, "uniform").pvalue),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kind", choices=("static", "laminar"), default="static")
    parser.add_argument("--counts", default="independent")
    parser.add_argument("--sets", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--pixels", type=int, default=2000)
    parser.add_argument("--noise", type=float, default=0.005)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Matrices are small: threads only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import jax

    jax.config.update("jax_enable_x64", True)
    clock = time.process_time()
    rows = [row(*one) for one in probabilities(options).items()]
    seconds = time.process_time() - clock
    print(table(tuple(rows[0]), [tuple(one.values()) for one in rows]))
    print(json.dumps({**machine(), **vars(options), "processor": seconds, "tests": rows}))


if __name__ == "__main__":
    main()
