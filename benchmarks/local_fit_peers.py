"""Other programs on the data of `local_fit.py`, each called in a process of its own.

    python benchmarks/local_fit_peers.py scipy|optimistix|homodyne_kernel FILE
    python benchmarks/local_fit_peers.py homodyne_data FILE ANGLES FRAMES SEED

`scipy` and `optimistix` get the residual vector of this library over every pair once and its dense
Jacobian by `jax.jacfwd`. `homodyne_data` writes an NPZ file simulated with the kernel and the
integrals of homodyne 2.x, which `local_fit_homodyne.py` and, here, `homodyne_kernel` fit.
"""

import json
import os
import sys
import time

from common import (
    CONTRAST,
    GAP,
    NOISE,
    OFFSET,
    TRUTH,
    WINDOW,
    Q,
    laminar,
    peak_memory,
    start_values,
)

# Copies of the Jacobian that a solver of dense least squares holds at its peak, roughly.
COPIES = 4


def homodyne_model(values):
    """Laminar flow as homodyne 2.x has it."""
    from xpcs_eqx import LaminarFlow, PowerLawRate, Trapezoid, with_parameters
    from xpcs_eqx.physics import Homodyne

    rate = Trapezoid(PowerLawRate(1.0, 0.0, 0.0))
    return with_parameters(LaminarFlow(rate, rate, 0.0, Homodyne()), values)


def write_homodyne_data(path: str, n_angles: int, n_frames: int, seed: int) -> dict:
    """Maps with homodyne's physics; times from 0, as it counts them."""
    import jax
    import numpy as np

    from xpcs_eqx import Geometry
    from xpcs_eqx.simulation import simulate

    t = WINDOW / (n_frames - 1) * np.arange(n_frames)
    geometry = Geometry(q=Q, phi=np.linspace(0.0, 90.0, n_angles), gap=GAP)
    key = jax.random.key(seed)
    data = simulate(homodyne_model(TRUTH), t, geometry, CONTRAST, OFFSET, noise=NOISE, key=key)
    truth, start = (json.dumps(v) for v in (TRUTH, start_values()))
    content = {"t": t, "phi": geometry.phi, "c2": np.asarray(data.c2), "noise": NOISE}
    np.savez(path, q=Q, gap=GAP, truth=truth, start=start, **content)
    return {"written": path}


def homodyne_kernel(path: str) -> dict:
    """This library on the file for homodyne, with the same kernel and integrals."""
    import numpy as np

    from xpcs_eqx import from_dict, least_squares, parameter_map, projected_objective

    with np.load(path) as file:
        t, phi, c2 = file["t"], file["phi"], file["c2"]
    given = {"c2_exp": c2, "phi_angles_list": phi, "t1": t, "t2": t, "wavevector_q_list": [Q]}
    clock = time.perf_counter()
    data = from_dict(given)
    fit = least_squares(projected_objective(parameter_map(homodyne_model(start_values()), t), data))
    elapsed = time.perf_counter() - clock
    errors = {name: fit[name].error_classical for name in TRUTH}
    values = {name: fit[name].value for name in TRUTH}
    return {
        "evaluations": fit.evaluations,
        "converged": fit.success,
        "fit": elapsed,
        "values": values,
        "errors": errors,
        "worst": max(abs(values[k] - TRUTH[k]) / errors[k] for k in TRUTH),
    }


def dense(name: str, path: str) -> dict:
    """A solver that needs residual vector and Jacobian."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from xpcs_eqx import load, parameter_map, residual, two_time_objective

    data = load(path)
    parameters = parameter_map(laminar(start_values()), data.t)
    objective = two_time_objective(parameters, data, eliminate=False)
    x = np.asarray(objective.start, float)
    tiles = objective.term.tiles
    needed = COPIES * 8 * tiles.table.shape[0] * tiles.size**2 * x.size
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if needed > available:
        return {"failed": f"needs some {needed / 1e9:.0f} GB"}
    clock = time.perf_counter()
    solve = {"scipy": with_scipy, "optimistix": with_optimistix}[name]
    out, x = solve(objective, x, lambda o, y: residual(o, y))
    elapsed = time.perf_counter() - clock
    peak = peak_memory()
    y = objective.variables.to_coordinates(jnp.asarray(x))
    equations, _ = jax.jit(lambda o, y: o.evaluate(y, o.memo))(objective, y)
    # In coordinates of the solver; the errors are wanted for physical parameters.
    turn = np.asarray(jax.jacfwd(objective.variables.to_physical)(y))
    variance = 2 * float(equations.cost) / (float(equations.count) - x.size)
    covariance = variance * turn @ np.linalg.pinv(np.asarray(equations.hessian), 1e-14) @ turn.T
    errors = np.sqrt(np.diagonal(covariance))
    names = objective.names
    z = [abs(x[names.index(k)] - TRUTH[k]) / errors[names.index(k)] for k in TRUTH]
    return {**out, "fit": elapsed, "memory": peak, "cost": float(equations.cost), "worst": max(z)}


def with_scipy(objective, x, function):
    """`scipy.optimize.least_squares`, trf, in physical variables between the same bounds."""
    import jax
    import numpy as np
    from scipy.optimize import least_squares

    variables = objective.variables

    def physical(objective, x):
        return function(objective, objective.variables.to_coordinates(x))

    value = jax.jit(physical)
    jacobian = jax.jit(jax.jacfwd(physical, argnums=1))
    found = least_squares(
        lambda x: np.asarray(value(objective, x)),
        x,
        jac=lambda x: np.asarray(jacobian(objective, x)),
        bounds=(np.asarray(variables.lower), np.asarray(variables.upper)),
        method="trf",
        x_scale="jac",
        ftol=1e-12,
        xtol=1e-12,
        gtol=1e-12,
        max_nfev=200,
    )
    return {"evaluations": int(found.nfev), "converged": bool(found.success)}, found.x


def with_optimistix(objective, x, function):
    """`optimistix.LevenbergMarquardt` in the coordinates of the library, which has no bounds."""
    import jax.numpy as jnp
    import numpy as np
    import optimistix as optx

    found = optx.least_squares(
        lambda y, objective: function(objective, y),
        optx.LevenbergMarquardt(rtol=1e-10, atol=1e-10),
        objective.variables.to_coordinates(jnp.asarray(x)),
        args=objective,
        max_steps=200,
        throw=False,
    )
    y = objective.variables.to_physical(found.value)
    converged = bool(found.result == optx.RESULTS.successful)
    return {"evaluations": int(found.stats["num_steps"]), "converged": converged}, np.asarray(y)


def main() -> None:
    """Run one of the programs and print one JSON line."""
    import jax

    jax.config.update("jax_enable_x64", True)
    what, path, *rest = sys.argv[1:]
    if what == "homodyne_data":
        out = write_homodyne_data(path, *map(int, rest))
    elif what == "homodyne_kernel":
        out = homodyne_kernel(path)
    else:
        out = dense(what, path)
    print(json.dumps({"memory": peak_memory(), **out}))


if __name__ == "__main__":
    main()
