"""One evaluation with each kind of rate, beside the power law.

    python benchmarks/rates.py [--frames 301] [--angles 3] [--repeats 40] [--quick]

Static model, float64. Each row is one evaluation of the normal equations (cost, Jᵀr and JᵀJ with
contrast and offset eliminated), compiled as in a fit; medians of interleaved runs, and the
processor time of all threads, which other programs disturb less. `ratio` is to the power law with
its three parameters.
"""

import argparse
import json
import time

from common import CONTRAST, GAP, NOISE, OFFSET, WINDOW, Q, machine, median, table

KNOTS = 12


def rates(t) -> dict:
    """Rates of the benchmark by name."""
    import jax.numpy as jnp

    from xpcs_eqx import physics

    knots = physics.uniform_knots(t, KNOTS)
    return {
        "power law": physics.PowerLawRate(1.5e4, -0.3, 500.0),
        "spline": physics.SplineRate(knots, 1e4),
        "signed spline": physics.SignedSplineRate(knots, 1e4),
        "piecewise constant": physics.PiecewiseConstantRate(knots[1:-1], 1e4),
        "piecewise linear": physics.PiecewiseLinearRate(knots, 1e4),
        "exponential": physics.ExponentialRate(1e4, 3.0, 2e3),
        "function": physics.FunctionRate(
            lambda t, p: p["a"] * jnp.exp(-t / p["tau"]) + p["c"],
            {"a": 1e4, "tau": 3.0, "c": 2e3},
        ),
    }


def measure(n_angles: int, n_frames: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds and parameters by kind of rate, repeats interleaved."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from xpcs_eqx import Geometry, Static, parameter_map, projected_objective
    from xpcs_eqx.compiling import quick_jit
    from xpcs_eqx.simulation import simulate

    t = WINDOW / n_frames * np.arange(1, n_frames + 1)
    geometry = Geometry(q=Q, phi=np.linspace(0.0, 90.0, n_angles), gap=GAP)
    key = jax.random.key(0)
    made = rates(t)
    truth = Static(made["power law"])
    data = simulate(truth, t, geometry, CONTRAST, OFFSET, noise=NOISE, key=key)

    evaluate = quick_jit(lambda o, y, m: o.evaluate(y, m))
    out, points = {}, {}
    for kind, rate in made.items():
        parameters = parameter_map(Static(rate), t)
        objective = projected_objective(parameters, data)
        y = jnp.asarray(parameters.to_coordinates(parameters.start))
        compiled = evaluate.lower(objective, y, objective.memo).compile()
        points[kind] = (compiled, (objective, y, objective.memo))
        jax.block_until_ready(compiled(*points[kind][1]))
        out[kind] = {"parameters": parameters.n_free, "runs": [], "work": []}
    for _ in range(repeats):
        for kind, (compiled, arguments) in points.items():
            clock, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled(*arguments))
            out[kind]["runs"].append(time.perf_counter() - clock)
            out[kind]["work"].append(time.process_time() - cpu)
    for one in out.values():
        runs, work = one.pop("runs"), one.pop("work")
        one["seconds"], one["fastest"], one["cpu"] = median(runs), min(runs), median(work)
    for one in out.values():
        one["ratio"] = one["seconds"] / out["power law"]["seconds"]
        one["fastest_ratio"] = one["fastest"] / out["power law"]["fastest"]
        one["cpu_ratio"] = one["cpu"] / out["power law"]["cpu"]
    return out


def main() -> None:
    """Measure, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=301)
    parser.add_argument("--angles", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="101 frames, 5 repeats")
    given = parser.parse_args()
    n_frames, repeats = (101, 5) if given.quick else (given.frames, given.repeats)

    import jax

    jax.config.update("jax_enable_x64", True)
    measured = measure(given.angles, n_frames, repeats)
    keys = ("parameters", "seconds", "ratio", "fastest", "fastest_ratio", "cpu", "cpu_ratio")
    print(table(("", *keys), [(kind, *(one[k] for k in keys)) for kind, one in measured.items()]))
    report = {
        "benchmark": "rates",
        "angles": given.angles,
        "frames": n_frames,
        "knots": KNOTS,
        **machine(),
        "spline_over_power_law": measured["spline"]["ratio"],
        "spline_over_power_law_cpu": measured["spline"]["cpu_ratio"],
        "rates": measured,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
