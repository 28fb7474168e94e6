"""homodyne's consensus Monte Carlo on maps written by `sampling.py`; needs homodyne 2.23 alone.

    PATH/TO/PYTHON benchmarks/sampling_homodyne.py FILE DRAWS

Effective samples and R-hat are those that homodyne reports, of the physical parameters, contrast,
offset and sigma.
"""

import json
import logging
import resource
import sys
import tempfile
import time

import numpy as np

SCALING = ("contrast", "offset", "sigma")


def processor() -> float:
    """Processor time of this process and of those it has waited for [s]."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whose))


def main() -> None:
    """Sample and print one JSON line."""
    logging.disable(logging.CRITICAL)
    with np.load(sys.argv[1]) as file:
        t, phi, c2 = file["t"], file["phi"], file["c2"]
        q, gap = float(file["q"]), float(file["gap"])
        start = json.loads(str(file["start"]))
    from homodyne.config.parameter_space import ParameterSpace
    from homodyne.optimization.cmc import fit_mcmc_jax

    angle, first, second = np.nonzero(np.broadcast_to(np.triu(np.ones_like(c2[0]), 1), c2.shape))
    began, cpu = time.perf_counter(), processor()
    with tempfile.TemporaryDirectory() as folder:
        result = fit_mcmc_jax(
            data=c2[angle, first, second],
            t1=t[first],
            t2=t[second],
            phi=phi[angle],
            q=q,
            L=gap,
            analysis_mode="laminar_flow",
            initial_values=start,
            parameter_space=ParameterSpace.from_defaults("laminar_flow"),
            dt=float(t[1] - t[0]),
            progress_bar=False,
            cmc_config={
                "enable": True,
                "per_shard_mcmc": {
                    "num_warmup": 500,
                    "num_samples": int(sys.argv[2]),
                    "num_chains": 4,
                },
                "backend_config": {"enable_checkpoints": False, "checkpoint_dir": folder},
            },
        )
    seconds, cpu = time.perf_counter() - began, processor() - cpu
    names = [n for n in (*start, *SCALING) if n in result.samples]
    draws = max(int(np.size(result.samples[n])) for n in names)
    ess = {n: float(result.ess_bulk[n]) for n in names}
    report = {
        "ess": min(ess.values()),
        "worst": min(ess, key=lambda n: ess[n]),
        "rhat": max(float(result.r_hat[n]) for n in names),
        "divergences": float(result.divergences) / max(draws, 1),
        "seconds": seconds,
        "cpu": cpu,
        "status": str(result.convergence_status),
        "means": {n: float(np.mean(result.samples[n])) for n in names},
        "sds": {n: float(np.std(result.samples[n])) for n in names},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
