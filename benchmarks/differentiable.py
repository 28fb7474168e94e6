"""Derivatives of fits beside the evaluation they are made of, and batched fits beside a loop.

    python benchmarks/differentiable.py [--frames 301] [--sets 64] [--repeats 9]

Laminar flow, 3 angles, float64, individual scaling eliminated; the fit itself is given. "Unit" is
one evaluation of the normal equations. `curvature` is the matrix at the optimum, made once whatever
is differentiated; `vjp` pulls a cotangent of the parameters back to every array of the objective
(maps, weights, times, geometry, fixed parameters), `jvp` pushes a tangent of all of them. The sums
curvature + vjp and curvature + jvp are what one derivative costs.

Batched: `vmap` of a whole fit over static data sets, beside a Python loop over `fitted` and one
over the same fit as a bare `jax.jit` of the maps [ms].

Times are the least of interleaved runs, each after compilation. The last line is JSON.
"""

import argparse
import json
import time

from common import TRUTH, laminar, machine, simulated, table

# Frames of the data sets fitted in a batch.
SMALL = (11, 21, 51)


def least(calls, repeats):
    """Shortest time [s] of each call, in turns."""
    import jax

    for call in calls.values():
        jax.block_until_ready(call())
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            clock = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - clock)
    return {name: min(values) for name, values in times.items()}


def derivatives(n_frames: int, repeats: int) -> dict[str, float]:
    """Seconds of an evaluation and of the parts of a derivative."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from xpcs_eqx import parameter_map, projected_objective
    from xpcs_eqx.compiling import quick_jit
    from xpcs_eqx.fitting import FullCurvature, GaussNewtonCurvature
    from xpcs_eqx.fitting.derivative.minimum import minimum_of

    data = simulated(3, n_frames)
    parameters = parameter_map(laminar(TRUTH), data.t)
    objective = projected_objective(parameters, data)
    y = jnp.asarray(parameters.to_coordinates(parameters.start))
    u = jnp.concatenate([jnp.full(3, 0.2), jnp.ones(3), jnp.asarray(parameters.start)])
    arrays = eqx.filter(objective, eqx.is_inexact_array)
    tangent = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), arrays)

    def condition(objective, u):
        return minimum_of(objective).gradient(u)

    evaluate = quick_jit(lambda o, y: o.evaluate(y, o.memo)[0])
    full = quick_jit(lambda o, u: FullCurvature().matrix(minimum_of(o), u))
    gauss_newton = quick_jit(lambda o, u: GaussNewtonCurvature().matrix(minimum_of(o), u))
    push = quick_jit(lambda o, d, u: eqx.filter_jvp(lambda o: condition(o, u), (o,), (d,))[1])
    pull = quick_jit(lambda o, u, v: eqx.filter_vjp(lambda o: condition(o, u), o)[1](v))
    calls = {
        "evaluation": lambda: evaluate(objective, y),
        "curvature": lambda: full(objective, u),
        "curvature, Gauss-Newton": lambda: gauss_newton(objective, u),
        "jvp": lambda: push(objective, tangent, u),
        "vjp": lambda: pull(objective, u, u),
    }
    return least(calls, repeats)


def batched(n_sets: int, n_frames: int, repeats: int) -> dict[str, float]:
    """Seconds of fits one by one and at once, and their largest relative difference."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from xpcs_eqx import (
        Geometry,
        PowerLawRate,
        Static,
        fitted,
        parameter_map,
        projected_objective,
        simulate,
        with_values,
    )
    from xpcs_eqx.compiling import quick_options

    t = 5.0 / n_frames * np.arange(1, n_frames + 1)
    geometry = Geometry(q=0.0054, phi=np.zeros(1))
    model = Static(PowerLawRate(1.5e4, -0.3, 500.0))
    data = [
        simulate(model, t, geometry, 0.2, 1.0, noise=0.005, key=jax.random.key(k))
        for k in range(n_sets)
    ]
    start = Static(PowerLawRate(2e4, -0.2, 500.0))
    parameters = parameter_map(start, t, fixed=("D_offset",))
    objective = projected_objective(parameters, data[0])
    stack = jnp.stack([one.c2 for one in data])

    def fit(c2):
        found = fitted(with_values(objective, c2=c2))
        return found.values, found.status

    together = jax.jit(jax.vmap(fit), compiler_options=quick_options())
    single = jax.jit(fit, compiler_options=quick_options())
    separate = [jnp.asarray(one.c2) for one in data]
    objectives = [with_values(objective, c2=c2) for c2 in separate]
    calls = {
        "loop": lambda: [fitted(one).values for one in objectives],
        "bare jit": lambda: [single(c2) for c2 in separate],
        "vmap": lambda: together(stack),
    }
    times = least(calls, repeats)
    values, status = together(stack)
    alone = np.stack([single(c2)[0] for c2 in separate])
    assert np.all(np.asarray(status) > 0)
    return {**times, "difference": float(np.max(np.abs(np.asarray(values) / alone - 1)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=301)
    parser.add_argument("--sets", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    import jax

    jax.config.update("jax_enable_x64", True)
    times = derivatives(options.frames, options.repeats)
    unit = times["evaluation"]
    print(table(("", "ms", "evaluations"), [(k, 1e3 * v, v / unit) for k, v in times.items()]))
    fits = {n: batched(options.sets, n, options.repeats) for n in SMALL}
    kinds = ("loop", "bare jit", "vmap")
    print(table(("frames", *kinds), [(n, *(1e3 * f[k] for k in kinds)) for n, f in fits.items()]))
    result = {
        **machine(),
        "frames": options.frames,
        "evaluation_ms": 1e3 * unit,
        "curvature": times["curvature"] / unit,
        "curvature_gauss_newton": times["curvature, Gauss-Newton"] / unit,
        "jvp": times["jvp"] / unit,
        "vjp": times["vjp"] / unit,
        "jvp_total": (times["jvp"] + times["curvature"]) / unit,
        "vjp_total": (times["vjp"] + times["curvature"]) / unit,
        "vmap_speedup": {n: f["loop"] / f["vmap"] for n, f in fits.items()},
        "vmap_speedup_over_bare_jit": {n: f["bare jit"] / f["vmap"] for n, f in fits.items()},
        "vmap_difference": {n: f["difference"] for n, f in fits.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
