"""How often the global minimum is found from anywhere, and what that costs.

    python benchmarks/global_search.py [--starts 200] [--angles 3] [--frames 101] [--repeats 5]
        [--strong] [--no-peers]

Laminar flow, noise 0.01, all seven parameters free, contrast and offset eliminated; with `--strong`
flow is stronger, goes the other way, and ages otherwise. Starts are drawn evenly between the bounds
that a parameter has by default (D0 1 … 1e6, alpha ±2, D_offset ±1e5, gamma_dot_t0 1e-6 … 0.5, beta
±2, gamma_dot_t_offset ±0.1, phi0 ±30); where a rate is below zero no local fit begins. A start
counts when it ends within 1e-6 (relative) of the lowest chi² found; of the others it is said how
many had a verdict that makes the program end with exit code 1.

* local: `least_squares` from the start, recovery included;
* auto: `global_least_squares` with `Auto`, another seed for each start;
* SciPy: `differential_evolution` over the same bounds with as many evaluations of the cost as
  `auto` used (of which those on a sample of the pairs count in full), then
  `least_squares(method="trf")` with up to 200 evaluations more.

Cost: processor time of `multi_start` with 20 starts, and of `Auto`, beside one `least_squares` from
40 % off, all compiled; least of interleaved runs, over several seeds. The last line is JSON.
"""

import argparse
import json
import time
from typing import Any

from common import AWAY, STRONG, TRUTH, laminar, machine, simulated, start_values, table

SAME = 1e-6


def problem(n_angles: int, n_frames: int, truth: dict[str, float]) -> tuple[Any, Any]:
    """The objective, and the same with contrast and offset as variables, for SciPy."""
    import xpcs_eqx as xe
    from xpcs_eqx.search import in_physical_variables

    data = simulated(n_angles, n_frames, truth=truth)
    parameters = xe.parameter_map(laminar(start_values(truth)), data.t)
    whole = in_physical_variables(xe.two_time_objective(parameters, data, eliminate=False))
    return xe.projected_objective(parameters, data), whole


def scipy_fit(objective: Any, whole: Any, evaluations: int, seed: int) -> float:
    """Cost after differential evolution and a bounded trust region of SciPy."""
    import jax
    import numpy as np
    from scipy.optimize import differential_evolution, least_squares

    from xpcs_eqx.objective import residual
    from xpcs_eqx.search import in_physical_variables, population_costs

    variables = objective.variables
    members = 15 * len(objective.names)
    found = differential_evolution(
        lambda x: np.minimum(population_costs(objective, x.T), 1e30),
        list(zip(variables.lower, variables.upper, strict=True)),
        popsize=15,
        maxiter=max(evaluations // members - 1, 1),
        tol=0.0,
        polish=False,
        vectorized=True,
        updating="deferred",
        rng=np.random.default_rng(seed),
    )
    physical = in_physical_variables(objective)
    coefficients = _scaling(physical, found.x)
    low, high = np.asarray(whole.variables.lower), np.asarray(whole.variables.upper)
    start = np.clip(np.concatenate([found.x, coefficients]), low, high)
    if not hasattr(scipy_fit, "compiled"):
        scipy_fit.compiled = (jax.jit(lambda y: residual(whole, y)),)  # pyright: ignore
        scipy_fit.compiled += (jax.jit(jax.jacfwd(lambda y: residual(whole, y))),)  # pyright: ignore
    value, slope = scipy_fit.compiled  # pyright: ignore
    margin = 1e-9 * (high - low)
    end = least_squares(
        lambda y: np.asarray(value(y)),
        np.clip(start, low + margin, high - margin),
        jac=lambda y: np.asarray(slope(y)),
        bounds=(low, high),
        x_scale="jac",
        ftol=1e-12,
        xtol=1e-12,
        gtol=1e-12,
        max_nfev=200,
    )
    return float(end.cost)


def _scaling(physical: Any, x: Any) -> Any:
    import jax.numpy as jnp
    import numpy as np

    from xpcs_eqx.optimize import evaluated

    _, memo = evaluated(physical, jnp.asarray(x), physical.memo)
    return np.asarray(memo.coefficients)


def study(objective: Any, whole: Any, starts: int, peers: bool) -> dict[str, Any]:
    """Costs reached from every start by every method."""
    import numpy as np

    import xpcs_eqx as xe
    from xpcs_eqx.search import Auto, global_least_squares

    random = np.random.default_rng(0)
    low, high = np.asarray(objective.variables.lower), np.asarray(objective.variables.upper)
    rows, used, seconds, doubted, ways = [], [], [], [], {}
    for k in range(starts):
        start = low + random.random(low.size) * (high - low)
        try:
            local = float(xe.least_squares(objective, start).cost)
        except xe.FitError:
            local = np.inf
        clock = time.process_time()
        found = global_least_squares(objective, start, strategy=Auto(seed=1000 * (k + 1)))
        seconds.append(time.process_time() - clock)
        doubted.append(found.fit.quality.doubtful)
        used.append(found.evaluations)
        ways[found.method] = ways.get(found.method, 0) + 1
        scipy = scipy_fit(objective, whole, found.evaluations, k) if peers else np.inf
        rows.append((local, float(found.fit.cost), scipy))
        print(k + 1, *(f"{2 * cost:.8g}" for cost in rows[-1]), found.evaluations, flush=True)
    costs = np.array(rows)
    best = float(np.min(costs))
    there = costs <= best * (1 + SAME)
    reached = np.sum(there, axis=0)
    return {
        "starts": starts,
        "best_chi2": 2 * best,
        "local": int(reached[0]),
        "auto": int(reached[1]),
        "scipy": int(reached[2]) if peers else None,
        "without_local_fit": int(np.sum(~np.isfinite(costs[:, 0]))),
        "evaluations": {
            "median": float(np.median(used)),
            "mean": float(np.mean(used)),
            "most": int(np.max(used)),
        },
        "seconds": float(np.median(seconds)),
        "found_by": ways,
        "auto_missed": [[k, 2 * float(costs[k, 1])] for k in np.flatnonzero(~there[:, 1]).tolist()],
        "missed_and_doubted": int(np.sum(~there[:, 1] & doubted)),
        "reached_and_doubted": int(np.sum(there[:, 1] & doubted)),
    }


def price(objective: Any, repeats: int) -> dict[str, float]:
    """Processor seconds of one fit from 40 % off, of 20 starts, and of a fit with a look around."""
    import numpy as np

    import xpcs_eqx as xe
    from xpcs_eqx.search import Auto, global_least_squares, multi_start

    def spent(run: Any, *given: Any, **more: Any) -> float:
        clock = time.process_time()
        run(*given, **more)
        return time.process_time() - clock

    xe.least_squares(objective)
    multi_start(objective, starts=20, seed=0)
    global_least_squares(objective)
    one, many, around = [], [], []
    for seed in range(repeats):
        turns = []
        for _ in range(3):
            one.append(spent(xe.least_squares, objective))
            looked = spent(global_least_squares, objective, strategy=Auto(seed=seed))
            turns.append((spent(multi_start, objective, starts=20, seed=seed), looked))
        many.append(min(one for one, _ in turns))
        around.append(min(two for _, two in turns))
    return {
        "fit": min(one),
        "multi_start": float(np.median(many)),
        "slowest": max(many),
        "auto": float(np.median(around)),
        "slowest_auto": max(around),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--angles", type=int, default=3)
    parser.add_argument("--frames", type=int, default=101)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--strong", action="store_true", help="stronger flow, the other way")
    parser.add_argument("--no-peers", action="store_true", help="leave SciPy out")
    options = parser.parse_args()
    import jax

    jax.config.update("jax_enable_x64", True)
    truth = STRONG if options.strong else TRUTH
    objective, whole = problem(options.angles, options.frames, truth)
    cost = price(objective, options.repeats)
    ratio, auto = (cost[name] / cost["fit"] for name in ("multi_start", "auto"))
    print(table(("", "ms"), [(name, 1e3 * value) for name, value in cost.items()]))
    print(
        f"20 starts cost {ratio:.2f} fits from {AWAY:.0%} off, a fit with a look around {auto:.2f}"
    )
    found = study(objective, whole, options.starts, not options.no_peers) if options.starts else {}
    if found:
        methods = [name for name in ("local", "auto", "scipy") if found[name] is not None]
        rows = [(name, found[name], 100 * found[name] / options.starts) for name in methods]
        print(table(("method", "reached", "%"), rows))
    print(json.dumps({**machine(), **cost, "ratio": ratio, "auto_ratio": auto, "search": found}))


if __name__ == "__main__":
    main()
