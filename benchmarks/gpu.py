"""Evaluation, fit and sampling on one device, for a machine with a GPU; prints one JSON line.

    python benchmarks/gpu.py [--sizes 23x1001,25x2001] [--tiles 128,256,512,1024] [--chains 4]
        [--quick]

Maps are simulated in single precision on the device itself, a file is not needed. For each size:

- evaluation: seconds of cost, Jᵀr and JᵀJ in float64, on maps of float32, as one compiled loop, for
  each side of a tile: a device wants larger ones than a processor;
- fit: a whole fit from a start 40 % off with the best of these, the first and the second time;
- chains: seconds of `draws` draws of several chains of NUTS, of the first size only;
- memory: the peak of the device, where it says, else of the process [MB].

The card's name is in the line. It runs on a processor as well.
"""

import argparse
import json
import time

from common import laminar, machine, median, peak_memory, simulated, sizes, start_values


def memory(device) -> float:
    """Largest memory in use so far [MB]."""
    told = device.memory_stats() or {}
    return told["peak_bytes_in_use"] / 1e6 if "peak_bytes_in_use" in told else peak_memory()


def timed(function, repeats: int) -> float:
    """Median of some runs after the first."""
    import jax

    jax.block_until_ready(function())
    runs = []
    for _ in range(repeats):
        clock = time.perf_counter()
        jax.block_until_ready(function())
        runs.append(time.perf_counter() - clock)
    return median(runs)


def measure(n_angles: int, n_frames: int, given: argparse.Namespace, sample: bool) -> dict:
    """All of one size."""
    import dataclasses

    import jax
    import jax.numpy as jnp
    import numpy as np

    import xpcs_eqx as xe
    from xpcs_eqx.compiling import quick_jit

    device = jax.devices()[0]
    data = simulated(n_angles, n_frames)
    data = dataclasses.replace(data, c2=np.asarray(data.c2, np.float32))
    parameters = xe.parameter_map(laminar(start_values()), data.t)
    evaluate = quick_jit(lambda o, y, m: o.evaluate(y, m))

    def objective(tile):
        return xe.projected_objective(parameters, data, tile=tile)

    found: dict = {"pairs": data.n_pairs, "evaluation": {}, "compile": {}}
    for tile in given.tiles:
        if tile > n_frames:
            continue
        one = objective(tile)
        y = jnp.asarray(one.variables.to_coordinates(one.start))
        clock = time.perf_counter()
        jax.block_until_ready(evaluate(one, y, one.memo))
        found["compile"][tile] = time.perf_counter() - clock
        found["evaluation"][tile] = timed(lambda: evaluate(one, y, one.memo), given.repeats)  # noqa: B023
    best = min(found["evaluation"], key=found["evaluation"].get)
    found["best_tile"], found["fit"] = best, []
    for _ in range(2):
        clock = time.perf_counter()
        fit = xe.least_squares(objective(best))
        seconds = time.perf_counter() - clock
        timings = {name: float(spent) for name, spent in fit.timings}
        found["fit"].append({"seconds": seconds, **timings, "evaluations": fit.evaluations})
    found["status"], found["D0"] = fit.status.name, [fit["D0"].value, fit["D0"].error]
    if sample:
        clock = time.perf_counter()
        nuts = xe.Nuts(chains=given.chains, warmup=given.draws, draws=given.draws)
        posterior = xe.sample(fit, sampler=nuts, key=1)
        found["chains"] = {
            "seconds": time.perf_counter() - clock,
            "chains": given.chains,
            "draws": given.draws,
            "ess": float(posterior.diagnostics.ess_bulk.min()),
        }
    return {**found, "memory": memory(device)}


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="23x1001,25x2001", help="angles x frames")
    parser.add_argument("--tiles", default="128,256,512,1024", help="frames along a tile")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="3x61 frames, no chains")
    given = parser.parse_args()
    given.tiles = [int(one) for one in ("32" if given.quick else given.tiles).split(",")]
    import jax

    jax.config.update("jax_enable_x64", True)
    device = jax.devices()[0]
    report = {"benchmark": "gpu", "device": device.device_kind, "platform": device.platform}
    report |= {**machine(), "sizes": {}}
    for k, (angles, frames) in enumerate(sizes("3x61" if given.quick else given.sizes)):
        sample = k == 0 and not given.quick
        report["sizes"][f"{angles}x{frames}"] = measure(angles, frames, given, sample)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
