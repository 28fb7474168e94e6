"""Speed and memory of one evaluation, beside the plain cost and beside `jax.jacfwd`.

    python benchmarks/normal_equations.py [--frames 301,1001] [--repeats 15] [--quick]

Laminar flow, 3 angles, float64. All rates count the pairs of the full square, n² an angle, also
where only half of it is visited. Rows:

- plain: Σ (model − data)² over the full square at given contrast and offset, written directly in
  `jax.numpy`, with `jnp.sinc`: the reference of the ratios;
- plain, own sine: the same with the vectorised sine of this library, the second reference;
- evaluation: cost, Jᵀr and JᵀJ with contrast and offset eliminated, as one compiled function on one
  core; cost: without derivatives;
- evaluation, N cores: the same as a fit asks for it, its tiles shared out over 1, 2, 4, … threads;
- jacfwd: Jacobian of the plain residual by `jax.jacfwd`, then JᵀJ and Jᵀr: for the 7 physical
  parameters, and for the same 13 columns as in the evaluation.

Times are medians of interleaved runs after compilation, which is timed apart; beside the wall the
processor time of all threads, which other programs on the machine disturb less. Memory: what XLA
reserves beyond arguments and results ("buffers"), and the peak of a process that does this one
thing minus the peak of one that only holds the data ("process", compilation included).
"""

import argparse
import json
import os
import time

from common import (
    CONTRAST,
    GAP,
    OFFSET,
    TRUTH,
    Q,
    laminar,
    machine,
    median,
    peak_memory,
    run_self,
    simulated,
    table,
    wait_until_quiet,
)

N_ANGLES = 3
CORES = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= (os.cpu_count() or 1)]
ON_CORES = {f"evaluation, {n} core{'s' * (n > 1)}": n for n in CORES}
COMPILED = ("plain", "plain, own sine", "evaluation", "cost", "jacfwd, 7 columns", "jacfwd")
KINDS = (*COMPILED, *ON_CORES)


def plain_model(theta, contrast, offset, t, phi, sinc):
    """c2 over the full square, from the formula and nothing else."""
    import jax.numpy as jnp

    d0, alpha, d_offset, g0, beta, g_offset, phi0 = theta
    transport = d0 * t ** (alpha + 1) / (alpha + 1) + d_offset * t
    shear = g0 * t ** (beta + 1) / (beta + 1) + g_offset * t
    spread = Q**2 * jnp.abs(transport[None, :] - transport[:, None])
    strain = jnp.abs(shear[None, :] - shear[:, None])
    phase = 0.5 * Q * GAP * jnp.cos(jnp.deg2rad(phi0 - phi))[:, None, None] * strain
    return offset[:, None, None] + contrast[:, None, None] * jnp.exp(-spread) * sinc(phase) ** 2


def programs(n_frames: int):
    """Functions of (y, maps, scaling) and (objective, y, memo), with their arguments, by kind."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from xpcs_eqx import parameter_map, projected_objective
    from xpcs_eqx.compiling import quick_jit
    from xpcs_eqx.cores import VARIABLE
    from xpcs_eqx.optimize.loops import evaluated
    from xpcs_eqx.physics.trigonometry import sinc

    data = simulated(N_ANGLES, n_frames)
    parameters = parameter_map(laminar(TRUTH), data.t)
    objective = projected_objective(parameters, data)
    y = jnp.asarray(parameters.to_coordinates(parameters.start)) * 1.01
    scaling = jnp.tile(jnp.array([CONTRAST, OFFSET]), (N_ANGLES, 1))
    memo = eqx.tree_at(lambda m: m.scaling, objective.memo, scaling)
    t, phi = jnp.asarray(data.t), jnp.asarray(data.geometry.phi)
    c2 = jnp.asarray(data.c2)

    def residual(y, scaling, c2, kind):
        theta = parameters.to_physical(y)
        return plain_model(theta, scaling[:, 0], scaling[:, 1], t, phi, kind) - c2

    def numpy_sinc(x):
        return jnp.sinc(x / jnp.pi)

    def cost(kind):
        return lambda y, scaling, c2: jnp.sum(residual(y, scaling, c2, kind) ** 2)

    def physical(y, scaling, c2):
        r = residual(y, scaling, c2, numpy_sinc).ravel()
        jacobian = jax.jacfwd(residual)(y, scaling, c2, numpy_sinc).reshape(r.size, -1)
        return jacobian.T @ jacobian, jacobian.T @ r

    def everything(y, scaling, c2):
        r = residual(y, scaling, c2, numpy_sinc).ravel()
        parts = jax.jacfwd(residual, argnums=(0, 1))(y, scaling, c2, numpy_sinc)
        jacobian = jnp.concatenate([part.reshape(r.size, -1) for part in parts], axis=1)
        return jacobian.T @ jacobian, jacobian.T @ r

    def on_cores(count):
        def evaluate(*point):
            os.environ[VARIABLE] = str(count)
            return evaluated(*point)

        return evaluate

    maps = (y, scaling, c2)
    point = (objective, y, memo)
    return {
        "plain": (jax.jit(cost(numpy_sinc)), maps),
        "plain, own sine": (jax.jit(cost(sinc)), maps),
        # Compiled as in a fit.
        "evaluation": (quick_jit(lambda o, y, m: o.evaluate(y, m)), point),
        "cost": (quick_jit(lambda o, y, m: o.cost(y, m)), point),
        "jacfwd, 7 columns": (jax.jit(physical), maps),
        "jacfwd": (jax.jit(everything), maps),
        **{kind: (on_cores(count), point) for kind, count in ON_CORES.items()},
    }


def agreement(made) -> dict[str, float]:
    """Relative differences between the plain sums and the library's, at the same scaling."""
    import jax.numpy as jnp
    import numpy as np

    from xpcs_eqx.objective import Linear, joint_equations

    plain, (y, scaling, c2) = made["plain"]
    objective = made["evaluation"][1][0]
    equations = objective.term.angle_equations(y, scaling, Linear())
    ours = joint_equations(equations, scaling[:, 0], objective.term.scaling)
    diagonal = jnp.diagonal(c2, axis1=1, axis2=2) - jnp.sum(scaling, axis=1)[:, None]
    # Each pair twice, and ½ Σ r² against Σ r²; the diagonal has no derivative.
    whole = float(plain(y, scaling, c2) - jnp.sum(diagonal**2))
    curvature = np.asarray(made["jacfwd, 7 columns"][0](y, scaling, c2)[0])
    half = np.asarray(ours.hessian)[:7, :7]
    scale = np.sqrt(np.diagonal(half))
    return {
        "cost": abs(4 * float(ours.cost) / whole - 1),
        "JtJ": float(np.max(np.abs(curvature / 2 - half) / np.outer(scale, scale))),
    }


def memory(kind: str, n_frames: int) -> dict[str, float | None]:
    """In a fresh process: hold the data, do this one thing, and say how much that took [MB]."""
    import jax

    jax.config.update("jax_enable_x64", True)
    made = programs(n_frames)
    if kind == "data":
        jax.block_until_ready(jax.tree.leaves(made["plain"][1]))
        return {"peak": peak_memory()}
    function, arguments = made[kind]
    jax.block_until_ready(function(*arguments))
    return {"peak": peak_memory()}


def measure(n_frames: int, repeats: int, slow_repeats: int) -> dict[str, dict]:
    """Seconds by kind, compile apart, repeats interleaved."""
    import jax

    made = programs(n_frames)
    out, compiled = {}, {}
    runs, work = {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}
    for kind in KINDS:
        function, arguments = made[kind]
        clock = time.perf_counter()
        if kind in ON_CORES:
            jax.block_until_ready(function(*arguments))
            compiled[kind] = function
            out[kind] = {"compile": time.perf_counter() - clock, "buffers": None}
            continue
        compiled[kind] = function.lower(*arguments).compile()
        out[kind] = {"compile": time.perf_counter() - clock}
        analysed = getattr(compiled[kind], "compiled", compiled[kind]).memory_analysis()
        out[kind]["buffers"] = None if analysed is None else analysed.temp_size_in_bytes / 1e6
        jax.block_until_ready(compiled[kind](*arguments))
    for repeat in range(repeats):
        for kind in KINDS:
            if kind.startswith("jacfwd") and repeat >= slow_repeats:
                continue
            arguments = made[kind][1]
            clock, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled[kind](*arguments))
            runs[kind].append(time.perf_counter() - clock)
            work[kind].append(time.process_time() - cpu)
    for kind in KINDS:
        out[kind]["cpu"] = median(work[kind])
        out[kind]["seconds"] = median(runs[kind])
        out[kind]["fastest"] = min(runs[kind])
        out[kind]["million_pairs_per_second"] = N_ANGLES * n_frames**2 / median(runs[kind]) / 1e6
    for kind in KINDS:
        out[kind]["ratio"] = out[kind]["seconds"] / out["plain"]["seconds"]
        out[kind]["cpu_ratio"] = out[kind]["cpu"] / out["plain"]["cpu"]
        out[kind]["cpu_ratio_own_sine"] = out[kind]["cpu"] / out["plain, own sine"]["cpu"]
        out[kind]["wall_over_cpu"] = out[kind]["seconds"] / out[kind]["cpu"]
    out["agreement"] = agreement(made)
    return out


def main() -> None:
    """Measure, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", default="301,1001", help="numbers of frames")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="101 frames, 3 repeats")
    parser.add_argument("--quiet-below", type=float, help="wait until the load is below this")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    frames = [int(n) for n in ("101" if given.quick else given.frames).split(",")]
    repeats = 3 if given.quick else given.repeats
    if given.memory:
        print(json.dumps(memory(given.memory, frames[0])))
        return
    load = wait_until_quiet(given.quiet_below) if given.quiet_below else None

    import jax

    jax.config.update("jax_enable_x64", True)
    report = {"benchmark": "normal_equations", "angles": N_ANGLES, **machine(), "load": load}
    rows = []
    for n in frames:
        measured = measure(n, repeats, min(repeats, 3))
        peaks = {
            kind: run_self(__file__, "--memory", kind, "--frames", n)["peak"]
            for kind in ("data", *KINDS)
        }
        for kind in KINDS:
            one = measured[kind]
            one["process"] = peaks[kind] - peaks["data"]
            keys = ("seconds", "million_pairs_per_second", "ratio", "cpu", "cpu_ratio")
            keys = (*keys, "cpu_ratio_own_sine", "compile")
            rows.append(
                (f"3 x {n}  {kind}", *(one[k] for k in keys), one["buffers"], one["process"])
            )
        measured["data_process_mb"] = peaks["data"]
        measured["evaluation_over_plain"] = measured["evaluation"]["ratio"]
        for name, kind in (("jacfwd", "jacfwd"), ("jacfwd_7_columns", "jacfwd, 7 columns")):
            ratio = measured[kind]["seconds"] / measured["evaluation"]["seconds"]
            measured[f"{name}_over_evaluation"] = ratio
        report[f"3x{n}"] = measured
    header = (
        "",
        "s",
        "Mpairs/s",
        "/ plain",
        "cpu s",
        "/ plain",
        "/ own sine",
        "compile s",
        "buffers MB",
        "process MB",
    )
    print(table(header, rows))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
