"""Local fits from a start 40 % off, each in a fresh process, optionally beside other programs.

    python benchmarks/local_fit.py [--sizes 3x101,3x301,3x1001,23x1001] [--repeats 3] [--quick]
        [--cache FOLDER] [--peers] [--homodyne-python PATH]

Laminar flow with seven free parameters and individual scaling; data with 5 % of the contrast as
independent noise, in a file of the library's own layout. A child process imports, reads the file,
fits twice and leaves; reported are medians over the repeats of

- evaluations of the solver, and whether it converged;
- cold: load, objective and first fit with compilation; warm: the second fit, error bars included;
- one evaluation, and the share of the warm solver time that evaluations take;
- process: wall time of the whole child without the second fit; cpu: processor seconds up to the end
  of the first fit, which other programs on the machine disturb less; memory: the peak until then;
- worst: largest |value − truth| of a parameter in standard errors (classical: the noise here is
  independent).

With `--cache FOLDER` compiled functions are kept there, as `xpcs_eqx.compilation_cache()` does: a
first process fills it (`first_process`, `first_cpu` in the JSON), and those measured find it full.

With `--peers` SciPy (`least_squares`, trf) and Optimistix (`LevenbergMarquardt`) work on the same
residual vector, each pair once, with its dense Jacobian from `jax.jacfwd`, from the same start;
contrast and offset start from quantiles of the data. `--homodyne-python PATH` runs homodyne 2.x
(`pip install homodyne` into an environment of its own) on maps simulated with its own kernel and
integrals, beside this library on the same maps; its deviations are in units of this library's
errors, and the evaluations it reports are its iterations (0 where it reports none).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from common import (
    TRUTH,
    environment,
    laminar,
    machine,
    median,
    peak_memory,
    run,
    run_self,
    sizes,
    start_values,
    table,
    wait_until_quiet,
    write_data,
)

HERE = os.path.dirname(os.path.abspath(__file__))


def fit_child(path: str, cache: str | None = None) -> dict:
    """Load, fit, fit again; called in a process of its own."""
    began = time.perf_counter()
    import jax

    jax.config.update("jax_enable_x64", True)
    from xpcs_eqx import (
        compilation_cache,
        least_squares,
        load,
        parameter_map,
        projected_objective,
    )

    if cache is not None:
        compilation_cache(cache)
    imported = time.perf_counter()
    data = load(path)
    loaded = time.perf_counter()

    def fit_once():
        parameters = parameter_map(laminar(start_values()), data.t)
        objective = projected_objective(parameters, data)
        return objective, least_squares(objective)

    _, fit = fit_once()
    cold = time.perf_counter()
    # Before the second fit, whose objective puts a second copy of the maps beside the first.
    peak, cpu = peak_memory(), time.process_time()
    objective, again = fit_once()
    warm = time.perf_counter()
    one = time_evaluation(objective, fit)
    end = time.perf_counter()
    z = {name: (fit[name].value - TRUTH[name]) / fit[name].error_classical for name in TRUTH}
    timings = dict(again.timings)
    return {
        "evaluations": fit.evaluations,
        "status": fit.status.name,
        "retries": len(fit.recovery),
        "quality": fit.quality.flag,
        "import": imported - began,
        "load": loaded - imported,
        "cold": cold - imported,
        "warm": warm - cold,
        "warm_solver": timings["solver"],
        "warm_uncertainty": timings["uncertainty"],
        "evaluation": one,
        "evaluation_share": again.evaluations * one / (warm - cold),
        "after": end - cold,
        "cpu": cpu,
        "memory": peak,
        "cost": float(fit.cost),
        "worst": max(map(abs, z.values())),
        "z": z,
    }


def time_evaluation(objective, fit) -> float:
    """Seconds of one evaluation, median of five."""
    import jax
    import jax.numpy as jnp

    from xpcs_eqx.optimize.loops import evaluated as evaluate

    y = jnp.asarray(objective.variables.to_coordinates(fit.values[fit.index.physical]))
    jax.block_until_ready(evaluate(objective, y, objective.memo))
    times = []
    for _ in range(5):
        clock = time.perf_counter()
        jax.block_until_ready(evaluate(objective, y, objective.memo))
        times.append(time.perf_counter() - clock)
    return median(times)


def fit_size(path: str, repeats: int, cache: str | None) -> dict:
    """Medians over fresh processes that fit one file, the first left out where it fills a cache."""
    command = (__file__, *([] if cache is None else ["--cache", cache]), "--child", path)
    first = None if cache is None else run_self(*command)
    runs = [run_self(*command) for _ in range(repeats)]
    out = dict(runs[0])
    for key in runs[0]:
        if isinstance(runs[0][key], float):
            out[key] = median([one[key] for one in runs])
    out["process"] = median([one["process"] - one["after"] for one in runs])
    if first is not None:
        out["first_process"] = first["process"] - first["after"]
        out["first_cpu"] = first["cpu"]
    return out


def import_time(repeats: int) -> dict[str, float]:
    """Wall of `import xpcs_eqx` inside a fresh interpreter, and of the whole interpreter."""
    code = "import time; c = time.perf_counter(); import xpcs_eqx; print(time.perf_counter() - c)"
    inside, whole = [], []
    for _ in range(max(repeats, 3)):
        clock = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment(),
        )
        whole.append(time.perf_counter() - clock)
        inside.append(float(done.stdout))
    return {"import": median(inside), "interpreter": median(whole)}


def peers(path: str, shape: tuple[int, int], seed: int, ours: dict, homodyne: str | None) -> dict:
    """What other programs make of the same file; a failure is reported as such."""
    script = os.path.join(HERE, "local_fit_peers.py")
    commands = {name: [sys.executable, script, name, path] for name in ("scipy", "optimistix")}
    if homodyne:
        maps = path + ".npz"
        run_self(script, "homodyne_data", maps, *shape, seed)
        commands["xpcs_eqx, homodyne kernel"] = [sys.executable, script, "homodyne_kernel", maps]
        program = [homodyne, os.path.join(HERE, "local_fit_homodyne.py"), maps]
        commands |= {f"homodyne, {mode}": [*program, mode] for mode in ("auto", "individual")}
    found, errors = {}, None
    for name, command in commands.items():
        print(f"{shape}: {name} …", file=sys.stderr, flush=True)
        try:
            one = run(command, timeout=1800)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            one = {"failed": str(error)[-1500:]}
        if "cost" in one:
            one["cost_ratio"] = one["cost"] / ours["cost"]
        errors = one.get("errors", errors)
        if name.startswith("homodyne") and "values" in one and errors:
            # In units of our errors on the same file: its own are for other parameters.
            z = [abs(one["values"][k] - TRUTH[k]) / errors[k] for k in TRUTH]
            one["worst"] = max(z)
        found[name] = one
    if homodyne:
        os.unlink(maps)
    return found


def main() -> None:
    """Measure, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="3x101,3x301,3x1001,23x1001", help="angles x frames")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each size")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--quick", action="store_true", help="3x101, once")
    parser.add_argument("--quiet-below", type=float, help="wait until the load is below this")
    parser.add_argument("--cache", help="folder of compiled functions; without, none are kept")
    parser.add_argument("--peers", action="store_true", help="SciPy and Optimistix as well")
    parser.add_argument("--homodyne-python", help="an interpreter that has homodyne 2.x")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(fit_child(given.child, given.cache)))
        return
    if given.write:
        path, angles, frames, seed = given.write
        write_data(path, int(angles), int(frames), int(seed))
        print(json.dumps({"written": path}))
        return
    repeats = 1 if given.quick else given.repeats
    report = {"benchmark": "local_fit", "repeats": repeats, **machine(), "fits": {}}
    rows, peer_rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for angles, frames in sizes("3x101" if given.quick else given.sizes):
            size = f"{angles}x{frames}"
            path = os.path.join(folder, f"{size}.h5")
            run_self(__file__, "--write", path, angles, frames, given.seed)
            load = wait_until_quiet(given.quiet_below) if given.quiet_below else os.getloadavg()[0]
            one = {**fit_size(path, repeats, given.cache), "machine_load": load}
            report["fits"][size] = one
            keys = ("evaluations", "status", "cold", "warm", "evaluation", "evaluation_share")
            rows.append((size, *(one[k] for k in (*keys, "process", "cpu", "memory", "worst"))))
            if given.peers or given.homodyne_python:
                found = peers(path, (angles, frames), given.seed, one, given.homodyne_python)
                report["fits"][size]["peers"] = found
                peer_rows += [(f"{size}  {name}", *peer_cells(p)) for name, p in found.items()]
            os.unlink(path)
        report.update(import_time(repeats))
    names = ("evaluations", "status", "cold s", "warm s", "evaluation s", "share")
    print(table(("", *names, "process s", "cpu s", "memory MB", "worst z"), rows))
    print(f"\nimport xpcs_eqx: {report['import']:.2f} s\n")
    if peer_rows:
        header = (
            "",
            "evaluations",
            "end",
            "fit s",
            "process s",
            "memory MB",
            "worst z",
            "cost/ours",
        )
        print(table(header, peer_rows), end="\n\n")
    print(json.dumps(report))


def peer_cells(one: dict) -> tuple:
    """The columns of a peer's row."""
    if "failed" in one:
        return (None, one["failed"].strip().splitlines()[-1][:40], *(None,) * 5)
    keys = ("evaluations", "converged", "fit", "process", "memory", "worst", "cost_ratio")
    return tuple(one.get(key) for key in keys)


if __name__ == "__main__":
    main()
