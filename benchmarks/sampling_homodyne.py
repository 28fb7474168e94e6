"""homodyne's consensus Monte Carlo on maps written by `sampling.py`; needs homodyne and ArviZ.

PATH/TO/PYTHON benchmarks/sampling_homodyne.py FILE DRAWS
"""

import json
import logging
import sys
import time

import numpy as np


def main() -> None:
    """Sample and print one JSON line."""
    logging.disable(logging.CRITICAL)
    with np.load(sys.argv[1]) as file:
        t, phi, c2 = file["t"], file["phi"], file["c2"]
        q, gap = float(file["q"]), float(file["gap"])
        start = json.loads(str(file["start"]))
    from homodyne.optimization.cmc import fit_mcmc_jax

    angle, first, second = np.nonzero(np.broadcast_to(np.triu(np.ones_like(c2[0]), 1), c2.shape))
    began, cpu = time.perf_counter(), time.process_time()
    result = fit_mcmc_jax(
        data=c2[angle, first, second],
        t1=t[first],
        t2=t[second],
        phi=phi[angle],
        q=q,
        L=gap,
        analysis_mode="laminar_flow",
        initial_values=start,
        cmc_config={"per_shard_mcmc": {"num_samples": int(sys.argv[2]), "num_chains": 4}},
    )
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    draws = max(int(np.size(values)) for values in result.samples.values())
    report = {
        "ess": float(min(float(np.min(v)) for v in result.ess_bulk.values())),
        "rhat": float(max(float(np.max(v)) for v in result.r_hat.values())),
        "divergences": float(result.divergences) / max(draws, 1),
        "seconds": seconds,
        "cpu": cpu,
        "status": str(result.convergence_status),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
