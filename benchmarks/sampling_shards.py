"""Consensus over shards against one run on all data, laminar flow.

    python benchmarks/sampling_shards.py [--size 3x1001] [--shards 50] [--chains 2]
                                         [--warmup 100] [--draws 200] [--skip-whole]
                                         [--no-anchor]

Both begin at the fit of all data with its covariance (Laplace). For each combiner, with and without
importance correction: the largest distance of a mean in standard deviations of the run on all data
(wanted: 0.3), and the smallest and largest ratio of standard deviations (wanted: 0.8 to 1.2). Each
part is printed as it ends; the last line is JSON.
"""

import argparse
import json
import time

from common import laminar, machine, simulated, sizes, start_values


def said(name: str, clock: float, cpu: float, **more) -> dict:
    """Print and return the times of a part."""
    row = {"seconds": time.perf_counter() - clock, "cpu": time.process_time() - cpu, **more}
    text = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print(f"{name}: {text}", flush=True)
    return row


def main() -> None:
    """Measure, print each part and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="3x1001", help="angles x frames")
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--chains", type=int, default=2, help="of each shard")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--skip-whole", action="store_true", help="the shards alone")
    parser.add_argument("--no-anchor", action="store_true", help="shards by themselves")
    given = parser.parse_args()
    import jax

    jax.config.update("jax_enable_x64", True)
    import numpy as np

    import xpcs_eqx
    from xpcs_eqx import bayes

    data = simulated(*sizes(given.size)[0], 0)
    parameters = xpcs_eqx.parameter_map(laminar(start_values()), data.t)
    report = {
        "benchmark": "sampling_shards",
        "size": given.size,
        "pairs": data.n_pairs,
        **machine(),
    }
    clock, cpu = time.perf_counter(), time.process_time()
    fit = xpcs_eqx.least_squares(xpcs_eqx.projected_objective(parameters, data))
    report["fit"] = said("fit", clock, cpu)
    clock, cpu = time.perf_counter(), time.process_time()
    sampler = bayes.Nuts(chains=given.chains, warmup=given.warmup, draws=given.draws)
    found = bayes.consensus(
        fit,
        method=bayes.Consensus(
            size=bayes.NumberOfShards(given.shards),
            by_size=False,
            anchor=bayes.NoAnchor() if given.no_anchor else bayes.LaplaceAnchor(),
        ),
        sampler=sampler,
        key=1,
        callback=lambda one: print(f"  shard {one.number}: {one.seconds:.0f} s", flush=True),
    )
    report["consensus"] = said(f"{given.shards} shards", clock, cpu, status=found.status)
    density = found.density
    key = jax.random.key(0)
    draws = {}
    for combiner in (bayes.RobustConsensus(), bayes.ConsensusAverage(), bayes.GaussianProduct()):
        combined = combiner(found.shards.draws, key)
        u, c = combined.draws, density.coordinates
        z = (u - np.asarray(c.centre)) / np.asarray(c.scale)
        name = type(combiner).__name__
        draws[name] = z
        clock, cpu = time.perf_counter(), time.process_time()
        corrected = bayes.ImportanceCorrection()(z, density, key)
        report[f"correction of {name}"] = said(
            f"correction of {name}", clock, cpu, pareto_k=float(corrected.pareto_k)
        )
        draws[f"{name}, corrected"] = corrected.draws
    if not given.skip_whole:
        clock, cpu = time.perf_counter(), time.process_time()
        whole = bayes.sample(fit, sampler=bayes.Nuts(warmup=given.warmup, draws=given.draws), key=2)
        report["whole"] = said(
            "one run on all data",
            clock,
            cpu,
            status=whole.status,
            rhat=float(whole.diagnostics.rhat.max()),
            ess=float(whole.diagnostics.ess_bulk.min()),
            divergences=float(whole.diagnostics.divergence_rate),
        )
        flat = whole.theta.reshape(-1, whole.theta.shape[-1])
        mean, sd = flat.mean(axis=0), flat.std(axis=0)
        physical = jax.jit(lambda d, z: jax.vmap(d.coordinates.to_physical)(z))
        for name, z in draws.items():
            theta = np.asarray(physical(density, z))
            away = np.abs(theta.mean(axis=0) - mean) / sd
            ratio = theta.std(axis=0) / sd
            report[name] = {
                "mean": float(away.max()),
                "worst": found.names[int(away.argmax())],
                "sd": [float(ratio.min()), float(ratio.max())],
            }
            print(f"{name}: {report[name]}", flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
