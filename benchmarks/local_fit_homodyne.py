"""homodyne 2.x on a file written by `local_fit_peers.py homodyne_data`; needs homodyne only.

    PATH/TO/PYTHON benchmarks/local_fit_homodyne.py FILE [individual]

By default its scaling mode is its own choice ("auto"); the second argument names another.
"""

import json
import logging
import resource
import sys
import time

import numpy as np


def main() -> None:
    """Fit and print one JSON line."""
    logging.disable(logging.CRITICAL)
    mode = sys.argv[2] if len(sys.argv) > 2 else "auto"
    with np.load(sys.argv[1]) as file:
        t, phi, c2 = file["t"], file["phi"], file["c2"]
        q, gap, noise = (float(file[k]) for k in ("q", "gap", "noise"))
        truth, start = (json.loads(str(file[k])) for k in ("truth", "start"))
    began = time.perf_counter()
    from homodyne.config import ConfigManager
    from homodyne.optimization.nlsq import fit_nlsq_jax

    dt = float(t[1] - t[0])
    config = ConfigManager(
        config_override={
            "analysis_mode": "laminar_flow",
            "analyzer_parameters": {
                "dt": dt,
                "start_frame": 1,
                "end_frame": len(t),
                "scattering": {"wavevector_q": q},
                "geometry": {"stator_rotor_gap": gap},
            },
            "initial_parameters": {
                "parameter_names": list(start),
                "values": list(start.values()),
            },
            "optimization": {
                "method": "nlsq",
                "nlsq": {
                    "loss": "linear",
                    "anti_degeneracy": {"enable": True, "per_angle_mode": mode},
                },
            },
        }
    )
    data = {
        "phi": phi,
        "g2": c2,
        "t1": t,
        "t2": t,
        "q": q,
        "sigma": np.full_like(c2, noise),
        "L": gap,
        "dt": dt,
    }
    imported = time.perf_counter()
    result = fit_nlsq_jax(data, config)
    end = time.perf_counter()
    # Scaling comes first, the seven physical parameters last.
    values = np.asarray(result.parameters, float)[-len(truth) :]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    report = {
        "mode": mode,
        "evaluations": int(result.iterations),
        "converged": result.convergence_status,
        "import": imported - began,
        "fit": end - imported,
        "memory": peak,
        "values": dict(zip(truth, values.tolist(), strict=True)),
        "parameters": int(np.size(result.parameters)),
        "moved": bool(np.any(np.abs(values / np.array(list(start.values())) - 1) > 1e-6)),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
